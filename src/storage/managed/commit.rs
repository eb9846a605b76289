//! The next state of a table: a new snapshot with its manifests, and the metadata file that names
//! it. Nothing here decides what the table contains; that is the one write of its znode, which
//! [`super::publish`] makes.
//!
//! # What a snapshot is written from
//! Manifests of which nothing is removed are taken over by name. One that lists a removed file is
//! written anew, with that file marked as deleted. Added files make a manifest of their own. When a
//! hundred small manifests have gathered they become one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestEntry, ManifestFile,
    ManifestListWriter, ManifestStatus, ManifestWriterBuilder, Operation, PartitionSpec, SchemaRef,
    Snapshot, SnapshotRef, Summary, TableMetadata,
};
use uuid::Uuid;

use super::adopt::{next_sequence_number, next_version};
use super::alter::{self, Alteration};
use super::clock;
use super::create::DELETE_AFTER_COMMIT;
use super::expire;
use super::files::{Buffer, HeldManifest, TableFiles, damaged};
use super::listing::Totals;
use crate::faults;
use crate::storage::{Error, Result};

/// Small manifests that are left as they are (Iceberg's `commit.manifest.min-count-to-merge`).
const MAX_SMALL_MANIFESTS: usize = 100;

/// Bytes from which a manifest is no longer small (`commit.manifest.target-size-bytes`).
const SMALL_MANIFEST: i64 = 8 << 20;

/// Where a snapshot's summary names the commit that made it, by which a writer whose reply was lost
/// finds its own.
const COMMIT: &str = "oribi.commit";

/// How many files a snapshot brings, in its summary.
const ADDED_FILES: &str = "added-data-files";

/// What a statement does to a table.
#[derive(Clone, Debug)]
pub enum Change {
    /// Rows that are new.
    Append(NewFiles),
    /// A few rows that are new, checked but not in a file yet: they share one with those of other
    /// statements ([`super::rows::to_files`]).
    Rows(Vec<RecordBatch>),
    /// Rows that take the place of others.
    Replace { removed: Removed, added: NewFiles, operation: Operation },
    /// The same, made from all rows of these snapshots: whatever others have added since is a
    /// conflict.
    Merge { seen: HashSet<i64>, removed: Removed, added: NewFiles, operation: Operation },
    /// Columns and properties.
    Alter(Vec<Alteration>),
    /// Snapshots that the history no longer has. What only they reached is the caller's to remove.
    Expire(Vec<i64>),
}

/// Files that were written for a table, all with one partition specification.
#[derive(Clone, Debug, Default)]
pub struct NewFiles {
    pub spec_id: i32,
    pub files: Vec<DataFile>,
}

impl NewFiles {
    pub fn urls(&self) -> Vec<String> {
        self.files.iter().map(|file| file.file_path().to_owned()).collect()
    }
}

/// Files that are no longer part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Whatever the table holds when the change is carried out.
    All,
    /// These, by URL, each of which must still be there.
    Files(HashSet<String>),
}

/// A table's next state, written but named by nobody yet.
#[derive(Debug)]
pub struct Staged {
    /// URL of its metadata.
    pub metadata_url: String,
    pub metadata: Arc<TableMetadata>,
    /// All that was written for it, data files left out.
    pub written: Vec<String>,
    /// Metadata files that go once it is committed.
    pub expired: Vec<String>,
}

impl Change {
    /// Whether it means the same whatever happened to the table's rows meanwhile.
    pub fn is_append(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Rows(_))
    }

    fn makes_snapshot(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Replace { .. } | Self::Merge { .. })
    }

    /// Files that were written for it.
    pub fn added(&self) -> &[DataFile] {
        match self {
            Self::Append(added) | Self::Replace { added, .. } | Self::Merge { added, .. } => {
                &added.files
            }
            Self::Rows(_) | Self::Alter(_) | Self::Expire(_) => &[],
        }
    }
}

