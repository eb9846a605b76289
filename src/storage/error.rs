//! What can go wrong with files, always with the file's name.

use std::any::Any;
use std::io;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

use super::external::written;
use super::lines;
use crate::catalog::{External, FileFormat};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{location:?} is not a valid location: {reason}")]
    BadLocation { location: String, reason: String },
    #[error("there are no {format} files at {location}")]
    NoFiles { location: String, format: String },
    #[error(
        "the {} files at {location} are empty: they have no bytes, and say nothing of columns",
        written(*.format).to_lowercase()
    )]
    EmptyFiles { location: String, format: FileFormat },
    #[error("{path} does not exist")]
    NotFound { path: String },
    #[error("no permission to read {path}")]
    Denied { path: String },
    #[error("{location} is outside of the places where files may lie")]
    Outside { location: String },
    #[error("cannot read {path}: {}", brief(.source.as_ref()))]
    Io { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// More in one piece than is held in memory.
    #[error("cannot read {path}: {}", brief(.source.as_ref()))]
    TooLong { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The bytes are there but are not what the format demands.
    #[error("{path} is damaged or not of the expected format: {}", damage(.source))]
    Damaged { path: String, source: Box<DataFusionError> },
    /// The same where a table is made of it, so that it may be that it has another format.
    #[error("{path} cannot be read as {}: {}", written(*.format), damage(.source))]
    NotOfFormat { path: String, format: FileFormat, source: Box<DataFusionError> },
    /// A cast or a computation that failed on values of the file; readers do the statement's own as
    /// well as those that bring the file's columns to the table's types. Where tables keep their files is not
    /// everybody's business, so that the text does not say it: see [`Error::file`].
    #[error("{}", reason(.source))]
    Values { path: String, source: Box<DataFusionError> },
    #[error("the files at {location} do not fit together: {reason}")]
    Mixed { location: String, reason: String },
    #[error("option \"{name}\": {reason}")]
    BadOption { name: String, reason: String },
    #[error("{location}: {reason}")]
    BadDefinition { location: String, reason: String },
    /// Something that is valid but that this version does not do.
    #[error("{what} is not supported")]
    Unsupported { what: String },
    #[error("{reason}")]
    BadTable { reason: String },
    #[error("{reason}")]
    BadAlteration { reason: String },
    #[error("column \"{name}\"{} does not exist", of_relation(.table))]
    NoColumn { name: String, table: Option<String> },
    #[error("column \"{name}\"{} already exists", of_relation(.table))]
    ColumnExists { name: String, table: Option<String> },
    #[error("\"{table}\" is not a table that can be written: it only reads files of others")]
    NotManaged { table: String },
    #[error("{reason}")]
    BadMoment { reason: String },
    #[error("\"{table}\" has no history: only managed tables have")]
    NoHistory { table: String },
    /// A moment of which the table's history has nothing; `known` is what it has.
    #[error("table \"{table}\" has no {wanted}{known}")]
    NoSnapshot { table: String, wanted: String, known: String },
    #[error(
        "there is no place for managed tables: set \"warehouse\" to a directory or bucket that all \
         daemons of the cluster share"
    )]
    NoWarehouse,
    #[error(
        "there is no place for the rows of submitted queries: set \"warehouse\" of all daemons to a directory \
         or bucket that they share, or run the query at once, in a session"
    )]
    NoPlaceForResults,
    /// What a change was made from is no longer so. Nothing was changed.
    #[error("could not serialize access to table \"{table}\" due to concurrent update")]
    Conflict { table: String },
    /// Others kept changing the table. Nothing was changed.
    #[error("could not serialize access to table \"{table}\": others change it too often")]
    Busy { table: String },
    /// Whoever wanted the change no longer does. Nothing was changed.
    #[error("the change was given up before it was made")]
    GivenUp,
    /// This daemon's place in the cluster is lost. Nothing was changed.
    #[error("this daemon is not registered in the cluster at the moment; try again")]
    Unregistered,
    /// The store's reply was lost, and what became of the commit cannot be learnt.
    #[error("it is unknown whether the table was changed: {0}")]
    Uncertain(Box<Error>),
    #[error("the daemon stops")]
    Stopped,
    #[error(transparent)]
    Catalog(Box<crate::catalog::Error>),
    /// What failed for several statements at once.
    #[error(transparent)]
    Shared(Arc<Error>),
    #[error("column {column:?} has the type {kind}, which managed tables cannot store")]
    NotStorable { column: String, kind: String },
    #[error("the columns do not make a table: {0}")]
    BadSchema(String),
    #[error("{value:?} is not a valid value of the table property {name}: {reason}")]
    BadProperty { name: String, value: String, reason: String },
    #[error("a value is out of the range of the partition transform {transform}")]
    NoPartition { transform: String },
    #[error("cannot write {path}: {}", brief(.source.as_ref()))]
    NotWritten { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("no permission to write {path}")]
    DeniedWrite { path: String },
    #[error("cannot write {path}: its file system is read-only")]
    ReadOnly { path: String },
    #[error("there is no space left to write {path}")]
    NoSpace { path: String },
    #[error(transparent)]
    NoMemory(DataFusionError),
    /// What a file has, needs more memory than there is. As of [`Error::Values`], the text does not say which.
    #[error("{source}")]
    NoMemoryFor { path: String, source: DataFusionError },
    #[error("null value in column {column:?} violates not-null constraint")]
    NullValue { column: String },
}

