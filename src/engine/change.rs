//! UPDATE, DELETE and MERGE: a query finds the rows, by the file and the place they lie in, and says
//! what becomes of them. Then the files that hold such rows are written anew without them (copy on
//! write), so that whoever reads the table meets nothing but plain Parquet.
//!
//! The query has these columns: file and place of a row, as numbers, NULL where it is a new one; what
//! is done ([`Deed`]); the values to be written, where there are any; what RETURNING asks for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{filter, filter_record_batch, is_not_null};
use arrow::datatypes::{FieldRef, Int64Type};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, lit};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use iceberg::spec::{Operation, TableMetadata};
use tokio::task::JoinSet;

use super::insert::{assigned, columns_of, named, project, refuse_unassignable, value_name};
use super::ordering::in_order;
use super::planner::Scope;
use super::ready::Ready;
use super::session::{Draft, Plan, Session};
use super::together;
use super::write::{Output, Returned, Target, Written, arrow, joined, no_ids};
use super::{Error, Result};
use crate::catalog::PolicyCommand;
use crate::storage::managed::{
    Change, DataWriter, FILE_COLUMN, ManagedTable, NewFiles, ROW_COLUMN, Removed, RowIds,
    live_files, snapshots,
};
use crate::storage::ready_scans;

/// The name under which a statement that finds rows of its target names it: nothing that a client
/// can give a table.
pub const TARGET: &str = "\u{2}target";

/// A column of MERGE's source that is NULL where there is no row of it.
pub const SOURCE_COLUMN: &str = "\u{2}source";

/// The column that says which clause a row is for.
const CLAUSE_COLUMN: &str = "\u{2}clause";

/// The column that says what is done with a row.
const DEED_COLUMN: &str = "\u{2}action";

/// Columns before the values.
const IDS: usize = 3;

/// What UPDATE, DELETE and MERGE say, as SELECTs.
#[derive(Clone, Debug)]
pub struct Changes {
    /// All columns of [`TARGET`], with its row ids, and of what it is joined with.
    pub rows: Statement,
    /// The target's name among them.
    pub name: String,
    /// For each row the first that fits counts.
    pub clauses: Vec<Clause>,
    /// Behind a SELECT.
    pub returning: Option<Statement>,
    /// What becomes of a row that is found twice: an error, or it is changed once.
    pub only_once: bool,
}

/// Which rows, and what is done with them.
#[derive(Clone, Debug)]
pub struct Clause {
    pub side: Side,
    /// Behind a SELECT.
    pub condition: Option<Statement>,
    pub deed: Option<Deed>,
    /// The columns that get values, and these, behind a SELECT.
    pub columns: Vec<usize>,
    pub values: Option<Statement>,
}

/// Where a row is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the target, and in what it is joined with.
    Both,
    Target,
    Source,
}

/// What is done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Insert = 0,
    Update = 1,
    Delete = 2,
}

/// A clause, its expressions planned: the condition, and a value for each column.
struct Planned<'a> {
    clause: &'a Clause,
    condition: Option<Expr>,
    values: Vec<Expr>,
}

impl Session {
    /// Plans how rows are found, and what becomes of them.
    pub async fn plan_changes(
        &self,
        target: &Target,
        changes: &Changes,
        declared: &[Option<FieldRef>],
    ) -> Result<Plan> {
        let lists = changes.clauses.iter().flat_map(|clause| {
            [&clause.condition, &clause.values].into_iter().filter_map(Option::as_ref)
        });
        let statements: Vec<_> =
            [&changes.rows].into_iter().chain(lists).chain(&changes.returning).collect();
        let writes = if changes.write_rows() { target.schema.fields().len() } else { 0 };
        let returned = changes.returning.as_ref().map(|_| IDS + writes);
        let files = self.engine().files().clone();
        let table = ManagedTable::new(files, target.metadata.clone())?;
        let table = table.declared_as(&target.table.record.columns).with_row_ids();
        let found = Arc::new(together::Found::beside(target.table.clone()));
        let scope = Scope { found, ..self.scope() };
        let rows: Arc<dyn TableSource> = provider_as_source(Arc::new(table));
        let (scope, rows, command) = (&scope, &rows, changes.command());
        let plan = |known| async move {
            let rows = self.changeable(scope, target, rows.clone(), command).await?;
            let scope = Scope { target: Some(rows), ..scope.clone() };
            self.plan_found(&scope, target, changes, known).await
        };
        self.plan_with(scope, &statements, declared, returned, plan).await
    }

