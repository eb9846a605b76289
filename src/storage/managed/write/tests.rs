use std::time::Duration;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::*;
use bytes::Bytes;
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool,
};
use futures::TryStreamExt;
use iceberg::spec::{Datum, Literal, PartitionSpec, Schema as IcebergSchema, Transform};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;

use super::super::types::{arrow_schema, iceberg_schema};
use super::*;
use crate::values::types::extended;

fn context(
    store: Arc<dyn ObjectStore>,
    fields: Vec<Field>,
    partitions: &[(&str, Transform)],
    properties: &[(&str, &str)],
) -> WriteContext {
    let schema: Arc<IcebergSchema> = iceberg_schema(&fields.into()).unwrap().into();
    let mut spec = PartitionSpec::builder(schema.clone());
    for (column, transform) in partitions {
        spec = spec.add_partition_field(*column, format!("{column}_p"), *transform).unwrap();
    }
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    WriteContext {
        arrow_schema: arrow_schema(&schema).unwrap(),
        schema,
        spec: spec.build().unwrap().into(),
        store,
        directory: Path::from("t/data"),
        url: "mem://bucket/t/data".to_owned(),
        properties: WriteProperties::parse(&properties.iter().map(owned).collect()).unwrap(),
        sort_order_id: Some(1),
    }
}

fn reservation(pool: impl MemoryPool + 'static) -> MemoryReservation {
    let pool: Arc<dyn MemoryPool> = Arc::new(pool);
    MemoryConsumer::new("writer").register(&pool)
}

fn writer(context: &WriteContext) -> DataWriter {
    DataWriter::new(context.clone(), reservation(UnboundedMemoryPool::default())).unwrap()
}

fn batch(context: &WriteContext, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(context.arrow_schema.clone(), columns).unwrap()
}

async fn write(context: &WriteContext, batches: &[RecordBatch]) -> Vec<DataFile> {
    let mut writer = writer(context);
    for batch in batches {
        writer.write(batch).await.unwrap();
    }
    writer.close().await.unwrap()
}

async fn bytes(context: &WriteContext, file: &DataFile) -> Bytes {
    let path = file.file_path().strip_prefix("mem://bucket/").unwrap();
    let object = context.store.get(&Path::parse(path).unwrap()).await.unwrap();
    object.bytes().await.unwrap()
}

async fn read(context: &WriteContext, file: &DataFile) -> RecordBatch {
    let bytes = bytes(context, file).await;
    assert_eq!(bytes.len() as u64, file.file_size_in_bytes());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let schema = reader.schema();
    let batches: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

async fn objects(store: &Arc<dyn ObjectStore>) -> usize {
    store.list(None).try_collect::<Vec<_>>().await.unwrap().len()
}

fn numbers(count: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(0..count))
}

/// Values that do not compress.
fn noise(count: usize) -> ArrayRef {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as i64
    });
    Arc::new(Int64Array::from_iter_values(random.take(count)))
}

