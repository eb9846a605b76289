//! The extended protocol: Parse, Bind, Describe, Execute, Close, and what they leave behind.

use std::io;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use postgres_types::Type;

use super::copy::{copy_out, gone};
use super::frontend::{Bind, Target};
use super::portal::{Life, Portal, Portals, State, cannot_run, no_portal};
use super::reading::{Reading, Sink, encoder};
use super::session::{Client, Trouble};
use super::sqlstate::Report;
use super::statement::{Statement, Statements};
use crate::engine::objects::CursorItem;
use crate::engine::system::shown_name;
use crate::query::objects::ObjectCommand;
use crate::query::submitted::columns_of;
use crate::query::{Error, Outcome, Prepared, Registered, Session, TransactionState};
use crate::storage::results::ResultFile;
use crate::values::decode;
use crate::values::encode::{Format, RowEncoder, TimeZone};
use crate::values::types::{parameter, pg_type, type_modifier, type_size};

/// What a client has prepared and bound.
#[derive(Debug, Default)]
pub struct Extended {
    pub statements: Statements,
    pub portals: Portals,
    /// After an error everything up to Sync is ignored.
    skipping: bool,
    /// Messages came since the last Sync.
    busy: bool,
}

impl Extended {
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    pub fn skip(&mut self) {
        self.skipping = true;
    }

    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// The end of a client's turn: outside of a transaction block its portals end with it.
    pub fn sync(&mut self, transaction: TransactionState) {
        self.portals.end_turn(transaction, !self.skipping);
        (self.skipping, self.busy) = (false, false);
    }

    /// A simple query takes the place of the unnamed statement and portal.
    pub fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }
}

impl Client {
    pub async fn parse(
        &mut self,
        name: String,
        query: &str,
        oids: Vec<u32>,
    ) -> Result<(), Trouble> {
        self.extended.busy = true;
        if name.is_empty() {
            // Whatever becomes of the next one.
            self.extended.statements.remove("");
        }
        let declared: Vec<Option<Type>> = oids.iter().map(|oid| Type::from_oid(*oid)).collect();
        let prepared = self.prepared(query, &declared).await?;
        let parameters = prepared
            .as_ref()
            .map_or_else(Vec::new, |one| parameter_types(one.parameters(), &declared));
        let statement = Statement { prepared, parameters };
        self.extended.statements.refuse_taken(&name)?;
        let objects = self.session.objects();
        self.extended.statements.insert(objects, name, statement, query, false);
        Ok(self.connection.put(Backend::ParseComplete(ParseComplete::new()))?)
    }

