//! Files that somebody else writes, as tables: Parquet, CSV and JSON, in one file or in a directory
//! of many, Hive-partitioned or not. Read-only. Here they are recognised and described; [`scan`]
//! reads them.
//!
//! [`scan`]: super::scan

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::NaiveDate;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableOptions;
use datafusion::datasource::file_format::FileFormat as Format;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::CsvSource;
use datafusion::error::DataFusionError;
use futures::{FutureExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::basic::LogicalType;
use percent_encoding::percent_decode_str;

use super::guard::{self, Footers};
use super::managed::TableFiles;
use super::scan::{ExternalTable, NULL_PARTITION, is_partition_type};
use super::{Error, Folders, Location, Result, csv, json, ready};
use crate::catalog::{Column, External, FileFormat};

/// Our own option beside the formats': which files of a directory belong to the table.
pub const FILE_EXTENSION: &str = "file_extension";

/// How files of text are packed.
const COMPRESSION: &str = "compression";

/// The engine's options that say how files are written.
const OF_WRITERS: &[&str] = &["compression_level"];

/// Those for CSV that its readers do not look at.
const UNKNOWN_TO_READERS: &[&str] = &[
    "date_format",
    "datetime_format",
    "double_quote",
    "ignore_leading_whitespace",
    "ignore_trailing_whitespace",
    "null_regex",
    "null_value",
    "quote_style",
    "time_format",
    "timestamp_format",
    "timestamp_tz_format",
];

/// Files looked at to find out how a directory is laid out.
const LAYOUT_SAMPLE: usize = 1000;

/// What CREATE EXTERNAL TABLE says.
#[derive(Clone, Debug)]
pub struct Definition {
    pub location: Location,
    pub format: FileFormat,
    /// Declared columns, those of PARTITIONED BY left out; `None`: look into the files.
    pub columns: Option<Vec<Field>>,
    /// Declared partition columns, outermost first, with a type if one was given; `None`: look at
    /// the directories' names.
    pub partitions: Option<Vec<(String, Option<DataType>)>>,
    pub options: BTreeMap<String, String>,
}

/// Completes a definition from what is at its location: columns as queries see them, and the
/// catalog's entry.
pub async fn describe(
    session: &dyn Session,
    definition: Definition,
) -> Result<(Vec<Column>, External)> {
    let Definition { location, format, columns, partitions, mut options } = definition;
    location.check_exists().await?;
    let listed = list(session, &location, &location.url()?).await?;
    let says_which = options.contains_key(FILE_EXTENSION);
    if !options.contains_key(FILE_EXTENSION)
        && let Some(extension) = usual_extension(&location, format, &listed)
    {
        options.insert(FILE_EXTENSION.to_owned(), extension);
    }
    if !says_which {
        let end = options.get(FILE_EXTENSION).map_or(own_extension(format), String::as_str);
        check_endings(&location, format, &listed, end)?;
    }
    check_effect(format, &options)?;
    let names = options.get(FILE_EXTENSION).filter(|end| !end.is_empty());
    if format != FileFormat::Parquet
        && !options.keys().any(|name| bare(name) == COMPRESSION)
        && let Some(packed) = packed_as(names.map_or(location.as_str(), String::as_str))
    {
        options.insert(COMPRESSION.to_owned(), packed.to_owned());
    }
    let partitions = match partitions {
        Some(declared) => check_partitions(&location, &listed, declared)?,
        None if columns.is_some() => Vec::new(),
        None => find_partitions(&location, &listed),
    };
    let external = External {
        location: location.to_string(),
        format,
        partition_columns: partitions.iter().map(|(name, _)| name.clone()).collect(),
        options,
    };
    // Wrong options are refused even where nothing is inferred with them.
    format_of(session, &external)?;
    let fields = match columns {
        Some(columns) => columns,
        None => infer(session, &location, &external, &listed).await?,
    };
    let fields = match external.format {
        FileFormat::Parquet => name_extensions(session, &location, &listed, fields).await,
        FileFormat::Csv | FileFormat::Json => fields,
    };
    let mut columns: Vec<Column> = (fields.iter())
        .filter(|field| !partitions.iter().any(|(name, _)| name == field.name()))
        .map(Column::from)
        .collect();
    columns.extend(
        partitions.iter().map(|(name, kind)| Column::from(&Field::new(name, kind.clone(), true))),
    );
    let unfit = partitions.iter().find(|(_, kind)| !is_partition_type(kind));
    if let Some((name, kind)) = unfit {
        let reason = format!("{kind} is no type for the partition column \"{name}\"");
        return Err(Error::BadDefinition { location: location.to_string(), reason });
    }
    if let Some(twice) = first_duplicate(&columns) {
        let reason = format!("column \"{twice}\" is there twice");
        return Err(Error::BadDefinition { location: location.to_string(), reason });
    }
    Ok((columns, external))
}

/// A table of the catalog, ready to be scanned.
pub fn open(
    session: &dyn Session,
    columns: &[Column],
    external: &External,
) -> Result<Arc<dyn TableProvider>> {
    let field = |name: &String| {
        let column = columns.iter().find(|column| column.name == *name);
        let missing = || Error::BadDefinition {
            location: external.location.clone(),
            reason: format!("partition column \"{name}\" is missing"),
        };
        column.map(|column| Arc::new(column.field())).ok_or_else(missing)
    };
    let partitions = external.partition_columns.iter().map(field).collect::<Result<Vec<_>>>()?;
    let data = columns.iter().filter(|column| !external.partition_columns.contains(&column.name));
    let schema = Schema::new(data.map(Column::field).collect::<Vec<_>>());
    Ok(Arc::new(ExternalTable::new(
        external.clone(),
        format_of(session, external)?,
        file_extension(external),
        Arc::new(schema),
        partitions,
    )?))
}

/// All files at a location, whose URL this is, by path, hidden ones left out.
pub(super) async fn list(
    session: &dyn Session,
    location: &Location,
    url: &ListingTableUrl,
) -> Result<Vec<ObjectMeta>> {
    let quick = match session.config().get_extension::<Folders>() {
        Some(folders) => folders.list(url).await,
        None => None,
    };
    let mut files = match quick {
        Some(mut files) => {
            let flat = session.config_options().execution.listing_table_ignore_subdirectory;
            files.retain(|file| url.contains(&file.location, flat));
            files
        }
        None => {
            let listing = async {
                let store = session.runtime_env().object_store(url)?;
                let files = url.list_all_files(session, store.as_ref(), "").await?;
                files.try_collect::<Vec<_>>().await
            };
            listing.await.map_err(|error| Error::of_file(location.as_str(), error))?
        }
    };
    files.retain(|file| !is_hidden(url, file));
    files.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(files)
}

/// Whether a name on the way starts with `_` or `.`: by the convention of Hive and Spark such files
/// hold no rows.
fn is_hidden(url: &ListingTableUrl, file: &ObjectMeta) -> bool {
    let hidden = |part: &str| part.starts_with(['_', '.']) && !part.contains('=');
    url.strip_prefix(&file.location).is_some_and(|mut parts| parts.any(hidden))
}

/// Whether a file without bytes has lost what it had, rather than has no rows: a Parquet file has some even
/// then. Without a name of their own there are markers of directories among the files, and what Hive leaves
/// for buckets without rows.
pub(super) fn lacks_bytes(location: &Location, format: FileFormat, extension: &str) -> bool {
    format == FileFormat::Parquet && !(location.is_directory() && extension.is_empty())
}

/// What the files of a directory hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub files: u64,
    pub bytes: u64,
}

