//! Joins that merge columns, with USING or NATURAL: which columns they have, and what these are. The
//! engine takes a merged column for the left side's, finds it ambiguous in WHERE, and leaves it in
//! its place in `*`, where PostgreSQL has it first.
//!
//! What can be told from the text alone is put right by [`name_sides`]; what takes the tables'
//! columns by [`spell_out`].

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{
    BinaryOperator, Cte, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query,
    Select, SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableWithJoins, VisitorMut,
    With,
};

use super::parse::parse_one;
use super::visit::visit_mut;
use super::{as_of, records, stars};

/// A column of what stands behind FROM.
struct Column {
    name: String,
    value: Expr,
    merged: bool,
    /// The engine takes it for something else.
    other: bool,
}

/// Writes `*` as the columns that joins have, and NATURAL as USING. `columns` gives those of a query
/// by name, if it can be planned by itself. Returns whether there may be columns of one name for a `*`.
pub(super) fn spell_out(
    statement: &mut EngineStatement,
    columns: &dyn Fn(Query) -> Option<Vec<String>>,
) -> bool {
    let mut speller = Speller { levels: Vec::new(), columns, forced: false, may_clash: false };
    if let Some(statement) = as_of::sql(statement) {
        let _ = visit_mut(statement, &mut speller);
    }
    speller.may_clash
}

/// Writes `*` as columns wherever some may have one name, and tells these apart.
pub(super) fn tell_apart(
    statement: &mut EngineStatement,
    columns: &dyn Fn(Query) -> Option<Vec<String>>,
) {
    let mut speller = Speller { levels: Vec::new(), columns, forced: true, may_clash: false };
    if let Some(statement) = as_of::sql(statement) {
        let _ = visit_mut(statement, &mut speller);
    }
}

/// A column of a table, and how it is referred to.
type Reference = (String, Expr);

/// A query's WITH.
#[derive(Default)]
struct Level {
    with: Option<With>,
    /// The columns of its queries as far as they are known, by these queries' names. Only what is told
    /// apart already stays here: to ask the planner for each again takes the square of their number.
    columns: HashMap<String, Vec<String>>,
}

impl Level {
    fn has(&self, name: &str) -> bool {
        let tables = self.with.iter().flat_map(|with| &with.cte_tables);
        tables.into_iter().any(|table| folded(&table.alias.name) == name)
    }
}

struct Speller<'a> {
    /// Of the queries around this place, outer ones first.
    levels: Vec<Level>,
    columns: &'a dyn Fn(Query) -> Option<Vec<String>>,
    /// See [`tell_apart`].
    forced: bool,
    /// See [`spell_out`].
    may_clash: bool,
}

impl VisitorMut for Speller<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // Queries of a WITH come before what refers to them.
        let Some(mut with) = query.with.take() else {
            self.levels.push(Level::default());
            return ControlFlow::Continue(());
        };
        if self.forced && !with.recursive {
            // What comes before may be what has to be put right.
            let tables = std::mem::take(&mut with.cte_tables);
            self.levels.push(Level { with: Some(with), columns: HashMap::new() });
            for mut table in tables {
                let _ = visit_mut(&mut table.query, self);
                self.put_into_with(table);
            }
            return ControlFlow::Continue(());
        }
        self.levels.push(Level { with: Some(with.clone()), columns: HashMap::new() });
        for table in &mut with.cte_tables {
            let _ = visit_mut(&mut table.query, self);
        }
        if let Some(level) = self.levels.last_mut() {
            *level = Level { with: Some(with), columns: HashMap::new() };
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.with = self.levels.pop().and_then(|level| level.with);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.put_rows(select);
        let nested = self.levels.len() > 1;
        let may_clash = stars::may_clash(select, nested);
        self.may_clash |= may_clash;
        let forced = self.forced && may_clash;
        let merging: Vec<_> = select.from.iter().flat_map(merging).collect();
        let natural = merging.iter().any(|(how, _)| matches!(how, JoinConstraint::Natural));
        let outer = merging.iter().any(|(_, kind)| matches!(kind, Kind::Right | Kind::Full));
        let all = !merging.is_empty() && select.projection.iter().any(is_star);
        let needed = forced || natural || all || outer && merging.len() > 1;
        if !needed {
            return ControlFlow::Continue(());
        }
        let (tables, mut own) = (select.from.iter_mut(), Vec::new());
        let columns: Option<Vec<Vec<Column>>> =
            tables.map(|table| self.joined(table, &mut own)).collect();
        let Some(columns) = columns else {
            if forced {
                stars::mark_unnamed(&mut select.projection);
            }
            return ControlFlow::Continue(());
        };
        let columns = || columns.iter().flatten();
        let merged = columns().filter(|column| column.merged);
        let merged = merged.map(|column| (column.name.clone(), column.value.clone())).collect();
        put_values(select, merged, columns().any(|column| column.other));
        if forced {
            let all = columns().map(|column| (column.name.clone(), column.value.clone()));
            stars::spell_out(select, &all.collect::<Vec<_>>(), &own);
            return ControlFlow::Continue(());
        }
        let items: Vec<SelectItem> = columns().map(Column::item).collect();
        let alone = select.projection.len() == 1;
        let list = std::mem::take(&mut select.projection).into_iter();
        let list = list.flat_map(|item| if is_star(&item) { items.clone() } else { vec![item] });
        select.projection = list.collect();
        // What is alone is asked for by its names only where it is nested.
        if all && (nested || !alone) {
            stars::tell_apart(&mut select.projection);
        }
        ControlFlow::Continue(())
    }
}

