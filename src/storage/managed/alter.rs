//! Changes of a table's columns and properties, as the specification's schema evolution has them:
//! columns are known by their field ids, so old files read right whatever their columns are called
//! by now.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::Field;
use iceberg::spec::{
    NestedField, NestedFieldRef, PrimitiveType, Schema, TableMetadata, TableMetadataBuilder,
    Transform, Type,
};

use super::properties::WriteProperties;
use super::types;
use crate::storage::{Error, Result};
use crate::values::types::{pg_type, sql_name};

/// One step of ALTER TABLE.
#[derive(Clone, Debug, PartialEq)]
pub enum Alteration {
    /// At the end; rows that are there have NULL in it.
    AddColumn {
        field: Field,
        if_not_exists: bool,
    },
    DropColumn {
        name: String,
        if_exists: bool,
    },
    RenameColumn {
        name: String,
        new: String,
    },
    /// To a wider type.
    SetType {
        name: String,
        field: Field,
    },
    DropNotNull {
        name: String,
    },
    /// SQL of what the column has in new rows that do not name it. Only the catalog keeps it.
    SetDefault {
        name: String,
        default: Option<String>,
    },
    SetProperties(HashMap<String, String>),
    ResetProperties(Vec<String>),
}

/// Applies all steps or none.
pub(super) fn apply(
    alterations: &[Alteration],
    current: &TableMetadata,
    mut builder: TableMetadataBuilder,
) -> Result<TableMetadataBuilder> {
    let mut columns = Columns {
        fields: current.current_schema().as_struct().fields().to_vec(),
        last_id: current.last_column_id(),
    };
    for alteration in alterations {
        builder = match alteration {
            Alteration::SetProperties(properties) => {
                WriteProperties::parse(properties)?;
                builder.set_properties(properties.clone()).map_err(refused)?
            }
            Alteration::ResetProperties(names) => {
                builder.remove_properties(names).map_err(refused)?
            }
            step => {
                columns.alter(step, current)?;
                builder
            }
        };
    }
    if columns.fields == current.current_schema().as_struct().fields() {
        return Ok(builder);
    }
    if columns.fields.is_empty() {
        return Err(Error::BadAlteration { reason: "a table needs a column".to_owned() });
    }
    let schema = Schema::builder()
        .with_fields(columns.fields)
        .with_identifier_field_ids(current.current_schema().identifier_field_ids())
        .build()
        .map_err(refused)?;
    builder.add_current_schema(schema).map_err(refused)
}

struct Columns {
    fields: Vec<NestedFieldRef>,
    last_id: i32,
}

impl Columns {
    fn alter(&mut self, alteration: &Alteration, current: &TableMetadata) -> Result<()> {
        match alteration {
            Alteration::AddColumn { field, if_not_exists } => {
                match (self.find(field.name()), if_not_exists) {
                    (Some(_), true) => return Ok(()),
                    (Some(_), false) => return Err(exists(field.name())),
                    (None, _) => {}
                }
                self.refuse_partition_name(current, field.name(), None)?;
                let added = types::iceberg_type(field, self.last_id)?;
                if added.required {
                    let name = field.name();
                    return Err(Error::BadAlteration {
                        reason: format!(
                            "column \"{name}\" cannot be added with NOT NULL: rows that are there \
                             have no value for it"
                        ),
                    });
                }
                self.fields.push(added);
                let all = Schema::builder().with_fields(self.fields.clone()).build();
                self.last_id = self.last_id.max(all.map_err(refused)?.highest_field_id());
            }
            Alteration::DropColumn { name, if_exists } => match (self.find(name), if_exists) {
                (None, true) => {}
                (None, false) => return Err(missing(name)),
                (Some(at), _) => {
                    let id = self.fields[at].id;
                    refuse_partition_column(current, name, id)?;
                    self.fields.remove(at);
                }
            },
            Alteration::RenameColumn { name, new } => {
                let at = self.find(name).ok_or_else(|| missing(name))?;
                if self.find(new).is_some() {
                    return Err(exists(new));
                }
                self.refuse_partition_name(current, new, Some(self.fields[at].id))?;
                self.change(at, |field| field.name = new.clone());
            }
            Alteration::SetType { name, field } => {
                let at = self.find(name).ok_or_else(|| missing(name))?;
                let wanted = types::iceberg_type(field, self.last_id)?.field_type.clone();
                if !widens(&self.fields[at].field_type, &wanted) {
                    let wanted = sql_name(pg_type(field).name());
                    return Err(Error::BadAlteration {
                        reason: format!(
                            "column \"{name}\" can only be widened (integer to bigint, real to \
                             double precision, numeric to more digits), not changed to {wanted}"
                        ),
                    });
                }
                if self.fields[at].field_type != wanted {
                    refuse_partition_column(current, name, self.fields[at].id)?;
                }
                self.change(at, |field| *field.field_type = *wanted);
            }
            Alteration::DropNotNull { name } => {
                let at = self.find(name).ok_or_else(|| missing(name))?;
                self.change(at, |field| field.required = false);
            }
            Alteration::SetDefault { .. }
            | Alteration::SetProperties(_)
            | Alteration::ResetProperties(_) => {}
        }
        Ok(())
    }

    /// The name of a partition field is one among those of the columns, and stays when the column
    /// that it is made from gets another one: only that column may have it.
    fn refuse_partition_name(
        &self,
        current: &TableMetadata,
        name: &str,
        id: Option<i32>,
    ) -> Result<()> {
        let mut fields = current.partition_specs_iter().flat_map(|spec| spec.fields());
        let taken = fields.find(|field| {
            let own = Some(field.source_id) == id && field.transform == Transform::Identity;
            field.name == name && !own
        });
        let Some(taken) = taken else { return Ok(()) };
        let source = self.fields.iter().find(|field| field.id == taken.source_id);
        let source = source.map_or("", |field| field.name.as_str());
        Err(Error::BadAlteration {
            reason: format!(
                "no column can be called \"{name}\": the table is partitioned under that name, by \
                 column \"{source}\""
            ),
        })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut NestedField)) {
        let mut field = self.fields[at].as_ref().clone();
        change(&mut field);
        self.fields[at] = Arc::new(field);
    }
}

/// Whether old files can be read as the new type (the specification's type promotion).
fn widens(from: &Type, to: &Type) -> bool {
    let (Type::Primitive(old), Type::Primitive(new)) = (from, to) else { return from == to };
    match (old, new) {
        (PrimitiveType::Int, PrimitiveType::Long)
        | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision, scale },
            PrimitiveType::Decimal { precision: wider, scale: same },
        ) => scale == same && wider >= precision,
        (old, new) => old == new,
    }
}

/// A column that some partition specification is made from stays.
fn refuse_partition_column(current: &TableMetadata, name: &str, id: i32) -> Result<()> {
    let used = current.partition_specs_iter().any(|spec| {
        let of = |field: &iceberg::spec::PartitionField| {
            field.source_id == id && field.transform != Transform::Void
        };
        spec.fields().iter().any(of)
    });
    match used {
        false => Ok(()),
        true => Err(Error::BadAlteration {
            reason: format!("column \"{name}\" is one that the table is partitioned by"),
        }),
    }
}

fn missing(name: &str) -> Error {
    Error::NoColumn { name: name.to_owned(), table: None }
}

fn exists(name: &str) -> Error {
    Error::ColumnExists { name: name.to_owned(), table: None }
}

fn refused(error: iceberg::Error) -> Error {
    Error::BadAlteration { reason: error.message().to_owned() }
}
