//! Partition transforms, as the Iceberg specification defines them: what a column's values become
//! as those of a partition, and how those are written in the names of directories.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iceberg::spec::{Literal, PrimitiveLiteral, PrimitiveType, Transform};
use uuid::Uuid;

use crate::storage::{Error, Result};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
const EPOCH_YEAR: i64 = 1970;

/// The transformed values of a column that has one of the types of
/// [`arrow_schema`](super::types::arrow_schema); NULL stays NULL.
pub fn apply(transform: Transform, column: &ArrayRef) -> Result<ArrayRef> {
    match transform {
        Transform::Identity => Ok(column.clone()),
        Transform::Void => Ok(new_null_array(column.data_type(), column.len())),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            time(transform, column)
        }
        Transform::Bucket(buckets @ 1..) => bucket(buckets, column),
        Transform::Truncate(width @ 1..) => truncate(width, column),
        Transform::Bucket(_) | Transform::Truncate(_) | Transform::Unknown => {
            Err(unsuitable(transform, column))
        }
    }
}

fn unsuitable(transform: Transform, column: &ArrayRef) -> Error {
    let kind = column.data_type();
    Error::BadSchema(format!("the partition transform {transform} does not suit the type {kind}"))
}

fn time(transform: Transform, column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Date32 if transform != Transform::Hour => {
            let days = column.as_primitive::<Date32Type>();
            Ok(match transform {
                Transform::Day => column.clone(),
                _ => Arc::new(days.unary::<_, Int32Type>(|days| date_part(transform, days))),
            })
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>();
            // Fits: the years of 64 bits of microseconds have 6 digits.
            let days = |micros: i64| micros.div_euclid(MICROS_PER_DAY) as i32;
            Ok(match transform {
                Transform::Day => Arc::new(micros.unary::<_, Date32Type>(days)),
                Transform::Hour => Arc::new(hours(micros)?),
                _ => Arc::new(micros.unary::<_, Int32Type>(|at| date_part(transform, days(at)))),
            })
        }
        _ => Err(unsuitable(transform, column)),
    }
}

/// Years or months since 1970.
fn date_part(transform: Transform, days: i32) -> i32 {
    let (year, month, _) = civil(i64::from(days));
    let years = year - EPOCH_YEAR;
    let part = if transform == Transform::Year { years } else { years * 12 + month - 1 };
    part as i32
}

/// Hours since 1970; far from it they do not fit into the 32 bits that Iceberg has for them.
fn hours(micros: &TimestampMicrosecondArray) -> Result<Int32Array> {
    let out_of_range = |_| Error::NoPartition { transform: Transform::Hour.to_string() };
    let hour = |micros: Option<i64>| {
        micros.map(|at| i32::try_from(at.div_euclid(MICROS_PER_HOUR))).transpose()
    };
    micros.iter().map(hour).collect::<Result<_, _>>().map_err(out_of_range)
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar (Howard Hinnant's
/// `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn bucket(buckets: u32, column: &ArrayRef) -> Result<ArrayRef> {
    // At most 31 bits are left of the hash, so the remainder fits.
    let of = |hash: u32| ((hash & 0x7fff_ffff) % buckets) as i32;
    let long = |value: i64| of(murmur3(&value.to_le_bytes()));
    let bytes = |value: &[u8]| of(murmur3(value));
    let hashed: Int32Array = match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().unary(|v| long(v.into())),
        DataType::Date32 => column.as_primitive::<Date32Type>().unary(|v| long(v.into())),
        DataType::Int64 => column.as_primitive::<Int64Type>().unary(long),
        DataType::Time64(TimeUnit::Microsecond) => {
            column.as_primitive::<Time64MicrosecondType>().unary(long)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().unary(long)
        }
        DataType::Decimal128(..) => {
            column.as_primitive::<Decimal128Type>().unary(|v| bytes(shortest(&v.to_be_bytes())))
        }
        DataType::Utf8 => {
            let texts = column.as_string::<i32>().iter();
            texts.map(|text| text.map(|text| bytes(text.as_bytes()))).collect()
        }
        DataType::Binary => column.as_binary::<i32>().iter().map(|v| v.map(bytes)).collect(),
        DataType::FixedSizeBinary(_) => {
            column.as_fixed_size_binary().iter().map(|v| v.map(bytes)).collect()
        }
        _ => return Err(unsuitable(Transform::Bucket(buckets), column)),
    };
    Ok(Arc::new(hashed))
}