    async fn plan_found(
        &self,
        scope: &Scope,
        target: &Target,
        changes: &Changes,
        known: Vec<Option<FieldRef>>,
    ) -> Result<Draft> {
        let rows = self.plan_in(scope, changes.rows.clone(), known.clone(), 0).await?;
        let mut reads = compared(&rows, &changes.name)?;
        let mut clauses = Vec::new();
        for clause in &changes.clauses {
            let columns = visible(rows.schema(), clause.side, &changes.name)?;
            let condition = match &clause.condition {
                Some(list) => self.plan_list(scope, list, &columns, &known).await?.pop(),
                None => None,
            };
            let given = match &clause.values {
                Some(list) => self.plan_list(scope, list, &columns, &known).await?,
                None => Vec::new(),
            };
            reads.extend(columns_of(condition.iter().chain(&given), &changes.name)?);
            let mut values = self.unchanged(target, changes, clause).await?;
            for (at, value) in clause.columns.iter().zip(given) {
                refuse_unassignable(&value, target.schema.field(*at), &columns)?;
                values[*at] = assigned(value, target.schema.field(*at), &columns)?;
            }
            clauses.push(Planned { clause, condition, values });
        }
        let mut changed = changed(rows, target, changes, &clauses)?;
        if changes.write_rows() {
            let (of, command) = ((target, Some(changes.name.as_str())), changes.command());
            changed = self.checked(changed, scope, of, command, true).await?;
        }
        let returned = match &changes.returning {
            Some(list) => {
                let mut shown: Vec<_> = changed.schema().iter().map(owned).collect();
                if changes.only_once {
                    // MERGE has the source's columns first.
                    shown.rotate_left(IDS + target.schema.fields().len());
                }
                let shown = DFSchema::new_with_metadata(shown, HashMap::new());
                self.plan_list(scope, list, &shown.map_err(Error::planning)?, &known).await?
            }
            None => Vec::new(),
        };
        reads.extend(columns_of(&returned, &changes.name)?);
        let columns = changed.schema().columns();
        let (ids, columns) = columns.split_at(IDS);
        let written = if changes.write_rows() { target.schema.fields().len() } else { 0 };
        let values = columns.iter().take(written).cloned().enumerate();
        let values = values.map(|(at, column)| Expr::Column(column).alias(value_name(at)));
        let ids = ids.iter().cloned().map(Expr::Column);
        let logical = project(changed.clone(), ids.chain(values).chain(returned))?;
        Ok(Draft { logical, reads })
    }

    /// The values of all columns where a clause gives none: what they are, or the defaults of a new
    /// row.
    async fn unchanged(
        &self,
        target: &Target,
        changes: &Changes,
        clause: &Clause,
    ) -> Result<Vec<Expr>> {
        let fields = target.schema.fields();
        if clause.deed != Some(Deed::Insert) {
            return Ok(fields.iter().map(|field| changes.column(field.name())).collect());
        }
        let defaults = self.defaults(target, &clause.columns).await?;
        let default = |(default, field): (Option<Expr>, &FieldRef)| {
            let value = default.unwrap_or_else(|| lit(ScalarValue::Null));
            assigned(value, field, &DFSchema::empty())
        };
        defaults.into_iter().zip(fields).map(default).collect()
    }

