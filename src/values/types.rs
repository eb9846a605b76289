//! Which PostgreSQL type a client sees for an Arrow column, and which Arrow type a parameter that
//! the client declared becomes. Total functions: every Arrow type has an answer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use postgres_types::Type;

/// Metadata key under which Arrow names an extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";

/// Metadata key of a column that is more to PostgreSQL than its Arrow type says: `oid`, `name`,
/// `char`, `regproc`, `int2vector`, `_aclitem` and the like.
pub const PG_TYPE: &str = "oribi.pg_type";

/// PostgreSQL's name for the type of such a column; `None` for all others. Metadata outlives an
/// implicit cast, so it counts only while the Arrow type still fits.
pub fn pg_type_name(field: &Field) -> Option<&str> {
    let name = field.metadata().get(PG_TYPE)?.as_str();
    let fits = match (name, field.data_type()) {
        ("int2vector" | "oidvector", kind) => matches!(kind, DataType::List(_)),
        (name, kind) if name.starts_with('_') => matches!(kind, DataType::List(_)),
        ("oid" | "xid" | "cid", kind) => *kind == DataType::Int32,
        (name, kind) if name.starts_with("reg") => *kind == DataType::Int32,
        (_, kind) => matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8),
    };
    fits.then_some(name)
}

/// Metadata key of a column of times or timestamps, or arrays of these, that keeps less than
/// microseconds: how many digits behind the second's point.
pub const PRECISION: &str = "oribi.precision";

/// The most digits behind the second's point: microseconds (`MAX_TIMESTAMP_PRECISION` of PostgreSQL).
pub const MAX_PRECISION: u8 = 6;

/// How many digits behind the second's point a column keeps; `None` for all that there are, and for
/// what has no seconds.
pub fn precision(field: &Field) -> Option<u8> {
    let digits = field.metadata().get(PRECISION)?.parse().ok()?;
    let mut kind = storage(field.data_type());
    while let Some(element) = element(kind) {
        kind = storage(element.data_type());
    }
    let timed = matches!(kind, DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_));
    (timed && digits < MAX_PRECISION).then_some(digits)
}

/// The extension types of texts that are `json` and `jsonb`. Arrow knows of the former; the latter is in
/// `jsonb`'s own form.
const JSON: &str = "arrow.json";
const JSONB: &str = "oribi.jsonb";

/// Whether a column of texts is `json` or `jsonb`, and which of them.
pub fn json_type(field: &Field) -> Option<Type> {
    if field.metadata().is_empty() || !is_text(field.data_type()) {
        return None;
    }
    Some(pg_type(field)).filter(|pg| matches!(*pg, Type::JSON | Type::JSONB))
}

/// A column of texts as one of `json` or `jsonb`.
pub fn of_json_type(field: Field, pg: &Type) -> Field {
    extended(field, if *pg == Type::JSONB { JSONB } else { JSON })
}

/// A column of texts that is JSON if it is declared so: files have strings.
pub fn with_json_of(mut field: Field, declared: &Field) -> Field {
    if is_text(field.data_type()) && json_type(declared).is_some() {
        let name = declared.metadata().get(EXTENSION_NAME).cloned();
        field.metadata_mut().extend(name.map(|name| (EXTENSION_NAME.to_owned(), name)));
    }
    field
}

/// What a column's metadata says of its type that formats of tables do not keep: how many digits of a second
/// it has, or that its texts are JSON.
pub fn beside_format(field: &Field) -> HashMap<String, String> {
    let json = json_type(field).is_some();
    let kept = |key: &str| key == PRECISION || json && key == EXTENSION_NAME;
    let metadata = field.metadata().iter().filter(|(key, _)| kept(key));
    metadata.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Bytes that PostgreSQL adds to every typmod of a variable-length type (`VARHDRSZ`).
const TYPMOD_HEADER: i32 = 4;

/// Precision and scale of a `numeric` parameter whose use does not say: 28 digits before the
/// point, ten behind it.
const PARAMETER_NUMERIC: DataType = DataType::Decimal128(38, 10);

/// The PostgreSQL type of a column.
///
/// Integers take the narrowest PostgreSQL type that holds them all (`UInt64` is `numeric`), a
/// dictionary or run-end encoded column its value's type, nested lists one array type whatever
/// their depth; maps, structs, unions and lists of those are `json`. The canonical extension types
/// `arrow.uuid` and `arrow.json` are `uuid` and `json`, and our own `oribi.jsonb` is `jsonb`.
///
/// A column of a system table may be more than its Arrow type says, such as `oid` or `name`.
pub fn pg_type(field: &Field) -> Type {
    if let Some(system) = pg_type_name(field).and_then(named_type) {
        return system;
    }
    match storage(field.data_type()) {
        data_type if is_json(data_type) => Type::JSON,
        data_type => match element(data_type) {
            Some(child) => array_of(&pg_type(child)),
            None => scalar_type(extension(field), data_type),
        },
    }
}

/// The types of system tables' columns that have no Arrow type of their own.
fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "oid" => Type::OID,
        "name" => Type::NAME,
        "char" => Type::CHAR,
        "xid" => Type::XID,
        "cid" => Type::CID,
        "regclass" => Type::REGCLASS,
        "regnamespace" => Type::REGNAMESPACE,
        "regproc" => Type::REGPROC,
        "regtype" => Type::REGTYPE,
        "regrole" => Type::REGROLE,
        "int2vector" => Type::INT2_VECTOR,
        "oidvector" => Type::OID_VECTOR,
        "_oid" => Type::OID_ARRAY,
        "_name" => Type::NAME_ARRAY,
        "_char" => Type::CHAR_ARRAY,
        _ => return None,
    })
}

