use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use datafusion::common::exec_err;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{Partitioning, collect};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

/// Steps that count how often they run, and give a batch for each partition or fail.
#[derive(Debug)]
struct Counting {
    runs: Arc<AtomicUsize>,
    rows: RecordBatch,
    fails: bool,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for Counting {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

impl ExecutionPlan for Counting {
    fn name(&self) -> &'static str {
        "Counting"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let last = if self.fails { exec_err!("broken") } else { Ok(self.rows.clone()) };
        let rows = stream::iter([Ok(self.rows.clone()), last]);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

const PARTITIONS: usize = 2;

/// Two that share their rows, and how often steps of either have run.
fn pair(fails: bool) -> ([Arc<dyn ExecutionPlan>; 2], Arc<AtomicUsize>) {
    let column = Arc::new(Int64Array::from_iter_values(0..1000)) as _;
    let rows = RecordBatch::try_from_iter([("n", column)]).expect("rows");
    let (runs, group) = (Arc::default(), Arc::<Group>::default());
    let steps = || {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(rows.schema()),
            Partitioning::UnknownPartitioning(PARTITIONS),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (runs, rows) = (Arc::clone(&runs), rows.clone());
        Arc::new(Counting { runs, rows, fails, properties: Arc::new(properties) }) as _
    };
    let member = |place| {
        group.members.fetch_add(1, Ordering::Relaxed);
        Arc::new(SharedExec::new(steps(), place, group.clone())) as Arc<dyn ExecutionPlan>
    };
    ([member(0), member(1)], runs)
}

fn context(bytes: usize) -> (Arc<TaskContext>, Arc<dyn MemoryPool>) {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
    let environment = RuntimeEnvBuilder::new().with_memory_pool(pool.clone());
    let environment = environment.build_arc().expect("an environment");
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), environment);
    (context.task_ctx(), pool)
}

async fn sum(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> i64 {
    let batches = collect(plan, context.clone()).await.expect("rows");
    let column = |batch: &RecordBatch| {
        batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>()
    };
    batches.iter().map(column).sum()
}

/// Two batches for each partition.
const SUM: i64 = 999 * 1000 / 2 * 2 * PARTITIONS as i64;

#[tokio::test]
async fn equal_steps_run_once_and_their_memory_is_given_back() {
    let ([a, b], runs) = pair(false);
    let (context, pool) = context(1 << 20);
    share(&a);
    // Whoever comes first.
    assert_eq!(sum(b.clone(), &context).await, SUM);
    assert!(pool.reserved() > 0);
    assert_eq!(sum(a.clone(), &context).await, SUM);
    assert_eq!(runs.load(Ordering::Relaxed), PARTITIONS);
    drop((a, b));
    assert_eq!(pool.reserved(), 0);
}

#[tokio::test]
async fn without_memory_each_has_its_own_rows() {
    for turned in [false, true] {
        let ([a, b], runs) = pair(false);
        let (context, _) = context(10);
        share(&a);
        for plan in if turned { [b, a] } else { [a, b] } {
            assert_eq!(sum(plan, &context).await, SUM);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 2 * PARTITIONS);
    }
}

#[tokio::test]
async fn a_failure_is_everybodys() {
    let ([a, b], _) = pair(true);
    let (context, pool) = context(1 << 20);
    share(&a);
    for plan in [&b, &a] {
        let failed = collect(plan.clone(), context.clone()).await.expect_err("it fails");
        assert!(failed.to_string().contains("broken"), "{failed}");
    }
    drop((a, b));
    assert_eq!(pool.reserved(), 0);
}

#[tokio::test]
async fn nothing_is_shared_before_the_plan_is_about_to_run() {
    let ([a, b], runs) = pair(false);
    let (context, _) = context(1 << 20);
    let a = unshared(a).expect("a plan");
    assert!(a.is::<Counting>());
    for plan in [a, b] {
        assert_eq!(sum(plan, &context).await, SUM);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 2 * PARTITIONS);
}