/// What the directories hold that a table is partitioned by, under names such as `year=2026/month=1`.
/// `left` are the files that may be looked at: `None` if there are more.
pub async fn partitions(
    files: &TableFiles,
    external: &External,
    left: &mut usize,
) -> Result<Option<BTreeMap<String, Directory>>> {
    let url = Location::from_catalog(&external.location).url()?;
    let failed = |error| Error::of_file(&external.location, error);
    let store = files.store(url.object_store().as_str())?;
    let extension = file_extension(external);
    let mut listed = store.list(Some(url.prefix()));
    let mut found: BTreeMap<String, Directory> = BTreeMap::new();
    while let Some(file) = listed.try_next().await.map_err(|error| failed(error.into()))? {
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        let is_its_own = url.contains(&file.location, true) && !is_hidden(&url, &file);
        if !is_its_own || file.size == 0 || !file.location.as_ref().ends_with(&extension) {
            continue;
        }
        let values = partition_values(&url, &file);
        let names = external.partition_columns.iter().filter_map(|column| {
            let (name, value) = values.iter().find(|(name, _)| name == column)?;
            let value = match value.as_str() {
                NULL_PARTITION => "null".into(),
                value => percent_decode_str(value).decode_utf8_lossy(),
            };
            Some(format!("{name}={value}"))
        });
        let directory = found.entry(names.collect::<Vec<_>>().join("/")).or_default();
        directory.files += 1;
        directory.bytes += file.size;
    }
    Ok(Some(found))
}

