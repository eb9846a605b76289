//! PostgreSQL's types: which Arrow type holds them in system tables, which of them a user's column
//! is, and how they are written.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, IntervalUnit, TimeUnit};

use postgres_types::Kind;

use super::pg_catalog::statics;
use crate::values::types::{self as values, PG_TYPE};

/// What others need of a row of `pg_type`.
#[derive(Debug)]
pub struct PgType {
    pub name: String,
    /// The type of an array's elements, otherwise 0.
    pub element: u32,
    /// Bytes of a value, -1 where that varies.
    pub length: i16,
    pub by_value: bool,
    pub align: String,
    pub storage: String,
    pub collation: u32,
}

/// The types that exist here.
#[derive(Debug)]
pub struct Types {
    by_oid: HashMap<u32, PgType>,
    by_name: HashMap<String, u32>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let mut types = Types { by_oid: HashMap::new(), by_name: HashMap::new() };
    for batch in statics::crate_tables().pg_type.data() {
        // All columns are there: they are part of the crate.
        if types.read(batch).is_none() {
            debug_assert!(false, "pg_type lacks a column");
        }
    }
    types
});

/// Whether a row of PostgreSQL's `pg_type` is a type in its own right, and not the row type of one
/// of its relations: those are assigned by each installation for itself.
pub fn is_base_type(oid: u32, relation: u32, element: u32) -> bool {
    // pg_type, pg_attribute, pg_proc and pg_class have row types with fixed identifiers.
    const ROW_TYPES: [u32; 4] = [71, 75, 81, 83];
    oid < 10_000 && relation == 0 && !ROW_TYPES.contains(&element)
}

pub fn types() -> &'static Types {
    &TYPES
}

impl Types {
    fn read(&mut self, batch: &RecordBatch) -> Option<()> {
        let int = |name: &str| Some(batch.column_by_name(name)?.as_primitive::<Int32Type>());
        let text = |name: &str| Some(batch.column_by_name(name)?.as_string::<i32>());
        let (oids, elements, relations) = (int("oid")?, int("typelem")?, int("typrelid")?);
        let (names, collations) = (text("typname")?, int("typcollation")?);
        let (aligns, storages) = (text("typalign")?, text("typstorage")?);
        let lengths = batch.column_by_name("typlen")?.as_primitive::<Int16Type>();
        let by_value = batch.column_by_name("typbyval")?.as_boolean();
        for row in 0..batch.num_rows() {
            let oid = oids.value(row).cast_unsigned();
            let element = elements.value(row).cast_unsigned();
            if !is_base_type(oid, relations.value(row).cast_unsigned(), element) {
                continue;
            }
            let name = names.value(row).to_owned();
            self.by_name.insert(name.clone(), oid);
            let found = PgType {
                name,
                element,
                length: lengths.value(row),
                by_value: by_value.value(row),
                align: aligns.value(row).to_owned(),
                storage: storages.value(row).to_owned(),
                collation: collations.value(row).cast_unsigned(),
            };
            self.by_oid.insert(oid, found);
        }
        Some(())
    }

    pub fn get(&self, oid: u32) -> Option<&PgType> {
        self.by_oid.get(&oid)
    }

    /// A type by its name in `pg_type`.
    pub fn oid(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A type as people write it: `bigint`, `character varying(10)`, `pg_catalog.int4[]`.
    pub fn resolve(&self, text: &str) -> Option<u32> {
        let text = text.trim();
        let text = text.strip_prefix("pg_catalog.").unwrap_or(text);
        if let Some(element) = text.strip_suffix("[]") {
            let element = self.resolve(element.trim_end_matches("[]"))?;
            return self.array_of(element);
        }
        if let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            return self.oid(quoted);
        }
        let bare = match (text.find('('), text.find(')')) {
            (Some(open), Some(close)) if open < close => {
                format!("{}{}", text[..open].trim_end(), &text[close + 1..])
            }
            _ => text.to_owned(),
        };
        let lower = bare.to_lowercase();
        let spelled = SPELLINGS.iter().find(|(_, spelling)| *spelling == lower);
        let other = || OTHER_SPELLINGS.iter().find(|(_, spelling)| *spelling == lower);
        spelled.or_else(other).map(|(oid, _)| *oid).or_else(|| self.oid(&lower))
    }

    pub fn array_of(&self, element: u32) -> Option<u32> {
        let element = self.get(element)?;
        self.oid(&format!("_{}", element.name))
    }

    /// PostgreSQL's `format_type`. `modifier` None: as in a cast to `regtype`.
    pub fn format(&self, oid: u32, modifier: Option<i32>) -> String {
        if oid == 0 {
            return "-".to_owned();
        }
        let Some(found) = self.get(oid) else { return "???".to_owned() };
        // Vectors have elements as well, yet are types of their own.
        if found.element != 0 && found.name.starts_with('_') {
            return format!("{}[]", self.format(found.element, modifier));
        }
        let spelled = SPELLINGS.iter().find(|(candidate, _)| *candidate == oid);
        let name = spelled.map_or_else(|| found.name.clone(), |(_, name)| (*name).to_owned());
        match (oid, modifier.unwrap_or(-1)) {
            (_, ..=-1) => name,
            (NUMERIC, modifier) => {
                let packed = modifier - TYPMOD_HEADER;
                // The scale is a signed number of eleven bits.
                let scale = ((packed & 0x7ff) ^ 1024) - 1024;
                format!("{name}({},{scale})", (packed >> 16) & 0xffff)
            }
            (1042 | 1043, modifier) => format!("{name}({})", modifier - TYPMOD_HEADER),
            (1083 | 1114 | 1184 | 1266, modifier) => match name.split_once(' ') {
                Some((first, rest)) => format!("{first}({modifier}) {rest}"),
                None => name,
            },
            (1560 | 1562, modifier) => format!("{name}({modifier})"),
            _ => name,
        }
    }
}