    /// Carries out what a plan of [`Self::plan_changes`] finds.
    pub async fn change(&self, target: &Target, ready: Ready, only_once: bool) -> Result<Written> {
        let _watch = ready.watch();
        let Ready { plan, stop, returned, .. } = ready;
        let _stop = stop.drop_guard();
        let Found { ids, inserted, mut added, returned } =
            self.find(target, plan, returned, only_once).await?;
        let rows = ids.len() + inserted;
        if rows == 0 {
            return Ok(Written { rows, change: None, returned });
        }
        let ids = Arc::new(ids);
        let removed = match self.without(target, &ids).await {
            Ok((removed, rest)) => {
                added.files.extend(rest.files);
                removed
            }
            Err(error) => {
                self.engine().files().remove(added.urls()).await;
                return Err(error);
            }
        };
        let operation =
            if added.files.is_empty() { Operation::Delete } else { Operation::Overwrite };
        let change = match inserted > 0 && is_serializable(&target.metadata) {
            true => Change::Merge { seen: snapshots(&target.metadata), removed, added, operation },
            false => Change::Replace { removed, added, operation },
        };
        Ok(Written { rows, change: Some(change), returned })
    }

    /// The files that hold some rows, and new ones with their other rows.
    async fn without(&self, target: &Target, ids: &Arc<RowIds>) -> Result<(Removed, NewFiles)> {
        let lists = live_files(self.engine().files(), &target.metadata).await?;
        let files: Vec<(&String, u64)> = (lists.iter())
            .flat_map(|list| list.urls.iter().zip(list.rows.values().iter().copied()))
            .collect();
        let mut removed = HashSet::new();
        let mut remaining = HashSet::new();
        for (file, rows) in ids.files() {
            let Some((url, total)) = files.get(file) else { continue };
            removed.insert((*url).clone());
            if rows.len() < *total {
                remaining.insert(file);
            }
        }
        let mut rest = Output::default();
        if !remaining.is_empty() {
            let table = ManagedTable::new(self.engine().files().clone(), target.metadata.clone())?;
            let table = table.with_row_ids().only(remaining);
            let plan = table.scan(self.state(), None, &[], None).await.map_err(Error::running)?;
            let plan = ready_scans(plan, &self.context()).map_err(Error::running)?;
            rest = self.write_plan(target, plan, Some(ids.clone()), None).await?;
        }
        Ok((Removed::Files(removed), rest.added))
    }

    /// Runs a plan that finds rows.
    async fn find(
        &self,
        target: &Target,
        plan: Arc<dyn ExecutionPlan>,
        returned: Option<usize>,
        only_once: bool,
    ) -> Result<Found> {
        let (context, kept) = (self.context(), self.memory());
        let writes = returned.unwrap_or(plan.schema().fields().len()) > IDS;
        let sorted = writes && !target.metadata.default_sort_order().is_unsorted();
        // One writer takes all rows.
        let plan = match sorted && plan.output_partitioning().partition_count() > 1 {
            true => Arc::new(CoalescePartitionsExec::new(plan)),
            false => plan,
        };
        let (plan, order) = if sorted { in_order(target, plan, IDS) } else { (plan, None) };
        let (write, memory) = self.write_context(target, order)?;
        let spec_id = target.metadata.default_partition_spec_id();
        let mut task = JoinSet::new();
        task.spawn_on(
            async move {
                let mut found = Found::default();
                let mut writer = DataWriter::new(write, memory)?;
                let mut rows = execute_stream(plan, context).map_err(Error::running)?;
                while let Some(batch) = rows.next().await {
                    let batch = found.note(&batch.map_err(Error::running)?, only_once)?;
                    let end = returned.unwrap_or(batch.num_columns());
                    if end > IDS {
                        let written = filter_record_batch(&batch, &is_written(&batch)?);
                        let values: Vec<usize> = (IDS..end).collect();
                        let values = written.and_then(|rows| rows.project(&values));
                        writer.write(&values.map_err(arrow)?).await?;
                    }
                    if end < batch.num_columns() {
                        let columns: Vec<usize> = (end..batch.num_columns()).collect();
                        found.returned.keep(batch.project(&columns).map_err(arrow)?, &kept)?;
                    }
                }
                found.added = NewFiles { spec_id, files: writer.close().await? };
                Ok(found)
            },
            self.engine().handle(),
        );
        joined(task.join_next().await)
    }
}

