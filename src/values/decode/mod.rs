//! Parameters in: the bytes of a Bind message as the value that the plan wants.
//!
//! A value is read as the PostgreSQL type that was declared for it, in text or binary format, then
//! brought to the Arrow type of its place in the plan. Nothing a client sends makes this panic, or
//! allocate more than a small multiple of the message. [`copy`] reads values by the million.

mod array;
pub mod copy;
mod datetime;
mod interval;
mod numeric;
#[cfg(test)]
mod tests;
mod text;

pub(super) use datetime::offset;

use std::borrow::Cow;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit};
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::encode::calendar::{
    DATE_RANGE, DAY_MICROS, POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, TIMESTAMP_MIN,
};
use super::encode::{Format, TimeZone};
use super::jsonb;
use super::types::{element_type, is_text, pg_type, sql_name};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid input syntax for type {}: \"{value}\"", type_named(.pg))]
    InvalidText { pg: String, value: String },
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    InvalidEncoding,
    #[error("incorrect binary data format for type {}", type_named(.pg))]
    InvalidBinary { pg: String },
    #[error("{}", out_of_range(.pg, .value))]
    OutOfRange { pg: String, value: String },
    #[error("a parameter of type {} cannot be used as {target}", sql_name(.pg))]
    Unsupported { pg: String, target: String },
    #[error("an array of {given} dimensions cannot be used as {target}, which has {wanted} here")]
    Dimensions { given: usize, wanted: usize, target: String },
    #[error(transparent)]
    Json(#[from] jsonb::Error),
    #[error("a parameter of type {pg} cannot be converted to {target}")]
    Cast { pg: String, target: String, source: Box<datafusion::common::DataFusionError> },
}

/// How much of a wrong value an error shows, in characters.
const SHOWN: usize = 64;

impl Error {
    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::InvalidText { pg, .. } if is_temporal(pg) => "22007",
            Self::InvalidText { .. } => "22P02",
            Self::InvalidEncoding => "22021",
            Self::InvalidBinary { .. } => "22P03",
            Self::OutOfRange { pg, .. } if is_temporal(pg) => "22008",
            Self::OutOfRange { .. } => "22003",
            Self::Unsupported { .. } | Self::Dimensions { .. } => "0A000",
            Self::Json(error) => error.sqlstate(),
            Self::Cast { .. } => "42846",
        }
    }

    /// More about it.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Json(error) => error.detail(),
            _ => None,
        }
    }

    /// What is to be done about it.
    pub fn hint(&self) -> Option<&'static str> {
        let (Self::InvalidText { pg, value } | Self::OutOfRange { pg, value }) = self else {
            return None;
        };
        let dated = ["date", "timestamp", "timestamptz"].contains(&pg.as_str());
        let infinite = value.trim().trim_start_matches(['+', '-']).to_ascii_lowercase();
        if dated && ["infinity", "inf"].contains(&infinite.as_str()) {
            return Some(
                "Columns of dates have no infinity here, for files have none: take NULL, or a day \
                 such as 9999-12-31.",
            );
        }
        // With the year first it is so, whatever else is wrong.
        let year = value.bytes().take_while(u8::is_ascii_digit).count() >= 3;
        (dated && !year && value.contains(|c: char| c.is_ascii_digit()))
            .then_some("Dates are written as year-month-day here, such as 2024-12-31.")
    }

    fn text(pg: &Type, value: &[u8]) -> Self {
        Self::InvalidText { pg: pg.name().into(), value: shown(value) }
    }

    fn binary(pg: &Type) -> Self {
        Self::InvalidBinary { pg: pg.name().into() }
    }

    fn range(pg: &Type, value: impl std::fmt::Display) -> Self {
        Self::OutOfRange { pg: pg.name().into(), value: shown(value.to_string().as_bytes()) }
    }

    fn unsupported(pg: &Type, target: &DataType) -> Self {
        let target = pg_type(&Field::new("", target.clone(), true));
        Self::Unsupported { pg: pg.name().into(), target: sql_name(target.name()) }
    }
}

/// `timestamp` is said without its zone here, as PostgreSQL does.
fn type_named(pg: &str) -> String {
    match pg {
        "time" | "timestamp" => pg.to_owned(),
        pg => sql_name(pg),
    }
}

fn out_of_range(pg: &str, value: &str) -> String {
    match is_temporal(pg) {
        true => format!("date/time field value out of range: \"{value}\""),
        false => format!("value \"{value}\" is out of range for type {}", type_named(pg)),
    }
}

