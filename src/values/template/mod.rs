//! PostgreSQL's templates, by which values become text and text becomes values: `to_char`, `to_date`,
//! `to_timestamp` and `to_number` ("Data Type Formatting Functions" in its manual).
//!
//! - [`fields`]: the template of a date or time, in pieces.
//! - [`moments`]: dates, times and intervals by such a template.
//! - [`reading`]: text by such a template, as a moment.
//! - [`numbers`]: the template of a number, and numbers by it.
//! - [`digits`]: text by such a template, as a number.
//!
//! The rules are those of PostgreSQL 15's `formatting.c`, names in English.

mod digits;
mod fields;
mod moments;
mod numbers;
mod reading;
#[cfg(test)]
mod tests;

pub use fields::MomentTemplate;
pub use moments::{Moment, Zone};
pub use numbers::{Number, NumberTemplate};
pub use reading::Read;

/// Bytes of a template. What one stands for is written or read for each row, and nothing ends it in between.
const LONGEST: usize = 8192;

/// # Errors
/// A template is too long.
fn check_length(template: &str) -> Result<()> {
    match template.len() {
        bytes if bytes > LONGEST => Err(Error::TooLong { bytes }),
        _ => Ok(()),
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with a template, or with a text that is read by one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A template of numbers whose pieces do not go together.
    #[error("{0}")]
    Template(String),
    /// A text, or a template of dates, that does not fit.
    #[error("{reason}")]
    Format { reason: String, detail: String },
    #[error("date/time field value out of range: \"{0}\"")]
    OutOfRange(String),
    /// A date that is to be written as a moment, and is none of those that there are.
    #[error("date out of range for timestamp")]
    DateOutOfRange,
    /// A moment that is computed, and is none of those that there are.
    #[error("timestamp out of range")]
    MomentOutOfRange,
    #[error("the template has {bytes} bytes, which is more than {LONGEST}")]
    TooLong { bytes: usize },
    #[error("value for \"{0}\" in source string is out of range")]
    FieldOutOfRange(String),
    #[error("time zone displacement out of range: \"{0}\"")]
    ZoneOutOfRange(String),
    #[error("formatting field \"{0}\" is only supported in to_char")]
    OnlyWritten(String),
    #[error("\"{0}\" not supported for input")]
    NotRead(&'static str),
    #[error("invalid input syntax for type numeric: \"{0}\"")]
    NoNumber(String),
    #[error("numeric field overflow")]
    Overflow,
    #[error("integer out of range")]
    RomanOutOfRange,
}

impl Error {
    fn format(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Format { reason: reason.into(), detail: detail.into() }
    }

    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Template(_) => "42601",
            Self::Format { .. } => "22007",
            Self::OutOfRange(_)
            | Self::FieldOutOfRange(_)
            | Self::DateOutOfRange
            | Self::MomentOutOfRange => "22008",
            Self::TooLong { .. } => "54000",
            Self::ZoneOutOfRange(_) => "22009",
            Self::OnlyWritten(_) | Self::NotRead(_) => "0A000",
            Self::NoNumber(_) => "22P02",
            Self::Overflow | Self::RomanOutOfRange => "22003",
        }
    }

    /// What helps to mend it, if more is known than the reason.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Format { detail, .. } if !detail.is_empty() => Some(detail),
            _ => None,
        }
    }
}

const ROMAN_MONTHS: [&str; 12] =
    ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// `st`, `nd`, `rd` or `th`, as a number in digits ends with.
fn ordinal(number: &str, upper: bool) -> &'static str {
    let bytes = number.as_bytes();
    let teen = bytes.len() > 1 && bytes[bytes.len() - 2] == b'1';
    let (lower_case, upper_case) = match bytes.last() {
        Some(b'1') if !teen => ("st", "ST"),
        Some(b'2') if !teen => ("nd", "ND"),
        Some(b'3') if !teen => ("rd", "RD"),
        _ => ("th", "TH"),
    };
    if upper { upper_case } else { lower_case }
}
