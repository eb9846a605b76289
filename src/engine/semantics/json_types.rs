//! Which expressions are `json` or `jsonb`. Their columns say so, and the functions that give them; of what is
//! chosen among several values the engine forgets it, and of what it makes of a subquery's value.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case, Cast, Placeholder, ScalarFunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Union, binary_expr, lit,
};
use postgres_types::Type;

use super::json::{self, JsonError};
use super::operators::is_constant_text;
use super::{changed, compares};
use crate::values::types::{dimensions, is_text, json_type, parameter, pg_type, sql_name};

/// The type of an expression that is `json` or `jsonb`.
pub(super) fn json_of(expr: &Expr, schema: &DFSchema) -> Option<Type> {
    match expr {
        Expr::Alias(alias) => json_of(&alias.expr, schema),
        Expr::Case(case) => results(case).find_map(|result| json_of(result, schema)),
        Expr::ScalarFunction(function) if function.func.name() == "coalesce" => {
            function.args.iter().find_map(|arg| json_of(arg, schema))
        }
        Expr::ScalarFunction(function) if function.func.name() == "nullif" => {
            json_of(function.args.first()?, schema)
        }
        other => json_type(&other.to_field(schema).ok()?.1),
    }
}

fn results(case: &Case) -> impl Iterator<Item = &Expr> {
    let then = case.when_then_expr.iter().map(|(_, then)| then);
    then.chain(&case.else_expr).map(AsRef::as_ref)
}

/// What PostgreSQL calls the type of an expression.
pub(super) fn type_name(expr: &Expr, schema: &DFSchema) -> String {
    match (json_of(expr, schema), expr.to_field(schema)) {
        _ if is_constant_text(expr) => "unknown".to_owned(),
        (Some(pg), _) => pg.name().to_owned(),
        (None, Ok((_, field))) if !field.data_type().is_null() => sql_name(pg_type(&field).name()),
        _ => "unknown".to_owned(),
    }
}

/// # Errors
/// There is no operator of these types, always.
pub(super) fn no_operator<T>(left: &Expr, op: &str, right: &Expr, schema: &DFSchema) -> Result<T> {
    let (left, right) = (type_name(left, schema), type_name(right, schema));
    Err(external(JsonError::NoOperator(format!("{left} {op} {right}"))))
}

fn external(error: JsonError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A text as `json` or `jsonb`, which it has to be.
pub(super) fn read(text: Expr, pg: &Type) -> Expr {
    let function = if *pg == Type::JSONB { json::normal() } else { json::checked() };
    function.call(vec![text])
}

/// What a file calls `json` or `jsonb`, looked at.
pub(in crate::engine) fn anew(called: Expr, pg: &Type) -> Expr {
    json::anew(pg).call(vec![called])
}

/// An expression that may stand where `json` or `jsonb` does: a text, and the other of them, is read as that.
fn taken_as(expr: Expr, pg: &Type, schema: &DFSchema) -> Expr {
    let is_other = json_of(&expr, schema).as_ref() != Some(pg);
    let text = expr.get_type(schema).is_ok_and(|kind| is_text(&kind));
    if is_other && text { read(expr, pg) } else { expr }
}

/// A cast to `json` or `jsonb`.
///
/// # Errors
/// There is no such cast.
pub(super) fn cast(cast: Cast, source: &Field, pg: &Type) -> Result<Transformed<Expr>> {
    let Cast { expr, field } = cast;
    let kind = source.data_type();
    let from = json_type(source);
    if from.as_ref() == Some(pg) || kind.is_null() {
        return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
    }
    let nested = dimensions(kind) > 0
        || matches!(kind, DataType::Struct(_) | DataType::Map(..) | DataType::Union(..));
    let read = match from {
        // What is the one is JSON.
        Some(Type::JSONB) => json::known(pg).call(vec![*expr]),
        _ if is_text(kind) => read(*expr, pg),
        _ if nested => read(json::of_value().call(vec![*expr]), pg),
        _ => {
            let (from, to) = (sql_name(pg_type(source).name()), pg.name().to_owned());
            return Err(external(JsonError::NoCast { from, to }));
        }
    };
    let same = *field.data_type() == DataType::Utf8View;
    let other = |expr| Expr::Cast(Cast { expr: Box::new(expr), field });
    Ok(Transformed::yes(if same { read } else { other(read) }))
}

/// A parameter of which nobody has said what it is, as one of `json` or `jsonb`.
pub(in crate::engine) fn parameter_as(expr: Expr, pg: &Type) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            Expr::Placeholder(Placeholder { id, field: parameter(pg) })
        }
        other => other,
    }
}