fn is_temporal(pg: &str) -> bool {
    ["date", "time", "timestamp", "timestamptz", "interval"].contains(&pg)
}

fn shown(value: &[u8]) -> String {
    let start = &value[..value.len().min(4 * SHOWN)];
    String::from_utf8_lossy(start).chars().take(SHOWN).collect()
}

/// Why the text of a value is refused, where the type and the text are known to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Syntax,
    Range,
}

impl Fault {
    fn of(self, pg: &Type, value: &[u8]) -> Error {
        match self {
            Self::Syntax => Error::text(pg, value),
            Self::Range => Error::range(pg, readable(value)),
        }
    }
}

/// A value for a message: that of a binary format has no text.
fn readable(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(char::is_control) => Cow::Borrowed(text),
        _ => {
            let digits: String =
                value.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
            Cow::Owned(format!("\\x{digits}"))
        }
    }
}

/// [`decode_in`] for a session whose time zone is UTC.
pub fn decode(
    value: Option<&[u8]>,
    format: Format,
    pg: &Type,
    target: &DataType,
) -> Result<ScalarValue> {
    decode_in(&TimeZone::utc(), value, format, pg, target)
}

/// Reads a parameter, `None` for NULL, as a value of type `target`.
///
/// `pg` is the type declared for it; `unknown` means the target's own. The session's time zone
/// applies to a `timestamptz` whose text has none, and between `timestamp` and `timestamptz`.
/// Numbers with more decimals than the target are rounded half away from zero, as `numeric` is;
/// fractions of a microsecond to the nearest. Infinite dates, timestamps and numbers have no Arrow
/// value and are out of range.
pub fn decode_in(
    zone: &TimeZone,
    value: Option<&[u8]>,
    format: Format,
    pg: &Type,
    target: &DataType,
) -> Result<ScalarValue> {
    let Some(value) = value else {
        return ScalarValue::try_from(target).map_err(|_| Error::unsupported(pg, target));
    };
    let own;
    let pg = match *pg {
        Type::UNKNOWN => {
            own = pg_type(&Field::new("", target.clone(), true));
            &own
        }
        _ => pg,
    };
    let natural = match element_type(pg) {
        Some(element) => array::decode(value, format, pg, &element, target, zone)?,
        None => scalar(value, format, pg, target, zone)?,
    };
    convert(natural, pg, target)
}

/// A value that is no array, in the Arrow type that is nearest to it.
fn scalar(
    value: &[u8],
    format: Format,
    pg: &Type,
    target: &DataType,
    zone: &TimeZone,
) -> Result<ScalarValue> {
    if *pg == Type::NUMERIC {
        let number = match format {
            Format::Text => numeric::parse(value),
            Format::Binary => numeric::receive(value).ok_or_else(|| Error::binary(pg))?,
        };
        return number.and_then(|n| n.to_scalar(target)).map_err(|fault| fault.of(pg, value));
    }
    let natural = match format {
        Format::Text => text::parse(value, pg, zone)?,
        Format::Binary => receive(value, pg)?,
    };
    Ok(in_zone(natural, target, zone))
}

/// A value in binary format.
fn receive(value: &[u8], pg: &Type) -> Result<ScalarValue> {
    Ok(match *pg {
        Type::BOOL => ScalarValue::from(fixed::<1>(value, pg)? != [0]),
        Type::INT2 => i16::from_be_bytes(fixed(value, pg)?).into(),
        Type::INT4 => i32::from_be_bytes(fixed(value, pg)?).into(),
        Type::INT8 => i64::from_be_bytes(fixed(value, pg)?).into(),
        Type::OID => u32::from_be_bytes(fixed(value, pg)?).into(),
        Type::FLOAT4 => f32::from_be_bytes(fixed(value, pg)?).into(),
        Type::FLOAT8 => f64::from_be_bytes(fixed(value, pg)?).into(),
        Type::BYTEA => ScalarValue::Binary(Some(value.to_vec())),
        Type::UUID => ScalarValue::FixedSizeBinary(16, Some(fixed::<16>(value, pg)?.to_vec())),
        Type::JSONB => match value {
            // The format's version.
            [1, json @ ..] => text::json(json, pg)?,
            _ => return Err(Error::binary(pg)),
        },
        Type::DATE => {
            let days = i32::from_be_bytes(fixed(value, pg)?);
            let unix = days.checked_add(POSTGRES_EPOCH_DAYS);
            date(unix.map(i64::from)).ok_or_else(|| Error::range(pg, days))?
        }
        Type::TIME => {
            let micros = i64::from_be_bytes(fixed(value, pg)?);
            time(micros).ok_or_else(|| Error::range(pg, micros))?
        }
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            let micros = i64::from_be_bytes(fixed(value, pg)?);
            let unix = micros.checked_add(POSTGRES_EPOCH_MICROS);
            timestamp(unix, pg).ok_or_else(|| Error::range(pg, micros))?
        }
        Type::INTERVAL => {
            let bytes: [u8; 16] = fixed(value, pg)?;
            let number = i128::from_be_bytes(bytes);
            let (micros, days, months) =
                ((number >> 64) as i64, (number >> 32) as i32, number as i32);
            interval(months, days, micros).ok_or_else(|| Error::range(pg, micros))?
        }
        // Text, and what is the same in both formats.
        _ => text::parse(value, pg, &TimeZone::utc())?,
    })
}

