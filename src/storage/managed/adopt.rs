//! Tables of other writers, taken over by their metadata file.
//!
//! A table is taken over only if every row of it is read right: of Iceberg's format version 1 or 2,
//! without row-level deletes, in Parquet with field ids, all in one store.
//!
//! # Whose files are whose
//! What the adopted metadata names was there before, and others may go on using it: none of it is
//! ever removed, whatever Oribi does to the table afterwards. What the table's directory holds beside
//! it is not Oribi's to judge: it is neither swept for orphans nor purged.

use std::collections::{BTreeMap, HashSet};

use iceberg::spec::{FormatVersion, NestedFieldRef, TableMetadata, Type};
use serde::Deserialize;
use uuid::Uuid;

use super::abandoned::CLUSTER;
use super::columns_of;
use super::expire::retained_files;
use super::files::{TableFiles, file_key, store_url};
use super::scan::live_files;
use crate::catalog::{self, Column, Managed, Snapshot};
use crate::storage::{Error, Location, Result, Roots};

/// Properties by which other writers put files elsewhere; here they all go below the location.
const ELSEWHERE: &[&str] = &[
    "write.data.path",
    "write.metadata.path",
    "write.folder-storage.path",
    "write.object-storage.path",
];

/// How columns of files without field ids are found.
const NAME_MAPPING: &str = "schema.name-mapping.default";

/// A table of another writer that can be taken over.
#[derive(Debug)]
pub struct Adoptable {
    pub definition: Managed,
    pub columns: Vec<Column>,
    /// All of its files.
    files: HashSet<String>,
}

/// Where a table is to be taken over.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub roots: &'a Roots,
    pub warehouse: Option<&'a str>,
    pub cluster: Uuid,
}

/// Reads what a metadata file names, and refuses what would not be read right.
pub async fn examine(files: &TableFiles, url: &str, here: Here<'_>) -> Result<Adoptable> {
    check_version(files, url).await?;
    let metadata = files.metadata(url).await?;
    check_properties(&metadata, here.cluster)?;
    check_nested_columns(&metadata)?;
    let columns = columns_of(&metadata, &[])?;
    // Refuses row-level deletes, and formats other than Parquet.
    live_files(files, &metadata).await?;
    let named = retained_files(files, url, &metadata).await?;
    let store = store_url(metadata.location())?;
    for file in &named {
        if store_url(file)? != store {
            let location = metadata.location();
            let what = format!("a table at {location} with files elsewhere, such as {file},");
            return Err(Error::Unsupported { what });
        }
        here.roots.check(&Location::from_catalog(&with_scheme(file)))?;
        // There it would be taken for what is left of a dropped table.
        if here.warehouse.is_some_and(|place| is_below(file, place))
            && !is_below(file, metadata.location())
        {
            let what = format!("a table with a file elsewhere in the warehouse, {file},");
            return Err(Error::Unsupported { what });
        }
    }
    here.roots.check(&Location::from_catalog(&with_scheme(metadata.location())))?;
    let adopted =
        catalog::Adopted { metadata: url.to_owned(), location: metadata.location().to_owned() };
    let definition = Managed::new(metadata.uuid(), url.to_owned(), Some(adopted));
    Ok(Adoptable { definition, columns, files: named })
}

impl Adoptable {
    /// Refuses a table that the catalog has already, under whatever name, and one with files in the
    /// directory of another table, which may remove them.
    pub fn check(&self, snapshot: &Snapshot) -> catalog::Result<()> {
        let Some(location) = self.definition.location().map(file_key) else { return Ok(()) };
        let tables = snapshot.databases.values().flat_map(|database| database.schemas.values());
        for table in tables.flat_map(|schema| schema.tables.values()) {
            let catalog::Definition::Managed(other) = &table.record.definition else { continue };
            let refused = |what: &str| {
                let reason = format!("{what} table {}", table.name);
                Err(catalog::Error::AlreadyThere(reason))
            };
            if other.uuid == self.definition.uuid {
                return refused("this table is in the catalog already as");
            }
            let Some(place) = other.location().map(file_key) else { continue };
            if place == location {
                return refused("the table's location is already that of");
            }
            if other.adopted.is_none()
                && (is_below(&location, &place)
                    || self.files.iter().any(|file| is_below(file, &place)))
            {
                return refused("the table has files in the directory of");
            }
        }
        Ok(())
    }
}