/// Whose column it is, where that is known.
fn of_relation(table: &Option<String>) -> String {
    table.as_ref().map(|table| format!(" of relation \"{table}\"")).unwrap_or_default()
}

impl Error {
    /// The file that a statement has failed on: for the log, and for those who may read files.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Values { path, .. }
            | Self::NoMemoryFor { path, .. }
            | Self::Damaged { path, .. }
            | Self::NotOfFormat { path, .. }
            | Self::NotFound { path }
            | Self::Denied { path }
            | Self::Io { path, .. }
            | Self::TooLong { path, .. }
            | Self::NotWritten { path, .. }
            | Self::DeniedWrite { path }
            | Self::ReadOnly { path }
            | Self::NoSpace { path } => Some(path),
            Self::Shared(error) => error.file(),
            _ => None,
        }
    }

    /// Whether the daemon itself cannot write where it must: that is nobody's attempt at what they may not.
    pub fn is_of_daemon(&self) -> bool {
        match self {
            Self::DeniedWrite { .. } | Self::ReadOnly { .. } => true,
            Self::Shared(error) => error.is_of_daemon(),
            _ => false,
        }
    }

    /// Whether memory is what is lacking.
    pub fn is_of_memory(&self) -> bool {
        match self {
            Self::NoMemory(_) | Self::NoMemoryFor { .. } => true,
            Self::Shared(error) => error.is_of_memory(),
            _ => false,
        }
    }

    /// The failure where a table is made of the file.
    #[must_use]
    pub fn described(self, external: &External) -> Self {
        match self {
            Self::Damaged { path, source } => {
                Self::NotOfFormat { path, format: external.format, source }
            }
            other => other,
        }
    }

    /// What is wrong with values of a file.
    pub fn of_values(&self) -> Option<&DataFusionError> {
        match self {
            Self::Values { source, .. } => Some(source),
            Self::Shared(error) => error.of_values(),
            _ => None,
        }
    }

    /// Whether a failed commit certainly has changed nothing.
    pub fn left_nothing(&self) -> bool {
        match self {
            Self::Catalog(error) => !matches!(**error, crate::catalog::Error::Unknown(_)),
            Self::Shared(error) => error.left_nothing(),
            Self::Stopped | Self::Uncertain(_) => false,
            _ => true,
        }
    }

    /// Whether others have changed what a commit was made from, or were quicker too often.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Busy { .. } => true,
            Self::Shared(error) => error.is_conflict(),
            _ => false,
        }
    }

    /// Whether a commit was given up before it was made.
    pub fn is_given_up(&self) -> bool {
        match self {
            Self::GivenUp => true,
            Self::Shared(error) => error.is_given_up(),
            _ => false,
        }
    }

    /// A reader met bytes that it did not reckon with.
    pub fn of_panic(path: impl Into<String>, panic: Box<dyn Any + Send>) -> Self {
        let text = match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast::<&str>().map_or("unknown".into(), |text| (*text).into()),
        };
        let source = DataFusionError::Execution(format!("the reader gave up: {text}"));
        Self::Damaged { path: path.into(), source: Box::new(source) }
    }

    /// What kept `path` from being written.
    pub fn not_written(
        path: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let (path, source) = (path.into(), source.into());
        match cause(source.as_ref()) {
            Cause::Denied => Self::DeniedWrite { path },
            Cause::NoSpace => Self::NoSpace { path },
            Cause::ReadOnly => Self::ReadOnly { path },
            _ => Self::NotWritten { path, source },
        }
    }

    /// The failure itself, if nobody else is told of it as well.
    #[must_use]
    pub fn unshared(self) -> Self {
        match self {
            Self::Shared(error) => Arc::try_unwrap(error).unwrap_or_else(Self::Shared),
            own => own,
        }
    }

    /// What happened to `path`, as far as the engine's error tells.
    pub fn of_file(path: impl Into<String>, error: DataFusionError) -> Self {
        let path = path.into();
        let error = match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => return *own,
                Err(inner) => DataFusionError::External(inner),
            },
            other => other,
        };
        // It is said by those who check what files have: readers do not take memory themselves.
        if let Some(lacking) = lacking_memory(&error) {
            let source = DataFusionError::ResourcesExhausted(lacking.to_owned());
            return Self::NoMemoryFor { path, source };
        }
        // Parquet has no texts to be parsed, so that it is a cast that has failed: CSV and JSON say the same
        // of their own bytes.
        let cast = path.ends_with(".parquet") && is_of_parsing(&error);
        let cause = if cast || is_about_values(&error) { Cause::Values } else { cause(&error) };
        match cause {
            Cause::NotFound => Self::NotFound { path },
            Cause::Denied => Self::Denied { path },
            Cause::ReadOnly => Self::ReadOnly { path },
            Cause::Io | Cause::NoSpace => Self::Io { path, source: Box::new(error) },
            Cause::TooLong => Self::TooLong { path, source: Box::new(error) },
            Cause::Values => Self::Values { path, source: Box::new(error) },
            Cause::Other => Self::Damaged { path, source: Box::new(error) },
        }
    }
}

