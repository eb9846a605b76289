//! Which column types a managed table stores, in Arrow's and in Iceberg's terms.
//!
//! A column wanted as one Arrow type is kept as the nearest one that Iceberg has ([`storable`]).
//! From there the way is the same in both directions: [`iceberg_schema`] and [`arrow_schema`].

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit,
};
use iceberg::spec::{
    LIST_FIELD_NAME, ListType, MAP_KEY_FIELD_NAME, MAP_VALUE_FIELD_NAME, MapType, NestedField,
    NestedFieldRef, PrimitiveType, Schema, StructType, Type,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use postgres_types::Type as PgType;

use crate::storage::{Error, Result};
use crate::values::types::{extended, pg_type};

const UUID_EXTENSION: &str = "arrow.uuid";

/// Name that Iceberg and Parquet give to a map's entries.
const MAP_ENTRIES_NAME: &str = "key_value";

/// Time zone of the columns that have one: Iceberg keeps moments, as PostgreSQL does.
const UTC: &str = "UTC";

/// Digits of the greatest `UInt64`.
const UINT64_PRECISION: u8 = 20;

/// The column that a managed table keeps for one wanted as `field`: of the narrowest type of
/// Iceberg that holds all of its values, times and timestamps to the microsecond. Dictionaries and
/// run-end encoding are left to Parquet; of extension types only `arrow.uuid` remains.
pub fn storable(field: &Field) -> Result<Field> {
    stored(field.name(), field)
}

/// `path` is the column's name with those of the nested fields.
fn stored(path: &str, field: &Field) -> Result<Field> {
    if pg_type(field) == PgType::UUID {
        return Ok(uuid(field.name(), field.is_nullable()));
    }
    let data_type = stored_type(path, field.data_type())?;
    Ok(Field::new(field.name(), data_type, field.is_nullable()))
}

fn uuid(name: &str, nullable: bool) -> Field {
    extended(Field::new(name, DataType::FixedSizeBinary(16), nullable), UUID_EXTENSION)
}

fn stored_type(path: &str, data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Boolean => DataType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            DataType::Int32
        }
        DataType::Int64 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(UINT64_PRECISION, 0),
        DataType::Float16 | DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            decimal(*precision, *scale).ok_or_else(|| refused(path, data_type))?
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::FixedSizeBinary(length) if *length > 0 => DataType::FixedSizeBinary(*length),
        DataType::Dictionary(_, values) => stored_type(path, values)?,
        DataType::RunEndEncoded(_, values) => stored_type(path, values.data_type())?,
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::FixedSizeList(element, _) => {
            DataType::List(Arc::new(renamed(path, element, LIST_FIELD_NAME)?))
        }
        // Parquet has no group without fields.
        DataType::Struct(fields) if !fields.is_empty() => {
            let stored = fields.iter().map(|field| stored(&below(path, field.name()), field));
            DataType::Struct(stored.collect::<Result<_>>()?)
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(refused(path, data_type));
            };
            let [key, value] = &fields[..] else { return Err(refused(path, data_type)) };
            let key = renamed(path, key, MAP_KEY_FIELD_NAME)?.with_nullable(false);
            map(key, renamed(path, value, MAP_VALUE_FIELD_NAME)?)
        }
        DataType::FixedSizeBinary(_)
        | DataType::Struct(_)
        | DataType::Null
        | DataType::Interval(_)
        | DataType::Duration(_)
        | DataType::Union(..) => return Err(refused(path, data_type)),
    })
}

/// A decimal with no fewer digits on either side of the point; Iceberg has at most 38, and no
/// negative scale.
fn decimal(precision: u8, scale: i8) -> Option<DataType> {
    let precision = i16::from(precision) - i16::from(scale.min(0));
    let precision = u8::try_from(precision).ok().filter(|p| *p <= DECIMAL128_MAX_PRECISION)?;
    Some(DataType::Decimal128(precision, scale.max(0)))
}

