//! Tables as they were: which snapshot of a table a statement asks for, and what of it a role may
//! read.
//!
//! Rights are those on the table as it is now, and go with the columns' field ids, not their names.
//! Columns that are there no more are for the table's owner alone: nobody else was asked about them
//! since. Row-level policies are about the present columns; where their names mean other columns in
//! the snapshot, a role below policies is refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, FieldRef, Schema, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::DataFusionError::External;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use postgres_types::Type;

use super::as_of::AsOf;
use super::planner::Scope;
use super::rights::Guarded;
use super::session::{Session, changes};
use super::{Error, Result, parse};
use crate::catalog::{self, Columns, ObjectKind, Table};
use crate::storage;
use crate::storage::managed::{ManagedTable, Moment, field_id};
use crate::values::decode::decode_in;
use crate::values::encode::{Format, TimeZone};

/// What the moments of one statement depend on.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// Of the statement's parameters, where they are known.
    pub values: Vec<ScalarValue>,
    /// Whether one of them is another each time that the statement runs.
    pub moves: AtomicBool,
    /// Whether one of them depends on parameters whose values are not known.
    pub open: AtomicBool,
}

impl Session {
    /// The moment that a clause means; `None` if that depends on parameters without values: then
    /// the statement can be described as if it read the table as it is.
    pub(super) async fn moment(
        &self,
        scope: &Scope,
        as_of: &AsOf,
        parameters: &[Option<FieldRef>],
        depth: usize,
    ) -> Result<Option<Moment>> {
        let moments = &scope.moments;
        if as_of.has_parameters() {
            moments.moves.store(true, Ordering::Relaxed);
            if moments.values.is_empty() {
                moments.open.store(true, Ordering::Relaxed);
                return Ok(None);
            }
        }
        let expr = as_of.spoken().map_or_else(|| as_of.expr().to_string(), str::to_owned);
        let parsed = parse::parse_one(&format!("SELECT {expr}"))?;
        let plan = self.plan_in(scope, parsed.statement, parameters.to_vec(), depth);
        let mut plan = Box::pin(plan).await?;
        if as_of.has_parameters() {
            let values = moments.values.iter().cloned().map(Into::into).collect();
            let values = ParamValues::List(values);
            plan = plan.replace_params_with_values(&values).map_err(Error::planning)?;
        }
        let LogicalPlan::Projection(projection) = self.analyse(plan)? else {
            return Err(unclear());
        };
        let expr = projection.expr.first().cloned().ok_or_else(unclear)?.unalias_nested().data;
        if expr.exists(|expr| Ok(changes(expr))).map_err(Error::planning)? {
            moments.moves.store(true, Ordering::Relaxed);
        }
        let context = SimplifyContext::builder()
            .with_config_options(self.state().config_options().clone())
            .with_query_execution_start_time(
                self.state().execution_props().query_execution_start_time,
            )
            .build();
        match ExprSimplifier::new(context).simplify(expr).map_err(Error::planning)? {
            Expr::Literal(value, _) => match as_of {
                AsOf::Version(_) => version(&value).map(Some),
                AsOf::Time(_) => time(&value, self.info().settings.time_zone()).map(Some),
            },
            _ => Err(unclear()),
        }
    }

    /// A table as it was, as far as the scope's role may read it.
    pub(super) async fn past(
        &self,
        scope: &Scope,
        table: Arc<Table>,
        moment: Option<&Moment>,
        depth: usize,
    ) -> Result<Arc<dyn TableSource>> {
        let open = scope.open.as_ref() == Some(&table.name);
        let (table, columns) = match open {
            true => (table, Columns::All),
            false => self.readable(scope, table).await?,
        };
        if !matches!(table.record.definition, catalog::Definition::Managed(_)) {
            return Err(storage::Error::NoHistory { table: table.name.table.clone() }.into());
        }
        let (_, metadata) = self.metadata_of(&table).await?;
        let files = self.engine().files().clone();
        let snapshot = match moment {
            None => None,
            Some(moment) => {
                let catalog = self.info().catalog.snapshot();
                let told = catalog.access(&scope.role).reads_all(&table);
                Some(moment.find(&table.name.table, &metadata, told)?)
            }
        };
        let clause = snapshot.as_ref().map_or_else(String::new, |snapshot| {
            format!(" FOR SYSTEM_VERSION AS OF {}", snapshot.snapshot_id())
        });
        let then = match snapshot {
            None => ManagedTable::new(files, metadata)?,
            Some(snapshot) => ManagedTable::at(files, metadata, snapshot)?,
        };
        let then = then.declared_as(&table.record.columns);
        let schema = then.schema();
        if open {
            return Ok(provider_as_source(Arc::new(then)));
        }
        let source = match self.reading_policy(scope, &table)? {
            None => provider_as_source(Arc::new(then)),
            Some(policy) => {
                same_names(&table, &schema)?;
                self.policed(scope, &table, policy, &clause, depth).await?
            }
        };
        let snapshot = self.info().catalog.snapshot();
        if snapshot.access(&scope.role).has_role(&table.record.owner) {
            return Ok(source);
        }
        let readable = readable_then(&table, &columns, &schema);
        let name = table.name.table.clone();
        if readable.is_empty() {
            return Err(catalog::Error::Denied { kind: ObjectKind::Table, name }.into());
        }
        if readable.len() == schema.fields().len() {
            return Ok(source);
        }
        let inner = source_as_provider(&source).map_err(Error::planning)?;
        Ok(provider_as_source(Arc::new(Guarded { inner, name, readable })))
    }
}

