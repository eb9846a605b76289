//! Commands about what lives with the protocol: cursors, which are portals, and prepared
//! statements. Here they are recognised and authorised; the protocol's room carries them out, with
//! what [`Session`] offers for them.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::FieldRef;
use datafusion::common::ScalarValue;
use postgres_types::{Kind, Type};
use sqlparser::ast::{DataType as SqlType, Expr, UnaryOperator, Value};

use super::life::Session;
use super::prepared::{Body, Prepared, Source};
use super::running::Registered;
use super::{Error, Result};
use crate::engine::{self, Parsed, parse_one, visit::has_subquery};
use crate::values::decode;
use crate::values::encode::{Format, TimeZone};
use crate::values::types::pg_type;

/// So many rows as there are (PostgreSQL's `FETCH_ALL`).
pub const ALL: i64 = i64::MAX;

#[derive(Clone, Debug)]
pub enum ObjectCommand {
    Declare(Declare),
    Fetch(Fetch),
    /// `None`: all.
    Close(Option<String>),
    Prepare(Prepare),
    Execute(Execute),
    /// `None`: all.
    Deallocate(Option<String>),
    DiscardAll,
    /// Nothing of the kind is kept; with the command tag.
    Discard(&'static str),
}

/// DECLARE ... CURSOR.
#[derive(Clone, Debug)]
pub struct Declare {
    pub name: String,
    pub binary: bool,
    /// What was said of SCROLL.
    pub scroll: Option<bool>,
    pub hold: bool,
    pub(super) query: Parsed,
}

/// FETCH and MOVE.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub name: String,
    pub direction: Direction,
    /// MOVE: the rows are only counted.
    pub moves: bool,
}

/// Where a cursor goes. Counts may be negative, which turns the direction round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward(i64),
    Backward(i64),
    /// To the row of this number: 1 is the first, -1 the last.
    Absolute(i64),
    Relative(i64),
}

/// PREPARE.
#[derive(Clone, Debug)]
pub struct Prepare {
    pub name: String,
    pub(super) types: Vec<SqlType>,
    pub(super) query: Parsed,
    /// The whole command.
    pub text: String,
}

/// EXECUTE.
#[derive(Clone, Debug)]
pub struct Execute {
    pub name: String,
    pub(super) arguments: Vec<Expr>,
    /// EXPLAIN EXECUTE: what stands before EXECUTE.
    pub explain: Option<String>,
}

impl ObjectCommand {
    /// The command tag, for those without rows.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Declare(_) => "DECLARE CURSOR",
            Self::Fetch(Fetch { moves: true, .. }) => "MOVE",
            Self::Fetch(_) => "FETCH",
            Self::Close(Some(_)) => "CLOSE CURSOR",
            Self::Close(None) => "CLOSE CURSOR ALL",
            Self::Prepare(_) => "PREPARE",
            Self::Execute(_) => "EXECUTE",
            Self::Deallocate(Some(_)) => "DEALLOCATE",
            Self::Deallocate(None) => "DEALLOCATE ALL",
            Self::DiscardAll => "DISCARD ALL",
            Self::Discard(tag) => tag,
        }
    }
}

impl Session {
    /// Plans the query of PREPARE.
    pub async fn prepare_named(
        &mut self,
        registered: &Registered,
        prepare: &Prepare,
    ) -> Result<Prepared> {
        let types = prepare.types.iter().map(|written| self.engine_session().parameter(written));
        let types = types.map(|field| field.map(Some)).collect::<Result<_, _>>()?;
        self.prepare(registered, &Source::parsed(prepare.query.clone()), types).await
    }

    /// The statement that explains a prepared one.
    pub async fn prepare_explained(
        &mut self,
        registered: &Registered,
        explain: &str,
        prepared: &Prepared,
    ) -> Result<Prepared> {
        let source = Source::parsed(parse_one(&format!("{explain} {}", prepared.text))?);
        let types = prepared.parameters().iter().cloned().map(Some).collect();
        self.prepare(registered, &source, types).await
    }

