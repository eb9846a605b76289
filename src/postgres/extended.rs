//! The extended protocol: Parse, Bind, Describe, Execute, Close, and what they leave behind.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use postgres_types::Type;

use super::frontend::{Bind, Target};
use super::portal::{Portal, encoder};
use super::session::{Client, Trouble};
use super::sqlstate::Report;
use crate::engine::system::shown_name;
use crate::query::{Outcome, Prepared, Session, TransactionState};
use crate::values::decode;
use crate::values::encode::{Format, TimeZone};
use crate::values::types::{parameter, pg_type, type_modifier, type_size};

/// What a client has prepared and bound.
#[derive(Debug, Default)]
pub struct Extended {
    statements: HashMap<String, Arc<Statement>>,
    portals: HashMap<String, Bound>,
    /// After an error everything up to Sync is ignored.
    skipping: bool,
    /// Messages came since the last Sync.
    busy: bool,
}

/// A prepared statement.
#[derive(Debug)]
struct Statement {
    /// None for an empty text.
    prepared: Option<Prepared>,
    /// The types of its parameters as the client knows them.
    parameters: Vec<Type>,
}

/// A statement with its parameters.
#[derive(Debug)]
struct Bound {
    statement: Arc<Statement>,
    values: Vec<ScalarValue>,
    formats: Vec<Format>,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    Open(Box<Portal>),
    Done,
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
        (self.skipping, self.busy) = (false, false);
        self.end_portals(transaction);
    }

    /// Portals live as long as the transaction block they were made in.
    pub fn end_portals(&mut self, transaction: TransactionState) {
        if transaction != TransactionState::InBlock {
            self.portals.clear();
        }
    }

    /// A simple query takes the place of the unnamed statement and portal.
    pub fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }

    /// Forgets a prepared statement, or all of them.
    pub fn deallocate(&mut self, name: Option<&str>) -> Result<(), Report> {
        match name {
            None => self.statements.clear(),
            Some(name) if self.statements.remove(name).is_some() => {}
            Some(name) => return Err(no_statement(name)),
        }
        Ok(())
    }

    /// Keeps a plan that was made anew for the next execution.
    fn renewed(&mut self, old: &Arc<Statement>, prepared: Prepared) {
        if old.prepared.as_ref().is_some_and(|old| old.is_same_plan(&prepared)) {
            return;
        }
        let kept = self.statements.values_mut().find(|kept| Arc::ptr_eq(kept, old));
        if let Some(kept) = kept {
            let parameters = old.parameters.clone();
            *kept = Arc::new(Statement { prepared: Some(prepared), parameters });
        }
    }

    fn statement(&self, name: &str) -> Result<&Arc<Statement>, Report> {
        self.statements.get(name).ok_or_else(|| no_statement(name))
    }
}

fn no_statement(name: &str) -> Report {
    Report::error("26000", format!("prepared statement \"{name}\" does not exist"))
}

fn no_portal(name: &str) -> Report {
    Report::error("34000", format!("portal \"{name}\" does not exist"))
}

