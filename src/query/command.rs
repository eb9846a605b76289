//! What a parsed statement asks for: a query, or one of the commands that the engine does not know.

use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{
    ContextModifier, Expr, Ident, ObjectName, ObjectNamePart, Reset, Set, ShowCreateObject,
    ShowStatementIn, ShowStatementOptions, Statement, Value,
};

use super::ddl::{Ddl, ident};
use super::maintenance::{Task, Upkeep};
use super::notify;
use super::objects::ObjectCommand;
use super::write::Action;
use super::{Error, Result, instead, locks};
use crate::engine::described::statement_of;
use crate::engine::{Parsed, parse};

/// A statement by what it asks for.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Rows from the engine, with the command tag's word.
    Read(Box<EngineStatement>, &'static str),
    /// EXPLAIN of a statement that writes.
    ExplainWrite(Box<EngineStatement>, Box<Statement>),
    /// Rows from the engine, in one of COPY's formats.
    Copy(Box<Parsed>),
    /// Rows of the client's, for a table.
    CopyIn(Box<Parsed>),
    Command(Command),
    /// Rows into a table, or out of it.
    Write(Box<Statement>),
    /// Carried out by the protocol's room.
    Object(Box<ObjectCommand>),
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    Begin {
        tag: &'static str,
        modes: Modes,
    },
    /// COMMIT or ROLLBACK, and perhaps the next block at once.
    End {
        commit: bool,
        chain: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    SetTransaction(Modes),
    /// The modes of transactions to come.
    SetCharacteristics(Modes),
    /// The first constraint that was named: there are none.
    SetConstraints(Option<String>),
    /// `None`: all.
    Reset(Option<String>),
    Lock {
        names: Vec<ObjectName>,
        mode: locks::Mode,
    },
    /// OPTIMIZE and VACUUM.
    Maintain(Upkeep),
    Listen(notify::Action),
    Notify {
        channel: String,
        payload: String,
    },
    /// Accepted since there is nothing to do, with this tag.
    Nothing(&'static str),
    Ddl(Box<Ddl>),
}

/// What a transaction may be asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    pub isolation: Option<&'static str>,
    pub read_only: Option<bool>,
    pub deferrable: Option<bool>,
}

impl Modes {
    /// The modes as settings, their names without a prefix.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let switch = |on| if on { "on" } else { "off" };
        let isolation = self.isolation.map(|level| ("transaction_isolation", level));
        let read_only = self.read_only.map(|on| ("transaction_read_only", switch(on)));
        let deferrable = self.deferrable.map(|on| ("transaction_deferrable", switch(on)));
        isolation.into_iter().chain(read_only).chain(deferrable)
    }
}

impl Command {
    /// Whether it reads or writes tables.
    pub fn is_work(&self) -> bool {
        match self {
            Self::Maintain(upkeep) => upkeep.task != Task::Analyze,
            Self::Ddl(ddl) => ddl.is_work(),
            _ => false,
        }
    }

    /// Its tag, if it has effects beyond its own session that a transaction which only reads may have
    /// all the same.
    pub fn acts(&self) -> Option<&'static str> {
        match self {
            Self::Maintain(upkeep) => Some(upkeep.tag()),
            Self::Notify { .. } => Some("NOTIFY"),
            _ => None,
        }
    }

    /// Whether a failed transaction block still takes it.
    pub fn ends_block(&self) -> bool {
        matches!(self, Self::End { .. } | Self::RollbackTo(_))
    }
}

/// Recognises what is asked for.
pub(super) fn recognise(parsed: &Parsed) -> Result<Request> {
    let statement = match &parsed.statement {
        EngineStatement::Statement(statement) => statement.as_ref(),
        explain @ EngineStatement::Explain(_) => {
            return Ok(match explained_write(explain)? {
                Some(write) => Request::ExplainWrite(Box::new(explain.clone()), Box::new(write)),
                None => read(&parsed.statement, "EXPLAIN"),
            });
        }
        EngineStatement::CreateExternalTable(create) => {
            return Ok(Request::Command(Command::Ddl(Box::new(Ddl::external(create)?))));
        }
        // The parser makes COPY a statement of the standard kind.
        EngineStatement::CopyTo(_) => return Err(Error::NotSupported("COPY".to_owned())),
        EngineStatement::Reset(reset) => {
            let datafusion::sql::parser::ResetStatement::Variable(name) = reset;
            return Ok(Request::Command(Command::Reset(reset_name(&variable(name)))));
        }
    };
    if let Some(shown) = show(statement)? {
        return Ok(Request::Read(Box::new(shown), "SHOW"));
    }
    Ok(match statement {
        write if Action::of(write).is_some() => Request::Write(Box::new(write.clone())),
        Statement::Query(_) => read(&parsed.statement, "SELECT"),
        Statement::Explain { .. } => match explained_write(&parsed.statement)? {
            Some(write) => {
                Request::ExplainWrite(Box::new(parsed.statement.clone()), Box::new(write))
            }
            None => read(&parsed.statement, "EXPLAIN"),
        },
        Statement::Copy { to: false, .. } => Request::CopyIn(Box::new(parsed.clone())),
        Statement::Copy { .. } => Request::Copy(Box::new(parsed.clone())),
        other => Request::Command(command(other)?),
    })
}

