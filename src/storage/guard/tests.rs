//! What is checked is what is read: whatever passes does no harm to the reader underneath.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{ArrowWriter, arrow_reader::ArrowReaderMetadata};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::metadata::check_footer;
use super::*;

const ROWS: i64 = 300;

fn rows() -> RecordBatch {
    let numbers = 0..ROWS;
    let texts = numbers.clone().map(|n| (n % 7 > 0).then(|| format!("text {}", n % 13)));
    let lists = numbers.clone().map(|n| (n % 5 > 0).then(|| (0..n % 4).map(Some)));
    let columns: [(&str, ArrayRef); 3] = [
        ("number", Arc::new(Int64Array::from_iter_values(numbers))),
        ("text", Arc::new(texts.collect::<StringArray>())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("rows")
}

fn files() -> Vec<Vec<u8>> {
    let way = |version, compression| {
        WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(compression)
            .set_data_page_row_count_limit(50)
            .set_write_batch_size(50)
            .set_bloom_filter_enabled(true)
            .set_bloom_filter_max_ndv(10)
    };
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let ways = [
        way(WriterVersion::PARQUET_1_0, zstd),
        way(WriterVersion::PARQUET_2_0, Compression::SNAPPY),
        way(WriterVersion::PARQUET_2_0, zstd)
            .set_dictionary_enabled(false)
            .set_column_encoding("text".into(), Encoding::DELTA_BYTE_ARRAY),
        way(WriterVersion::PARQUET_1_0, Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_column_encoding("text".into(), Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ];
    ways.into_iter()
        .map(|way| {
            let (mut bytes, rows) = (Vec::new(), rows());
            let writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(way.build()));
            let mut writer = writer.expect("a writer");
            writer.write(&rows).expect("written");
            writer.close().expect("closed");
            bytes
        })
        .collect()
}

/// An environment whose statements have little memory, and a store with one file.
async fn stored(bytes: Vec<u8>) -> (RuntimeEnv, Arc<dyn ObjectStore>, ObjectMeta) {
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(64 << 20)))
        .build()
        .expect("an environment");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("file.parquet");
    store.put(&path, bytes.into()).await.expect("stored");
    let file = store.head(&path).await.expect("there");
    (environment, store, file)
}

/// The rows of a file, as scans read them.
async fn read(bytes: Vec<u8>) -> parquet::errors::Result<Vec<RecordBatch>> {
    use datafusion::datasource::listing::PartitionedFile;
    use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
    use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
    let (environment, store, file) = stored(bytes).await;
    let factory = CheckedFactory::new(Footers::new(store, &environment));
    let metrics = ExecutionPlanMetricsSet::new();
    let file = PartitionedFile::new_from_meta(file).with_extension(Seen::default());
    let reader = factory.create_reader(0, file, None, &metrics);
    let mut reader: Box<dyn AsyncFileReader> =
        reader.map_err(|error| super::thrift::damaged(error.to_string()))?;
    let metadata = reader.get_metadata(None).await?;
    let metadata = ArrowReaderMetadata::try_new(metadata, Default::default())?;
    ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
        .build()?
        .try_collect()
        .await
}

#[tokio::test]
async fn what_is_sound_is_read() {
    for bytes in files() {
        let read = read(bytes).await.expect("it is sound");
        let whole = arrow::compute::concat_batches(&rows().schema(), &read).expect("one batch");
        assert_eq!(whole.columns(), rows().columns());
    }
}

/// Each byte of a file's metadata with other bits, and numbers at each place that are as large as can be.
#[tokio::test]
async fn what_passes_does_no_harm() {
    let wide =
        [&[0xff, 0xff, 0xff, 0xff, 0x07][..], &[0xf9, 0xff, 0xff, 0xff, 0x7f], &[0xfc], &[0]];
    let (mut passed, mut refused) = (0, 0);
    for bytes in files() {
        let end = bytes.len() - 8;
        let tail: [u8; 4] = bytes[end..end + 4].try_into().expect("four bytes");
        let begin = end - u32::from_le_bytes(tail) as usize;
        for at in begin..end {
            for new in wide.iter().map(|new| new.to_vec()).chain([vec![bytes[at] ^ 1]]) {
                let mut footer = bytes[begin..end].to_vec();
                footer.iter_mut().skip(at - begin).zip(&new).for_each(|(old, new)| *old = *new);
                match check_footer(&footer) {
                    // Whether it makes sense is another question; a panic is caught where it happens.
                    Ok(_) => {
                        passed += 1;
                        let read = || ParquetMetaDataReader::decode_metadata(&footer).map(drop);
                        drop(catch_unwind(AssertUnwindSafe(read)));
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(passed > 100 && refused > 100, "{passed} {refused}");
}

/// The same with all that stands before: pages, filters and indexes.
#[tokio::test]
async fn pages_that_pass_do_no_harm() {
    let wide = [&[0xff, 0xff, 0xff, 0xff, 0x07][..], &[0xff; 9], &[0]];
    for bytes in files() {
        let mut refused = 0;
        for at in (4..bytes.len() - 8).step_by(3) {
            let mut damaged = bytes.clone();
            let new = wide[at % wide.len()];
            damaged.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = *new);
            let read = futures::FutureExt::catch_unwind(AssertUnwindSafe(read(damaged))).await;
            refused += usize::from(!matches!(read, Ok(Ok(_))));
        }
        assert!(refused > 100, "{refused}");
    }
}

#[test]
fn files_are_checked_without_a_store() {
    for bytes in files() {
        check_file(&Bytes::from(bytes.clone())).expect("it is sound");
        check_file(&Bytes::from(bytes[..bytes.len() - 1].to_vec())).expect_err("it is cut off");
    }
    check_file(&Bytes::from_static(b"PAR1")).expect_err("it is too short");
    check_file(&Bytes::from_static(b"PAR1\xff\xff\xff\xffPAR1")).expect_err("it is cut off");
}

#[tokio::test]
async fn a_column_that_is_there_twice_is_refused() {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::config::ParquetOptions;
    let columns = |names: [&str; 2]| {
        let fields = names.map(|name| Field::new(name, DataType::Int64, true));
        Arc::new(Schema::new(fields.to_vec()))
    };
    for (names, twice) in [(["a", "A"], false), (["a", "a"], true)] {
        let mut bytes = Vec::new();
        let writer = ArrowWriter::try_new(&mut bytes, columns(names), None).expect("a writer");
        writer.close().expect("closed");
        let (environment, store, file) = stored(bytes).await;
        let footers = Footers::new(store, &environment);
        let found = schema(&footers, &ParquetOptions::default(), &[file], 1).await;
        let said = found.map(|schema| schema.fields().len()).map_err(|error| error.to_string());
        match twice {
            false => assert_eq!(said, Ok(2)),
            true => assert!(said.is_err_and(|said| said.contains("\"a\" is there twice"))),
        }
    }
}
