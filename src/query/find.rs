//! UPDATE, DELETE and MERGE as queries that find rows and say what becomes of them.

use arrow::datatypes::FieldRef;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Merge, MergeAction, MergeClause,
    MergeClauseKind, MergeInsertExpr, MergeInsertKind, ObjectName, OutputClause, SelectItem,
    TableAlias, TableFactor, TableWithJoins, Update, UpdateTableFromKind, With,
};

use super::ddl::{ident, single};
use super::life::Session;
use super::write::{Action, Needs, Planned, cast, default_of, is_default, list_of, quoted};
use super::{Error, Result};
use crate::catalog::{ObjectKind, Privilege};
use crate::engine::{
    Changes, Clause, Deed, NOTHING, SOURCE_COLUMN, Side, TARGET, Target, parse_expressions,
    parse_one,
};
use crate::storage::managed::Overwritten;

impl Session {
    pub(super) async fn plan_delete(
        &self,
        with: Option<&With>,
        delete: &Delete,
        declared: &[Option<FieldRef>],
    ) -> Result<Planned> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let (name, called) = single_table(from)?;
        refuse_order("DELETE", delete.limit.is_some(), !delete.order_by.is_empty())?;
        let needs = |_: &Target| Ok(vec![(Privilege::Delete, None)]);
        let target = self.writable(name, Action::Delete, needs).await?;
        let writer = Writer::new(with, called);
        let clause = Clause {
            side: Side::Both,
            condition: None,
            deed: Some(Deed::Delete),
            columns: Vec::new(),
            values: None,
        };
        let rows = writer.rows(delete.using.as_deref(), delete.selection.as_ref())?;
        let changes = writer.changes(rows, vec![clause], delete.returning.as_deref())?;
        self.planned(target, &changes, declared).await
    }

    pub(super) async fn plan_update(
        &self,
        with: Option<&With>,
        update: &Update,
        declared: &[Option<FieldRef>],
    ) -> Result<Planned> {
        let (name, called) = single_table(std::slice::from_ref(&update.table))?;
        refuse_order("UPDATE", update.limit.is_some(), !update.order_by.is_empty())?;
        let needs = |target: &Target| {
            let names = assigned_names(&update.assignments, target)?;
            Ok(vec![(Privilege::Update, Some(names))])
        };
        let target = self.writable(name, Action::Update, needs).await?;
        let from = update.from.as_ref().map(|from| match from {
            UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from) => {
                from.as_slice()
            }
        });
        let writer = Writer::new(with, called);
        let rows = writer.rows(from, update.selection.as_ref())?;
        let clause = writer.update(Side::Both, None, &update.assignments, &target)?;
        let changes = writer.changes(rows, vec![clause], update.returning.as_deref())?;
        self.planned(target, &changes, declared).await
    }

    pub(super) async fn plan_merge(
        &self,
        with: Option<&With>,
        merge: &Merge,
        declared: &[Option<FieldRef>],
    ) -> Result<Planned> {
        let TableFactor::Table { name, alias, version, .. } = &merge.table else {
            return Err(Error::NotSupported("MERGE INTO something other than a table".to_owned()));
        };
        if version.is_some() {
            return Err(Error::NotSupported("changing a table as it was".to_owned()));
        }
        refuse_unreachable(&merge.clauses)?;
        let needs = |target: &Target| merge_needs(&merge.clauses, target);
        let target = self.writable(name, Action::Merge, needs).await?;
        let writer = Writer::new(with, called(name, alias.as_ref()));
        let clauses = merge.clauses.iter().map(|clause| writer.clause(clause, &target));
        let clauses: Vec<Clause> = clauses.collect::<Result<_>>()?;
        let returning = match &merge.output {
            Some(OutputClause::Returning { select_items, .. }) => Some(select_items.as_slice()),
            Some(other) => return Err(Error::NotSupported(format!("MERGE with {other}"))),
            None => None,
        };
        let rows = writer.merged(merge, &clauses)?;
        let changes = Changes { only_once: true, ..writer.changes(rows, clauses, returning)? };
        self.planned(target, &changes, declared).await
    }

    async fn planned(
        &self,
        target: Target,
        changes: &Changes,
        declared: &[Option<FieldRef>],
    ) -> Result<Planned> {
        let plan = self.engine_session().plan_changes(&target, changes, declared).await?;
        Ok((target, plan, Overwritten::All))
    }
}

type Parsed = datafusion::sql::parser::Statement;

/// Writes the SELECTs of one statement.
struct Writer {
    /// In front of each of them.
    with: String,
    /// The target's name.
    called: String,
}

impl Writer {
    fn new(with: Option<&With>, called: String) -> Self {
        Self { with: with.map_or_else(String::new, |with| format!("{with} ")), called }
    }

    fn select(&self, rest: &str) -> Result<Parsed> {
        Ok(parse_one(&format!("{}SELECT {rest}", self.with))?.statement)
    }

    fn target(&self) -> String {
        format!("{} AS {}", quoted(TARGET), quoted(&self.called))
    }

