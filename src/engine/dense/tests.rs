//! Whatever keys there are, and wherever the engine's aggregate goes on, groups are those that it finds alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::dense;

/// Rows of a batch of the table.
const ROWS: usize = 500;

/// A key for the number of a row.
type Key = fn(usize) -> Option<i64>;

const KEYS: &[(&str, Key)] = &[
    ("one", |_| Some(7)),
    ("few", |row| Some((row % 10) as i64 - 5)),
    ("null", |row| (row % 3 > 0).then_some((row % 50) as i64)),
    ("nothing but null", |_| None),
    ("in order", |row| Some((row / 4) as i64)),
    ("backwards", |row| Some(-((row / 2) as i64))),
    ("unique", |row| Some(row as i64)),
    ("far apart", |row| Some((row % 100) as i64 * (i64::MAX / 100))),
    ("far apart later", |row| Some(if row < 5000 { 1 } else { (row % 9) as i64 * (i64::MAX / 9) })),
    ("scattered", |row| Some((row.wrapping_mul(2_654_435_761) % 7919) as i64)),
];

const QUERIES: &[&str] = &[
    "SELECT k, count(*), count(v), sum(v), min(s), max(v), avg(v) FROM t GROUP BY k",
    "SELECT k, sum(v) FILTER (WHERE v > 10), count(*) FILTER (WHERE s = 'x3') FROM t GROUP BY k",
    "SELECT DISTINCT k FROM t",
    "SELECT k::int, count(DISTINCT v) FROM t WHERE k < 1000000 AND k > -1000000 GROUP BY 1",
    "SELECT n, sum(n2) FROM (SELECT k, count(*) AS n, sum(v) AS n2 FROM t GROUP BY k) GROUP BY n",
    "SELECT (k % 1000 * 86400)::int::date, count(*) FROM t GROUP BY 1 HAVING count(*) > 1",
    "SELECT k, count(*) FROM t WHERE v < 0 GROUP BY k",
];

fn batch(start: usize, key: Key) -> RecordBatch {
    let rows = start..start + ROWS;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter(rows.clone().map(key)));
    let values = rows.clone().map(|row| (row % 7 > 0).then_some((row % 91) as i32));
    let texts = rows.map(|row| Some(format!("x{}", row % 13)));
    let columns = [
        ("k", keys, true),
        ("v", Arc::new(Int32Array::from_iter(values)) as ArrayRef, true),
        ("s", Arc::new(StringArray::from_iter(texts)) as ArrayRef, true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("rows")
}

fn context(partitions: usize, memory: Option<usize>) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(ROWS);
    let execution = &mut config.options_mut().execution;
    execution.skip_partial_aggregation_probe_rows_threshold = 2000;
    execution.sort_spill_reservation_bytes = 10 << 10;
    let mut environment = RuntimeEnvBuilder::new();
    if let Some(memory) = memory {
        environment = environment.with_memory_pool(Arc::new(FairSpillPool::new(memory)));
    }
    let environment = environment.build_arc().expect("an environment");
    SessionContext::new_with_config_rt(config, environment)
}

fn dense_steps(plan: &Arc<dyn ExecutionPlan>) -> (usize, usize) {
    let (mut steps, mut rows) = (0, 0);
    plan.apply(|node| {
        if node.name() == "DenseAggregateExec" {
            steps += 1;
            let metrics = node.metrics().expect("metrics");
            rows += metrics.sum_by_name("dense_rows").map_or(0, |rows| rows.as_usize());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("a plan");
    (steps, rows)
}

async fn sorted(
    plan: Arc<dyn ExecutionPlan>,
    context: &SessionContext,
) -> Result<Vec<String>, String> {
    let rows = collect(plan, context.task_ctx()).await.map_err(|error| error.to_string())?;
    let table = pretty_format_batches(&rows).map_err(|error| error.to_string())?.to_string();
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// Compares all queries; how many rows were aggregated here.
async fn compare(context: &SessionContext, rows: usize, what: &str, key: Key) -> usize {
    let batches: Vec<_> = (0..rows / ROWS).map(|at| batch(at * ROWS, key)).collect();
    let parts = context.state().config().target_partitions();
    let parts: Vec<Vec<_>> = (0..parts)
        .map(|part| batches.iter().skip(part).step_by(parts).cloned().collect())
        .collect();
    let table = MemTable::try_new(batches[0].schema(), parts).expect("a table");
    context.deregister_table("t").expect("no table");
    context.register_table("t", Arc::new(table)).expect("a table");
    let mut dense_rows = 0;
    for query in QUERIES {
        let planned = async || {
            let query = context.sql(query).await.expect("a query");
            query.create_physical_plan().await.expect("a plan")
        };
        let wanted = sorted(planned().await, context).await;
        let plan = dense(planned().await).expect("a plan");
        let found = sorted(plan.clone(), context).await;
        let (steps, rows) = dense_steps(&plan);
        assert!(steps > 0, "{query}");
        dense_rows += rows;
        assert_eq!(found, wanted, "{query} where keys are {what}");
    }
    dense_rows
}

#[tokio::test]
async fn groups_are_those_of_the_engine() {
    for partitions in [1, 3] {
        let context = context(partitions, None);
        for (what, key) in KEYS {
            let rows = compare(&context, 12_000, what, *key).await;
            assert!(rows > 0, "{what}: nothing was aggregated here");
        }
    }
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_spilled_by_the_engine() {
    for (partitions, memory) in [(1, 300 << 10), (2, 900 << 10)] {
        let context = context(partitions, Some(memory));
        let key: Key = |row| Some((row / 2) as i64);
        let batches: Vec<_> = (0..80).map(|at| batch(at * ROWS, key)).collect();
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).expect("a table");
        context.register_table("t", Arc::new(table)).expect("a table");
        let query = context.sql("SELECT k, count(*), sum(v), min(s) FROM t GROUP BY k").await;
        let plan = query.expect("a query").create_physical_plan().await.expect("a plan");
        let plan = dense(plan).expect("a plan");
        let rows = sorted(plan.clone(), &context).await.expect("all rows");
        let groups = rows.iter().filter(|row| row.contains("| x") || row.contains("x")).count();
        assert_eq!(groups, 80 * ROWS / 2, "with {memory} bytes");
        assert!(dense_steps(&plan).1 < 2 * 80 * ROWS, "some of it was too much");
        assert_eq!(context.runtime_env().memory_pool.reserved(), 0);
    }
}
