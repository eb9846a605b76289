//! Small files of a managed table made into few large ones, with the same rows.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use iceberg::spec::Operation;

use super::session::Session;
use super::write::{Target, Written};
use super::{Error, Result};
use crate::storage::managed::{Change, ManagedTable, NewFiles, Removed, live_files, small_files};
use crate::storage::ready_scans;

impl Session {
    /// Writes small files anew, partition by partition, up to about `limit` bytes. `rows` are files
    /// that go; without a change there is nothing more to do.
    pub async fn compact(&self, target: &Target, limit: u64) -> Result<Written> {
        let files = self.engine().files();
        let small = small_files(files, &target.metadata, limit).await?;
        let mut removed = HashSet::new();
        let mut added =
            NewFiles { spec_id: target.metadata.default_partition_spec_id(), files: Vec::new() };
        let mut bytes = 0;
        for part in small {
            if bytes >= limit {
                break;
            }
            bytes += part.bytes;
            let urls: HashSet<String> = part.urls.into_iter().collect();
            match self.rewrite(target, &urls).await {
                Ok(written) => {
                    added.files.extend(written.files);
                    removed.extend(urls);
                }
                Err(error) => {
                    let urls = added.files.iter().map(|file| file.file_path().to_owned());
                    files.remove(urls.collect()).await;
                    return Err(error);
                }
            }
        }
        if removed.is_empty() {
            return Ok(Written::default());
        }
        let rows = removed.len() as u64;
        let (removed, operation) = (Removed::Files(removed), Operation::Replace);
        let change = Some(Change::Replace { removed, added, operation });
        Ok(Written { rows, change, ..Written::default() })
    }

    /// The rows of some files, in few.
    async fn rewrite(&self, target: &Target, urls: &HashSet<String>) -> Result<NewFiles> {
        let files = self.engine().files().clone();
        let lists = live_files(&files, &target.metadata).await?;
        let places = lists.iter().flat_map(|list| &list.urls).enumerate();
        let only = places.filter(|(_, url)| urls.contains(*url)).map(|(at, _)| at).collect();
        let table = ManagedTable::new(files, target.metadata.clone())?.only(only);
        let scan = table.scan(self.state(), None, &[], None).await.map_err(Error::running)?;
        let scan = ready_scans(scan, &self.context()).map_err(Error::running)?;
        let one = Arc::new(CoalescePartitionsExec::new(scan));
        Ok(self.write_plan(target, one, None, None).await?.added)
    }
}