impl Changes {
    /// Whether rows are written, or only taken away.
    fn write_rows(&self) -> bool {
        self.clauses.iter().any(|c| matches!(c.deed, Some(Deed::Insert | Deed::Update)))
    }

    /// What its policies are for. MERGE has several kinds, and none of its own.
    fn command(&self) -> PolicyCommand {
        match self.clauses.as_slice() {
            [Clause { deed: Some(Deed::Delete), .. }] => PolicyCommand::Delete,
            _ => PolicyCommand::Update,
        }
    }

    /// A column of the target.
    fn column(&self, name: &str) -> Expr {
        Expr::Column(Column::new(Some(TableReference::bare(self.name.as_str())), name))
    }
}

/// What a plan that finds rows has found.
#[derive(Default)]
struct Found {
    ids: RowIds,
    inserted: u64,
    added: NewFiles,
    returned: Returned,
}

impl Found {
    /// Takes up a batch; what of it counts.
    fn note(&mut self, batch: &RecordBatch, only_once: bool) -> Result<RecordBatch> {
        let (files, places) = (id_column(batch, 0)?, id_column(batch, 1)?);
        if files.null_count() == 0 {
            let new = self.ids.add(files, places);
            if new.true_count() == new.len() {
                return Ok(batch.clone());
            }
            if only_once {
                return Err(Error::FoundTwice);
            }
            return filter_record_batch(batch, &new).map_err(arrow);
        }
        let known = is_not_null(files).map_err(arrow)?;
        let of_known = |column: &Int64Array| filter(column, &known).map_err(arrow);
        let (files, places) = (of_known(files)?, of_known(places)?);
        let new = self.ids.add(files.as_primitive(), places.as_primitive());
        let mut new = new.values().iter();
        let keep: BooleanArray =
            (known.values().iter()).map(|known| Some(!known || new.next() == Some(true))).collect();
        if only_once && keep.true_count() < keep.len() {
            return Err(Error::FoundTwice);
        }
        self.inserted += (known.len() - known.true_count()) as u64;
        filter_record_batch(batch, &keep).map_err(arrow)
    }
}

/// Whether rows that MERGE did not find may not come from others before it commits: Iceberg's
/// property, and its default.
fn is_serializable(metadata: &TableMetadata) -> bool {
    let level = metadata.properties().get("write.merge.isolation-level");
    level.is_none_or(|level| level != "snapshot")
}

/// Which rows of a batch have values to be written.
fn is_written(batch: &RecordBatch) -> Result<BooleanArray> {
    let deeds = id_column(batch, 2)?.values().iter();
    Ok(deeds.map(|deed| Some(*deed != Deed::Delete as i64)).collect())
}

fn id_column(batch: &RecordBatch, at: usize) -> Result<&Int64Array> {
    let column: Option<&ArrayRef> = batch.columns().get(at);
    column.and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(no_ids)
}

/// The columns of the target by which its rows are found.
fn compared(rows: &LogicalPlan, target: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    // Above them is the list of all columns.
    for input in rows.inputs() {
        let walk = input.apply(|step| {
            let columns = columns_of(&step.expressions(), target);
            found.extend(columns.map_err(|error| DataFusionError::External(Box::new(error)))?);
            Ok(TreeNodeRecursion::Continue)
        });
        walk.map_err(Error::planning)?;
    }
    Ok(found)
}