/// The end of the names that make up the table, if it is not the format's own.
fn usual_extension(
    location: &Location,
    format: FileFormat,
    files: &[ObjectMeta],
) -> Option<String> {
    if !location.is_directory() {
        return Some(String::new());
    }
    let own = own_extension(format);
    if files.iter().any(|file| file.location.as_ref().ends_with(own)) {
        return None;
    }
    let name = files.first()?.location.filename()?;
    Some(name.find('.').map(|dot| name[dot..].to_owned()).unwrap_or_default())
}

/// Refuses a directory with files that look as if they were the table's, too, and would be left out.
fn check_endings(
    location: &Location,
    format: FileFormat,
    files: &[ObjectMeta],
    end: &str,
) -> Result<()> {
    let usual = match format {
        FileFormat::Parquet => [".parquet", ".parq", ".pq"],
        FileFormat::Csv => [".csv", ".tsv", ".psv"],
        FileFormat::Json => [".json", ".jsonl", ".ndjson"],
    };
    let looks = |name: &str| {
        let name = name.to_lowercase();
        let name = match packed_as(&name) {
            Some(_) => name.rsplit_once('.').map_or("", |(name, _)| name),
            None => &name,
        };
        usual.iter().any(|end| name.ends_with(end))
    };
    let names = files.iter().map(|file| file.location.as_ref());
    match names.filter(|name| !name.ends_with(end)).find(|name| looks(name)) {
        None => Ok(()),
        Some(other) => {
            let reason = format!(
                "its files end in {end}, and others do not, such as {other}: say in OPTIONS \
                 ('{FILE_EXTENSION}' '{end}') which are meant"
            );
            Err(Error::BadDefinition { location: location.to_string(), reason })
        }
    }
}

fn own_extension(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => ".parquet",
        FileFormat::Csv => ".csv",
        FileFormat::Json => ".json",
    }
}

/// `key=value` directories between a location and a file, outermost first.
pub(super) fn partition_values(url: &ListingTableUrl, file: &ObjectMeta) -> Vec<(String, String)> {
    let Some(parts) = url.strip_prefix(&file.location) else { return Vec::new() };
    let mut parts: Vec<&str> = parts.collect();
    parts.pop();
    (parts.iter())
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Finds Hive's partition columns in the directories' names. A column whose values all read as
/// integers or dates gets that type.
fn find_partitions(location: &Location, files: &[ObjectMeta]) -> Vec<(String, DataType)> {
    let Ok(url) = location.url() else { return Vec::new() };
    let sample: Vec<_> =
        files.iter().take(LAYOUT_SAMPLE).map(|file| partition_values(&url, file)).collect();
    let names = |values: &[(String, String)]| -> Vec<String> {
        values.iter().map(|(name, _)| name.clone()).collect()
    };
    let Some(first) = sample.first().map(|values| names(values)) else { return Vec::new() };
    if sample.iter().any(|values| names(values) != first) {
        return Vec::new();
    }
    (first.into_iter().enumerate())
        .map(|(at, name)| {
            let mut values = (sample.iter().map(|values| values[at].1.as_str()))
                .filter(|value| *value != NULL_PARTITION);
            let kind = if values.clone().all(|value| value.parse::<i64>().is_ok()) {
                DataType::Int64
            } else if values.all(|value| value.parse::<NaiveDate>().is_ok()) {
                DataType::Date32
            } else {
                DataType::Utf8
            };
            (name, kind)
        })
        .collect()
}

/// Checks declared partition columns against the directories' names.
fn check_partitions(
    location: &Location,
    files: &[ObjectMeta],
    declared: Vec<(String, Option<DataType>)>,
) -> Result<Vec<(String, DataType)>> {
    let found = find_partitions(location, files);
    let fits = declared.iter().zip(&found).all(|((name, _), (found, _))| name == found);
    if !files.is_empty() && (declared.len() > found.len() || !fits) {
        let found: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        let reason = format!("the directories are partitioned by ({})", found.join(", "));
        return Err(Error::BadDefinition { location: location.to_string(), reason });
    }
    let kinds = found.into_iter().map(|(_, kind)| kind).chain(std::iter::repeat(DataType::Utf8));
    Ok((declared.into_iter().zip(kinds))
        .map(|((name, declared), found)| (name, declared.unwrap_or(found)))
        .collect())
}

/// Reads the columns from the files, which must agree.
async fn infer(
    session: &dyn Session,
    location: &Location,
    external: &External,
    files: &[ObjectMeta],
) -> Result<Vec<Field>> {
    let (format, extension) = (format_of(session, external)?, file_extension(external));
    let mut files: Vec<ObjectMeta> = (files.iter())
        .filter(|file| file.location.as_ref().ends_with(&extension))
        .cloned()
        .collect();
    if files.iter().all(|file| file.size == 0) {
        let location = location.to_string();
        return Err(match files.is_empty() {
            true => Error::NoFiles { location, format: format.get_ext() },
            false => Error::EmptyFiles { location, format: external.format },
        });
    }
    files.retain(|file| file.size > 0 || lacks_bytes(location, external.format, &extension));
    let store = session
        .runtime_env()
        .object_store(location.url()?)
        .map_err(|error| Error::of_file(location.as_str(), error))?;
    let url = location.url()?;
    let named = |file: &ObjectMeta| file_url(&url, file);
    let schema = async |files: &[ObjectMeta]| {
        AssertUnwindSafe(infer_schema(session, &store, format.as_ref(), files)).catch_unwind().await
    };
    if let Ok(Ok(schema)) = schema(&files).await {
        refuse_names_twice(session, &store, format.as_ref(), (location, files.first())).await?;
        return Ok(schema.fields().iter().map(|field| (**field).clone()).collect());
    }
    // Find the culprit: one file that cannot be read, or the first that differs.
    for file in &files {
        match schema(std::slice::from_ref(file)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error = match external.format {
                    FileFormat::Json => ready::with_line(store.as_ref(), file, error).await,
                    FileFormat::Csv | FileFormat::Parquet => error,
                };
                return Err(Error::of_file(named(file), error).described(external));
            }
            Err(panic) => return Err(Error::of_panic(named(file), panic).described(external)),
        }
        if let Ok(Err(error)) = schema(&[files[0].clone(), file.clone()]).await {
            let reason = format!("{}: {}", named(file), error.message());
            return Err(Error::Mixed { location: location.to_string(), reason });
        }
    }
    let reason = "their columns differ".to_owned();
    Err(Error::Mixed { location: location.to_string(), reason })
}

