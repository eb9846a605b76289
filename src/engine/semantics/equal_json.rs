//! JSON by which rows are grouped, told apart, joined or looked for: two texts are one value if they are
//! equal as `jsonb`, such as `1` and `1.0`, or objects whose members stand in another order. The engine
//! compares texts; so it is given a text that is the same for all that are equal.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, JoinConstraint, Result};
use datafusion::functions_aggregate::expr_fn::min;
use datafusion::logical_expr::expr::{AggregateFunction, Between, InList, InSubquery};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Join, LogicalPlan, LogicalPlanBuilder, Projection, ScalarUDF,
    Subquery, in_list,
};
use postgres_types::Type;

use super::json;
use super::json_types::json_of;
use crate::values::types::json_type;

/// Names of columns that no statement has.
const KEY: &str = "\u{2}json_key";
const FIRST: &str = "\u{2}json";

#[derive(Debug)]
pub(super) struct EqualJson {
    comparable: Arc<ScalarUDF>,
    order: Arc<ScalarUDF>,
}

impl Default for EqualJson {
    fn default() -> Self {
        Self { comparable: json::comparable(), order: json::order() }
    }
}

/// Whether a column is JSON.
pub(super) fn is_json(field: &Field) -> bool {
    json_type(field).is_some()
}

/// Whether an expression is JSON.
pub(super) fn gives_json(expr: &Expr, schema: &DFSchema) -> bool {
    json_of(expr, schema).is_some()
}

pub(super) fn has_json(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|field| is_json(field))
}

impl EqualJson {
    fn key(&self, expr: Expr) -> Expr {
        self.comparable.call(vec![expr])
    }

