//! What is wrong with what a client copies, in PostgreSQL's words, and where.

use arrow::error::ArrowError;

use crate::values::decode;

/// Why the data cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct Error {
    pub fault: Fault,
    /// Where it stands: what PostgreSQL gives as CONTEXT.
    pub context: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Format(String),
    /// Ends of lines that are not those of the first line.
    #[error("{unit} found in data", unit = .0.words())]
    LineEnd(LineEnd),
    #[error("invalid byte sequence for encoding \"UTF8\":{0}")]
    Encoding(String),
    #[error(
        "null value in column \"{column}\" of relation \"{relation}\" violates not-null constraint"
    )]
    Null { column: String, relation: String },
    #[error("a row is longer than the limit of {limit} bytes")]
    TooLong { limit: usize },
    #[error(transparent)]
    Value(#[from] decode::Error),
    /// The client gave up.
    #[error("COPY from stdin failed: {0}")]
    Failed(String),
    #[error("unexpected message type 0x{0:02X} during COPY from stdin")]
    Unexpected(u8),
    #[error("invalid string in message")]
    EndlessString,
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// A line end in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEnd {
    pub carriage_return: bool,
    pub csv: bool,
}

impl LineEnd {
    fn words(self) -> &'static str {
        match (self.csv, self.carriage_return) {
            (false, false) => "literal newline",
            (false, true) => "literal carriage return",
            (true, false) => "unquoted newline",
            (true, true) => "unquoted carriage return",
        }
    }

    fn hint(self) -> &'static str {
        match (self.csv, self.carriage_return) {
            (false, false) => r#"Use "\n" to represent newline."#,
            (false, true) => r#"Use "\r" to represent carriage return."#,
            (true, false) => "Use quoted CSV field to represent newline.",
            (true, true) => "Use quoted CSV field to represent carriage return.",
        }
    }
}

impl Error {
    /// The error code that PostgreSQL gives in this case; XX000 for a defect of ours.
    pub fn sqlstate(&self) -> &'static str {
        match &self.fault {
            Fault::Format(_) | Fault::LineEnd(_) => "22P04",
            Fault::Encoding(_) => "22021",
            Fault::Null { .. } => "23502",
            Fault::TooLong { .. } => "54000",
            Fault::Value(error) => error.sqlstate(),
            Fault::Failed(_) => "57014",
            Fault::Unexpected(_) | Fault::EndlessString => "08P01",
            Fault::Arrow(_) => "XX000",
        }
    }

    /// More about it.
    pub fn detail(&self) -> Option<&str> {
        match &self.fault {
            Fault::Value(error) => error.detail(),
            _ => None,
        }
    }

    pub fn hint(&self) -> Option<&'static str> {
        match &self.fault {
            Fault::LineEnd(end) => Some(end.hint()),
            _ => None,
        }
    }
}

impl Fault {
    pub(super) fn format(text: impl Into<String>) -> Self {
        Self::Format(text.into())
    }

    /// `bytes` begins with what is not UTF-8; as many are shown as its first byte promises.
    pub(super) fn encoding(bytes: &[u8]) -> Self {
        let length = match bytes.first() {
            Some(0xc0..0xe0) => 2,
            Some(0xe0..0xf0) => 3,
            Some(0xf0..0xf8) => 4,
            _ => 1,
        };
        Self::Encoding(bytes.iter().take(length).map(|byte| format!(" 0x{byte:02x}")).collect())
    }

    /// `bytes` are to be text, but are none.
    pub(super) fn not_text(bytes: &[u8]) -> Option<Self> {
        let zero = bytes.iter().position(|byte| *byte == 0);
        let wrong = std::str::from_utf8(bytes).err().map(|error| error.valid_up_to());
        let at = [zero, wrong].into_iter().flatten().min()?;
        Some(Self::encoding(&bytes[at..]))
    }
}

/// How much of a value or a line an error shows, in bytes (`MAX_COPY_DATA_DISPLAY`).
const SHOWN: usize = 100;

/// Cut as PostgreSQL cuts it (`limit_printout_length`).
pub(super) fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let is_inside = |at: &usize| bytes[*at] & 0xc0 != 0x80;
    let end = (0..=SHOWN).rev().find(is_inside).unwrap_or(SHOWN);
    format!("{}...", String::from_utf8_lossy(&bytes[..end]))
}
