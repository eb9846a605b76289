//! Queries of a WITH that give other rows each time, such as those of `random()`: however often a statement
//! reads one, it runs once, as in PostgreSQL.
//!
//! The engine plans such a query anew wherever it is read. So it is given a name of its own before
//! ([`named`]), by which its copies are found in the plan ([`kept`]). What reads a copy changes nothing in
//! it, so that all copies are alike, and the steps of one give their rows to all ([`super::shared`]).

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchemaRef, Result};
use datafusion::logical_expr::{
    Expr as EngineExpr, Extension, LogicalPlan, UserDefinedLogicalNodeCore,
};
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{Expr, ObjectName, Statement, Visitor};

use super::as_of;
use super::joins::{folded, within};
use super::visit::visit;
use crate::id;

/// What the name of such a query begins with.
const NAME: &str = "\u{2}once";

/// Names the queries of a statement's WITH that call a function which is `volatile` and are read several
/// times.
pub(super) fn named(statement: &mut EngineStatement, volatile: &dyn Fn(&str) -> bool) {
    let Some(Statement::Query(query)) = as_of::sql(statement) else { return };
    if query.with.is_none() {
        return;
    }
    let mut look = Look { volatile, changing: HashSet::new(), calls: false, reads: Vec::new() };
    let _ = visit(query.as_ref(), &mut look);
    let reads = look.reads;
    let Some(with) = query.with.as_mut().filter(|with| look.calls && !with.recursive) else {
        return;
    };
    // No other statement's, nor those of a view that this one reads.
    let own = id::nonce().simple();
    let mut changing = HashSet::new();
    for (number, table) in with.cte_tables.iter_mut().enumerate() {
        let name = folded(&table.alias.name);
        let mut look = Look { volatile, changing, calls: false, reads: Vec::new() };
        let _ = visit(table.query.as_ref(), &mut look);
        changing = look.changing;
        if !look.calls {
            continue;
        }
        if reads.iter().filter(|read| **read == name).count() > 1
            && let Some(query) = within((*table.query).clone(), &format!("{NAME}{own}-{number}"))
        {
            *table.query = query;
        }
        changing.insert(name);
    }
}

/// Looks for what gives other rows each time, and for what is read.
struct Look<'a> {
    volatile: &'a dyn Fn(&str) -> bool,
    /// Queries before this one that do.
    changing: HashSet<String>,
    calls: bool,
    reads: Vec<String>,
}

impl Visitor for Look<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if let [name] = name.0.as_slice()
            && let Some(name) = name.as_ident()
        {
            let name = folded(name);
            self.calls |= self.changing.contains(&name);
            self.reads.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let [name] = function.name.0.as_slice()
            && let Some(name) = name.as_ident()
        {
            self.calls |= (self.volatile)(&folded(name));
        }
        ControlFlow::Continue(())
    }
}

/// A plan in which the copies of a named query are told from all else.
pub(super) fn kept(plan: LogicalPlan) -> Result<LogicalPlan> {
    let marked = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::SubqueryAlias(mut alias) = plan else { return Ok(Transformed::no(plan)) };
        let name = alias.alias.table();
        if !name.starts_with(NAME) {
            return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
        }
        // A view that the statement reads has done so itself.
        if is_once(&alias.input) {
            return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
        }
        let once = Once { name: name.to_owned(), rows: alias.input.as_ref().clone() };
        alias.input = Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(once) }));
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(marked.data)
}

fn is_once(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Extension(Extension { node }) if node.as_any().is::<Once>())
}

/// A copy of a query that runs once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub(super) struct Once {
    /// The same for all copies, and for those of no other query.
    pub name: String,
    pub rows: LogicalPlan,
}

impl UserDefinedLogicalNodeCore for Once {
    fn name(&self) -> &str {
        "Once"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.rows]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.rows.schema()
    }

    fn expressions(&self) -> Vec<EngineExpr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Once")
    }

    fn with_exprs_and_inputs(
        &self,
        _: Vec<EngineExpr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let rows = inputs.pop().unwrap_or_else(|| self.rows.clone());
        Ok(Self { name: self.name.clone(), rows })
    }
}
