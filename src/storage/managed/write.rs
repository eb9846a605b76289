//! Rows become data files.
//!
//! A [`DataWriter`] works on one thread; whoever wants to use more has more of them. Files belong to
//! nobody until [`DataWriter::close`] hands them over: before that, an error or a drop removes them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, PartitionSpecRef, SchemaRef,
    Struct, TableMetadata,
};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use uuid::Uuid;

use super::files::TableFiles;
use super::parquet_schema::parquet_schema;
use super::partitioning::Partitioner;
use super::properties::WriteProperties;
use super::statistics::{Leaves, Nans};
use super::types;
use super::upload::{Parts, Upload};
use crate::faults;
use crate::storage::{Error, Result};

/// Files open at once, one a partition. Rows that come ordered by partition need one only.
const MAX_OPEN: usize = 128;

/// What all writers of a statement share.
#[derive(Clone, Debug)]
pub struct WriteContext {
    pub schema: SchemaRef,
    pub spec: PartitionSpecRef,
    /// Of `schema`, by [`arrow_schema`](super::types::arrow_schema).
    pub arrow_schema: ArrowSchemaRef,
    pub store: Arc<dyn ObjectStore>,
    /// Where data files go, in the store; ends in `data` unless a property says otherwise.
    pub directory: Path,
    /// The same as a URL, for other programs to find it: `s3://bucket/warehouse/table/data`.
    pub url: String,
    pub properties: WriteProperties,
    /// The order that the rows come in, if they do.
    pub sort_order_id: Option<i32>,
}

impl WriteContext {
    /// For rows of a table as its metadata has it.
    pub fn of(files: &TableFiles, metadata: &TableMetadata) -> Result<Self> {
        let location = metadata.location().trim_end_matches('/');
        let url = format!("{location}/data");
        let place = files.place(&url)?;
        let schema = metadata.current_schema().clone();
        Ok(Self {
            arrow_schema: types::arrow_schema(&schema)?,
            schema,
            spec: metadata.default_partition_spec().clone(),
            store: place.store,
            directory: place.path,
            url,
            properties: WriteProperties::parse(metadata.properties())?,
            sort_order_id: None,
        })
    }
}

/// Writes rows to the data files of a table.
#[derive(Debug)]
pub struct DataWriter {
    context: WriteContext,
    options: ArrowWriterOptions,
    leaves: Leaves,
    partitioner: Option<Partitioner>,
    reservation: MemoryReservation,
    /// Tells this writer's files from all others.
    id: Uuid,
    /// Files begun so far.
    files: u32,
    /// Batches of partitions written so far: the time by which open files are compared.
    turn: u64,
    open: HashMap<Struct, OpenFile>,
    /// Bytes of memory of all open files.
    held: usize,
    closed: Vec<(Upload, DataFile)>,
    /// Whether a call failed or was given up halfway, so that rows are missing.
    broken: bool,
}

#[derive(Debug)]
struct OpenFile {
    url: String,
    arrow: ArrowWriter<Parts>,
    upload: Upload,
    rows: u64,
    nans: Nans,
    /// When it was written last.
    turn: u64,
    /// Bytes of memory at that time.
    held: usize,
}

impl DataWriter {
    pub fn new(context: WriteContext, reservation: MemoryReservation) -> Result<Self> {
        let WriteContext { schema, arrow_schema, properties, .. } = &context;
        let parquet = parquet_schema(schema, arrow_schema)?;
        let partitioner = Partitioner::new(&context.spec, schema, arrow_schema)?;
        let leaves = Leaves::new(schema, &parquet, &properties.metrics(schema));
        // The table's schema is in its metadata; a copy in each file would only be read and parsed.
        let options = ArrowWriterOptions::new()
            .with_properties(properties.writer(schema, &parquet))
            .with_skip_arrow_metadata(true)
            .with_parquet_schema(parquet);
        Ok(Self {
            context,
            options,
            leaves,
            partitioner,
            reservation,
            id: Uuid::now_v7(),
            files: 0,
            turn: 0,
            open: HashMap::new(),
            held: 0,
            closed: Vec::new(),
            broken: false,
        })
    }