fn renamed(path: &str, field: &Field, name: &str) -> Result<Field> {
    Ok(stored(&below(path, name), field)?.with_name(name))
}

fn below(path: &str, name: &str) -> String {
    format!("{path}.{name}")
}

fn map(key: Field, value: Field) -> DataType {
    let entries = DataType::Struct(vec![key, value].into());
    DataType::Map(Arc::new(Field::new(MAP_ENTRIES_NAME, entries, false)), false)
}

fn refused(path: &str, data_type: &DataType) -> Error {
    let kind = match data_type {
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::Null => "unknown".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("numeric({precision},{scale})"),
        other => other.to_string(),
    };
    Error::NotStorable { column: path.to_owned(), kind }
}

/// The schema of a new table with these columns, each stored as [`storable`] says. Field ids count
/// from 1 in the order in which a table's metadata gives them out, so that they stay the same when
/// it is made.
pub fn iceberg_schema(fields: &Fields) -> Result<Schema> {
    let stored = fields.iter().map(|field| storable(field)).collect::<Result<_>>()?;
    let fields = Ids(0).fields(&stored)?;
    Schema::builder()
        .with_fields(fields)
        .build()
        .map_err(|error| Error::BadSchema(error.message().to_owned()))
}

/// The type of a column added to a table whose last field id is `last_id`: nested fields have the
/// ids after that of the column, which is `last_id + 1`.
pub fn iceberg_type(field: &Field, last_id: i32) -> Result<NestedFieldRef> {
    let stored = storable(field)?;
    let fields = Ids(last_id).fields(&vec![stored].into())?;
    fields.into_iter().next().ok_or_else(|| refused(field.name(), field.data_type()))
}

/// Gives out field ids; holds the last one.
struct Ids(i32);

impl Ids {
    fn next(&mut self) -> Result<i32> {
        let next = self.0.checked_add(1);
        self.0 = next.ok_or_else(|| Error::BadSchema("there are too many columns".to_owned()))?;
        Ok(self.0)
    }

    /// Fields of one level have the ids before those of their nested ones.
    fn fields(&mut self, fields: &Fields) -> Result<Vec<NestedFieldRef>> {
        let ids = fields.iter().map(|_| self.next()).collect::<Result<Vec<_>>>()?;
        fields.iter().zip(ids).map(|(field, id)| self.field(field, id)).collect()
    }

    fn field(&mut self, field: &Field, id: i32) -> Result<NestedFieldRef> {
        let kind = self.kind(field)?;
        Ok(Arc::new(NestedField::new(id, field.name(), kind, !field.is_nullable())))
    }

    /// The type of a field that is storable.
    fn kind(&mut self, field: &Field) -> Result<Type> {
        Ok(match field.data_type() {
            DataType::List(element) => {
                let id = self.next()?;
                Type::List(ListType::new(self.field(element, id)?))
            }
            DataType::Struct(fields) => Type::Struct(StructType::new(self.fields(fields)?)),
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(refused(field.name(), field.data_type()));
                };
                let [key, value] = &fields[..] else {
                    return Err(refused(field.name(), field.data_type()));
                };
                let id = self.next()?;
                let key = self.field(key, id)?;
                let id = self.next()?;
                Type::Map(MapType::new(key, self.field(value, id)?))
            }
            _ => Type::Primitive(primitive(field)?),
        })
    }
}