fn every_type() -> Vec<Field> {
    let micros = TimeUnit::Microsecond;
    let uuid = Field::new("uuid", DataType::FixedSizeBinary(16), true);
    let element = Arc::new(Field::new("element", DataType::Int32, true));
    let inside = vec![Field::new("x", DataType::Float64, true)];
    vec![
        Field::new("bool", DataType::Boolean, true),
        Field::new("int", DataType::Int32, true),
        Field::new("long", DataType::Int64, false),
        Field::new("float", DataType::Float32, true),
        Field::new("dec9", DataType::Decimal128(9, 2), true),
        Field::new("dec18", DataType::Decimal128(18, 2), true),
        Field::new("dec38", DataType::Decimal128(38, 2), true),
        Field::new("date", DataType::Date32, true),
        Field::new("time", DataType::Time64(micros), true),
        Field::new("ts", DataType::Timestamp(micros, None), true),
        Field::new("tz", DataType::Timestamp(micros, Some("UTC".into())), true),
        Field::new("text", DataType::Utf8, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("fixed", DataType::FixedSizeBinary(3), true),
        extended(uuid, "arrow.uuid"),
        Field::new("list", DataType::List(element), true),
        Field::new("struct", DataType::Struct(inside.into()), true),
    ]
}

fn every_value(context: &WriteContext) -> RecordBatch {
    let decimals = |precision| {
        let values = Decimal128Array::from(vec![Some(-150), None, Some(1_000)]);
        Arc::new(values.with_precision_and_scale(precision, 2).unwrap()) as ArrayRef
    };
    let long = "a".repeat(20);
    let fixed = |values: Vec<Option<Vec<u8>>>, size| {
        let values = values.into_iter();
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, size).unwrap())
    };
    let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    let DataType::List(element) = context.arrow_schema.field(15).data_type() else { panic!() };
    let (_, offsets, values, nulls) = lists.into_parts();
    let lists = ListArray::new(element.clone(), offsets, values, nulls);
    let DataType::Struct(fields) = context.arrow_schema.field(16).data_type() else { panic!() };
    let inside: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::NAN, -0.5]));
    let nulls = Some(vec![true, false, true].into());
    let objects = StructArray::new(fields.clone(), vec![inside], nulls);
    let moments = || TimestampMicrosecondArray::from(vec![Some(-1), None, Some(7)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int32Array::from(vec![Some(-5), None, Some(4)])),
        Arc::new(Int64Array::from(vec![3, 1, 2])),
        Arc::new(Float32Array::from(vec![Some(f32::NAN), None, Some(1.5)])),
        decimals(9),
        decimals(18),
        decimals(38),
        Arc::new(Date32Array::from(vec![Some(-1), None, Some(7)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(7)])),
        Arc::new(moments()),
        Arc::new(moments().with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some(long.as_str()), None, Some("b")])),
        Arc::new(BinaryArray::from(vec![Some(&[0xff; 20][..]), None, Some(&[1])])),
        fixed(vec![Some(vec![1, 2, 3]), None, Some(vec![0, 9, 9])], 3),
        fixed(vec![Some(vec![7; 16]), None, Some(vec![9; 16])], 16),
        Arc::new(lists),
        Arc::new(objects),
    ];
    batch(context, columns)
}

#[tokio::test]
async fn files_come_back_as_they_were_and_are_described() {
    let context = context(Arc::new(InMemory::new()), every_type(), &[], &[]);
    let rows = every_value(&context);
    let files = write(&context, &[rows.slice(0, 1), rows.slice(1, 2)]).await;
    let [file] = &files[..] else { panic!("{files:?}") };
    let back = read(&context, file).await;
    for (wrote, read) in rows.columns().iter().zip(back.columns()) {
        assert_eq!(wrote.to_data(), read.to_data());
    }
    let id = |name: &str| context.schema.field_id_by_name(name).unwrap();
    assert_eq!(file.record_count(), 3);
    assert_eq!((file.sort_order_id(), file.split_offsets()), (Some(1), Some(&[4][..])));
    assert_eq!(file.column_sizes().len(), 17);
    assert!(file.column_sizes().values().sum::<u64>() < file.file_size_in_bytes());
    assert_eq!(file.value_counts()[&id("int")], 3);
    assert_eq!(file.null_value_counts()[&id("int")], 1);
    assert_eq!(file.null_value_counts()[&id("long")], 0);
    assert_eq!(file.null_value_counts()[&id("struct.x")], 1);
    assert!(!file.value_counts().contains_key(&id("list.element")));
    // A NaN below a NULL is none.
    let nans = HashMap::from([(id("float"), 1), (id("struct.x"), 1)]);
    assert_eq!(file.nan_value_counts(), &nans);
    let decimal = |value: i128, precision| {
        let kind = iceberg::spec::PrimitiveType::Decimal { precision, scale: 2 };
        Datum::try_from_bytes(&value.to_be_bytes(), kind).unwrap()
    };
    let uuid = |byte| Datum::uuid(Uuid::from_bytes([byte; 16]));
    let expected = [
        ("bool", Datum::bool(false), Some(Datum::bool(true))),
        ("int", Datum::int(-5), Some(Datum::int(4))),
        ("long", Datum::long(1), Some(Datum::long(3))),
        ("float", Datum::float(1.5), Some(Datum::float(1.5))),
        ("dec9", decimal(-150, 9), Some(decimal(1_000, 9))),
        ("dec18", decimal(-150, 18), Some(decimal(1_000, 18))),
        ("dec38", decimal(-150, 38), Some(decimal(1_000, 38))),
        ("date", Datum::date(-1), Some(Datum::date(7))),
        ("time", Datum::time_micros(1).unwrap(), Some(Datum::time_micros(7).unwrap())),
        ("ts", Datum::timestamp_micros(-1), Some(Datum::timestamp_micros(7))),
        ("tz", Datum::timestamptz_micros(-1), Some(Datum::timestamptz_micros(7))),
        ("text", Datum::string("a".repeat(16)), Some(Datum::string("b"))),
        // Nothing of sixteen bytes is greater.
        ("bytes", Datum::binary([1]), None),
        ("fixed", Datum::fixed([0, 9, 9]), Some(Datum::fixed([1, 2, 3]))),
        ("uuid", uuid(7), Some(uuid(9))),
        ("struct.x", Datum::double(-0.5), Some(Datum::double(-0.5))),
    ];
    assert_eq!(file.lower_bounds().len(), expected.len());
    for (name, lower, upper) in expected {
        assert_eq!(file.lower_bounds().get(&id(name)), Some(&lower), "{name}");
        assert_eq!(file.upper_bounds().get(&id(name)), upper.as_ref(), "{name}");
    }
}

