//! Steps of a plan that pass rows on as they are: what they say is for the planner, or for another
//! daemon.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
};
use tokio_util::sync::DropGuard;

/// What a step says of the rows below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Conditions of the statement stay above it: those of policies are below.
    SecurityBarrier,
    /// A scan that finds columns in its files by field id.
    FieldIds,
    /// What runs below it ends once nobody has the plan any more.
    Held,
}

/// Passes rows on.
#[derive(Debug)]
pub(super) struct Through {
    pub said: Said,
    pub rows: Arc<dyn ExecutionPlan>,
    /// Of [`Said::Held`]: streams of what is below do not have it.
    held: Option<Arc<DropGuard>>,
}

impl Through {
    pub fn new(said: Said, rows: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        Arc::new(Self { said, rows, held: None })
    }

    /// Cancels once the plan is dropped.
    pub fn holding(guard: DropGuard, rows: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        Arc::new(Self { said: Said::Held, rows, held: Some(Arc::new(guard)) })
    }
}

impl Said {
    fn name(self) -> &'static str {
        match self {
            Self::SecurityBarrier => "SecurityBarrier",
            Self::FieldIds => "FieldIds",
            Self::Held => "Held",
        }
    }
}

impl DisplayAs for Through {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.said.name())
    }
}

impl ExecutionPlan for Through {
    fn name(&self) -> &'static str {
        self.said.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
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
        let rows = children.pop().unwrap_or_else(|| self.rows.clone());
        Ok(Arc::new(Self { said: self.said, rows, held: self.held.clone() }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }
}
