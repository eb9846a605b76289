//! PostgreSQL's functions that look at the session, the catalog and the server.
//!
//! - [`session`]: who asks, where, with which settings.
//! - [`objects`]: names, comments and definitions of what the catalog holds.
//! - [`names`]: from names to identifiers and back, and quoting.
//! - [`privileges`]: who may do what: everything, until there are roles.
//! - [`server`]: sizes, addresses, other sessions.
//! - [`submitted`]: queries that are submitted, and their rows.
//! - [`schedules`]: queries that are submitted again and again.
//! - [`series`]: table functions.
//! - [`arrays`]: what PostgreSQL's clients do with arrays and the engine has no function for.
//!
//! They are called for a few rows at a time, so each is a plain function from values to a value;
//! what they share, arguments and their types, NULLs and constants, is done here, once.

mod arrays;
mod names;
mod objects;
mod privileges;
mod schedules;
mod series;
mod server;
mod session;
mod submitted;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, FieldRef, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use async_trait::async_trait;
use datafusion::common::{ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use futures::future::BoxFuture;

use super::pg_catalog::objects::{self as catalog_objects, RelationItem, SchemaItem};
use super::rows::{self, Value};
use super::{Shared, View, types};
use crate::engine::system::SessionInfo;

pub use series::functions as table;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// Any integer, object identifiers included.
    Int,
    Float,
    Text,
    /// As microseconds, a month being 30 days.
    Interval,
    /// As text, whatever it is.
    Any,
    /// Whatever it is, of which the type alone counts.
    Type,
    /// A list, which the function looks at through [`Call::lengths`] alone.
    Array,
}

/// A function.
struct Spec {
    name: &'static str,
    /// The lists of arguments it takes. The last kind of a variadic function repeats.
    takes: &'static [&'static [Kind]],
    /// What the arguments of the longest list are called, where `pg_proc` of PostgreSQL does not say.
    names: &'static [&'static str],
    variadic: bool,
    /// PostgreSQL's name of the result's type.
    returns: &'static str,
    volatility: Volatility,
    /// NULL for any argument means NULL for the result, without a call.
    strict: bool,
    work: Work,
}

/// How a function comes to its value.
#[derive(Clone, Copy)]
enum Work {
    /// From its arguments alone, on any daemon.
    Plain(fn(&Given<'_>) -> Result<Value>),
    AtOnce(fn(&Call<'_, '_>) -> Result<Value>),
    /// It asks others, or waits; given up with its statement.
    Later(for<'a> fn(Asked<'a>) -> BoxFuture<'a, Result<Value>>),
}

const fn spec(
    name: &'static str,
    takes: &'static [&'static [Kind]],
    returns: &'static str,
    call: fn(&Call<'_, '_>) -> Result<Value>,
) -> Spec {
    let (volatility, work) = (Volatility::Stable, Work::AtOnce(call));
    Spec { name, takes, names: &[], variadic: false, returns, volatility, strict: true, work }
}

/// A function that always gives the same for the same arguments, and knows of nothing else.
const fn plain(
    name: &'static str,
    takes: &'static [&'static [Kind]],
    returns: &'static str,
    call: fn(&Given<'_>) -> Result<Value>,
) -> Spec {
    let (volatility, work) = (Volatility::Immutable, Work::Plain(call));
    Spec { name, takes, names: &[], variadic: false, returns, volatility, strict: true, work }
}

/// A function that asks others: in lists of columns and in conditions alone.
const fn asking(
    name: &'static str,
    takes: &'static [&'static [Kind]],
    returns: &'static str,
    ask: for<'a> fn(Asked<'a>) -> BoxFuture<'a, Result<Value>>,
) -> Spec {
    let (volatility, work) = (Volatility::Volatile, Work::Later(ask));
    Spec { name, takes, names: &[], variadic: false, returns, volatility, strict: true, work }
}

impl Spec {
    const fn volatile(self) -> Self {
        Self { volatility: Volatility::Volatile, ..self }
    }

    const fn named(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    /// Called with NULLs as well.
    const fn nullable(self) -> Self {
        Self { strict: false, ..self }
    }

    const fn variadic(self) -> Self {
        Self { variadic: true, ..self }
    }
}

fn specs() -> impl Iterator<Item = &'static Spec> {
    let all = [
        session::FUNCTIONS,
        objects::FUNCTIONS,
        names::FUNCTIONS,
        privileges::FUNCTIONS,
        server::FUNCTIONS,
        arrays::FUNCTIONS,
        submitted::FUNCTIONS,
        schedules::FUNCTIONS,
    ];
    all.into_iter().flatten()
}

