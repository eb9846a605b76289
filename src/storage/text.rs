//! Files of text as their readers take them: whole, unpacked and in pieces, wherever they lie.
//!
//! What is packed may be in several parts, one behind the other, as `cat a.zst b.zst` makes it. The engine's own
//! readers of streams go on behind the first of them in one format only, and lose the rows of the others.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use bytes::{Buf, Bytes};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::{DataFusionError, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use memchr::{memchr, memrchr, memrchr2};
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

/// Bytes behind a part that are fetched with it, for the end of its last line; twice as many each time that it has not
/// come.
const AHEAD: u64 = 64 << 10;

/// Bytes that are read, or unpacked, at once.
const CHUNK: usize = 512 << 10;

/// Bytes of a line, or a value, at most: it is in memory as a whole, which nobody else counts.
pub(super) const LONGEST: usize = 64 << 20;

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
pub(super) fn part(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    Part { start, end }: Part,
    terminator: u8,
) -> Chunks {
    let lines = Lines {
        store: store.clone(),
        file: file.clone(),
        terminator,
        chunks: stream::empty().boxed(),
        // The byte before tells whether a line begins at the start.
        at: start.saturating_sub(1),
        // With the rest of the last line, most times.
        until: end.saturating_add(AHEAD),
        ahead: AHEAD,
        end: end.min(file.size),
        begun: start == 0,
        over: start >= end,
    };
    stream::try_unfold(lines, async |mut lines| Ok(lines.next().await?.map(|it| (it, lines))))
        .boxed()
}

struct Lines {
    store: Arc<dyn ObjectStore>,
    file: ObjectMeta,
    terminator: u8,
    chunks: Chunks,
    /// Where the next chunk begins.
    at: u64,
    /// Up to where bytes are asked for next, at least.
    until: u64,
    ahead: u64,
    end: u64,
    /// The first line has begun.
    begun: bool,
    over: bool,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.over {
            let Some(mut chunk) = self.chunks.try_next().await? else {
                if self.at >= self.file.size {
                    break;
                }
                let until = self.until.max(self.at + self.ahead).min(self.file.size);
                self.ahead = (self.ahead * 2).min(LONGEST as u64);
                self.chunks = range(self.store.as_ref(), &self.file, self.at..until).await?;
                continue;
            };
            let mut begin = self.at;
            self.at += chunk.len() as u64;
            if !self.begun {
                let Some(before) = memchr(self.terminator, &chunk) else {
                    self.over = self.at >= self.end;
                    continue;
                };
                chunk.advance(before + 1);
                begin += before as u64 + 1;
                self.begun = true;
                self.over = begin >= self.end;
                if self.over || chunk.is_empty() {
                    continue;
                }
            }
            // The last line ends with the part, or is the one that goes on behind it.
            if self.at >= self.end {
                let from = (self.end - 1).saturating_sub(begin) as usize;
                if let Some(last) = memchr(self.terminator, &chunk[from..]) {
                    chunk.truncate(from + last + 1);
                    self.over = true;
                }
            }
            return Ok(Some(chunk));
        }
        Ok(None)
    }
}

async fn range(store: &dyn ObjectStore, file: &ObjectMeta, range: Range<u64>) -> Result<Chunks> {
    let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
    let read = store.get_opts(&file.location, options).await?;
    check_same(file, &read)?;
    Ok(match read.payload {
        GetResultPayload::File(mut opened, _) => {
            opened.seek(SeekFrom::Start(range.start))?;
            of_file(opened, range.end - range.start)
        }
        GetResultPayload::Stream(chunks) => chunks.map_err(DataFusionError::from).boxed(),
    })
}

/// All bytes of a file, unpacked.
pub(super) async fn whole(
    store: &dyn ObjectStore,
    file: &ObjectMeta,
    compression: FileCompressionType,
) -> Result<Chunks> {
    let read = store.get_opts(&file.location, GetOptions::default()).await?;
    check_same(file, &read)?;
    let chunks = match read.payload {
        GetResultPayload::File(opened, _) => of_file(opened, file.size),
        GetResultPayload::Stream(chunks) => chunks.map_err(DataFusionError::from).boxed(),
    };
    Ok(all_parts(chunks, compression))
}