fn primitive(field: &Field) -> Result<PrimitiveType> {
    let refused = || refused(field.name(), field.data_type());
    Ok(match field.data_type() {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int32 => PrimitiveType::Int,
        DataType::Int64 => PrimitiveType::Long,
        DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal128(precision, scale) => PrimitiveType::Decimal {
            precision: u32::from(*precision),
            scale: u32::try_from(*scale).map_err(|_| refused())?,
        },
        DataType::Date32 => PrimitiveType::Date,
        DataType::Time64(TimeUnit::Microsecond) => PrimitiveType::Time,
        DataType::Timestamp(TimeUnit::Microsecond, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => PrimitiveType::Timestamptz,
        DataType::Utf8 => PrimitiveType::String,
        DataType::Binary => PrimitiveType::Binary,
        DataType::FixedSizeBinary(16) if pg_type(field) == PgType::UUID => PrimitiveType::Uuid,
        DataType::FixedSizeBinary(length) => {
            PrimitiveType::Fixed(u64::try_from(*length).map_err(|_| refused())?)
        }
        _ => return Err(refused()),
    })
}

/// The columns of a table as Arrow has them, each field with its id where the Parquet writer and
/// reader look for it.
pub fn arrow_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields = arrow_fields("", schema.as_struct())?;
    Ok(Arc::new(ArrowSchema::new(fields)))
}

fn arrow_fields(path: &str, fields: &StructType) -> Result<Fields> {
    let field = |field: &NestedFieldRef| match path {
        "" => arrow_field(&field.name, field),
        _ => arrow_field(&below(path, &field.name), field),
    };
    fields.fields().iter().map(field).collect()
}

pub(super) fn arrow_field(path: &str, field: &NestedField) -> Result<Field> {
    let nullable = !field.required;
    let nested = |field: &NestedField| arrow_field(&below(path, &field.name), field);
    let arrow = match field.field_type.as_ref() {
        Type::Primitive(PrimitiveType::Uuid) => uuid(&field.name, nullable),
        other => {
            let data_type = match other {
                Type::Primitive(primitive) => arrow_type(path, primitive)?,
                Type::Struct(fields) => DataType::Struct(arrow_fields(path, fields)?),
                Type::List(list) => {
                    let element = nested(&list.element_field)?;
                    DataType::List(Arc::new(element.with_name(LIST_FIELD_NAME)))
                }
                Type::Map(entry) => {
                    let key = nested(&entry.key_field)?.with_nullable(false);
                    let value = nested(&entry.value_field)?;
                    map(key.with_name(MAP_KEY_FIELD_NAME), value.with_name(MAP_VALUE_FIELD_NAME))
                }
            };
            Field::new(&field.name, data_type, nullable)
        }
    };
    let mut metadata: HashMap<String, String> = arrow.metadata().clone();
    metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), field.id.to_string());
    Ok(arrow.with_metadata(metadata))
}