    /// `None` for an empty text.
    async fn prepared(
        &mut self,
        query: &str,
        declared: &[Option<Type>],
    ) -> Result<Option<Prepared>, Trouble> {
        let types: Vec<_> = declared.iter().map(|pg| parameter(pg.as_ref()?)).collect();
        if let Some(known) = self.session.known(query, &types) {
            return Ok(Some(known));
        }
        let mut sources = Session::parse(query)?;
        let Some(source) = sources.pop() else { return Ok(None) };
        if !sources.is_empty() {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Report::error("42601", message).into());
        }
        let registered = self.session.start(source.text())?;
        let prepared = self.session.prepare(&registered, &source, types).await?;
        self.session.note(query, &prepared);
        Ok(Some(prepared))
    }

    pub fn bind(&mut self, bind: Bind) -> Result<(), Trouble> {
        self.extended.busy = true;
        let statement = self.extended.statements.get(&bind.statement)?.clone();
        let parameter_formats = parameter_formats(&statement, &bind)?;
        if self.in_failed_block() && !statement.ends_block() {
            return Err(Error::InFailedTransaction.into());
        }
        self.extended.portals.refuse_taken(&bind.portal)?;
        let zone = self.style().time_zone;
        let values = bind_values(&statement, &bind.parameters, &parameter_formats, &zone)?;
        let columns = statement.prepared.as_ref().and_then(|prepared| self.columns(prepared));
        let formats = match columns {
            Some(columns) => result_formats(&bind.result_formats, columns.schema.fields().len())?,
            // Whatever the client asks for: there is nothing to be in that format.
            None => Vec::new(),
        };
        let life = Life::Transaction { level: self.session.savepoints(), hold: false };
        let mut portal = Portal {
            statement,
            values,
            formats,
            state: State::New,
            declared: None,
            life,
            listed: None,
        };
        if !bind.portal.is_empty() {
            let text = portal.statement.prepared.as_ref().map(|prepared| prepared.text.to_string());
            let item = CursorItem {
                statement: text.unwrap_or_default(),
                is_holdable: false,
                is_binary: false,
                is_scrollable: false,
                created: std::time::SystemTime::now(),
            };
            portal.listed = Some(self.session.objects().cursors.add(&bind.portal, item));
        }
        self.extended.portals.insert(bind.portal, portal);
        Ok(self.connection.put(Backend::BindComplete(BindComplete::new()))?)
    }

    pub fn describe(&mut self, target: &Target) -> Result<(), Trouble> {
        self.extended.busy = true;
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.extended.statements.get(name)?.clone();
                self.refuse_rows_in_failed_block(&statement)?;
                let types = statement.parameters.iter().map(Type::oid).collect();
                let description = ParameterDescription::new(types);
                self.connection.put(Backend::ParameterDescription(description))?;
                (statement, None)
            }
            Target::Portal(name) => {
                let portal = self.extended.portals.get(name).ok_or_else(|| no_portal(name))?;
                self.refuse_rows_in_failed_block(&portal.statement)?;
                (portal.statement.clone(), Some(portal.formats.clone()))
            }
        };
        let columns = statement.prepared.as_ref().and_then(|prepared| self.columns(prepared));
        let message = match columns {
            None => Backend::NoData(NoData::new()),
            Some(columns) => {
                let text = || vec![Format::Text; columns.schema.fields().len()];
                let formats = columns.formats.or(formats).unwrap_or_else(text);
                Backend::RowDescription(row_description(&columns.schema, &formats))
            }
        };
        Ok(self.connection.put(message)?)
    }

    fn in_failed_block(&self) -> bool {
        self.session.transaction_state() == TransactionState::Failed
    }

    /// What a result's columns are cannot be looked up in a failed block.
    fn refuse_rows_in_failed_block(&self, statement: &Statement) -> Result<(), Error> {
        let rows = || statement.prepared.as_ref().and_then(|prepared| self.columns(prepared));
        match self.in_failed_block() && rows().is_some() {
            true => Err(Error::InFailedTransaction),
            false => Ok(()),
        }
    }

    pub async fn execute(&mut self, name: &str, max_rows: i32) -> Result<(), Trouble> {
        self.extended.busy = true;
        let (name, mut portal) = self.extended.portals.take(name).ok_or_else(|| no_portal(name))?;
        let done = self.execute_portal(&name, &mut portal, max_rows).await;
        if done.is_err() {
            portal.state = State::Failed;
        }
        self.extended.portals.insert(name, portal);
        done?;
        let notices = self.session.settle().await?;
        Ok(self.notify(notices)?)
    }

    async fn execute_portal(
        &mut self,
        name: &str,
        portal: &mut Portal,
        max_rows: i32,
    ) -> Result<(), Trouble> {
        let Some(prepared) = &portal.statement.prepared else {
            let empty = Backend::EmptyQueryResponse(EmptyQueryResponse::new());
            return Ok(self.connection.put(empty)?);
        };
        if self.in_failed_block() && !prepared.ends_block() {
            return Err(Error::InFailedTransaction.into());
        }
        // Negative means no limit, as in PostgreSQL.
        let limit = u64::try_from(max_rows).ok().filter(|limit| *limit > 0);
        let again = !matches!(portal.state, State::New);
        if !again {
            let registered = self.session.start(&prepared.text)?;
            let registered = match limit {
                Some(_) => registered.in_portions(),
                None => registered,
            };
            self.run_portal(registered, portal).await?;
        }
        match &mut portal.state {
            State::Reading(reading) => {
                let mut encoder = match (&portal.declared, &portal.statement.prepared) {
                    (Some(_), Some(prepared)) => {
                        Some(self.row_encoder(&prepared.schema(), &portal.formats)?)
                    }
                    _ => None,
                };
                self.send(reading, limit, encoder.as_mut()).await
            }
            State::Fetching(fetch, _) => {
                let registered = self.session.start(&format!("FETCH {}", fetch.name).into())?;
                self.fetch_portion(registered, portal, limit).await
            }
            State::Fetched(tag) => {
                let tag = std::mem::take(tag);
                self.complete(&tag)?;
                portal.state = State::Fetched(tag);
                Ok(())
            }
            State::Failed | State::Done if again => Err(cannot_run(name).into()),
            State::New | State::Failed | State::Done => Ok(()),
        }
    }

    /// Starts what a portal runs, or carries it out if it has no rows.
    pub async fn run_portal(
        &mut self,
        registered: Registered,
        portal: &mut Portal,
    ) -> Result<(), Trouble> {
        let Some(mut prepared) = portal.statement.prepared.clone() else { return Ok(()) };
        let values = std::mem::take(&mut portal.values);
        match prepared.object_command().cloned().as_deref() {
            None => {
                let statement = portal.statement.clone();
                let running =
                    self.run_prepared(registered, &mut prepared, values, &portal.formats).await?;
                portal.state = running.map_or(State::Done, |r| State::Reading(Box::new(r)));
                self.extended.statements.renewed(&statement, prepared);
            }
            Some(ObjectCommand::Fetch(fetch)) => {
                self.session.authorise(&prepared)?;
                portal.state = State::Fetching(fetch.clone(), 0);
            }
            Some(ObjectCommand::Execute(execute)) => {
                self.session.authorise(&prepared)?;
                let (mut prepared, values) = self.executed(&registered, execute).await?;
                let running =
                    self.run_prepared(registered, &mut prepared, values, &portal.formats).await?;
                portal.state = running.map_or(State::Done, |r| State::Reading(Box::new(r)));
                self.keep_renewed(execute, prepared);
            }
            Some(other) => {
                self.object(registered, &prepared, other, values).await?;
                portal.state = State::Done;
            }
        }
        Ok(())
    }

    /// Waits for a statement's turn, as long as the client is there.
    pub async fn wait_for_turn(
        &mut self,
        registered: &mut Registered,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        tokio::select! {
            biased;
            turn = self.session.wait_for_turn(registered, prepared) => Ok(turn?),
            () = self.connection.closed() => Err(gone().into()),
        }
    }

    /// Runs a statement: its rows, or `None` if it had none and is complete.
    pub async fn run_prepared(
        &mut self,
        mut registered: Registered,
        prepared: &mut Prepared,
        values: Vec<ScalarValue>,
        formats: &[Format],
    ) -> Result<Option<Reading>, Trouble> {
        self.wait_for_turn(&mut registered, prepared).await?;
        if prepared.is_copy_in() {
            self.copy_in(registered, prepared).await?;
            return Ok(None);
        }
        let file = match prepared.copy() {
            Some(copy) if copy.parquet => {
                Some(ResultFile::new(&columns_of(&prepared.schema())).map_err(Report::from)?)
            }
            _ => None,
        };
        let transform = encoder(prepared, formats.to_vec(), self.style(), file.clone())?;
        match self.session.execute(registered, prepared, values, transform).await? {
            Outcome::Rows(running) => match prepared.copy() {
                None => Ok(Some(Reading::encoded(running))),
                // All of it at once, whatever limit the client sets.
                Some(copy) => {
                    let schema = prepared.schema();
                    let rows =
                        copy_out(running, (copy, file), &schema, &mut self.connection).await?;
                    self.complete(&format!("COPY {rows}"))?;
                    Ok(None)
                }
            },
            Outcome::Done(done) => {
                self.notify(done.notices)?;
                if let Some(boundary) = done.boundary {
                    self.extended.portals.cross(boundary);
                }
                self.complete(&done.tag)?;
                Ok(None)
            }
        }
    }

    /// What a declared cursor's rows are sent with.
    pub fn row_encoder(&self, schema: &Schema, formats: &[Format]) -> Result<RowEncoder, Report> {
        let encoder = RowEncoder::new(schema, formats.to_vec(), self.style());
        encoder.map_err(|error| Report::error(error.sqlstate(), error.to_string()))
    }

    /// Sends rows: so many, or all. A declared cursor's go through an encoder.
    pub async fn send(
        &mut self,
        reading: &mut Reading,
        limit: Option<u64>,
        encoder: Option<&mut RowEncoder>,
    ) -> Result<(), Trouble> {
        // As in PostgreSQL, the tag counts what this turn sent.
        if reading.is_suspended() {
            reading.resume(self.session.settings().statement_timeout());
        }
        let (limit, mut sink) = (limit.unwrap_or(u64::MAX), Sink::Send(encoder));
        let sent = reading.forward(&mut self.connection, limit, &mut sink).await?;
        if !reading.is_over() {
            reading.suspend();
            return Ok(self.suspended()?);
        }
        // PostgreSQL counts the rows of queries only.
        let tag = match reading.tag.as_ref() {
            "SELECT" => format!("SELECT {sent}"),
            tag => tag.to_owned(),
        };
        Ok(self.complete(&tag)?)
    }

    pub fn suspended(&mut self) -> io::Result<()> {
        self.connection.put(Backend::PortalSuspended(PortalSuspended::new()))
    }

    pub fn complete(&mut self, tag: &str) -> io::Result<()> {
        self.warn()?;
        self.session.entry().completed(tag);
        let tag = CommandComplete::new(tag.to_owned());
        self.connection.put(Backend::CommandComplete(tag))
    }

    /// Closing what is not there is no error.
    pub fn close(&mut self, target: &Target) -> io::Result<()> {
        self.extended.busy = true;
        match target {
            Target::Statement(name) => self.extended.statements.remove(name),
            Target::Portal(name) => drop(self.extended.portals.remove(name)),
        }
        self.connection.put(Backend::CloseComplete(CloseComplete::new()))
    }
}

