//! Calls where calls of their kind may not stand. The engine finds some of them only when it makes the plan
//! that runs, says of others what only it understands, and ignores the rest.
//!
//! The rules and words are those of PostgreSQL's `parse_agg.c` and `parse_func.c`.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, JoinConstraint,
    JoinOperator, Query, Select, SetExpr, Visit, Visitor,
};

use super::as_of;
use super::visit::visit;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    #[error("aggregate functions are not allowed in {0}")]
    Aggregate(&'static str),
    #[error("window functions are not allowed in {0}")]
    Window(&'static str),
    #[error("set-returning functions are not allowed in {0}")]
    Rows(&'static str),
    #[error("aggregate function calls cannot contain set-returning function calls")]
    RowsInAggregate,
    /// A function that is not of the kind that it is called as.
    #[error("{0}")]
    Kind(String),
}

/// Functions that give rows, where the engine has them as values as well.
const ROWS: &[&str] = &[
    "generate_series",
    "generate_subscripts",
    "json_array_elements",
    "json_array_elements_text",
    "json_object_keys",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_object_keys",
    "unnest",
];

/// Which kinds of functions there are.
pub(super) trait Kinds {
    fn is_aggregate(&self, name: &str) -> bool;
    fn is_window(&self, name: &str) -> bool;
    fn is_scalar(&self, name: &str) -> bool;
}

impl Kinds for SessionState {
    fn is_aggregate(&self, name: &str) -> bool {
        self.aggregate_functions().contains_key(name)
    }

    fn is_window(&self, name: &str) -> bool {
        self.window_functions().contains_key(name)
    }

    fn is_scalar(&self, name: &str) -> bool {
        self.scalar_functions().contains_key(name)
    }
}

/// Refuses a statement in which a call stands where it may not.
pub(super) fn refuse(statement: &mut EngineStatement, kinds: &dyn Kinds) -> Result<(), Misplaced> {
    let Some(statement) = as_of::sql(statement) else { return Ok(()) };
    let mut look = Look { kinds, found: None };
    let _ = visit(&*statement, &mut look);
    look.found.map_or(Ok(()), Err)
}

/// The kinds of calls that stand in an expression, those of its subqueries apart.
pub(super) fn calls(node: &impl Visit, kinds: &dyn Kinds) -> Calls {
    let mut calls = Calls::default();
    let _ = visit(node, &mut Finder { kinds, depth: 0, calls: &mut calls });
    calls
}

/// Kinds of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub aggregate: bool,
    pub window: bool,
    /// Of a function that gives rows.
    pub rows: bool,
}

struct Look<'a> {
    kinds: &'a dyn Kinds,
    found: Option<Misplaced>,
}

impl Visitor for Look<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let SetExpr::Values(values) = query.body.as_ref() else { return ControlFlow::Continue(()) };
        let mut rows = values.rows.iter().flat_map(|row| &row.content);
        rows.try_for_each(|value| self.none_in(value, "VALUES", false))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for join in select.from.iter().flat_map(|table| &table.joins) {
            if let Some(condition) = condition(&join.join_operator) {
                self.none_in(condition, "JOIN conditions", true)?;
            }
        }
        if let Some(condition) = &select.selection {
            self.none_in(condition, "WHERE", true)?;
        }
        if let GroupByExpr::Expressions(grouped, _) = &select.group_by {
            grouped.iter().try_for_each(|by| self.none_in(by, "GROUP BY", false))?;
        }
        match &select.having {
            Some(having) => match calls(having, self.kinds) {
                Calls { window: true, .. } => self.refuse(Misplaced::Window("HAVING")),
                Calls { rows: true, .. } => self.refuse(Misplaced::Rows("HAVING")),
                _ => ControlFlow::Continue(()),
            },
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some(name) = plain_name(function) else { return ControlFlow::Continue(()) };
        let (aggregate, window) = (self.kinds.is_aggregate(&name), self.kinds.is_window(&name));
        if let Some(filter) = &function.filter {
            self.none_in(filter.as_ref(), "FILTER", false)?;
        }
        if aggregate && function.over.is_none() && calls(&function.args, self.kinds).rows {
            return self.refuse(Misplaced::RowsInAggregate);
        }
        if window && !aggregate && function.over.is_none() && function.within_group.is_empty() {
            let text = format!("window function {name} requires an OVER clause");
            return self.refuse(Misplaced::Kind(text));
        }
        match given(function) {
            Some(given) if !aggregate && !window && self.kinds.is_scalar(&name) => {
                let kind = match given {
                    "OVER" => "a window function nor an aggregate function",
                    _ => "an aggregate function",
                };
                let text = format!("{given} specified, but {name} is not {kind}");
                self.refuse(Misplaced::Kind(text))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Look<'_> {
    fn refuse(&mut self, misplaced: Misplaced) -> ControlFlow<()> {
        self.found = Some(misplaced);
        ControlFlow::Break(())
    }

    /// Refuses aggregates and window functions in a clause, with `rows` functions that give rows as well.
    fn none_in(&mut self, clause: &Expr, name: &'static str, rows: bool) -> ControlFlow<()> {
        let calls = calls(clause, self.kinds);
        if calls.aggregate {
            self.refuse(Misplaced::Aggregate(name))
        } else if calls.window {
            self.refuse(Misplaced::Window(name))
        } else if calls.rows && rows {
            self.refuse(Misplaced::Rows(name))
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// What of a call only aggregates or window functions may have.
fn given(function: &Function) -> Option<&'static str> {
    let distinct = match &function.args {
        FunctionArguments::List(list) => {
            list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
        }
        _ => false,
    };
    if distinct {
        return Some("DISTINCT");
    }
    if function.filter.is_some() {
        return Some("FILTER");
    }
    function.over.is_some().then_some("OVER")
}

/// A function's name without its schema, if that is PostgreSQL's own or not written.
fn plain_name(function: &Function) -> Option<String> {
    let folded = |part: &sqlparser::ast::ObjectNamePart| {
        let ident = part.as_ident()?;
        Some(match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        })
    };
    match function.name.0.as_slice() {
        [name] => folded(name),
        [schema, name] if folded(schema)? == "pg_catalog" => folded(name),
        _ => None,
    }
}

fn condition(operator: &JoinOperator) -> Option<&Expr> {
    match operator {
        JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on))
        | JoinOperator::Left(JoinConstraint::On(on))
        | JoinOperator::LeftOuter(JoinConstraint::On(on))
        | JoinOperator::Right(JoinConstraint::On(on))
        | JoinOperator::RightOuter(JoinConstraint::On(on))
        | JoinOperator::FullOuter(JoinConstraint::On(on)) => Some(on),
        _ => None,
    }
}

struct Finder<'a> {
    kinds: &'a dyn Kinds,
    /// Queries within it.
    depth: usize,
    calls: &'a mut Calls,
}

