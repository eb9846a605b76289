//! From a text to a plan, and to a new one where what it was made from has changed.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::sql::parser::Statement;
use sqlparser::ast::ObjectName;

use super::Session;
use crate::catalog::Consistency;
use crate::query::command::{Request, explained_write, recognise};
use crate::query::objects::{Declare, ObjectCommand};
use crate::query::prepared::{Body, Form, Origin, Prepared, Read, Source};
use crate::query::running::Registered;
use crate::query::{Error, Result, TransactionState, locks};
use crate::values::types::pg_type;

impl Session {
    pub(super) async fn understand(
        &mut self,
        source: &Source,
        declared: Vec<Option<FieldRef>>,
    ) -> Result<Prepared> {
        self.engine.mark_start();
        let text = source.text().clone();
        let request = match &source.form {
            Form::Parsed(parsed) => recognise(parsed)?,
            Form::Own(own) => own.as_ref().clone(),
        };
        let locks = match &request {
            Request::Read(statement, "SELECT") => self.locked_by(&text, statement)?,
            Request::Write(statement) => {
                locks::locked(&text, statement.as_ref(), &|select| self.engine.calls(select))?
            }
            Request::Copy(parsed) => self.locked_by(&text, &parsed.statement)?,
            Request::Object(command) => match command.as_ref() {
                ObjectCommand::Declare(Declare { query, .. }) => {
                    self.locked_by(&text, &query.statement)?
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        self.lock(&locks).await?;
        let planned_from = self.origin();
        let body = match request {
            Request::Command(command) => Body::Command(Arc::new(command)),
            // In an aborted block nothing is looked up, as in PostgreSQL.
            _ if self.transaction.state() == TransactionState::Failed => {
                return Err(Error::InFailedTransaction);
            }
            Request::Read(statement, tag) => {
                Body::Read(self.plan_read(&statement, tag, &declared).await?)
            }
            Request::ExplainWrite(statement, explained) => {
                let plan = self.plan_write(&explained, &declared).await?.explained()?;
                let (statement, plan) = (Arc::from(statement), Arc::new(plan));
                Body::Read(Read { statement, plan, tag: "EXPLAIN", copy: None })
            }
            Request::Write(statement) => {
                Body::Write(Arc::new(self.plan_write(&statement, &declared).await?))
            }
            Request::CopyIn(parsed) => Body::CopyIn(Arc::from(parsed)),
            Request::Copy(parsed) => Body::Read(self.plan_copy(&parsed).await?),
            Request::Object(command) => {
                let read = match command.as_ref() {
                    ObjectCommand::Declare(Declare { query, .. }) => {
                        Some(self.plan_read(&query.statement, "SELECT", &declared).await?)
                    }
                    _ => None,
                };
                Body::Object(Arc::from(command), read)
            }
        };
        Ok(Prepared { text, declared, body, planned_from, locks })
    }

    /// The relations that a statement of the engine's locks.
    fn locked_by(&self, text: &str, statement: &Statement) -> Result<Vec<ObjectName>> {
        match statement {
            Statement::Statement(statement) => {
                locks::locked(text, statement.as_ref(), &|select| self.engine.calls(select))
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn plan_read(
        &self,
        statement: &Statement,
        tag: &'static str,
        declared: &[Option<FieldRef>],
    ) -> Result<Read> {
        let plan = Arc::new(self.engine.plan(statement, declared).await?);
        Ok(Read { statement: Arc::new(statement.clone()), plan, tag, copy: None })
    }

    /// Plans anew what was planned from something that has changed since, or that depends on the
    /// moment or on parameters.
    pub(super) async fn bring_up_to_date(
        &mut self,
        registered: &Registered,
        prepared: &mut Prepared,
        values: &[ScalarValue],
    ) -> Result<()> {
        let now = self.origin();
        let moves = prepared.plan().is_some_and(|plan| plan.moves);
        let fresh = now.is(&prepared.planned_from) && !moves;
        if fresh && self.settings.consistency() == Consistency::Cached {
            return Ok(());
        }
        registered.until_stopped(self.renew(now, prepared, values)).await?
    }

    async fn renew(
        &mut self,
        now: Origin,
        prepared: &mut Prepared,
        values: &[ScalarValue],
    ) -> Result<()> {
        if let Body::Write(write) = &mut prepared.body {
            let renewed = self.plan_write(&write.statement, &prepared.declared).await?;
            let same = match (renewed.returned(), write.returned()) {
                (Some(a), Some(b)) => is_same_result(&a, &b),
                (a, b) => a.is_none() && b.is_none(),
            };
            if !same {
                return Err(Error::ResultChanged);
            }
            *write = Arc::new(renewed);
            prepared.planned_from = now;
            return Ok(());
        }
        let Some(read) = prepared.body.read_mut() else { return Ok(()) };
        let renewed = match explained_write(&read.statement)? {
            None => self.engine.plan_for(&read.statement, &prepared.declared, values).await?,
            Some(write) => self.plan_write(&write, &prepared.declared).await?.explained()?,
        };
        if !is_same_result(&renewed.schema, &read.plan.schema) {
            return Err(Error::ResultChanged);
        }
        read.plan = Arc::new(renewed);
        prepared.planned_from = now;
        Ok(())
    }
}

/// Whether rows of two schemas are of the same types to a client, to whom the zone of moments is a setting.
fn is_same_result(a: &Schema, b: &Schema) -> bool {
    let same = |(a, b): (&FieldRef, &FieldRef)| {
        a.name() == b.name() && is_same(a.data_type(), b.data_type()) && pg_type(a) == pg_type(b)
    };
    a.fields().len() == b.fields().len() && a.fields().iter().zip(b.fields()).all(same)
}

/// Whether two types are the same, whatever zone their moments are shown in.
fn is_same(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::Timestamp(a, Some(_)), DataType::Timestamp(b, Some(_))) => a == b,
        (DataType::List(a), DataType::List(b)) => is_same(a.data_type(), b.data_type()),
        _ => a == b,
    }
}
