//! `to_char`, `to_date`, `to_timestamp` and `to_number`, with PostgreSQL's templates where the engine has
//! the formats of another language, or nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type, Float64Type,
    IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use postgres_types::Type;

use super::bounded::{LARGEST_STEP, TooLarge};
use super::intervals::INTERVAL;
use super::session_zone;
use crate::values::encode::{Format, TimeZone};
use crate::values::template::{Error, Moment, MomentTemplate, Number, NumberTemplate, Zone};
use crate::values::types::is_text;
use crate::values::{TIMESTAMP_MIN, decode};

/// Bytes of a template that cost no more than the row itself does.
const SHORT: usize = 64;

/// Bytes of templates, beyond [`SHORT`] a row, that one step goes through, which nothing ends before it is
/// done: some seconds' work.
const LONGEST_STEP: u64 = LARGEST_STEP / 64;

const SECOND: i64 = 1_000_000;
/// Seconds.
const DAY: i64 = 86_400;

/// The name under which `to_char` is known.
pub(super) const TO_CHAR: &str = "to_char";

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The digits of a number that is read: as many as `numeric` has without a precision. Where the template is a
/// constant, the rewriting of PostgreSQL's dialect casts it to as many as that has.
const PRECISION: u8 = 38;
const SCALE: i8 = 10;

/// The functions, of which those of one argument are the engine's.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let read = |name, moment| {
        let function = FromText {
            inner: known(name)?,
            moment,
            signature: Signature::user_defined(Volatility::Stable),
        };
        Some(ScalarUDF::new_from_impl(function))
    };
    [read("to_date", false), read("to_timestamp", true)]
        .into_iter()
        .flatten()
        .chain([
            ScalarUDF::new_from_impl(ToChar::default()),
            ScalarUDF::new_from_impl(ToNumber::default()),
        ])
        .map(Arc::new)
        .collect()
}

fn failed(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// `to_char(value, template)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    signature: Signature,
    /// Those of the engine's: under one that is left it would come back under its own name as well,
    /// wherever a state is made from another.
    aliases: Vec<String>,
}

impl Default for ToChar {
    fn default() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Stable),
            aliases: vec!["date_format".to_owned()],
        }
    }
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        TO_CHAR
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType as D;
        let [value, template] = types else { return none_such(TO_CHAR, types) };
        if !is_text(template) && !template.is_null() {
            return none_such(TO_CHAR, types);
        }
        let value = match value {
            D::Null => LOCAL,
            D::Date32 | D::Date64 => D::Date32,
            D::Timestamp(_, zone) => D::Timestamp(TimeUnit::Microsecond, zone.clone()),
            D::Time32(_) | D::Time64(_) => D::Time64(TimeUnit::Microsecond),
            D::Interval(_) | D::Duration(_) => INTERVAL,
            D::Float16 | D::Float32 => D::Float32,
            D::Float64 => D::Float64,
            number if number.is_integer() || number.is_decimal() => number.clone(),
            _ => return none_such(TO_CHAR, types),
        };
        Ok(vec![value, D::Utf8View])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = session_zone(&args.config_options);
        by_template(&args, &DataType::Utf8View, |values, templates| {
            written(values, templates, &zone)
        })
    }
}

fn none_such<T>(name: &str, types: &[DataType]) -> Result<T> {
    let types: Vec<String> = types
        .iter()
        .map(|kind| crate::values::types::pg_type(&Field::new("", kind.clone(), true)))
        .map(|kind| crate::values::types::sql_name(kind.name()))
        .collect();
    plan_err!(
        "function {name}({}) does not exist. No function matches the given name and argument types. \
         You might need to add explicit type casts.",
        types.join(", ")
    )
}

