//! What can only be told of pages once they are decompressed, as far as the reader underneath must not find
//! it out itself: it unpacks some codecs for as long as there is anything, and makes room for as many texts
//! as their encoding says that there are.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::pages::{Head, no_page};
use super::thrift::{damaged, varint};

/// Bytes that are decompressed at a time.
const PIECE: usize = 32 << 10;

/// What frames of LZ4 begin with, among them those of old.
const LZ4_FRAMES: [[u8; 4]; 2] = [[0x04, 0x22, 0x4d, 0x18], [0x02, 0x21, 0x4c, 0x18]];

/// Checks that compressed bytes have no more than the expected ones, without keeping any.
pub fn check_length(codec: Compression, packed: &[u8], expected: usize) -> Result<()> {
    match codec {
        Compression::GZIP(_) => count(MultiGzDecoder::new(packed), expected),
        Compression::BROTLI(_) => count(brotli::Decompressor::new(packed, PIECE), expected),
        // Hadoop's blocks are bounded by the page; frames, which old writers used instead, are not.
        _ if LZ4_FRAMES.iter().any(|magic| packed.starts_with(magic)) => {
            Err(damaged("a page has frames of LZ4 and is too large for that"))
        }
        _ => Ok(()),
    }
}

fn count(mut unpacked: impl Read, expected: usize) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut left = expected;
    loop {
        let length = unpacked.read(&mut piece).map_err(ParquetError::from)?;
        if length == 0 {
            return Ok(());
        }
        left = left.checked_sub(length).ok_or_else(|| {
            damaged(format!("a page has more than the {expected} bytes that it says it has"))
        })?;
    }
}

/// Checks that a page of texts, which begins with its head, has no more of them than it says.
pub fn check(chunk: &ColumnChunkMetaData, head: &Head, page: &[u8]) -> Result<()> {
    let alone = chunk
        .clone()
        .into_builder()
        .set_data_page_offset(0)
        .set_dictionary_page_offset(None)
        .set_total_compressed_size(page.len() as i64)
        .build()?;
    let bytes = Arc::new(Bytes::copy_from_slice(page));
    let mut pages = SerializedPageReader::new(bytes, &alone, 0, None)?;
    let unpacked = pages.get_next_page()?.ok_or_else(no_page)?;
    let column = chunk.column_descr();
    let mut values = match &unpacked {
        Page::DataPageV2 { buf, .. } => buf.get(head.levels() as usize..).ok_or_else(no_page)?,
        Page::DataPage { buf, def_level_encoding, rep_level_encoding, .. } => {
            let mut rest = buf.as_ref();
            let levels = [
                (column.max_rep_level(), rep_level_encoding),
                (column.max_def_level(), def_level_encoding),
            ];
            for (most, encoding) in levels {
                rest = behind_levels(rest, most, *encoding, head.values as usize)?;
            }
            rest
        }
        Page::DictionaryPage { .. } => return Err(no_page()),
    };
    let texts = head.values as u64;
    let lengths = Lengths::read(values)?;
    lengths.check(texts)?;
    if head.is_encoded(Encoding::DELTA_BYTE_ARRAY) {
        values = lengths.behind(values)?;
        Lengths::read(values)?.check(texts)?;
    }
    Ok(())
}

/// What follows levels of a page of the first version.
fn behind_levels(bytes: &[u8], most: i16, encoding: Encoding, values: usize) -> Result<&[u8]> {
    if most == 0 {
        return Ok(bytes);
    }
    let length = match encoding {
        Encoding::RLE => {
            let length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
            length.and_then(|length| length.checked_add(4))
        }
        _ => {
            let bits = (i16::BITS - most.leading_zeros()) as usize;
            Some((values * bits).div_ceil(8))
        }
    };
    length.and_then(|length| bytes.get(length..)).ok_or_else(no_page)
}

/// The head of numbers in the encoding DELTA_BINARY_PACKED.
struct Lengths {
    /// Values that have a width in common.
    by_width: u64,
    widths: u64,
    count: u64,
    /// Bytes of the head.
    length: usize,
}

impl Lengths {
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut length = 0;
        let mut next = || -> Result<u64> {
            let (number, more) = varint(&bytes[length..])?;
            length += more;
            Ok(number)
        };
        // Values of a block, widths of it, values of all, and the first of them.
        let (block, widths, count) = (next()?, next()?, next()?);
        next()?;
        match block.checked_div(widths) {
            Some(by_width) if by_width > 0 => Ok(Self { by_width, widths, count, length }),
            _ => Err(damaged("texts have blocks of no lengths")),
        }
    }

    fn check(&self, texts: u64) -> Result<()> {
        match self.count > texts {
            true => Err(damaged(format!("a page of {texts} values has {} texts", self.count))),
            false => Ok(()),
        }
    }

    /// What follows the numbers.
    fn behind<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let mut rest = bytes.get(self.length..).ok_or_else(no_page)?;
        let mut left = self.count.saturating_sub(1);
        while left > 0 {
            // The least of the block, and then the widths.
            rest = &rest[varint(rest)?.1..];
            let widths = usize::try_from(self.widths).ok();
            let (widths, blocks) =
                widths.and_then(|widths| rest.split_at_checked(widths)).ok_or_else(no_page)?;
            rest = blocks;
            for width in widths {
                if left == 0 {
                    break;
                }
                let bits = self.by_width.checked_mul(u64::from(*width)).ok_or_else(no_page)?;
                let length = usize::try_from(bits / 8).ok();
                rest = length.and_then(|length| rest.get(length..)).ok_or_else(no_page)?;
                left = left.saturating_sub(self.by_width);
            }
        }
        Ok(rest)
    }
}
