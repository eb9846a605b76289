//! The small files that describe a managed table: read through caches, since none of them ever
//! changes once it is written, and written under names that nobody has used before.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use futures::{StreamExt, TryStreamExt};
use iceberg::io::{FileIO, OutputFile};
use iceberg::spec::{FormatVersion, Manifest, ManifestList, TableMetadata};
use moka::sync::Cache;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use url::Url;

use super::avro;
use super::emptied::remove_empty;
use super::listing::FileList;
use crate::faults;
use crate::storage::error::brief;
use crate::storage::{Error, Result};

/// What a parsed table metadata file takes, by its size on disk.
const METADATA_FACTOR: u64 = 4;

/// What a parsed manifest takes, by its size on disk: its entries have maps by column, and come
/// compressed.
const MANIFEST_FACTOR: usize = 16;

/// The same by its size without compression.
const UNPACKED_FACTOR: usize = 4;

/// Bytes of a manifest, as it is stored, that is read where it is asked for: some hundred entries, which
/// take less than a millisecond.
const SMALL_MANIFEST: usize = 16 << 10;

/// Bytes that one of these files may have, without compression: as many as the readers underneath may reserve
/// at once.
const MAX_BYTES: usize = 512 << 20;

/// Files of managed tables by URL.
#[derive(Debug)]
pub struct TableFiles {
    stores: Arc<dyn ObjectStoreRegistry>,
    memory: Arc<dyn MemoryPool>,
    metadata: Cache<String, (Arc<TableMetadata>, u64)>,
    lists: Cache<String, (Arc<ManifestList>, u64)>,
    listings: Cache<String, (Arc<FileList>, u64)>,
}

/// A file's place: its store and its path there.
pub(super) struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
}

/// A manifest with the memory that it takes.
pub struct HeldManifest {
    pub manifest: Manifest,
    pub memory: MemoryReservation,
}

impl Deref for HeldManifest {
    type Target = Manifest;

    fn deref(&self) -> &Manifest {
        &self.manifest
    }
}

impl TableFiles {
    /// Keeps about so many bytes of them.
    pub fn new(
        stores: Arc<dyn ObjectStoreRegistry>,
        memory: Arc<dyn MemoryPool>,
        bytes: u64,
    ) -> Self {
        Self {
            stores,
            memory,
            metadata: cache(bytes / 4),
            lists: cache(bytes / 4),
            listings: cache(bytes / 2),
        }
    }

    /// What is kept: of each kind the entries, and the bytes by estimate and at most.
    pub fn caches(&self) -> [(&'static str, [u64; 3]); 3] {
        fn figures<T: Send + Sync + 'static>(cache: &Cache<String, (Arc<T>, u64)>) -> [u64; 3] {
            let limit = cache.policy().max_capacity().unwrap_or(u64::MAX);
            [cache.entry_count(), cache.weighted_size(), limit]
        }
        [
            ("table_metadata", figures(&self.metadata)),
            ("manifest_lists", figures(&self.lists)),
            ("manifests", figures(&self.listings)),
        ]
    }

    /// A table's metadata as it was written to this URL.
    pub async fn metadata(&self, url: &str) -> Result<Arc<TableMetadata>> {
        if let Some((metadata, _)) = self.metadata.get(url) {
            return Ok(metadata);
        }
        let bytes = self.read(url).await?;
        let metadata: Arc<TableMetadata> = Arc::new(sound(url, || parsed(url, &bytes))?);
        self.metadata
            .insert(url.to_owned(), (metadata.clone(), bytes.len() as u64 * METADATA_FACTOR));
        Ok(metadata)
    }

