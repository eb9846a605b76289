//! Functions in FROM: PostgreSQL takes any there, and names the column after the alias.

use std::ops::ControlFlow;

use sqlparser::ast::{
    DataType, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query,
    Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor,
    TableFunctionArgs, TableSample, TableSampleKind, TableSampleMethod, TableSampleQuantity,
    TableWithJoins, Value, VisitorMut,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::super::functions;
use super::build::{call, cast, normal, number};
use super::dialect::is_special;
use crate::engine::visit::{visit_expressions, visit_mut};

/// Known to the engine as table functions with one column.
const SERIES: &[&str] = &["generate_series", "range"];

/// Rows of the parts that another function gives as an array.
pub const STRING_TO_TABLE: &str = "string_to_table";

/// Schemas of functions that only this server has.
const OWN_SCHEMAS: &[&str] = &["oribi", "zk"];

/// A list here, rows in PostgreSQL.
pub const LISTENING: &str = "pg_listening_channels";

pub fn rewrite(factor: &mut TableFactor) {
    without_lateral(factor);
    match factor {
        TableFactor::Table { args: None, version: None, sample: Some(sample), .. } => {
            if let Some(sampled) = part_of(sample).and_then(|part| sampled(factor, part)) {
                *factor = sampled;
            }
        }
        TableFactor::Table { name, alias, args: Some(args), with_ordinality: false, .. } => {
            let Some(name) = single(name) else { return };
            let Some(args) = plain(&args.args) else { return };
            let alias = alias.take();
            if SERIES.contains(&name.as_str()) && args.iter().any(has_columns) {
                // The engine's table functions take constants.
                let alias = with_column(alias.unwrap_or_else(|| named(&name)));
                *factor = derived(vec![call("unnest", vec![call(&name, args)])], alias);
                set_lateral(factor);
            } else if SERIES.contains(&name.as_str()) {
                let alias = alias.unwrap_or_else(|| named(&name));
                restore(factor, Some(with_column(alias)));
            } else if name == STRING_TO_TABLE {
                let parts = call("string_to_array", args);
                *factor = unnest(vec![parts], alias.unwrap_or_else(|| named(&name)));
            } else if let Some((columns, lists)) = of_json(&name, &args) {
                let mut alias = alias.unwrap_or_else(|| named(&name));
                let missing = columns.iter().skip(alias.columns.len());
                alias.columns.extend(missing.map(|name| column(name)));
                if lists.iter().all(|list| list.items.is_none()) {
                    *factor = unnest(lists.into_iter().map(|list| list.list).collect(), alias);
                } else {
                    let alias = with_column(alias);
                    *factor = derived(lists.into_iter().map(List::rows).collect(), alias);
                    if args.iter().any(has_columns) {
                        set_lateral(factor);
                    }
                }
            } else if name == "unnest" {
                *factor = unnest(args, alias.unwrap_or_else(|| named("unnest")));
            } else if name == LISTENING {
                let list = vec![call(&name, args)];
                *factor = unnest(list, alias.unwrap_or_else(|| named(&name)));
            } else if functions::names().contains(&name) {
                let alias = alias.unwrap_or_else(|| named(&name));
                let lateral = args.iter().any(has_columns);
                *factor = derived(vec![call(&name, args)], with_column(alias));
                if lateral {
                    set_lateral(factor);
                } else if functions::is_volatile(&name) {
                    keep_columns(factor);
                }
            } else {
                restore(factor, alias);
            }
        }
        TableFactor::Table { name, alias, args: Some(args), with_ordinality: true, .. } => {
            let Some(name) = single(name) else { return };
            let Some(args) = plain(&args.args) else { return };
            if let Some((columns, lists)) = of_json(&name, &args) {
                let mut alias = alias.take().unwrap_or_else(|| named(&name));
                let own = alias.name.value.clone();
                let columns = if columns.is_empty() { vec![own.as_str()] } else { columns };
                let columns = columns.into_iter().chain(["ordinality"]).skip(alias.columns.len());
                alias.columns.extend(columns.map(column));
                let lateral = args.iter().any(has_columns);
                let numbers = numbers_of(&lists[0].list);
                let rows = lists.into_iter().map(List::rows).chain([numbers]);
                *factor = derived(rows.collect(), alias);
                if lateral {
                    set_lateral(factor);
                }
                return;
            }
            if !SERIES.contains(&name.as_str()) {
                return;
            }
            // The engine's table functions take constants.
            if args.iter().any(has_columns) {
                let alias = with_ordinality(alias.take().unwrap_or_else(|| named(&name)));
                *factor = derived(numbered_array(call(&name, args)), alias);
                set_lateral(factor);
                return;
            }
            let Some(subquery) = numbered(&call(&name, args)) else { return };
            let alias = with_ordinality(alias.take().unwrap_or_else(|| named(&name)));
            let lateral = false;
            *factor = TableFactor::Derived { lateral, subquery, alias: Some(alias), sample: None };
        }
        TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
            let taken = alias.take().unwrap_or_else(|| named("unnest"));
            match (*with_ordinality, array_exprs.as_slice()) {
                (false, _) => *alias = Some(with_column(taken)),
                (true, [array]) => {
                    let alias = self::with_ordinality(taken);
                    let lateral = has_columns(array);
                    *factor = derived(numbered_array(array.clone()), alias);
                    if lateral {
                        set_lateral(factor);
                    }
                }
                (true, _) => *alias = Some(taken),
            }
        }
        _ => {}
    }
}

