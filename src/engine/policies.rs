//! Row-level security: which rows of a table a role reads, changes and adds.
//!
//! The rules are PostgreSQL's: of the policies for a command one permissive and all restrictive ones
//! must hold, and without a permissive one no row does. What is changed has to be read as well, so
//! that both kinds of policies count.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference, exec_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TableSource, Volatility,
};

use super::change::TARGET;
use super::planner::Scope;
use super::rights::Policed;
use super::session::Session;
use super::write::Target;
use super::{Error, Result, parse_one};
use crate::catalog::{self, Policy, PolicyCommand, Table, TableName};

/// Which rows of a table meet its policies.
pub(super) struct RowPolicy {
    /// As SQL.
    condition: String,
    search_path: Vec<String>,
}

impl RowPolicy {
    fn of(policies: &[&Policy], condition: impl Fn(&Policy) -> Option<&str>) -> Self {
        let conditions = |permissive: bool| {
            let wanted = policies.iter().filter(move |policy| policy.permissive == permissive);
            wanted.map(|policy| format!("({})", condition(policy).unwrap_or("true")))
        };
        let one = conditions(true).reduce(|a, b| format!("{a} OR {b}"));
        let one = format!("({})", one.as_deref().unwrap_or("false"));
        let all: Vec<String> = [one].into_iter().chain(conditions(false)).collect();
        let search_path = policies.first().map(|policy| policy.search_path.clone());
        Self { condition: all.join(" AND "), search_path: search_path.unwrap_or_default() }
    }

    fn and(self, other: Self) -> Self {
        let condition = format!("{} AND {}", self.condition, other.condition);
        let path = if self.search_path.is_empty() { other.search_path } else { self.search_path };
        Self { condition, search_path: path }
    }
}

impl Session {
    /// The policies for what the scope's role does with rows that are there, if there are any.
    pub(super) fn policy(
        &self,
        scope: &Scope,
        table: &Table,
        command: PolicyCommand,
    ) -> Option<RowPolicy> {
        let snapshot = self.info().catalog.snapshot();
        let policies = snapshot.access(&scope.role).policies_for(table, command)?;
        Some(RowPolicy::of(&policies, |policy| policy.using.as_deref()))
    }

    /// The policies for what the scope's role reads, if there are any. Who makes a copy would rather
    /// have none than one with rows missing.
    pub(super) fn reading_policy(&self, scope: &Scope, table: &Table) -> Result<Option<RowPolicy>> {
        let policy = self.policy(scope, table, PolicyCommand::Select);
        if policy.is_some() && self.info().settings.get("row_security") == Some("off") {
            let name = &table.name.table;
            return Err(Error::Catalog(catalog::Error::Forbidden(format!(
                "query would be affected by row-level security policy for table \"{name}\""
            ))));
        }
        Ok(policy)
    }

    /// The policies for rows that it makes, if there are any.
    fn check(&self, scope: &Scope, table: &Table, command: PolicyCommand) -> Option<RowPolicy> {
        let snapshot = self.info().catalog.snapshot();
        let policies = snapshot.access(&scope.role).policies_for(table, command)?;
        Some(RowPolicy::of(&policies, |policy| policy.check.as_deref().or(policy.using.as_deref())))
    }

    /// A table's rows as far as a policy leaves them; `as_of` is a clause behind its name, or nothing.
    pub(super) async fn policed(
        &self,
        scope: &Scope,
        table: &Table,
        policy: RowPolicy,
        as_of: &str,
        depth: usize,
    ) -> Result<Arc<dyn TableSource>> {
        let TableName { database, schema, table: name } = &table.name;
        let from = [database, schema, name].map(|name| quoted(name)).join(".");
        let sql = format!("SELECT * FROM {from}{as_of} WHERE {}", policy.condition);
        let open = Some(table.name.clone());
        let scope = Scope { open, ..policy_scope(scope, table, policy) };
        let plan = self.plan_view(&scope, &sql, name, depth).await?;
        Ok(provider_as_source(Arc::new(Policed { plan })))
    }