/// What the client declared, or what PostgreSQL would call the type that was found.
pub fn parameter_types(found: &[FieldRef], declared: &[Option<Type>]) -> Vec<Type> {
    let declared =
        |at: usize| declared.get(at).cloned().flatten().filter(|pg| *pg != Type::UNKNOWN);
    let natural = |field: &FieldRef| pg_type(field);
    let types = found.iter().enumerate();
    types.map(|(at, field)| declared(at).unwrap_or_else(|| natural(field))).collect()
}

/// A format for each parameter, of which there must be as many as the statement takes.
fn parameter_formats(statement: &Statement, bind: &Bind) -> Result<Vec<Format>, Report> {
    let (given, wanted) = (bind.parameters.len(), statement.parameters.len());
    let formats = spread(&bind.parameter_formats, given, |formats| {
        format!("bind message has {formats} parameter formats but {given} parameters")
    })?;
    if given != wanted {
        let message = format!(
            "bind message supplies {given} parameters, but prepared statement \"{}\" requires \
             {wanted}",
            bind.statement
        );
        return Err(Report::error("08P01", message));
    }
    Ok(formats)
}

fn result_formats(codes: &[i16], columns: usize) -> Result<Vec<Format>, Report> {
    spread(codes, columns, |formats| {
        format!("bind message has {formats} result formats but query has {columns} columns")
    })
}