pub fn scalar(shared: &Arc<Shared>) -> Vec<Arc<ScalarUDF>> {
    let own = specs().map(|spec| {
        let function = Function { spec, signature: spec.signature(), shared: shared.clone() };
        match spec.work {
            Work::Plain(_) | Work::AtOnce(_) => ScalarUDF::new_from_impl(function),
            Work::Later(_) => AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf(),
        }
    });
    let crates = [
        datafusion_pg_catalog::pg_catalog::array_bounds_udf::create_array_upper_udf(),
        datafusion_pg_catalog::pg_catalog::array_bounds_udf::create_array_lower_udf(),
    ];
    own.chain(crates).chain(arrays::structures()).map(Arc::new).collect()
}

/// Names of all functions that can be called, for `pg_proc`.
pub fn names() -> &'static HashSet<String> {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mut names: HashSet<String> = specs().map(|spec| spec.name.to_owned()).collect();
        for function in SessionStateDefaults::default_scalar_functions() {
            names.insert(function.name().to_owned());
            names.extend(function.aliases().iter().cloned());
        }
        for function in SessionStateDefaults::default_aggregate_functions() {
            names.insert(function.name().to_owned());
            names.extend(function.aliases().iter().cloned());
        }
        for function in SessionStateDefaults::default_window_functions() {
            names.insert(function.name().to_owned());
        }
        names
    });
    &NAMES
}

/// What a function that asks others takes in so many arguments: the engine casts literals for all but
/// these.
pub fn asked_for(name: &str, arguments: usize) -> Option<&'static [Kind]> {
    let asks = |spec: &&Spec| spec.name == name && matches!(spec.work, Work::Later(_));
    specs().find(asks)?.takes.iter().copied().find(|kinds| kinds.len() == arguments)
}

/// Whether a call does more than give a value.
pub fn is_volatile(name: &str) -> bool {
    specs().any(|spec| spec.name == name && spec.volatility == Volatility::Volatile)
}

/// A function in a schema of this server's own, with one of its lists of arguments.
pub struct Own {
    pub schema: &'static str,
    pub name: &'static str,
    /// OIDs of types.
    pub arguments: Vec<u32>,
    /// What they are called.
    pub names: Vec<&'static str>,
    pub result: u32,
    pub returns_set: bool,
}

/// The functions that have a schema of their own, for `pg_proc`.
pub fn own() -> Vec<Own> {
    let types = types::types();
    let oid = |name: &str| types.oid(name).unwrap_or_default();
    let split = |name: &'static str| name.split_once('.');
    let values = specs().filter_map(|spec| Some((split(spec.name)?, spec))).flat_map(
        |((schema, name), spec)| {
            let result = oid(spec.returns);
            spec.takes.iter().map(move |kinds| {
                let arguments = kinds.iter().map(|kind| kind.oid()).collect();
                let names = spec.names.iter().take(kinds.len()).copied().collect();
                Own { schema, name, arguments, names, result, returns_set: false }
            })
        },
    );
    let tables = [
        ("oribi", "result", vec![("id", "text")]),
        ("zk", "watch", vec![("path", "text"), ("seconds", "float8")]),
    ];
    let tables = tables.into_iter().map(|(schema, name, arguments)| {
        let (names, types): (_, Vec<_>) = arguments.into_iter().unzip();
        let arguments = types.into_iter().map(oid).collect();
        Own { schema, name, arguments, names, result: oid("record"), returns_set: true }
    });
    values.chain(tables).collect()
}

/// What a function is called with.
struct Given<'r> {
    args: &'r [Value],
    fields: &'r [FieldRef],
}

/// One call: what a function has to go by that looks at the session as well.
struct Call<'a, 'r> {
    view: &'a View<'a>,
    given: Given<'r>,
    index: &'r OnceCell<Index<'a>>,
    options: &'r ConfigOptions,
}

/// One call of a function that asks others.
struct Asked<'a> {
    session: &'a SessionInfo,
    shared: &'a Arc<Shared>,
    args: &'a [Value],
}

impl<'a> Asked<'a> {
    fn view(&self) -> View<'a> {
        View::new(self.session, self.shared)
    }

    fn text(&self, n: usize) -> &'a str {
        text_of(self.args, n)
    }

    fn int(&self, n: usize) -> i64 {
        int_of(self.args, n)
    }
}

fn text_of(args: &[Value], n: usize) -> &str {
    args.get(n).and_then(Value::as_text).unwrap_or_default()
}

fn int_of(args: &[Value], n: usize) -> i64 {
    args.get(n).and_then(Value::as_int).unwrap_or_default()
}

impl<'r> Given<'r> {
    fn text(&self, n: usize) -> &'r str {
        text_of(self.args, n)
    }

    fn int(&self, n: usize) -> i64 {
        int_of(self.args, n)
    }
}

impl<'r> Deref for Call<'_, 'r> {
    type Target = Given<'r>;

    fn deref(&self) -> &Given<'r> {
        &self.given
    }
}

