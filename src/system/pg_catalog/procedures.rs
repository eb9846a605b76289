//! `pg_proc` and what is made of it: PostgreSQL's functions that can be called here, and the
//! engine's own that PostgreSQL does not have, with the types of arguments and results as far as
//! the engine tells them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type};
use datafusion::error::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{ReturnFieldArgs, Signature, TypeSignature, Volatility};

use super::super::functions;
use super::super::relations::{self, Relation};
use super::super::rows::{Rows, Value};
use super::super::types::{column_type, types};
use super::statics;

/// The first identifier of the engine's own functions: they are numbered in the order of their
/// names, which is the same on all daemons of one build, below what users' objects get.
const FIRST_OID: u32 = 15_200;

/// Signatures of one function that are listed; the engine takes many more types than it tells
/// apart.
const MAX_SIGNATURES: usize = 12;

/// Pseudo-types of PostgreSQL.
const ANY: u32 = 2276;
const ANY_ARRAY: u32 = 2277;

/// The schema of PostgreSQL's functions and the engine's.
const PG_CATALOG_NAME: &str = "pg_catalog";

/// The role that owns what is part of the system.
const BOOTSTRAP_SUPERUSER: u32 = 10;

/// The language `internal`.
const INTERNAL: u32 = 12;

/// A row of `pg_proc` as far as names and types go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procedure {
    pub oid: u32,
    pub schema: &'static str,
    pub name: String,
    /// `f` for a function, `a` for an aggregate, `w` for a window function.
    pub kind: &'static str,
    pub arguments: Vec<u32>,
    /// What the arguments of this server's own functions are called.
    pub names: Vec<&'static str>,
    /// The last argument may come any number of times.
    pub variadic: bool,
    pub result: u32,
    /// It gives rows.
    pub returns_set: bool,
    pub is_strict: bool,
    /// `i`, `s` or `v`, as in `provolatile`.
    pub volatility: &'static str,
}

static ALL: LazyLock<BTreeMap<u32, Procedure>> = LazyLock::new(|| {
    let postgres = read();
    let names: HashSet<&str> = postgres.iter().map(|procedure| procedure.name.as_str()).collect();
    let engines = engines(&names);
    let first = engines.last().map_or(FIRST_OID, |last| last.oid + 1);
    postgres
        .into_iter()
        .chain(engines)
        .chain(own(first))
        .map(|procedure| (procedure.oid, procedure))
        .collect()
});

/// Functions by name, of several the one with the least identifier: what `regproc` means.
static BY_NAME: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let mut oids = HashMap::new();
    for (oid, procedure) in ALL.iter() {
        oids.entry(procedure.shown_name()).or_insert(*oid);
    }
    oids
});

/// A function's identifier by its name, with the schema of one that is not PostgreSQL's.
pub fn oid(name: &str) -> Option<u32> {
    BY_NAME.get(name).copied()
}

pub fn get(oid: u32) -> Option<&'static Procedure> {
    ALL.get(&oid)
}

impl Procedure {
    /// Its name, with its schema where PostgreSQL's does not hold it.
    pub fn shown_name(&self) -> String {
        match self.schema {
            PG_CATALOG_NAME => self.name.clone(),
            schema => format!("{schema}.{}", self.name),
        }
    }

    /// How it is called, and what it gives.
    pub fn signature(&self) -> String {
        let kind = |oid: &u32| types().format(*oid, None);
        let arguments =
            self.arguments.iter().enumerate().map(|(at, oid)| match self.names.get(at) {
                Some(name) => format!("{name} {}", kind(oid)),
                None => kind(oid),
            });
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        let set = if self.returns_set { "SETOF " } else { "" };
        format!("{}({arguments}) → {set}{}", self.shown_name(), kind(&self.result))
    }
}

/// The functions that can be called.
pub fn callable() -> impl Iterator<Item = &'static Procedure> {
    let names = functions::names();
    ALL.values().filter(move |procedure| is_callable(procedure, names))
}

fn is_callable(procedure: &Procedure, names: &HashSet<String>) -> bool {
    procedure.oid >= FIRST_OID
        || names.contains(&procedure.name)
            && procedure.arguments.iter().chain([&procedure.result]).all(|oid| is_known(*oid))
}

/// Whether values of a type can be had here: of PostgreSQL's own types many cannot.
fn is_known(oid: u32) -> bool {
    const KNOWN: &[u32] = &[
        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 28, 29, 30, 114, 700, 701, 869, 1033, 1042,
        1043, 1082, 1083, 1114, 1184, 1186, 1700, 2205, 2206, 2950, 4089, 4096,
    ];
    // void, record, "any" and the like.
    const PSEUDO: &[u32] = &[2249, 2276, 2277, 2278, 2283, 2776, 5077, 5078, 5079];
    let element = types().get(oid).filter(|found| found.length == -1).map_or(0, |t| t.element);
    KNOWN.contains(&oid) || PSEUDO.contains(&oid) || KNOWN.contains(&element)
}