/// Refuses a header that has one name twice: what is inferred has one column for both.
async fn refuse_names_twice(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
    format: &dyn Format,
    (location, file): (&Location, Option<&ObjectMeta>),
) -> Result<()> {
    let (Some(csv), Some(file)) = (format.downcast_ref::<CsvFormat>(), file) else {
        return Ok(());
    };
    let options = csv.options();
    let has_header = session.config_options().catalog.has_header;
    if !options.has_header.unwrap_or(has_header) || options.compression.is_compressed() {
        return Ok(());
    }
    let source = CsvSource::new(Arc::new(Schema::empty())).with_csv_options(options.clone());
    let head = store.get_range(&file.location, 0..file.size.min(csv::HEADER)).await;
    let names = head.map_err(DataFusionError::from).and_then(|head| csv::names(&source, &head));
    let names = names.map_err(|error| Error::of_file(location.as_str(), error))?;
    let mut seen = HashSet::new();
    match names.into_iter().find(|name| !seen.insert(name.clone())) {
        Some(twice) => Err(Error::BadDefinition {
            location: location.to_string(),
            reason: format!("column \"{twice}\" is there twice in the header of {}", file.location),
        }),
        None => Ok(()),
    }
}

async fn infer_schema(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
    format: &dyn Format,
    files: &[ObjectMeta],
) -> datafusion::error::Result<SchemaRef> {
    if let Some(format) = format.downcast_ref::<JsonFormat>() {
        return json::columns(store.as_ref(), files, format.options()).await;
    }
    let Some(parquet) = format.downcast_ref::<ParquetFormat>() else {
        return format.infer_schema(session, store, files).await;
    };
    let options = &parquet.options().global;
    let concurrency = session.config_options().execution.meta_fetch_concurrency.get();
    let footers = Footers::new(store.clone(), session.runtime_env());
    guard::schema(&footers.with_hint(options.metadata_size_hint), options, files, concurrency).await
}

/// Marks the columns that Parquet says are UUIDs or JSON, by Arrow's extension types: their Arrow
/// types alone do not tell.
async fn name_extensions(
    session: &dyn Session,
    location: &Location,
    files: &[ObjectMeta],
    fields: Vec<Field>,
) -> Vec<Field> {
    let Some(file) = files.iter().find(|file| file.size > 0) else { return fields };
    let Ok(store) = location.url().map(|url| session.runtime_env().object_store(url)) else {
        return fields;
    };
    let Ok(store) = store else { return fields };
    let footers = Footers::new(store, session.runtime_env());
    // Whatever is wrong with the file has been or will be said by whoever needs its rows.
    let Ok(metadata) = footers.read(file).await else { return fields };
    let root = metadata.file_metadata().schema();
    let extension = |name: &str| {
        let column = root.get_fields().iter().find(|column| column.name() == name)?;
        match column.get_basic_info().logical_type_ref()? {
            LogicalType::Uuid => Some("arrow.uuid"),
            LogicalType::Json => Some("arrow.json"),
            _ => None,
        }
    };
    (fields.into_iter())
        .map(|field| match extension(field.name()) {
            Some(name) => {
                let mut metadata = field.metadata().clone();
                metadata.insert("ARROW:extension:name".to_owned(), name.to_owned());
                field.with_metadata(metadata)
            }
            None => field,
        })
        .collect()
}