/// Functions that give a list, and in PostgreSQL rows of JSON's members, each with the name of its column.
const OF_JSON: &[(&str, Option<&str>)] = &[
    ("json_array_elements", Some("value")),
    ("json_array_elements_text", Some("value")),
    ("jsonb_array_elements", Some("value")),
    ("jsonb_array_elements_text", Some("value")),
    ("json_object_keys", None),
    ("jsonb_object_keys", None),
];

/// Whether a function gives rows of JSON's members.
pub fn is_of_json(name: &str) -> bool {
    OF_JSON.iter().any(|(known, _)| *known == name)
}

/// An expression whose items are rows.
struct List {
    list: Expr,
    /// The function that has them known as what they are.
    items: Option<&'static str>,
}

impl List {
    fn rows(self) -> Expr {
        let rows = call("unnest", vec![self.list]);
        match self.items {
            Some(known) => call(known, vec![rows]),
            None => rows,
        }
    }
}

/// The columns and lists that stand for rows of JSON's members.
fn of_json(name: &str, args: &[Expr]) -> Option<(Vec<&'static str>, Vec<List>)> {
    let normal = name.starts_with("jsonb_");
    let args: Vec<Expr> = match args.iter().cloned() {
        args if normal => args.map(|arg| call("jsonb_form", vec![arg])).collect(),
        args => args.collect(),
    };
    let texts = |name: &str| List { list: call(name, args.clone()), items: None };
    let values = |name: &str| {
        let items = Some(if normal { "as_jsonb" } else { "as_json" });
        List { items, ..texts(name) }
    };
    let each = name.strip_prefix("jsonb").or_else(|| name.strip_prefix("json"));
    Some(match each {
        Some("_each") => {
            (vec!["key", "value"], vec![texts("json_object_keys"), values("json_object_values")])
        }
        Some("_each_text") => (
            vec!["key", "value"],
            vec![texts("json_object_keys"), texts("json_object_values_text")],
        ),
        _ => {
            let (_, column) = OF_JSON.iter().find(|(known, _)| *known == name)?;
            let list = match column.is_some() && !name.ends_with("_text") {
                true => values(name),
                false => texts(name),
            };
            (column.iter().copied().collect(), vec![list])
        }
    })
}

/// In a SELECT that reads `json_array_elements(...) AS e`, `e` is the value, as `e.value` is.
pub fn name_values(query: &mut Query) {
    match query.body.as_mut() {
        SetExpr::Select(select) => {
            if let Some(mut values) = values_of(&select.from) {
                values.keep_names(select);
                let _ = visit_mut(query, &mut values);
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_values_of_side(left);
            name_values_of_side(right);
        }
        _ => {}
    }
}

fn name_values_of_side(side: &mut SetExpr) {
    match side {
        SetExpr::Select(select) => {
            if let Some(mut values) = values_of(&select.from) {
                values.keep_names(select);
                values.inner = 1;
                let _ = visit_mut(select.as_mut(), &mut values);
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_values_of_side(left);
            name_values_of_side(right);
        }
        _ => {}
    }
}

/// The names in FROM that stand for values; `None` if there are none.
fn values_of(from: &[TableWithJoins]) -> Option<Values> {
    let joined = from.iter().flat_map(|table| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    });
    let aliases: Vec<Ident> = joined
        .filter_map(|factor| {
            let (name, alias) = match factor {
                TableFactor::Table { name, alias: Some(alias), args: Some(_), .. }
                | TableFactor::Function { name, alias: Some(alias), .. } => (name, alias),
                _ => return None,
            };
            let name = single(name)?;
            let valued = name.contains("_array_elements") && is_of_json(&name);
            (valued && alias.columns.is_empty()).then(|| alias.name.clone())
        })
        .collect();
    (!aliases.is_empty()).then_some(Values { aliases, inner: 0 })
}

/// Puts the column of a value in the place of the name that stands for it. Not in queries within that read
/// tables: there it may be one of their columns.
struct Values {
    aliases: Vec<Ident>,
    /// How many of these queries it is in.
    inner: usize,
}

impl Values {
    fn has(&self, ident: &Ident) -> bool {
        self.aliases.iter().any(|alias| normal(alias) == normal(ident))
    }

    /// The column is called as it is written.
    fn keep_names(&self, select: &mut Select) {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Identifier(ident)) = item
                && self.has(ident)
            {
                let (expr, alias) = (Expr::Identifier(ident.clone()), ident.clone());
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
        }
    }
}

