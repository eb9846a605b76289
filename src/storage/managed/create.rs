//! A new table's first metadata.

use std::collections::HashMap;

use arrow::datatypes::{Field, Fields};
use iceberg::spec::{
    FormatVersion, NullOrder, SortDirection, SortField, SortOrder, TableMetadata,
    TableMetadataBuilder, Transform, UnboundPartitionSpec,
};
use uuid::Uuid;

use super::TableFiles;
use super::abandoned::CLUSTER;
use super::commit::metadata_directory;
use super::properties::WriteProperties;
use super::types;
use crate::catalog::TableName;
use crate::storage::{Error, Result};

/// Whether metadata files go when they leave the metadata log.
pub const DELETE_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

/// Whether a table property is one that users set, and not for what writes tables here.
pub fn is_for_users(property: &str) -> bool {
    !property.starts_with("oribi.")
}

/// What CREATE TABLE says.
#[derive(Clone, Debug)]
pub struct NewTable {
    /// Columns in their order, of any type that can be stored as another.
    pub fields: Vec<Field>,
    pub partitioning: Vec<Partitioning>,
    /// Columns that files are sorted by.
    pub sort: Vec<SortColumn>,
    /// Iceberg's table properties.
    pub properties: HashMap<String, String>,
    /// Whose the table is.
    pub cluster: Uuid,
}

/// One field of a partition specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioning {
    pub column: String,
    pub transform: Transform,
}

/// One column of a sort order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortColumn {
    pub column: String,
    pub descending: bool,
    pub nulls_first: bool,
}

/// Where a new table's files go: below the warehouse, under a name for people and a mark of its
/// own, so that a table that takes the name of a dropped one starts with an empty directory.
pub fn table_location(warehouse: &str, name: &TableName) -> String {
    // What is no letter or digit means something to one system or another.
    let part = |name: &str| {
        let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
        name.chars().take(64).map(plain).collect::<String>()
    };
    format!(
        "{}/{}/{}/{}-{}",
        warehouse.trim_end_matches('/'),
        part(&name.database),
        part(&name.schema),
        part(&name.table),
        Uuid::now_v7().simple()
    )
}

/// Whether a directory has a name that [`table_location`] gives.
pub(super) fn is_of_table(name: &str) -> bool {
    let mark = name.rsplit_once('-').and_then(|(_, mark)| Uuid::try_parse(mark).ok());
    mark.is_some_and(|mark| mark.get_version_num() == 7)
}

/// Whether a file lies in the directory of a managed table, unless that was adopted.
pub fn is_of_managed(path: &str) -> bool {
    path.split('/').any(is_of_table)
}

/// What LOCATION says where a table's files lie elsewhere than [`table_location`] puts them in the
/// warehouse.
pub fn written_location<'a>(location: &'a str, warehouse: Option<&str>) -> Option<&'a str> {
    let place = location.rsplitn(4, '/').nth(3).unwrap_or(location);
    let here = warehouse.is_some_and(|here| here.trim_end_matches('/') == place);
    (!here).then_some(place)
}

/// Writes the first metadata of an empty table; returns its URL.
pub async fn create(
    files: &TableFiles,
    location: &str,
    table: NewTable,
) -> Result<(String, TableMetadata)> {
    let metadata = metadata(location, table)?;
    let url = format!("{}/00000-{}.metadata.json", metadata_directory(location), Uuid::now_v7());
    files.write_metadata(&url, metadata.clone()).await?;
    files.flush(vec![url.clone()]).await?;
    Ok((url, metadata))
}

fn metadata(location: &str, table: NewTable) -> Result<TableMetadata> {
    let fields: Fields = table.fields.iter().map(types::storable).collect::<Result<_>>()?;
    let schema = types::iceberg_schema(&fields)?;
    let id = |column: &str| {
        let known = schema.field_id_by_name(column);
        known.ok_or_else(|| Error::NoColumn { name: column.to_owned(), table: None })
    };
    WriteProperties::parse(&table.properties)?;
    let refused = |error: iceberg::Error| Error::BadTable { reason: error.message().to_owned() };
    let mut spec = UnboundPartitionSpec::builder().with_spec_id(0);
    for Partitioning { column, transform } in &table.partitioning {
        let name = partition_name(column, transform);
        spec = spec.add_partition_field(id(column)?, name, *transform).map_err(refused)?;
    }
    let mut order = SortOrder::builder();
    for SortColumn { column, descending, nulls_first } in &table.sort {
        let direction =
            if *descending { SortDirection::Descending } else { SortDirection::Ascending };
        let null_order = if *nulls_first { NullOrder::First } else { NullOrder::Last };
        order.with_sort_field(
            SortField::builder()
                .source_id(id(column)?)
                .direction(direction)
                .null_order(null_order)
                .transform(Transform::Identity)
                .build(),
        );
    }
    let order = match table.sort.is_empty() {
        true => SortOrder::unsorted_order(),
        false => order.with_order_id(1).build(&schema).map_err(refused)?,
    };
    let builder = TableMetadataBuilder::new(
        schema,
        spec.build(),
        order,
        location.to_owned(),
        FormatVersion::V2,
        properties(table.properties, table.cluster),
    );
    Ok(builder.map_err(refused)?.build().map_err(refused)?.metadata)
}

/// Properties that a new table has unless it is told otherwise.
fn properties(given: HashMap<String, String>, cluster: Uuid) -> HashMap<String, String> {
    // What has left the log is of no use to anybody.
    let mut all = HashMap::from([(DELETE_AFTER_COMMIT.to_owned(), "true".to_owned())]);
    all.extend(given);
    all.insert(CLUSTER.to_owned(), cluster.to_string());
    all
}

/// Iceberg's own names for the fields of partition specifications. They are names of Avro's in
/// manifests, so that all but ASCII letters, digits and `_` is escaped as Iceberg's Java library does.
fn partition_name(column: &str, transform: &Transform) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut name = String::new();
    for c in column.chars() {
        match plain(c) && !(name.is_empty() && c.is_ascii_digit()) {
            true => name.push(c),
            false if c.is_ascii_digit() => name.extend(['_', c]),
            false => name.push_str(&format!("_x{:X}", u32::from(c))),
        }
    }
    let column = name;
    match transform {
        Transform::Identity => column,
        Transform::Bucket(_) => format!("{column}_bucket"),
        Transform::Truncate(_) => format!("{column}_trunc"),
        other => format!("{column}_{other}"),
    }
}