    /// The rows of a statement's target that its role may change.
    pub(super) async fn changeable(
        &self,
        scope: &Scope,
        target: &Target,
        rows: Arc<dyn TableSource>,
        command: PolicyCommand,
    ) -> Result<Arc<dyn TableSource>> {
        let policy = |command| self.policy(scope, &target.table, command);
        let (Some(read), Some(changed)) = (policy(PolicyCommand::Select), policy(command)) else {
            return Ok(rows);
        };
        let (name, policy) = (&target.table.name.table, read.and(changed));
        let sql = format!(
            "SELECT * FROM {} AS {} WHERE {}",
            quoted(TARGET),
            quoted(name),
            policy.condition
        );
        let scope = Scope { target: Some(rows), ..policy_scope(scope, &target.table, policy) };
        let plan = self.plan_view(&scope, &sql, name, 0).await?;
        Ok(provider_as_source(Arc::new(Policed { plan })))
    }

    /// Rows of which those that a statement makes meet the policies, or it fails. `name` is that of
    /// the target among the columns; `reads` says that the statement looks at them, too.
    pub(super) async fn checked(
        &self,
        rows: LogicalPlan,
        scope: &Scope,
        (target, name): (&Target, Option<&str>),
        command: PolicyCommand,
        reads: bool,
    ) -> Result<LogicalPlan> {
        let Some(mut policy) = self.check(scope, &target.table, command) else { return Ok(rows) };
        if let Some(read) = self.policy(scope, &target.table, PolicyCommand::Select)
            && reads
        {
            policy = policy.and(read);
        }
        let (own, table) = (name.map(TableReference::bare), &target.table.name.table);
        let table = TableReference::bare(table.as_str());
        let columns = rows.schema().iter().filter(|(relation, field)| {
            *relation == own.as_ref() && !field.name().starts_with('\u{2}')
        });
        let columns = columns.map(|(_, field)| (Some(table.clone()), field.clone())).collect();
        let columns = DFSchema::new_with_metadata(columns, Default::default());
        let list = parse_one(&format!("SELECT ({}) IS TRUE", policy.condition))?.statement;
        let scope = policy_scope(scope, &target.table, policy);
        let columns = columns.map_err(Error::planning)?;
        let condition = self.plan_list(&scope, &list, &columns, &[]).await?.pop();
        let Some(condition) = condition else { return Ok(rows) };
        let condition = condition.unalias().transform(|expr| {
            Ok(match expr {
                Expr::Column(column) if column.relation.as_ref() == Some(&table) => {
                    Transformed::yes(Expr::Column(Column::new(own.clone(), column.name)))
                }
                other => Transformed::no(other),
            })
        });
        let meets = ScalarUDF::new_from_impl(Meets::new(&target.table.name.table));
        let condition = meets.call(vec![condition.map_err(Error::planning)?.data]);
        LogicalPlanBuilder::from(rows)
            .filter(condition)
            .and_then(|rows| rows.build())
            .map_err(Error::planning)
    }
}

/// Where a policy's names are looked up, with the rights of whoever is bound by it.
fn policy_scope(scope: &Scope, table: &Table, policy: RowPolicy) -> Scope {
    Scope {
        database: table.name.database.clone(),
        search_path: policy.search_path,
        role: scope.role.clone(),
        open: None,
        target: None,
        moments: scope.moments.clone(),
        found: scope.found.clone(),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Fails where a row does not meet the policies. That it is volatile keeps it in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Meets {
    table: String,
    signature: Signature,
}

impl Meets {
    fn new(table: &str) -> Self {
        let signature = Signature::exact(vec![DataType::Boolean], Volatility::Volatile);
        Self { table: table.to_owned(), signature }
    }
}

impl ScalarUDFImpl for Meets {
    fn name(&self) -> &str {
        "meets_policies"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::error::Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(
        &self,
        args: ScalarFunctionArgs,
    ) -> datafusion::error::Result<ColumnarValue> {
        let rows = args.number_rows;
        let [met] = args.args.as_slice() else { return exec_err!("it takes one argument") };
        let met_by = met.to_array(rows)?;
        if met_by.as_boolean().true_count() == met_by.len() {
            return Ok(met.clone());
        }
        let reason =
            format!("new row violates row-level security policy for table \"{}\"", self.table);
        Err(DataFusionError::External(Box::new(catalog::Error::Forbidden(reason))))
    }
}