impl<'a, 'r> Call<'a, 'r> {
    fn session(&self) -> &'a SessionInfo {
        self.view.session
    }

    fn oid(&self, n: usize) -> u32 {
        self.args.get(n).and_then(Value::as_oid).unwrap_or_default()
    }

    fn index(&self) -> &Index<'a> {
        self.index.get_or_init(|| Index::new(self.view))
    }

    fn relation(&self, oid: u32) -> Option<RelationItem<'a>> {
        self.index().relations.get(&oid).copied()
    }
}

/// Objects by identifier, made when a batch of calls first asks.
struct Index<'a> {
    relations: HashMap<u32, RelationItem<'a>>,
    schemas: HashMap<u32, SchemaItem<'a>>,
}

impl<'a> Index<'a> {
    fn new(view: &'a View<'a>) -> Self {
        let relations = catalog_objects::relation_items(view).into_iter();
        let schemas = catalog_objects::schema_items(view).into_iter();
        Self {
            relations: relations.map(|item| (item.oid(), item)).collect(),
            schemas: schemas.map(|item| (item.oid, item)).collect(),
        }
    }
}

/// A [`Spec`] as the engine wants it.
struct Function {
    spec: &'static Spec,
    signature: Signature,
    shared: Arc<Shared>,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(types::arrow_type(self.spec.returns))
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(types::field(self.spec.name, self.spec.returns, true)))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        for lenient in [false, true] {
            if let Some(coerced) =
                self.spec.takes.iter().find_map(|kinds| self.spec.coerce(kinds, given, lenient))
            {
                return Ok(coerced);
            }
        }
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.spec.name, given.join(", "))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = self.spec.name;
        // The optimiser tries what comes of NULLs without a session.
        let session = SessionInfo::of(&args.config_options);
        let view = session.map(|session| View::new(session, &self.shared));
        let rows = match self.spec.takes {
            [[Kind::Type]] => ArgRows::without_values(),
            _ => ArgRows::new(&args)?,
        };
        let index = OnceCell::new();
        let mut values = Vec::with_capacity(rows.count);
        let mut row_args = Vec::with_capacity(rows.columns.len());
        for row in 0..rows.count {
            rows.read(row, &mut row_args);
            let given = Given { args: &row_args, fields: &args.arg_fields };
            values.push(match self.spec.work {
                Work::Later(_) => {
                    return plan_err!("{name} cannot stand here, only in a list of columns");
                }
                _ if self.spec.strict && row_args.contains(&Value::Null) => Value::Null,
                Work::Plain(call) => call(&given)?,
                Work::AtOnce(call) => {
                    let view = view.as_ref().map_err(|error| exec_datafusion_err!("{error}"))?;
                    let options = args.config_options.as_ref();
                    call(&Call { view, given, index: &index, options })?
                }
            });
        }
        let array = rows::array(args.return_field.data_type(), values);
        Ok(match rows.constant && self.spec.volatility != Volatility::Volatile {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
            false if rows.constant && args.number_rows != 1 => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
            }
            false => ColumnarValue::Array(array),
        })
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Function {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Work::Later(ask) = self.spec.work else { return self.invoke_with_args(args) };
        let session = SessionInfo::of(&args.config_options)?;
        let rows = ArgRows { count: args.number_rows, ..ArgRows::new(&args)? };
        let mut values = Vec::with_capacity(rows.count);
        let mut row_args = Vec::with_capacity(rows.columns.len());
        for row in 0..rows.count {
            rows.read(row, &mut row_args);
            values.push(match self.spec.strict && row_args.contains(&Value::Null) {
                true => Value::Null,
                false => ask(Asked { session, shared: &self.shared, args: &row_args }).await?,
            });
        }
        Ok(ColumnarValue::Array(rows::array(args.return_field.data_type(), values)))
    }
}

/// A batch of calls.
struct ArgRows {
    columns: Vec<Column>,
    /// All arguments are the same for each.
    constant: bool,
    /// Calls to be made.
    count: usize,
}

impl ArgRows {
    /// One call that looks at no value.
    fn without_values() -> Self {
        Self { columns: Vec::new(), constant: true, count: 1 }
    }

    fn new(args: &ScalarFunctionArgs) -> Result<Self> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let count = if constant { 1 } else { args.number_rows };
        let columns = (args.args.iter())
            .map(|arg| match arg {
                ColumnarValue::Scalar(scalar) => Column::new(&scalar.to_array()?, true),
                ColumnarValue::Array(array) => Column::new(array, false),
            })
            .collect::<Result<_>>()?;
        Ok(Self { columns, constant, count })
    }

    fn read(&self, row: usize, into: &mut Vec<Value>) {
        into.clear();
        into.extend(self.columns.iter().map(|column| column.value(row)));
    }
}