    /// Some of what a metadata file says.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let bytes = self.read(url).await?;
        sound(url, || parsed(url, &bytes))
    }

    /// The manifests of a snapshot.
    pub async fn manifest_list(
        &self,
        url: &str,
        version: FormatVersion,
    ) -> Result<Arc<ManifestList>> {
        if let Some((list, _)) = self.lists.get(url) {
            return Ok(list);
        }
        let bytes = self.read(url).await?;
        avro::check(&bytes, MAX_BYTES).map_err(|error| damaged(url, error))?;
        let list = sound(url, || {
            let list = ManifestList::parse_with_version(&bytes, version);
            // Snapshots that a table has from before it became one of version 2.
            let list = list.or_else(|error| match version {
                FormatVersion::V2 => {
                    ManifestList::parse_with_version(&bytes, FormatVersion::V1).map_err(|_| error)
                }
                _ => Err(error),
            });
            list.map_err(|error| damaged(url, error))
        })?;
        let list = Arc::new(list);
        let size = bytes.len() as u64 * METADATA_FACTOR;
        self.lists.insert(url.to_owned(), (list.clone(), size));
        Ok(list)
    }

    /// A manifest's entries, all of what the specification has.
    pub async fn manifest(&self, url: &str) -> Result<HeldManifest> {
        self.parsed_manifest(url, Ok).await
    }

    /// A manifest's live files in the form that scans use.
    pub async fn listing(&self, url: &str) -> Result<Arc<FileList>> {
        if let Some((list, _)) = self.listings.get(url) {
            return Ok(list);
        }
        let own = url.to_owned();
        let list =
            self.parsed_manifest(url, move |manifest| FileList::new(&own, &manifest)).await?;
        let list = Arc::new(list);
        let size = list.memory_size();
        self.listings.insert(url.to_owned(), (list.clone(), size));
        Ok(list)
    }

    /// What `make` makes of a manifest. A large one is read on a thread of its own, for it takes long,
    /// and several are read at once.
    async fn parsed_manifest<T: Send + 'static>(
        &self,
        url: &str,
        make: impl FnOnce(HeldManifest) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let bytes = self.read(url).await?;
        let memory = MemoryConsumer::new("manifest").register(&self.memory);
        memory.try_grow(bytes.len() * MANIFEST_FACTOR).map_err(Error::NoMemory)?;
        let (own, size) = (url.to_owned(), bytes.len());
        let parse = move || {
            let unpacked = avro::check(&bytes, MAX_BYTES).map_err(|error| damaged(&own, error))?;
            let size = (bytes.len() * MANIFEST_FACTOR).max(unpacked * UNPACKED_FACTOR);
            memory.try_resize(size).map_err(Error::NoMemory)?;
            let manifest = Manifest::parse_avro(&bytes).map_err(|error| damaged(&own, error))?;
            make(HeldManifest { manifest, memory })
        };
        if size <= SMALL_MANIFEST {
            return sound(url, parse);
        }
        tokio::task::spawn_blocking(parse).await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => Error::of_panic(url, panic),
            Err(_) => Error::Stopped,
        })?
    }

    /// Writes a table's metadata and keeps it at hand: it is read next.
    pub async fn write_metadata(&self, url: &str, metadata: TableMetadata) -> Result<()> {
        let bytes = serde_json::to_vec(&metadata).map_err(|error| damaged(url, error))?;
        let size = bytes.len() as u64 * METADATA_FACTOR;
        self.write(url, bytes.into()).await?;
        self.metadata.insert(url.to_owned(), (Arc::new(metadata), size));
        Ok(())
    }

    pub async fn read(&self, url: &str) -> Result<Bytes> {
        let place = self.place(url)?;
        let found = place.store.get(&place.path).await.map_err(|error| of_store(url, error))?;
        if found.meta.size > MAX_BYTES as u64 {
            return Err(damaged(url, TooLarge { bytes: found.meta.size }));
        }
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|error| of_store(url, error))?;
        // Of some of these files a part would make sense by itself.
        if bytes.len() as u64 != size {
            return Err(damaged(url, OfOtherSize { bytes: bytes.len(), size }));
        }
        Ok(bytes)
    }

    /// Writes a file that must not be there yet.
    pub async fn write(&self, url: &str, bytes: Bytes) -> Result<()> {
        let place = self.place(url)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = place.store.put_opts(&place.path, PutPayload::from_bytes(bytes), options).await;
        put.map(drop).map_err(|error| Error::not_written(url, error))
    }

    /// Removes files that nothing names, as far as possible: what stays is an orphan that
    /// housekeeping finds.
    pub async fn remove(&self, urls: Vec<String>) {
        for url in urls {
            faults::point("a file is to be removed");
            if let Ok(place) = self.place(&url)
                && let Err(error) = place.store.delete(&place.path).await
            {
                let error = brief(&error);
                tracing::debug!(%url, error, "a file that nothing names could not be removed");
            }
        }
    }

    /// The names of the directories in a directory.
    pub async fn directories(&self, url: &str) -> Result<Vec<String>> {
        let place = self.place(url)?;
        let listed = place.store.list_with_delimiter(Some(&place.path)).await;
        let listed = listed.map_err(|error| of_store(url, error))?.common_prefixes;
        Ok(listed.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect())
    }

    /// Removes a directory with all that is in it.
    pub async fn remove_directory(&self, url: &str) -> Result<()> {
        let place = self.place(url)?;
        let files = place.store.list(Some(&place.path)).map_ok(|file| file.location).boxed();
        let removed = place.store.delete_stream(files).try_collect::<Vec<_>>().await;
        removed.map(drop).map_err(|error| Error::not_written(url, error))?;
        remove_empty(&store_url(url)?, &path(url)?, &[]).await;
        Ok(())
    }

    /// Waits until files are where a failing power supply cannot take them. Object stores have
    /// promised that when they took them; local files and their directories are flushed, all at once.
    pub async fn flush(&self, urls: Vec<String>) -> Result<()> {
        let mut places = BTreeSet::new();
        for url in &urls {
            let path = url.strip_prefix("file://").unwrap_or(url);
            if path.starts_with('/') {
                places.insert(PathBuf::from(path));
                places.extend(FilePath::new(path).ancestors().skip(1).take(2).map(PathBuf::from));
            }
        }
        let mut flushing = JoinSet::new();
        for place in places {
            flushing.spawn_blocking(move || {
                let flushed = std::fs::File::open(&place).and_then(|file| file.sync_all());
                flushed.map_err(|error| Error::not_written(place.display().to_string(), error))
            });
        }
        while let Some(flushed) = flushing.join_next().await {
            flushed.map_err(|_| Error::Stopped)??;
        }
        Ok(())
    }

    /// Refuses to go on without a file that a table consists of. Where the file system of local files is
    /// gone, what is written goes into the directory that it was mounted on, and out of sight with its
    /// return. Below object stores there is nothing of the kind.
    pub async fn must_be_there(&self, url: &str) -> Result<()> {
        let path = url.strip_prefix("file://").unwrap_or(url);
        if !path.starts_with('/') || tokio::fs::try_exists(path).await.unwrap_or(false) {
            return Ok(());
        }
        let reason = "what the table consists of is not there; is the warehouse's storage mounted?";
        Err(Error::not_written(url, reason))
    }

    /// A file to be written bit by bit.
    pub fn sink(&self, url: &str) -> Result<BufWriter> {
        let Place { store, path } = self.place(url)?;
        Ok(BufWriter::new(store, path))
    }

    pub(super) fn place(&self, url: &str) -> Result<Place> {
        let (store, path) = split(url)?;
        Ok(Place { store: self.store(&store)?, path })
    }

    /// The store of a URL.
    pub(in crate::storage) fn store(&self, url: &str) -> Result<Arc<dyn ObjectStore>> {
        let parsed = Url::parse(url).map_err(|error| bad(url, error))?;
        self.stores.get_store(&parsed).map_err(|error| Error::of_file(url, error))
    }
}

