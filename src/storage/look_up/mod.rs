//! Rows by the value of one column, without a plan: for statements that look for a key.
//!
//! Of files in which keys are looked for often it is known which pieces of [`PIECE`] rows can hold a key
//! ([`zones`]: the least and the greatest one of each piece), and the pieces that are looked into are kept,
//! decoded, column by column. Both come from scans as any statement makes them, belong to
//! a file with one content, and are bounded. What is not known, not kept, or found in many pieces is left to
//! a plan: a look-up has no answer then.

mod file;
mod kept;
mod zones;

use std::fmt::{self, Debug, Formatter};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use chrono::Utc;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::session_state::SessionState;
use futures::FutureExt;
use moka::ops::compute::Op;
use moka::sync::Cache;
use object_store::ObjectMeta;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::contents::is_settled;
use super::managed::ManagedTable;
use super::pages::FileKey;
use super::scan::ExternalTable;
pub use file::own_bytes;
use file::{Read, Source};
use kept::Kept;
use zones::Zones;

/// Rows of a piece, but for the last one of a file.
const PIECE: usize = 8192;

/// The most files of a table in which keys are looked for.
const MAX_FILES: usize = 64;

/// The most pieces that are looked into for one key.
const MAX_PIECES: usize = 4;

/// The most rows of an answer.
const MAX_ROWS: usize = 1000;

/// The most rows of a file whose zones are made: it takes a scan of the column.
const MAX_FILE_ROWS: u64 = 1 << 26;

/// The most bytes of the columns of a piece that are read at once.
const MAX_PIECE_BYTES: usize = 32 << 20;

/// The most pieces that are read at one time.
const MAX_READS: usize = 8;

/// How long a table is left alone in which nothing can be looked up: to list its files takes time.
const PAUSE: Duration = Duration::from_mins(1);

/// The most tables that are known to be left alone.
const MAX_PAUSES: u64 = 10_000;

/// How often a key is looked for in a file before its zones are made.
const LOOKS: u32 = 3;

/// The part of the memory that zones may take besides the pieces.
const ZONES_SHARE: u64 = 8;

/// A table as keys are looked for in it.
#[derive(Clone, Debug)]
pub struct Keyed {
    pub table: Arc<dyn TableProvider>,
    /// The key's place among the columns.
    pub key: usize,
    /// The places of the columns that are wanted.
    pub columns: Vec<usize>,
}

/// What is kept for look-ups in all tables.
pub struct LookUps {
    zones: Cache<ZoneKey, Known>,
    pieces: Cache<PieceKey, Arc<Kept>>,
    max_bytes: u64,
    next: AtomicU64,
    /// External tables, by what they are read as, and keys that are left alone for now.
    pauses: Cache<(Arc<str>, usize), ()>,
    /// Makes zones.
    tasks: Mutex<JoinSet<()>>,
    /// To make the zones of one file at a time.
    turn: Semaphore,
    /// To read pieces, few at a time.
    reads: Semaphore,
    /// Where files are read.
    runtime: Handle,
    hits: AtomicU64,
}

/// A column of a file with one content.
type ZoneKey = (FileKey, FieldRef);

/// A piece, by the number of the zones that it belongs to.
type PieceKey = (u64, u32);

/// What there is of a piece.
enum Piece {
    Kept(Arc<Kept>),
    TooLarge,
    /// The file is not the same any more.
    Gone,
}

/// What is known of where keys lie in a file.
#[derive(Clone)]
enum Known {
    /// Nothing yet, after so many looks.
    Looks(u32),
    /// They are being made.
    Pending,
    /// There are to be none: the file is too large, or the zones or pieces are.
    Never,
    Zones(Arc<Zones>),
}

impl Known {
    fn weight(&self) -> u32 {
        let own = size_of::<(ZoneKey, Self)>();
        let zones = match self {
            Self::Zones(zones) => zones.memory_size(),
            Self::Looks(_) | Self::Pending | Self::Never => 0,
        };
        u32::try_from(own + zones).unwrap_or(u32::MAX)
    }
}

impl Debug for LookUps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookUps").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

