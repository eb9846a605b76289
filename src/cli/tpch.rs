//! The eight tables of TPC-H as Parquet files, one a table, in `sf<scale>/<table>.parquet`.
//!
//! A folder is used again when its marker, which is written last, says that all files in it are
//! complete; anything else found there is made anew.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use tpchgen::generators as rows;
use tpchgen_arrow as batches;
use tpchgen_arrow::arrow::record_batch::RecordBatchReader;

use super::error::{Error, Result};
use super::progress::Progress;

/// Changes when the files would come out differently, so that older ones are made anew.
const LAYOUT: u32 = 1;

const MARKER: &str = "complete.json";

/// Rows in a row group: enough for each column to compress well, and few enough for the smallest
/// useful scale to give several threads something to read.
const GROUP_ROWS: f64 = 250_000.0;

/// A table: its name, its rows at scale factor 1 (about, for lineitem), and its generator.
pub struct Table {
    pub name: &'static str,
    rows: f64,
    scales: bool,
    part: fn(scale: f64, part: i32, parts: i32) -> Reader,
}

type Reader = Box<dyn RecordBatchReader + Send>;

macro_rules! table {
    ($name:literal, $rows:literal, $scales:literal, $batches:ident, $rows_of:ident) => {
        Table {
            name: $name,
            rows: $rows,
            scales: $scales,
            part: |scale, part, parts| {
                Box::new(batches::$batches::new(rows::$rows_of::new(scale, part, parts)))
            },
        }
    };
}

/// The tables, with the numbers of rows of the specification (TPC-H 3.0.1, clause 4.2.5).
pub const TABLES: [Table; 8] = [
    table!("region", 5.0, false, RegionArrow, RegionGenerator),
    table!("nation", 25.0, false, NationArrow, NationGenerator),
    table!("supplier", 10_000.0, true, SupplierArrow, SupplierGenerator),
    table!("part", 200_000.0, true, PartArrow, PartGenerator),
    table!("customer", 150_000.0, true, CustomerArrow, CustomerGenerator),
    table!("partsupp", 800_000.0, true, PartSuppArrow, PartSuppGenerator),
    table!("orders", 1_500_000.0, true, OrderArrow, OrderGenerator),
    table!("lineitem", 6_000_000.0, true, LineItemArrow, LineItemGenerator),
];

impl Table {
    fn rows(&self, scale: f64) -> f64 {
        if self.scales { self.rows * scale } else { self.rows }
    }

    /// Row groups of its file. Each is generated as a part of its own.
    fn groups(&self, scale: f64) -> i32 {
        (self.rows(scale) / GROUP_ROWS).ceil().max(1.0) as i32
    }

    pub fn file(&self, dir: &Path) -> PathBuf {
        dir.join(self.name).with_extension("parquet")
    }
}

/// What the marker says of complete files.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    layout: u32,
    scale: f64,
    /// Bytes of each table's file.
    bytes: BTreeMap<String, u64>,
}

impl Marker {
    fn of(dir: &Path, scale: f64) -> std::io::Result<Self> {
        let bytes = TABLES.iter().map(|table| {
            fs::metadata(table.file(dir)).map(|file| (table.name.to_owned(), file.len()))
        });
        Ok(Self { layout: LAYOUT, scale, bytes: bytes.collect::<Result<_, _>>()? })
    }
}

/// The folder with all tables at this scale, made now unless it is complete already.
pub fn ensure(parent: &Path, scale: f64) -> Result<PathBuf> {
    let dir = parent.join(format!("sf{scale}"));
    fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    // Two of them at once would write the same files. The lock goes with the process.
    let lock_path = dir.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Busy(dir)),
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path)(error)),
    }
    if !is_complete(&dir, scale) {
        generate(&dir, scale)?;
    }
    Ok(dir)
}

/// Whether the marker is there and tells of the files that are there.
fn is_complete(dir: &Path, scale: f64) -> bool {
    let marker = fs::read(dir.join(MARKER)).ok();
    let marker = marker.and_then(|json| serde_json::from_slice::<Marker>(&json).ok());
    marker.is_some() && marker == Marker::of(dir, scale).ok()
}

fn generate(dir: &Path, scale: f64) -> Result<()> {
    let marker = dir.join(MARKER);
    if let Err(error) = fs::remove_file(&marker)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::io("remove", &marker)(error));
    }
    let progress = Progress::new(TABLES.iter().map(|table| table.rows(scale)).sum::<f64>() as u64);
    for table in &TABLES {
        progress.begin(table.name);
        let rows = write(table, dir, scale, &progress)?;
        progress.done(table.name, rows);
    }
    let complete = Marker::of(dir, scale).map_err(Error::io("read", dir))?;
    let json = serde_json::to_vec(&complete).map_err(|error| Error::Io {
        what: format!("write {}", marker.display()),
        source: error.into(),
    })?;
    fs::write(&marker, json).map_err(Error::io("write", &marker))
}