impl Speller<'_> {
    /// Rows in the place of tables' names, where these are no columns'.
    fn put_rows(&mut self, select: &mut Select) {
        let names = records::asked_for(select);
        if names.is_empty() {
            return;
        }
        let tables = select.from.iter_mut();
        let tables = tables.flat_map(|table| {
            let joined = table.joins.iter_mut().map(|join| &mut join.relation);
            std::iter::once(&mut table.relation).chain(joined)
        });
        let mut rows = HashMap::new();
        let mut others = Vec::new();
        for factor in tables {
            let Some(name) = name(factor) else { continue };
            let Some(columns) = self.of(factor, &mut Vec::new()) else { continue };
            let columns: Vec<String> = columns.into_iter().map(|column| column.name).collect();
            others.extend(columns.clone());
            rows.insert(folded(&name), columns);
        }
        rows.retain(|name, _| !others.contains(name));
        records::put(select, &rows);
    }

    /// The columns of a table and what it is joined with; `None` if they are not known, or the engine
    /// has to say what is wrong. `own` gets those of each table in its own order, which no join has merged.
    fn joined(
        &mut self,
        table: &mut TableWithJoins,
        own: &mut Vec<Reference>,
    ) -> Option<Vec<Column>> {
        let mut left = self.of(&mut table.relation, own)?;
        for join in &mut table.joins {
            let mut right = self.of(&mut join.relation, own)?;
            let (how, kind) = sides(&join.join_operator)?;
            let names: Vec<String> = match how {
                JoinConstraint::On(_) | JoinConstraint::None => Vec::new(),
                JoinConstraint::Using(names) => names.iter().map(key).collect::<Option<_>>()?,
                JoinConstraint::Natural => {
                    let both = |column: &&Column| right.iter().any(|r| r.name == column.name);
                    left.iter().filter(both).map(|column| column.name.clone()).collect()
                }
            };
            if matches!(how, JoinConstraint::Natural) && !names.is_empty() {
                let quoted = |name: &String| ObjectName::from(vec![Ident::with_quote('"', name)]);
                *constraint(&mut join.join_operator)? =
                    JoinConstraint::Using(names.iter().map(quoted).collect());
            }
            let (mut all, mut pairs, mut others) = (Vec::new(), Vec::new(), false);
            for name in names {
                let (left, right) = (taken(&mut left, &name)?, taken(&mut right, &name)?);
                pairs.push(equal(left.value.clone(), right.value.clone()));
                others |= left.other || right.other;
                let other = left.other || right.other || matches!(kind, Kind::Right | Kind::Full);
                let value = kind.value(left.value, right.value);
                all.push(Column { name, value, merged: true, other });
            }
            if others && let Some(condition) = pairs.into_iter().reduce(and) {
                *constraint(&mut join.join_operator)? = JoinConstraint::On(condition);
            }
            all.extend(left);
            all.extend(right);
            left = all;
        }
        Some(left)
    }

    fn of(&mut self, factor: &mut TableFactor, own: &mut Vec<Reference>) -> Option<Vec<Column>> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            return self.joined(table_with_joins, own);
        }
        let table = name(factor)?;
        let column = |name: String| {
            let parts = vec![table.clone(), Ident::with_quote('"', &name)];
            let value = Expr::CompoundIdentifier(parts);
            Column { name, value, merged: false, other: false }
        };
        let columns: Vec<Column> = self.names(factor)?.into_iter().map(column).collect();
        own.extend(columns.iter().map(|column| (column.name.clone(), column.value.clone())));
        Some(columns)
    }

    /// The names of a table's columns.
    fn names(&mut self, factor: &TableFactor) -> Option<Vec<String>> {
        let name = plain_name(factor);
        let within = |name: &String| self.levels.iter().rposition(|level| level.has(name));
        // No WITH has to be planned for a table of the catalog.
        let level = name.as_ref().map(within);
        let mut query = all_of(factor.clone())?;
        if let (Some(name), Some(Some(at))) = (&name, level)
            && let Some(known) = self.levels[at].columns.get(name)
        {
            return Some(known.clone());
        }
        if level != Some(None) {
            let withs = self.levels.iter().rev().filter_map(|level| level.with.as_ref());
            let withs = withs.filter(|with| !with.cte_tables.is_empty());
            for (depth, with) in withs.enumerate() {
                if depth > 0 {
                    query = self::within(query, "t")?;
                }
                query.with = Some(with.clone());
            }
        }
        let columns = (self.columns)(query)?;
        if self.forced
            && let (Some(name), Some(Some(at))) = (name, level)
        {
            self.levels[at].columns.insert(name, columns.clone());
        }
        Some(columns)
    }

    /// Puts a query that has been put right itself into the WITH around this place.
    fn put_into_with(&mut self, table: Cte) {
        let columns = stars::listed(&table);
        let Some(level) = self.levels.last_mut() else { return };
        if let Some(columns) = columns {
            level.columns.insert(folded(&table.alias.name), columns);
        }
        level.with.iter_mut().for_each(|with| with.cte_tables.push(table.clone()));
    }
}

