//! Walks over parsed statements.
//!
//! `sqlparser` compiles its walk over the whole syntax anew for each type of visitor, about half a
//! megabyte of code each. Here all visitors share one walk.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut,
    Visitor, VisitorMut,
};

/// Shows a visitor every part of a node, until it breaks off.
pub fn visit(node: &impl Visit, visitor: &mut dyn Visitor<Break = ()>) -> ControlFlow<()> {
    node.visit(&mut Shared(visitor))
}

/// The same, and the visitor may change what it sees.
pub fn visit_mut(
    node: &mut impl VisitMut,
    visitor: &mut dyn VisitorMut<Break = ()>,
) -> ControlFlow<()> {
    node.visit(&mut SharedMut(visitor))
}

/// Shows a function every expression, outer ones first.
pub fn visit_expressions(node: &impl Visit, mut see: impl FnMut(&Expr)) {
    struct Expressions<'a>(&'a mut dyn FnMut(&Expr));
    impl Visitor for Expressions<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            (self.0)(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = visit(node, &mut Expressions(&mut see));
}

/// Whether an expression holds a query.
pub fn has_subquery(expr: &Expr) -> bool {
    let mut found = false;
    visit_expressions(expr, |expr| {
        found |= matches!(expr, Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. });
    });
    found
}

struct Shared<'a>(&'a mut dyn Visitor<Break = ()>);

struct SharedMut<'a>(&'a mut dyn VisitorMut<Break = ()>);

/// Passes calls on.
macro_rules! forward {
    ($($pre:ident, $post:ident: $node:ty;)*) => {
        $(
            fn $pre(&mut self, node: $node) -> ControlFlow<()> {
                self.0.$pre(node)
            }
            fn $post(&mut self, node: $node) -> ControlFlow<()> {
                self.0.$post(node)
            }
        )*
    };
}

impl Visitor for Shared<'_> {
    type Break = ();
    forward! {
        pre_visit_query, post_visit_query: &Query;
        pre_visit_select, post_visit_select: &Select;
        pre_visit_relation, post_visit_relation: &ObjectName;
        pre_visit_table_factor, post_visit_table_factor: &TableFactor;
        pre_visit_expr, post_visit_expr: &Expr;
        pre_visit_statement, post_visit_statement: &Statement;
        pre_visit_value, post_visit_value: &ValueWithSpan;
    }
}

impl VisitorMut for SharedMut<'_> {
    type Break = ();
    forward! {
        pre_visit_query, post_visit_query: &mut Query;
        pre_visit_select, post_visit_select: &mut Select;
        pre_visit_relation, post_visit_relation: &mut ObjectName;
        pre_visit_table_factor, post_visit_table_factor: &mut TableFactor;
        pre_visit_expr, post_visit_expr: &mut Expr;
        pre_visit_statement, post_visit_statement: &mut Statement;
        pre_visit_value, post_visit_value: &mut ValueWithSpan;
    }
}