impl Error {
    /// Whether it says in which line of a file something is wrong.
    pub fn tells_line(&self) -> bool {
        matches!(self, Self::Damaged { source, .. } if lines::told(&said(source), 0).is_some())
    }

    /// The same of a part of a file behind so many bytes, whose reader has counted lines from there; `lines`
    /// are those in front of it, if they are known.
    #[must_use]
    pub fn behind(self, bytes: u64, lines: Option<u64>) -> Self {
        let Self::Damaged { path, source } = self else { return self };
        let text = said(&source);
        let told = match (lines::told(&text, lines.unwrap_or_default()), lines) {
            (None, _) => return Self::Damaged { path, source },
            (Some(told), Some(_)) => told,
            (Some(told), None) => format!("{told} (lines are counted from byte {bytes})"),
        };
        let source = Box::new(ArrowError::CsvError(told).into());
        Self::Damaged { path, source }
    }

    /// Whether it is about a file of text, as CSV and JSON are: no managed table has such files.
    pub fn is_of_text(&self) -> bool {
        let (Self::Damaged { source, .. } | Self::Values { source, .. }) = self else {
            return false;
        };
        matches!(source.find_root(), DataFusionError::ArrowError(inner, _)
            if matches!(inner.as_ref(), ArrowError::CsvError(_) | ArrowError::JsonError(_) | ArrowError::ParseError(_)))
    }
}

