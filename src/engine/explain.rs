//! EXPLAIN's answer in PostgreSQL's form: one column of text, a line a row.
//!
//! A plan may tell of values that a role may not read: in the names of files below partitions'
//! directories, and, once it has run, in what its parts have learnt from each other, also below a
//! view or a policy. Superusers see all of it. Others see each step as it was before it ran, and how
//! many files it reads.

use std::fmt::{self, Debug, Display, Formatter};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::display::{PlanType, StringifiedPlan};
use datafusion::common::not_impl_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::error::Result as EngineResult;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Explain, LogicalPlan};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, displayable,
};
use datafusion::sql::parser::Statement;
use sqlparser::ast::Statement as SqlStatement;

use super::{Error, Result, Session};

/// The kinds of plan shown unless VERBOSE asks for every step.
const SHOWN: [&str; 3] = ["physical_plan", "Plan with Metrics", "plan"];

pub fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}

/// Turns the engine's rows (kind of plan, plan) into lines, below that of a statement that does
/// something with the plan's rows.
pub fn explain_lines(batch: &RecordBatch, heading: Option<&str>) -> Result<RecordBatch> {
    let (kinds, plans) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
    let verbose = kinds.len() > 3;
    let single = kinds.len() == 1;
    let mut lines: Vec<String> = heading.map(str::to_owned).into_iter().collect();
    let indent = if heading.is_some() { "  " } else { "" };
    for (kind, plan) in kinds.iter().zip(plans) {
        let (kind, plan) = (kind.unwrap_or_default(), plan.unwrap_or_default());
        if verbose {
            lines.push(format!("{indent}{kind}:"));
        } else if !single && !SHOWN.contains(&kind) {
            continue;
        }
        // Columns that only the engine knows, such as `_file` and `_pos`.
        lines.extend(plan.lines().map(|line| format!("{indent}{}", line.replace('\u{2}', "_"))));
    }
    let column = Arc::new(StringArray::from(lines));
    RecordBatch::try_new(explain_schema(), vec![column])
        .map_err(|error| Error::Execution(error.into()))
}

impl Session {
    /// Whether EXPLAIN shows everything.
    pub(super) fn sees_details(&self) -> bool {
        let info = self.info();
        info.catalog.snapshot().access(&info.user).is_superuser()
    }

    /// EXPLAIN without VERBOSE for all but superusers: the statistics that VERBOSE shows are those of
    /// whole files, rows and columns included that a role may not see.
    pub(super) fn without_details(&self, statement: &Statement) -> Option<Statement> {
        let is_explain = match statement {
            Statement::Explain(_) => true,
            Statement::Statement(inner) => matches!(inner.as_ref(), SqlStatement::Explain { .. }),
            _ => false,
        };
        if !is_explain || self.sees_details() {
            return None;
        }
        let mut plain = statement.clone();
        match &mut plain {
            Statement::Explain(explain) => {
                explain.options.verbose = false;
                explain.options.show_statistics = None;
            }
            Statement::Statement(inner) => {
                if let SqlStatement::Explain { verbose, .. } = inner.as_mut() {
                    *verbose = false;
                }
            }
            _ => {}
        }
        Some(plain)
    }
}

/// The plan of EXPLAIN without VERBOSE. What is wrong with the plan that it is about is an error here:
/// the engine would show an empty plan.
pub(super) async fn explain(
    state: &SessionState,
    explain: &Explain,
    details: bool,
) -> EngineResult<Arc<dyn ExecutionPlan>> {
    if matches!(
        explain.plan.as_ref(),
        LogicalPlan::Ddl(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Statement(_)
    ) {
        return not_impl_err!("EXPLAIN of this statement is not supported");
    }
    let plan = state.create_physical_plan(&explain.plan).await?;
    let plan = if details { plan } else { discreet(plan)? };
    let options = &state.config_options().explain;
    let statistics = explain.show_statistics.unwrap_or(options.show_statistics);
    let text = displayable(plan.as_ref())
        .set_show_statistics(statistics && details)
        .set_show_schema(options.show_schema)
        .indent(false)
        .to_string();
    let text = StringifiedPlan::new(PlanType::FinalPhysicalPlan, text);
    Ok(Arc::new(ExplainExec::new(explain.schema.inner().clone(), vec![text], false)))
}

/// The plan of EXPLAIN ANALYZE, if this is one, as all but superusers may see it.
pub(super) fn analyse_discreetly(
    plan: Arc<dyn ExecutionPlan>,
) -> EngineResult<Arc<dyn ExecutionPlan>> {
    match plan.downcast_ref::<AnalyzeExec>() {
        None => Ok(plan),
        Some(analyze) => {
            let input = discreet(analyze.input().clone())?;
            replace_children_if_necessary(plan, vec![input])
        }
    }
}

/// A plan each of whose steps keeps to itself what it learns while it runs.
fn discreet(plan: Arc<dyn ExecutionPlan>) -> EngineResult<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|inner| {
        let line = Line(inner.as_ref()).to_string();
        Ok(Transformed::yes(Arc::new(Discreet { inner, line }) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(plan.data)
}

/// A step as those see it who may not know all values in it.
struct Line<'a>(&'a dyn ExecutionPlan);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let scan = self.0.downcast_ref::<DataSourceExec>();
        if let Some(files) = scan.and_then(|scan| scan.data_source().downcast_ref()) {
            return scan_line(files, f);
        }
        // Of rows that were never read the engine knows the result.
        if let Some(projection) = self.0.downcast_ref::<ProjectionExec>()
            && is_known(projection.input().as_ref())
        {
            let names = projection.expr().iter().map(|expr| expr.alias.as_str());
            return write!(f, "ProjectionExec: expr=[{}]", names.collect::<Vec<_>>().join(", "));
        }
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

fn is_known(plan: &dyn ExecutionPlan) -> bool {
    let plan = plan.downcast_ref::<Discreet>().map_or(plan, |discreet| discreet.inner.as_ref());
    plan.is::<PlaceholderRowExec>()
}

/// The number of a scan's files in place of their names.
fn scan_line(scan: &FileScanConfig, f: &mut Formatter<'_>) -> fmt::Result {
    struct Rest<'a>(&'a FileScanConfig);
    impl Display for Rest<'_> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            DataSource::fmt_as(self.0, DisplayFormatType::Default, f)
        }
    }
    let files: usize = scan.file_groups.iter().map(|group| group.len()).sum();
    let nameless = FileScanConfigBuilder::from(scan.clone()).with_file_groups(Vec::new()).build();
    let rest = Rest(&nameless).to_string();
    let rest = rest.strip_prefix("file_groups={0 groups: []}").unwrap_or_default();
    write!(f, "DataSourceExec: files={files}{rest}")
}

/// A step that shows itself as it was before it ran.
struct Discreet {
    inner: Arc<dyn ExecutionPlan>,
    line: String,
}

impl Debug for Discreet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl DisplayAs for Discreet {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl ExecutionPlan for Discreet {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inner.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let inner = replace_children_if_necessary(self.inner.clone(), children)?;
        Ok(Arc::new(Self { inner, line: self.line.clone() }))
    }

    fn reset_state(self: Arc<Self>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.clone().reset_state()?;
        Ok(Arc::new(Self { inner, line: self.line.clone() }))
    }

    fn with_new_state(
        &self,
        state: Arc<dyn std::any::Any + Send + Sync>,
    ) -> Option<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.with_new_state(state)?;
        Some(Arc::new(Self { inner, line: self.line.clone() }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> EngineResult<SendableRecordBatchStream> {
        self.inner.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.inner.metrics()
    }
}