/// Applies a function to values and templates; constants give a constant.
fn by_template(
    args: &ScalarFunctionArgs,
    returned: &DataType,
    apply: impl Fn(&ArrayRef, &Templates<'_>) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let [values, templates] = args.args.as_slice() else {
        return exec_err!("a template belongs to a value");
    };
    let constant = matches!(values, ColumnarValue::Scalar(_));
    match templates {
        ColumnarValue::Scalar(template) => {
            let Some(Some(template)) = template.try_as_str() else {
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from(returned)?));
            };
            let rows = if constant { 1 } else { args.number_rows };
            let result = apply(&values.to_array(rows)?, &Templates::One(template))?;
            Ok(match constant {
                true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
                false => ColumnarValue::Array(result),
            })
        }
        ColumnarValue::Array(templates) => {
            let templates = cast(templates, &DataType::Utf8View)?;
            let values = values.to_array(args.number_rows)?;
            let templates = Templates::Each(templates.as_string_view());
            apply(&values, &templates).map(ColumnarValue::Array)
        }
    }
}

/// The templates of a batch of values.
enum Templates<'a> {
    One(&'a str),
    Each(&'a StringViewArray),
}

impl Templates<'_> {
    /// Calls a function with each row that has a template, made ready once for all rows in a row that have
    /// the same.
    fn rows<T>(
        &self,
        values: &dyn Array,
        parse: impl Fn(&str) -> Result<T>,
        mut row: impl FnMut(Option<(usize, &T)>) -> Result<()>,
    ) -> Result<()> {
        let mut ready: Option<(&str, T)> = None;
        let mut read = 0;
        for at in 0..values.len() {
            let template = match self {
                _ if values.is_null(at) => None,
                Self::One(template) => Some(*template),
                Self::Each(templates) => templates.is_valid(at).then(|| templates.value(at)),
            };
            let Some(template) = template else {
                row(None)?;
                continue;
            };
            let same = ready.as_ref().is_some_and(|(known, _)| *known == template);
            let parsed = match ready.take().filter(|_| same) {
                Some((_, parsed)) => parsed,
                None => parse(template)?,
            };
            read += template.len().saturating_sub(SHORT) as u64;
            if read > LONGEST_STEP {
                let (function, bytes) = ("applying a template".to_owned(), read);
                let large = TooLarge { function, bytes, limit: LONGEST_STEP };
                return Err(DataFusionError::External(Box::new(large)));
            }
            let (_, parsed) = ready.insert((template, parsed));
            row(Some((at, &*parsed)))?;
        }
        Ok(())
    }
}

fn written(values: &ArrayRef, templates: &Templates<'_>, zone: &TimeZone) -> Result<ArrayRef> {
    match values.data_type() {
        kind if kind.is_numeric() => numbers(values, templates),
        kind => {
            let moment = moments(values, kind, zone)?;
            texts(
                values,
                templates,
                |text| MomentTemplate::parse(text).map_err(failed),
                |at, template, out| {
                    // PostgreSQL has nothing to say by an empty template.
                    if template.is_empty() {
                        return Ok(false);
                    }
                    moment(at).map_err(failed)?.write(template, out).map_err(failed).map(|()| true)
                },
            )
        }
    }
}

/// Texts, of which a function writes each; it says whether there is any.
fn texts<T>(
    values: &ArrayRef,
    templates: &Templates<'_>,
    parse: impl Fn(&str) -> Result<T>,
    write: impl Fn(usize, &T, &mut String) -> Result<bool>,
) -> Result<ArrayRef> {
    let mut texts = StringViewBuilder::with_capacity(values.len());
    let (mut text, mut written) = (String::new(), 0);
    templates.rows(values, parse, |row| {
        let Some((at, template)) = row else {
            texts.append_null();
            return Ok(());
        };
        text.clear();
        match write(at, template, &mut text)? {
            true => {
                // A value is short, as its template is; many rows of them are not.
                written += text.len() as u64;
                if written > LARGEST_STEP {
                    let (function, bytes) = (TO_CHAR.to_owned(), written);
                    let large = TooLarge { function, bytes, limit: LARGEST_STEP };
                    return Err(DataFusionError::External(Box::new(large)));
                }
                texts.append_value(&text);
            }
            false => texts.append_null(),
        }
        Ok(())
    })?;
    Ok(Arc::new(texts.finish()))
}

/// The moment of each row.
type Moments<'a> = Box<dyn Fn(usize) -> Result<Moment, Error> + 'a>;

