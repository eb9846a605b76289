use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::Int32Type;
use chrono::{TimeDelta, Utc};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

use super::{PageCache, PagedFactory};

const ROWS: i64 = 20_000;

/// Columns of many kinds: with a dictionary and without, with nulls, nested.
fn rows() -> RecordBatch {
    let numbers = 0..ROWS;
    let columns: [(&str, ArrayRef); 7] = [
        ("id", Arc::new(Int64Array::from_iter_values(numbers.clone()))),
        (
            "few",
            Arc::new(StringArray::from_iter(
                numbers.clone().map(|n| (n % 7 > 0).then(|| format!("text {}", n % 7))),
            )),
        ),
        (
            "many",
            Arc::new(StringArray::from_iter_values(
                numbers.clone().map(|n| format!("{:x}", n.wrapping_mul(0x1e37_79b9_7f4a_7c15))),
            )),
        ),
        (
            "part",
            Arc::new(Float64Array::from_iter(
                numbers.clone().map(|n| (n % 3 > 0).then_some(n as f64 / 7.0)),
            )),
        ),
        (
            "exact",
            Arc::new(
                Decimal128Array::from_iter_values(numbers.clone().map(|n| i128::from(n % 100)))
                    .with_precision_and_scale(15, 2)
                    .expect("a decimal"),
            ),
        ),
        (
            "flag",
            Arc::new(BooleanArray::from_iter(
                numbers.clone().map(|n| (n % 11 > 0).then_some(n % 2 == 0)),
            )),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                numbers
                    .map(|n| (n % 5 > 0).then(|| (0..n % 4).map(|n| (n > 0).then_some(n as i32)))),
            )),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("rows")
}

/// How a file is written.
fn ways() -> Vec<WriterProperties> {
    let way = || {
        WriterProperties::builder()
            .set_max_row_group_row_count(Some(6000))
            .set_data_page_row_count_limit(1000)
    };
    let zstd = Compression::ZSTD(ZstdLevel::default());
    vec![
        way().set_compression(zstd).build(),
        way()
            .set_compression(Compression::SNAPPY)
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .build(),
        way()
            .set_compression(zstd)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build(),
        way().set_compression(Compression::UNCOMPRESSED).build(),
    ]
}

struct Case {
    factory: PagedFactory,
    file: PartitionedFile,
}

impl Case {
    async fn new(way: WriterProperties, cache: Arc<PageCache>) -> Self {
        let mut bytes = Vec::new();
        let batch = rows();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(way)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = object_store::path::Path::from("file.parquet");
        store.put(&path, bytes.into()).await.expect("stored");
        let mut object = store.head(&path).await.expect("there");
        object.last_modified = Utc::now() - TimeDelta::hours(1);
        let files = Arc::new(DefaultParquetFileReaderFactory::new(store.clone()));
        let factory = PagedFactory { cache, files, store, url: "memory://".into() };
        Self { factory, file: PartitionedFile::new_from_meta(object) }
    }

    /// Reads some columns and rows, as the engine does.
    async fn read(
        &self,
        columns: &[usize],
        selection: Option<RowSelection>,
        index: bool,
    ) -> RecordBatch {
        let metrics = ExecutionPlanMetricsSet::new();
        let file = self.factory.cache.opening(&self.factory.url, self.file.clone());
        let reader = || -> Box<dyn AsyncFileReader> {
            let reader = self.factory.create_reader(0, file.clone(), None, &metrics);
            reader.expect("a reader")
        };
        let policy = if index { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
        let options = ArrowReaderOptions::new().with_page_index_policy(policy);
        let metadata = reader().get_metadata(Some(&options)).await.expect("metadata");
        let metadata = ArrowReaderMetadata::try_new(metadata, options).expect("metadata");
        // Another reader than the one that has shown what there is.
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader(), metadata);
        let mask = parquet::arrow::ProjectionMask::roots(
            builder.parquet_schema(),
            columns.iter().copied(),
        );
        let builder = builder.with_projection(mask);
        let builder = match selection {
            Some(selection) => builder.with_row_selection(selection),
            None => builder,
        };
        let stream = builder.build().expect("a stream");
        let schema = stream.schema().clone();
        let batches: Vec<_> = stream.try_collect().await.expect("rows");
        concat_batches(&schema, &batches).expect("one batch")
    }

    fn hits(&self) -> u64 {
        self.factory.cache.figures().1
    }

