//! How fast rows become data files of managed tables: rows and megabytes of Arrow a second on one
//! thread, for TPC-H lineitem, by codec. `cargo bench --bench write [-- codec]`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use iceberg::spec::{PartitionSpec, Transform};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use oribi::storage::managed::properties::WriteProperties;
use oribi::storage::managed::types::{arrow_schema, iceberg_schema};
use oribi::storage::managed::write::{DataWriter, WriteContext};
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

const SCALE: f64 = 0.3;
const ROWS: usize = 8192;
const ROUNDS: usize = 3;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let generator = LineItemGenerator::new(SCALE, 1, 1);
    let batches = LineItemArrow::new(generator).with_batch_size(ROWS);
    let lineitem: Vec<RecordBatch> = batches.collect::<Result<_, _>>().expect("lineitem");
    println!("{:<24}{:>12}{:>10}{:>10}{:>8}", "", "rows/s", "MB/s", "file MB", "files");
    let codecs = ["zstd", "snappy", "lz4", "gzip", "uncompressed"];
    for codec in
        codecs.into_iter().filter(|codec| only.is_empty() || only.iter().any(|o| o == codec))
    {
        measure(codec, &lineitem, codec, None);
    }
    let by_mode = Some(("l_shipmode", Transform::Identity));
    if only.is_empty() || only.iter().any(|name| name == "partitioned") {
        measure("zstd, 7 partitions", &lineitem, "zstd", by_mode);
    }
}

fn measure(name: &str, batches: &[RecordBatch], codec: &str, by: Option<(&str, Transform)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (mut best, mut written) = (Duration::MAX, Vec::new());
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir().expect("a directory");
        let context = context(directory.path(), batches, codec, by);
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let start = Instant::now();
        written = runtime.block_on(async {
            let reservation = MemoryConsumer::new("write").register(&pool);
            let mut writer = DataWriter::new(context, reservation).expect("a writer");
            for batch in batches {
                writer.write(batch).await.expect("writes");
            }
            writer.close().await.expect("closes")
        });
        best = best.min(start.elapsed());
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let arrow: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let bytes: u64 = written.iter().map(|file| file.file_size_in_bytes()).sum();
    println!(
        "{name:<24}{:>12.0}{:>10.0}{:>10.1}{:>8}",
        rows as f64 / best.as_secs_f64(),
        arrow as f64 / best.as_secs_f64() / 1e6,
        bytes as f64 / 1e6,
        written.len()
    );
}

fn context(
    directory: &std::path::Path,
    batches: &[RecordBatch],
    codec: &str,
    by: Option<(&str, Transform)>,
) -> WriteContext {
    let schema = iceberg_schema(batches[0].schema().fields()).expect("a schema");
    let schema = Arc::new(schema);
    let mut spec = PartitionSpec::builder(schema.clone());
    if let Some((column, transform)) = by {
        spec = spec.add_partition_field(column, column, transform).expect("a partition");
    }
    let properties =
        HashMap::from([("write.parquet.compression-codec".to_owned(), codec.to_owned())]);
    WriteContext {
        arrow_schema: arrow_schema(&schema).expect("a schema"),
        schema,
        spec: spec.build().expect("a spec").into(),
        store: Arc::new(LocalFileSystem::new_with_prefix(directory).expect("a store")),
        directory: Path::from("data"),
        url: format!("file://{}/data", directory.display()),
        properties: WriteProperties::parse(&properties).expect("properties"),
        sort_order_id: None,
    }
}