/// What a table is called that may be a query of a WITH, if nothing but another name is said of it.
fn plain_name(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { name, alias, args: None, version: None, sample: None, .. }
            if alias.as_ref().is_none_or(|alias| alias.columns.is_empty()) =>
        {
            key(name)
        }
        _ => None,
    }
}

/// `SELECT * FROM` a table.
fn all_of(table: TableFactor) -> Option<Query> {
    let EngineStatement::Statement(statement) = parse_one("SELECT * FROM t").ok()?.statement else {
        return None;
    };
    let Statement::Query(mut query) = *statement else { return None };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    select.from.first_mut()?.relation = table;
    Some(*query)
}

/// A query as the only table of another, under a name.
pub(super) fn within(query: Query, name: &str) -> Option<Query> {
    let subquery = Box::new(query);
    let alias = Some(alias(name));
    all_of(TableFactor::Derived { lateral: false, subquery, alias, sample: None })
}

fn alias(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(name), columns: Vec::new(), at: None }
}

impl Column {
    fn item(&self) -> SelectItem {
        let expr = self.value.clone();
        match expr {
            Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(expr),
            _ => SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', &self.name) },
        }
    }
}

/// Takes the one column of a name.
fn taken(columns: &mut Vec<Column>, name: &str) -> Option<Column> {
    let at = columns.iter().position(|column| column.name == name)?;
    let column = columns.remove(at);
    (!columns.iter().any(|other| other.name == name)).then_some(column)
}

pub(super) fn is_star(item: &SelectItem) -> bool {
    let SelectItem::Wildcard(options) = item else { return false };
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
}

/// Names the side, or both, that the merged columns of a SELECT's joins come from.
pub fn name_sides(select: &mut Select) {
    let mut columns = HashMap::new();
    let mut other_sides = false;
    for table in &select.from {
        other_sides |= merge(table, &mut columns);
    }
    if !columns.is_empty() {
        put_values(select, columns, other_sides);
    }
}

/// Puts the values of merged columns in the place of their names where the engine needs it, or, if
/// some are not the left side's, everywhere.
fn put_values(select: &mut Select, columns: HashMap<String, Expr>, other_sides: bool) {
    let mut merged = Merged { columns, depth: 0 };
    if let Some(condition) = &mut select.selection {
        let _ = visit_mut(condition, &mut merged);
    }
    if !other_sides {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item {
            let (name, expr) = (name.clone(), Expr::Identifier(name.clone()));
            *item = SelectItem::ExprWithAlias { expr, alias: name };
        }
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = visit_mut(expr, &mut merged);
        }
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        for key in keys {
            let _ = visit_mut(key, &mut merged);
        }
    }
    if let Some(condition) = &mut select.having {
        let _ = visit_mut(condition, &mut merged);
    }
}