fn bind_values(
    statement: &Statement,
    parameters: &[Option<Bytes>],
    formats: &[Format],
    zone: &TimeZone,
) -> Result<Vec<ScalarValue>, Report> {
    let Some(prepared) = &statement.prepared else { return Ok(Vec::new()) };
    let types = statement.parameters.iter().zip(prepared.parameters());
    (parameters.iter().zip(formats).zip(types))
        .map(|((value, format), (pg, field))| {
            let value = value.as_ref().map(Bytes::as_ref);
            Ok(decode::decode_in(zone, value, *format, pg, field.data_type())?)
        })
        .collect()
}

/// One format for each of `count`: none means text, one is for all. `mismatch` says what is wrong
/// with another number of them.
fn spread(
    codes: &[i16],
    count: usize,
    mismatch: impl FnOnce(usize) -> String,
) -> Result<Vec<Format>, Report> {
    let format = |code: &i16| match code {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        other => Err(Report::error("22023", format!("unsupported format code: {other}"))),
    };
    match codes {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![format(one)?; count]),
        many if many.len() == count => many.iter().map(format).collect(),
        many => Err(Report::error("08P01", mismatch(many.len()))),
    }
}

pub fn row_description(schema: &Schema, formats: &[Format]) -> RowDescription {
    let describe = |(field, format): (&Arc<Field>, &Format)| {
        let pg = pg_type(field);
        FieldDescription::new(
            shown_name(field.name()).to_owned(),
            0,
            0,
            pg.oid(),
            type_size(&pg),
            type_modifier(field),
            i16::from(*format == Format::Binary),
        )
    };
    RowDescription::new(schema.fields().iter().zip(formats).map(describe).collect())
}
