//! What of its text a statement failed for, as far as errors tell it by name.

use std::ops::ControlFlow;

use datafusion::common::{SchemaError, TableReference};
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use sqlparser::ast::{TableFactor, Visitor};

use super::Error;
use super::visit::visit;
use crate::catalog::{self, ObjectKind};
use crate::storage;

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
    /// A column that is told with its table, whether that is written or not.
    Ungrouped {
        table: Option<String>,
        name: String,
    },
    /// A type that is not there.
    Type(String),
    /// An operator that there is not for what stands beside it, by its symbol.
    Operator(String),
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
            Self::NoType(name) => Some(Subject::Type(name.clone())),
            // A column that is to be written.
            Self::Storage(storage::Error::NoColumn { name, table: Some(_) }) => {
                Some(Subject::Column { table: None, name: name.clone() })
            }
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
        _ => [ungrouped, no_type, operator, literal].iter().find_map(|told| told(message)),
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

fn ungrouped(message: &str) -> Option<Subject> {
    let (column, _) = message
        .strip_prefix("column \"")?
        .split_once("\" must appear in the GROUP BY clause or be used in an aggregate function")?;
    let (table, name) = match column.rsplit_once('.') {
        Some((table, name)) => (table.rsplit('.').next().map(str::to_owned), name),
        None => (None, column),
    };
    Some(Subject::Ungrouped { table, name: name.to_owned() })
}

fn no_type(message: &str) -> Option<Subject> {
    let name = message.strip_prefix("type \"")?.strip_suffix("\" does not exist")?;
    Some(Subject::Type(name.to_owned()))
}

/// `operator does not exist: text + integer`: the symbol is the only word without a letter.
fn operator(message: &str) -> Option<Subject> {
    let operation = message.strip_prefix("operator does not exist: ")?;
    let is_symbol = |word: &&str| word.chars().all(|c| "+-*/<>=~!@#%^&|?".contains(c));
    operation.split(' ').find(is_symbol).map(|symbol| Subject::Operator(symbol.to_owned()))
}

fn literal(message: &str) -> Option<Subject> {
    let value = match message.strip_prefix("date/time field value out of range: \"") {
        Some(value) => value,
        None => message
            .strip_prefix("invalid input syntax for type ")
            .and_then(|rest| rest.split_once(": \""))
            .map(|(_, value)| value)
            .or_else(|| {
                let (value, _) =
                    message.strip_prefix("value \"")?.split_once(" is out of range for type ")?;
                Some(value)
            })?,
    };
    Some(Subject::Literal(value.strip_suffix('"')?.to_owned()))
}