#[tokio::test]
async fn files_have_field_ids_and_page_indexes() {
    let context = context(Arc::new(InMemory::new()), every_type(), &[], &[]);
    let file = write(&context, &[every_value(&context)]).await.remove(0);
    let options = parquet::arrow::arrow_reader::ArrowReaderOptions::new()
        .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required);
    let bytes = bytes(&context, &file).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).unwrap();
    assert!(
        reader.metadata().column_index().is_some() && reader.metadata().offset_index().is_some()
    );
    let parquet = reader.parquet_schema();
    for column in parquet.columns() {
        let parts = column.path().parts().join(".").replace(".list.", ".");
        let id = column.self_type().get_basic_info().id();
        assert_eq!(Some(id), context.schema.field_id_by_name(&parts), "{parts}");
    }
    assert_eq!(parquet.column(14).logical_type_ref(), Some(&LogicalType::Uuid));
    assert!(file.file_path().starts_with("mem://bucket/t/data/"), "{}", file.file_path());
}

#[tokio::test]
async fn metrics_say_what_is_described() {
    let fields = vec![
        Field::new("a", DataType::Utf8, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::Utf8, true),
        Field::new("d", DataType::Utf8, true),
    ];
    let properties = [
        ("write.metadata.metrics.default", "full"),
        ("write.metadata.metrics.column.a", "none"),
        ("write.metadata.metrics.column.b", "counts"),
        ("write.metadata.metrics.column.c", "truncate(2)"),
    ];
    let context = context(Arc::new(InMemory::new()), fields, &[], &properties);
    let long = "x".repeat(100);
    let text: ArrayRef = Arc::new(StringArray::from(vec![long.as_str()]));
    let file = write(&context, &[batch(&context, vec![text; 4])]).await.remove(0);
    let mut counted: Vec<_> = file.value_counts().keys().copied().collect();
    counted.sort_unstable();
    assert_eq!(counted, [2, 3, 4]);
    let lower = HashMap::from([(3, Datum::string("xx")), (4, Datum::string(&long))]);
    let upper = HashMap::from([(3, Datum::string("xy")), (4, Datum::string(&long))]);
    assert_eq!((file.lower_bounds(), file.upper_bounds()), (&lower, &upper));
}