impl VisitorMut for Values {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.inner += usize::from(reads_tables(query));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.inner -= usize::from(reads_tables(query));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            // The query itself is the first.
            && self.inner <= 1
            && self.has(ident)
        {
            *expr = Expr::CompoundIdentifier(vec![ident.clone(), Ident::new("value")]);
        }
        ControlFlow::Continue(())
    }
}

fn reads_tables(query: &Query) -> bool {
    !matches!(query.body.as_ref(), SetExpr::Select(select) if select.from.is_empty())
}

/// The part of a table's rows that TABLESAMPLE asks for, whichever they are; `None` for another form of it, and
/// for the same rows again and again.
fn part_of(sample: &TableSampleKind) -> Option<f64> {
    let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
        sample;
    let TableSample {
        name: Some(TableSampleMethod::Bernoulli | TableSampleMethod::System),
        quantity: Some(TableSampleQuantity { value: Expr::Value(percent), unit: None, .. }),
        seed: None,
        bucket: None,
        offset: None,
        ..
    } = sample.as_ref()
    else {
        return None;
    };
    let Value::Number(percent, _) = &percent.value else { return None };
    let part = percent.parse::<f64>().ok()? / 100.0;
    (0.0..=1.0).contains(&part).then_some(part)
}

/// Some of a table's rows: each is looked at by itself, for SYSTEM as for BERNOULLI.
fn sampled(factor: &TableFactor, part: f64) -> Option<TableFactor> {
    let mut whole = factor.clone();
    let TableFactor::Table { name, alias, sample, .. } = &mut whole else { return None };
    let own = name.0.last()?.as_ident()?.clone();
    let own = TableAlias { explicit: true, name: own, columns: Vec::new(), at: None };
    let alias = Some(alias.take().unwrap_or(own));
    *sample = None;
    let sql = format!("SELECT * FROM {whole} WHERE random() < {part}");
    let Statement::Query(subquery) = Parser::parse_sql(&PostgreSqlDialect {}, &sql).ok()?.pop()?
    else {
        return None;
    };
    Some(TableFactor::Derived { lateral: false, subquery, alias, sample: None })
}

/// `LATERAL f(...)`: a function may refer to what stands before it in any case.
fn without_lateral(factor: &mut TableFactor) {
    let TableFactor::Function { name, args, alias, with_ordinality, .. } = factor else { return };
    let (name, args, alias) = (name.clone(), args.clone(), alias.take());
    let with_ordinality = *with_ordinality;
    if single(&name).is_some_and(|name| name == "unnest")
        && let Some(array_exprs) = plain(&args)
    {
        let (with_offset, with_offset_alias) = (false, None);
        *factor = TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset,
            with_offset_alias,
            with_ordinality,
        };
        return;
    }
    let args = Some(TableFunctionArgs { args, settings: None });
    *factor = TableFactor::Table {
        name,
        alias,
        args,
        with_hints: Vec::new(),
        version: None,
        with_ordinality,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
}

/// Whether an expression is of columns, which can only be those of what stands before it.
fn has_columns(expr: &Expr) -> bool {
    let mut found = false;
    visit_expressions(expr, |expr| {
        found |= match expr {
            Expr::Identifier(ident) => !is_special(ident),
            other => matches!(other, Expr::CompoundIdentifier(_)),
        };
    });
    found
}

fn set_lateral(factor: &mut TableFactor) {
    if let TableFactor::Derived { lateral, .. } = factor {
        *lateral = true;
    }
}

