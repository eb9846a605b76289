//! Cursors and prepared statements in SQL: DECLARE, FETCH, MOVE, CLOSE, PREPARE, EXECUTE,
//! DEALLOCATE, DISCARD. They are the protocol's own portals and statements.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use pgwire::messages::PgWireBackendMessage as Backend;

use super::extended::{parameter_types, row_description};
use super::portal::{Declared, Life, Portal, State, cannot_run, no_cursor};
use super::reading::{Fetched, Reading, Sink};
use super::session::{Client, Trouble};
use super::sqlstate::Report;
use super::statement::Statement;
use crate::engine::explain_schema;
use crate::engine::objects::CursorItem;
use crate::query::objects::{Declare, Direction, Execute, Fetch, ObjectCommand, Prepare};
use crate::query::{Outcome, Prepared, Registered};
use crate::values::encode::Format;

/// The columns of a result before it is there.
pub struct Columns {
    pub schema: SchemaRef,
    /// The formats, if whoever asks for the rows cannot choose them any more.
    pub formats: Option<Vec<Format>>,
}

impl Client {
    /// Carries out a command of the simple protocol, or one without rows of either.
    pub async fn object(
        &mut self,
        registered: Registered,
        prepared: &Prepared,
        command: &ObjectCommand,
        values: Vec<ScalarValue>,
    ) -> Result<(), Trouble> {
        self.session.authorise(prepared)?;
        match command {
            ObjectCommand::Fetch(fetch) => return self.fetch_simple(registered, fetch).await,
            ObjectCommand::Execute(execute) => {
                let (mut prepared, values) = self.executed(&registered, execute).await?;
                self.answer(registered, &mut prepared, values).await?;
                self.keep_renewed(execute, prepared);
                return Ok(());
            }
            ObjectCommand::Declare(declare) => {
                self.declare(registered, prepared, declare, values).await?;
            }
            ObjectCommand::Close(None) => self.extended.portals.clear(),
            ObjectCommand::Close(Some(name)) => {
                let closed = self.extended.portals.remove(name);
                closed.ok_or_else(|| no_cursor(name))?;
            }
            ObjectCommand::Prepare(prepare) => self.prepare_named(&registered, prepare).await?,
            ObjectCommand::Deallocate(name) => {
                self.extended.statements.deallocate(name.as_deref())?;
            }
            ObjectCommand::DiscardAll => {
                self.extended.portals.clear();
                self.extended.statements.deallocate(None)?;
                self.session.discard_settings()?;
                self.session.listen_to_nothing().await?;
            }
            ObjectCommand::Discard(_) => {}
        }
        Ok(self.complete(command.tag())?)
    }

    /// The columns of a statement's result, those of what it names included.
    pub fn columns(&self, prepared: &Prepared) -> Option<Columns> {
        let own = |prepared: &Prepared| {
            prepared.returns_rows().then(|| Columns { schema: prepared.schema(), formats: None })
        };
        match prepared.object_command().map(Arc::as_ref) {
            None => own(prepared),
            Some(ObjectCommand::Fetch(Fetch { name, moves: false, .. })) => {
                let cursor = self.extended.portals.get(name)?;
                let schema = own(cursor.statement.prepared.as_ref()?)?.schema;
                Some(Columns { schema, formats: cursor.settled_formats().map(<[_]>::to_vec) })
            }
            Some(ObjectCommand::Execute(Execute { explain: Some(_), .. })) => {
                Some(Columns { schema: explain_schema(), formats: None })
            }
            Some(ObjectCommand::Execute(Execute { name, .. })) => {
                own(self.extended.statements.get(name).ok()?.prepared.as_ref()?)
            }
            Some(_) => None,
        }
    }

    async fn declare(
        &mut self,
        registered: Registered,
        prepared: &Prepared,
        declare: &Declare,
        values: Vec<ScalarValue>,
    ) -> Result<(), Trouble> {
        if declare.name.is_empty() {
            return Err(Report::error("34000", "invalid cursor name: must not be empty").into());
        }
        self.extended.portals.refuse_taken(&declare.name)?;
        let Some(query) = prepared.declared_query() else { return Ok(()) };
        let formats = vec![Format::Text; query.schema().fields().len()];
        let item = CursorItem {
            statement: prepared.text.to_string(),
            is_holdable: declare.hold,
            is_binary: declare.binary,
            is_scrollable: declare.scroll == Some(true),
            created: SystemTime::now(),
        };
        let level = self.session.savepoints();
        let mut portal = Portal {
            statement: Arc::new(Statement { prepared: Some(query), parameters: Vec::new() }),
            values,
            formats,
            state: State::New,
            declared: Some(declare.into()),
            life: Life::Transaction { level, hold: declare.hold },
            listed: None,
        };
        self.open_cursor(registered, &mut portal).await?;
        portal.listed = Some(self.session.objects().cursors.add(&declare.name, item));
        self.extended.portals.insert(declare.name.clone(), portal);
        Ok(())
    }