impl Client {
    pub async fn parse(
        &mut self,
        name: String,
        query: &str,
        oids: Vec<u32>,
    ) -> Result<(), Trouble> {
        self.extended.busy = true;
        if !name.is_empty() && self.extended.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Report::error("42P05", message).into());
        }
        let mut sources = Session::parse(query)?;
        let declared: Vec<Option<Type>> = oids.iter().map(|oid| Type::from_oid(*oid)).collect();
        let statement = match (sources.pop(), sources.is_empty()) {
            (None, _) => Statement { prepared: None, parameters: Vec::new() },
            (Some(source), true) => {
                let types = declared.iter().map(|pg| parameter(pg.as_ref()?)).collect();
                let registered = self.session.start(source.text())?;
                let prepared = self.session.prepare(&registered, &source, types).await?;
                let parameters = parameter_types(prepared.parameters(), &declared);
                Statement { prepared: Some(prepared), parameters }
            }
            (Some(_), false) => {
                let message = "cannot insert multiple commands into a prepared statement";
                return Err(Report::error("42601", message).into());
            }
        };
        self.extended.statements.insert(name, Arc::new(statement));
        Ok(self.connection.put(Backend::ParseComplete(ParseComplete::new()))?)
    }

    pub fn bind(&mut self, bind: Bind) -> Result<(), Trouble> {
        self.extended.busy = true;
        let statement = self.extended.statement(&bind.statement)?.clone();
        if !bind.portal.is_empty() && self.extended.portals.contains_key(&bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(Report::error("42P03", message).into());
        }
        let values = bind_values(&statement, &bind, &self.style().time_zone)?;
        let columns = statement.prepared.as_ref().map_or(0, |p| p.schema().fields().len());
        let formats = spread(&bind.result_formats, columns, "result")?;
        let bound = Bound { statement, values, formats, state: State::New };
        self.extended.portals.insert(bind.portal, bound);
        Ok(self.connection.put(Backend::BindComplete(BindComplete::new()))?)
    }

    pub fn describe(&mut self, target: &Target) -> Result<(), Trouble> {
        self.extended.busy = true;
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.extended.statement(name)?.clone();
                let types = statement.parameters.iter().map(Type::oid).collect();
                let description = ParameterDescription::new(types);
                self.connection.put(Backend::ParameterDescription(description))?;
                (statement, None)
            }
            Target::Portal(name) => {
                let bound = self.extended.portals.get(name).ok_or_else(|| no_portal(name))?;
                (bound.statement.clone(), Some(bound.formats.clone()))
            }
        };
        let message = match statement.prepared.as_ref().filter(|p| p.returns_rows()) {
            None => Backend::NoData(NoData::new()),
            Some(prepared) => {
                let schema = prepared.schema();
                let formats = formats.unwrap_or_else(|| vec![Format::Text; schema.fields().len()]);
                Backend::RowDescription(row_description(&schema, &formats))
            }
        };
        Ok(self.connection.put(message)?)
    }

    pub async fn execute(&mut self, name: &str, max_rows: i32) -> Result<(), Trouble> {
        self.extended.busy = true;
        let style = self.style();
        let before = self.session.settings().clone();
        let bound = self.extended.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some(prepared) = &bound.statement.prepared else {
            let empty = Backend::EmptyQueryResponse(EmptyQueryResponse::new());
            return Ok(self.connection.put(empty)?);
        };
        if matches!(bound.state, State::New) {
            let transform = encoder(&prepared.schema(), bound.formats.clone(), style)?;
            let mut prepared = prepared.clone();
            let values = std::mem::take(&mut bound.values);
            let statement = bound.statement.clone();
            let registered = self.session.start(&prepared.text)?;
            let outcome =
                self.session.execute(registered, &mut prepared, values, transform).await?;
            self.extended.renewed(&statement, prepared);
            let bound = self.extended.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
            match outcome {
                Outcome::Rows(running) => {
                    bound.state = State::Open(Box::new(Portal::new(running)));
                }
                Outcome::Done(done) => {
                    bound.state = State::Done;
                    self.notify(done.notices)?;
                    if let Some(which) = done.deallocate {
                        self.extended.deallocate(which.as_deref())?;
                    }
                    self.report_settings(&before)?;
                    let tag = CommandComplete::new(done.tag.to_owned());
                    return Ok(self.connection.put(Backend::CommandComplete(tag))?);
                }
            }
        }
        // Negative means no limit, as in PostgreSQL.
        let limit = usize::try_from(max_rows).ok().filter(|limit| *limit > 0);
        let bound = self.extended.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        match &mut bound.state {
            State::Open(portal) => {
                if portal.send(&mut self.connection, limit).await? {
                    bound.state = State::Done;
                }
                Ok(())
            }
            State::New | State::Done => {
                let tag = CommandComplete::new("SELECT 0".to_owned());
                Ok(self.connection.put(Backend::CommandComplete(tag))?)
            }
        }
    }

    /// Closing what is not there is no error.
    pub fn close(&mut self, target: &Target) -> io::Result<()> {
        self.extended.busy = true;
        match target {
            Target::Statement(name) => drop(self.extended.statements.remove(name)),
            Target::Portal(name) => drop(self.extended.portals.remove(name)),
        }
        self.connection.put(Backend::CloseComplete(CloseComplete::new()))
    }
}

/// What the client declared, or what PostgreSQL would call the type that was found.
fn parameter_types(found: &[FieldRef], declared: &[Option<Type>]) -> Vec<Type> {
    let declared =
        |at: usize| declared.get(at).cloned().flatten().filter(|pg| *pg != Type::UNKNOWN);
    let natural = |field: &FieldRef| pg_type(field);
    let types = found.iter().enumerate();
    types.map(|(at, field)| declared(at).unwrap_or_else(|| natural(field))).collect()
}

fn bind_values(
    statement: &Statement,
    bind: &Bind,
    zone: &TimeZone,
) -> Result<Vec<ScalarValue>, Report> {
    let (given, wanted) = (bind.parameters.len(), statement.parameters.len());
    if given != wanted {
        let message = format!(
            "bind message supplies {given} parameters, but prepared statement \"{}\" requires \
             {wanted}",
            bind.statement
        );
        return Err(Report::error("08P01", message));
    }
    let formats = spread(&bind.parameter_formats, given, "parameter")?;
    let Some(prepared) = &statement.prepared else { return Ok(Vec::new()) };
    let types = statement.parameters.iter().zip(prepared.parameters());
    (bind.parameters.iter().zip(formats).zip(types))
        .map(|((value, format), (pg, field))| {
            let value = value.as_ref().map(Bytes::as_ref);
            Ok(decode::decode_in(zone, value, format, pg, field.data_type())?)
        })
        .collect()
}

/// One format for each of `count`: none means text, one is for all.
fn spread(codes: &[i16], count: usize, what: &str) -> Result<Vec<Format>, Report> {
    let format = |code: &i16| match code {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        other => Err(Report::error("22023", format!("unsupported format code: {other}"))),
    };
    match codes {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![format(one)?; count]),
        many if many.len() == count => many.iter().map(format).collect(),
        many => {
            let message = format!("bind message has {} {what} formats but {count}", many.len());
            Err(Report::error("08P01", format!("{message} were expected")))
        }
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
