//! Values from text and to text, as PostgreSQL reads and writes them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, ListArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use postgres_types::Type;

use super::session_zone;
use crate::values::decode;
use crate::values::encode::{Format, TextStyle, TimeZone, text};
use crate::values::types::{dimensions, is_text, json_type, pg_type};

/// A cast of a constant text as its value, and of an exact number as the nearest inexact one; `None`
/// for any other cast.
pub(super) fn constant(expr: &Expr, field: &FieldRef, zone: &TimeZone) -> Result<Option<Expr>> {
    let Expr::Literal(constant, _) = expr else { return Ok(None) };
    let Some(pg) = readable(field) else { return Ok(None) };
    let inexact = field.data_type().is_floating();
    let text = match constant {
        ScalarValue::Decimal128(Some(_), ..) | ScalarValue::Decimal256(Some(_), ..) if inexact => {
            constant.to_string()
        }
        other => match other.try_as_str() {
            Some(Some(text)) => text.to_owned(),
            _ => return Ok(None),
        },
    };
    let value = value(&text, &pg, field, zone)?;
    // The engine takes constants for different ones of which one has metadata and the other has none, be that
    // as empty as it may: `v = '10' AND v = 10` would hold for no row.
    let metadata = FieldMetadata::from(field.as_ref());
    Ok(Some(Expr::Literal(value, (!metadata.is_empty()).then_some(metadata))))
}

/// The type whose reading a cast to this field is, if it has one.
fn readable(field: &Field) -> Option<Type> {
    if matches!(field.data_type(), DataType::Dictionary(..) | DataType::RunEndEncoded(..)) {
        return None;
    }
    let pg = pg_type(field);
    let other = !matches!(pg, Type::TEXT | Type::JSON) && !is_text(field.data_type());
    (json_type(field).is_some() || other).then_some(pg)
}

fn value(text: &str, pg: &Type, field: &Field, zone: &TimeZone) -> Result<ScalarValue> {
    decode::decode_in(zone, Some(text.as_bytes()), Format::Text, pg, field.data_type())
        .map_err(|error| DataFusionError::External(Box::new(error)))
}

/// Reads texts as values of a type that the engine's own cast cannot read.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ValueOf {
    field: FieldRef,
    signature: Signature,
}

impl ValueOf {
    /// The function that does the work of a cast.
    pub(super) fn cast(from: &Field, to: &FieldRef, zone: &TimeZone) -> Option<ScalarUDF> {
        let pg = readable(to)?;
        let ours = match pg {
            Type::UUID | Type::BYTEA | Type::INTERVAL => true,
            // The engine refuses what no clock shows, or shows twice.
            Type::TIMESTAMPTZ if *zone != TimeZone::utc() => true,
            // It wants seconds, and takes an offset for one where the type has none.
            _ => is_moment(to.data_type()),
        };
        if !ours || !is_text(from.data_type()) || pg_type(from) == pg {
            return None;
        }
        let field = match is_moment(to.data_type()) {
            true => Arc::new(Field::new("value", to.data_type().clone(), true)),
            false => Arc::new(to.as_ref().clone().with_nullable(true)),
        };
        Some(ScalarUDF::new_from_impl(Self::new(field)))
    }

    fn new(field: FieldRef) -> Self {
        let volatility = match field.data_type() {
            DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None) => {
                Volatility::Immutable
            }
            _ => Volatility::Stable,
        };
        Self { field, signature: Signature::any(1, volatility) }
    }

    fn array(&self, texts: &StringViewArray, pg: &Type, zone: &TimeZone) -> Result<ArrayRef> {
        let values = texts.iter().map(|text| match text {
            Some(text) => value(text, pg, &self.field, zone).map(Some),
            None => Ok(None),
        });
        // The commonest without a value of any type for each row.
        Ok(match self.field.data_type() {
            DataType::Date32 => {
                let days = values.map(|day| match day? {
                    Some(ScalarValue::Date32(day)) => Ok(day),
                    _ => Ok(None),
                });
                Arc::new(days.collect::<Result<Date32Array>>()?)
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let moments = values.map(|moment| match moment? {
                    Some(ScalarValue::TimestampMicrosecond(moment, _)) => Ok(moment),
                    _ => Ok(None),
                });
                let moments = moments.collect::<Result<TimestampMicrosecondArray>>()?;
                Arc::new(moments.with_timezone_opt(zone.clone()))
            }
            other if texts.is_empty() => arrow::array::new_empty_array(other),
            other => {
                let null = ScalarValue::try_from(other)?;
                let values = values.map(|value| Ok(value?.unwrap_or_else(|| null.clone())));
                ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>()?)?
            }
        })
    }
}