/// Writes a table's file; returns its number of rows. The file has its name when it is complete.
fn write(table: &Table, dir: &Path, scale: f64, progress: &Progress) -> Result<u64> {
    let path = table.file(dir);
    let unfinished = path.with_extension("unfinished");
    let file = File::create(&unfinished).map_err(Error::io("create", &unfinished))?;
    let failed = |source| Error::Write { path: path.clone(), source: Box::new(source) };
    let rows = write_groups(table, &file, scale, progress).map_err(failed)?;
    file.sync_all().map_err(Error::io("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(Error::io("rename", &unfinished))?;
    Ok(rows)
}

/// A row group, encoded and compressed.
struct Group {
    columns: Vec<ArrowColumnChunk>,
    rows: u64,
}

/// Threads encode row groups in turn: the first thread the first, the second the second, and so on
/// around. Thus they are written in order, and each thread holds two of them at most.
fn write_groups(
    table: &Table,
    file: &File,
    scale: f64,
    progress: &Progress,
) -> Result<u64, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let groups = table.groups(scale);
    let schema = (table.part)(scale, 1, groups).schema();
    let (mut writer, factory) =
        ArrowWriter::try_new(file, schema, Some(properties))?.into_serialized_writer()?;
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(groups as usize);
    let mut rows = 0;
    thread::scope(|scope| {
        let encoded: Vec<Receiver<_>> = (1..=threads as i32)
            .map(|first| {
                let (sender, receiver) = sync_channel(1);
                let factory = &factory;
                let parts = (first..=groups).step_by(threads);
                scope.spawn(move || encode(table, scale, groups, parts, factory, &sender));
                receiver
            })
            .collect();
        for group in (0..groups as usize).map(|index| encoded[index % threads].recv()) {
            let group = group.map_err(|_| ParquetError::General("a thread ended".to_owned()))??;
            let mut group_writer = writer.next_row_group()?;
            for column in group.columns {
                column.append_to_row_group(&mut group_writer)?;
            }
            group_writer.close()?;
            rows += group.rows;
            progress.advance(group.rows);
        }
        Ok::<_, ParquetError>(())
    })?;
    writer.close()?;
    Ok(rows)
}

/// Encodes some parts of a table, until nobody wants them any more.
fn encode(
    table: &Table,
    scale: f64,
    parts: i32,
    own: impl Iterator<Item = i32>,
    factory: &ArrowRowGroupWriterFactory,
    encoded: &SyncSender<Result<Group, ParquetError>>,
) {
    for part in own {
        let group = encode_group((table.part)(scale, part, parts), part, factory);
        if encoded.send(group).is_err() {
            return;
        }
    }
}

fn encode_group(
    reader: Reader,
    part: i32,
    factory: &ArrowRowGroupWriterFactory,
) -> Result<Group, ParquetError> {
    let schema = reader.schema();
    let mut writers = factory.create_column_writers(part as usize - 1)?;
    let mut rows = 0;
    for batch in reader {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let columns = schema.fields().iter().zip(batch.columns());
        // One leaf a column: no TPC-H column is nested.
        for (writer, (field, column)) in writers.iter_mut().zip(columns) {
            for leaf in compute_leaves(field, column)? {
                writer.write(&leaf)?;
            }
        }
    }
    let columns = writers.into_iter().map(|writer| writer.close());
    Ok(Group { columns: columns.collect::<Result<_, _>>()?, rows })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    fn rows(path: &Path) -> i64 {
        let reader = SerializedFileReader::new(File::open(path).expect("open")).expect("Parquet");
        reader.metadata().file_metadata().num_rows()
    }

    fn modified(path: &Path) -> SystemTime {
        fs::metadata(path).and_then(|file| file.modified()).expect("a file")
    }

    #[test]
    fn tables_are_made_once_and_anew_when_incomplete() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let dir = ensure(parent.path(), 0.001).expect("made");
        assert_eq!(dir, parent.path().join("sf0.001"));
        let counts = TABLES.each_ref().map(|table| rows(&table.file(&dir)));
        // Whatever the scale, lineitem's number of rows is random, with a fixed seed.
        assert_eq!(counts, [5, 25, 10, 200, 150, 800, 1500, 6005]);

        let orders = dir.join("orders.parquet");
        let first = modified(&orders);
        ensure(parent.path(), 0.001).expect("there");
        assert_eq!(modified(&orders), first, "complete files are used again");

        fs::write(dir.join("region.parquet"), "cut short").expect("written");
        ensure(parent.path(), 0.001).expect("made anew");
        assert_eq!(rows(&dir.join("region.parquet")), 5);
        assert!(modified(&orders) > first, "an incomplete folder starts over");
    }

    #[test]
    fn one_process_at_a_time() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let dir = parent.path().join("sf0.001");
        fs::create_dir_all(&dir).expect("created");
        let other = File::create(dir.join("lock")).expect("created");
        other.lock().expect("locked");
        assert!(matches!(ensure(parent.path(), 0.001), Err(Error::Busy(_))));
    }

    #[test]
    fn row_groups_grow_in_number_not_in_size() {
        let lineitem = &TABLES[7];
        assert_eq!(lineitem.groups(0.01), 1);
        assert_eq!(lineitem.groups(1.0), 24);
        assert_eq!(TABLES[0].groups(100.0), 1);
    }
}
