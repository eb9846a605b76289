//! What of its text a statement failed for, as far as errors tell it by name.

use std::ops::ControlFlow;

use datafusion::common::{SchemaError, TableReference};
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use sqlparser::ast::{TableFactor, Visitor};

use super::Error;
use super::visit::visit;
use crate::catalog::{self, ObjectKind};

/// What stands around an error in the definition of a view: its names are not those of the statement.
pub(super) const OF_VIEW: &str = "definition of a view";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Column {
        table: Option<String>,
        name: String,
    },
    /// With its schema, where that was written.
    Relation(String),
    Function(String),
    /// A text that is no value of its type.
    Literal(String),
}

impl Subject {
    pub fn of_catalog(error: &catalog::Error) -> Option<Self> {
        match error {
            catalog::Error::NotFound { kind: ObjectKind::Table, name } => {
                Some(Self::Relation(name.clone()))
            }
            catalog::Error::NotFound { kind: ObjectKind::Column, name } => {
                Some(Self::Column { table: None, name: name.clone() })
            }
            _ => None,
        }
    }
}

impl Error {
    /// `None` if it is about something else, or about what may stand outside of the statement's text.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Plan(DataFusionError::Context(place, _)) if place == OF_VIEW => None,
            Self::Plan(error) => of_plan(error, &self.to_string()),
            Self::NoFunction(call) => Some(Subject::Function(called(call)?)),
            Self::Catalog(error) => Subject::of_catalog(error),
            _ => None,
        }
    }

    pub(super) fn of_view(self) -> Self {
        match self {
            Self::Plan(error) => Self::Plan(error.context(OF_VIEW)),
            other => other,
        }
    }
}

fn of_plan(error: &DataFusionError, message: &str) -> Option<Subject> {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => {
            let (SchemaError::FieldNotFound { field, .. }
            | SchemaError::AmbiguousReference { field }) = error.as_ref()
            else {
                return None;
            };
            let table = field.relation.as_ref().map(|table| table.table().to_owned());
            Some(Subject::Column { table, name: field.name.clone() })
        }
        // What is written in another way than as a call is told in another way.
        DataFusionError::Plan(text) if message.starts_with("function ") => {
            let (_, call) = text.split_once("given name and argument types '")?;
            Some(Subject::Function(called(call)?))
        }
        _ => literal(message),
    }
}

/// Whether a statement calls a function of this name in FROM.
pub(super) fn is_called(statement: &Statement, name: &TableReference) -> bool {
    struct Calls<'a>(&'a TableReference);
    impl Visitor for Calls<'_> {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, args: Some(_), .. } = factor else {
                return ControlFlow::Continue(());
            };
            let last = name.0.last().and_then(|part| part.as_ident());
            match last.is_some_and(|last| last.value.eq_ignore_ascii_case(self.0.table())) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    match statement {
        Statement::Statement(statement) => visit(statement.as_ref(), &mut Calls(name)).is_break(),
        Statement::Explain(explain) => is_called(&explain.statement, name),
        _ => false,
    }
}

fn called(call: &str) -> Option<String> {
    Some(call.split_once('(')?.0.to_owned())
}

fn literal(message: &str) -> Option<Subject> {
    let (_, value) = message.strip_prefix("invalid input syntax for type ")?.split_once(": \"")?;
    Some(Subject::Literal(value.strip_suffix('"')?.to_owned()))
}