    /// Waits until nothing is made ready any more.
    async fn settled(&self) {
        while self.factory.cache.pending.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Every third thousand and a few rows within pages.
fn selection() -> RowSelection {
    let mut selectors = Vec::new();
    let mut left = ROWS as usize;
    for (place, rows) in [3, 2000, 1000, 1990, 10, 500].into_iter().cycle().enumerate() {
        let rows = rows.min(left);
        left -= rows;
        selectors.push(match place % 2 {
            0 => RowSelector::select(rows),
            _ => RowSelector::skip(rows),
        });
        if left == 0 {
            break;
        }
    }
    selectors.into()
}

#[tokio::test]
async fn rows_are_the_same_from_memory() {
    let all = rows();
    for way in ways() {
        let case = Case::new(way, PageCache::new(64 << 20, u64::MAX)).await;
        let columns: Vec<_> = (0..all.num_columns()).collect();
        for round in 0..6 {
            let before = case.hits();
            // Some columns earlier than others, so that kept and other chunks are mixed.
            let columns = if round < 3 { &columns[2..4] } else { &columns };
            for index in [false, true] {
                let expected = all.project(columns).expect("columns");
                assert_eq!(case.read(columns, None, index).await, expected, "{round}");
                let few = case.read(columns, Some(selection()), index).await;
                assert_eq!(few, case.read(columns, Some(selection()), !index).await, "{round}");
                assert!(few.num_rows() > 0 && few.num_rows() < all.num_rows());
                let ids = selected(&expected);
                assert_eq!(few, ids, "{round}");
            }
            case.settled().await;
            if round == 2 || round == 5 {
                assert!(case.hits() > before, "{round}");
            }
        }
        let ([chunks, bytes, most], _) = case.factory.cache.figures();
        let _ = (chunks, bytes);
        assert_eq!(most, 64 << 20);
    }
}

/// What [`selection`] leaves of all rows.
fn selected(all: &RecordBatch) -> RecordBatch {
    let mut row = 0;
    let mut parts = Vec::new();
    let selectors: Vec<RowSelector> = selection().into();
    for selector in selectors {
        if !selector.skip {
            parts.push(all.slice(row, selector.row_count));
        }
        row += selector.row_count;
    }
    concat_batches(&all.schema(), &parts).expect("one batch")
}

#[tokio::test]
async fn parts_by_bytes_are_parts_by_row_groups() {
    let case = Case::new(ways().remove(0), PageCache::new(64 << 20, u64::MAX)).await;
    let cache = &case.factory.cache;
    let url = &case.factory.url;
    let size = case.file.object_meta.size as i64;
    let part = |start, end| cache.opening(url, case.file.clone().with_range(start, end));
    assert!(part(0, size).range.is_some(), "nothing is known of the file");
    case.read(&[0], None, false).await;
    for middle in (0..size).step_by(997) {
        let parts = [part(0, middle), part(middle, size)];
        let mut groups: Vec<_> = parts
            .iter()
            .flat_map(|part| {
                assert!(part.range.is_none());
                let plan = part
                    .extension::<datafusion::datasource::physical_plan::parquet::ParquetAccessPlan>(
                    );
                plan.expect("a plan").row_group_indexes()
            })
            .collect();
        groups.sort_unstable();
        assert_eq!(groups, [0, 1, 2, 3], "{middle}");
    }
}

#[tokio::test]
async fn no_more_is_kept_than_may_be() {
    let case = Case::new(ways().remove(0), PageCache::new(640_000, u64::MAX)).await;
    let all = rows();
    for _ in 0..20 {
        assert_eq!(
            case.read(&[0, 1, 2, 3, 4], None, true).await,
            all.project(&[0, 1, 2, 3, 4]).expect("columns")
        );
        case.settled().await;
        case.factory.cache.chunks.run_pending_tasks();
        let ([_, bytes, most], _) = case.factory.cache.figures();
        assert!(bytes <= most, "{bytes} of {most}");
    }
    let ([chunks, ..], hits) = case.factory.cache.figures();
    assert!(chunks > 0 && hits > 0, "what fits is kept");
}

#[tokio::test]
async fn statements_take_the_memory_of_chunks() {
    const LIMIT: usize = 8 << 20;
    let case = Case::new(ways().remove(0), PageCache::new(64 << 20, LIMIT as u64)).await;
    let cache = &case.factory.cache;
    let kept = || cache.memory.kept.load(Ordering::Relaxed);
    let fill = async || {
        for _ in 0..6 {
            case.read(&[0, 1, 2, 3, 4], None, true).await;
            case.settled().await;
        }
    };
    fill().await;
    let before = kept();
    assert!(before > 0 && before <= LIMIT as u64);
    let left = (before / 2) as usize;
    cache.take(LIMIT - left);
    assert!(kept() <= left as u64, "{} of {left}", kept());
    // Also what is beyond the limit, as memory that nobody may refuse.
    cache.take(LIMIT);
    assert_eq!(kept(), 0);
    fill().await;
    assert_eq!(kept(), 0, "there is no room");
    cache.give_back(LIMIT);
    cache.give_back(LIMIT - left);
    fill().await;
    assert!(kept() > left as u64, "{} is as before", kept());
    cache.chunks.run_pending_tasks();
    assert_eq!(cache.figures().0[1], kept(), "what is counted is what there is");
}

#[tokio::test]
async fn other_contents_are_another_file() {
    let cache = PageCache::new(64 << 20, u64::MAX);
    let mut case = Case::new(ways().remove(0), cache).await;
    for _ in 0..4 {
        case.read(&[1], None, true).await;
        case.settled().await;
    }
    let hits = case.hits();
    assert!(hits > 0);
    case.file.object_meta.last_modified = Utc::now() - TimeDelta::minutes(1);
    case.read(&[1], None, true).await;
    assert_eq!(case.hits(), hits, "written again");
    case.file.object_meta.last_modified = Utc::now();
    for _ in 0..4 {
        case.read(&[1], None, true).await;
        case.settled().await;
    }
    assert_eq!(case.hits(), hits, "it may be written again at any moment");
}