fn fixed<const N: usize>(value: &[u8], pg: &Type) -> Result<[u8; N]> {
    value.try_into().map_err(|_| Error::binary(pg))
}

/// A day since 1970 that PostgreSQL's `date` has.
fn date(days: Option<i64>) -> Option<ScalarValue> {
    let days = i32::try_from(days?).ok().filter(|days| DATE_RANGE.contains(days))?;
    Some(ScalarValue::Date32(Some(days)))
}

fn time(micros: i64) -> Option<ScalarValue> {
    (0..=DAY_MICROS).contains(&micros).then_some(ScalarValue::Time64Microsecond(Some(micros)))
}

/// Microseconds since 1970; the extremes stand for infinity.
fn timestamp(micros: Option<i64>, pg: &Type) -> Option<ScalarValue> {
    let micros = micros.filter(|micros| (TIMESTAMP_MIN..i64::MAX).contains(micros))?;
    let zone = (*pg == Type::TIMESTAMPTZ).then(|| "+00:00".into());
    Some(ScalarValue::TimestampMicrosecond(Some(micros), zone))
}

fn interval(months: i32, days: i32, micros: i64) -> Option<ScalarValue> {
    let value = IntervalMonthDayNano::new(months, days, micros.checked_mul(1000)?);
    Some(ScalarValue::IntervalMonthDayNano(Some(value)))
}

/// Between timestamps with and without zone the session's zone decides, where Arrow takes UTC.
fn in_zone(value: ScalarValue, target: &DataType, zone: &TimeZone) -> ScalarValue {
    let ScalarValue::TimestampMicrosecond(Some(micros), from) = value else { return value };
    let seconds = micros.div_euclid(1_000_000);
    let to_zone = match target {
        DataType::Timestamp(_, to) => to.is_some(),
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => false,
        _ => from.is_some(),
    };
    let offset = match (from.is_some(), to_zone) {
        (true, false) => i64::from(zone.offset_at(seconds)),
        (false, true) => -i64::from(zone.offset_at_local(seconds)),
        _ => return ScalarValue::TimestampMicrosecond(Some(micros), from),
    };
    let micros = micros.saturating_add(offset * 1_000_000);
    ScalarValue::TimestampMicrosecond(Some(micros), to_zone.then(|| "+00:00".into()))
}

/// The value as the target's type.
fn convert(value: ScalarValue, pg: &Type, target: &DataType) -> Result<ScalarValue> {
    if value.data_type() == *target {
        return Ok(value);
    }
    let value = match (value, target) {
        (ScalarValue::FixedSizeBinary(16, Some(bytes)), to) if is_text(to) => {
            ScalarValue::Utf8(Some(text::uuid_text(&bytes)))
        }
        // The instant stays whatever the zone's name is.
        (
            ScalarValue::TimestampMicrosecond(value, Some(_)),
            DataType::Timestamp(unit, Some(zone)),
        ) => {
            let value = ScalarValue::TimestampMicrosecond(value, Some(zone.clone()));
            if *unit == TimeUnit::Microsecond {
                return Ok(value);
            }
            value
        }
        (value, _) => value,
    };
    value.cast_to(target).map_err(|source| {
        let (pg, target) = (pg.name().into(), target.to_string());
        Error::Cast { pg, target, source: Box::new(source) }
    })
}