    /// A step that tells rows apart by JSON.
    pub(super) fn settled(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Distinct(Distinct::All(input)) if has_json(input.schema()) => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                let grouped = Aggregate::try_new(input, columns, Vec::new())?;
                self.grouped(grouped).map(Transformed::yes)
            }
            LogicalPlan::Aggregate(aggregate) if self.groups_json(&aggregate) => {
                self.grouped(aggregate).map(Transformed::yes)
            }
            LogicalPlan::Join(join) => self.joined(join),
            LogicalPlan::Distinct(Distinct::On(mut on)) if has_json(on.input.schema()) => {
                let schema = on.input.schema().clone();
                let key = |expr: Expr| match gives_json(&expr, &schema) {
                    // A plan may be looked at twice: what this gives is a text.
                    true => self.order.call(vec![expr]),
                    false => expr,
                };
                on.on_expr = on.on_expr.into_iter().map(key).collect();
                for sort in on.sort_expr.iter_mut().flatten() {
                    sort.expr = key(std::mem::take(&mut sort.expr));
                }
                Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(on))))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn groups_json(&self, aggregate: &Aggregate) -> bool {
        let sets = aggregate.group_expr.iter().any(|by| matches!(by, Expr::GroupingSet(_)));
        let mut groups = aggregate.schema.fields().iter().take(aggregate.group_expr.len());
        // A plan may be looked at twice.
        !sets && groups.any(|field| is_json(field))
    }

    /// Groups by texts that can be compared; the value of a group is the least of its texts.
    fn grouped(&self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let Aggregate { input, mut group_expr, mut aggr_expr, schema, .. } = aggregate;
        let mut columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        for (at, by) in group_expr.iter_mut().enumerate() {
            if !is_json(schema.field(at)) {
                continue;
            }
            let (key, first) = (format!("{KEY}{at}"), format!("{FIRST}{at}"));
            let value = std::mem::take(by).unalias();
            aggr_expr.push(min(value.clone()).alias(&first));
            *by = self.key(value).alias(key);
            let (qualifier, field) = schema.qualified_field(at);
            let known = json::known(&json_type(schema.field(at)).unwrap_or(Type::JSON));
            let value = known.call(vec![Expr::Column(Column::from_name(first))]);
            columns[at] = value.alias_qualified(qualifier.cloned(), field.name());
        }
        let grouped = Aggregate::try_new(input, group_expr, aggr_expr)?;
        Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(grouped)))
            .map(LogicalPlan::Projection)
    }

    fn joined(&self, mut join: Join) -> Result<Transformed<LogicalPlan>> {
        let (left, right) = (join.left.schema(), join.right.schema());
        if join.on.is_empty() || !has_json(left) && !has_json(right) {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        let mut changed = false;
        let pairs = join.on.iter().map(|(one, other)| {
            if !gives_json(one, left) && !gives_json(other, right) {
                return (one.clone(), other.clone());
            }
            changed = true;
            (self.key(one.clone()), self.key(other.clone()))
        });
        let pairs = pairs.collect();
        if changed {
            join.on = pairs;
            join.join_constraint = JoinConstraint::On;
        }
        Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
    }

    /// A plan with a column for each that is JSON, by which it is compared, and the columns by which rows
    /// are.
    pub(super) fn with_keys(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Column>)> {
        let mut keys = plan.schema().columns();
        if !has_json(plan.schema()) {
            return Ok((plan, keys));
        }
        let mut columns: Vec<Expr> = keys.iter().cloned().map(Expr::Column).collect();
        for (at, key) in keys.iter_mut().enumerate() {
            if is_json(plan.schema().field(at)) {
                let name = format!("{KEY}{at}");
                let own = std::mem::replace(key, Column::from_name(&name));
                columns.push(self.key(Expr::Column(own)).alias(name));
            }
        }
        let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        Ok((plan, keys))
    }

    /// Whether an expression is one that [`Self::compared`] looks at.
    pub(super) fn may_have(expr: &Expr) -> bool {
        match expr {
            Expr::InList(_) | Expr::Between(_) | Expr::InSubquery(_) => true,
            Expr::AggregateFunction(function) => function.params.distinct,
            Expr::WindowFunction(function) => !function.params.partition_by.is_empty(),
            _ => false,
        }
    }

    /// An expression that looks for JSON, or counts different values.
    pub(super) fn compared(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::InList(list)
                if gives_json(&list.expr, schema)
                    || list.list.iter().any(|item| gives_json(item, schema)) =>
            {
                let InList { expr, list, negated } = list;
                let list = list.into_iter().map(|item| self.key(item)).collect();
                Transformed::yes(in_list(self.key(*expr), list, negated))
            }
            Expr::Between(range)
                if [&range.expr, &range.low, &range.high]
                    .iter()
                    .any(|side| gives_json(side, schema)) =>
            {
                let Between { expr, negated, low, high } = range;
                let order = |side: Box<Expr>| Box::new(self.order.call(vec![*side]));
                let [expr, low, high] = [expr, low, high].map(order);
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            Expr::InSubquery(member)
                if gives_json(&member.expr, schema)
                    || member
                        .subquery
                        .subquery
                        .schema()
                        .fields()
                        .first()
                        .is_some_and(|field| is_json(field)) =>
            {
                let InSubquery { expr, subquery, negated } = member;
                let expr = Box::new(self.key(*expr));
                let subquery = self.keys_of(subquery)?;
                Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated }))
            }
            Expr::AggregateFunction(mut function)
                if function.params.distinct && counts_json(&function, schema) =>
            {
                for arg in &mut function.params.args {
                    *arg = self.key(std::mem::take(arg));
                }
                Transformed::yes(Expr::AggregateFunction(function))
            }
            Expr::WindowFunction(mut function) => {
                let mut changed = false;
                for by in &mut function.params.partition_by {
                    if gives_json(by, schema) {
                        *by = self.key(std::mem::take(by));
                        changed = true;
                    }
                }
                Transformed::new_transformed(Expr::WindowFunction(function), changed)
            }
            other => Transformed::no(other),
        })
    }

    fn keys_of(&self, subquery: Subquery) -> Result<Subquery> {
        let plan = subquery.subquery.as_ref().clone();
        let Some(column) = plan.schema().columns().into_iter().next() else { return Ok(subquery) };
        let key = self.key(Expr::Column(column)).alias(KEY);
        let plan = LogicalPlanBuilder::from(plan).project(vec![key])?.build()?;
        Ok(subquery.with_plan(Arc::new(plan)))
    }
}

fn counts_json(function: &AggregateFunction, schema: &DFSchema) -> bool {
    let args = &function.params.args;
    function.func.name() == "count" && args.iter().any(|arg| gives_json(arg, schema))
}