/// So many bytes of a local file, or an error. Waiting for them holds up nobody else.
fn of_file(file: File, bytes: u64) -> Chunks {
    let next = async |(mut file, left): (File, u64)| {
        let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        if most == 0 {
            return Ok(None);
        }
        let read = move || {
            let mut piece = vec![0; most];
            let read = file.read(&mut piece)?;
            piece.truncate(read);
            Ok((Bytes::from(piece), file))
        };
        let read = SpawnedTask::spawn_blocking(read).join_unwind().await;
        let read: io::Result<_> = read.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        let (piece, file) = read?;
        if piece.is_empty() {
            return Err(changed("it has become shorter while the statement ran").into());
        }
        let left = left - piece.len() as u64;
        Ok(Some((piece, (file, left))))
    };
    stream::try_unfold((file, bytes), next).boxed()
}

/// Refuses a file that was written anew since the files were listed, or in whose place another has come. One that has
/// only grown is read as far as it went then.
fn check_same(listed: &ObjectMeta, found: &GetResult) -> Result<()> {
    let same = match found.payload {
        // Its tag begins with the inode, and has the time as well.
        GetResultPayload::File(..) if listed.size == found.meta.size => {
            listed.e_tag == found.meta.e_tag
        }
        GetResultPayload::File(..) => {
            let inode =
                |meta: &ObjectMeta| meta.e_tag.as_ref()?.split('-').next().map(str::to_owned);
            inode(listed) == inode(&found.meta)
        }
        // Not all stores say the same of an object's tag, or of its time, when it is listed and when it is read.
        GetResultPayload::Stream(_) => listed.size == found.meta.size,
    };
    match same {
        true => Ok(()),
        false => Err(changed("it was written while the statement ran").into()),
    }
}

/// The file is no longer the one that was listed.
fn changed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, reason)
}

/// The same bytes, and an error where a line is longer than may be. Lines end with `terminator`, or as usual.
pub(super) fn of_bounded_lines(chunks: Chunks, terminator: Option<u8>) -> Chunks {
    let next = move |(mut chunks, mut line): (Chunks, usize)| async move {
        let Some(chunk) = chunks.try_next().await? else { return Ok(None) };
        let end = match terminator {
            Some(terminator) => memrchr(terminator, &chunk),
            None => memrchr2(b'\n', b'\r', &chunk),
        };
        line = end.map_or(line + chunk.len(), |end| chunk.len() - end);
        match line > LONGEST {
            true => Err(too_long().into()),
            false => Ok(Some((chunk, (chunks, line)))),
        }
    };
    stream::try_unfold((chunks, 0), next).boxed()
}

/// The error of what is longer than [`LONGEST`].
pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "a line, or a value, is longer than 64 MiB")
}