const NUMERIC: u32 = 1700;

/// Bytes that PostgreSQL adds to every typmod of a variable-length type (`VARHDRSZ`).
const TYPMOD_HEADER: i32 = 4;

/// Types whose written name is not the one in `pg_type`.
const SPELLINGS: &[(u32, &str)] = &[
    (16, "boolean"),
    (18, "\"char\""),
    (20, "bigint"),
    (21, "smallint"),
    (23, "integer"),
    (700, "real"),
    (701, "double precision"),
    (1042, "character"),
    (1043, "character varying"),
    (1083, "time without time zone"),
    (1114, "timestamp without time zone"),
    (1184, "timestamp with time zone"),
    (1266, "time with time zone"),
    (1560, "bit"),
    (1562, "bit varying"),
    (NUMERIC, "numeric"),
    (2276, "\"any\""),
];

/// More names that are understood, but not written.
const OTHER_SPELLINGS: &[(u32, &str)] =
    &[(1042, "char"), (23, "int"), (NUMERIC, "decimal"), (NUMERIC, "dec"), (701, "float")];

/// The Arrow type that holds a type of PostgreSQL in system tables.
pub fn arrow_type(pg: &str) -> DataType {
    let list =
        |element: &str| DataType::List(Arc::new(Field::new_list_field(arrow_type(element), true)));
    match pg {
        "int2vector" => return list("int2"),
        "oidvector" => return list("oid"),
        _ => {}
    }
    if let Some(element) = pg.strip_prefix('_') {
        return list(element);
    }
    match pg {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" | "oid" | "xid" | "cid" => DataType::Int32,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" | "numeric" => DataType::Float64,
        "bytea" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        name if name.starts_with("reg") => DataType::Int32,
        _ => DataType::Utf8,
    }
}

/// A column of a system table, marked where its Arrow type alone would tell clients another type.
pub fn field(name: &str, pg: &str, nullable: bool) -> Field {
    let field = Field::new(name, arrow_type(pg), nullable);
    match pg {
        "bool" | "int2" | "int4" | "int8" | "float4" | "float8" | "text" | "bytea" | "date"
        | "timestamptz" | "interval" | "_int2" | "_int4" | "_text" | "_bool" | "_float4"
        | "_float8" | "numeric" => field,
        pg => field.with_metadata(HashMap::from([(PG_TYPE.to_owned(), pg.to_owned())])),
    }
}

/// What `pg_attribute` says of a column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    pub oid: u32,
    pub modifier: i32,
    /// 1 for arrays, otherwise 0.
    pub dimensions: i16,
}

/// The PostgreSQL type of a user's column, as on the wire.
pub fn column_type(field: &Field) -> ColumnType {
    let pg = values::pg_type(field);
    let dimensions = i16::from(matches!(pg.kind(), Kind::Array(_)));
    ColumnType { oid: pg.oid(), modifier: values::type_modifier(field), dimensions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_postgres_types() {
        let list = |kind| DataType::List(Arc::new(Field::new_list_field(kind, true)));
        for (kind, oid, modifier, written) in [
            (DataType::Int64, 20, -1, "bigint"),
            (DataType::Utf8View, 25, -1, "text"),
            (DataType::UInt64, 1700, -1, "numeric"),
            (DataType::Decimal128(15, 2), 1700, 983046, "numeric(15,2)"),
            (DataType::Decimal32(5, -2), 1700, 329730, "numeric(5,-2)"),
            (DataType::Date32, 1082, -1, "date"),
            (DataType::Timestamp(TimeUnit::Second, None), 1114, -1, "timestamp without time zone"),
            (list(DataType::Int32), 1007, -1, "integer[]"),
            (list(list(DataType::Decimal128(9, 1))), 1231, 589829, "numeric(9,1)[]"),
            (DataType::Struct(vec![Field::new("a", DataType::Int8, true)].into()), 114, -1, "json"),
        ] {
            let column = column_type(&Field::new("c", kind.clone(), true));
            assert_eq!((column.oid, column.modifier), (oid, modifier), "{kind}");
            assert_eq!(types().format(oid, Some(modifier)), written, "{kind}");
        }
    }

    #[test]
    fn types_are_found_as_people_write_them() {
        for (text, oid) in [
            ("int4", Some(23)),
            ("INTEGER", Some(23)),
            ("pg_catalog.text", Some(25)),
            ("character varying(20)", Some(1043)),
            ("timestamp(3) with time zone", Some(1184)),
            ("numeric(10,2)[]", Some(1231)),
            ("\"char\"", Some(18)),
            ("char", Some(1042)),
            ("_text", Some(1009)),
            ("hstore", None),
            ("", None),
        ] {
            assert_eq!(types().resolve(text), oid, "{text}");
        }
        assert_eq!(types().format(22, None), "int2vector");
        assert_eq!(types().format(4_000_000, None), "???");
    }
}