    /// Starts a declared cursor's query: what it reads is settled from here on.
    async fn open_cursor(
        &mut self,
        mut registered: Registered,
        portal: &mut Portal,
    ) -> Result<(), Trouble> {
        let scroll = portal.declared.and_then(|declared| declared.scroll);
        let Some(mut query) = portal.statement.prepared.clone() else { return Ok(()) };
        let values = portal.values.clone();
        self.wait_for_turn(&mut registered, &query).await?;
        let outcome =
            self.session.execute(registered.in_portions(), &mut query, values, Ok).await?;
        let Outcome::Rows(running) = outcome else { return Ok(()) };
        let mut reading = Reading::batches(running, scroll, self.session.memory("cursor"));
        reading.suspend();
        portal.statement = Arc::new(Statement { prepared: Some(query), parameters: Vec::new() });
        portal.state = State::Reading(Box::new(reading));
        Ok(())
    }

    async fn fetch_simple(&mut self, registered: Registered, fetch: &Fetch) -> Result<(), Trouble> {
        let cursor = self.extended.portals.get(&fetch.name);
        let cursor = cursor.ok_or_else(|| no_cursor(&fetch.name))?;
        let Some(prepared) = cursor.statement.prepared.as_ref().filter(|p| p.returns_rows()) else {
            return Err(cannot_run(&fetch.name).into());
        };
        let schema = prepared.schema();
        let format = match cursor.declared {
            Some(Declared { binary: true, .. }) => Format::Binary,
            _ => Format::Text,
        };
        let formats = vec![format; schema.fields().len()];
        let formats = cursor.settled_formats().map_or(formats, <[_]>::to_vec);
        if !fetch.moves {
            let description = row_description(&schema, &formats);
            self.connection.put(Backend::RowDescription(description))?;
        }
        let rows = self.fetch(registered, fetch, &formats).await?;
        Ok(self.complete(&format!("{} {rows}", if fetch.moves { "MOVE" } else { "FETCH" }))?)
    }

    /// Moves a cursor, and sends the rows that FETCH asks for; returns how many.
    pub async fn fetch(
        &mut self,
        registered: Registered,
        fetch: &Fetch,
        formats: &[Format],
    ) -> Result<u64, Trouble> {
        let taken = self.extended.portals.take(&fetch.name);
        let (name, mut cursor) = taken.ok_or_else(|| no_cursor(&fetch.name))?;
        let fetched = self.fetch_from(registered, fetch, &mut cursor, formats).await;
        if fetched.is_err() {
            cursor.state = State::Failed;
        }
        self.extended.portals.insert(name, cursor);
        fetched
    }

    async fn fetch_from(
        &mut self,
        registered: Registered,
        fetch: &Fetch,
        cursor: &mut Portal,
        formats: &[Format],
    ) -> Result<u64, Trouble> {
        let mut registered = Some(registered);
        // A portal that was bound and not run yet.
        if let (State::New, Some(prepared)) = (&cursor.state, &cursor.statement.prepared)
            && prepared.returns_rows()
            && let Some(registered) = registered.take()
        {
            let (mut prepared, values) = (prepared.clone(), std::mem::take(&mut cursor.values));
            let formats = cursor.formats.clone();
            let running = self.run_prepared(registered, &mut prepared, values, &formats).await?;
            cursor.state = running.map_or(State::Done, |r| State::Reading(Box::new(r)));
        }
        let reading = match &mut cursor.state {
            State::Reading(reading) => reading,
            State::Done => return Ok(0),
            _ => return Err(cannot_run(&fetch.name).into()),
        };
        let mut encoder = match (&cursor.declared, &cursor.statement.prepared) {
            (Some(_), Some(prepared)) if !fetch.moves => {
                Some(self.row_encoder(&prepared.schema(), formats)?)
            }
            _ => None,
        };
        let mut sink = match fetch.moves {
            true => Sink::Skip,
            false => Sink::Send(encoder.as_mut()),
        };
        reading.resume(self.session.settings().statement_timeout());
        let fetched = reading.fetch(&mut self.connection, fetch.direction, &mut sink).await?;
        reading.suspend();
        match fetched {
            Fetched::Rows(rows) => Ok(rows),
            Fetched::Rewind(passed) => {
                if let Some(registered) = registered {
                    self.open_cursor(registered, cursor).await?;
                }
                Ok(passed)
            }
        }
    }