#[tokio::test]
async fn partitions_have_their_own_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let fields =
        vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
    let partitions = [("k", Transform::Identity), ("n", Transform::Truncate(10))];
    let context = context(store, fields, &partitions, &[]);
    let keys = StringArray::from(vec![Some("a b"), None, Some("a b"), Some("a b"), None]);
    let keys: ArrayRef = Arc::new(keys);
    let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 14, 5]));
    let mixed = batch(&context, vec![keys, values]);
    let mut files = write(&context, &[mixed.clone(), mixed]).await;
    files.sort_by_key(|file| file.file_path().to_owned());
    let mut found = Vec::new();
    for file in &files {
        let below = file.file_path().strip_prefix("mem://bucket/t/data/").unwrap();
        let (folder, _) = below.rsplit_once('/').unwrap();
        assert!(directory.path().join("t/data").join(below).exists(), "{below}");
        let rows = read(&context, file).await;
        let values = rows.column(1).as_primitive::<Int64Type>().values().to_vec();
        found.push((folder.to_owned(), file.partition().clone(), values));
    }
    let key = |text: Option<&str>, n| {
        [text.map(Literal::string), Some(Literal::long(n))].into_iter().collect::<Struct>()
    };
    let expected = [
        ("k_p=a%20b/n_p=0".to_owned(), key(Some("a b"), 0), vec![1, 3, 1, 3]),
        ("k_p=a%20b/n_p=10".to_owned(), key(Some("a b"), 10), vec![14, 14]),
        ("k_p=null/n_p=0".to_owned(), key(None, 0), vec![2, 5, 2, 5]),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn more_partitions_than_open_files() {
    let fields = vec![Field::new("n", DataType::Int64, true)];
    let partitions = [("n", Transform::Identity)];
    let context = context(Arc::new(InMemory::new()), fields, &partitions, &[]);
    let rows = batch(&context, vec![numbers(MAX_OPEN as i64 + 10)]);
    let files = write(&context, &[rows]).await;
    assert_eq!(files.len(), MAX_OPEN + 10);
}

#[tokio::test]
async fn large_files_are_sent_in_parts_and_followed_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
    for store in stores {
        let fields = vec![Field::new("n", DataType::Int64, false)];
        let properties = [
            ("write.target-file-size-bytes", "20000000"),
            ("write.parquet.row-group-size-bytes", "5000000"),
            ("write.parquet.compression-codec", "uncompressed"),
        ];
        let context = context(store, fields, &[], &properties);
        let rows = batch(&context, vec![noise(5_000_000)]);
        let mut writer = writer(&context);
        for start in (0..rows.num_rows()).step_by(100_000) {
            writer.write(&rows.slice(start, 100_000)).await.unwrap();
        }
        let files = writer.close().await.unwrap();
        assert!(files.len() > 1, "{}", files.len());
        assert!(files[0].split_offsets().unwrap().len() > 1);
        let mut back = Vec::new();
        for file in &files {
            back.push(read(&context, file).await);
        }
        let back = concat_batches(&back[0].schema(), &back).unwrap();
        assert!(back.column(0).to_data() == rows.column(0).to_data());
    }
}

/// Waits until what runs in the background has emptied the store.
async fn emptied(store: &Arc<dyn ObjectStore>) {
    let empty = async {
        while objects(store).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), empty).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_writer_that_is_not_closed() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(local);
    let fields = vec![Field::new("n", DataType::Int64, false)];
    let properties = [
        ("write.target-file-size-bytes", "12000000"),
        ("write.parquet.compression-codec", "uncompressed"),
        ("write.parquet.row-group-size-bytes", "2000000"),
    ];
    let context = context(store.clone(), fields, &[], &properties);
    let rows = batch(&context, vec![noise(2_000_000)]);
    let begun = async || {
        let mut writer = writer(&context);
        for start in (0..rows.num_rows()).step_by(100_000).cycle().take(200) {
            writer.write(&rows.slice(start, 100_000)).await.unwrap();
            // One is complete, and the next has begun to be sent.
            if objects(&store).await > 0 && writer.open.values().any(|f| f.upload.begun()) {
                return writer;
            }
        }
        panic!("no file was begun");
    };
    begun().await.abort().await;
    assert_eq!(objects(&store).await, 0);
    drop(begun().await);
    emptied(&store).await;
    let staged = || std::fs::read_dir(directory.path().join("t/data")).unwrap().count();
    let gone = async {
        while staged() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn a_failure_removes_all_files_and_is_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(local);
    let fields = vec![Field::new("n", DataType::Int64, true)];
    let partitions = [("n", Transform::Identity)];
    let smallest = [("write.target-file-size-bytes", "1")];
    let context = context(store.clone(), fields, &partitions, &smallest);
    // A file where the directory of a partition should be.
    std::fs::create_dir_all(directory.path().join("t/data")).unwrap();
    std::fs::write(directory.path().join("t/data/n_p=1"), "").unwrap();
    let mut writer = writer(&context);
    let error = writer.write(&batch(&context, vec![numbers(3)])).await.unwrap_err();
    assert!(matches!(error, Error::NotWritten { .. }), "{error}");
    assert_eq!(objects(&store).await, 1);
    assert!(writer.write(&batch(&context, vec![numbers(1)])).await.is_err());
    assert!(writer.close().await.is_err());
    assert_eq!(objects(&store).await, 1);
}