/// Which rows of PostgreSQL's `pg_proc` are true here: what can be called, and what types and
/// operators refer to.
pub fn wanted() -> impl Fn(u32) -> bool {
    let referred = statics::referred_functions();
    let names = functions::names();
    move |oid| {
        referred.contains(&oid) || get(oid).is_some_and(|procedure| is_callable(procedure, names))
    }
}

/// The rows of the engine's own functions.
pub fn engine_rows(relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "oid",
            "proname",
            "pronamespace",
            "proowner",
            "prolang",
            "procost",
            "prorows",
            "provariadic",
            "prokind",
            "proisstrict",
            "proretset",
            "provolatile",
            "proparallel",
            "pronargs",
            "prorettype",
            "proargtypes",
            "proargnames",
            "prosrc",
        ],
    );
    for procedure in ALL.range(FIRST_OID..).map(|(_, procedure)| procedure) {
        let arguments = procedure.arguments.iter().map(|oid| Value::from(*oid)).collect();
        let names: Vec<_> = procedure.names.iter().map(|name| Value::from(*name)).collect();
        rows.push([
            procedure.oid.into(),
            procedure.name.as_str().into(),
            relations::schema_oid(procedure.schema).into(),
            BOOTSTRAP_SUPERUSER.into(),
            INTERNAL.into(),
            1.0.into(),
            if procedure.returns_set { 1000.0 } else { 0.0 }.into(),
            if procedure.variadic { ANY } else { 0 }.into(),
            procedure.kind.into(),
            procedure.is_strict.into(),
            procedure.returns_set.into(),
            procedure.volatility.into(),
            "s".into(),
            i16::try_from(procedure.arguments.len()).unwrap_or(i16::MAX).into(),
            procedure.result.into(),
            Value::List(arguments),
            (!names.is_empty()).then_some(Value::List(names)).into(),
            procedure.name.as_str().into(),
        ]);
    }
    rows.finish()
}

/// PostgreSQL's functions.
fn read() -> Vec<Procedure> {
    let mut procedures = Vec::new();
    for batch in statics::crate_tables().pg_proc.data() {
        // All columns are there: they are part of the crate.
        let read = read_batch(batch);
        debug_assert!(read.is_some(), "pg_proc lacks a column");
        procedures.extend(read.unwrap_or_default());
    }
    procedures
}

fn read_batch(batch: &RecordBatch) -> Option<Vec<Procedure>> {
    let int = |name: &str| Some(batch.column_by_name(name)?.as_primitive::<Int32Type>());
    let text = |name: &str| Some(batch.column_by_name(name)?.as_string::<i32>());
    let flag = |name: &str| Some(batch.column_by_name(name)?.as_boolean());
    let (oids, names, kinds) = (int("oid")?, text("proname")?, text("prokind")?);
    let (arguments, results, variadics) =
        (text("proargtypes")?, int("prorettype")?, int("provariadic")?);
    let (sets, stricts, volatilities) =
        (flag("proretset")?, flag("proisstrict")?, text("provolatile")?);
    let procedure = |row: usize| Procedure {
        oid: oids.value(row).cast_unsigned(),
        schema: PG_CATALOG_NAME,
        name: names.value(row).to_owned(),
        kind: ["a", "w", "p"].into_iter().find(|kind| *kind == kinds.value(row)).unwrap_or("f"),
        arguments: arguments.value(row).split(' ').filter_map(|oid| oid.parse().ok()).collect(),
        names: Vec::new(),
        variadic: variadics.value(row) != 0,
        result: results.value(row).cast_unsigned(),
        returns_set: sets.value(row),
        is_strict: stricts.value(row),
        volatility: ["i", "s"].into_iter().find(|v| *v == volatilities.value(row)).unwrap_or("v"),
    };
    Some((0..batch.num_rows()).map(procedure).collect())
}