    /// Rows of the target, joined with others.
    fn rows(&self, others: Option<&[TableWithJoins]>, condition: Option<&Expr>) -> Result<Parsed> {
        let mut sql = format!("* FROM {}", self.target());
        for other in others.unwrap_or_default() {
            sql.push_str(&format!(", {other}"));
        }
        if let Some(condition) = condition {
            sql.push_str(&format!(" WHERE {condition}"));
        }
        self.select(&sql)
    }

    /// Rows of MERGE's source and target, those without a match as far as clauses ask for them.
    fn merged(&self, merge: &Merge, clauses: &[Clause]) -> Result<Parsed> {
        let has = |side| clauses.iter().any(|clause| clause.side == side);
        let join = match (has(Side::Source), has(Side::Target)) {
            (false, false) => "JOIN",
            (true, false) => "LEFT JOIN",
            (false, true) => "RIGHT JOIN",
            (true, true) => "FULL JOIN",
        };
        let source = match &merge.source {
            TableFactor::Table { name, alias, .. } => called(name, alias.as_ref()),
            TableFactor::Derived { alias: Some(alias), .. } => ident(&alias.name),
            TableFactor::Derived { .. } => SOURCE_COLUMN.to_owned(),
            other => return Err(Error::NotSupported(format!("MERGE with {other} as its source"))),
        };
        let mark = quoted(SOURCE_COLUMN);
        self.select(&format!(
            "* FROM (SELECT *, TRUE AS {mark} FROM {}) AS {} {join} {} ON {}",
            merge.source,
            quoted(&source),
            self.target(),
            merge.on
        ))
    }

    /// What becomes of the rows that a SELECT finds.
    fn changes(
        self,
        rows: Parsed,
        clauses: Vec<Clause>,
        returning: Option<&[SelectItem]>,
    ) -> Result<Changes> {
        let returning = returning.map(|items| self.select(&list_of(items))).transpose()?;
        Ok(Changes { rows, clauses, returning, name: self.called, only_once: false })
    }

    fn update(
        &self,
        side: Side,
        condition: Option<Parsed>,
        assignments: &[Assignment],
        target: &Target,
    ) -> Result<Clause> {
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        for (name, value) in pairs(assignments)? {
            let column = single(name)?;
            let at = target.column(&column)?;
            if columns.contains(&at) {
                return Err(Error::Twice { kind: ObjectKind::Column, name: column });
            }
            columns.push(at);
            values.push(value_of(value, target, at)?);
        }
        let values = Some(self.select(&values.join(", "))?);
        Ok(Clause { side, condition, deed: Some(Deed::Update), columns, values })
    }

    fn clause(&self, clause: &MergeClause, target: &Target) -> Result<Clause> {
        let side = side(clause.clause_kind);
        let condition = match &clause.predicate {
            Some(condition) => Some(self.select(&condition.to_string())?),
            None => None,
        };
        let without_values = |deed| Clause {
            side,
            condition: condition.clone(),
            deed,
            columns: vec![],
            values: None,
        };
        Ok(match &clause.action {
            action if is_nothing(action) => without_values(None),
            MergeAction::Delete { .. } => without_values(Some(Deed::Delete)),
            MergeAction::Update(update) => {
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    let what = "WHERE in MERGE's UPDATE (use WHEN MATCHED AND ...)".to_owned();
                    return Err(Error::NotSupported(what));
                }
                self.update(side, condition, &update.assignments, target)?
            }
            MergeAction::Insert(insert) => {
                let (columns, values) = inserted(insert, target)?;
                let values = Some(self.select(&values.join(", "))?);
                Clause { side, condition, deed: Some(Deed::Insert), columns, values }
            }
        })
    }
}

/// The columns that a clause's INSERT gives values, and these.
fn inserted(insert: &MergeInsertExpr, target: &Target) -> Result<(Vec<usize>, Vec<String>)> {
    if insert.insert_predicate.is_some() {
        let what = "WHERE in MERGE's INSERT (use WHEN NOT MATCHED AND ...)".to_owned();
        return Err(Error::NotSupported(what));
    }
    let mut columns = insert_columns(insert, target)?;
    let rows = match &insert.kind {
        MergeInsertKind::Values(values) => values.rows.as_slice(),
        MergeInsertKind::Row => &[],
    };
    let [row] = rows else {
        return Err(Error::Invalid("MERGE's INSERT takes one row of VALUES".to_owned()));
    };
    let given = row.content.len();
    if given > columns.len() {
        let reason = "INSERT has more expressions than target columns".to_owned();
        return Err(Error::Invalid(reason));
    }
    if given < columns.len() && !insert.columns.is_empty() {
        let reason = "INSERT has more target columns than expressions".to_owned();
        return Err(Error::Invalid(reason));
    }
    columns.truncate(given);
    let values = row.content.iter().zip(&columns);
    let values = values.map(|(value, at)| value_of(value, target, *at)).collect::<Result<_>>()?;
    Ok((columns, values))
}