/// A type's name in SQL, of its name in `pg_type`.
pub fn sql_name(name: &str) -> String {
    if let Some(element) = name.strip_prefix('_') {
        return sql_name(element) + "[]";
    }
    let name = match name {
        "bool" => "boolean",
        "bpchar" => "character",
        "char" => "\"char\"",
        "float4" => "real",
        "float8" => "double precision",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "time" => "time without time zone",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "varchar" => "character varying",
        name => name,
    };
    name.to_owned()
}

/// The type modifier of a column: precision and scale of a `numeric` as PostgreSQL 15 packs them
/// (`make_numeric_typmod`), the digits behind a second's point where they are fewer than there can be,
/// otherwise -1.
pub fn type_modifier(field: &Field) -> i32 {
    if let Some(digits) = precision(field) {
        return digits.into();
    }
    let data_type = storage(field.data_type());
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + TYPMOD_HEADER
        }
        _ if is_json(data_type) => -1,
        _ => element(data_type).map_or(-1, type_modifier),
    }
}

/// A column's type as it is written in SQL; `None` for what has no name there.
pub fn written_type(field: &Field) -> Option<String> {
    // With all its dimensions, which PostgreSQL's own types do not tell.
    if let Some(element) = element(storage(field.data_type())) {
        let digits = field.metadata().get(PRECISION).map(|digits| (PRECISION, digits));
        let mut element = element.clone();
        element.metadata_mut().extend(digits.map(|(key, digits)| (key.to_owned(), digits.clone())));
        return Some(written_type(&element)? + "[]");
    }
    let pg = pg_type(field);
    if let Some(digits) = precision(field) {
        return Some(format!("{}({digits})", pg.name()));
    }
    let modifier = type_modifier(field) - 4;
    match pg.name() {
        "json" | "record" if !is_text(field.data_type()) => None,
        "numeric" if modifier >= 0 => {
            Some(format!("numeric({}, {})", modifier >> 16 & 0xffff, modifier & 0x7ff))
        }
        name => Some(name.to_owned()),
    }
}

/// How many dimensions an array has; 0 for what is none.
pub fn dimensions(data_type: &DataType) -> usize {
    element(storage(data_type)).map_or(0, |element| 1 + dimensions(element.data_type()))
}

/// Bytes that a value of the type has (`pg_type.typlen`), -1 where that varies.
pub fn type_size(pg: &Type) -> i16 {
    match *pg {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::UUID | Type::INTERVAL => 16,
        Type::NAME => 64,
        _ => -1,
    }
}