/// The fewest bytes of a big-endian two's complement that mean the same number.
pub(super) fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let repeated = |pair: &&[u8]| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0;
    let superfluous = bytes.windows(2).take_while(repeated).count();
    &bytes[superfluous..]
}

/// MurmurHash3 for x86, 32 bits, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let scramble =
        |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for word in words {
        hash ^= scramble(u32::from_le_bytes(*word));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        hash ^= scramble(u32::from_le_bytes(last));
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn truncate(width: u32, column: &ArrayRef) -> Result<ArrayRef> {
    let characters = width as usize;
    Ok(match column.data_type() {
        DataType::Int32 => {
            // A width beyond all values leaves only the sign.
            let floor = |v: i32| {
                let width = i64::from(width);
                i64::from(v).wrapping_sub(i64::from(v).rem_euclid(width)) as i32
            };
            Arc::new(column.as_primitive::<Int32Type>().unary::<_, Int32Type>(floor))
        }
        DataType::Int64 => {
            let floor = |v: i64| v.wrapping_sub(v.rem_euclid(width.into()));
            Arc::new(column.as_primitive::<Int64Type>().unary::<_, Int64Type>(floor))
        }
        DataType::Decimal128(..) => {
            let floor = |v: i128| v.wrapping_sub(v.rem_euclid(width.into()));
            let values = column.as_primitive::<Decimal128Type>();
            let floored = values.unary::<_, Decimal128Type>(floor);
            Arc::new(floored.with_data_type(column.data_type().clone()))
        }
        DataType::Utf8 => {
            let texts = column.as_string::<i32>().iter();
            let cut = texts.map(|text| text.map(|text| first_characters(text, characters)));
            Arc::new(cut.collect::<StringArray>())
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>().iter();
            let cut = values.map(|value| value.map(|v| &v[..v.len().min(characters)]));
            Arc::new(cut.collect::<BinaryArray>())
        }
        _ => return Err(unsuitable(Transform::Truncate(width), column)),
    })
}

/// The first `count` characters.
pub(super) fn first_characters(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(end, _)| &text[..end])
}

/// A transformed value as Iceberg's metadata has it; `kind` is the transform's result type.
pub fn literal(values: &dyn Array, row: usize, kind: &PrimitiveType) -> Result<Option<Literal>> {
    if values.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match (kind, values.data_type()) {
        (PrimitiveType::Boolean, DataType::Boolean) => {
            Literal::bool(values.as_boolean().value(row))
        }
        (PrimitiveType::Int, DataType::Int32) => {
            Literal::int(values.as_primitive::<Int32Type>().value(row))
        }
        (PrimitiveType::Long, DataType::Int64) => {
            Literal::long(values.as_primitive::<Int64Type>().value(row))
        }
        (PrimitiveType::Float, DataType::Float32) => {
            Literal::float(values.as_primitive::<Float32Type>().value(row))
        }
        (PrimitiveType::Double, DataType::Float64) => {
            Literal::double(values.as_primitive::<Float64Type>().value(row))
        }
        (PrimitiveType::Decimal { .. }, DataType::Decimal128(..)) => {
            Literal::decimal(values.as_primitive::<Decimal128Type>().value(row))
        }
        (PrimitiveType::Date, DataType::Date32) => {
            Literal::date(values.as_primitive::<Date32Type>().value(row))
        }
        (PrimitiveType::Time, DataType::Time64(TimeUnit::Microsecond)) => {
            Literal::time(values.as_primitive::<Time64MicrosecondType>().value(row))
        }
        (
            PrimitiveType::Timestamp | PrimitiveType::Timestamptz,
            DataType::Timestamp(TimeUnit::Microsecond, _),
        ) => Literal::timestamp(values.as_primitive::<TimestampMicrosecondType>().value(row)),
        (PrimitiveType::String, DataType::Utf8) => {
            Literal::string(values.as_string::<i32>().value(row))
        }
        (PrimitiveType::Uuid, DataType::FixedSizeBinary(16)) => {
            let bytes = values.as_fixed_size_binary().value(row);
            Literal::uuid(Uuid::from_slice(bytes).unwrap_or_default())
        }
        (PrimitiveType::Fixed(_), DataType::FixedSizeBinary(_)) => {
            Literal::fixed(values.as_fixed_size_binary().value(row).iter().copied())
        }
        (PrimitiveType::Binary, DataType::Binary) => {
            Literal::binary(values.as_binary::<i32>().value(row).iter().copied())
        }
        (kind, other) => {
            return Err(Error::BadSchema(format!("a partition of {kind} has values of {other}")));
        }
    }))
}