/// Columns of a snapshot that are among those that may be read of the table now.
fn readable_then(table: &Table, columns: &Columns, then: &Schema) -> BTreeSet<String> {
    let readable = |name: &str| match columns {
        Columns::All => true,
        Columns::Some(names) => names.contains(name),
    };
    let now = table.record.columns.iter().filter(|column| readable(&column.name));
    let ids: BTreeSet<i32> = now.filter_map(|column| field_id(&column.field())).collect();
    let then = then.fields().iter();
    then.filter(|field| field_id(field).is_some_and(|id| ids.contains(&id)))
        .map(|field| field.name().clone())
        .collect()
}

/// Refuses a snapshot in which the name of a present column means another one.
fn same_names(table: &Table, then: &Schema) -> Result<()> {
    let differs = table.record.columns.iter().any(|column| {
        let before = then.field_with_name(&column.name);
        before.is_ok_and(|before| field_id(before) != field_id(&column.field()))
    });
    match differs {
        false => Ok(()),
        true => Err(catalog::Error::Forbidden(format!(
            "permission denied for table {}: its row-level policies are about other columns than \
             this snapshot has under their names",
            table.name.table
        ))
        .into()),
    }
}

fn version(value: &ScalarValue) -> Result<Moment> {
    let text = match value {
        _ if value.is_null() => return Err(no_moment(value)),
        ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text) => {
            text
        }
        number if number.data_type().is_integer() || number.data_type().is_decimal() => {
            return match number.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(Some(id))) => Ok(Moment::Snapshot(id)),
                _ => Err(no_moment(value)),
            };
        }
        _ => return Err(no_moment(value)),
    };
    let text = text.clone().unwrap_or_default();
    Ok(text.trim().parse().map_or(Moment::Name(text.clone()), Moment::Snapshot))
}

/// Texts, dates and timestamps without a zone are in the session's.
fn time(value: &ScalarValue, zone: &str) -> Result<Moment> {
    let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
    if let Some(Some(text)) = value.try_as_str() {
        let (session, pg) = (TimeZone::parse(zone).unwrap_or_default(), Type::TIMESTAMPTZ);
        let value = decode_in(&session, Some(text.as_bytes()), Format::Text, &pg, &zoned);
        return time(&value.map_err(|error| Error::Plan(External(Box::new(error))))?, zone);
    }
    let cast = match value.data_type() {
        _ if value.is_null() => return Err(no_moment(value)),
        DataType::Date32 | DataType::Date64 => {
            value.cast_to(&plain).and_then(|midnight| midnight.cast_to(&zoned))
        }
        DataType::Timestamp(..) => value.cast_to(&zoned),
        _ => return Err(no_moment(value)),
    };
    match cast.map_err(Error::planning)? {
        ScalarValue::TimestampMicrosecond(Some(micros), _) => {
            Ok(Moment::Time(micros.div_euclid(1000)))
        }
        _ => Err(no_moment(value)),
    }
}

fn no_moment(value: &ScalarValue) -> Error {
    let reason = format!(
        "{value} is no moment: AS OF takes a snapshot's id, the name of a branch or tag, or a \
         timestamp"
    );
    storage::Error::BadMoment { reason }.into()
}

fn unclear() -> Error {
    Error::Syntax("the expression behind AS OF must be constant".to_owned())
}