/// The statement that EXPLAIN is about, if it writes.
pub(super) fn explained_write(statement: &EngineStatement) -> Result<Option<Statement>> {
    let (inner, analyze) = match statement {
        EngineStatement::Explain(explain) => match explain.statement.as_ref() {
            EngineStatement::Statement(inner) => (inner.as_ref(), explain.options.analyze),
            _ => return Ok(None),
        },
        EngineStatement::Statement(explain) => match explain.as_ref() {
            Statement::Explain { statement, analyze, .. } => (statement.as_ref(), *analyze),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    match Action::of(inner) {
        None => Ok(None),
        Some(action) if analyze => {
            let what = "which would change rows (EXPLAIN shows the plan without running it),";
            Err(Error::NotSupported(format!("EXPLAIN ANALYZE of {}, {what}", action.name())))
        }
        Some(_) => Ok(Some(inner.clone())),
    }
}

fn read(statement: &EngineStatement, tag: &'static str) -> Request {
    Request::Read(Box::new(statement.clone()), tag)
}

fn command(statement: &Statement) -> Result<Command> {
    if let Some(ddl) = Ddl::recognise(statement)? {
        return Ok(Command::Ddl(Box::new(ddl)));
    }
    Ok(match statement {
        Statement::Set(set) => set_command(set)?,
        Statement::Reset(reset) => match &reset.reset {
            Reset::ALL => Command::Reset(None),
            Reset::ConfigurationParameter(name) => Command::Reset(Some(variable(name))),
        },
        other => return Err(instead::of_statement(other, first_words(other))),
    })
}

pub(super) fn writes(command: &str) -> Error {
    Error::NotSupported(format!("{command} on external tables, which are only read,"))
}

/// What the message about an unsupported statement calls it.
fn first_words(statement: &Statement) -> String {
    let text = statement.to_string();
    let words: Vec<&str> = (text.split_whitespace())
        .take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()))
        .take(3)
        .collect();
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ") }
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("all")
}

fn set_command(set: &Set) -> Result<Command> {
    Ok(match set {
        Set::SingleAssignment { scope, variable: name, values, .. } => Command::Set {
            name: variable(name),
            value: setting_value(values)?,
            local: matches!(scope, Some(ContextModifier::Local)),
        },
        Set::SetTimeZone { local, value } => Command::Set {
            name: "TimeZone".to_owned(),
            value: setting_value(std::slice::from_ref(value))?,
            local: *local,
        },
        Set::SetNames { charset_name, .. } => Command::Set {
            name: "client_encoding".to_owned(),
            value: Some(charset_name.value.clone()),
            local: false,
        },
        Set::SetRole { context_modifier, role_name } => Command::Set {
            name: "role".to_owned(),
            value: Some(role_name.as_ref().map_or_else(|| "none".to_owned(), ident)),
            local: matches!(context_modifier, Some(ContextModifier::Local)),
        },
        Set::SetSessionAuthorization(_) => {
            return Err(Error::NotSupported("SET SESSION AUTHORIZATION (use SET ROLE)".to_owned()));
        }
        _ => return Err(Error::NotSupported("this form of SET".to_owned())),
    })
}

/// A setting's name as written, in lower case, its parts joined by dots.
fn variable(name: &ObjectName) -> String {
    let text = name.to_string().replace('"', "").to_ascii_lowercase();
    match text.as_str() {
        "timezone" | "time zone" => "TimeZone".to_owned(),
        _ => text,
    }
}

fn reset_name(name: &str) -> Option<String> {
    (!is_all(name)).then(|| name.to_owned())
}