/// Writes a table's next state: `current_url` with the changes of a commit, which goes by `mark`.
/// `table` is its name, for conflicts.
pub async fn stage(
    files: &TableFiles,
    (table, current_url): (&str, &str),
    changes: &[Change],
    mark: Option<Uuid>,
) -> Result<Staged> {
    let current = files.metadata(current_url).await?;
    let mut stage = Stage::new(files, current, (table, current_url));
    let staged = stage.run(changes, mark).await;
    match staged {
        Ok((metadata_url, metadata)) => {
            let Stage { written, expired, .. } = stage;
            Ok(Staged { metadata_url, metadata, written, expired })
        }
        Err(error) => {
            files.remove(stage.written).await;
            Err(error)
        }
    }
}

/// All snapshots that a table's history has.
pub fn snapshots(metadata: &TableMetadata) -> HashSet<i64> {
    metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).collect()
}

/// Whether a table's history has a snapshot that this commit made.
pub fn has_commit(metadata: &TableMetadata, mark: Uuid) -> bool {
    let mark = mark.to_string();
    metadata.snapshots().any(|snapshot| {
        snapshot.summary().additional_properties.get(COMMIT).is_some_and(|known| *known == mark)
    })
}

struct Stage<'a> {
    files: &'a TableFiles,
    table: &'a str,
    current: Arc<TableMetadata>,
    current_url: &'a str,
    /// The new state's own mark in all names.
    mark: Uuid,
    written: Vec<String>,
    expired: Vec<String>,
}

/// The rows of a snapshot as they are put together.
struct Content {
    manifests: Vec<ManifestFile>,
    /// With their partition specifications.
    added: Vec<(i32, DataFile)>,
    removed: Totals,
    operation: Operation,
}

impl Content {
    fn add(&mut self, added: &NewFiles) {
        self.added.extend(added.files.iter().map(|file| (added.spec_id, file.clone())));
    }
}

impl<'a> Stage<'a> {
    fn new(
        files: &'a TableFiles,
        current: Arc<TableMetadata>,
        (table, current_url): (&'a str, &'a str),
    ) -> Self {
        let (mark, written, expired) = (Uuid::now_v7(), Vec::new(), Vec::new());
        Self { files, table, current, current_url, mark, written, expired }
    }

    fn conflict(&self) -> Error {
        Error::Conflict { table: self.table.to_owned() }
    }

    async fn run(
        &mut self,
        changes: &[Change],
        mark: Option<Uuid>,
    ) -> Result<(String, Arc<TableMetadata>)> {
        let url = self.current_url.to_owned();
        let invalid = |error| damaged(&url, error);
        let ahead = match changes.iter().any(Change::makes_snapshot) {
            true => 0,
            false => clock::ahead(&self.current),
        };
        let moved = |metadata: &TableMetadata, millis| {
            clock::moved(metadata, millis).map_err(|error| damaged(&url, error))
        };
        let current = match ahead {
            0 => self.current.as_ref().clone(),
            ahead => moved(&self.current, -ahead)?,
        };
        let mut builder = current.into_builder(Some(self.current_url.to_owned()));
        let mut content: Option<Content> = None;
        for change in changes {
            match change {
                Change::Alter(alterations) => {
                    builder = alter::apply(alterations, &self.current, builder)?;
                }
                // They are in files by now.
                Change::Rows(_) => {}
                Change::Expire(snapshots) => {
                    // A snapshot that has become the current one again is none of them.
                    let current = self.current.current_snapshot_id();
                    let gone: Vec<i64> =
                        snapshots.iter().copied().filter(|id| Some(*id) != current).collect();
                    builder = builder.remove_snapshots(&gone);
                }
                Change::Append(added) => {
                    let content = self.content(&mut content, Operation::Append).await?;
                    content.add(added);
                }
                Change::Replace { removed, added, operation }
                | Change::Merge { removed, added, operation, .. } => {
                    if let Change::Merge { seen, .. } = change {
                        self.refuse_new_rows(seen)?;
                    }
                    let snapshot_id = self.snapshot_id();
                    let content = self.content(&mut content, operation.clone()).await?;
                    content.operation = operation.clone();
                    self.remove(content, removed, snapshot_id).await?;
                    content.add(added);
                }
            }
        }
        if let Some(content) = content {
            builder =
                builder.upgrade_format_version(next_version(&self.current)).map_err(invalid)?;
            let snapshot = self.snapshot(content, mark).await?;
            builder = builder.remove_snapshots(&expire::too_many(&self.current)?);
            builder = builder.set_branch_snapshot(snapshot, MAIN_BRANCH).map_err(invalid)?;
        }
        let built = builder.build().map_err(invalid)?;
        let metadata = match ahead {
            0 => built.metadata,
            ahead => moved(&built.metadata, ahead)?,
        };
        if metadata.properties().get(DELETE_AFTER_COMMIT).is_some_and(|on| on == "true") {
            let expired = built.expired_metadata_logs.into_iter();
            self.expired = expired.map(|entry| entry.metadata_file).collect();
        }
        let metadata_url = self.metadata_url();
        faults::point("metadata is to be written");
        self.written.push(metadata_url.clone());
        self.files.write_metadata(&metadata_url, metadata).await?;
        faults::point("metadata is written");
        Ok((metadata_url.clone(), self.files.metadata(&metadata_url).await?))
    }

