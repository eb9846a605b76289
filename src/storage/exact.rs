//! Object stores whose answers are as long as they say.
//!
//! An answer that ends early, in good order, is taken by `object_store` for what was asked for: a part of a
//! file would be read as a whole one, and where several parts are cut from one answer it panics.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result,
};

/// A store that fails where it gives less, or more, than it has promised.
#[derive(Debug)]
pub struct Exact(pub Arc<dyn ObjectStore>);

impl Display for Exact {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Pieces that must be so many bytes together.
fn exactly(
    pieces: BoxStream<'static, Result<Bytes>>,
    bytes: u64,
) -> BoxStream<'static, Result<Bytes>> {
    let other = move || {
        let text = format!("the answer is not of the {bytes} bytes that it is to have");
        let source = Box::new(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        Error::Generic { store: "object store", source }
    };
    let next = move |(mut pieces, left): (BoxStream<'static, Result<Bytes>>, u64)| async move {
        match pieces.try_next().await? {
            Some(piece) => {
                let left = left.checked_sub(piece.len() as u64).ok_or_else(other)?;
                Ok(Some((piece, (pieces, left))))
            }
            None if left > 0 => Err(other()),
            None => Ok(None),
        }
    };
    stream::try_unfold((pieces, bytes), next).boxed()
}

#[async_trait]
impl ObjectStore for Exact {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let mut read = self.0.get_opts(location, options).await?;
        if let GetResultPayload::Stream(pieces) = read.payload {
            let bytes = if head { 0 } else { read.range.end - read.range.start };
            read.payload = GetResultPayload::Stream(exactly(pieces, bytes));
        }
        Ok(read)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: &[&'static str], bytes: u64) -> Option<String> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from(*piece))).collect();
        let read: Result<Vec<Bytes>> =
            exactly(stream::iter(pieces).boxed(), bytes).try_collect().await;
        Some(String::from_utf8(read.ok()?.concat()).expect("text"))
    }

    #[tokio::test]
    async fn an_answer_is_as_long_as_it_says() {
        assert_eq!(read(&["ab", "", "c"], 3).await.as_deref(), Some("abc"));
        assert_eq!(read(&[], 0).await.as_deref(), Some(""));
        assert_eq!(read(&["ab", "c"], 4).await, None);
        assert_eq!(read(&["ab", "c"], 2).await, None);
        assert_eq!(read(&[], 1).await, None);
    }
}