/// The Arrow type of a parameter that the client declared as `pg`; `None` where the statement has
/// to say (`unknown`, or a type that has no counterpart here).
pub fn arrow_type(pg: &Type) -> Option<DataType> {
    if let Some(element) = element_type(pg) {
        let element = arrow_type(&element)?;
        return Some(DataType::List(Field::new_list_field(element, true).into()));
    }
    Some(match *pg {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::OID => DataType::UInt32,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::NUMERIC => PARAMETER_NUMERIC,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR => DataType::Utf8,
        Type::JSON | Type::JSONB => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::UUID => DataType::FixedSizeBinary(16),
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

/// The place of a parameter that the client declared as `pg`; `None` as for [`arrow_type`].
pub fn parameter(pg: &Type) -> Option<FieldRef> {
    if let Some(element) = element_type(pg) {
        let element = parameter(&element)?.as_ref().clone();
        let element = element.with_name(Field::LIST_FIELD_DEFAULT_NAME);
        let list = DataType::List(Arc::new(element));
        return Some(Arc::new(Field::new("parameter", list, true)));
    }
    let field = Field::new("parameter", arrow_type(pg)?, true);
    Some(Arc::new(match *pg {
        Type::UUID => extended(field, "arrow.uuid"),
        Type::JSON | Type::JSONB => of_json_type(field, pg),
        _ => field,
    }))
}

/// A column of a result, as a server describes it; what has no Arrow type is text.
pub fn column(name: &str, pg: &Type, modifier: i32) -> FieldRef {
    let Some(field) = parameter(pg) else {
        return Arc::new(Field::new(name, DataType::Utf8, true));
    };
    let field = field.as_ref().clone().with_name(name);
    let packed = modifier - TYPMOD_HEADER;
    if *pg != Type::NUMERIC || packed < 0 {
        return Arc::new(field);
    }
    // The scale has 11 bits, and a sign.
    let scale = ((packed & 0x7ff) << 21) >> 21;
    let kind = match (u8::try_from(packed >> 16), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision <= 38 => DataType::Decimal128(precision, scale),
        (Ok(precision), Ok(scale)) if precision <= 76 => DataType::Decimal256(precision, scale),
        _ => PARAMETER_NUMERIC,
    };
    Arc::new(field.with_data_type(kind))
}

/// The field as one of an extension type.
pub fn extended(field: Field, name: &str) -> Field {
    field.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), name.to_owned())]))
}

/// What an extension type's name adds to the storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    Uuid,
    Json,
    Jsonb,
}

/// The extension type of a field, if it is one that has a PostgreSQL type of its own.
pub(super) fn extension(field: &Field) -> Option<Extension> {
    let name = field.metadata().get(EXTENSION_NAME);
    match (name.map(String::as_str), storage(field.data_type())) {
        (Some("arrow.uuid"), DataType::FixedSizeBinary(16)) => Some(Extension::Uuid),
        (Some(JSON), text) if is_text(text) => Some(Extension::Json),
        (Some(JSONB), text) if is_text(text) => Some(Extension::Jsonb),
        (None, _) => match field.data_type() {
            DataType::RunEndEncoded(_, values) => extension(values),
            _ => None,
        },
        _ => None,
    }
}

/// The type of the values behind dictionary and run-end encoding.
pub(super) fn storage(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => storage(values),
        DataType::RunEndEncoded(_, values) => storage(values.data_type()),
        other => other,
    }
}

/// The field of a list's elements.
pub(super) fn element(data_type: &DataType) -> Option<&Field> {
    match data_type {
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::FixedSizeList(child, _)
        | DataType::ListView(child)
        | DataType::LargeListView(child) => Some(child),
        _ => None,
    }
}

/// Whether the type holds text, unencoded.
pub fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether values of the type are sent as `json`: objects, and lists that hold them at any depth.
pub fn is_json(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) | DataType::Struct(_) | DataType::Union(..) => true,
        other => element(other).is_some_and(|child| is_json(storage(child.data_type()))),
    }
}

fn scalar_type(extension: Option<Extension>, data_type: &DataType) -> Type {
    match (extension, data_type) {
        (Some(Extension::Uuid), _) => return Type::UUID,
        (Some(Extension::Json), _) => return Type::JSON,
        (Some(Extension::Jsonb), _) => return Type::JSONB,
        (None, _) => (),
    }
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 => Type::INT8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        _ => Type::TEXT,
    }
}

/// The array type over `element`; an array's own, for PostgreSQL's arrays have no depth.
fn array_of(element: &Type) -> Type {
    match *element {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::JSON => Type::JSON_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        Type::TEXT => Type::TEXT_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::NAME => Type::NAME_ARRAY,
        _ => element.clone(),
    }
}

