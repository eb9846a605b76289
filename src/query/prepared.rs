//! Statements that are understood: what they ask for, and the plans of those that read.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::sql::parser::Statement;
use sqlparser::ast::ObjectName;

use super::command::{Command, Request, recognise};
use super::copy::CopyOut;
use super::objects::ObjectCommand;
use super::secrets::without_passwords;
use super::write::{Write, returns_rows};
use crate::catalog::Snapshot;
use crate::engine::settings::Settings;
use crate::engine::{Parsed, Plan};

/// One statement of a message, parsed.
#[derive(Clone, Debug)]
pub struct Source {
    /// What is shown of its text.
    text: Arc<str>,
    /// Characters in front of it in the message, if that is known.
    begins: Option<usize>,
    pub(super) form: Form,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    Parsed(Box<Parsed>),
    /// A statement beyond the SQL parser's grammar.
    Own(Box<Request>),
}

/// A statement that was understood and, if it reads, planned: run it any number of times.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub text: Arc<str>,
    pub(super) declared: Vec<Option<FieldRef>>,
    pub(super) body: Body,
    /// What it was planned from: when either has changed it is planned anew.
    pub(super) planned_from: Origin,
    /// The relations that it locks.
    pub(super) locks: Vec<ObjectName>,
}

/// What plans depend on.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub catalog: Arc<Snapshot>,
    pub settings: Arc<Settings>,
    /// Of the block's own tables.
    pub staged: u64,
}

impl Origin {
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.catalog, &other.catalog)
            && Arc::ptr_eq(&self.settings, &other.settings)
            && self.staged == other.staged
    }
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Read(Read),
    Command(Arc<Command>),
    Write(Arc<Write>),
    /// COPY FROM: all of it is looked at when it runs, as in PostgreSQL.
    CopyIn(Arc<Parsed>),
    /// For the protocol's room; a cursor with its query.
    Object(Arc<ObjectCommand>, Option<Read>),
}

/// Rows from the engine.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub statement: Arc<Statement>,
    pub plan: Arc<Plan>,
    pub tag: &'static str,
    /// For COPY: how its rows leave.
    pub copy: Option<Arc<CopyOut>>,
}

/// What a statement does that is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Reads,
    Writes,
}

impl Source {
    pub(super) fn parsed(parsed: Parsed) -> Self {
        let text = without_passwords(&parsed.text);
        Self { text, begins: None, form: Form::Parsed(Box::new(parsed)) }
    }

    pub(super) fn own(text: &str, request: Request) -> Self {
        Self { text: without_passwords(text), begins: None, form: Form::Own(Box::new(request)) }
    }

    /// The same, behind so many characters of its message.
    pub(super) fn behind(self, begins: usize) -> Self {
        Self { begins: Some(begins), ..self }
    }

    /// A place in its text, in characters, as one in its message.
    pub(super) fn in_message(&self, at: usize) -> Option<usize> {
        Some(self.begins? + at)
    }

    /// Its text, without passwords: for whoever looks.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What it does, if it can be submitted, to run when nobody waits.
    pub(super) fn work(&self) -> Option<Work> {
        let read;
        let request = match &self.form {
            Form::Own(request) => request.as_ref(),
            Form::Parsed(parsed) => {
                let Ok(request) = recognise(parsed) else { return None };
                read = request;
                &read
            }
        };
        match request {
            Request::Read(..) | Request::ExplainWrite(..) => Some(Work::Reads),
            Request::Write(write) => (!returns_rows(write)).then_some(Work::Writes),
            Request::Command(Command::Ddl(ddl)) => ddl.is_work().then_some(Work::Writes),
            _ => None,
        }
    }
}

impl Body {
    pub fn read(&self) -> Option<&Read> {
        match self {
            Self::Read(read) | Self::Object(_, Some(read)) => Some(read),
            Self::Command(_) | Self::CopyIn(_) | Self::Write(_) | Self::Object(_, None) => None,
        }
    }

    pub fn read_mut(&mut self) -> Option<&mut Read> {
        match self {
            Self::Read(read) | Self::Object(_, Some(read)) => Some(read),
            Self::Command(_) | Self::CopyIn(_) | Self::Write(_) | Self::Object(_, None) => None,
        }
    }
}

impl Prepared {
    /// Types of `$1`, `$2`, ...
    pub fn parameters(&self) -> &[FieldRef] {
        self.plan().map_or(&[], |plan| &plan.parameters)
    }

    /// The rows that it reads.
    pub(super) fn plan(&self) -> Option<&Plan> {
        match &self.body {
            Body::Write(write) => write.plan.as_deref(),
            body => body.read().map(|read| read.plan.as_ref()),
        }
    }

    /// Columns of the result; none for what returns no rows of its own.
    pub fn schema(&self) -> SchemaRef {
        match &self.body {
            Body::Read(read) => read.plan.schema.clone(),
            Body::Write(write) => Arc::new(write.returned().unwrap_or_else(Schema::empty)),
            Body::Command(_) | Body::CopyIn(_) | Body::Object(..) => Arc::new(Schema::empty()),
        }
    }

    /// Whether nothing was planned anew since.
    pub fn is_same_plan(&self, other: &Self) -> bool {
        match (&self.body, &other.body) {
            (Body::Write(write), Body::Write(other)) => Arc::ptr_eq(write, other),
            (body, other) => match (body.read(), other.read()) {
                (Some(read), Some(other)) => Arc::ptr_eq(&read.plan, &other.plan),
                _ => true,
            },
        }
    }

    /// Whether the client gets a result: what COPY sends is none.
    pub fn returns_rows(&self) -> bool {
        match &self.body {
            Body::Read(read) => read.copy.is_none(),
            Body::Write(write) => write.returned().is_some(),
            _ => false,
        }
    }

    /// Whether it changes rows of tables.
    pub fn writes(&self) -> bool {
        matches!(&self.body, Body::Write(_))
    }

    /// Whether it is work that a pool counts. What looks at system tables only, changes the session
    /// or the catalog is none: an operator can always look, and cancel.
    pub(super) fn is_work(&self) -> bool {
        match &self.body {
            Body::Read(read) => !read.plan.small,
            Body::Write(_) | Body::CopyIn(_) => true,
            Body::Command(command) => command.is_work(),
            // What it opens or runs is asked by itself.
            Body::Object(..) => false,
        }
    }

    /// How the rows leave, if this is COPY.
    pub fn copy(&self) -> Option<&Arc<CopyOut>> {
        self.body.read()?.copy.as_ref()
    }

    /// Whether it wants rows from the client.
    pub fn is_copy_in(&self) -> bool {
        matches!(self.body, Body::CopyIn(_))
    }

    /// Whether a failed transaction block still takes it.
    pub fn ends_block(&self) -> bool {
        matches!(&self.body, Body::Command(command) if command.ends_block())
    }
}