/// Functions in schemas of this server's own: the engine has them by one name.
pub fn own_function(name: &mut ObjectName, alias: &mut Option<TableAlias>) {
    let [schema, function] = name.0.as_slice() else { return };
    let (Some(schema), Some(function)) = (schema.as_ident(), function.as_ident()) else { return };
    let (schema, function) = (normal(schema), normal(function));
    if OWN_SCHEMAS.contains(&schema.as_str()) {
        alias.get_or_insert_with(|| named(&function));
        *name = ObjectName::from(vec![Ident::new(format!("{schema}_{function}"))]);
    }
}

/// The call of a function of one column as a table of that name, as if it stood in FROM.
pub fn function_in_from(function: &Function) -> Option<TableFactor> {
    let sql = format!("SELECT 1 FROM {function}");
    let mut parsed = Parser::parse_sql(&PostgreSqlDialect {}, &sql).ok()?;
    let Some(Statement::Query(query)) = parsed.pop() else { return None };
    let SetExpr::Select(mut select) = *query.body else { return None };
    let mut factor = select.from.pop()?.relation;
    if let TableFactor::Table { alias, name, .. } = &mut factor {
        *alias = Some(with_column(named(&single(name)?)));
    }
    Some(factor)
}

fn restore(factor: &mut TableFactor, taken: Option<TableAlias>) {
    if let TableFactor::Table { alias, .. } = factor {
        *alias = taken;
    }
}

fn single(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [name] => name.as_ident().map(normal),
        _ => None,
    }
}

fn plain(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    (args.iter())
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

fn named(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(name), columns: Vec::new(), at: None }
}

fn column(name: &str) -> TableAliasColumnDef {
    TableAliasColumnDef { name: Ident::new(name), data_type: None }
}

/// The only column is called as the table, unless it has a name of its own.
fn with_column(mut alias: TableAlias) -> TableAlias {
    if alias.columns.is_empty() {
        let name = alias.name.clone();
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
    alias
}

/// The value's column is called as the table, and the number's `ordinality`, unless they have names of their
/// own.
fn with_ordinality(mut alias: TableAlias) -> TableAlias {
    let defaults = [alias.name.value.clone(), "ordinality".to_owned()];
    let missing = defaults.iter().skip(alias.columns.len()).map(|default| column(default));
    alias.columns.extend(missing);
    alias
}

/// The values of an array, each with its number.
fn numbered_array(array: Expr) -> Vec<Expr> {
    let numbers = numbers_of(&array);
    vec![call("unnest", vec![array]), numbers]
}

/// The number of each value of an array.
fn numbers_of(array: &Expr) -> Expr {
    let numbers = call("array_subscripts", vec![array.clone(), number(1)]);
    cast(call("unnest", vec![numbers]), DataType::BigInt(None))
}

/// The rows of a call in FROM, each with its number.
fn numbered(call: &Expr) -> Option<Box<Query>> {
    let sql = format!("SELECT s, row_number() OVER () FROM {call} AS s");
    match Parser::parse_sql(&PostgreSqlDialect {}, &sql).ok()?.pop()? {
        Statement::Query(query) => Some(query),
        _ => None,
    }
}

fn unnest(arrays: Vec<Expr>, alias: TableAlias) -> TableFactor {
    TableFactor::UNNEST {
        alias: Some(with_column(alias)),
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// `(SELECT columns) AS alias`.
fn derived(columns: Vec<Expr>, alias: TableAlias) -> TableFactor {
    let (mut query, mut select) = empty_query();
    select.projection = columns.into_iter().map(SelectItem::UnnamedExpr).collect();
    query.body = Box::new(SetExpr::Select(select));
    let (subquery, alias) = (Box::new(query), Some(alias));
    TableFactor::Derived { lateral: false, subquery, alias, sample: None }
}

/// Has the columns of a row computed though nobody reads them: the engine would leave out the call.
fn keep_columns(derived: &mut TableFactor) {
    if let TableFactor::Derived { subquery, .. } = derived
        && let SetExpr::Select(select) = subquery.body.as_mut()
    {
        select.distinct = Some(Distinct::Distinct);
    }
}

/// The many parts that a query may have, all of them missing.
fn empty_query() -> (Query, Box<Select>) {
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, "SELECT NULL").ok();
    match parsed.and_then(|mut statements| statements.pop()) {
        Some(Statement::Query(query)) => match *query.body.clone() {
            SetExpr::Select(select) => (*query, select),
            _ => unreachable!("SELECT NULL is a SELECT"),
        },
        _ => unreachable!("SELECT NULL is a query"),
    }
}