/// Adds the columns that the joins of a table merge. Returns whether any is not the left side's.
fn merge(table: &TableWithJoins, columns: &mut HashMap<String, Expr>) -> bool {
    let mut other_sides = false;
    // The side of a column is known as long as there is one table, or once it is merged.
    let mut single = name(&table.relation);
    for Join { relation, join_operator, .. } in &table.joins {
        let right = name(relation);
        if let Some((JoinConstraint::Using(names), kind)) = sides(join_operator) {
            for column in names.iter().filter_map(|name| name.0.last()?.as_ident()) {
                let of =
                    |table: &Ident| Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
                let known = columns.get(&folded(column)).cloned();
                let left = known.or_else(|| single.as_ref().map(of));
                let (left, right) = (left, right.as_ref().map(of));
                other_sides |= matches!(kind, Kind::Right | Kind::Full);
                let value = match kind {
                    Kind::Inner | Kind::Right => right,
                    Kind::Left => left,
                    Kind::Full => left.zip(right).map(|(left, right)| kind.value(left, right)),
                };
                if let Some(value) = value {
                    columns.insert(folded(column), value);
                }
            }
        }
        single = None;
    }
    other_sides
}

#[derive(Clone, Copy)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

impl Kind {
    /// What a merged column is.
    fn value(self, left: Expr, right: Expr) -> Expr {
        match self {
            // Both are the same.
            Self::Inner | Self::Left => left,
            Self::Right => right,
            Self::Full => call("coalesce", vec![left, right]),
        }
    }
}

/// How a join finds its rows, and which of them; `None` for those that have one side's columns only.
fn sides(operator: &JoinOperator) -> Option<(&JoinConstraint, Kind)> {
    Some(match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint) => (constraint, Kind::Inner),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
            (constraint, Kind::Left)
        }
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            (constraint, Kind::Right)
        }
        JoinOperator::FullOuter(constraint) => (constraint, Kind::Full),
        _ => return None,
    })
}

/// The joins of a table that merge columns.
fn merging(table: &TableWithJoins) -> Vec<(&JoinConstraint, Kind)> {
    let tables = [&table.relation].into_iter().chain(table.joins.iter().map(|join| &join.relation));
    let nested = tables.filter_map(|table| match table {
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            Some(merging(table_with_joins))
        }
        _ => None,
    });
    let own = table.joins.iter().filter_map(|join| sides(&join.join_operator));
    let merges =
        |how: &JoinConstraint| matches!(how, JoinConstraint::Using(_) | JoinConstraint::Natural);
    nested.flatten().chain(own.filter(|(how, _)| merges(how))).collect()
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn key(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [name] => name.as_ident().map(folded),
        _ => None,
    }
}

pub(super) fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

fn equal(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

/// A call of a function.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)));
    Expr::Function(Function {
        name: vec![Ident::new(name)].into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// What a table is called in the statement.
fn name(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, alias: None, args: None, .. } => {
            name.0.last()?.as_ident().cloned()
        }
        _ => None,
    }
}

/// Puts the values of merged columns in the place of their names; not within subqueries, which may
/// have columns of these names.
struct Merged {
    columns: HashMap<String, Expr>,
    depth: usize,
}

impl VisitorMut for Merged {
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
            && let Expr::Identifier(name) = expr
            && let Some(value) = self.columns.get(&folded(name))
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn queries_of_a_with_are_planned_once() {
        let mut sql = "WITH c0 AS (SELECT *, 1 AS a FROM t)".to_owned();
        for at in 1..50 {
            sql += &format!(", c{at} AS (SELECT *, 1 AS a FROM c{})", at - 1);
        }
        sql += " SELECT * FROM c49";
        let mut statement = parse_one(&sql).expect("SQL").statement;
        let asked = Cell::new(0);
        tell_apart(&mut statement, &|_| {
            asked.set(asked.get() + 1);
            Some(vec!["a".to_owned()])
        });
        assert_eq!(asked.get(), 1, "{statement}");
    }
}