    /// Writes rows that have the columns of the table, in their order. Texts and bytes may come as
    /// views or dictionaries. After an error all that was written is gone.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check(batch)?;
        // Stays true if the caller gives up while it waits.
        self.broken = true;
        let written = self.write_parts(batch).await;
        match &written {
            Ok(()) => self.broken = false,
            Err(_) => self.discard().await,
        }
        written
    }

    /// Completes all files. They are the caller's from now on.
    pub async fn close(mut self) -> Result<Vec<DataFile>> {
        self.unbroken()?;
        if let Err(error) = self.close_all().await {
            self.discard().await;
            return Err(error);
        }
        faults::point("data files are complete");
        let mut files = Vec::new();
        for (upload, file) in self.closed.drain(..) {
            upload.keep();
            files.push(file);
        }
        Ok(files)
    }

    /// Removes all that was written. Dropping the writer does so, too, but nobody can wait for it.
    pub async fn abort(mut self) {
        self.discard().await;
    }

    async fn discard(&mut self) {
        self.broken = true;
        for (mut upload, _) in self.closed.drain(..) {
            upload.discard().await;
        }
        for (_, mut file) in self.open.drain() {
            file.upload.discard().await;
        }
        self.held = 0;
        self.reservation.free();
    }

    fn unbroken(&self) -> Result<()> {
        match self.broken {
            false => Ok(()),
            true => Err(Error::not_written(&self.context.url, "an earlier write failed")),
        }
    }

    fn check(&self, batch: &RecordBatch) -> Result<()> {
        self.unbroken()?;
        check_rows(&self.context.arrow_schema, batch)
    }

    async fn write_parts(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match &self.partitioner {
            None => self.write_part(Struct::empty(), batch).await,
            Some(partitioner) => {
                for part in partitioner.split(batch)? {
                    self.write_part(part.values, &part.rows).await?;
                }
                Ok(())
            }
        }
    }

    async fn write_part(&mut self, partition: Struct, rows: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(&partition) {
            if self.open.len() >= MAX_OPEN {
                self.close_oldest().await?;
            }
            let file = self.begin(&partition)?;
            self.open.insert(partition.clone(), file);
        }
        self.turn += 1;
        let Some(file) = self.open.get_mut(&partition) else { return Ok(()) };
        file.turn = self.turn;
        file.write(rows, &self.leaves).await?;
        file.measure(&mut self.held);
        if file.size() >= self.context.properties.target_file_size {
            self.close_file(&partition).await?;
        }
        self.make_room().await
    }

    fn begin(&mut self, partition: &Struct) -> Result<OpenFile> {
        let context = &self.context;
        let mut name = format!("{}-{:05}.parquet", self.id, self.files);
        self.files += 1;
        if let Some(partitioner) = &self.partitioner {
            name = format!("{}/{name}", partitioner.directory(partition));
        }
        let url = format!("{}/{name}", context.url.trim_end_matches('/'));
        let path = Path::parse(format!("{}/{name}", context.directory))
            .map_err(|error| Error::not_written(&url, error))?;
        let parts = Parts::new(context.properties.target_file_size);
        let (schema, options) = (context.arrow_schema.clone(), self.options.clone());
        let arrow = ArrowWriter::try_new_with_options(parts, schema, options)
            .map_err(|error| Error::not_written(&url, error))?;
        let upload = Upload::new(context.store.clone(), path);
        Ok(OpenFile { url, arrow, upload, rows: 0, nans: self.leaves.no_nans(), turn: 0, held: 0 })
    }

    async fn close_oldest(&mut self) -> Result<()> {
        let oldest = self.open.iter().min_by_key(|(_, file)| file.turn);
        match oldest.map(|(partition, _)| partition.clone()) {
            Some(partition) => self.close_file(&partition).await,
            None => Ok(()),
        }
    }

    async fn close_file(&mut self, partition: &Struct) -> Result<()> {
        // It stays where it is while it is waited for, so that it is removed when the wait ends.
        let Some(file) = self.open.get_mut(partition) else { return Ok(()) };
        let footer = file.finish().await?;
        self.hand_over(partition, &footer)
    }

    fn hand_over(&mut self, partition: &Struct, footer: &ParquetMetaData) -> Result<()> {
        let Some(file) = self.open.remove(partition) else { return Ok(()) };
        self.held = self.held.saturating_sub(file.held);
        let described = self.describe(&file, partition.clone(), footer)?;
        self.closed.push((file.upload, described));
        Ok(())
    }

    async fn close_all(&mut self) -> Result<()> {
        let mut finished = Vec::new();
        let finish = async |partition: &Struct, file: &mut OpenFile| {
            file.finish().await.map(|footer| (partition.clone(), footer))
        };
        let mut finishing: FuturesUnordered<_> =
            self.open.iter_mut().map(|(partition, file)| finish(partition, file)).collect();
        while let Some(next) = finishing.next().await {
            finished.push(next?);
        }
        drop(finishing);
        for (partition, footer) in finished {
            self.hand_over(&partition, &footer)?;
        }
        self.reservation.free();
        Ok(())
    }

    fn describe(
        &self,
        file: &OpenFile,
        partition: Struct,
        footer: &ParquetMetaData,
    ) -> Result<DataFile> {
        let start = |group: &parquet::file::metadata::RowGroupMetaData| {
            let first = group.columns().first()?;
            i64::try_from(first.byte_range().0).ok()
        };
        let mut described = DataFileBuilder::default();
        described
            .content(DataContentType::Data)
            .file_path(file.url.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(partition)
            .partition_spec_id(self.context.spec.spec_id())
            .record_count(file.rows)
            .file_size_in_bytes(file.written())
            .split_offsets(footer.row_groups().iter().map(start).collect());
        if let Some(order) = self.context.sort_order_id {
            described.sort_order_id(order);
        }
        self.leaves.describe(footer, &file.nans, &mut described);
        described.build().map_err(|error| Error::not_written(&file.url, error))
    }

    /// Reserves what the open files hold. If that is too much, the greatest of them end their row
    /// groups, then themselves, before the statement fails.
    async fn make_room(&mut self) -> Result<()> {
        loop {
            let Err(error) = self.reservation.try_resize(self.held) else { return Ok(()) };
            let greatest = self.open.iter().max_by_key(|(_, file)| file.held);
            let Some((partition, _)) = greatest else { return Err(Error::NoMemory(error)) };
            let partition = partition.clone();
            match self.open.get_mut(&partition) {
                Some(file) if file.arrow.in_progress_rows() > 0 => {
                    file.end_row_group().await?;
                    file.measure(&mut self.held);
                }
                _ => self.close_file(&partition).await?,
            }
        }
    }
}

