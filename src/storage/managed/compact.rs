//! Which small files are worth being made one.

use std::collections::HashMap;

use iceberg::spec::{ManifestContentType, Struct, TableMetadata};

use super::TableFiles;
use super::commit::manifests;
use super::properties::WriteProperties;
use crate::storage::Result;

/// Files of a partition that are worth it, at least (Iceberg's `min-input-files`).
const MIN_FILES: usize = 5;

/// Small files of one partition.
#[derive(Clone, Debug, Default)]
pub struct Small {
    pub urls: Vec<String>,
    pub bytes: u64,
}

/// Files below three quarters of the target size, by partition, where there are so many of them that
/// at least half go. That keeps files that can hardly grow from being written again and again. What
/// is more than `limit` bytes comes in several parts.
pub async fn small_files(
    files: &TableFiles,
    metadata: &TableMetadata,
    limit: u64,
) -> Result<Vec<Small>> {
    let target = WriteProperties::parse(metadata.properties())?.target_file_size;
    let mut partitions: HashMap<Struct, Small> = HashMap::new();
    let mut full = Vec::new();
    for manifest in manifests(files, metadata).await? {
        // What the writer would put elsewhere is left where it is.
        if manifest.content != ManifestContentType::Data
            || manifest.partition_spec_id != metadata.default_partition_spec_id()
        {
            continue;
        }
        let parsed = files.manifest(&manifest.manifest_path).await?;
        for entry in parsed.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            if file.file_size_in_bytes() < target / 4 * 3 {
                let small = partitions.entry(file.partition().clone()).or_default();
                small.urls.push(file.file_path().to_owned());
                small.bytes += file.file_size_in_bytes();
                if small.bytes >= limit {
                    full.push(std::mem::take(small));
                }
            }
        }
    }
    let worth = |small: &Small| {
        let made = usize::try_from(small.bytes.div_ceil(target)).unwrap_or(usize::MAX);
        small.urls.len() >= MIN_FILES.max(made.saturating_mul(2))
    };
    Ok(full.into_iter().chain(partitions.into_values()).filter(worth).collect())
}