    /// What the table holds, to begin with.
    async fn content<'c>(
        &self,
        content: &'c mut Option<Content>,
        operation: Operation,
    ) -> Result<&'c mut Content> {
        if content.is_none() {
            let mut manifests = manifests(self.files, &self.current).await?;
            for manifest in &mut manifests {
                count_entries(self.files, manifest).await?;
            }
            *content =
                Some(Content { manifests, added: vec![], removed: Totals::default(), operation });
        }
        content.as_mut().ok_or_else(|| self.conflict())
    }

    /// The new snapshot's id: 63 random bits, as other writers of Iceberg make them.
    fn snapshot_id(&self) -> i64 {
        let (high, low) = self.mark.as_u64_pair();
        i64::try_from((high ^ low) & (i64::MAX as u64)).unwrap_or(i64::MAX)
    }

    /// Fails if others have added rows since these snapshots.
    fn refuse_new_rows(&self, seen: &HashSet<i64>) -> Result<()> {
        // Nobody has ever added any.
        let Some(current) = self.current.current_snapshot() else { return Ok(()) };
        let mut now = Some(current);
        let mut passed = HashSet::new();
        // A damaged history may go in a circle.
        while let Some(snapshot) = now.filter(|snapshot| passed.insert(snapshot.snapshot_id())) {
            if seen.contains(&snapshot.snapshot_id()) {
                return Ok(());
            }
            // Compaction, and rows that are gone.
            let summary = snapshot.summary();
            let harmless = match summary.operation {
                Operation::Replace => true,
                Operation::Delete => !summary.additional_properties.contains_key(ADDED_FILES),
                _ => false,
            };
            let before = snapshot.parent_snapshot_id();
            now = before.and_then(|id| self.current.snapshot_by_id(id));
            // What came before may have been forgotten meanwhile.
            if !harmless || (before.is_some() && now.is_none()) {
                return Err(self.conflict());
            }
        }
        if seen.is_empty() { Ok(()) } else { Err(self.conflict()) }
    }

    /// Takes files out of the content, whether they were there before or are new themselves.
    async fn remove(
        &mut self,
        content: &mut Content,
        removed: &Removed,
        snapshot_id: i64,
    ) -> Result<()> {
        let gone = |url: &str| match removed {
            Removed::All => true,
            Removed::Files(urls) => urls.contains(url),
        };
        let mut found = 0;
        let mut kept = Vec::new();
        for manifest in std::mem::take(&mut content.manifests) {
            if manifest.content == ManifestContentType::Deletes {
                if *removed != Removed::All {
                    kept.push(manifest);
                }
                continue;
            }
            let listing = self.files.listing(&manifest.manifest_path).await?;
            let here = listing.urls.iter().filter(|url| gone(url)).count();
            if here == 0 {
                kept.push(manifest);
                continue;
            }
            found += here;
            let (manifest, totals) = self.without(&manifest, &gone, snapshot_id).await?;
            content.removed = [content.removed, totals].into_iter().sum();
            kept.push(manifest);
        }
        content.manifests = kept;
        let before = content.added.len();
        content.added.retain(|(_, file)| !gone(file.file_path()));
        found += before - content.added.len();
        match removed {
            Removed::Files(urls) if urls.len() != found => Err(self.conflict()),
            _ => Ok(()),
        }
    }

    /// A manifest with some of its files marked as deleted.
    async fn without(
        &mut self,
        manifest: &ManifestFile,
        gone: &impl Fn(&str) -> bool,
        snapshot_id: i64,
    ) -> Result<(ManifestFile, Totals)> {
        let url = manifest.manifest_path.clone();
        let HeldManifest { manifest: parsed, memory: _memory } = self.files.manifest(&url).await?;
        let (entries, metadata) = parsed.into_parts();
        let live = entries.iter().filter(|entry| entry.is_alive());
        let totals = (live.clone().filter(|entry| gone(entry.file_path())))
            .map(|entry| Totals::of(entry.data_file()))
            .sum();
        let entries: Vec<ManifestEntry> = (live)
            .map(|entry| {
                let mut entry = inherited(entry, manifest);
                entry.status = match gone(entry.file_path()) {
                    true => ManifestStatus::Deleted,
                    false => ManifestStatus::Existing,
                };
                if entry.status == ManifestStatus::Deleted {
                    entry.snapshot_id = Some(snapshot_id);
                }
                entry
            })
            .collect();
        let (schema, spec) = (metadata.schema().clone(), metadata.partition_spec().clone());
        let manifest = self.write_manifest(schema, spec, &entries, snapshot_id).await?;
        Ok((manifest, totals))
    }

    /// Writes the snapshot's new manifests and its list.
    async fn snapshot(&mut self, content: Content, mark: Option<Uuid>) -> Result<Snapshot> {
        let snapshot_id = self.snapshot_id();
        let Content { mut manifests, added, removed, operation } = content;
        // Several changes of one block.
        let operation = match operation {
            Operation::Delete if !added.is_empty() => Operation::Overwrite,
            Operation::Append if removed.files > 0 => Operation::Overwrite,
            operation => operation,
        };
        // What an earlier snapshot has deleted is no news.
        manifests.retain(|manifest| {
            manifest.has_added_files()
                || manifest.has_existing_files()
                || manifest.added_snapshot_id == snapshot_id
        });
        let summary = self.summary(&added, removed, operation, mark);
        let mut by_spec: BTreeMap<i32, Vec<DataFile>> = BTreeMap::new();
        let mut manifests = self.merge(manifests, snapshot_id).await?;
        for (spec, file) in added {
            by_spec.entry(spec).or_default().push(file);
        }
        for (spec, files) in by_spec {
            let spec = self.current.partition_spec_by_id(spec).cloned();
            let spec = spec.ok_or_else(|| self.conflict())?;
            let entries: Vec<_> =
                files.into_iter().map(|file| new_entry(file, snapshot_id)).collect();
            let schema = self.current.current_schema().clone();
            let spec = spec.as_ref().clone();
            faults::point("a manifest is to be written");
            manifests.push(self.write_manifest(schema, spec, &entries, snapshot_id).await?);
        }
        let list_url = self.write_list(manifests, snapshot_id).await?;
        let now = chrono::Utc::now().timestamp_millis();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(snapshot_id)
            .with_parent_snapshot_id(self.current.current_snapshot_id())
            .with_sequence_number(next_sequence_number(&self.current))
            // Clocks of daemons differ; the table's own time only goes forward.
            .with_timestamp_ms(now.max(self.current.last_updated_ms() + 1))
            .with_manifest_list(list_url)
            .with_summary(summary)
            .with_schema_id(self.current.current_schema_id());
        Ok(snapshot.build())
    }

    /// Makes one manifest of many small ones of earlier snapshots.
    async fn merge(
        &mut self,
        manifests: Vec<ManifestFile>,
        snapshot_id: i64,
    ) -> Result<Vec<ManifestFile>> {
        let spec = self.current.default_partition_spec_id();
        let small = |manifest: &ManifestFile| {
            manifest.content == ManifestContentType::Data
                && manifest.partition_spec_id == spec
                && manifest.added_snapshot_id != snapshot_id
                && manifest.manifest_length < SMALL_MANIFEST
        };
        if manifests.iter().filter(|manifest| small(manifest)).count() <= MAX_SMALL_MANIFESTS {
            return Ok(manifests);
        }
        let (small, mut kept): (Vec<_>, Vec<_>) = manifests.into_iter().partition(small);
        let mut entries = Vec::new();
        for manifest in &small {
            let parsed = self.files.manifest(&manifest.manifest_path).await?;
            entries.extend((parsed.entries().iter()).filter(|entry| entry.is_alive()).map(
                |entry| {
                    let status = ManifestStatus::Existing;
                    ManifestEntry { status, ..inherited(entry, manifest) }
                },
            ));
        }
        let schema = self.current.current_schema().clone();
        let spec = self.current.default_partition_spec().as_ref().clone();
        kept.push(self.write_manifest(schema, spec, &entries, snapshot_id).await?);
        Ok(kept)
    }

    async fn write_manifest(
        &mut self,
        schema: SchemaRef,
        spec: PartitionSpec,
        entries: &[ManifestEntry],
        snapshot_id: i64,
    ) -> Result<ManifestFile> {
        let url = format!("{}/{}-m{}.avro", self.directory(), self.mark, self.written.len());
        let buffer = Buffer::new(&url);
        let invalid = |error| damaged(&url, error);
        let builder = ManifestWriterBuilder::new(buffer.output()?, Some(snapshot_id), schema, spec);
        let mut writer = builder.build_v2_data();
        for entry in entries {
            let file = entry.data_file.clone();
            let (sequence, of_file) =
                (entry.sequence_number.unwrap_or(-1), entry.file_sequence_number);
            let added = match entry.status {
                ManifestStatus::Added => writer.add_file(file, sequence),
                ManifestStatus::Deleted => writer.add_delete_file(file, sequence, of_file),
                ManifestStatus::Existing => {
                    let snapshot = entry.snapshot_id.unwrap_or(snapshot_id);
                    writer.add_existing_file(file, snapshot, sequence, of_file)
                }
            };
            added.map_err(invalid)?;
        }
        let manifest = writer.write_manifest_file().await.map_err(invalid)?;
        self.written.push(url.clone());
        self.files.write(&url, buffer.bytes().await?).await?;
        Ok(manifest)
    }

    async fn write_list(
        &mut self,
        manifests: Vec<ManifestFile>,
        snapshot_id: i64,
    ) -> Result<String> {
        let url = format!("{}/snap-{snapshot_id}-1-{}.avro", self.directory(), self.mark);
        let invalid = |error| damaged(&url, error);
        let buffer = Buffer::new(&url);
        let output = buffer.output()?.writer().await.map_err(invalid)?;
        let mut writer = match next_version(&self.current) {
            FormatVersion::V2 => ManifestListWriter::v2(
                output,
                snapshot_id,
                self.current.current_snapshot_id(),
                next_sequence_number(&self.current),
            ),
            version => {
                let what = format!("writing to tables of Iceberg's format version {version}");
                return Err(Error::Unsupported { what });
            }
        };
        writer.add_manifests(manifests.into_iter()).map_err(invalid)?;
        writer.close().await.map_err(invalid)?;
        faults::point("a manifest list is to be written");
        self.written.push(url.clone());
        self.files.write(&url, buffer.bytes().await?).await?;
        Ok(url)
    }

    /// A snapshot's figures, by the specification's names (appendix F).
    fn summary(
        &self,
        added: &[(i32, DataFile)],
        removed: Totals,
        operation: Operation,
        mark: Option<Uuid>,
    ) -> Summary {
        let added: Totals = added.iter().map(|(_, file)| Totals::of(file)).sum();
        let before = self.current.current_snapshot().map(|snapshot| snapshot.summary());
        let total = |name: &str, added: u64, removed: u64| {
            let known = before.and_then(|known| known.additional_properties.get(name));
            let known = known.and_then(|known| known.parse::<u64>().ok()).unwrap_or(0);
            (name.to_owned(), (known + added).saturating_sub(removed).to_string())
        };
        let mut figures = vec![
            total("total-data-files", added.files, removed.files),
            total("total-records", added.rows, removed.rows),
            total("total-files-size", added.bytes, removed.bytes),
            total("total-delete-files", 0, 0),
            total("total-position-deletes", 0, 0),
            total("total-equality-deletes", 0, 0),
        ];
        let changed = [
            (ADDED_FILES, added.files),
            ("added-records", added.rows),
            ("added-files-size", added.bytes),
            ("deleted-data-files", removed.files),
            ("deleted-records", removed.rows),
            ("removed-files-size", removed.bytes),
        ];
        figures.extend(
            (changed.into_iter().filter(|(_, figure)| *figure > 0))
                .map(|(name, figure)| (name.to_owned(), figure.to_string())),
        );
        figures.extend(mark.map(|mark| (COMMIT.to_owned(), mark.to_string())));
        Summary { operation, additional_properties: figures.into_iter().collect() }
    }

    fn directory(&self) -> String {
        metadata_directory(self.current.location())
    }

    /// The next metadata file: numbered for people, unique by its mark.
    fn metadata_url(&self) -> String {
        let name = self.current_url.rsplit('/').next().unwrap_or_default();
        let number = name.split('-').next().and_then(|number| number.parse::<u64>().ok());
        let number = number.unwrap_or(0) + 1;
        format!("{}/{number:05}-{}.metadata.json", self.directory(), self.mark)
    }
}