enum Cause {
    NotFound,
    Denied,
    NoSpace,
    ReadOnly,
    Io,
    TooLong,
    Values,
    Other,
}

/// What arithmetic and casts say, without what the engine puts before it.
fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => "division by zero".to_owned(),
            ArrowError::ArithmeticOverflow(text)
            | ArrowError::CastError(text)
            | ArrowError::ComputeError(text)
            | ArrowError::ParseError(text)
            | ArrowError::InvalidArgumentError(text) => text.clone(),
            other => other.to_string(),
        },
        root => root.message().into_owned(),
    }
}

/// What is wrong with a file's bytes.
fn damage(source: &DataFusionError) -> String {
    let text = said(source);
    lines::told(&text, 0).unwrap_or(text)
}

/// The same in the words of the libraries that have found it, without their names.
fn said(source: &DataFusionError) -> String {
    let text = source.to_string();
    let mut text = text.rsplit("caused by\n").next().unwrap_or_default();
    let libraries = [
        "Arrow error: ",
        "Parquet error: ",
        "Csv error: ",
        "Json error: ",
        "Parser error: ",
        "External error: ",
        "Execution error: ",
        "Io error: ",
        "IO error: ",
    ];
    while let Some(rest) = libraries.iter().find_map(|library| text.strip_prefix(library)) {
        text = rest;
    }
    text.trim_end().to_owned()
}

/// What is said of memory that is lacking, if that is what is wrong.
fn lacking_memory(error: &DataFusionError) -> Option<&str> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(DataFusionError::ResourcesExhausted(text)) = error.downcast_ref() {
            return Some(text);
        }
        next = error.source();
    }
    None
}

/// Whether an error is about values rather than bytes.
fn is_about_values(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => is_of_values(inner),
        DataFusionError::Execution(_) => true,
        // Functions say in their own words what they cannot do with a value.
        DataFusionError::External(_) => !is_of_reader(error),
        _ => false,
    }
}

fn is_of_parsing(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ArrowError(inner, _)
        if matches!(inner.as_ref(), ArrowError::ParseError(_)))
}

fn is_of_values(error: &ArrowError) -> bool {
    matches!(
        error,
        ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
            | ArrowError::CastError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::InvalidArgumentError(_)
    )
}

/// Whether a reader, the store or the file system is behind an error.
fn is_of_reader(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<io::Error>()
            || error.is::<object_store::Error>()
            || error.is::<ParquetError>()
            || error.downcast_ref().is_some_and(|error| !is_of_values(error))
            || error.is::<tokio::task::JoinError>()
            || error.is::<Error>()
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether a server has answered that the daemon may not do this. Only its words tell it: the library
/// keeps the type of this error to itself, and sorts out the answers to some requests only.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = error.to_string();
    ["401 Unauthorized", "403 Forbidden"]
        .iter()
        .any(|status| text.contains(&format!("status code: {status}")))
}

/// Whether a store has said that it has no such bytes of a file, perhaps for it is shorter than whoever asks
/// thinks. Only its words tell it, as above.
pub(super) fn is_of_range(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = error.to_string();
    ["status code: 416", "Requested range was invalid", "Out of range of file", "Invalid range"]
        .iter()
        .any(|words| text.contains(words))
}

/// An error's text. Of a document that an object store has answered only what went wrong: the rest
/// is long, and may repeat keys and tokens of the daemon's.
pub(super) fn brief(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    let Some((before, document)) = text.split_once("<Error>") else { return text };
    let part = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(value, _)| value)
    };
    let before = before.split("<?xml").next().unwrap_or_default().trim_end();
    let parts = [part("Code"), part("Message")].into_iter().flatten();
    format!("{before} {}", parts.collect::<Vec<_>>().join(": "))
}

