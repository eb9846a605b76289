//! Files of text as their readers take them: whole, unpacked and in pieces, wherever they lie.
//!
//! What is packed may be in several parts, one behind the other, as `cat a.zst b.zst` makes it. The engine's own
//! readers of streams go on behind the first of them in one format only, and lose the rows of the others.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;

use async_compression::tokio::bufread::{BzDecoder, XzDecoder, ZstdDecoder};
use bytes::Bytes;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::{DataFusionError, Result};
use datafusion_datasource::boundary_stream::AlignedBoundaryStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectMeta, ObjectStore};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

/// Bytes of a local file that are read at once.
const CHUNK: usize = 256 << 10;

pub(super) type Chunks = BoxStream<'static, Result<Bytes>>;

/// A part of a file, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub start: u64,
    pub end: u64,
}

impl Part {
    /// Which part is to be read, if it is not the whole.
    pub fn of(file: &PartitionedFile) -> Option<Self> {
        let bound = |at: i64| u64::try_from(at).unwrap_or_default();
        let range = file.range.as_ref()?;
        Some(Self { start: bound(range.start), end: bound(range.end) })
    }
}

/// The lines that begin in a part of a file.
pub(super) async fn part(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    part: Part,
    terminator: u8,
) -> Result<Chunks> {
    let (store, location) = (store.clone(), file.location.clone());
    let Part { start, end } = part;
    let lines = AlignedBoundaryStream::new(store, location, start, end, file.size, terminator);
    Ok(lines.await?.map_err(DataFusionError::from).boxed())
}

/// All bytes of a file, unpacked.
pub(super) async fn whole(
    store: &dyn ObjectStore,
    location: &Path,
    compression: FileCompressionType,
) -> Result<Chunks> {
    unpacked(store.get_opts(location, GetOptions::default()).await?.payload, compression)
}

fn unpacked(payload: GetResultPayload, compression: FileCompressionType) -> Result<Chunks> {
    match payload {
        GetResultPayload::File(file, _) => {
            // This goes on behind the first part.
            let mut bytes = compression.convert_read(file)?;
            let chunk = move || {
                let mut chunk = vec![0; CHUNK];
                match bytes.read(&mut chunk) {
                    Ok(0) => None,
                    Ok(read) => {
                        chunk.truncate(read);
                        Some(Ok(Bytes::from(chunk)))
                    }
                    Err(error) => Some(Err(DataFusionError::from(error))),
                }
            };
            Ok(stream::iter(std::iter::from_fn(chunk)).boxed())
        }
        GetResultPayload::Stream(chunks) => {
            all_parts(chunks.map_err(DataFusionError::from).boxed(), compression)
        }
    }
}

fn all_parts(packed: Chunks, compression: FileCompressionType) -> Result<Chunks> {
    let read = |decoder: Pin<Box<dyn AsyncRead + Send>>| {
        ReaderStream::new(decoder).map_err(DataFusionError::from).boxed()
    };
    let variant = *compression.get_variant();
    Ok(match variant {
        CompressionTypeVariant::BZIP2 => {
            let mut decoder = BzDecoder::new(StreamReader::new(packed));
            decoder.multiple_members(true);
            read(Box::pin(decoder))
        }
        CompressionTypeVariant::XZ => {
            let mut decoder = XzDecoder::new(StreamReader::new(packed));
            decoder.multiple_members(true);
            read(Box::pin(decoder))
        }
        CompressionTypeVariant::ZSTD => {
            let mut decoder = ZstdDecoder::new(StreamReader::new(packed));
            decoder.multiple_members(true);
            read(Box::pin(decoder))
        }
        CompressionTypeVariant::GZIP | CompressionTypeVariant::UNCOMPRESSED => {
            compression.convert_stream(packed)?
        }
    })
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::buffered::BufWriter;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn all_parts_of_what_was_packed_are_read() {
        use CompressionTypeVariant::{BZIP2, GZIP, UNCOMPRESSED, XZ, ZSTD};
        let directory = tempfile::tempdir().expect("a directory");
        let local = LocalFileSystem::new_with_prefix(directory.path()).expect("a store");
        let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
        for variant in [BZIP2, GZIP, UNCOMPRESSED, XZ, ZSTD] {
            let compression = FileCompressionType::from(variant);
            let (parts, file) = (Arc::new(InMemory::new()), Path::from("file"));
            let mut packed = Vec::new();
            for part in ["a,b\n1,2\n", "3,4\n5,6", "\n7,8\n"] {
                let writer = BufWriter::new(parts.clone(), file.clone());
                let mut writer = compression.convert_async_writer(writer).expect("known");
                writer.write_all(part.as_bytes()).await.expect("packed");
                writer.shutdown().await.expect("written");
                packed.extend(parts.get(&file).await.expect("there").bytes().await.expect("read"));
            }
            for store in &stores {
                store.put(&file, packed.clone().into()).await.expect("kept");
                let read = whole(store.as_ref(), &file, compression).await.expect("known");
                let read: Vec<Bytes> = read.try_collect().await.expect("whole");
                assert_eq!(read.concat(), b"a,b\n1,2\n3,4\n5,6\n7,8\n", "{variant:?}");
            }
            // In pieces that end anywhere.
            let pieces: Vec<_> =
                packed.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let read = all_parts(stream::iter(pieces).boxed(), compression).expect("known");
            let read: Vec<Bytes> = read.try_collect().await.expect("whole");
            assert_eq!(read.concat(), b"a,b\n1,2\n3,4\n5,6\n7,8\n", "{variant:?}");
        }
    }
}
