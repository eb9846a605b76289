//! COPY ... TO STDOUT: what is copied, and in which format. COPY ... FROM STDIN: what comes in is
//! understood in [`from`], and goes through a [`feed`].
//!
//! The rows are those of a query, planned and run like any other; a table's own query is made here.
//! Refusals come in PostgreSQL's order and words.

pub mod feed;
mod from;
mod options;

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::TableType;
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{CopySource, CopyTarget, Ident, ObjectName, Statement};

pub use self::from::CopyIn;
use self::options::{Direction, ForceQuote, Options};
use super::Session;
use super::ddl::ident;
use super::prepared::Read;
use crate::catalog::{self, ObjectKind};
use crate::engine::system::shown_name;
use crate::engine::{self, Parsed, parse};
use crate::values::decode;
use crate::values::encode::CopyFormat;

/// Why there is nothing to copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that does not exist, or not twice, or not with this kind of value.
    #[error("{0}")]
    Syntax(String),
    #[error("{0}")]
    InvalidValue(String),
    /// What PostgreSQL does not support either, in its words.
    #[error("{0}")]
    NotSupported(String),
    #[error("COPY TO {0} is not supported")]
    NotToClient(&'static str),
    #[error("COPY FROM {0} is not supported")]
    NotFromClient(&'static str),
    #[error("{0}")]
    NotAllowed(&'static str),
    #[error("cannot copy to view \"{0}\"")]
    ToView(String),
    #[error("COPY FROM not supported with row-level security")]
    RowSecurity,
    /// What came from the client.
    #[error(transparent)]
    Data(Arc<decode::copy::Error>),
    #[error("cannot copy from view \"{0}\"")]
    View(String),
    #[error("column \"{0}\" specified more than once")]
    Twice(String),
    #[error("column \"{column}\" of relation \"{relation}\" does not exist")]
    NoColumn { column: String, relation: String },
    #[error("{option} column \"{column}\" not referenced by COPY")]
    NotCopied { option: &'static str, column: String },
}

/// How the rows leave.
#[derive(Clone, Debug)]
pub struct CopyOut {
    pub format: CopyFormat,
    /// Whether the columns' names come first.
    pub header: bool,
    /// Whether they leave as a Parquet file, in place of that format.
    pub parquet: bool,
}

/// A table that is copied by its name.
struct Table {
    name: String,
    schema: Schema,
}

impl Session {
    /// Plans what a COPY statement copies.
    pub(super) async fn plan_copy(&self, parsed: &Parsed) -> super::Result<Read> {
        let Some(Statement::Copy { source, target, .. }) = parsed.sql() else {
            return Err(super::Error::Invalid("not a COPY statement".to_owned()));
        };
        match target {
            CopyTarget::Stdin | CopyTarget::Stdout => {}
            CopyTarget::File { .. } => return Err(Error::NotToClient("a file").into()),
            CopyTarget::Program { .. } => return Err(Error::NotToClient("PROGRAM").into()),
        }
        let (statement, table) = match source {
            CopySource::Query(query) => {
                (EngineStatement::Statement(Box::new(Statement::Query(query.clone()))), None)
            }
            CopySource::Table { table_name, columns } => {
                (select(table_name, columns)?, Some(self.table(table_name, columns).await?))
            }
        };
        let (mut out, force_quote) =
            Options::read(&parsed.copy_options, Direction::To)?.settle()?;
        let plan = self.engine_session().plan(&statement, &[]).await?;
        if !plan.parameters.is_empty() {
            return Err(engine::Error::NoParameter(1).into());
        }
        if let CopyFormat::Csv(csv) = &mut out.format {
            csv.force_quote = forced(&force_quote, &plan.schema, table.as_ref())?;
        }
        let (statement, plan) = (Arc::new(statement), Arc::new(plan));
        Ok(Read { statement, plan, tag: "COPY", copy: Some(Arc::new(out)) })
    }

    /// The table of this name, which must have these columns. A view is copied by a query only.
    async fn table(&self, name: &ObjectName, columns: &[Ident]) -> super::Result<Table> {
        let relation = self.engine_session().relation(&select(name, &[])?).await?;
        let last = name.0.last().and_then(|part| part.as_ident());
        let name = last.map_or_else(|| name.to_string(), ident);
        let table = Table { name, schema: relation.schema().as_ref().clone() };
        let columns: Vec<String> = columns.iter().map(ident).collect();
        for (at, column) in columns.iter().enumerate() {
            table.check(column)?;
            if columns[..at].contains(column) {
                return Err(Error::Twice(column.clone()).into());
            }
        }
        match relation.table_type() {
            TableType::View => Err(Error::View(table.name).into()),
            TableType::Base | TableType::Temporary => Ok(table),
        }
    }
}

impl Table {
    fn check(&self, column: &str) -> Result<(), Error> {
        let missing = || Error::NoColumn { column: column.to_owned(), relation: self.name.clone() };
        self.schema.field_with_name(column).map(drop).map_err(|_| missing())
    }
}

/// For each column of the result, whether its values are always quoted.
fn forced(option: &ForceQuote, schema: &Schema, table: Option<&Table>) -> super::Result<Vec<bool>> {
    let names: Vec<&str> = schema.fields().iter().map(|field| shown_name(field.name())).collect();
    let columns = match option {
        ForceQuote::All => return Ok(vec![true; names.len()]),
        ForceQuote::Columns(columns) => columns,
    };
    let mut forced = vec![false; names.len()];
    for column in columns {
        if let Some(table) = table {
            table.check(column)?;
        }
        let Some(at) = names.iter().position(|name| name == column) else {
            return Err(match table {
                Some(_) => {
                    let (option, column) = ("FORCE_QUOTE", column.clone());
                    Error::NotCopied { option, column }.into()
                }
                None => {
                    let (kind, name) = (ObjectKind::Column, column.clone());
                    catalog::Error::NotFound { kind, name }.into()
                }
            });
        };
        if std::mem::replace(&mut forced[at], true) {
            return Err(Error::Twice(column.clone()).into());
        }
    }
    Ok(forced)
}

/// The query that reads a table.
fn select(table: &ObjectName, columns: &[Ident]) -> super::Result<EngineStatement> {
    let columns: Vec<String> = columns.iter().map(Ident::to_string).collect();
    let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
    let parsed = parse(&format!("SELECT {columns} FROM {table}"))?.pop();
    let parsed = parsed.ok_or_else(|| super::Error::Invalid(format!("no table {table}")))?;
    Ok(parsed.statement)
}