fn all_parts(packed: Chunks, compression: FileCompressionType) -> Chunks {
    let variant = *compression.get_variant();
    if variant == CompressionTypeVariant::UNCOMPRESSED {
        return packed;
    }
    // What has failed is found in the errors that stand for it alone.
    let packed = packed.map_err(|error| match error {
        DataFusionError::IoError(error) => error,
        other => io::Error::other(other),
    });
    let packed = StreamReader::new(packed);
    macro_rules! of_parts {
        ($decoder:expr) => {{
            let mut decoder = $decoder;
            decoder.multiple_members(true);
            Box::pin(decoder)
        }};
    }
    let unpacked: Pin<Box<dyn AsyncRead + Send>> = match variant {
        CompressionTypeVariant::BZIP2 => of_parts!(BzDecoder::new(packed)),
        CompressionTypeVariant::GZIP => of_parts!(GzipDecoder::new(packed)),
        CompressionTypeVariant::XZ => of_parts!(XzDecoder::new(packed)),
        CompressionTypeVariant::ZSTD => of_parts!(ZstdDecoder::new(packed)),
        CompressionTypeVariant::UNCOMPRESSED => Box::pin(packed),
    };
    ReaderStream::with_capacity(unpacked, CHUNK).map_err(DataFusionError::from).boxed()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use object_store::ObjectStoreExt;
    use object_store::buffered::BufWriter;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::path::Path;
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
                let meta = store.head(&file).await.expect("there");
                let read = whole(store.as_ref(), &meta, compression).await.expect("known");
                let read: Vec<Bytes> = read.try_collect().await.expect("whole");
                assert_eq!(read.concat(), b"a,b\n1,2\n3,4\n5,6\n7,8\n", "{variant:?}");
            }
            // In pieces that end anywhere.
            let pieces: Vec<_> =
                packed.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let read = all_parts(stream::iter(pieces).boxed(), compression);
            let read: Vec<Bytes> = read.try_collect().await.expect("whole");
            assert_eq!(read.concat(), b"a,b\n1,2\n3,4\n5,6\n7,8\n", "{variant:?}");
        }
    }

    async fn lines(store: &Arc<dyn ObjectStore>, file: &ObjectMeta, part: Part) -> Result<String> {
        let read: Vec<Bytes> = super::part(store, file, part, b'\n').try_collect().await?;
        Ok(String::from_utf8(read.concat()).expect("text"))
    }

    #[tokio::test]
    async fn each_line_is_of_one_part() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = LocalFileSystem::new_with_prefix(directory.path()).expect("a store");
        let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
        let long = format!("{}\nb\n", "a".repeat(200_000));
        for text in ["a\nbc\n\ndef\n", "a\nbc", "\n", "abc", "\n\na", &long] {
            for store in &stores {
                let file = Path::from("file");
                store.put(&file, text.to_owned().into()).await.expect("kept");
                let meta = store.head(&file).await.expect("there");
                for cut in (0..=meta.size).filter(|cut| *cut < 20 || cut % 9973 < 2) {
                    let (mut read, mut begins) = (String::new(), 0);
                    for part in [Part { start: 0, end: cut }, Part { start: cut, end: meta.size }] {
                        let of_part = lines(store, &meta, part).await.expect("read");
                        begins += of_part.split_inclusive('\n').count();
                        read += &of_part;
                    }
                    assert_eq!(read, text, "cut at {cut}");
                    assert_eq!(begins, text.split_inclusive('\n').count(), "cut at {cut}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_told_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = LocalFileSystem::new_with_prefix(directory.path()).expect("a store");
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let (file, path) = (Path::from("file"), directory.path().join("file"));
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("a\nb\nc\n");
        let meta = store.head(&file).await.expect("there");
        let end = meta.size;
        let all = async || -> Result<[String; 2]> {
            let read = whole(store.as_ref(), &meta, FileCompressionType::UNCOMPRESSED).await?;
            let read: Vec<Bytes> = read.try_collect().await?;
            let parts = [Part { start: 0, end: 3 }, Part { start: 3, end }];
            let mut of_parts = String::new();
            for part in parts {
                of_parts += &lines(&store, &meta, part).await?;
            }
            Ok([String::from_utf8(read.concat()).expect("text"), of_parts])
        };
        write("a\nb\nc\nd\n");
        assert_eq!(all().await.expect("read"), ["a\nb\nc\n", "a\nb\nc\n"]);
        // Of the same length.
        write("x\ny\nz\n");
        let written = File::options().write(true).open(&path).expect("there");
        let later = SystemTime::now() + Duration::from_secs(60);
        written.set_modified(later).expect("its time");
        let told = all().await.expect_err("written").to_string();
        assert!(told.contains("written"), "{told}");
        write("a\nb");
        let told = all().await.expect_err("too short").to_string();
        assert!(told.contains("shorter"), "{told}");
        // What has failed is known behind a decoder as well.
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).expect("written");
        let longer =
            ObjectMeta { size: store.head(&file).await.expect("there").size + 1, ..meta.clone() };
        let read = whole(store.as_ref(), &longer, FileCompressionType::GZIP).await.expect("opened");
        let told = read.try_collect::<Vec<Bytes>>().await.expect_err("too short");
        let kind = io::ErrorKind::StaleNetworkFileHandle;
        assert!(matches!(&told, DataFusionError::IoError(e) if e.kind() == kind), "{told}");
        std::fs::write(directory.path().join("other"), "x\ny\nz\n").expect("written");
        std::fs::rename(directory.path().join("other"), &path).expect("renamed");
        let told = all().await.expect_err("another").to_string();
        assert!(told.contains("written"), "{told}");
    }
}
