//! What can go wrong with files, always with the file's name.

use std::any::Any;
use std::io;

use datafusion::error::DataFusionError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{location:?} is not a valid location: {reason}")]
    BadLocation { location: String, reason: String },
    #[error("there are no {format} files at {location}")]
    NoFiles { location: String, format: String },
    #[error("{path} does not exist")]
    NotFound { path: String },
    #[error("no permission to read {path}")]
    Denied { path: String },
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The bytes are there but are not what the format demands.
    #[error("{path} is damaged or not of the expected format: {source}")]
    Damaged { path: String, source: Box<DataFusionError> },
    #[error("the files at {location} do not fit together: {reason}")]
    Mixed { location: String, reason: String },
    #[error("option \"{name}\": {reason}")]
    BadOption { name: String, reason: String },
    #[error("{location}: {reason}")]
    BadDefinition { location: String, reason: String },
}

impl Error {
    /// A reader met bytes that it did not reckon with.
    pub fn of_panic(path: impl Into<String>, panic: Box<dyn Any + Send>) -> Self {
        let text = match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast::<&str>().map_or("unknown".into(), |text| (*text).into()),
        };
        let source = DataFusionError::Execution(format!("the reader gave up: {text}"));
        Self::Damaged { path: path.into(), source: Box::new(source) }
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
        match cause(&error) {
            Cause::NotFound => Self::NotFound { path },
            Cause::Denied => Self::Denied { path },
            Cause::Io => Self::Io { path, source: Box::new(error) },
            Cause::Other => Self::Damaged { path, source: Box::new(error) },
        }
    }
}

enum Cause {
    NotFound,
    Denied,
    Io,
    Other,
}

/// Looks for the failure of the store or the file system behind an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::NotFound => return Cause::NotFound,
                io::ErrorKind::PermissionDenied => return Cause::Denied,
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