fn moments<'a>(values: &'a ArrayRef, kind: &DataType, zone: &'a TimeZone) -> Result<Moments<'a>> {
    // Of seconds since 1970.
    let of_zone = move |utc: i64| Zone {
        abbreviation: zone.abbreviation_at(utc),
        offset: zone.offset_at(utc),
    };
    Ok(match kind {
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            Box::new(move |at| Ok(Moment::at(values.value(at), None)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            Box::new(move |at| {
                let zone = of_zone(values.value(at).div_euclid(SECOND));
                let local = values.value(at).saturating_add(i64::from(zone.offset) * SECOND);
                Ok(Moment::at(local, Some(zone)))
            })
        }
        // A date is the moment with which it begins in the session's zone.
        DataType::Date32 => {
            let values = values.as_primitive::<Date32Type>();
            Box::new(move |at| {
                let date = values.value(at);
                let local = i64::from(date) * DAY;
                let utc = local - i64::from(zone.offset_at_local(local));
                Moment::of_date(date, of_zone(utc))
            })
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let values = values.as_primitive::<arrow::datatypes::Time64MicrosecondType>();
            Box::new(move |at| Ok(Moment::interval(0, 0, values.value(at))))
        }
        DataType::Interval(_) => {
            let values = values.as_primitive::<IntervalMonthDayNanoType>();
            Box::new(move |at| {
                let interval = values.value(at);
                let micros = interval.nanoseconds / 1000;
                Ok(Moment::interval(interval.months, interval.days, micros))
            })
        }
        other => return exec_err!("to_char cannot write {other}"),
    })
}

fn numbers(values: &ArrayRef, templates: &Templates<'_>) -> Result<ArrayRef> {
    fn put(template: &NumberTemplate, number: Number<'_>, out: &mut String) -> Result<bool> {
        template.write(number, out).map_err(failed).map(|()| true)
    }
    let parse = |text: &str| NumberTemplate::parse(text).map_err(failed);
    match values.data_type() {
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>();
            let number = |at| Number::Float4(floats.value(at));
            texts(values, templates, parse, |at, template, out| put(template, number(at), out))
        }
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>();
            let number = |at| Number::Float8(floats.value(at));
            texts(values, templates, parse, |at, template, out| put(template, number(at), out))
        }
        _ => {
            let digits = cast(values, &DataType::Utf8View)?;
            let digits = digits.as_string_view();
            texts(values, templates, parse, |at, template, out| {
                put(template, Number::Exact(digits.value(at)), out)
            })
        }
    }
}

/// `to_date(text, template)` and `to_timestamp(text, template)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FromText {
    /// The engine's, for calls without a template.
    inner: Arc<ScalarUDF>,
    /// Whether the time counts.
    moment: bool,
    signature: Signature,
}

impl FromText {
    fn returned(&self) -> DataType {
        match self.moment {
            true => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            false => DataType::Date32,
        }
    }
}