/// The files that were there before a table was adopted, as [`file_key`] has them; `None` if that
/// cannot be known any more. With `all`, not just metadata files.
pub async fn files_before(
    files: &TableFiles,
    table: &Managed,
    all: bool,
) -> Option<HashSet<String>> {
    let Some(adopted) = &table.adopted else { return Some(HashSet::new()) };
    let metadata = files.metadata(&adopted.metadata).await.ok()?;
    let mut urls = match all {
        true => retained_files(files, &adopted.metadata, &metadata).await.ok()?,
        false => metadata.metadata_log().iter().map(|log| log.metadata_file.clone()).collect(),
    };
    urls.insert(adopted.metadata.clone());
    Some(urls.iter().map(|url| file_key(url)).collect())
}

/// Those of the files that may be removed, since they were not there before the table was adopted.
pub async fn own_files(
    files: &TableFiles,
    table: &Managed,
    urls: Vec<String>,
    all: bool,
) -> Vec<String> {
    if table.adopted.is_none() || urls.is_empty() {
        return urls;
    }
    match files_before(files, table, all).await {
        None => Vec::new(),
        Some(before) => urls.into_iter().filter(|url| !before.contains(&file_key(url))).collect(),
    }
}

/// Later versions have what would be overlooked.
async fn check_version(files: &TableFiles, url: &str) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = files.json(url).await?;
    match format_version {
        1 | 2 => Ok(()),
        version => {
            Err(Error::Unsupported { what: format!("{url}: Iceberg's format version {version}") })
        }
    }
}

fn check_properties(metadata: &TableMetadata, cluster: Uuid) -> Result<()> {
    let location = metadata.location();
    let properties = metadata.properties();
    // It removes the directories of tables that it has dropped.
    if properties.get(CLUSTER).is_some_and(|maker| *maker != cluster.to_string()) {
        let what = format!("{location}: a table that another cluster of Oribi has made");
        return Err(Error::Unsupported { what });
    }
    if let Some(name) = ELSEWHERE.iter().find(|name| properties.contains_key(**name)) {
        let what = format!(
            "{location}: the property {name} (files go below the table's location; remove the \
             property first)"
        );
        return Err(Error::Unsupported { what });
    }
    if properties.contains_key(NAME_MAPPING) {
        let what = format!(
            "{location}: the property {NAME_MAPPING}, that is files without field ids (rewrite them \
             with their own writer, and remove the property),"
        );
        return Err(Error::Unsupported { what });
    }
    if metadata.encryption_keys_iter().next().is_some() {
        return Err(Error::Unsupported { what: format!("{location}: encryption") });
    }
    Ok(())
}

/// Columns within columns are found by their names, so that they must never have changed.
fn check_nested_columns(metadata: &TableMetadata) -> Result<()> {
    let mut known: BTreeMap<i32, &Type> = BTreeMap::new();
    let schemas = metadata.schemas_iter().flat_map(|schema| schema.as_struct().fields());
    for field in schemas.filter(|field: &&NestedFieldRef| !field.field_type.is_primitive()) {
        let first = known.entry(field.id).or_insert(&field.field_type);
        if **first != *field.field_type {
            let (location, name) = (metadata.location(), &field.name);
            let what = format!("{location}: column \"{name}\", whose inner columns have changed,");
            return Err(Error::Unsupported { what });
        }
    }
    Ok(())
}

fn is_below(url: &str, directory: &str) -> bool {
    file_key(url).starts_with(&format!("{}/", file_key(directory)))
}

fn with_scheme(url: &str) -> String {
    match url.starts_with('/') {
        true => format!("file://{url}"),
        false => url.to_owned(),
    }
}

/// Whether a snapshot of the table can be added: version 1 becomes version 2 with its next one.
pub(super) fn next_version(metadata: &TableMetadata) -> FormatVersion {
    match metadata.format_version() {
        FormatVersion::V1 => FormatVersion::V2,
        version => version,
    }
}

/// The number of that snapshot; version 1 has none.
pub(super) fn next_sequence_number(metadata: &TableMetadata) -> i64 {
    metadata.last_sequence_number() + 1
}