#[tokio::test]
async fn memory_is_reserved_and_limited() {
    let fields = vec![Field::new("n", DataType::Int64, false)];
    let context = context(Arc::new(InMemory::new()), fields, &[], &[]);
    let rows = batch(&context, vec![noise(1_000_000)]);
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(4_000_000));
    let reservation = MemoryConsumer::new("writer").register(&pool);
    let mut writer = DataWriter::new(context.clone(), reservation).unwrap();
    let mut most = 0;
    for start in (0..rows.num_rows()).step_by(50_000) {
        writer.write(&rows.slice(start, 50_000)).await.unwrap();
        most = most.max(pool.reserved());
    }
    assert!(most > 1_000_000, "{most}");
    let files = writer.close().await.unwrap();
    assert_eq!(pool.reserved(), 0);
    let groups: usize = files.iter().map(|file| file.split_offsets().unwrap().len()).sum();
    assert!(groups > 1, "{groups}");
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 1_000_000);
}

#[tokio::test]
async fn views_and_dictionaries_are_taken_and_wrong_rows_refused() {
    let fields =
        vec![Field::new("k", DataType::Utf8, false), Field::new("n", DataType::Int64, true)];
    let partitions = [("k", Transform::Bucket(1))];
    let context = context(Arc::new(InMemory::new()), fields, &partitions, &[]);
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
    let words: DictionaryArray<Int32Type> = vec!["a", "b"].into_iter().collect();
    let nulls: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let rows = |key: ArrayRef| {
        RecordBatch::try_from_iter_with_nullable([("k", key, true), ("n", numbers(2), true)])
            .unwrap()
    };
    let mut writer = writer(&context);
    let error = writer.write(&rows(nulls)).await.unwrap_err();
    assert!(matches!(&error, Error::NullValue { column } if column == "k"), "{error}");
    assert!(writer.write(&rows(views.clone()).project(&[0]).unwrap()).await.is_err());
    writer.write(&rows(views)).await.unwrap();
    writer.write(&rows(Arc::new(words))).await.unwrap();
    let file = writer.close().await.unwrap().remove(0);
    let back = read(&context, &file).await;
    assert_eq!(back.column(0).as_string::<i32>(), &StringArray::from(vec!["a", "b", "a", "b"]));
    let mut writer = self::writer(&context);
    let wrong: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let wrong = RecordBatch::try_from_iter([("k", wrong.clone()), ("n", wrong)]).unwrap();
    assert!(writer.write(&wrong).await.is_err());
}

#[tokio::test]
async fn bloom_filters_and_empty_tables() {
    let fields =
        vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)];
    let properties = [("write.parquet.bloom-filter-enabled.column.b", "true")];
    let context = context(Arc::new(InMemory::new()), fields, &[], &properties);
    assert_eq!(write(&context, &[RecordBatch::new_empty(context.arrow_schema.clone())]).await, []);
    let file = write(&context, &[batch(&context, vec![numbers(9), numbers(9)])]).await.remove(0);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes(&context, &file).await).unwrap();
    let group = reader.metadata().row_group(0);
    assert_eq!(group.column(0).bloom_filter_offset(), None);
    assert!(group.column(1).bloom_filter_offset().is_some());
}