impl LookUps {
    /// Files are read on threads of `runtime`.
    pub fn new(max_bytes: u64, runtime: Handle) -> Arc<Self> {
        let weigh = |_: &PieceKey, kept: &Arc<Kept>| {
            u32::try_from(size_of::<PieceKey>() + kept.memory_size()).unwrap_or(u32::MAX)
        };
        let zones = Cache::builder()
            .max_capacity(max_bytes / ZONES_SHARE)
            .weigher(|_: &ZoneKey, known: &Known| known.weight())
            .build();
        Arc::new(Self {
            zones,
            pieces: Cache::builder().max_capacity(max_bytes).weigher(weigh).build(),
            max_bytes,
            next: AtomicU64::new(0),
            pauses: Cache::builder().max_capacity(MAX_PAUSES).time_to_live(PAUSE).build(),
            tasks: Mutex::default(),
            turn: Semaphore::new(1),
            reads: Semaphore::new(MAX_READS),
            runtime,
            hits: AtomicU64::new(0),
        })
    }

    /// Pieces, their bytes, the most of these, and how many look-ups were answered.
    pub fn figures(&self) -> ([u64; 3], u64) {
        // It counts when it has time.
        self.pieces.run_pending_tasks();
        let held = [self.pieces.entry_count(), self.pieces.weighted_size(), self.max_bytes];
        (held, self.hits.load(Ordering::Relaxed))
    }