impl ScalarUDFImpl for FromText {
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// The engine's own looks at the session's zone when it is made.
    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        let (moment, signature) = (self.moment, self.signature.clone());
        Some(ScalarUDF::new_from_impl(Self { inner, moment, signature }))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [text, template]
                if [text, template].iter().all(|kind| is_text(kind) || kind.is_null()) =>
            {
                Ok(vec![DataType::Utf8View, DataType::Utf8View])
            }
            [number] if self.moment && number.is_numeric() => Ok(vec![DataType::Float64]),
            [one] => Ok(vec![one.clone()]),
            _ => none_such(self.name(), types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, _] => Ok(self.returned()),
            [DataType::Float64] if self.moment => Ok(self.returned()),
            types => self.inner.return_type(types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [_, _] => Ok(Arc::new(Field::new(self.name(), self.returned(), true))),
            [seconds] if self.moment && *seconds.data_type() == DataType::Float64 => {
                Ok(Arc::new(Field::new(self.name(), self.returned(), true)))
            }
            _ => self.inner.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.len() != 2 {
            return match args.args.as_slice() {
                [seconds] if self.moment && seconds.data_type() == DataType::Float64 => {
                    make_scalar_function(since_1970, Vec::new())(&args.args)
                }
                _ => self.inner.invoke_with_args(args),
            };
        }
        let zone = session_zone(&args.config_options);
        by_template(&args, &self.returned(), |values, templates| {
            let values = cast(values, &DataType::Utf8View)?;
            let texts = values.as_string_view();
            let parse = |text: &str| MomentTemplate::parse(text).map_err(failed);
            match self.moment {
                false => {
                    let mut days = Vec::with_capacity(texts.len());
                    templates.rows(texts, parse, |row| {
                        let read = row.map(|(at, template)| template.read(texts.value(at)));
                        let read = read.transpose().map_err(failed)?;
                        days.push(read.and_then(|read| i32::try_from(read.date).ok()));
                        Ok(())
                    })?;
                    Ok(Arc::new(PrimitiveArray::<Date32Type>::from(days)) as ArrayRef)
                }
                true => {
                    let mut moments = Vec::with_capacity(texts.len());
                    templates.rows(texts, parse, |row| {
                        let Some((at, template)) = row else {
                            moments.push(None);
                            return Ok(());
                        };
                        let text = texts.value(at);
                        let read = template.read(text).map_err(failed)?;
                        let outside = || failed(Error::OutOfRange(text.to_owned()));
                        let local = read.local_micros().ok_or_else(outside)?;
                        let offset = (read.offset)
                            .unwrap_or_else(|| zone.offset_at_local(local.div_euclid(SECOND)));
                        let utc = local.checked_sub(i64::from(offset) * SECOND);
                        moments.push(Some(utc.ok_or_else(outside)?));
                        Ok(())
                    })?;
                    let moments = PrimitiveArray::<TimestampMicrosecondType>::from(moments);
                    Ok(Arc::new(moments.with_timezone("+00:00")) as ArrayRef)
                }
            }
        })
    }
}

/// `to_timestamp(seconds)`: the engine's own looks at clocks, where PostgreSQL counts from 1970 in UTC
/// (`float8_timestamptz`).
fn since_1970(args: &[ArrayRef]) -> Result<ArrayRef> {
    let moment = |seconds: f64| {
        let micros = (seconds * SECOND as f64).round_ties_even();
        match (TIMESTAMP_MIN as f64..i64::MAX as f64).contains(&micros) {
            true => Ok(micros as i64),
            false => Err(failed(Error::OutOfRange(seconds.to_string()))),
        }
    };
    let seconds = args[0].as_primitive::<Float64Type>().iter();
    let moments = seconds.map(|seconds| seconds.map(moment).transpose());
    let moments = moments.collect::<Result<PrimitiveArray<TimestampMicrosecondType>>>()?;
    Ok(Arc::new(moments.with_timezone("+00:00")))
}

/// `to_number(text, template)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToNumber {
    signature: Signature,
}

impl Default for ToNumber {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToNumber {
    fn name(&self) -> &str {
        "to_number"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [text, template]
                if [text, template].iter().all(|kind| is_text(kind) || kind.is_null()) =>
            {
                Ok(vec![DataType::Utf8View, DataType::Utf8View])
            }
            _ => none_such(self.name(), types),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(PRECISION, SCALE))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_field.data_type().clone();
        by_template(&args, &kind, |values, templates| {
            let values = cast(values, &DataType::Utf8View)?;
            let texts = values.as_string_view();
            let parse = |text: &str| NumberTemplate::parse(text).map_err(failed);
            let mut numbers = Vec::with_capacity(texts.len());
            templates.rows(texts, parse, |row| {
                let Some((at, template)) = row else {
                    numbers.push(None);
                    return Ok(());
                };
                let digits = template.read(texts.value(at)).map_err(failed)?;
                let utc = TimeZone::utc();
                let number = decode::decode_in(
                    &utc,
                    Some(digits.as_bytes()),
                    Format::Text,
                    &Type::NUMERIC,
                    &kind,
                );
                match number.map_err(|error| DataFusionError::External(Box::new(error)))? {
                    ScalarValue::Decimal128(number, ..) => numbers.push(number),
                    other => return exec_err!("to_number read {other}"),
                }
                Ok(())
            })?;
            let numbers = PrimitiveArray::<Decimal128Type>::from(numbers);
            Ok(Arc::new(numbers.with_data_type(kind.clone())) as ArrayRef)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_name_leads_to_the_engines_function() {
        let engine = datafusion::functions::datetime::to_char();
        assert_eq!(ToChar::default().aliases(), engine.aliases());
    }
}
