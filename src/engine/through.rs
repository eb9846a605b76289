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

/// What a step says of the rows below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Conditions of the statement stay above it: those of policies are below.
    SecurityBarrier,
    /// A scan that finds columns in its files by field id.
    FieldIds,
}

/// Passes rows on.
#[derive(Debug)]
pub(super) struct Through {
    pub said: Said,
    pub rows: Arc<dyn ExecutionPlan>,
}

impl Through {
    pub fn new(said: Said, rows: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        Arc::new(Self { said, rows })
    }
}

impl Said {
    fn name(self) -> &'static str {
        match self {
            Self::SecurityBarrier => "SecurityBarrier",
            Self::FieldIds => "FieldIds",
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
        Ok(Self::new(self.said, rows))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }
}