/// The columns that a clause may name.
fn visible(all: &DFSchema, side: Side, target: &str) -> Result<DFSchema> {
    let target = TableReference::bare(target);
    let shown = all.iter().filter(|(relation, _)| match side {
        Side::Both => true,
        Side::Target => *relation == Some(&target),
        Side::Source => *relation != Some(&target),
    });
    DFSchema::new_with_metadata(shown.map(owned).collect(), HashMap::new()).map_err(Error::planning)
}

fn owned(
    (relation, field): (Option<&TableReference>, &FieldRef),
) -> (Option<TableReference>, FieldRef) {
    (relation.cloned(), field.clone())
}

/// The rows that are changed, with the target's columns as they become, and all others.
fn changed(
    rows: LogicalPlan,
    target: &Target,
    changes: &Changes,
    clauses: &[Planned<'_>],
) -> Result<LogicalPlan> {
    let name = Some(TableReference::bare(changes.name.as_str()));
    let others: Vec<Expr> = (rows.schema().iter())
        .filter(|(relation, field)| {
            *relation != name.as_ref() && !field.name().starts_with('\u{2}')
        })
        .map(|column| Expr::Column(column.into()))
        .collect();
    let (rows, one_for_all) = chosen(rows, changes, clauses)?;
    let of_clause = |value: &dyn Fn(&Planned<'_>) -> Expr| match clauses {
        [one] if one_for_all => value(one),
        _ => {
            let number = Column::from_name(CLAUSE_COLUMN);
            let branch =
                |(at, clause): (i64, &Planned<'_>)| (Box::new(lit(at)), Box::new(value(clause)));
            let branches = (0..).zip(clauses).map(branch).collect();
            Expr::Case(Case::new(Some(Box::new(Expr::Column(number))), branches, None))
        }
    };
    let deed = of_clause(&|planned| lit(planned.clause.deed.map_or(-1, |deed| deed as i64)));
    let ids = [changes.column(FILE_COLUMN), changes.column(ROW_COLUMN), deed.alias(DEED_COLUMN)];
    let values = target.schema.fields().iter().enumerate().map(|(at, field)| {
        named(of_clause(&|planned| planned.values[at].clone()), name.clone(), field)
    });
    project(rows, ids.into_iter().chain(values).chain(others))
}

/// The rows for which a clause is chosen that does something, with its number, unless there is one
/// that all rows are for.
fn chosen(
    rows: LogicalPlan,
    changes: &Changes,
    clauses: &[Planned<'_>],
) -> Result<(LogicalPlan, bool)> {
    let is_merge = rows.schema().has_column_with_unqualified_name(SOURCE_COLUMN);
    if let ([Planned { condition: None, .. }], false) = (clauses, is_merge) {
        return Ok((rows, true));
    }
    let of_target = changes.column(FILE_COLUMN).is_not_null();
    let source = rows.schema().iter().find(|(_, field)| field.name() == SOURCE_COLUMN);
    let of_source = source.map_or(lit(true), |column| Expr::Column(column.into()).is_not_null());
    let fits = |planned: &Planned<'_>| {
        let sides = match planned.clause.side {
            Side::Both => vec![of_target.clone(), of_source.clone()],
            Side::Target => vec![of_target.clone(), !of_source.clone()],
            Side::Source => vec![of_source.clone(), !of_target.clone()],
        };
        conjunction(sides.into_iter().chain(planned.condition.clone())).unwrap_or(lit(true))
    };
    let branches = (0..).zip(clauses).map(|(at, planned): (i64, _)| {
        let number = planned.clause.deed.map(|_| at);
        (Box::new(fits(planned)), Box::new(lit(ScalarValue::Int64(number))))
    });
    let number = Expr::Case(Case::new(None, branches.collect(), None));
    let all = rows.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let rows = project(rows, all.into_iter().chain([number.alias(CLAUSE_COLUMN)]))?;
    let number = Expr::Column(Column::from_name(CLAUSE_COLUMN));
    let rows = LogicalPlanBuilder::from(rows)
        .filter(number.is_not_null())
        .and_then(|rows| rows.build())
        .map_err(Error::planning)?;
    Ok((rows, false))
}
