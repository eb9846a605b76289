//! COPY ... FROM STDIN: what is copied where, and how it is read.

use arrow::datatypes::FieldRef;
use sqlparser::ast::{CopySource as Source, CopyTarget, Ident, ObjectName, Statement};

use super::Error;
use super::feed::{Feed, channel};
use super::options::{Direction, ForceNull, Options};
use crate::query::ddl::ident;
use crate::query::life::Session;
use crate::query::prepared::{Body, Prepared};
use crate::query::running::Registered;
use crate::query::{self, Result};
use crate::values::decode::copy::{CopyDecoder, CopySource};
use crate::values::encode::TimeZone;

/// What is copied where, and how it comes.
#[derive(Clone, Debug)]
pub struct CopyIn {
    table: ObjectName,
    /// The table's name without its schema.
    name: String,
    fields: Vec<FieldRef>,
    source: CopySource,
}

impl CopyIn {
    pub fn columns(&self) -> usize {
        self.fields.len()
    }

    pub fn is_binary(&self) -> bool {
        self.source == CopySource::Binary
    }
}

impl Session {
    /// Looks at what a COPY FROM statement asks for. Refusals come in PostgreSQL's order.
    pub async fn begin_copy_in(
        &mut self,
        registered: &Registered,
        prepared: &Prepared,
    ) -> Result<CopyIn> {
        self.observe(registered);
        self.authorise(prepared)?;
        registered.until_stopped(self.understand_copy_in(prepared)).await?
    }

    async fn understand_copy_in(&mut self, prepared: &Prepared) -> Result<CopyIn> {
        let no_copy = || query::Error::Invalid("not a COPY FROM statement".to_owned());
        let Body::CopyIn(parsed) = &prepared.body else { return Err(no_copy()) };
        let Some(Statement::Copy { source, target, .. }) = parsed.sql() else {
            return Err(no_copy());
        };
        let Source::Table { table_name: table, columns } = source else { return Err(no_copy()) };
        match target {
            CopyTarget::Stdin | CopyTarget::Stdout => {}
            CopyTarget::File { .. } => return Err(self.refuse_place(true)),
            CopyTarget::Program { .. } => return Err(self.refuse_place(false)),
        }
        let fields = self.insert_fields(table, columns).await?;
        self.refuse_row_security(table).await?;
        if parsed.copy_filter.is_some() {
            return Err(
                Error::NotSupported("COPY FROM with WHERE is not supported".to_owned()).into()
            );
        }
        let options = Options::read(&parsed.copy_options, Direction::From)?;
        let (mut source, forced) = options.settle_from()?;
        let last = table.0.last().and_then(|part| part.as_ident());
        let name = last.map_or_else(|| table.to_string(), ident);
        if let CopySource::Csv(csv, _) = &mut source {
            let ForceNull { not_null, null } = forced;
            for (option, named, flags) in [
                ("FORCE_NOT_NULL", not_null, &mut csv.force_not_null),
                ("FORCE_NULL", null, &mut csv.force_null),
            ] {
                if !named.is_empty() {
                    // All of the table's columns may be named, if to no avail.
                    let named: Vec<_> = named.iter().map(|n| Ident::with_quote('"', n)).collect();
                    let named = self.insert_fields(table, &named).await?;
                    *flags = forced_columns(option, &named, &fields)?;
                }
            }
        }
        Ok(CopyIn { table: table.clone(), name, fields, source })
    }

    /// What is on the server's side is read by nobody, and told of only to those who might.
    fn refuse_place(&self, file: bool) -> query::Error {
        let snapshot = self.catalog().snapshot();
        let access = snapshot.access(self.user());
        let (role, place, refusal) = match file {
            true => (
                "pg_read_server_files",
                "a file",
                "must be superuser or have privileges of the pg_read_server_files role to COPY \
                 from a file",
            ),
            false => (
                "pg_execute_server_program",
                "PROGRAM",
                "must be superuser or have privileges of the pg_execute_server_program role to \
                 COPY to or from an external program",
            ),
        };
        match access.has_role(role) {
            true => Error::NotFromClient(place).into(),
            false => Error::NotAllowed(refusal).into(),
        }
    }

    async fn refuse_row_security(&self, table: &ObjectName) -> Result<()> {
        let name = self.existing(table).await?;
        let snapshot = self.catalog().snapshot();
        let Some(table) = snapshot.table(&name) else { return Ok(()) };
        match snapshot.access(self.user()).row_policies(table) {
            Some(_) => Err(Error::RowSecurity.into()),
            None => Ok(()),
        }
    }

    /// Where the client's bytes go, and what comes of them: the number of rows that the table has
    /// more. A row may have `limit` bytes. Dropping the future leaves the table as it was.
    pub fn receive(
        &mut self,
        registered: Registered,
        copy: CopyIn,
        limit: usize,
    ) -> (Feed, impl Future<Output = Result<u64>> + '_) {
        let CopyIn { table, name, fields, source } = copy;
        let zone = TimeZone::parse(self.settings().time_zone()).unwrap_or_default();
        let decoder = CopyDecoder::new(name, &fields, source, zone, limit);
        let (feed, batches) = channel(decoder, self.queries().engine.handle(), registered.watch());
        let columns: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        let inserting = async move {
            let cause = batches.cause.clone();
            let batches = batches.into_stream();
            let done = self.insert_batches(registered, &table, &columns, batches).await;
            // Whatever became of the error on its way.
            done.map_err(|error| cause.get().cloned().map_or(error, query::Error::from))
        };
        (feed, inserting)
    }
}

/// For each column that is copied, whether it is one of those that an option names.
fn forced_columns(
    option: &'static str,
    named: &[FieldRef],
    fields: &[FieldRef],
) -> Result<Vec<bool>, Error> {
    let mut forced = vec![false; fields.len()];
    for column in named {
        let column = column.name();
        match fields.iter().position(|field| field.name() == column) {
            Some(at) => forced[at] = true,
            None => return Err(Error::NotCopied { option, column: column.clone() }),
        }
    }
    Ok(forced)
}
