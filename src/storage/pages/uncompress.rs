//! A column chunk without its compression.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::page::{CompressedPage, Page, PageReader, PageWriter};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, ParquetOffsetIndex};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};

use super::file::{File, MAX_CHUNK, Place};

/// What a page may take besides its values, as we write it.
const PAGE_HEADER: usize = 256;

/// A column chunk as a file without compression would have it.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: Bytes,
    /// Bytes of the dictionary's page, which comes first; 0 if there is none.
    dictionary: usize,
    /// Begin and bytes of each page of values.
    pages: Vec<(usize, usize)>,
    /// The file that it is a chunk of.
    file: Weak<File>,
}

impl Chunk {
    /// Bytes that it takes.
    pub fn weight(&self) -> u32 {
        let bytes = self.bytes.len() + size_of_val(self.pages.as_slice()) + size_of::<Self>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// It is not kept any more.
    pub fn forgotten(&self, place: Place) {
        if let Some(file) = self.file.upgrade() {
            file.forget(place, self);
        }
    }

    /// How the chunk is shown, at another address of the file.
    pub fn shown(&self, chunk: &ColumnChunkMetaData, address: u64) -> Result<ColumnChunkMetaData> {
        let address = signed(address)?;
        let length = signed(self.bytes.len() as u64)?;
        let dictionary = (self.dictionary > 0).then_some(address);
        chunk
            .clone()
            .into_builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_total_compressed_size(length)
            .set_total_uncompressed_size(length)
            .set_dictionary_page_offset(dictionary)
            .set_data_page_offset(address + signed(self.dictionary as u64)?)
            .build()
    }

    /// Where its pages are shown; `None` if these are not the file's pages.
    pub fn shown_pages(
        &self,
        pages: &OffsetIndexMetaData,
        address: u64,
    ) -> Option<OffsetIndexMetaData> {
        let locations = pages.page_locations();
        if locations.len() != self.pages.len() {
            return None;
        }
        let mut shown = OffsetIndexBuilder::new();
        let mut row = 0;
        for (place, (begin, length)) in self.pages.iter().enumerate() {
            // The index counts a page's first row by the rows of those before.
            let next = locations.get(place + 1).map(|next| next.first_row_index);
            let rows = next.unwrap_or(row) - row;
            shown.append_row_count(rows);
            row += rows;
            let begin = i64::try_from(address + *begin as u64).ok()?;
            shown.append_offset_and_size(begin, i32::try_from(*length).ok()?);
        }
        if let Some(bytes) = pages.unencoded_byte_array_data_bytes() {
            bytes.iter().for_each(|bytes| {
                shown.append_unencoded_byte_array_data_bytes(Some(*bytes));
            });
        }
        Some(shown.build())
    }
}

/// The places of a chunk's pages, if the file has an index of them.
pub fn pages_of(
    index: Option<&ParquetOffsetIndex>,
    group: usize,
    column: usize,
) -> Option<&OffsetIndexMetaData> {
    let pages = index?.get(group)?.get(column)?;
    (!pages.page_locations().is_empty()).then_some(pages)
}

/// Decompresses a chunk of `rows` rows, whose bytes in the file these are.
pub async fn uncompress(
    file: &Arc<File>,
    chunk: &ColumnChunkMetaData,
    bytes: Bytes,
    rows: usize,
) -> Result<Chunk> {
    let (start, _) = chunk.byte_range();
    let start = signed(start)?;
    let alone = chunk
        .clone()
        .into_builder()
        .set_data_page_offset(chunk.data_page_offset() - start)
        .set_dictionary_page_offset(chunk.dictionary_page_offset().map(|offset| offset - start))
        .build()?;
    let mut reader = SerializedPageReader::new(Arc::new(bytes), &alone, rows, None)?;
    let expected = usize::try_from(chunk.uncompressed_size()).unwrap_or(0);
    // Our pages' headers may be longer than the file's.
    let most = (expected + expected / 8 + (1 << 16)).min(MAX_CHUNK);
    let mut sink = TrackedWrite::new(Vec::with_capacity(expected + PAGE_HEADER));
    let (mut dictionary, mut pages) = (0, Vec::new());
    while let Some(page) = reader.get_next_page()? {
        let page = plain(page);
        let size = page.buffer().len();
        let written =
            SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, size))?;
        let (begin, length) = (written.offset as usize, written.bytes_written as usize);
        match written.page_type {
            parquet::basic::PageType::DICTIONARY_PAGE if begin == 0 => dictionary = length,
            parquet::basic::PageType::DICTIONARY_PAGE => {
                return Err(ParquetError::General("a dictionary behind values".to_owned()));
            }
            _ => pages.push((begin, length)),
        }
        if sink.bytes_written() > most {
            return Err(ParquetError::General("a chunk is larger than its file says".to_owned()));
        }
        tokio::task::yield_now().await;
    }
    let mut bytes = sink.into_inner()?;
    bytes.shrink_to_fit();
    Ok(Chunk { bytes: bytes.into(), dictionary, pages, file: Arc::downgrade(file) })
}

/// A page that says of itself that it is not compressed.
fn plain(page: Page) -> Page {
    match page {
        Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len,
            statistics,
            ..
        } => Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed: false,
            statistics,
        },
        page => page,
    }
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|error| ParquetError::External(Box::new(error)))
}