/// A place that the writers of manifests fill, since they only write to files of their own kind.
pub(super) struct Buffer {
    files: FileIO,
    url: String,
}

impl Buffer {
    pub fn new(url: &str) -> Self {
        Self { files: FileIO::new_with_memory(), url: url.to_owned() }
    }

    pub fn output(&self) -> Result<OutputFile> {
        self.files.new_output(&self.url).map_err(|error| damaged(&self.url, error))
    }

    pub async fn bytes(self) -> Result<Bytes> {
        let read = async { self.files.new_input(&self.url)?.read().await };
        read.await.map_err(|error| damaged(&self.url, error))
    }
}

fn cache<T: Send + Sync + 'static>(bytes: u64) -> Cache<String, (Arc<T>, u64)> {
    Cache::builder()
        .max_capacity(bytes)
        .weigher(|url: &String, (_, size): &(Arc<T>, u64)| {
            u32::try_from(size + url.len() as u64).unwrap_or(u32::MAX)
        })
        .build()
}

/// What is made of a file: a reader's panic over damaged bytes is the file's fault.
fn sound<T>(url: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let made = catch_unwind(AssertUnwindSafe(make));
    made.unwrap_or_else(|panic| Err(Error::of_panic(url, panic)))
}

/// A file that should be small.
#[derive(Debug, thiserror::Error)]
#[error("it has {bytes} bytes; up to {MAX_BYTES} are read")]
struct TooLarge {
    bytes: u64,
}