/// Where a table's metadata lies.
pub(super) fn metadata_directory(location: &str) -> String {
    format!("{}/metadata", location.trim_end_matches('/'))
}

/// The manifests of a table's current snapshot.
pub(super) async fn manifests(
    files: &TableFiles,
    metadata: &TableMetadata,
) -> Result<Vec<ManifestFile>> {
    manifests_of(files, metadata, metadata.current_snapshot()).await
}

/// The manifests of one of a table's snapshots; none of a table without any.
pub(super) async fn manifests_of(
    files: &TableFiles,
    metadata: &TableMetadata,
    snapshot: Option<&SnapshotRef>,
) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = snapshot else { return Ok(Vec::new()) };
    let list = files.manifest_list(snapshot.manifest_list(), metadata.format_version()).await?;
    Ok(list.entries().to_vec())
}

/// Counts what the lists of version 1 may leave out and those of version 2 must have.
async fn count_entries(files: &TableFiles, manifest: &mut ManifestFile) -> Result<()> {
    let counts =
        [manifest.added_files_count, manifest.existing_files_count, manifest.deleted_files_count];
    let rows =
        [manifest.added_rows_count, manifest.existing_rows_count, manifest.deleted_rows_count];
    if counts.iter().all(Option::is_some) && rows.iter().all(Option::is_some) {
        return Ok(());
    }
    let parsed = files.manifest(&manifest.manifest_path).await?;
    let of = |status: ManifestStatus| {
        let entries = parsed.entries().iter().filter(|entry| entry.status == status);
        let rows: u64 = entries.clone().map(|entry| entry.data_file().record_count()).sum();
        (u32::try_from(entries.count()).ok(), Some(rows))
    };
    (manifest.added_files_count, manifest.added_rows_count) = of(ManifestStatus::Added);
    (manifest.existing_files_count, manifest.existing_rows_count) = of(ManifestStatus::Existing);
    (manifest.deleted_files_count, manifest.deleted_rows_count) = of(ManifestStatus::Deleted);
    Ok(())
}

/// An entry with what it has from its manifest's place in the list.
fn inherited(entry: &ManifestEntry, manifest: &ManifestFile) -> ManifestEntry {
    let mut entry = entry.clone();
    entry.snapshot_id.get_or_insert(manifest.added_snapshot_id);
    entry.sequence_number.get_or_insert(manifest.sequence_number);
    entry.file_sequence_number.get_or_insert(manifest.sequence_number);
    entry
}

fn new_entry(file: DataFile, snapshot_id: i64) -> ManifestEntry {
    ManifestEntry {
        status: ManifestStatus::Added,
        snapshot_id: Some(snapshot_id),
        sequence_number: None,
        file_sequence_number: None,
        data_file: file,
    }
}
