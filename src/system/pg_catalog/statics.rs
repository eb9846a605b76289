//! What is the same in every PostgreSQL: types, operators, functions, access methods. The rows are
//! those of the crate `datafusion-pg-catalog`, brought into the form of PostgreSQL 15 and cut down
//! to what exists here. Made once, at first use.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::error::Result;
use datafusion_pg_catalog::pg_catalog::{ArrowTable, PgCatalogStaticTables};

use super::super::relations::Relation;
use super::super::rows::{self, Value};
use super::super::{View, functions, types};
use super::procedures;

static CRATE: LazyLock<PgCatalogStaticTables> = LazyLock::new(|| {
    PgCatalogStaticTables::try_new().expect("the crate's own data is valid: its tests read it all")
});

pub fn crate_tables() -> &'static PgCatalogStaticTables {
    &CRATE
}

fn table(name: &str) -> Option<&'static Arc<ArrowTable>> {
    Some(match name {
        "pg_aggregate" => &CRATE.pg_aggregate,
        "pg_am" => &CRATE.pg_am,
        "pg_amop" => &CRATE.pg_amop,
        "pg_amproc" => &CRATE.pg_amproc,
        "pg_cast" => &CRATE.pg_cast,
        "pg_collation" => &CRATE.pg_collation,
        "pg_language" => &CRATE.pg_language,
        "pg_opclass" => &CRATE.pg_opclass,
        "pg_operator" => &CRATE.pg_operator,
        "pg_opfamily" => &CRATE.pg_opfamily,
        "pg_proc" => &CRATE.pg_proc,
        "pg_range" => &CRATE.pg_range,
        "pg_tablespace" => &CRATE.pg_tablespace,
        "pg_type" => &CRATE.pg_type,
        _ => return None,
    })
}

pub fn has(name: &str) -> bool {
    table(name).is_some()
}

pub fn rows(_: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    static MADE: Mutex<Option<HashMap<&'static str, RecordBatch>>> = Mutex::new(None);
    let lock = || MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(batch) = lock().get_or_insert_default().get(relation.name) {
        return Ok(batch.clone());
    }
    let batch = make(relation)?;
    lock().get_or_insert_default().insert(relation.name, batch.clone());
    Ok(batch)
}

fn make(relation: &'static Relation) -> Result<RecordBatch> {
    let Some(table) = table(relation.name) else {
        return Ok(RecordBatch::new_empty(relation.arrow.clone()));
    };
    let all = concat_batches(&table.schema(), table.data())?;
    let source = filter_record_batch(&all, &wanted(relation.name, &all))?;
    let columns = (relation.columns.iter().zip(relation.arrow.fields()))
        .map(|(column, field)| match source.column_by_name(column.name) {
            Some(array) => convert(array, column.kind, field.data_type()),
            // A column that later versions of PostgreSQL renamed or dropped.
            None => Ok(rows::empty(column, field.data_type(), source.num_rows())),
        })
        .collect::<Result<Vec<_>>>()?;
    let batch = rows::batch(&relation.arrow, columns, source.num_rows())?;
    match relation.name {
        "pg_proc" => {
            Ok(concat_batches(&relation.arrow, [&batch, &procedures::engine_rows(relation)?])?)
        }
        _ => Ok(batch),
    }
}

/// Which rows are true here.
fn wanted(name: &str, batch: &RecordBatch) -> BooleanArray {
    let ints = |column: &str| {
        let array = batch.column_by_name(column).map(|array| array.as_primitive::<Int32Type>());
        move |row: usize| array.map_or(0, |array| array.value(row).cast_unsigned())
    };
    let text = |column: &str| {
        let array = batch.column_by_name(column).map(|array| array.as_string::<i32>());
        move |row: usize| array.map_or("", |array| array.value(row))
    };
    let keep: Box<dyn Fn(usize) -> bool> = match name {
        "pg_type" => {
            let (oid, relation, element) = (ints("oid"), ints("typrelid"), ints("typelem"));
            Box::new(move |row| types::is_base_type(oid(row), relation(row), element(row)))
        }
        // Strings sort by their bytes: "default", "C" and "POSIX" are one.
        "pg_collation" => {
            let oid = ints("oid");
            Box::new(move |row| matches!(oid(row), 100 | 950 | 951))
        }
        "pg_language" => {
            let name = text("lanname");
            Box::new(move |row| name(row) != "plpgsql")
        }
        "pg_proc" => {
            let (oid, wanted) = (ints("oid"), procedures::wanted());
            Box::new(move |row| wanted(oid(row)))
        }
        "pg_aggregate" => {
            let name = text("aggfnoid");
            let callable = functions::names();
            Box::new(move |row| callable.contains(bare(name(row))))
        }
        _ => Box::new(|_| true),
    };
    (0..batch.num_rows()).map(|row| Some(keep(row))).collect()
}

/// The functions that read and write values of types.
pub fn referred_functions() -> HashSet<u32> {
    let columns = ["typinput", "typoutput", "typreceive", "typsend"];
    let mut referred = HashSet::new();
    for batch in CRATE.pg_type.data() {
        for array in columns.iter().filter_map(|column| batch.column_by_name(column)) {
            referred.extend(array.as_string::<i32>().iter().flatten().filter_map(procedures::oid));
        }
    }
    referred
}

/// `pg_catalog.avg` and `avg(bigint)` as `avg`.
fn bare(name: &str) -> &str {
    let name = name.split('(').next().unwrap_or(name);
    name.rsplit('.').next().unwrap_or(name)
}

/// The crate has arrays and function references as text.
fn convert(array: &ArrayRef, kind: &str, target: &DataType) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(array.clone());
    }
    if *array.data_type() != DataType::Utf8 {
        return Ok(cast(array, target)?);
    }
    let texts = array.as_string::<i32>();
    let values = texts.iter().map(|text| match text {
        None => Value::Null,
        Some(text) if kind == "regproc" => {
            Value::from(procedures::oid(bare(text)).unwrap_or_default())
        }
        Some(text) if matches!(target, DataType::List(_)) => list(text, target),
        Some(text) => text.parse::<i64>().map_or(Value::Null, Value::Int),
    });
    Ok(rows::array(target, values.collect()))
}

/// `1 2 3` or `{a,b}`.
fn list(text: &str, target: &DataType) -> Value {
    let DataType::List(element) = target else { return Value::Null };
    let items = text.trim_matches(['{', '}', '[', ']']).split([' ', ',']);
    let items = items.filter(|item| !item.is_empty());
    let items = items.map(|item| match element.data_type() {
        DataType::Utf8 => item.into(),
        _ => item.parse::<i64>().map_or(Value::Null, Value::Int),
    });
    Value::List(items.collect())
}