/// A store has given more or less of a file than it said.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes of it were read, and it has {size}")]
struct OfOtherSize {
    bytes: usize,
    size: u64,
}

/// Metadata as JSON, compressed or not.
fn parsed<T: DeserializeOwned>(url: &str, bytes: &[u8]) -> Result<T> {
    let compressed = url.ends_with(".gz.metadata.json") || bytes.starts_with(&[0x1f, 0x8b]);
    let parsed = match compressed {
        // What is longer breaks off, which JSON does not.
        true => {
            let unpacked = flate2::read::GzDecoder::new(bytes).take(MAX_BYTES as u64);
            serde_json::from_reader(BufReader::new(unpacked))
        }
        false => serde_json::from_slice(bytes),
    };
    parsed.map_err(|error| damaged(url, error))
}

/// A URL in one spelling, without a slash at the end: the same for all of a file's URLs.
pub fn file_key(url: &str) -> String {
    match split(url) {
        Ok((store, path)) => format!("{}{path}", store.replacen("s3a://", "s3://", 1)),
        Err(_) => url.to_owned(),
    }
}

/// The store that a URL belongs to, as scans name it.
pub(super) fn store_url(url: &str) -> Result<ObjectStoreUrl> {
    let (store, _) = split(url)?;
    ObjectStoreUrl::parse(store).map_err(|error| bad(url, error))
}

/// A file's path in its store.
pub(super) fn path(url: &str) -> Result<Path> {
    split(url).map(|(_, path)| path)
}

/// A URL's store and the path in it. As in all of Iceberg's implementations the path is taken as it
/// is written: a percent sign is one, not the start of an escape. Other writers leave out the scheme
/// of local files.
fn split(url: &str) -> Result<(String, Path)> {
    // Hadoop's spelling.
    let url = match url.strip_prefix("file:") {
        Some(path) if !path.starts_with("//") => path,
        _ => url,
    };
    let (store, path) = match url.split_once("://") {
        None if url.starts_with('/') => ("file:///".to_owned(), url),
        None => return Err(bad(url, "it must be an absolute path or a URL")),
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            (format!("{scheme}://{authority}/"), path)
        }
    };
    let path = Path::parse(path.trim_matches('/')).map_err(|error| bad(url, error))?;
    Ok((store, path))
}

fn bad(url: &str, reason: impl ToString) -> Error {
    Error::BadLocation { location: url.to_owned(), reason: reason.to_string() }
}

pub(super) fn of_store(url: &str, error: object_store::Error) -> Error {
    Error::of_file(url, DataFusionError::ObjectStore(Box::new(error)))
}

/// The bytes are there, but are no metadata that can be understood.
pub(super) fn damaged(url: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Damaged {
        path: url.to_owned(),
        source: Box::new(DataFusionError::External(Box::new(error))),
    }
}
