//! EXPLAIN ANALYZE of a spread statement: its plan with the workers' metrics.

use std::fmt::{self, Formatter};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
};
use datafusion_distributed::{
    DistributedExec, DistributedMetricsFormat, display_plan_ascii, explain_analyze,
};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout};

/// How long the workers' metrics are waited for once all rows are there. Those of a task that was
/// planned and never ran do not come.
const METRICS: Duration = Duration::from_secs(5);

/// Runs a spread plan, and gives it with its metrics in place of its rows.
#[derive(Debug)]
pub(super) struct Analysis {
    input: Arc<dyn ExecutionPlan>,
    verbose: bool,
    properties: Arc<PlanProperties>,
}

impl Analysis {
    pub fn new(local: &AnalyzeExec, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input, verbose: local.verbose(), properties: local.properties().clone() }
    }
}

/// Whether a plan runs on several daemons.
pub(in crate::engine) fn is_spread(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<DistributedExec>()
}

/// A spread plan with what is in it of what was measured.
pub(in crate::engine) fn show_spread(plan: &dyn ExecutionPlan) -> String {
    display_plan_ascii(plan, true)
}

async fn with_metrics(
    input: &Arc<dyn ExecutionPlan>,
    format: DistributedMetricsFormat,
) -> Result<String> {
    match timeout(METRICS, explain_analyze(input.clone(), format)).await {
        Ok(shown) => shown,
        Err(_) => {
            let plan = display_plan_ascii(input.as_ref(), false);
            let waited = METRICS.as_secs();
            Ok(format!("Not all workers told their metrics within {waited} seconds.\n{plan}"))
        }
    }
}

impl DisplayAs for Analysis {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("AnalyzeExec")
    }
}

impl ExecutionPlan for Analysis {
    fn name(&self) -> &'static str {
        "AnalyzeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| self.input.clone());
        Ok(Arc::new(Self { input, verbose: self.verbose, properties: self.properties.clone() }))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut rows = self.input.execute(0, context)?;
        let (input, verbose, schema) = (self.input.clone(), self.verbose, self.schema());
        let answer = async move {
            let (start, mut count) = (Instant::now(), 0);
            while let Some(batch) = rows.next().await {
                count += batch?.num_rows();
            }
            let took = start.elapsed();
            let summed = with_metrics(&input, DistributedMetricsFormat::Aggregated).await?;
            let mut lines = vec![("Plan with Metrics", summed)];
            if verbose {
                let each = with_metrics(&input, DistributedMetricsFormat::PerTask).await?;
                lines.push(("Plan with Full Metrics", each));
                lines.push(("Output Rows", count.to_string()));
                lines.push(("Duration", format!("{took:?}")));
            }
            let (kinds, texts): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
            let columns = [StringArray::from(kinds), StringArray::from(texts)];
            let columns = columns.into_iter().map(|column| Arc::new(column) as _).collect();
            Ok(RecordBatch::try_new(schema, columns)?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(answer))))
    }
}
