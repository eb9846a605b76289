//! Failures of files and tables as the client sees them.

use super::memory::out_of_memory;
use super::{Report, catalog_code, known};
use crate::catalog::FileFormat;
use crate::storage;
use crate::storage::managed::is_of_managed;

impl From<storage::Error> for Report {
    fn from(error: storage::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&storage::Error> for Report {
    fn from(error: &storage::Error) -> Self {
        use storage::Error as E;
        let report = Self::error(storage_code(error), error.to_string());
        let (file, own) = (error.file().map(Box::from), error.is_of_daemon());
        let report = Self { file, own, ..report };
        match error {
            E::NoMemory(_) | E::NoMemoryFor { .. } => {
                Self { file: report.file, ..out_of_memory(&report.message) }
            }
            E::Outside { .. } => {
                report.hint("The setting storage.roots of the daemon lists these places.")
            }
            E::NotFound { path } if is_of_managed(path) => {
                report.hint(if is_local(path) { GONE } else { MANAGED })
            }
            E::Damaged { path, .. } if is_of_managed(path) => {
                report.hint(if path.ends_with(".parquet") { ROWS } else { MANAGED })
            }
            E::Damaged { .. } if error.is_of_text() => report.hint(TEXT),
            E::Damaged { .. } => report.hint(DAMAGED),
            E::NotOfFormat { format: FileFormat::Csv, .. } => report.hint(CSV),
            E::NotOfFormat { .. } => report.hint(FORMAT),
            E::EmptyFiles { format: FileFormat::Parquet, .. } => report.hint(NO_PARQUET),
            E::EmptyFiles { .. } => report.hint(NO_LINES),
            E::Denied { path } | E::DeniedWrite { path } if path.starts_with("s3") => {
                report.hint(BUCKETS)
            }
            E::DeniedWrite { path } | E::ReadOnly { path } if is_local(path) => {
                report.hint(UNWRITABLE)
            }
            E::Values { .. } if report.code == "23502" => report.hint(NOT_NULL),
            E::Catalog(error) => error.as_ref().into(),
            E::Shared(error) => error.as_ref().into(),
            error if error.is_conflict() => report.hint("Retry the transaction."),
            _ => report,
        }
    }
}

/// Whether a place is on this machine, and not in a bucket.
fn is_local(path: &str) -> bool {
    path.starts_with("file:") || !path.contains("://")
}

/// What is to be done about a file that cannot be read.
const DAMAGED: &str = "Put the file right, or take it away: a table's files are lost unless there is a copy of \
                       them.";

/// What is to be done about a file without values that there are said to be.
const NOT_NULL: &str = "Declare the column without NOT NULL: it is NULL then for all rows of files that do not have \
                        it. Or take the file away.";

/// The same of a file that says what a managed table consists of.
const MANAGED: &str = "A managed table consists of this file: put it back from a copy.";

/// The same of one that has rows of it.
const ROWS: &str = "A managed table consists of this file: put it back from a copy. Without one, the table can be \
                    read as it was before the file was written, FOR VERSION AS OF an id in \
                    \"table$snapshots\", and INSERT OVERWRITE TABLE makes it anew of such rows.";

/// The same of one that is not there.
const GONE: &str = "Is the warehouse's storage mounted? If it is, put the file back from a copy: a managed table \
                    consists of it.";

/// What is to be done where files are empty that are to tell a table's columns.
const NO_PARQUET: &str = "Put files there that were copied whole: each Parquet file tells its columns, also one \
                          without rows.";

/// The same of files of text.
const NO_LINES: &str = "Put files there that have rows, or name the columns: CREATE EXTERNAL TABLE name (column \
                        type, ...). Files without bytes are left out then.";

/// The same of CSV and JSON, whose lines people write.
const TEXT: &str = "Put the line right, or take the file away. Columns that are declared as text take whatever \
                    stands there, and OPTIONS of CREATE EXTERNAL TABLE say how CSV is written.";

/// The same where a table is made of it.
const FORMAT: &str = "STORED AS says what the files are: PARQUET, CSV or JSON, an object a line. If that is \
                      right, the file is damaged or was not copied whole.";

/// The same of CSV.
const CSV: &str = "STORED AS says what the files are, and OPTIONS ('format.delimiter' ';', 'format.quote' '\"', \
                   'format.has_header' 'true') how they are written. If that is right, put the line right.";

/// What is to be done where a directory of this machine cannot be written to.
const UNWRITABLE: &str = "Tables can be read meanwhile, and nothing was changed. The daemon's user must be able to \
                          write there: its rights, the mount (findmnt -T shows it), or ReadWritePaths= of the \
                          service; oribi doctor on its machine tells which.";

/// Where credentials come from.
const BUCKETS: &str = "The daemon's environment says how buckets are reached: AWS_ACCESS_KEY_ID, \
                       AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for other servers than \
                       Amazon's. It is read when the daemon starts.";

/// Codes as PostgreSQL gives them for files (`errcode_for_file_access`).
pub(super) fn storage_code(error: &storage::Error) -> &'static str {
    use storage::Error as E;
    match error {
        E::Values { source, .. } => known(source.find_root()).unwrap_or("22000"),
        E::NotFound { .. } | E::NoFiles { .. } | E::EmptyFiles { .. } => "58P01",
        E::Denied { .. } | E::DeniedWrite { .. } | E::ReadOnly { .. } | E::Outside { .. } => {
            "42501"
        }
        E::Io { .. } | E::NotWritten { .. } => "58030",
        E::TooLong { .. } => "54000",
        E::NoSpace { .. } => "53100",
        E::NoMemory(_) | E::NoMemoryFor { .. } => "53200",
        E::Damaged { .. } | E::NotOfFormat { .. } => "XX001",
        E::Mixed { .. } => "42804",
        E::BadMoment { .. }
        | E::BadLocation { .. }
        | E::BadOption { .. }
        | E::BadProperty { .. } => "22023",
        E::NoPartition { .. } => "22003",
        E::NullValue { .. } => "23502",
        E::BadSchema(_)
        | E::BadDefinition { .. }
        | E::BadTable { .. }
        | E::BadAlteration { .. } => "42P16",
        E::Unsupported { .. } | E::NotStorable { .. } => "0A000",
        E::NoColumn { .. } => "42703",
        E::ColumnExists { .. } => "42701",
        E::NotManaged { .. } | E::NoHistory { .. } => "42809",
        E::NoSnapshot { .. } => "42704",
        E::NoWarehouse | E::NoPlaceForResults => "55000",
        E::Conflict { .. } | E::Busy { .. } => "40001",
        E::GivenUp => "57014",
        E::Unregistered => "25006",
        E::Uncertain(_) => "08007",
        E::Stopped => "57P01",
        E::Catalog(error) => catalog_code(error),
        E::Shared(error) => storage_code(error),
    }
}
