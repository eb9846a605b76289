//! Prepared statements by name: those of Parse and of PREPARE.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use postgres_types::Type;

use super::sqlstate::Report;
use crate::engine::objects::{Listed, SessionObjects, StatementItem};
use crate::query::Prepared;

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    /// None for an empty text.
    pub prepared: Option<Prepared>,
    /// The types of its parameters as the client knows them.
    pub parameters: Vec<Type>,
}

impl Statement {
    /// Whether a failed transaction block still takes it.
    pub fn ends_block(&self) -> bool {
        self.prepared.as_ref().is_some_and(Prepared::ends_block)
    }
}

#[derive(Debug, Default)]
pub struct Statements(HashMap<String, Named>);

#[derive(Debug)]
struct Named {
    statement: Arc<Statement>,
    /// One that has a name is on `pg_prepared_statements`.
    _listed: Option<Listed<StatementItem>>,
}

impl Statements {
    pub fn get(&self, name: &str) -> Result<&Arc<Statement>, Report> {
        self.0.get(name).map(|named| &named.statement).ok_or_else(|| no_statement(name))
    }

    /// A name that is taken is refused, except the empty one.
    pub fn refuse_taken(&self, name: &str) -> Result<(), Report> {
        if !name.is_empty() && self.0.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Report::error("42P05", message));
        }
        Ok(())
    }

    /// Keeps a statement; `text` as it was sent.
    pub fn insert(
        &mut self,
        objects: &SessionObjects,
        name: String,
        statement: Statement,
        text: &str,
        from_sql: bool,
    ) {
        let listed = (!name.is_empty()).then(|| {
            let parameters = statement.parameters.iter().map(Type::oid).collect();
            let (statement, prepared) = (text.to_owned(), SystemTime::now());
            let item = StatementItem { statement, parameters, from_sql, prepared };
            objects.statements.add(&name, item)
        });
        self.0.insert(name, Named { statement: Arc::new(statement), _listed: listed });
    }

    /// Forgetting what is not there is no error.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Forgets a statement, or all of them.
    pub fn deallocate(&mut self, name: Option<&str>) -> Result<(), Report> {
        match name {
            None => self.0.clear(),
            Some(name) if self.0.remove(name).is_some() => {}
            Some(name) => return Err(no_statement(name)),
        }
        Ok(())
    }

    /// Keeps a plan that was made anew for the next execution.
    pub fn renewed(&mut self, old: &Arc<Statement>, prepared: Prepared) {
        if old.prepared.as_ref().is_some_and(|old| old.is_same_plan(&prepared)) {
            return;
        }
        let kept = self.0.values_mut().find(|kept| Arc::ptr_eq(&kept.statement, old));
        if let Some(kept) = kept {
            let parameters = old.parameters.clone();
            kept.statement = Arc::new(Statement { prepared: Some(prepared), parameters });
        }
    }
}

fn no_statement(name: &str) -> Report {
    let message = match name {
        "" => "unnamed prepared statement does not exist".to_owned(),
        name => format!("prepared statement \"{name}\" does not exist"),
    };
    Report::error("26000", message)
}