/// The failure of the store or the file system behind an error that nobody has told of a file, if one is:
/// what [`Error`] it would be.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let path = String::new();
    match cause(error) {
        Cause::NotFound => Some(Error::NotFound { path }),
        Cause::Denied => Some(Error::Denied { path }),
        Cause::NoSpace => Some(Error::NoSpace { path }),
        Cause::ReadOnly => Some(Error::ReadOnly { path }),
        Cause::Io => Some(Error::Io { path, source: error.to_string().into() }),
        Cause::TooLong => Some(Error::TooLong { path, source: error.to_string().into() }),
        Cause::Values | Cause::Other => None,
    }
}

/// Looks for the failure of the store or the file system behind an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::NotFound => return Cause::NotFound,
                io::ErrorKind::PermissionDenied => return Cause::Denied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    return Cause::NoSpace;
                }
                io::ErrorKind::ReadOnlyFilesystem => return Cause::ReadOnly,
                io::ErrorKind::FileTooLarge => return Cause::TooLong,
                // Readers report bad contents as these, too.
                io::ErrorKind::InvalidData
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::Other
                | io::ErrorKind::InvalidInput => {}
                _ => return Cause::Io,
            }
        }
        match error.downcast_ref::<object_store::Error>() {
            Some(object_store::Error::NotFound { .. }) => return Cause::NotFound,
            Some(
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. },
            ) => return Cause::Denied,
            Some(object_store::Error::Generic { source, .. }) => {
                return match cause(source.as_ref()) {
                    Cause::Other if is_refusal(source.as_ref()) => Cause::Denied,
                    Cause::Other => Cause::Io,
                    known => known,
                };
            }
            _ => {}
        }
        next = match error.downcast_ref::<DataFusionError>() {
            // Their `source` would skip the error itself.
            Some(DataFusionError::ObjectStore(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::IoError(inner)) => Some(inner),
            _ => error.source(),
        };
    }
    Cause::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_store_is_told_without_its_details() {
        let answer = "Error performing GET http://s3/lake in 1ms - Server returned non-2xx status \
                      code: 400 Bad Request: <?xml version=\"1.0\"?>\n<Error><Code>InvalidToken\
                      </Code><Message>It is malformed.</Message><Token-0>t0ken</Token-0></Error>";
        let error = Error::not_written("s3://lake/x", generic(answer)).to_string();
        assert!(error.ends_with("400 Bad Request: InvalidToken: It is malformed."), "{error}");
        let refused = generic("non-2xx status code: 403 Forbidden: <Error></Error>");
        assert!(matches!(Error::not_written("s3://lake/x", refused), Error::DeniedWrite { .. }));
    }

    #[test]
    fn a_failure_of_the_file_system_is_found_wherever_it_lies() {
        let too_many_files = io::Error::from_raw_os_error(24);
        let store = object_store::Error::Generic { store: "file", source: too_many_files.into() };
        let error = DataFusionError::External(Box::new(ParquetError::External(Box::new(store))));
        assert!(matches!(failure(&error), Some(Error::Io { .. })));
        let error = DataFusionError::ParquetError(Box::new(ParquetError::General("bad".into())));
        assert!(failure(&error).is_none());
    }

    #[test]
    fn only_bytes_that_are_not_there_are_a_question_of_size() {
        let status = "non-2xx status code: ";
        let of_range =
            |what: &str| is_of_range(&generic(&format!("{status}{what}: <Error></Error>")));
        assert!(of_range("416 Range Not Satisfiable"));
        assert!(!of_range("503 Service Unavailable") && !of_range("403 Forbidden"));
        assert!(!is_of_range(&generic("error sending request: connection refused")));
    }

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }
}
