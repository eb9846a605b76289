//! The schema of data files.

use std::sync::Arc;

use iceberg::spec::{PrimitiveType, Schema, Type as IcebergType};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::LogicalType;
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::storage::{Error, Result};

/// As the Parquet writer derives it from the Arrow schema, with UUIDs marked as such: their Arrow
/// type does not tell them from other bytes.
pub(super) fn parquet_schema(
    schema: &Schema,
    arrow: &arrow::datatypes::Schema,
) -> Result<SchemaDescriptor> {
    let derived = ArrowSchemaConverter::new().schema_root("table").convert(arrow);
    let marked = derived.and_then(|derived| marked(schema, &derived.root_schema_ptr()));
    let root = marked.map_err(|error| Error::BadSchema(error.to_string()))?;
    Ok(SchemaDescriptor::new(root))
}

fn marked(schema: &Schema, parquet: &TypePtr) -> parquet::errors::Result<TypePtr> {
    let info = parquet.get_basic_info();
    let id = info.has_id().then(|| info.id());
    match parquet.as_ref() {
        Type::GroupType { fields, .. } => {
            let fields = fields.iter().map(|field| marked(schema, field));
            let group = Type::group_type_builder(info.name())
                .with_logical_type(info.logical_type_ref().cloned())
                .with_converted_type(info.converted_type())
                .with_fields(fields.collect::<parquet::errors::Result<_>>()?)
                .with_id(id);
            let group = match info.has_repetition() {
                true => group.with_repetition(info.repetition()),
                false => group,
            };
            Ok(Arc::new(group.build()?))
        }
        Type::PrimitiveType { physical_type, .. } => {
            let field = id.and_then(|id| schema.field_by_id(id));
            let uuid = IcebergType::Primitive(PrimitiveType::Uuid);
            if field.is_none_or(|field| *field.field_type != uuid) {
                return Ok(parquet.clone());
            }
            let column = Type::primitive_type_builder(info.name(), *physical_type)
                .with_logical_type(Some(LogicalType::Uuid))
                .with_length(16)
                .with_repetition(info.repetition())
                .with_id(id)
                .build()?;
            Ok(Arc::new(column))
        }
    }
}
