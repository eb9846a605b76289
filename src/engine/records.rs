//! A table's name as the row that it has, where JSON is made of it: `row_to_json(t)`.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Query, Select, SelectItem, Value, VisitorMut,
};

use super::system::shown_name;
use super::visit::visit_mut;

/// The functions whose argument may be a row: as the statement has them once they are rewritten.
const OF_ROWS: &[&str] =
    &["json_item", "row_to_json", "to_json", "json_build_array", "json_build_object"];

/// The names in a SELECT that may stand for rows.
pub(super) fn asked_for(select: &mut Select) -> Vec<Ident> {
    let mut names = Vec::new();
    let mut find = Arguments {
        depth: 0,
        see: &mut |argument| {
            if let Expr::Identifier(name) = argument {
                names.push(name.clone());
            }
        },
    };
    find.all(select);
    names
}

/// Puts rows in the place of the names that stand for them. `columns`: those of the tables, by their names.
pub(super) fn put(select: &mut Select, columns: &HashMap<String, Vec<String>>) {
    let mut put = Arguments {
        depth: 0,
        see: &mut |argument| {
            if let Expr::Identifier(name) = &*argument
                && let Some(columns) = columns.get(&super::joins::folded(name))
            {
                *argument = row(name, columns);
            }
        },
    };
    put.all(select);
}

/// `json_row('a', t.a, 'b', t.b)`
fn row(table: &Ident, columns: &[String]) -> Expr {
    let args = columns.iter().flat_map(|column| {
        let parts = vec![table.clone(), Ident::with_quote('"', column)];
        let name = Value::SingleQuotedString(shown_name(column).to_owned());
        [Expr::Value(name.into()), Expr::CompoundIdentifier(parts)]
    });
    let args = args.map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("json_row")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The arguments of those functions in a SELECT's own list and conditions.
struct Arguments<'a> {
    depth: usize,
    see: &'a mut dyn FnMut(&mut Expr),
}

impl Arguments<'_> {
    fn all(&mut self, select: &mut Select) {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                let _ = visit_mut(expr, self);
            }
        }
        for condition in select.selection.iter_mut().chain(&mut select.having) {
            let _ = visit_mut(condition, self);
        }
    }
}

impl VisitorMut for Arguments<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Function(function) = expr
            && let [name] = function.name.0.as_slice()
            && name.as_ident().is_some_and(|name| OF_ROWS.contains(&name.value.as_str()))
            && let FunctionArguments::List(list) = &mut function.args
        {
            for arg in &mut list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg {
                    (self.see)(arg);
                }
            }
        }
        ControlFlow::Continue(())
    }
}