    /// The rows whose key has this value; `None` if a plan is to find them.
    pub async fn find(
        self: &Arc<Self>,
        keyed: &Keyed,
        value: &ScalarValue,
        state: &Arc<SessionState>,
        context: &Arc<TaskContext>,
    ) -> Result<Option<RecordBatch>> {
        let schema = keyed.table.schema();
        let field = &schema.fields()[keyed.key];
        if !can_be_key(field.data_type())
            || value.data_type() != *field.data_type()
            || value.is_null()
        {
            return Ok(None);
        }
        let external = keyed.table.downcast_ref::<ExternalTable>();
        if external.is_some_and(|table| !table.is_keyed()) {
            return Ok(None);
        }
        let pause = external.map(|table| (table.reading(), keyed.key));
        if pause.as_ref().is_some_and(|pause| self.pauses.contains_key(pause)) {
            return Ok(None);
        }
        let Some((store, files)) = files(keyed, value, state).await? else { return Ok(None) };
        let now = Utc::now();
        if !files.iter().all(|file| is_settled(file, now)) {
            return Ok(None);
        }
        let reading = external.map_or_else(|| store.as_str().into(), ExternalTable::reading);
        let value = value.to_scalar()?;
        let source = |file: &ObjectMeta| Source {
            store: store.clone(),
            file: file.clone(),
            lasting: external.is_none(),
            keyed: keyed.clone(),
            state: state.clone(),
            context: context.clone(),
        };
        let mut found = Vec::new();
        let (mut all_known, mut hopeless) = (true, files.len() > MAX_FILES);
        for file in files.iter().take(if hopeless { 0 } else { MAX_FILES }) {
            let key = (FileKey::new(&reading, file), field.clone());
            match self.zones(key.clone(), || source(file)) {
                Some(Known::Zones(zones)) => {
                    let pieces = zones.pieces(&value)?.into_iter();
                    found.extend(pieces.map(|piece| (key.clone(), zones.clone(), file, piece)));
                }
                Some(Known::Never) => hopeless = true,
                _ => all_known = false,
            }
        }
        if hopeless && let Some(pause) = pause {
            self.pauses.insert(pause, ());
        }
        if hopeless || !all_known || found.len() > MAX_PIECES {
            return Ok(None);
        }
        let wanted: Vec<_> = keyed.columns.iter().map(|at| schema.fields()[*at].clone()).collect();
        let answer: SchemaRef = Arc::new(Schema::new(wanted));
        let mut batches = Vec::with_capacity(found.len());
        for (file_key, zones, file, piece) in found {
            // What went wrong is told by the plan, if it goes wrong there as well.
            let kept = match self.piece(keyed, &zones, piece, || source(file)).await {
                Ok(Piece::Kept(kept)) => kept,
                Ok(Piece::TooLarge) => {
                    self.zones.insert(file_key, Known::Never);
                    return Ok(None);
                }
                Ok(Piece::Gone) | Err(_) => return Ok(None),
            };
            let Some(rows) = kept.rows_with(field, &value, &answer)? else { return Ok(None) };
            batches.push(rows);
        }
        let rows = match batches.as_slice() {
            [rows] => rows.clone(),
            batches => concat_batches(&answer, batches)?,
        };
        if rows.num_rows() > MAX_ROWS {
            return Ok(None);
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Ok(Some(rows))
    }

    /// What is known of where keys lie in a file. It is found out meanwhile, once it was asked often.
    fn zones(self: &Arc<Self>, key: ZoneKey, source: impl FnOnce() -> Source) -> Option<Known> {
        if let Some(known @ (Known::Zones(_) | Known::Never | Known::Pending)) =
            self.zones.get(&key)
        {
            return Some(known);
        }
        let mut due = false;
        let _ = self.zones.entry(key.clone()).and_compute_with(|known| {
            match known.map(|entry| entry.into_value()) {
                None => Op::Put(Known::Looks(1)),
                Some(Known::Looks(looks)) if looks < LOOKS => Op::Put(Known::Looks(looks + 1)),
                Some(Known::Looks(_)) => {
                    due = true;
                    Op::Put(Known::Pending)
                }
                Some(Known::Pending | Known::Never | Known::Zones(_)) => Op::Nop,
            }
        });
        if due {
            let (all, source) = (self.clone(), source());
            self.work(async move {
                let _turn = all.turn.acquire().await;
                let number = all.next.fetch_add(1, Ordering::Relaxed);
                let read = AssertUnwindSafe(Zones::read(&source, number)).catch_unwind().await;
                match read {
                    Ok(Ok(Some(zones))) if all.has_room(&zones) => {
                        all.zones.insert(key, Known::Zones(Arc::new(zones)));
                    }
                    Ok(Ok(_)) => all.zones.insert(key, Known::Never),
                    // What went wrong is told by the statements that read the file themselves.
                    Ok(Err(_)) | Err(_) => all.zones.invalidate(&key),
                }
            });
        }
        None
    }

    fn has_room(&self, zones: &Zones) -> bool {
        zones.memory_size() as u64 <= self.max_bytes / ZONES_SHARE / 4
    }

    /// A piece, with the key's column and those that are wanted.
    async fn piece(
        &self,
        keyed: &Keyed,
        zones: &Arc<Zones>,
        piece: u32,
        source: impl FnOnce() -> Source,
    ) -> Result<Piece> {
        let schema = keyed.table.schema();
        let key = (zones.number, piece);
        let kept = self.pieces.get(&key);
        let is_kept = |at: &usize| {
            kept.as_ref().is_some_and(|kept| kept.column(&schema.fields()[*at]).is_some())
        };
        let all = std::iter::once(&keyed.key).chain(&keyed.columns);
        let mut missing: Vec<usize> = all.filter(|at| !is_kept(at)).copied().collect();
        if let Some(kept) = &kept
            && missing.is_empty()
        {
            return Ok(Piece::Kept(kept.clone()));
        }
        missing.sort_unstable();
        missing.dedup();
        let _read = self.reads.acquire().await;
        let (source, zones, read) = (source(), zones.clone(), missing.clone());
        let task = self.runtime.spawn(async move { source.piece(&zones, piece, &read).await });
        let task = AbortOnDropHandle::new(task).await;
        let read = match task.map_err(|error| DataFusionError::External(Box::new(error)))?? {
            Read::Columns(columns) => columns,
            Read::TooLarge => return Ok(Piece::TooLarge),
            Read::Gone => return Ok(Piece::Gone),
        };
        let fields = missing.iter().map(|at| schema.fields()[*at].clone());
        let kept = Arc::new(Kept::new(kept.as_deref(), fields.zip(read)));
        self.pieces.insert(key, kept.clone());
        Ok(Piece::Kept(kept))
    }

    /// Begins to find out about a file.
    fn work(&self, job: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(job, &self.runtime);
    }
}

/// Whether values of a type are equal where their bits are.
pub fn can_be_key(kind: &DataType) -> bool {
    kind.is_integer()
        || kind.is_decimal()
        || matches!(
            kind,
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Utf8View
        )
}

/// The store and the files in which a key may lie; `None` for tables that are of another kind.
async fn files(
    keyed: &Keyed,
    value: &ScalarValue,
    state: &SessionState,
) -> Result<Option<(ObjectStoreUrl, Vec<ObjectMeta>)>> {
    let table = keyed.table.as_ref();
    if let Some(table) = table.downcast_ref::<ManagedTable>() {
        return table.files_with(state, keyed.key, value, MAX_FILES).await;
    }
    match table.downcast_ref::<ExternalTable>() {
        Some(table) => table.keyed_files(state).await.map(Some),
        None => Ok(None),
    }
}