impl Spec {
    fn signature(&self) -> Signature {
        if let Work::Later(_) = self.work {
            // Of such functions the engine asks only this.
            let exact = |kinds: &&[Kind]| kinds.iter().map(|kind| kind.plain()).collect();
            let lists = self.takes.iter().map(|kinds| TypeSignature::Exact(exact(kinds)));
            return Signature::one_of(lists.collect(), self.volatility);
        }
        // The engine asks for the types of arguments only where there are some.
        let nullary = self.takes.contains(&[].as_slice());
        match (nullary, self.takes.len()) {
            (true, 1) => Signature::nullary(self.volatility),
            (true, _) => Signature::one_of(
                vec![TypeSignature::Nullary, TypeSignature::UserDefined],
                self.volatility,
            ),
            (false, _) => Signature::user_defined(self.volatility),
        }
    }

    /// The types that arguments of the given types are to be cast to, if these kinds take them.
    fn coerce(&self, kinds: &[Kind], given: &[DataType], lenient: bool) -> Option<Vec<DataType>> {
        if given.len() != kinds.len() && !(self.variadic && given.len() >= kinds.len()) {
            return None;
        }
        let kinds = kinds.iter().chain(std::iter::repeat(kinds.last()?));
        given.iter().zip(kinds).map(|(given, kind)| kind.accept(given, lenient)).collect()
    }
}

impl Kind {
    /// PostgreSQL's type for it.
    fn oid(self) -> u32 {
        let name = match self {
            Self::Bool => "bool",
            Self::Int => "int8",
            Self::Float => "float8",
            Self::Text => "text",
            Self::Interval => "interval",
            Self::Any | Self::Type => "any",
            Self::Array => "anyarray",
        };
        types::types().oid(name).unwrap_or_default()
    }

    /// The one type of arguments of a function that asks others.
    fn plain(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Interval => INTERVAL,
            Self::Text | Self::Any | Self::Type | Self::Array => DataType::Utf8,
        }
    }

    fn accept(self, given: &DataType, lenient: bool) -> Option<DataType> {
        use DataType::{Boolean, Float64, Int64, List, Null, Utf8};
        let text = matches!(given, Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let list = matches!(given, List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..));
        match self {
            Self::Bool if *given == Boolean || *given == Null || lenient && text => Some(Boolean),
            Self::Int if given.is_integer() || *given == Null || lenient && text => Some(Int64),
            Self::Float if given.is_numeric() || *given == Null => Some(Float64),
            Self::Text if text || *given == Null => Some(Utf8),
            Self::Interval if matches!(given, DataType::Interval(_)) => Some(INTERVAL),
            Self::Array if list || *given == Null => Some(given.clone()),
            Self::Any | Self::Type => Some(given.clone()),
            _ => None,
        }
    }
}

/// An argument's values.
struct Column {
    array: ArrayRef,
    constant: bool,
}

impl Column {
    fn new(array: &ArrayRef, constant: bool) -> Result<Self> {
        let array: ArrayRef = match array.data_type() {
            DataType::Boolean | DataType::Int64 | DataType::Float64 | DataType::Utf8 => {
                array.clone()
            }
            DataType::List(field) if *field.data_type() == DataType::Utf8 => array.clone(),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                array.clone()
            }
            DataType::Null => cast(array, &DataType::Utf8)?,
            DataType::Timestamp(_, zone) => {
                cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let array = array.as_primitive::<IntervalMonthDayNanoType>();
                Arc::new(array.unary::<_, Int64Type>(micros_of))
            }
            kind if kind.is_integer() => cast(array, &DataType::Int64)?,
            _ => cast(array, &DataType::Utf8)?,
        };
        Ok(Self { array, constant })
    }

    fn value(&self, row: usize) -> Value {
        value_at(&self.array, if self.constant { 0 } else { row })
    }
}

/// How long an interval is, in microseconds, if a month has 30 days.
fn micros_of(interval: IntervalMonthDayNano) -> i64 {
    const DAY: i64 = 24 * 3600 * 1_000_000;
    let days = i64::from(interval.months) * 30 + i64::from(interval.days);
    days.saturating_mul(DAY).saturating_add(interval.nanoseconds / 1000)
}

fn value_at(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Value::Time(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::List(_) => elements(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => elements(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => elements(&array.as_fixed_size_list().value(row)),
        _ => Value::Null,
    }
}

fn elements(array: &ArrayRef) -> Value {
    let column = Column::new(array, false);
    Value::List(match column {
        Ok(column) => (0..array.len()).map(|row| column.value(row)).collect(),
        // A type without a text form: only how many there are is of interest.
        Err(_) => vec![Value::Null; array.len()],
    })
}

impl Debug for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.spec.name == other.spec.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.name.hash(state);
    }
}

/// A call that fails with a message of its own.
fn fail(message: impl fmt::Display) -> Result<Value> {
    exec_err!("{message}")
}
