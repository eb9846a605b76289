//! What is known of a file: where its chunks lie, how often each was read, and those that are kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::uncompress::{Chunk, pages_of};

/// A chunk's place among those of its file: by row group, then by column.
pub type Place = u32;

/// Kept chunks are shown from here on, far behind the end of any file.
const KEPT: u64 = 1 << 50;

/// What lies between the beginnings of two of them, in bits of the address.
const CHUNK_BITS: u32 = 30;

/// The most chunks of a file, so that addresses stay below 2^51.
const MAX_CHUNKS: usize = 1 << 20;

/// How often a chunk is read before it is worth keeping.
const FIRST_DUE: u16 = 2;

/// A file with one content.
#[derive(Debug)]
pub struct File {
    number: u64,
    columns: usize,
    /// Where chunks lie, in this order.
    extents: Vec<Extent>,
    /// Of each row group, where the first page of its first column lies.
    groups: Vec<i64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Extent {
    bytes: Range<u64>,
    place: Place,
}

#[derive(Debug)]
struct State {
    /// By place.
    uses: Vec<Uses>,
    kept: BTreeMap<Place, Arc<Chunk>>,
    /// Made when it is first asked for, of a part of the file and of the whole.
    shown: [Option<Arc<Shown>>; 2],
}

/// How often a chunk was read from the file, and how often it is to be before it is kept.
#[derive(Clone, Copy, Debug)]
struct Uses {
    read: u16,
    due: u16,
}

/// A file with its kept chunks, as its readers see it.
#[derive(Debug)]
pub struct Shown {
    pub metadata: Arc<ParquetMetaData>,
    chunks: BTreeMap<Place, Arc<Chunk>>,
}

impl File {
    /// `None` where nothing can be kept.
    pub fn new(number: u64, metadata: &ParquetMetaData) -> Option<Self> {
        let columns = metadata.file_metadata().schema_descr().num_columns();
        let chunks = columns * metadata.num_row_groups();
        if chunks == 0 || chunks > MAX_CHUNKS {
            return None;
        }
        let mut extents = Vec::with_capacity(chunks);
        let mut groups = Vec::with_capacity(metadata.num_row_groups());
        for group in metadata.row_groups() {
            let first = group.columns().first()?;
            groups.push(first.dictionary_page_offset().unwrap_or(first.data_page_offset()));
            for chunk in group.columns() {
                if !is_plain(chunk) {
                    return None;
                }
                let (start, length) = chunk.byte_range();
                let place = Place::try_from(extents.len()).ok()?;
                extents.push(Extent { bytes: start..start + length, place });
            }
        }
        extents.sort_unstable_by_key(|extent| extent.bytes.start);
        let state = State {
            uses: vec![Uses { read: 0, due: FIRST_DUE }; extents.len()],
            kept: BTreeMap::new(),
            shown: [None, None],
        };
        Some(Self { number, columns, extents, groups, state: Mutex::new(state) })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that it takes, without its chunks.
    pub fn weight(&self) -> u32 {
        let each = size_of::<Extent>() + size_of::<Uses>();
        u32::try_from(size_of::<Self>() + each * self.extents.len()).unwrap_or(u32::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row groups of a part of the file: those that begin there.
    pub fn access_plan(&self, start: i64, end: i64) -> ParquetAccessPlan {
        let mut plan = ParquetAccessPlan::new_none(self.groups.len());
        for (group, begin) in self.groups.iter().enumerate() {
            if (start..end).contains(begin) {
                plan.scan(group);
            }
        }
        plan
    }

    /// Counts that bytes of the file were read. Returns the chunk that they are of, if it is to be kept
    /// from now on.
    pub fn read(&self, range: &Range<u64>) -> Option<Place> {
        let after = self.extents.partition_point(|extent| extent.bytes.start <= range.start);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        if range.end > extent.bytes.end || range.is_empty() {
            return None;
        }
        let mut state = self.state();
        let uses = state.uses.get_mut(extent.place as usize)?;
        uses.read = uses.read.saturating_add(1);
        if uses.read < uses.due || state.kept.contains_key(&extent.place) {
            return None;
        }
        Some(extent.place)
    }

    /// It could not be kept, or is not any more: it is worth the work again after twice as many uses.
    pub fn forget(&self, place: Place) {
        let mut state = self.state();
        state.kept.remove(&place);
        state.shown = [None, None];
        state.put_off(place);
    }

    /// A chunk is made ready: nobody else need begin with it soon.
    pub fn begin(&self, place: Place) {
        self.state().put_off(place);
    }

    pub fn keep(&self, place: Place, chunk: Arc<Chunk>) {
        let mut state = self.state();
        state.kept.insert(place, chunk);
        state.shown = [None, None];
    }

    /// Whether there is anything to be shown besides the file.
    pub fn has_any(&self) -> bool {
        !self.state().kept.is_empty()
    }

    /// The file with its kept chunks; `whole`: not for a part of it by its bytes, which tells row groups
    /// by the address of the first column. `metadata` is with the file's page index, if it has one.
    pub fn shown(&self, metadata: &Arc<ParquetMetaData>, whole: bool) -> Result<Arc<Shown>> {
        if let Some(shown) = &self.state().shown[usize::from(whole)] {
            return Ok(shown.clone());
        }
        let mut chunks = self.state().kept.clone();
        chunks.retain(|place, _| whole || *place as usize % self.columns != 0);
        let shown = Arc::new(self.compose(metadata, chunks)?);
        let mut state = self.state();
        // What has been kept in the meantime is shown the next time.
        let current = shown.chunks.keys().all(|place| state.kept.contains_key(place));
        if current {
            state.shown[usize::from(whole)] = Some(shown.clone());
        }
        Ok(shown)
    }

    fn compose(
        &self,
        metadata: &ParquetMetaData,
        mut chunks: BTreeMap<Place, Arc<Chunk>>,
    ) -> Result<Shown> {
        let mut groups = metadata.row_groups().to_vec();
        let mut pages = metadata.offset_index().cloned();
        let mut odd = Vec::new();
        for (place, chunk) in &chunks {
            let (group, column) = (*place as usize / self.columns, *place as usize % self.columns);
            let (Some(there), address) = (groups.get_mut(group), address(*place)) else { continue };
            if let Some(of_file) = pages_of(pages.as_ref(), group, column) {
                let Some(shown) = chunk.shown_pages(of_file, address) else {
                    odd.push(*place);
                    continue;
                };
                if let Some(pages) = &mut pages {
                    pages[group][column] = shown;
                }
            }
            let mut columns = there.columns().to_vec();
            columns[column] = chunk.shown(&columns[column], address)?;
            *there = there.clone().into_builder().set_column_metadata(columns).build()?;
        }
        odd.iter().for_each(|place| drop(chunks.remove(place)));
        let shown = metadata.clone().into_builder().set_row_groups(groups);
        let shown =
            shown.set_column_index(metadata.column_index().cloned()).set_offset_index(pages);
        Ok(Shown { metadata: Arc::new(shown.build()), chunks })
    }
}

impl State {
    fn put_off(&mut self, place: Place) {
        if let Some(uses) = self.uses.get_mut(place as usize) {
            uses.due = uses.read.saturating_add(uses.due.saturating_mul(2));
        }
    }
}

impl Shown {
    /// The chunk at an address, and what is asked for of it.
    pub fn at(&self, range: &Range<u64>) -> Option<(Place, &Chunk, Range<usize>)> {
        let place = Place::try_from(range.start.checked_sub(KEPT)? >> CHUNK_BITS).ok()?;
        let chunk = self.chunks.get(&place)?;
        let begin = usize::try_from(range.start - address(place)).ok()?;
        let end = begin + usize::try_from(range.end - range.start).ok()?;
        Some((place, chunk, begin..end))
    }
}

/// Whether addresses are of kept chunks.
pub fn is_kept(range: &Range<u64>) -> bool {
    range.start >= KEPT
}

/// Whether a chunk of so many bytes can be shown.
pub fn fits(bytes: i64) -> bool {
    (0..1 << (CHUNK_BITS - 1)).contains(&bytes)
}

fn address(place: Place) -> u64 {
    KEPT + (u64::from(place) << CHUNK_BITS)
}

/// Whether a chunk lies in this file, at a place that makes sense.
fn is_plain(chunk: &ColumnChunkMetaData) -> bool {
    let offsets = [chunk.data_page_offset(), chunk.compressed_size()];
    chunk.file_path().is_none()
        && offsets.iter().all(|offset| *offset >= 0)
        && chunk.dictionary_page_offset().is_none_or(|offset| offset > 0)
}
