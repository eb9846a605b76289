//! Tables as a role may read them.
//!
//! Rights are enforced where tables are read, not where they are named: whatever an alias, a view,
//! a CTE, COPY, EXPLAIN ANALYZE or a function does to a name, the engine must ask the table for a
//! scan. A table of which a role may read some columns only refuses a scan of others ([`Guarded`]).
//! One with row-level policies is a plan of its own ([`Policed`]) into which nothing of the
//! statement's is pushed, since a condition of the statement that saw hidden rows could tell of
//! them by failing.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Column;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown,
};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::{BoxFuture, ready};

use super::through::{Said, Through};
use crate::catalog::{Error, ObjectKind};

/// A table of which only some columns may be read.
#[derive(Debug)]
pub(super) struct Guarded {
    pub inner: Arc<dyn TableProvider>,
    /// For the message.
    pub name: String,
    pub readable: BTreeSet<String>,
}

impl Guarded {
    fn check(&self, projection: Option<&Vec<usize>>, filters: &[Expr]) -> Result<()> {
        let schema = self.inner.schema();
        let readable = |name: &str| self.readable.contains(name);
        let projected = match projection {
            Some(columns) => columns.iter().all(|at| readable(schema.field(*at).name())),
            None => schema.fields().iter().all(|field| readable(field.name())),
        };
        let compared = (filters.iter())
            .all(|filter| filter.column_refs().iter().all(|column| readable(&column.name)));
        if projected && compared {
            return Ok(());
        }
        let denied = Error::Denied { kind: ObjectKind::Table, name: self.name.clone() };
        Err(DataFusionError::External(Box::new(denied)))
    }
}

impl TableProvider for Guarded {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    // What `async` would make of it, but without the conditions: for minutes the compiler would prove of
    // each such function that these may change threads.
    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'e, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        match self.check(projection, filters) {
            Ok(()) => self.inner.scan(state, projection, filters, limit),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }
}

/// The rows of a table that its policies leave to a role.
#[derive(Debug)]
pub(super) struct Policed {
    /// The table with the policies' condition.
    pub plan: LogicalPlan,
}

impl TableProvider for Policed {
    fn schema(&self) -> SchemaRef {
        self.plan.schema().inner().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'e, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        let plan = match self.part(projection, limit) {
            Ok(plan) => plan,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        // Of no type, for the same reason.
        let plan: Box<dyn AsRef<LogicalPlan> + Send + Sync> = Box::new(Box::new(plan));
        Box::pin(async move {
            let rows = state.create_physical_plan(plan.as_ref().as_ref()).await?;
            // Keeps the optimiser from moving conditions of the statement below those of the policies.
            Ok(Through::new(Said::SecurityBarrier, rows) as _)
        })
    }
}

impl Policed {
    /// The plan of some columns and rows.
    fn part(&self, projection: Option<&Vec<usize>>, limit: Option<usize>) -> Result<LogicalPlan> {
        let mut plan = LogicalPlanBuilder::from(self.plan.clone());
        if let Some(projection) = projection {
            let schema = self.plan.schema();
            let column = |at: &usize| Expr::Column(Column::from(schema.qualified_field(*at)));
            plan = plan.project(projection.iter().map(column))?;
        }
        if let Some(limit) = limit {
            plan = plan.limit(0, Some(limit))?;
        }
        plan.build()
    }
}