fn insert_columns(insert: &MergeInsertExpr, target: &Target) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok((0..target.schema.fields().len()).collect());
    }
    let mut columns = Vec::new();
    for name in &insert.columns {
        let name = single(name)?;
        let at = target.column(&name)?;
        if columns.contains(&at) {
            return Err(Error::Twice { kind: ObjectKind::Column, name });
        }
        columns.push(at);
    }
    Ok(columns)
}

/// A value as SQL, brought to its column's type.
fn value_of(value: &Expr, target: &Target, at: usize) -> Result<String> {
    let value = match is_default(value) {
        true => parse_expressions(&default_of(target, at)?)?.pop(),
        false => None,
    }
    .unwrap_or_else(|| value.clone());
    Ok(cast(value, target.schema.field(at))?.to_string())
}

/// Columns with the values that SET gives them.
fn pairs(assignments: &[Assignment]) -> Result<Vec<(&ObjectName, &Expr)>> {
    let mut pairs = Vec::new();
    for assignment in assignments {
        match (&assignment.target, &assignment.value) {
            (AssignmentTarget::ColumnName(name), value) => pairs.push((name, value)),
            (AssignmentTarget::Tuple(names), Expr::Tuple(values))
                if names.len() == values.len() =>
            {
                pairs.extend(names.iter().zip(values));
            }
            _ => {
                let what = "UPDATE of several columns from a subquery".to_owned();
                return Err(Error::NotSupported(what));
            }
        }
    }
    Ok(pairs)
}

fn assigned_names(assignments: &[Assignment], target: &Target) -> Result<Vec<String>> {
    let name = |(name, _): (&ObjectName, _)| {
        let name = single(name)?;
        target.column(&name)?;
        Ok(name)
    };
    pairs(assignments)?.into_iter().map(name).collect()
}

fn merge_needs(clauses: &[MergeClause], target: &Target) -> Result<Needs> {
    let mut needs = Needs::new();
    for clause in clauses {
        match &clause.action {
            action if is_nothing(action) => {}
            MergeAction::Delete { .. } => needs.push((Privilege::Delete, None)),
            MergeAction::Update(update) => {
                let names = assigned_names(&update.assignments, target)?;
                needs.push((Privilege::Update, Some(names)));
            }
            MergeAction::Insert(insert) => {
                let columns = insert_columns(insert, target)?.into_iter();
                let names = columns.map(|at| target.schema.field(at).name().clone()).collect();
                needs.push((Privilege::Insert, Some(names)));
            }
        }
    }
    Ok(needs)
}

/// DO NOTHING, as the parser has it.
fn is_nothing(action: &MergeAction) -> bool {
    let is = |name: &ObjectName| single(name).is_ok_and(|name| name == NOTHING);
    match action {
        MergeAction::Insert(insert) => insert.columns.iter().any(is),
        MergeAction::Update(update) => update.assignments.iter().any(|assignment| {
            matches!(&assignment.target, AssignmentTarget::ColumnName(name) if is(name))
        }),
        MergeAction::Delete { .. } => false,
    }
}

fn side(kind: MergeClauseKind) -> Side {
    match kind {
        MergeClauseKind::Matched => Side::Both,
        MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => Side::Source,
        MergeClauseKind::NotMatchedBySource => Side::Target,
    }
}

fn refuse_unreachable(clauses: &[MergeClause]) -> Result<()> {
    if clauses.is_empty() {
        let reason = "syntax error: MERGE needs a WHEN clause".to_owned();
        return Err(Error::Invalid(reason));
    }
    for (at, clause) in clauses.iter().enumerate() {
        let hides = |before: &MergeClause| {
            before.predicate.is_none() && side(before.clause_kind) == side(clause.clause_kind)
        };
        if clauses[..at].iter().any(hides) {
            let reason = "unreachable WHEN clause specified after unconditional WHEN clause";
            return Err(Error::Invalid(reason.to_owned()));
        }
    }
    Ok(())
}

fn refuse_order(command: &str, limit: bool, order: bool) -> Result<()> {
    for (given, what) in [(limit, "LIMIT"), (order, "ORDER BY")] {
        if given {
            return Err(Error::NotSupported(format!("{command} with {what}")));
        }
    }
    Ok(())
}

/// The one table that a statement changes, and the name under which it speaks of it.
fn single_table(from: &[TableWithJoins]) -> Result<(&ObjectName, String)> {
    let [TableWithJoins { relation: TableFactor::Table { name, alias, version, .. }, joins }] =
        from
    else {
        return Err(Error::NotSupported("a statement that changes several tables".to_owned()));
    };
    if version.is_some() {
        return Err(Error::NotSupported("changing a table as it was".to_owned()));
    }
    if !joins.is_empty() {
        return Err(Error::NotSupported("a join as what a statement changes".to_owned()));
    }
    Ok((name, called(name, alias.as_ref())))
}

/// The name under which a statement speaks of a table.
fn called(name: &ObjectName, alias: Option<&TableAlias>) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    let called = alias.map(|alias| &alias.name).or(last);
    called.map_or_else(|| name.to_string(), ident)
}