/// Types of days, times and moments that PostgreSQL has, which other daemons know readers of by name.
fn is_moment(kind: &DataType) -> bool {
    moment_reader(kind).is_some()
}

fn moment_reader(kind: &DataType) -> Option<&'static str> {
    Some(match kind {
        DataType::Date32 => "date_of_text",
        DataType::Time64(TimeUnit::Nanosecond) => "time_of_text",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp_of_text",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz_of_text",
        _ => return None,
    })
}

/// The readers of moments, for plans from other daemons.
pub(super) fn readers() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let kinds = [
        DataType::Date32,
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
    ];
    kinds.into_iter().map(|kind| {
        let field = Arc::new(Field::new("value", kind, true));
        Arc::new(ScalarUDF::new_from_impl(ValueOf::new(field)))
    })
}

impl ScalarUDFImpl for ValueOf {
    fn name(&self) -> &str {
        moment_reader(self.field.data_type()).unwrap_or("value_of_text")
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(self.field.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = session_zone(&args.config_options);
        let pg = pg_type(&self.field);
        each(self.name(), &args, |array| {
            let texts = arrow::compute::cast(array, &DataType::Utf8View)?;
            self.array(texts.as_string_view(), &pg, &zone)
        })
    }
}

/// Writes values as text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TextOf {
    /// What is written: its metadata counts.
    field: FieldRef,
    /// Whether values are arrays of it.
    elements: bool,
    signature: Signature,
}

impl TextOf {
    /// The function that does the work of a cast, unless the engine writes the type as we do.
    pub(super) fn cast(from: &Field, to: &Field) -> Option<ScalarUDF> {
        let (mut own, mut wanted) = (from, to.data_type());
        // Of an array each element is written.
        if let (DataType::List(element), DataType::List(text)) = (from.data_type(), wanted) {
            (own, wanted) = (element.as_ref(), text.data_type());
        }
        let same = is_plain(own.data_type()) || *own.data_type() == DataType::Boolean;
        (!same && is_text(wanted)).then(|| Self::of(from, own))
    }

    /// The function that writes a value, or each element of an array where `elements` are wanted, as a result
    /// has it: a truth value as a letter. `None` for what is written so already.
    pub(super) fn written(from: &Field, elements: bool) -> Option<ScalarUDF> {
        let own = match from.data_type() {
            DataType::List(element) if elements => element.as_ref(),
            _ if elements => return None,
            _ => from,
        };
        // Arrays of arrays are another's to put together.
        let nested = elements && dimensions(own.data_type()) > 0;
        (!nested && !is_plain(own.data_type())).then(|| Self::of(from, own))
    }

    fn of(from: &Field, own: &Field) -> ScalarUDF {
        let elements = !std::ptr::eq(from, own);
        let signature = Signature::any(1, Volatility::Stable);
        let field = Arc::new(own.clone().with_name("value").with_nullable(true));
        ScalarUDF::new_from_impl(Self { field, elements, signature })
    }
}

/// Whether the engine writes values of a type as we do.
fn is_plain(kind: &DataType) -> bool {
    use DataType as D;
    match kind {
        D::Null | D::Dictionary(..) | D::RunEndEncoded(..) => true,
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => true,
        other => other.is_integer() || is_text(other),
    }
}

impl ScalarUDFImpl for TextOf {
    fn name(&self) -> &str {
        "text_of_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.elements {
            true => DataType::new_list(DataType::Utf8View, true),
            false => DataType::Utf8View,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let style =
            TextStyle { time_zone: session_zone(&args.config_options), ..TextStyle::default() };
        let written = |array: &ArrayRef| -> Result<ArrayRef> {
            let texts = text(&self.field, array, &style);
            Ok(Arc::new(texts.map_err(|error| DataFusionError::External(Box::new(error)))?))
        };
        each(self.name(), &args, |array| match array.as_list_opt::<i32>() {
            Some(lists) if self.elements => {
                let element = Arc::new(Field::new_list_field(DataType::Utf8View, true));
                let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
                let texts = written(lists.values())?;
                Ok(Arc::new(ListArray::try_new(element, offsets, texts, nulls)?))
            }
            _ => written(array),
        })
    }
}

/// Applies a function of arrays to the one argument; a constant gives a constant.
fn each(
    name: &str,
    args: &ScalarFunctionArgs,
    apply: impl Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    match args.args.as_slice() {
        [ColumnarValue::Array(array)] => apply(array).map(ColumnarValue::Array),
        [ColumnarValue::Scalar(value)] => {
            let result = apply(&value.to_array()?)?;
            ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar)
        }
        _ => exec_err!("{name} takes one value"),
    }
}