/// Whether an expression is one that [`settled`] looks at though no column is JSON, besides those of which one
/// is chosen.
pub(super) fn may_have(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_))
}

/// An expression whose type the engine forgets, and what stands beside one.
pub(super) fn settled(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            match changed::concat(&left, &right, schema)? {
                Some(call) => Transformed::yes(call),
                None => {
                    let op = Operator::StringConcat;
                    Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))
                }
            }
        }
        Expr::BinaryExpr(binary)
            if compares(binary.op)
                && [&binary.left, &binary.right]
                    .iter()
                    .any(|side| json_of(side, schema) == Some(Type::JSONB)) =>
        {
            let BinaryExpr { left, op, right } = binary;
            let key = match op {
                Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => json::order(),
                _ => json::comparable(),
            };
            let [left, right] = [left, right].map(|side| key.call(vec![*side]));
            Transformed::yes(binary_expr(left, op, right))
        }
        Expr::Case(mut case) => {
            let operand = case.expr.as_deref_mut();
            let operand = operand.filter(|operand| json_of(operand, schema) == Some(Type::JSONB));
            let compared = operand.is_some();
            let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            for side in operand.into_iter().chain(whens).filter(|_| compared) {
                *side = json::comparable().call(vec![std::mem::take(side)]);
            }
            let Some(pg) = results(&case).find_map(|result| json_of(result, schema)) else {
                return Ok(Transformed::new_transformed(Expr::Case(case), compared));
            };
            let then = case.when_then_expr.iter_mut().map(|(_, then)| then);
            for result in then.chain(&mut case.else_expr) {
                **result = taken_as(std::mem::take(&mut **result), &pg, schema);
            }
            Transformed::yes(json::known(&pg).call(vec![Expr::Case(case)]))
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if matches!(func.name(), "coalesce" | "nullif") =>
        {
            let Some(pg) = args.iter().find_map(|arg| json_of(arg, schema)) else {
                return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })));
            };
            let args: Vec<Expr> = args.into_iter().map(|arg| taken_as(arg, &pg, schema)).collect();
            let unless = match args.as_slice() {
                [value, other] if func.name() == "nullif" => Some(unless_equal(value, other)),
                _ => None,
            };
            let chosen = unless.unwrap_or_else(|| func.call(args));
            Transformed::yes(json::known(&pg).call(vec![chosen]))
        }
        Expr::ScalarSubquery(subquery) => {
            let field = subquery.subquery.schema().fields().first();
            match field.and_then(|field| json_type(field)) {
                Some(pg) => {
                    let value = Expr::ScalarSubquery(subquery);
                    Transformed::yes(json::known(&pg).call(vec![value]))
                }
                None => Transformed::no(Expr::ScalarSubquery(subquery)),
            }
        }
        other => Transformed::no(other),
    })
}

/// `nullif` of values that are compared as JSON is.
fn unless_equal(value: &Expr, other: &Expr) -> Expr {
    let [one, another] = [value, other].map(|side| json::comparable().call(vec![side.clone()]));
    let null = lit(ScalarValue::Utf8View(None));
    let when_then_expr = vec![(Box::new(one.eq(another)), Box::new(null))];
    Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(value.clone())) })
}

/// UNION of JSON and of texts in quotes, which are JSON there.
pub(super) fn of_union(union: Union) -> Result<Transformed<LogicalPlan>> {
    let types: Vec<Option<Type>> = (0..union.schema.fields().len())
        .map(|at| {
            let mut fields = union.inputs.iter().map(|input| input.schema().field(at));
            fields.find_map(|field| json_type(field))
        })
        .collect();
    let is_other = |field: &Field, pg: &Option<Type>| {
        pg.is_some() && json_type(field) != *pg && is_text(field.data_type())
    };
    let mut changed = false;
    let mut inputs = Vec::new();
    for input in &union.inputs {
        let fields = input.schema().fields().iter().zip(&types);
        if !fields.clone().any(|(field, pg)| is_other(field, pg)) {
            inputs.push(input.clone());
            continue;
        }
        changed = true;
        let columns = input.schema().columns().into_iter().zip(fields);
        let columns = columns.map(|(column, (field, pg))| match pg {
            Some(kind) if is_other(field, pg) => {
                let (relation, name) = (column.relation.clone(), column.name.clone());
                read(Expr::Column(column), kind).alias_qualified(relation, name)
            }
            _ => Expr::Column(column),
        });
        let columns: Vec<Expr> = columns.collect();
        let plan = LogicalPlanBuilder::from(input.as_ref().clone()).project(columns)?.build()?;
        inputs.push(Arc::new(plan));
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    Union::try_new_with_loose_types(inputs).map(|union| Transformed::yes(LogicalPlan::Union(union)))
}
