//! Local files as a test wants them to fail, hang or take long ([`faults::Storage`]).
//!
//! Whatever is asked waits on a thread for blocking work, as it does for a disk: one that nobody can call
//! back.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::faults::{self, Goes, Storage};

/// A store as it is, or as a test wants it to fail.
pub fn as_a_test_wants(store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    match faults::storage() {
        Some(faults) => Arc::new(Failing { store, faults }),
        None => store,
    }
}

#[derive(Debug)]
struct Failing {
    store: Arc<dyn ObjectStore>,
    faults: &'static Storage,
}

impl Failing {
    async fn reads(&self) -> Result<Goes> {
        reads(self.faults).await
    }

    async fn writes(&self) -> Result<()> {
        let faults = self.faults;
        Ok(tokio::task::spawn_blocking(move || faults.writes()).await?)
    }
}

async fn reads(faults: &'static Storage) -> Result<Goes> {
    tokio::task::spawn_blocking(move || faults.reads()).await?.map_err(of_disk)
}

fn of_disk(error: std::io::Error) -> Error {
    Error::Generic { store: "LocalFileSystem", source: Box::new(error) }
}

/// As much of what is read as comes before it fails.
fn partly(read: GetResult) -> GetResult {
    let half = (read.range.end - read.range.start) / 2;
    let (meta, range, attributes) =
        (read.meta.clone(), read.range.clone(), read.attributes.clone());
    let begun = async move { read.bytes().await.map(|bytes| bytes.slice(..half as usize)) };
    let rest = stream::once(async { Err(of_disk(faults::failed())) });
    let payload = GetResultPayload::Stream(stream::once(begun).chain(rest).boxed());
    GetResult { payload, meta, range, attributes }
}

impl Display for Failing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.writes().await?;
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.writes().await?;
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (goes, head) = (self.reads().await?, options.head);
        let read = self.store.get_opts(location, options).await?;
        Ok(if goes == Goes::Partly && !head { partly(read) } else { read })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.reads().await? {
            Goes::Well => self.store.get_ranges(location, ranges).await,
            Goes::Partly => Err(of_disk(faults::failed())),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (faults, listed) = (self.faults, self.store.list(prefix));
        let begun = async move {
            let goes = reads(faults).await?;
            Ok::<_, Error>(match goes {
                Goes::Well => listed,
                Goes::Partly => {
                    let rest = stream::once(async { Err(of_disk(faults::failed())) });
                    listed.take(1).chain(rest).boxed()
                }
            })
        };
        stream::once(begun).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.reads().await? {
            Goes::Well => self.store.list_with_delimiter(prefix).await,
            Goes::Partly => Err(of_disk(faults::failed())),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.writes().await?;
        self.store.copy_opts(from, to, options).await
    }
}
