//! Values in files of text as they are: what the readers underneath do to them is kept from happening by asking for
//! other types. They cut off digits that a type has no place for, so they are asked for one digit more of a decimal,
//! which decides how it is rounded, and of JSON for the text of an integer. That of JSON takes sixteen times the
//! memory of texts when it makes views of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray,
    StructArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::values::types::{pg_type, sql_name};

/// Digits of an integer, at most.
const MAX_DIGITS: usize = 20;

/// Which types a reader is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Csv,
    Json,
}

/// The columns that a reader is asked for in place of these.
pub(super) fn asked(columns: &Schema, source: Source) -> SchemaRef {
    let fields: Fields = columns.fields().iter().map(|field| asked_field(field, source)).collect();
    Arc::new(Schema::new_with_metadata(fields, columns.metadata().clone()))
}

fn asked_field(field: &Arc<Field>, source: Source) -> Arc<Field> {
    let kind = asked_type(field.data_type(), source);
    match kind == *field.data_type() {
        true => field.clone(),
        false => Arc::new(field.as_ref().clone().with_data_type(kind)),
    }
}

fn asked_type(kind: &DataType, source: Source) -> DataType {
    use DataType::*;
    match kind {
        // Places in front of the point mean nothing to the readers.
        Decimal32(_, ..-1) | Decimal64(_, ..-1) | Decimal128(_, ..-1) | Decimal256(_, ..-1) => {
            Decimal256(76, 0)
        }
        Decimal32(precision, scale)
        | Decimal64(precision, scale)
        | Decimal128(precision, scale)
            if *precision < 38 =>
        {
            Decimal128(precision + 1, scale + 1)
        }
        Decimal128(precision, scale) => Decimal256(precision + 1, scale + 1),
        Decimal256(precision, scale) if *precision < 76 => Decimal256(precision + 1, scale + 1),
        Int8 | Int16 | Int32 | Int64 | Utf8View if source == Source::Json => Utf8,
        Struct(fields) => Struct(fields.iter().map(|it| asked_field(it, source)).collect()),
        List(field) => List(asked_field(field, source)),
        other => other.clone(),
    }
}

/// What was read, in the types that the columns have.
pub(super) fn settled(batch: RecordBatch, columns: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema_ref() == columns {
        return Ok(batch);
    }
    let arrays = batch.columns().iter().zip(columns.fields());
    let arrays = arrays.map(|(array, field)| of_type(array, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(columns.clone(), arrays.collect::<Result<_, _>>()?, &options)
}

fn of_type(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == kind {
        return Ok(array.clone());
    }
    match (array.data_type(), kind) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let array = array.as_struct();
            let parts = array.columns().iter().zip(fields);
            let parts = parts.map(|(part, field)| of_type(part, field.data_type()));
            let parts = parts.collect::<Result<_, _>>()?;
            let made = StructArray::try_new(fields.clone(), parts, array.nulls().cloned());
            Ok(Arc::new(made?))
        }
        (DataType::List(_), DataType::List(field)) => {
            let array = array.as_list::<i32>();
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            let values = of_type(array.values(), field.data_type())?;
            Ok(Arc::new(ListArray::try_new(field.clone(), offsets, values, nulls)?))
        }
        (DataType::Utf8, _) if kind.is_integer() => cast(&integers(array.as_string(), kind)?, kind),
        _ => cast(array, kind),
    }
}

fn cast(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, kind, &CastOptions { safe: false, ..CastOptions::default() })
}

fn integers(texts: &StringArray, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    let number = |text: &str| {
        integer(text).ok_or_else(|| {
            let kind = sql_name(pg_type(&Field::new("", kind.clone(), true)).name());
            ArrowError::JsonError(format!("invalid input syntax for type {kind}: \"{text}\""))
        })
    };
    let numbers = texts.iter().map(|text| text.map(number).transpose());
    Ok(Arc::new(numbers.collect::<Result<Int64Array, _>>()?))
}

/// An integer, perhaps written as `1.0` or `1e3`.
fn integer(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let meant = digits.trim_end_matches('0');
    if meant.is_empty() {
        return exponent.parse::<i64>().is_ok().then_some(0);
    }
    // Zeros behind what is meant.
    let zeros =
        i64::try_from(digits.len() - meant.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let zeros = usize::try_from(exponent.parse::<i64>().ok()?.checked_add(zeros)?).ok()?;
    (zeros < MAX_DIGITS).then(|| format!("{sign}{meant}{}", "0".repeat(zeros)).parse().ok())?
}

#[cfg(test)]
mod tests {
    use arrow::json::ReaderBuilder;

    use super::*;

    /// The values of a column of JSON, as text.
    fn read(kind: DataType, values: &[&str]) -> Result<Vec<String>, ArrowError> {
        let columns = Arc::new(Schema::new(vec![Field::new("a", kind, true)]));
        let text: String = values.iter().map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let asked = asked(&columns, Source::Json);
        let reader = ReaderBuilder::new(asked).with_coerce_primitive(true).build(text.as_bytes());
        let batch = reader?.next().expect("rows")?;
        let column = settled(batch, &columns)?.column(0).clone();
        let texts = cast(&column, &DataType::Utf8)?;
        Ok(texts.as_string::<i32>().iter().map(|text| text.unwrap_or("-").to_owned()).collect())
    }

    #[test]
    fn decimals_are_rounded_and_not_cut() {
        for kind in [DataType::Decimal128(10, 2), DataType::Decimal128(38, 2)] {
            let values = ["1.999", "-0.005", "0.00499", "\"12.345\"", "1e2", "7", "null"];
            let read = read(kind, &values).expect("read");
            assert_eq!(read, ["2.00", "-0.01", "0.00", "12.35", "100.00", "7.00", "-"]);
        }
        let hundreds = read(DataType::Decimal128(5, -2), &["149.99", "150", "-1234567"]);
        assert_eq!(hundreds.expect("read"), ["100", "200", "-1234600"]);
        let told = read(DataType::Decimal128(4, 2), &["99.999"]).expect_err("too large");
        assert!(told.to_string().contains("too large"), "{told}");
    }

    #[test]
    fn integers_have_no_fractions() {
        let values =
            ["1", "1.0", "-2e2", "\"3\"", "9223372036854775807", "null", "9007199254740993.0"];
        let read_well = read(DataType::Int64, &values).expect("read");
        assert_eq!(
            read_well,
            ["1", "1", "-200", "3", "9223372036854775807", "-", "9007199254740993"]
        );
        let values = ["120e-1", "-9.223372036854775808e18", "0e-999", "-0.0", "1.50E1", "00100e-2"];
        let read_well = read(DataType::Int64, &values).expect("read");
        assert_eq!(read_well, ["12", "-9223372036854775808", "0", "0", "15", "1"]);
        for value in [
            "4503599627370496.5",
            "1e-400",
            "1e400",
            "2.5",
            "-0.9",
            "1e-1",
            "9223372036854775808",
            "true",
        ] {
            let told = read(DataType::Int64, &[value]).expect_err(value).to_string();
            assert!(told.contains("for type bigint"), "{told}");
        }
        assert!(read(DataType::Int16, &["40000"]).is_err());
        let part = Field::new("item", DataType::Int32, true);
        let list = DataType::List(Arc::new(part.clone()));
        assert!(read(list, &["[1, 2.5]"]).is_err());
        let object = DataType::Struct(vec![Field::new("b", DataType::Int32, true)].into());
        assert!(read(object, &["{\"b\": 2.5}"]).is_err());
    }
}