/// The type of an array type's elements.
pub(super) fn element_type(pg: &Type) -> Option<Type> {
    match pg.kind() {
        postgres_types::Kind::Array(element) => Some(element.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(data_type: DataType) -> Field {
        Field::new("c", data_type, true)
    }

    fn named(data_type: DataType, extension: &str) -> Field {
        let metadata = HashMap::from([(EXTENSION_NAME.to_string(), extension.to_string())]);
        field(data_type).with_metadata(metadata)
    }

    fn list(child: Field) -> DataType {
        DataType::List(Arc::new(child))
    }

    #[test]
    fn every_storage_type_has_a_postgres_type() {
        let utc = Some(Arc::from("UTC"));
        let dictionary = |v| DataType::Dictionary(Box::new(DataType::Int8), Box::new(v));
        let run_ends = Arc::new(field(DataType::Int32));
        let runs = DataType::RunEndEncoded(run_ends, Arc::new(field(DataType::Date32)));
        let object = DataType::Struct(vec![field(DataType::Int8)].into());
        let cases = [
            (DataType::Null, Type::TEXT),
            (DataType::UInt8, Type::INT2),
            (DataType::UInt16, Type::INT4),
            (DataType::UInt32, Type::INT8),
            (DataType::UInt64, Type::NUMERIC),
            (DataType::Float16, Type::FLOAT4),
            (DataType::Utf8View, Type::TEXT),
            (DataType::FixedSizeBinary(16), Type::BYTEA),
            (DataType::Date64, Type::DATE),
            (DataType::Timestamp(TimeUnit::Second, None), Type::TIMESTAMP),
            (DataType::Timestamp(TimeUnit::Second, utc), Type::TIMESTAMPTZ),
            (DataType::Duration(TimeUnit::Second), Type::INTERVAL),
            (dictionary(DataType::Utf8), Type::TEXT),
            (runs, Type::DATE),
            (list(field(DataType::Int32)), Type::INT4_ARRAY),
            (list(field(list(field(dictionary(DataType::Utf8))))), Type::TEXT_ARRAY),
            (list(field(DataType::Null)), Type::TEXT_ARRAY),
            (object.clone(), Type::JSON),
            (list(field(list(field(object)))), Type::JSON),
            (list(named(DataType::FixedSizeBinary(16), "arrow.uuid")), Type::UUID_ARRAY),
        ];
        for (data_type, expected) in cases {
            assert_eq!(pg_type(&field(data_type.clone())), expected, "{data_type}");
        }
        assert_eq!(pg_type(&named(DataType::FixedSizeBinary(16), "arrow.uuid")), Type::UUID);
        assert_eq!(pg_type(&named(DataType::FixedSizeBinary(8), "arrow.uuid")), Type::BYTEA);
        assert_eq!(pg_type(&named(DataType::Utf8View, "arrow.json")), Type::JSON);
        assert_eq!(pg_type(&named(DataType::Utf8, "oribi.jsonb")), Type::JSONB);
        assert_eq!(pg_type(&field(list(named(DataType::Utf8, "oribi.jsonb")))), Type::JSONB_ARRAY);
    }

    /// Against `atttypmod` of `numeric(15,2)`, `numeric(5,-2)` and `numeric(76,38)[]`.
    #[test]
    fn typmods_are_packed_as_postgres_packs_them() {
        assert_eq!(type_modifier(&field(DataType::Decimal128(15, 2))), 983046);
        assert_eq!(type_modifier(&field(DataType::Decimal32(5, -2))), 329730);
        assert_eq!(type_modifier(&field(list(field(DataType::Decimal256(76, 38))))), 4980778);
        assert_eq!(type_modifier(&field(DataType::Utf8)), -1);
        assert_eq!(type_modifier(&field(DataType::UInt64)), -1);
    }

    #[test]
    fn digits_of_seconds_are_told_where_they_are_fewer_than_there_can_be() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let with = |kind: DataType, digits: &str| {
            field(kind).with_metadata(HashMap::from([(PRECISION.into(), digits.into())]))
        };
        let column = with(micros.clone(), "3");
        assert_eq!(type_modifier(&column), 3);
        assert_eq!(written_type(&column).as_deref(), Some("timestamp(3)"));
        let columns = with(list(field(micros.clone())), "0");
        assert_eq!(type_modifier(&columns), 0);
        assert_eq!(written_type(&columns).as_deref(), Some("timestamp(0)[]"));
        // All of them, and no seconds at all.
        for other in [with(micros, "6"), with(DataType::Date32, "0")] {
            assert_eq!(type_modifier(&other), -1);
        }
    }

    #[test]
    fn described_columns_have_the_types_they_came_from() {
        let kinds = [
            DataType::Decimal128(15, 2),
            DataType::Decimal128(5, -2),
            DataType::Decimal256(76, 38),
            DataType::Int64,
            DataType::Utf8,
        ];
        for kind in kinds {
            let field = field(kind);
            assert_eq!(*column("c", &pg_type(&field), type_modifier(&field)), field);
        }
    }

    #[test]
    fn parameter_types_come_back_as_the_same_postgres_type() {
        let scalars = [Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::FLOAT4, Type::NUMERIC];
        let others = [Type::TEXT, Type::BYTEA, Type::DATE, Type::TIME, Type::TIMESTAMPTZ];
        for pg in scalars.into_iter().chain(others) {
            let array = array_of(&pg);
            assert_eq!(pg_type(&field(arrow_type(&pg).unwrap())), pg);
            assert_eq!(pg_type(&field(arrow_type(&array).unwrap())), array);
        }
        assert_eq!(arrow_type(&Type::UNKNOWN), None);
        assert_eq!(arrow_type(&Type::POINT_ARRAY), None);
    }
}
