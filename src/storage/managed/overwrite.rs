//! INSERT OVERWRITE: which of a table's files make room for new rows.
//!
//! It is those that the statement has seen: what others add meanwhile stays, also in a partition that
//! is overwritten.

use std::collections::HashSet;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use iceberg::spec::{
    DataFile, Literal, ManifestContentType, Struct, TableMetadata, Transform, Type,
};

use super::commit::{self, NewFiles, Removed};
use super::scan::live_files;
use super::transforms::literal;
use super::{TableFiles, types};
use crate::storage::{Error, Result};

/// What new rows take the place of.
#[derive(Clone, Debug, PartialEq)]
pub enum Overwritten {
    /// All rows.
    All,
    /// Those of some partitions.
    Partitions {
        /// Values that the partitions have, by place in the partition specification.
        fixed: Vec<(usize, Option<Literal>)>,
        /// Only partitions that new rows fall into.
        touched: bool,
    },
}

impl Overwritten {
    /// The partitions where columns have a value, and of those, if columns are to vary, the ones
    /// that new rows fall into. Arrays have one value each.
    pub fn partitions(
        metadata: &TableMetadata,
        fixed: &[(String, ArrayRef)],
        varying: &[String],
    ) -> Result<Self> {
        let spec = metadata.default_partition_spec();
        let schema = metadata.current_schema();
        let stored = types::arrow_schema(schema)?;
        let bad = |reason: String| Error::BadTable { reason };
        if spec.is_unpartitioned() {
            return Err(bad("PARTITION: the table is not partitioned".to_owned()));
        }
        let id = |name: &str| schema.field_by_name(name).map(|field| field.id);
        let mut values = Vec::new();
        for (name, value) in fixed {
            let is_it = |field: &iceberg::spec::PartitionField| {
                Some(field.source_id) == id(name) && field.transform == Transform::Identity
            };
            let place = spec.fields().iter().position(is_it).ok_or_else(|| {
                bad(format!("PARTITION: the table is not partitioned by column \"{name}\" itself"))
            })?;
            let field = schema.field_by_name(name).map(|field| field.field_type.as_ref());
            let (Some(Type::Primitive(kind)), Ok(column)) = (field, stored.field_with_name(name))
            else {
                return Err(Error::NoColumn { name: name.clone(), table: None });
            };
            let unfit = |error: arrow::error::ArrowError| bad(error.to_string());
            let value = cast(value, column.data_type()).map_err(unfit)?;
            values.push((place, literal(value.as_ref(), 0, kind)?));
        }
        let sources: HashSet<i32> = spec.fields().iter().map(|field| field.source_id).collect();
        for name in varying {
            if !id(name).is_some_and(|id| sources.contains(&id)) {
                let reason =
                    format!("PARTITION: the table is not partitioned by column \"{name}\"");
                return Err(bad(reason));
            }
        }
        let named: HashSet<i32> =
            fixed.iter().map(|(name, _)| name).chain(varying).filter_map(|name| id(name)).collect();
        if !varying.is_empty() && named.len() < sources.len() {
            let names =
                spec.fields().iter().filter_map(|field| schema.name_by_field_id(field.source_id));
            let names: Vec<&str> = names.collect();
            let reason = format!("PARTITION must name all partition columns: {}", names.join(", "));
            return Err(bad(reason));
        }
        Ok(Self::Partitions { fixed: values, touched: !varying.is_empty() })
    }

    /// The files of a table's state that make room for these.
    pub async fn files(
        &self,
        files: &TableFiles,
        metadata: &TableMetadata,
        added: &NewFiles,
    ) -> Result<Removed> {
        let Self::Partitions { fixed, touched } = self else {
            let lists = live_files(files, metadata).await?;
            let urls = lists.iter().flat_map(|list| list.urls.iter().cloned());
            return Ok(Removed::Files(urls.collect()));
        };
        let new: HashSet<&Struct> = added.files.iter().map(DataFile::partition).collect();
        let wanted = |partition: &Struct| {
            let value = |at: usize| partition.iter().nth(at).flatten();
            fixed.iter().all(|(at, known)| value(*at) == known.as_ref())
                && (!touched || new.contains(partition))
        };
        let mut urls = HashSet::new();
        for manifest in commit::manifests(files, metadata).await? {
            if manifest.content == ManifestContentType::Deletes {
                continue;
            }
            if manifest.partition_spec_id != metadata.default_partition_spec_id() {
                let what =
                    "INSERT OVERWRITE of partitions of a table that was partitioned otherwise";
                return Err(Error::Unsupported { what: what.to_owned() });
            }
            let listed = files.manifest(&manifest.manifest_path).await?;
            let live = listed.entries().iter().filter(|entry| entry.is_alive());
            let gone = live.filter(|entry| wanted(entry.data_file().partition()));
            urls.extend(gone.map(|entry| entry.file_path().to_owned()));
        }
        Ok(Removed::Files(urls))
    }
}