impl OpenFile {
    async fn write(&mut self, rows: &RecordBatch, leaves: &Leaves) -> Result<()> {
        self.arrow.write(rows).map_err(|error| self.failed(error))?;
        leaves.count_nans(rows, &mut self.nans)?;
        self.rows += rows.num_rows() as u64;
        self.send().await
    }

    async fn end_row_group(&mut self) -> Result<()> {
        self.arrow.flush().map_err(|error| self.failed(error))?;
        self.send().await?;
        let arrived = self.upload.arrived(0).await;
        arrived.map_err(|error| Error::not_written(&self.url, error))
    }

    /// Sends the parts that are full.
    async fn send(&mut self) -> Result<()> {
        for part in self.arrow.inner_mut().take_full() {
            let sent = self.upload.put(part).await;
            sent.map_err(|error| Error::not_written(&self.url, error))?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<ParquetMetaData> {
        let footer = self.arrow.finish().map_err(|error| self.failed(error))?;
        self.send().await?;
        let rest = self.arrow.inner_mut().take_rest();
        let finished = self.upload.finish(rest).await;
        finished.map_err(|error| Error::not_written(&self.url, error))?;
        Ok(footer)
    }

    /// About what the file will have when it is closed now.
    fn size(&self) -> u64 {
        (self.arrow.bytes_written() + self.arrow.in_progress_size()) as u64
    }

    fn written(&self) -> u64 {
        self.arrow.inner().written()
    }

    /// Looks how much memory the file has now, and brings the sum of all up to date.
    fn measure(&mut self, all: &mut usize) {
        let parts = self.arrow.inner().held() + self.upload.under_way();
        let before = std::mem::replace(&mut self.held, self.arrow.memory_size() + parts);
        *all = (*all + self.held).saturating_sub(before);
    }

    fn failed(&self, error: ParquetError) -> Error {
        Error::not_written(&self.url, error)
    }
}

/// Refuses rows that are none of a table's: of another number of columns, or with a NULL where the
/// table has none.
pub(super) fn check_rows(schema: &ArrowSchemaRef, batch: &RecordBatch) -> Result<()> {
    let fields = schema.fields();
    if batch.num_columns() != fields.len() {
        let (got, wanted) = (batch.num_columns(), fields.len());
        let reason = format!("rows have {got} columns instead of {wanted}");
        return Err(Error::BadSchema(reason));
    }
    // The Parquet writer would take whatever lies below a NULL for its value.
    let is_null = |column: &dyn arrow::array::Array| column.logical_null_count() > 0;
    match fields.iter().zip(batch.columns()).find(|(f, c)| !f.is_nullable() && is_null(c)) {
        Some((field, _)) => Err(Error::NullValue { column: field.name().clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