    /// The values of EXECUTE's arguments, in the types of the statement's parameters.
    pub async fn arguments(
        &mut self,
        registered: &Registered,
        execute: &Execute,
        prepared: &Prepared,
    ) -> Result<Vec<ScalarValue>> {
        let (given, fields) = (&execute.arguments, prepared.parameters().to_vec());
        if given.len() != fields.len() {
            let name = execute.name.clone();
            let (expected, given) = (fields.len(), given.len());
            return Err(Error::ArgumentCount { name, expected, given });
        }
        let zone = TimeZone::parse(self.settings().time_zone()).unwrap_or_default();
        let mut values = Vec::with_capacity(given.len());
        for (number, (argument, field)) in given.iter().zip(&fields).enumerate() {
            let value = match literal(argument, field) {
                Some(text) => {
                    let (text, pg) = (text.as_ref().map(String::as_bytes), pg_type(field));
                    decode::decode_in(&zone, text, Format::Text, &pg, field.data_type())?
                }
                None => {
                    let value = self.evaluate(argument, field, number + 1);
                    registered.until_stopped(value).await??
                }
            };
            values.push(value);
        }
        Ok(values)
    }

    /// An expression's value, cast as in an assignment.
    async fn evaluate(
        &mut self,
        argument: &Expr,
        field: &FieldRef,
        number: usize,
    ) -> Result<ScalarValue> {
        if has_subquery(argument) {
            return Err(Error::Refused("cannot use subquery in EXECUTE parameter"));
        }
        let (wanted, natural) =
            (pg_type(field), self.plan_text(&format!("SELECT {argument}")).await?);
        let found = pg_type(natural.schema.field(0));
        if !is_assignable(&found, &wanted) {
            let (found, wanted) = (found.name().to_owned(), wanted.name().to_owned());
            return Err(Error::ArgumentType { number, found, wanted });
        }
        let plan = match found == wanted {
            true => natural,
            false => {
                let name = match wanted.kind() {
                    Kind::Array(element) => format!("{}[]", element.name()),
                    _ => wanted.name().to_owned(),
                };
                self.plan_text(&format!("SELECT CAST({argument} AS {name})")).await?
            }
        };
        let ready = self.engine_session().prepare(&plan, Vec::new()).await?;
        let mut rows = self.engine_session().run(ready, |batch: RecordBatch| Ok(batch));
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            if !batch.column(0).is_empty() {
                let value = ScalarValue::try_from_array(batch.column(0), 0);
                let value = value.and_then(|value| value.cast_to(field.data_type()));
                return Ok(value.map_err(engine::Error::Execution)?);
            }
        }
        Err(Error::Invalid("an argument of EXECUTE has no value".to_owned()))
    }

    /// DISCARD ALL, as far as it is about settings.
    pub fn discard_settings(&mut self) -> Result<()> {
        self.reset(Some("role"))?;
        self.reset(None)
    }
}

/// What is written as a constant is read as the parameter's type, like a value that a client binds;
/// NULL is `Some(None)`.
fn literal(argument: &Expr, field: &FieldRef) -> Option<Option<String>> {
    let number = |text: &str| {
        let pg = pg_type(field);
        let whole = text.bytes().all(|byte| byte.is_ascii_digit());
        let exact = whole && category(&pg) == 'N' || pg == Type::NUMERIC || category(&pg) == 'S';
        exact.then(|| text.to_owned())
    };
    match argument {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(None),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(Some(text.clone()))
            }
            Value::Number(text, _) => number(&text.to_string()).map(Some),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => {
                    number(&text.to_string()).map(|text| Some(format!("-{text}")))
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// PostgreSQL's category of a type (`pg_type.typcategory`), as far as assignments need it.
fn category(pg: &Type) -> char {
    match *pg {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => 'N',
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => 'S',
        Type::DATE | Type::TIMESTAMP | Type::TIMESTAMPTZ => 'D',
        _ => 'X',
    }
}

/// Whether PostgreSQL casts without being told to when it assigns.
fn is_assignable(from: &Type, to: &Type) -> bool {
    if let (Kind::Array(from), Kind::Array(to)) = (from.kind(), to.kind()) {
        return is_assignable(from, to);
    }
    let same = category(from) == category(to) && category(to) != 'X';
    from == to || category(to) == 'S' || same
}

impl Prepared {
    /// What the protocol's room is to carry out.
    pub fn object_command(&self) -> Option<&Arc<ObjectCommand>> {
        match &self.body {
            Body::Object(command, _) => Some(command),
            _ => None,
        }
    }

    /// A declared cursor's query as a statement of its own.
    pub fn declared_query(&self) -> Option<Self> {
        match &self.body {
            Body::Object(_, Some(read)) => {
                Some(Self { body: Body::Read(read.clone()), ..self.clone() })
            }
            _ => None,
        }
    }
}