impl Visitor for Finder<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && self.depth == 0
            && let Some(name) = plain_name(function)
        {
            self.calls.window |= function.over.is_some();
            self.calls.aggregate |= function.over.is_none() && self.kinds.is_aggregate(&name);
            self.calls.rows |= ROWS.contains(&name.as_str());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_one;
    use super::*;

    /// A few functions of each kind.
    struct Few;

    impl Kinds for Few {
        fn is_aggregate(&self, name: &str) -> bool {
            ["sum", "count", "max"].contains(&name)
        }

        fn is_window(&self, name: &str) -> bool {
            ["row_number", "rank"].contains(&name)
        }

        fn is_scalar(&self, name: &str) -> bool {
            ["upper", "generate_series"].contains(&name)
        }
    }

    fn refused(sql: &str) -> Option<String> {
        let mut parsed = parse_one(sql).expect(sql);
        refuse(&mut parsed.statement, &Few).err().map(|misplaced| misplaced.to_string())
    }

    #[test]
    fn calls_stand_where_they_may() {
        for (sql, expected) in [
            ("SELECT a FROM t WHERE sum(a) > 1", "aggregate functions are not allowed in WHERE"),
            ("SELECT a FROM t WHERE Sum(a) > 1", "aggregate functions are not allowed in WHERE"),
            (
                "SELECT a FROM t WHERE 1 = row_number() OVER ()",
                "window functions are not allowed in WHERE",
            ),
            (
                "SELECT 1 FROM t HAVING row_number() OVER () > 1",
                "window functions are not allowed in HAVING",
            ),
            ("SELECT 1 FROM t GROUP BY sum(a)", "aggregate functions are not allowed in GROUP BY"),
            (
                "SELECT 1 FROM t LEFT JOIN u ON sum(t.a) > 1",
                "aggregate functions are not allowed in JOIN conditions",
            ),
            ("VALUES (sum(1))", "aggregate functions are not allowed in VALUES"),
            (
                "INSERT INTO t VALUES (1), (count(*))",
                "aggregate functions are not allowed in VALUES",
            ),
            (
                "EXPLAIN SELECT max(a) FILTER (WHERE count(*) > 1) FROM t",
                "aggregate functions are not allowed in FILTER",
            ),
            (
                "SELECT a FROM t WHERE generate_series(1, 2) = 1",
                "set-returning functions are not allowed in WHERE",
            ),
            (
                "SELECT count(generate_series(1, 2))",
                "aggregate function calls cannot contain set-returning function calls",
            ),
            ("SELECT rank() FROM t", "window function rank requires an OVER clause"),
            (
                "SELECT upper(DISTINCT b) FROM t",
                "DISTINCT specified, but upper is not an aggregate function",
            ),
            (
                "SELECT upper(b) FILTER (WHERE true) FROM t",
                "FILTER specified, but upper is not an aggregate function",
            ),
            (
                "SELECT pg_catalog.upper(b) OVER () FROM t",
                "OVER specified, but upper is not a window function nor an aggregate function",
            ),
        ] {
            assert_eq!(refused(sql).as_deref(), Some(expected), "{sql}");
        }
        for sql in [
            "SELECT sum(a) OVER (), count(*), rank() OVER () FROM t GROUP BY a HAVING sum(a) > 1",
            "SELECT a FROM t WHERE a = (SELECT sum(b) FROM u) AND b IN (SELECT rank() OVER () FROM u)",
            "SELECT generate_series(1, 2), nothing(DISTINCT a), oribi.sum(1) OVER ()",
            "SELECT a FROM t WHERE a IN (SELECT generate_series(1, 2))",
            "SELECT max(a) FILTER (WHERE a > (SELECT count(*) FROM u)) FROM t",
            "SELECT rank(1) WITHIN GROUP (ORDER BY a) FROM t",
        ] {
            assert_eq!(refused(sql), None, "{sql}");
        }
    }
}