fn arrow_type(path: &str, primitive: &PrimitiveType) -> Result<DataType> {
    let refused = |version: &str| Error::NotStorable {
        column: path.to_owned(),
        kind: format!("{primitive}{version}"),
    };
    Ok(match primitive {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => {
            let fits = scale <= precision && *precision <= u32::from(DECIMAL128_MAX_PRECISION);
            match (u8::try_from(*precision), i8::try_from(*scale)) {
                (Ok(precision), Ok(scale)) if fits => DataType::Decimal128(precision, scale),
                _ => return Err(refused("")),
            }
        }
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Uuid => DataType::FixedSizeBinary(16),
        PrimitiveType::Fixed(length) => match i32::try_from(*length) {
            Ok(length) if length > 0 => DataType::FixedSizeBinary(length),
            _ => return Err(refused("")),
        },
        PrimitiveType::Binary => DataType::Binary,
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            return Err(refused(" (of Iceberg's format version 3)"));
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{IntervalUnit, UnionFields, UnionMode};
    use iceberg::spec::{SortOrder, TableMetadataBuilder, UnboundPartitionSpec};

    use super::*;

    fn field(data_type: DataType) -> Field {
        Field::new("c", data_type, true)
    }

    fn item(data_type: DataType) -> Arc<Field> {
        Arc::new(Field::new("item", data_type, true))
    }

    fn stored_as(data_type: DataType) -> DataType {
        storable(&field(data_type)).unwrap().data_type().clone()
    }

    #[test]
    fn columns_are_kept_as_the_nearest_type() {
        let micros = TimeUnit::Microsecond;
        let utc = || Some(Arc::from("UTC"));
        let runs = Arc::new(Field::new("run_ends", DataType::Int32, false));
        let cases = [
            (DataType::UInt8, DataType::Int32),
            (DataType::UInt32, DataType::Int64),
            (DataType::UInt64, DataType::Decimal128(20, 0)),
            (DataType::Float16, DataType::Float32),
            (DataType::Decimal32(5, 2), DataType::Decimal128(5, 2)),
            (DataType::Decimal256(38, 10), DataType::Decimal128(38, 10)),
            (DataType::Decimal128(5, -2), DataType::Decimal128(7, 0)),
            (DataType::Date64, DataType::Date32),
            (DataType::Time32(TimeUnit::Second), DataType::Time64(micros)),
            (DataType::Timestamp(TimeUnit::Second, None), DataType::Timestamp(micros, None)),
            (
                DataType::Timestamp(TimeUnit::Nanosecond, Some("+02:00".into())),
                DataType::Timestamp(micros, utc()),
            ),
            (DataType::Utf8View, DataType::Utf8),
            (DataType::LargeBinary, DataType::Binary),
            (DataType::FixedSizeBinary(16), DataType::FixedSizeBinary(16)),
            (
                DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8)),
                DataType::Utf8,
            ),
            (DataType::RunEndEncoded(runs, item(DataType::Int16)), DataType::Int32),
            (
                DataType::FixedSizeList(item(DataType::Int8), 3),
                DataType::List(Arc::new(Field::new("element", DataType::Int32, true))),
            ),
        ];
        for (wanted, kept) in cases {
            assert_eq!(stored_as(wanted.clone()), kept, "{wanted}");
        }
    }

    #[test]
    fn of_extension_types_uuid_remains() {
        let uuid = extended(field(DataType::FixedSizeBinary(16)), "arrow.uuid");
        assert_eq!(storable(&uuid).unwrap(), uuid);
        let nested = field(DataType::List(Arc::new(uuid.clone())));
        let DataType::List(element) = storable(&nested).unwrap().data_type().clone() else {
            panic!("no list");
        };
        assert_eq!(*element, uuid.with_name("element"));
        let json = extended(field(DataType::Utf8View), "arrow.json");
        assert_eq!(storable(&json).unwrap(), field(DataType::Utf8));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name_and_type() {
        let union = DataType::Union(UnionFields::empty(), UnionMode::Dense);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let cases = [
            (interval.clone(), "column \"c\" has the type interval, which"),
            (DataType::Duration(TimeUnit::Second), "the type interval"),
            (DataType::Null, "the type unknown"),
            (union, "the type Union"),
            (DataType::Decimal256(39, 2), "the type numeric(39,2)"),
            (DataType::Decimal128(38, -1), "the type numeric(38,-1)"),
            (DataType::Struct(Fields::empty()), "the type Struct"),
            (DataType::List(item(interval)), "column \"c.element\" has the type interval"),
        ];
        for (data_type, said) in cases {
            let error = storable(&field(data_type)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// Fields of every type of version 2, nested ones too.
    fn everything() -> Vec<NestedFieldRef> {
        let primitives = [
            PrimitiveType::Boolean,
            PrimitiveType::Int,
            PrimitiveType::Long,
            PrimitiveType::Float,
            PrimitiveType::Double,
            PrimitiveType::Decimal { precision: 38, scale: 10 },
            PrimitiveType::Decimal { precision: 1, scale: 0 },
            PrimitiveType::Date,
            PrimitiveType::Time,
            PrimitiveType::Timestamp,
            PrimitiveType::Timestamptz,
            PrimitiveType::String,
            PrimitiveType::Uuid,
            PrimitiveType::Fixed(16),
            PrimitiveType::Fixed(3),
            PrimitiveType::Binary,
        ];
        let count = primitives.len() as i32;
        let mut fields: Vec<NestedFieldRef> = (primitives.into_iter().zip(1..))
            .map(|(kind, id)| {
                Arc::new(NestedField::new(id, format!("c{id}"), kind.into(), id % 2 == 0))
            })
            .collect();
        let first = count + 4;
        let uuid = Type::Primitive(PrimitiveType::Uuid);
        let text = Type::Primitive(PrimitiveType::String);
        let list = |id, kind| ListType::new(NestedField::list_element(id, kind, true).into());
        let inner = list(first + 1, uuid);
        let outer = list(first, Type::List(inner));
        let value = StructType::new(vec![
            NestedField::optional(first + 4, "a", text.clone()).into(),
            NestedField::required(first + 5, "b", Type::Primitive(PrimitiveType::Int)).into(),
        ]);
        let entry = MapType::new(
            NestedField::map_key_element(first + 2, text.clone()).into(),
            NestedField::map_value_element(first + 3, value.into(), false).into(),
        );
        let inside = StructType::new(vec![
            NestedField::optional(first + 6, "x", text.clone()).into(),
            NestedField::required(first + 7, "y", text).into(),
        ]);
        fields.push(NestedField::optional(count + 1, "list", outer.into()).into());
        fields.push(NestedField::required(count + 2, "map", entry.into()).into());
        fields.push(NestedField::optional(count + 3, "struct", inside.into()).into());
        fields
    }

    #[test]
    fn every_type_of_iceberg_comes_back() {
        let schema = Schema::builder().with_fields(everything()).build().unwrap();
        let arrow = arrow_schema(&schema).unwrap();
        let again = iceberg_schema(arrow.fields()).unwrap();
        assert_eq!(again.as_struct(), schema.as_struct());
        assert_eq!(arrow_schema(&again).unwrap(), arrow);
        for field in arrow.fields() {
            let kept = storable(field).unwrap();
            assert!(kept.data_type().equals_datatype(field.data_type()), "{field}");
        }
    }

    #[test]
    fn ids_stay_when_the_table_is_made() {
        let schema = Schema::builder().with_fields(everything()).build().unwrap();
        let fields = arrow_schema(&schema).unwrap();
        let schema = iceberg_schema(fields.fields()).unwrap();
        let made = TableMetadataBuilder::new(
            schema.clone(),
            UnboundPartitionSpec::builder().build(),
            SortOrder::unsorted_order(),
            "file:///t".to_owned(),
            iceberg::spec::FormatVersion::V2,
            HashMap::new(),
        );
        let made = made.unwrap().build().unwrap().metadata;
        assert_eq!(made.current_schema().as_struct(), schema.as_struct());
    }

    #[test]
    fn nested_fields_know_their_ids() {
        let schema = Schema::builder().with_fields(everything()).build().unwrap();
        let arrow = arrow_schema(&schema).unwrap();
        let DataType::Map(entries, false) = arrow.field_with_name("map").unwrap().data_type()
        else {
            panic!("no map");
        };
        assert_eq!(entries.name(), "key_value");
        let DataType::Struct(fields) = entries.data_type() else { panic!("no entries") };
        let names: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["key", "value"]);
        let ids: Vec<_> =
            fields.iter().map(|field| &field.metadata()["PARQUET:field_id"]).collect();
        assert_eq!(ids, ["22", "23"]);
    }

    #[test]
    fn an_added_column_has_the_next_ids() {
        let added = iceberg_type(&field(DataType::List(item(DataType::Utf8))), 7).unwrap();
        assert_eq!(added.id, 8);
        let Type::List(list) = added.field_type.as_ref() else { panic!("no list") };
        assert_eq!(list.element_field.id, 9);
    }

    #[test]
    fn later_versions_and_repeated_names_are_refused() {
        let later = NestedField::optional(1, "t", Type::Primitive(PrimitiveType::TimestampNs));
        let schema = Schema::builder().with_fields([later.into()]).build().unwrap();
        let error = arrow_schema(&schema).unwrap_err().to_string();
        assert!(error.contains("format version 3"), "{error}");
        let twice = vec![field(DataType::Utf8), field(DataType::Int8)].into();
        assert!(matches!(iceberg_schema(&twice), Err(Error::BadSchema(_))));
    }
}