/// The engine's functions whose names PostgreSQL does not have.
fn engines(postgres: &HashSet<&str>) -> Vec<Procedure> {
    let mut found = BTreeSet::new();
    let mut add = |name: &str, kind, signature: &Signature, result: &dyn Fn(&[FieldRef]) -> u32| {
        if postgres.contains(name) {
            return;
        }
        for types in signatures(&signature.type_signature) {
            let (arguments, variadic) = match &types {
                Some(types) => (types.iter().map(type_oid).collect(), false),
                None => (vec![ANY], true),
            };
            let field = |(at, kind): (usize, &DataType)| -> FieldRef {
                Arc::new(Field::new(format!("{at}"), kind.clone(), true))
            };
            let fields: Option<Vec<_>> =
                types.map(|types| types.iter().enumerate().map(field).collect());
            let result = fields.map_or(ANY, |fields| result(&fields));
            let volatility = volatility(signature.volatility);
            found.insert((name.to_owned(), kind, arguments, variadic, result, volatility));
        }
    };
    for function in SessionStateDefaults::default_scalar_functions() {
        let result = |fields: &[FieldRef]| {
            let scalar_arguments = &vec![None; fields.len()];
            let field = function
                .return_field_from_args(ReturnFieldArgs { arg_fields: fields, scalar_arguments });
            field.map_or(ANY, |field| column_type(&field).oid)
        };
        let aliases = function.aliases().iter().map(String::as_str);
        for name in aliases.chain([function.name()]) {
            add(name, "f", function.signature(), &result);
        }
    }
    for function in SessionStateDefaults::default_aggregate_functions() {
        let result = |fields: &[FieldRef]| {
            function.return_field(fields).map_or(ANY, |field| column_type(&field).oid)
        };
        let aliases = function.aliases().iter().map(String::as_str);
        for name in aliases.chain([function.name()]) {
            add(name, "a", function.signature(), &result);
        }
    }
    for function in SessionStateDefaults::default_window_functions() {
        add(function.name(), "w", function.signature(), &|_| ANY);
    }
    let numbered = found.into_iter().zip(FIRST_OID..crate::catalog::FIRST_USER_OID);
    let procedure = |((name, kind, arguments, variadic, result, volatility), oid)| Procedure {
        oid,
        schema: PG_CATALOG_NAME,
        name,
        kind,
        arguments,
        names: Vec::new(),
        variadic,
        result,
        returns_set: false,
        is_strict: false,
        volatility,
    };
    numbered.map(procedure).collect()
}

/// Those in schemas of this server's own.
fn own(first: u32) -> impl Iterator<Item = Procedure> {
    functions::own().into_iter().zip(first..).map(|(own, oid)| Procedure {
        oid,
        schema: own.schema,
        name: own.name.to_owned(),
        kind: "f",
        arguments: own.arguments,
        names: own.names,
        variadic: false,
        result: own.result,
        returns_set: own.returns_set,
        is_strict: true,
        volatility: "v",
    })
}

fn volatility(volatility: Volatility) -> &'static str {
    match volatility {
        Volatility::Immutable => "i",
        Volatility::Stable => "s",
        Volatility::Volatile => "v",
    }
}

fn type_oid(kind: &DataType) -> u32 {
    match kind {
        DataType::Null => ANY,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => ANY_ARRAY,
        kind => column_type(&Field::new("", kind.clone(), true)).oid,
    }
}

/// The lists of argument types that a function takes, each once for PostgreSQL; `None` stands for
/// any number of arguments of any type, which is all that the engine tells of some.
fn signatures(signature: &TypeSignature) -> Vec<Option<Vec<DataType>>> {
    match signature {
        TypeSignature::Nullary => return vec![Some(Vec::new())],
        TypeSignature::Any(count) => return vec![Some(vec![DataType::Null; *count])],
        TypeSignature::OneOf(several) => {
            let mut all: Vec<_> = several.iter().flat_map(signatures).collect();
            if all.iter().any(Option::is_some) {
                all.retain(Option::is_some);
            }
            return all;
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    let examples = signature.get_example_types().into_iter();
    let mut distinct: Vec<_> = examples
        .filter(|types| seen.insert(types.iter().map(type_oid).collect::<Vec<_>>()))
        .take(MAX_SIGNATURES)
        .map(Some)
        .collect();
    if distinct.is_empty() {
        distinct.push(None);
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signatures_of(name: &str) -> Vec<String> {
        let format = |oid: &u32| types().format(*oid, None);
        (callable().filter(|procedure| procedure.name == name))
            .map(|procedure| {
                let arguments: Vec<_> = procedure.arguments.iter().map(format).collect();
                format!("({}) {}", arguments.join(", "), format(&procedure.result))
            })
            .collect()
    }

    #[test]
    fn functions_have_their_types() {
        // Ranges do not exist.
        assert_eq!(signatures_of("upper"), ["(text) text"]);
        assert_eq!(signatures_of("array_distinct"), ["(\"any\") \"any\""]);
        assert!(signatures_of("isnan").contains(&"(double precision) boolean".to_owned()));
        assert!(signatures_of("count").contains(&"(\"any\") bigint".to_owned()));
        assert_eq!(signatures_of("lo_import"), Vec::<String>::new());
        assert_eq!(
            signatures_of("wait"),
            ["(text) text", "(text, text) text", "(text, interval) text"]
        );
        assert_eq!(signatures_of("result"), ["(text) record"]);
        assert_ne!(oid("oribi.submit"), None);
        assert_eq!(oid("submit"), None);
    }

    #[test]
    fn every_function_has_an_identifier_of_its_own() {
        let names = functions::names();
        let listed: HashSet<&str> = callable().map(|procedure| procedure.name.as_str()).collect();
        // Those in a schema of their own are not PostgreSQL's.
        let missing: Vec<_> = (names.iter())
            .filter(|name| !listed.contains(name.as_str()) && !name.starts_with("oribi."))
            .collect();
        assert!(missing.len() < 20, "{missing:?}");
        let last = ALL.keys().next_back().copied().unwrap_or_default();
        assert!((FIRST_OID + 50..crate::catalog::FIRST_USER_OID - 1).contains(&last), "{last}");
    }
}