/// The end of the names of the table's files.
fn file_extension(external: &External) -> String {
    let given = external.options.get(FILE_EXTENSION).cloned();
    given.unwrap_or_else(|| own_extension(external.format).to_owned())
}

/// A file's full name.
pub(super) fn file_url(url: &ListingTableUrl, file: &ObjectMeta) -> String {
    format!("{}/{}", url.object_store().as_str().trim_end_matches('/'), file.location)
}

/// The format with the options given for this table.
fn format_of(session: &dyn Session, external: &External) -> Result<Arc<dyn Format>> {
    let mut options: TableOptions = session.table_options().clone();
    options.set_config_format(match external.format {
        FileFormat::Parquet => datafusion::common::config::ConfigFileType::PARQUET,
        FileFormat::Csv => datafusion::common::config::ConfigFileType::CSV,
        FileFormat::Json => datafusion::common::config::ConfigFileType::JSON,
    });
    for (name, value) in &external.options {
        if name == FILE_EXTENSION {
            continue;
        }
        let key = if name.contains('.') { name.clone() } else { format!("format.{name}") };
        let set = options.set(&key, value);
        set.map_err(|error| bad_option(&options, external.format, name, value, &error))?;
    }
    Ok(match external.format {
        FileFormat::Parquet => Arc::new(ParquetFormat::default().with_options(options.parquet)),
        FileFormat::Csv => Arc::new(CsvFormat::default().with_options(options.csv)),
        FileFormat::Json => Arc::new(JsonFormat::default().with_options(options.json)),
    })
}

/// An option's name without the engine's prefix.
fn bare(name: &str) -> &str {
    name.strip_prefix("format.").unwrap_or(name)
}

/// Refuses options that the engine knows and that change nothing about what is read.
fn check_effect(format: FileFormat, options: &BTreeMap<String, String>) -> Result<()> {
    let useless = |name: &&String| {
        let kinds = match format {
            FileFormat::Parquet => [].as_slice(),
            FileFormat::Csv => &[OF_WRITERS, UNKNOWN_TO_READERS],
            FileFormat::Json => &[OF_WRITERS],
        };
        kinds.concat().contains(&bare(name))
    };
    match options.keys().find(useless) {
        None => Ok(()),
        Some(name) => {
            let reason = "it has no effect on what is read: take it away, and where values are written in \
                          another way declare the column as text and convert it in a view";
            Err(Error::BadOption { name: name.clone(), reason: reason.to_owned() })
        }
    }
}

/// How a file of text is packed, by its name.
fn packed_as(name: &str) -> Option<&'static str> {
    let (_, end) = name.rsplit_once('.')?;
    match end {
        "gz" => Some("gzip"),
        "bz2" => Some("bzip2"),
        "xz" => Some("xz"),
        "zst" => Some("zstd"),
        _ => None,
    }
}

/// What is wrong with an option, and what there is of its kind.
fn bad_option(
    options: &TableOptions,
    format: FileFormat,
    name: &str,
    value: &str,
    error: &DataFusionError,
) -> Error {
    let text = error.message();
    let unknown = text.contains(" not found on ") || text.contains("Could not find config");
    let reason = match unknown {
        true => {
            let known: Vec<String> = (options.entries().into_iter())
                .filter_map(|entry| entry.key.strip_prefix("format.").map(str::to_owned))
                .filter(|key| !key.contains("::"))
                .collect();
            format!("{} has no such option; it has {}", written(format), known.join(", "))
        }
        false => format!("{value:?} is no value of it: {text}"),
    };
    Error::BadOption { name: name.to_owned(), reason }
}

/// A format as STORED AS has it.
pub(super) fn written(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "PARQUET",
        FileFormat::Csv => "CSV",
        FileFormat::Json => "JSON",
    }
}

fn first_duplicate(columns: &[Column]) -> Option<&str> {
    let mut seen = HashSet::new();
    columns.iter().map(|column| column.name.as_str()).find(|name| !seen.insert(*name))
}
