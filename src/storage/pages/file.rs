//! What is known of a file: where its chunks lie, how often each was read, and those that are kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use super::uncompress::{Chunk, pages_of};

/// A chunk's place among those of its file: by row group, then by column.
pub type Place = u32;

/// Kept chunks are shown from here on, far behind the end of any file.
const KEPT: u64 = 1 << 50;

/// What lies between the beginnings of two of them, in bits of the address.
const CHUNK_BITS: u32 = 30;

/// The most chunks of a file, so that addresses stay below 2^51.
const MAX_CHUNKS: usize = 1 << 20;

/// A file with one content.
#[derive(Debug)]
pub struct File {
    number: u64,
    columns: usize,
    /// Rows of each row group.
    rows: Vec<i64>,
    /// Where chunks lie, in this order.
    extents: Vec<Extent>,
    /// Bytes of what is shown of it, at most and about.
    shown_bytes: usize,
    /// Nothing is kept of it any more.
    closed: AtomicBool,
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
    /// Counts the changes of what is kept.
    generation: u64,
    /// Made when it is first asked for, of a part of the file and of the whole.
    shown: [Option<Arc<Shown>>; 2],
}

/// Bytes that were read of a chunk from its file, and how many that are to be before it is kept: first as
/// many as it has, and twice as many after each try.
#[derive(Clone, Copy, Debug)]
struct Uses {
    read: u64,
    due: u64,
    tries: u8,
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
        let mut uses = Vec::with_capacity(chunks);
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
                uses.push(Uses { read: 0, due: length, tries: 0 });
            }
        }
        extents.sort_unstable_by_key(|extent| extent.bytes.start);
        let (kept, shown) = (BTreeMap::new(), [None, None]);
        Some(Self {
            number,
            columns,
            rows: metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect(),
            extents,
            shown_bytes: metadata.memory_size() * 2,
            closed: AtomicBool::new(false),
            groups,
            state: Mutex::new(State { uses, kept, generation: 0, shown }),
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that it takes at most, without its chunks.
    pub fn weight(&self) -> u32 {
        let each = size_of::<Extent>() + size_of::<Uses>() + size_of::<(Place, Arc<Chunk>)>();
        let own = size_of::<Self>() + size_of::<[i64; 2]>() * self.groups.len();
        let all = own + each * self.extents.len() + self.shown_bytes;
        u32::try_from(all).unwrap_or(u32::MAX)
    }

    /// Row group and column of a chunk.
    pub fn at(&self, place: Place) -> (usize, usize) {
        (place as usize / self.columns, place as usize % self.columns)
    }

    /// Whether this is the metadata of a file with the same chunks: it is read after the file was listed,
    /// and may be that of another one.
    pub fn is_of(&self, metadata: &ParquetMetaData) -> bool {
        let groups = metadata.row_groups();
        let alike = groups.len() == self.rows.len()
            && groups.iter().zip(&self.rows).all(|(group, rows)| {
                group.num_rows() == *rows && group.num_columns() == self.columns
            });
        alike
            && self.extents.iter().all(|extent| {
                let (group, column) = self.at(extent.place);
                let (start, length) = groups[group].column(column).byte_range();
                extent.bytes == (start..start + length)
            })
    }

    /// Nothing is kept of it from now on. Returns what was.
    pub fn close(&self) -> Vec<Place> {
        self.closed.store(true, Ordering::Relaxed);
        self.state().kept.keys().copied().collect()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
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

    /// Counts that bytes of the file were read. Returns the chunk that they are of, if it is worth to be
    /// kept now.
    pub fn read(&self, range: &Range<u64>) -> Option<Place> {
        if self.is_closed() {
            return None;
        }
        let after = self.extents.partition_point(|extent| extent.bytes.start <= range.start);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        if range.end > extent.bytes.end || range.is_empty() {
            return None;
        }
        let mut state = self.state();
        let kept = state.kept.contains_key(&extent.place);
        let uses = state.uses.get_mut(extent.place as usize)?;
        uses.read = uses.read.saturating_add(range.end - range.start);
        if uses.read <= uses.due || kept {
            return None;
        }
        uses.tries = uses.tries.saturating_add(1);
        let length = extent.bytes.end - extent.bytes.start;
        uses.due = uses.read.saturating_add(length.saturating_mul(1 << uses.tries.min(32)));
        Some(extent.place)
    }

    /// There was no time for a chunk: the next who reads it may try again.
    pub fn postpone(&self, place: Place) {
        if let Some(uses) = self.state().uses.get_mut(place as usize) {
            uses.due = uses.read;
            uses.tries = uses.tries.saturating_sub(1);
        }
    }

    /// A chunk is not kept any more.
    pub fn forget(&self, place: Place, chunk: &Chunk) {
        let mut state = self.state();
        if state.kept.get(&place).is_some_and(|kept| std::ptr::eq(kept.as_ref(), chunk)) {
            state.kept.remove(&place);
            state.changed();
        }
    }

    pub fn keep(&self, place: Place, chunk: Arc<Chunk>) {
        let mut state = self.state();
        state.kept.insert(place, chunk);
        state.changed();
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
        let (mut chunks, generation) = {
            let state = self.state();
            (state.kept.clone(), state.generation)
        };
        chunks.retain(|place, _| whole || self.at(*place).1 != 0);
        let shown = Arc::new(self.compose(metadata, chunks)?);
        let mut state = self.state();
        if state.generation == generation {
            state.shown[usize::from(whole)] = Some(shown.clone());
        }
        Ok(shown)
    }

    fn compose(
        &self,
        metadata: &ParquetMetaData,
        mut chunks: BTreeMap<Place, Arc<Chunk>>,
    ) -> Result<Shown> {
        let mut columns: Vec<_> =
            metadata.row_groups().iter().map(|group| group.columns().to_vec()).collect();
        let mut pages = metadata.offset_index().cloned();
        let mut odd = Vec::new();
        for (place, chunk) in &chunks {
            let ((group, column), address) = (self.at(*place), address(*place));
            if let Some(of_file) = pages_of(pages.as_ref(), group, column) {
                let Some(shown) = chunk.shown_pages(of_file, address) else {
                    odd.push(*place);
                    continue;
                };
                if let Some(pages) = &mut pages {
                    pages[group][column] = shown;
                }
            }
            let shown = &mut columns[group][column];
            *shown = chunk.shown(shown, address)?;
        }
        odd.iter().for_each(|place| drop(chunks.remove(place)));
        let groups = metadata.row_groups().iter().zip(columns).map(|(group, columns)| {
            group.clone().into_builder().set_column_metadata(columns).build()
        });
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let shown = metadata.clone().into_builder().set_row_groups(groups);
        let shown =
            shown.set_column_index(metadata.column_index().cloned()).set_offset_index(pages);
        Ok(Shown { metadata: Arc::new(shown.build()), chunks })
    }
}

impl State {
    /// Other chunks are kept than before.
    fn changed(&mut self) {
        self.generation += 1;
        self.shown = [None, None];
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

/// The most bytes of a chunk that can be shown.
pub const MAX_CHUNK: usize = 1 << CHUNK_BITS;

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