    /// FETCH in the extended protocol, at most `limit` rows of it; what is then left is kept.
    pub async fn fetch_portion(
        &mut self,
        registered: Registered,
        portal: &mut Portal,
        limit: Option<u64>,
    ) -> Result<(), Trouble> {
        let State::Fetching(fetch, before) = &portal.state else { return Ok(()) };
        let (before, whole) = (*before, fetch.clone());
        let limit = limit.and_then(|limit| i64::try_from(limit).ok());
        let (now, then) = match limit {
            Some(limit) if !whole.moves => portion(whole.direction, limit),
            _ => (whole.direction, None),
        };
        let fetch = Fetch { direction: now, ..whole.clone() };
        let rows = self.fetch(registered, &fetch, &portal.formats).await?;
        let total = before + rows;
        match (then, limit) {
            (Some(direction), Some(limit)) if rows >= limit.unsigned_abs() => {
                portal.state = State::Fetching(Fetch { direction, ..whole }, total);
                Ok(self.suspended()?)
            }
            _ => {
                if whole.moves {
                    portal.state = State::Done;
                    return Ok(self.complete(&format!("MOVE {total}"))?);
                }
                let tag = format!("FETCH {total}");
                self.complete(&tag)?;
                portal.state = State::Fetched(tag);
                Ok(())
            }
        }
    }

    async fn prepare_named(
        &mut self,
        registered: &Registered,
        prepare: &Prepare,
    ) -> Result<(), Trouble> {
        self.extended.statements.refuse_taken(&prepare.name)?;
        let prepared = self.session.prepare_named(registered, prepare).await?;
        let parameters = parameter_types(prepared.parameters(), &[]);
        let statement = Statement { prepared: Some(prepared), parameters };
        let (name, objects) = (prepare.name.clone(), self.session.objects());
        self.extended.statements.insert(objects, name, statement, &prepare.text, true);
        Ok(())
    }

    /// The statement that EXECUTE names, and its parameters' values.
    pub async fn executed(
        &mut self,
        registered: &Registered,
        execute: &Execute,
    ) -> Result<(Prepared, Vec<ScalarValue>), Trouble> {
        let statement = self.extended.statements.get(&execute.name)?.clone();
        let fits = |prepared: &&Prepared| prepared.returns_rows() || prepared.writes();
        let Some(prepared) = statement.prepared.as_ref().filter(fits) else {
            let message = "EXECUTE of this statement is not supported";
            return Err(Report::error("0A000", message).into());
        };
        let values = self.session.arguments(registered, execute, prepared).await?;
        let prepared = match &execute.explain {
            Some(explain) => self.session.prepare_explained(registered, explain, prepared).await?,
            None => prepared.clone(),
        };
        Ok((prepared, values))
    }

    /// A plan that EXECUTE found to be out of date serves the next one as well.
    pub fn keep_renewed(&mut self, execute: &Execute, prepared: Prepared) {
        if execute.explain.is_some() {
            return;
        }
        if let Ok(statement) = self.extended.statements.get(&execute.name).cloned() {
            self.extended.statements.renewed(&statement, prepared);
        }
    }
}

/// Cuts a fetch into what is for now and what is for later.
fn portion(whole: Direction, limit: i64) -> (Direction, Option<Direction>) {
    use crate::query::objects::ALL;
    let rest = |count: i64| if count == ALL { ALL } else { count - limit };
    match whole {
        Direction::Forward(count) if count > limit => {
            (Direction::Forward(limit), Some(Direction::Forward(rest(count))))
        }
        Direction::Backward(count) if count > limit => {
            (Direction::Backward(limit), Some(Direction::Backward(rest(count))))
        }
        whole => (whole, None),
    }
}
