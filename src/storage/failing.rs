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
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use tokio::runtime::Handle;

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

    /// Goes on whether or not somebody still waits for it, as a disk does with what it was given.
    async fn writes<T: Send + 'static>(
        &self,
        write: impl AsyncFnOnce(Arc<dyn ObjectStore>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        writes(self.faults, async move || write(store).await).await
    }
}

async fn writes<T: Send + 'static>(
    faults: &'static Storage,
    write: impl AsyncFnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::current();
    let written = tokio::task::spawn_blocking(move || {
        faults.writes();
        runtime.block_on(write())
    });
    written.await?
}

/// An upload whose parts and end are writes.
#[derive(Debug)]
struct Upload {
    /// None while its end is under way, and if nobody has waited for that.
    upload: Option<Box<dyn MultipartUpload>>,
    faults: &'static Storage,
}

fn ended() -> Error {
    of_disk(std::io::Error::other("the upload has ended"))
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let faults = self.faults;
        let part = self.upload.as_mut().map(|upload| upload.put_part(data));
        async move {
            let part = part.ok_or_else(ended)?;
            writes(faults, async move || part.await).await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut upload = self.upload.take().ok_or_else(ended)?;
        let end = async move || {
            let done = upload.complete().await;
            Ok((upload, done))
        };
        let (upload, done) = writes(self.faults, end).await?;
        self.upload = Some(upload);
        done
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.as_mut().ok_or_else(ended)?.abort().await
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
        let location = location.clone();
        self.writes(async move |store| store.put_opts(&location, payload, options).await).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let location = location.clone();
        let upload =
            self.writes(async move |store| store.put_multipart_opts(&location, options).await);
        let upload = Some(upload.await?);
        Ok(Box::new(Upload { upload, faults: self.faults }))
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
        let (from, to) = (from.clone(), to.clone());
        self.writes(async move |store| store.copy_opts(&from, &to, options).await).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_write_goes_on_without_whoever_has_waited() {
        let directory = tempfile::tempdir().expect("a directory");
        let rule = directory.path().join("rule");
        let faults = Box::leak(Box::new(Storage::new(rule.clone())));
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let failing = Failing { store: store.clone(), faults };
        let path = Path::from("file");
        let is_there = async || store.get_opts(&path, GetOptions::default()).await.is_ok();
        let stick = || std::fs::write(&rule, "stick 100 0 1").expect("a file");
        let go_on = || std::fs::remove_file(&rule).expect("the file");
        stick();
        let put = failing.put_opts(&path, "x".into(), PutOptions::default());
        assert!(tokio::time::timeout(MOMENT, put).await.is_err());
        assert!(!is_there().await);
        go_on();
        let there = async {
            while !is_there().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(1000 * MOMENT, there).await.expect("it is written");
        // The parts of an upload, and its end.
        let upload = failing.put_multipart_opts(&path, PutMultipartOptions::default());
        let mut upload = upload.await.expect("it begins");
        stick();
        let mut part = upload.put_part("y".into());
        assert!(tokio::time::timeout(MOMENT, &mut part).await.is_err());
        go_on();
        part.await.expect("a part");
        stick();
        assert!(tokio::time::timeout(MOMENT, upload.complete()).await.is_err());
        let read = async || {
            let read = store.get_opts(&path, GetOptions::default()).await.expect("a file");
            read.bytes().await.expect("its bytes")
        };
        assert_eq!(read().await, "x");
        go_on();
        let there = async {
            while read().await != "y" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(1000 * MOMENT, there).await.expect("it is written");
        assert!(upload.abort().await.is_err(), "its end was asked for");
    }
}
