//! The types of a statement's parameters.
//!
//! In this order: what the client declares; what the statement's own casts and limits say; what the
//! plan makes of a parameter's place; text.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr as PlanExpr, ExprSchemable, LogicalPlan};
use datafusion::sql::parser::Statement;
use sqlparser::ast::{
    ArrayElemTypeDef, ColumnDef, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, LimitClause, Query, Value,
};

use super::as_of::moment_in;
use super::planner::column_schema;
use super::session::Session;
use super::type_names::session_types;
use super::visit::visit_expressions;
use super::{Error, Result};
use crate::values::types::pg_type_name;

/// PostgreSQL's own limit: their count is a 16-bit number on the wire.
const MAX_PARAMETERS: usize = u16::MAX as usize;

pub(super) enum Parameters {
    /// They were known before the plan.
    Settled(Vec<FieldRef>),
    Found(Vec<FieldRef>),
}

/// All parameters of a plan, `$1` first.
pub(super) fn of_plan(plan: &LogicalPlan, known: &[Option<FieldRef>]) -> Result<Parameters> {
    let found = plan.get_parameter_fields().map_err(Error::planning)?;
    let mut found: HashMap<usize, Option<FieldRef>> =
        (found.into_iter()).filter_map(|(name, field)| Some((number(&name)?, field))).collect();
    let count = found.keys().copied().max().unwrap_or(0).max(known.len());
    if count > MAX_PARAMETERS {
        return Err(Error::NoParameter(count));
    }
    let settled = (1..=count).all(|n| known.get(n - 1).is_some_and(Option::is_some));
    if !settled {
        members_of_arrays(plan, &mut found).map_err(Error::planning)?;
    }
    let fields = (1..=count)
        .map(|n| {
            let known = known.get(n - 1).cloned().flatten();
            let field = known.or_else(|| found.get(&n).cloned().flatten());
            field.filter(|field| !field.data_type().is_null()).unwrap_or_else(|| of(DataType::Utf8))
        })
        .collect();
    Ok(if settled { Parameters::Settled(fields) } else { Parameters::Found(fields) })
}

/// `x = ANY($1)`: the array's elements are of the type of `x`, which the engine does not conclude; those of
/// `x LIKE ANY ($1)` are texts.
fn members_of_arrays(
    plan: &LogicalPlan,
    found: &mut HashMap<usize, Option<FieldRef>>,
) -> datafusion::common::Result<()> {
    let mut note = |expr: &PlanExpr, schema: &DFSchema| {
        let PlanExpr::ScalarFunction(ScalarFunction { func, args }) = expr else { return };
        if let ("matched", [_, PlanExpr::Placeholder(Placeholder { id, field: None }), ..]) =
            (func.name(), args.as_slice())
        {
            let patterns = of(DataType::new_list(DataType::Utf8, true));
            found.extend(number(id).map(|number| (number, Some(patterns))));
            return;
        }
        let [PlanExpr::Placeholder(Placeholder { id, field: None }), member] = args.as_slice()
        else {
            return;
        };
        if func.name() == "array_has"
            && let (Some(number), Ok(kind)) = (number(id), member.get_type(schema))
        {
            found.insert(number, Some(of(DataType::new_list(kind, true))));
        }
    };
    plan.apply_with_subqueries(|plan| {
        let mut schema = merge_schema(&plan.inputs());
        schema.merge(plan.schema());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                note(expr, &schema);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// What the client and the statement's own casts and limits say.
pub(super) fn known(
    session: &Session,
    statement: &Statement,
    declared: &[Option<FieldRef>],
) -> Vec<Option<FieldRef>> {
    let mut known = declared.to_vec();
    let Statement::Statement(statement) = statement else { return known };
    let mut note = |expression: &Expr, kind: &dyn Fn() -> Option<FieldRef>| {
        let Expr::Value(value) = expression else { return };
        let Value::Placeholder(name) = &value.value else { return };
        let Some(number) = number(name).filter(|n| (1..=MAX_PARAMETERS).contains(n)) else {
            return;
        };
        if known.len() < number {
            known.resize(number, None);
        }
        if known[number - 1].is_none() {
            known[number - 1] = kind();
        }
    };
    if let sqlparser::ast::Statement::Query(query) = statement.as_ref() {
        for expression in limits(query) {
            note(expression, &|| Some(of(DataType::Int64)));
        }
    }
    visit_expressions(statement.as_ref(), |expression| {
        if let Expr::Cast { expr, data_type, .. } = expression {
            note(expr, &|| cast_to(session, data_type).map(Arc::new));
        }
        for argument in counts(expression) {
            note(argument, &|| Some(of(DataType::Int32)));
        }
        if let Some((moment, kind)) = moment_in(expression) {
            note(moment, &|| Some(of(kind.clone())));
        }
    });
    known
}

/// Functions with arguments that count something, and where those stand.
const COUNTS: &[(&str, &[usize])] = &[
    ("left", &[1]),
    ("lpad", &[1]),
    ("repeat", &[1]),
    ("right", &[1]),
    ("rpad", &[1]),
    ("split_part", &[2]),
];

/// The arguments of a function that count something: the engine would take any number there, and
/// so concludes nothing.
fn counts(expression: &Expr) -> Vec<&Expr> {
    match expression {
        Expr::Substring { substring_from, substring_for, .. } => {
            substring_from.iter().chain(substring_for).map(AsRef::as_ref).collect()
        }
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) => {
            let name = name.to_string().to_lowercase();
            let known = COUNTS.iter().find(|(known, _)| *known == name);
            let places = known.map(|(_, places)| *places).unwrap_or_default();
            (places.iter())
                .filter_map(|at| match list.args.get(*at) {
                    Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) => Some(argument),
                    _ => None,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

fn limits(query: &Query) -> Vec<&Expr> {
    match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            limit.iter().chain(offset.iter().map(|offset| &offset.value)).collect()
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => vec![offset, limit],
        None => query.fetch.iter().flat_map(|fetch| &fetch.quantity).collect(),
    }
}

/// The type of `$1` in `$1::TYPE`.
pub(super) fn cast_to(session: &Session, written: &SqlType) -> Option<Field> {
    if let SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = written {
        // The element keeps its PostgreSQL type: clients look up a parameter of a type that they
        // do not expect.
        let element = cast_to(session, element)?.with_name(Field::LIST_FIELD_DEFAULT_NAME);
        return Some(Field::new("", DataType::List(Arc::new(element)), true));
    }
    if let Some(types) = session_types(session)
        && let Some(field) = types.plan_type_field(written).ok()?
    {
        // Objects are given by name or by number.
        return Some(match pg_type_name(&field) {
            Some(name) if name.starts_with("reg") => Field::new("", DataType::Utf8, true),
            _ => field.as_ref().clone(),
        });
    }
    let column =
        ColumnDef { name: Ident::new("parameter"), data_type: written.clone(), options: vec![] };
    let schema = column_schema(session, vec![column]).ok()?;
    Some(match schema.field(0) {
        field if *field.data_type() == DataType::Utf8View => Field::new("", DataType::Utf8, true),
        field => field.clone().with_nullable(true),
    })
}

fn number(name: &str) -> Option<usize> {
    name.strip_prefix('$')?.parse().ok()
}

fn of(kind: DataType) -> FieldRef {
    Arc::new(Field::new("parameter", kind, true))
}