/// A transformed value as other writers of Iceberg tables name directories after it. `kind` is the
/// transform's result type.
pub fn human(transform: Transform, kind: &PrimitiveType, value: Option<&Literal>) -> String {
    let value = match value {
        Some(Literal::Primitive(value)) if transform != Transform::Void => value,
        _ => return "null".to_owned(),
    };
    match (transform, kind, value) {
        (Transform::Year, _, PrimitiveLiteral::Int(years)) => {
            format!("{:04}", EPOCH_YEAR + i64::from(*years))
        }
        (Transform::Month, _, PrimitiveLiteral::Int(months)) => {
            let months = i64::from(*months);
            format!("{:04}-{:02}", EPOCH_YEAR + months.div_euclid(12), months.rem_euclid(12) + 1)
        }
        (Transform::Hour, _, PrimitiveLiteral::Int(hours)) => {
            let hours = i64::from(*hours);
            format!("{}-{:02}", date(hours.div_euclid(24)), hours.rem_euclid(24))
        }
        (_, PrimitiveType::Date, PrimitiveLiteral::Int(days)) => date((*days).into()),
        (_, PrimitiveType::Time, PrimitiveLiteral::Long(micros)) => time_of_day(*micros),
        (_, PrimitiveType::Timestamp, PrimitiveLiteral::Long(micros)) => moment(*micros),
        (_, PrimitiveType::Timestamptz, PrimitiveLiteral::Long(micros)) => {
            format!("{}+00:00", moment(*micros))
        }
        (_, PrimitiveType::Decimal { precision, scale }, PrimitiveLiteral::Int128(value)) => {
            // Both are checked where the column's type is read.
            Decimal128Type::format_decimal(*value, *precision as u8, *scale as i8)
        }
        (_, _, PrimitiveLiteral::Boolean(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Int(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Long(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Float(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Double(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Int128(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::UInt128(value)) => Uuid::from_u128(*value).to_string(),
        (_, _, PrimitiveLiteral::String(value)) => value.clone(),
        (_, _, PrimitiveLiteral::Binary(value)) => BASE64_STANDARD.encode(value),
        (_, _, PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin) => "null".to_owned(),
    }
}

fn date(days: i64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn time_of_day(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => format!("{hour:02}:{minute:02}:{second:02}"),
        _ => format!("{hour:02}:{minute:02}:{second:02}.{fraction:06}"),
    }
}

fn moment(micros: i64) -> String {
    let time = time_of_day(micros.rem_euclid(MICROS_PER_DAY));
    format!("{}T{time}", date(micros.div_euclid(MICROS_PER_DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(transform: Transform, column: impl Array + 'static) -> Vec<Option<i32>> {
        let column: ArrayRef = Arc::new(column);
        apply(transform, &column).unwrap().as_primitive::<Int32Type>().iter().collect()
    }

    /// The specification's table in "Appendix B: 32-bit Hash Requirements".
    #[test]
    fn hashes_are_those_of_the_specification() {
        let long = |value: i64| murmur3(&value.to_le_bytes()) as i32;
        assert_eq!(long(34), 2_017_239_379);
        let decimal = 1420_i128.to_be_bytes();
        assert_eq!(murmur3(shortest(&decimal)) as i32, -500_754_589);
        let date = 17486; // 2017-11-16
        assert_eq!(long(date), -653_330_422);
        let time = 81_068_000_000; // 22:31:08
        assert_eq!(long(time), -662_762_989);
        let timestamp = date * MICROS_PER_DAY + time;
        assert_eq!(long(timestamp), -2_047_944_441);
        assert_eq!(long(timestamp + 1), -1_207_196_810);
        assert_eq!(murmur3(b"iceberg") as i32, 1_210_000_089);
        let uuid = Uuid::parse_str("f79c3e09-677c-4bbd-a479-3f349cb785e7").unwrap();
        assert_eq!(murmur3(uuid.as_bytes()) as i32, 1_488_055_340);
        assert_eq!(murmur3(&[0, 1, 2, 3]) as i32, -188_683_207);
    }

    #[test]
    fn numbers_have_their_fewest_bytes() {
        let bytes = |value: i128| shortest(&value.to_be_bytes()).to_vec();
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(-1), [0xff]);
        assert_eq!(bytes(127), [0x7f]);
        assert_eq!(bytes(128), [0, 0x80]);
        assert_eq!(bytes(-128), [0x80]);
        assert_eq!(bytes(-129), [0xff, 0x7f]);
        assert_eq!(bytes(i128::MIN).len(), 16);
    }

    #[test]
    fn buckets_are_the_hash_without_its_sign() {
        let expected = (2_017_239_379 % 16, (-653_330_422_i32 & i32::MAX) % 16);
        let bucket = Transform::Bucket(16);
        let (some, null) = (Some(expected.0), None);
        assert_eq!(ints(bucket, Int32Array::from(vec![Some(34), None])), [some, null]);
        assert_eq!(ints(bucket, Int64Array::from(vec![Some(34), None])), [some, null]);
        assert_eq!(ints(bucket, Date32Array::from(vec![17486])), [Some(expected.1)]);
        let decimals = Decimal128Array::from(vec![1420]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(ints(bucket, decimals), [Some((-500_754_589_i32 & i32::MAX) % 16)]);
        assert_eq!(ints(bucket, StringArray::from(vec!["iceberg"])), [Some(1_210_000_089 % 16)]);
        let fixed = FixedSizeBinaryArray::try_from_iter([[0, 1, 2, 3]].iter()).unwrap();
        let expected = (-188_683_207_i32 & i32::MAX) % 16;
        assert_eq!(ints(bucket, fixed), [Some(expected)]);
        assert_eq!(ints(bucket, BinaryArray::from(vec![&[0, 1, 2, 3][..]])), [Some(expected)]);
    }

    #[test]
    fn times_before_1970_count_downwards() {
        let days = || Date32Array::from(vec![Some(0), Some(-1), Some(17486), Some(-365), None]);
        let expected = [Some(0), Some(-1), Some(47), Some(-1), None];
        assert_eq!(ints(Transform::Year, days()), expected);
        let expected = [Some(0), Some(-1), Some(574), Some(-12), None];
        assert_eq!(ints(Transform::Month, days()), expected);
        let column: ArrayRef = Arc::new(days());
        assert_eq!(&apply(Transform::Day, &column).unwrap(), &column);
        let moments = || {
            let micros = vec![Some(0), Some(-1), Some(1_510_871_468_000_001), None];
            TimestampMicrosecondArray::from(micros).with_timezone("UTC")
        };
        assert_eq!(ints(Transform::Hour, moments()), [Some(0), Some(-1), Some(419_686), None]);
        assert_eq!(ints(Transform::Month, moments()), [Some(0), Some(-1), Some(574), None]);
        let column: ArrayRef = Arc::new(moments());
        let days = apply(Transform::Day, &column).unwrap();
        let expected = Date32Array::from(vec![Some(0), Some(-1), Some(17486), None]);
        assert_eq!(days.as_primitive::<Date32Type>(), &expected);
    }

    #[test]
    fn the_ends_of_the_calendar_are_within_it() {
        let days = Date32Array::from(vec![i32::MIN, i32::MAX]);
        assert_eq!(ints(Transform::Year, days), [Some(-5_879_611), Some(5_879_610)]);
        let ends: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]));
        assert!(apply(Transform::Day, &ends).is_ok());
        assert!(matches!(apply(Transform::Hour, &ends), Err(Error::NoPartition { .. })));
    }

    #[test]
    fn truncation_is_towards_less() {
        let ten = Transform::Truncate(10);
        let values = Int32Array::from(vec![Some(1), Some(-1), Some(10), None]);
        assert_eq!(ints(ten, values), [Some(0), Some(-10), Some(10), None]);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![-11, 19]));
        let cut = apply(ten, &values).unwrap();
        assert_eq!(cut.as_primitive::<Int64Type>().values(), &[-20, 10]);
        let decimals = Decimal128Array::from(vec![1065]).with_precision_and_scale(4, 2).unwrap();
        let decimals: ArrayRef = Arc::new(decimals);
        let cut = apply(Transform::Truncate(50), &decimals).unwrap();
        assert_eq!(cut.data_type(), &DataType::Decimal128(4, 2));
        assert_eq!(cut.as_primitive::<Decimal128Type>().value(0), 1050);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("iceberg"), Some("äöü"), None]));
        let cut = apply(Transform::Truncate(3), &texts).unwrap();
        let expected = StringArray::from(vec![Some("ice"), Some("äöü"), None]);
        assert_eq!(cut.as_string::<i32>(), &expected);
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&[1, 2, 3][..], &[9]]));
        let cut = apply(Transform::Truncate(2), &bytes).unwrap();
        assert_eq!(cut.as_binary::<i32>().value(0), [1, 2]);
        assert_eq!(cut.as_binary::<i32>().value(1), [9]);
        let least = Int32Array::from(vec![i32::MIN]);
        let cut = ints(Transform::Truncate(u32::MAX), least)[0];
        assert_eq!(cut, Some((-i64::from(u32::MAX)) as i32));
    }

    #[test]
    fn void_is_null_and_what_does_not_fit_is_refused() {
        let column: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert_eq!(apply(Transform::Void, &column).unwrap().null_count(), 1);
        let unsuited = [Transform::Year, Transform::Bucket(4), Transform::Truncate(4)];
        for transform in unsuited.into_iter().chain([Transform::Bucket(0), Transform::Unknown]) {
            assert!(matches!(apply(transform, &column), Err(Error::BadSchema(_))), "{transform}");
        }
    }

    #[test]
    fn values_have_the_names_that_other_writers_give_them() {
        let int = PrimitiveType::Int;
        let cases = [
            (Transform::Year, int.clone(), Literal::int(47), "2017"),
            (Transform::Month, int.clone(), Literal::int(-1), "1969-12"),
            (Transform::Day, PrimitiveType::Date, Literal::date(17501), "2017-12-01"),
            (Transform::Hour, int.clone(), Literal::int(-1), "1969-12-31-23"),
            (Transform::Bucket(4), int, Literal::int(3), "3"),
            (
                Transform::Identity,
                PrimitiveType::Timestamptz,
                Literal::timestamptz(1_512_123_175_038_194),
                "2017-12-01T10:12:55.038194+00:00",
            ),
            (Transform::Identity, PrimitiveType::Time, Literal::time(36_775_000_000), "10:12:55"),
            (
                Transform::Truncate(10),
                PrimitiveType::Decimal { precision: 9, scale: 2 },
                Literal::decimal(-1420),
                "-14.20",
            ),
            (Transform::Identity, PrimitiveType::Binary, Literal::binary([1, 2, 3]), "AQID"),
            (Transform::Identity, PrimitiveType::String, Literal::string("a/b"), "a/b"),
        ];
        for (transform, kind, value, name) in cases {
            assert_eq!(human(transform, &kind, Some(&value)), name);
        }
        assert_eq!(human(Transform::Identity, &PrimitiveType::String, None), "null");
    }
}