/// A setting's value as text; `None` for DEFAULT.
fn setting_value(values: &[Expr]) -> Result<Option<String>> {
    let texts = values.iter().map(value_text).collect::<Result<Vec<_>>>()?;
    if let [one] = texts.as_slice()
        && matches!(&values[0], Expr::Identifier(_))
        && one.eq_ignore_ascii_case("default")
    {
        return Ok(None);
    }
    Ok(Some(texts.join(", ")))
}

fn value_text(value: &Expr) -> Result<String> {
    Ok(match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text)
            | Value::DoubleQuotedString(text)
            | Value::EscapedStringLiteral(text) => text.clone(),
            Value::DollarQuotedString(text) => text.value.clone(),
            Value::Placeholder(name) => {
                return Err(Error::Invalid(format!("syntax error at or near \"{name}\"")));
            }
            other => other.to_string(),
        },
        Expr::Identifier(name) if name.quote_style.is_some() => format!("\"{}\"", name.value),
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(names) => {
            names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(".")
        }
        Expr::UnaryOp { .. } => value.to_string().replace(' ', ""),
        Expr::Interval(interval) => return value_text(&interval.value),
        other => {
            return Err(Error::Invalid(format!("{other} is not a value for a setting")));
        }
    })
}

/// SHOW as the query that it stands for.
fn show(statement: &Statement) -> Result<Option<EngineStatement>> {
    let quote = |text: &str| text.replace('\'', "''");
    let sql = match statement {
        Statement::ShowVariable { variable } => {
            let words: Vec<&str> = variable.iter().map(|word| word.value.as_str()).collect();
            let name = match words.join(" ").to_ascii_lowercase().as_str() {
                "all" => {
                    return query(
                        "SELECT name, pg_catalog.current_setting(name, true) AS setting, \
                         short_desc AS description \
                         FROM pg_catalog.pg_settings ORDER BY lower(name)",
                    );
                }
                "transaction isolation level" => "transaction_isolation".to_owned(),
                "time zone" | "timezone" => "TimeZone".to_owned(),
                "session authorization" => "session_authorization".to_owned(),
                _ => words.join("."),
            };
            // PostgreSQL heads the column with the setting's proper name.
            let title = crate::engine::settings::find(&name).map_or(name.as_str(), |s| s.name);
            let title = title.replace('"', "\"\"");
            format!("SELECT pg_catalog.current_setting('{}') AS \"{title}\"", quote(&name))
        }
        Statement::ShowTables { show_options, .. } => {
            let schema = show_in(show_options);
            let wanted = match &schema {
                Some(schema) => format!("table_schema = '{}'", quote(schema)),
                None => "table_schema NOT IN ('pg_catalog', 'information_schema', 'system')".into(),
            };
            format!(
                "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                 WHERE {wanted} ORDER BY 1, 2"
            )
        }
        Statement::ShowCreate { obj_type, obj_name } => {
            let view = match obj_type {
                ShowCreateObject::Table => false,
                ShowCreateObject::View => true,
                other => return Err(Error::NotSupported(format!("SHOW CREATE {other}"))),
            };
            let mut name = obj_name.clone();
            if let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() {
                *last = Ident::with_quote('"', statement_of(&ident(last), view));
            }
            let title = if view { "Create View" } else { "Create Table" };
            format!("SELECT statement AS \"{title}\" FROM {name}")
        }
        Statement::ShowColumns { show_options, .. } => {
            let table = show_in(show_options)
                .ok_or_else(|| Error::Invalid("SHOW COLUMNS needs FROM and a table".to_owned()))?;
            let table = table.rsplit('.').next().unwrap_or(&table).replace('"', "");
            format!(
                "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
                 WHERE table_name = '{}' ORDER BY table_schema, ordinal_position",
                quote(&table)
            )
        }
        Statement::ShowDatabases { .. } => {
            "SELECT datname AS database FROM pg_catalog.pg_database ORDER BY 1".to_owned()
        }
        Statement::ShowSchemas { .. } => {
            "SELECT nspname AS schema FROM pg_catalog.pg_namespace ORDER BY 1".to_owned()
        }
        _ => return Ok(None),
    };
    query(&sql)
}

fn show_in(options: &ShowStatementOptions) -> Option<String> {
    let ShowStatementIn { parent_name, .. } = options.show_in.as_ref()?;
    parent_name.as_ref().map(ObjectName::to_string)
}

fn query(sql: &str) -> Result<Option<EngineStatement>> {
    Ok(parse(sql)?.pop().map(|parsed| parsed.statement))
}
