//! What the catalog's nodes hold: small JSON objects that people may read with zkCli.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::grants::Grants;
use super::joint::Joint;
use super::wide::{List, Wide};
use crate::id;
use crate::values::types::{beside_format, is_text, json_type};

/// A database, at `/catalog/<database>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    pub oid: u32,
    /// Which of its [lives](super::lives) it is, since it has its name; 0 is that of its first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub life: u32,
    pub owner: String,
    /// `None`: PostgreSQL's defaults, see [`super::access`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What sessions in it begin with (ALTER DATABASE ... SET).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The last writer's mark, by which it recognises its own write.
    pub nonce: Uuid,
}

/// A schema. `public` has a record only once something was granted on it or said about it.
pub type SchemaRecord = DatabaseRecord;

/// A table or view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    pub oid: u32,
    /// Which of its [lives](super::lives) it is, since it has its name; 0 is that of its first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub life: u32,
    pub owner: String,
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
    /// Which rows a role sees, by the policy's name; none are seen if no policy says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_security: Option<RowSecurity>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// All columns as queries see them, partition columns last.
    pub columns: Vec<Column>,
    #[serde(flatten)]
    pub definition: Definition,
    pub nonce: Uuid,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// The Arrow type in Arrow's own notation, such as `Int64` or `Decimal128(15, 2)`.
    #[serde(rename = "type", with = "arrow_type")]
    pub data_type: DataType,
    #[serde(default = "default_true", skip_serializing_if = "is_true")]
    pub nullable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What a row gets that is inserted without a value, as SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What was granted on this column alone.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
    /// Arrow field metadata, such as an extension type's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Definition {
    External(External),
    Managed(Managed),
    /// The SELECT statement's text, with all names resolved against this search path.
    View {
        sql: String,
        search_path: Vec<String>,
        /// Whether nothing of a reader's statement is looked at before the view's conditions are.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        security_barrier: bool,
    },
}

/// For whom a table's policies count. Superusers and roles with BYPASSRLS are above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowSecurity {
    /// All but the owner.
    Enabled,
    /// The owner as well.
    Forced,
}

/// A row-level policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Permissive ones add rows to what a role sees, restrictive ones take some away.
    pub permissive: bool,
    pub command: PolicyCommand,
    /// For whom it counts; [`super::PUBLIC_ROLE`] for all.
    pub roles: Vec<String>,
    /// A condition on the table's columns, as SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub using: Option<String>,
    /// A condition on new rows, as SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Where the conditions' names are looked up.
    pub search_path: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyCommand {
    All,
    Select,
    Insert,
    Update,
    Delete,
}

/// Files that somebody else writes and Oribi only reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct External {
    /// A URL: one file, or a directory (with a slash at its end).
    pub location: String,
    pub format: FileFormat,
    /// Names of the columns whose values stand in directory names, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_columns: Vec<String>,
    /// Options of the format, such as `format.delimiter`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// An Apache Iceberg table that Oribi writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// Iceberg's `table-uuid`: another table of the same name has another.
    pub uuid: Uuid,
    /// URL of the current metadata file: all that a commit changes.
    pub metadata: String,
    /// For a table that another writer has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// How many commits have been made of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub serial: u64,
    /// How new other tables must be at least for whoever knows this record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joint: Vec<Joint>,
    /// The latest commits over many tables that it was a part of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wide: Vec<Wide>,
    /// The other tables of some of these, whose lead it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<Wide, List>,
}

/// What a table was when it was taken over. None of what was there then is ever removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// URL of the metadata file.
    pub metadata: String,
    /// URL of the table's directory, as the metadata has it.
    pub location: String,
}

impl Managed {
    /// A table of which nothing has been committed yet.
    pub fn new(uuid: Uuid, metadata: String, adopted: Option<Adopted>) -> Self {
        let (joint, wide, lists) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { uuid, metadata, adopted, serial: 0, joint, wide, lists }
    }

    /// URL of the table's directory.
    pub fn location(&self) -> Option<&str> {
        match &self.adopted {
            Some(adopted) => Some(&adopted.location),
            // Where those lie that Oribi writes.
            None => self.metadata.rsplit_once("/metadata/").map(|(location, _)| location),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    Parquet,
    Csv,
    Json,
}

impl TableRecord {
    /// A new one, on which nothing is granted yet.
    pub fn new(oid: u32, owner: &str, columns: Vec<Column>, definition: Definition) -> Self {
        Self {
            oid,
            life: 0,
            owner: owner.to_owned(),
            grants: Grants::default(),
            row_security: None,
            policies: BTreeMap::new(),
            comment: None,
            columns,
            definition,
            nonce: id::nonce(),
        }
    }

    pub fn is_view(&self) -> bool {
        matches!(self.definition, Definition::View { .. })
    }

    pub fn schema(&self) -> SchemaRef {
        Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()).into()
    }
}

impl Column {
    pub fn field(&self) -> Field {
        let metadata = self.metadata.clone().into_iter().collect();
        Field::new(&self.name, self.data_type.clone(), self.nullable).with_metadata(metadata)
    }

    /// The same column as one that is declared so: with what its type is beside what formats of tables keep.
    #[must_use]
    pub fn declared_as(mut self, declared: &Field) -> Self {
        for key in beside_format(&self.field()).keys() {
            self.metadata.remove(key);
        }
        // What has another type by now is no JSON.
        if json_type(declared).is_none() || is_text(&self.data_type) {
            self.metadata.extend(beside_format(declared));
        }
        self
    }
}

impl From<&Field> for Column {
    fn from(field: &Field) -> Self {
        Self {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            comment: None,
            default: None,
            grants: Grants::default(),
            metadata: field.metadata().clone().into_iter().collect(),
        }
    }
}

fn default_true() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

pub(super) fn is_first(life: &u32) -> bool {
    *life == 0
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Arrow types as text: `Display` and `FromStr` of `DataType` are each other's inverse.
mod arrow_type {
    use arrow::datatypes::DataType;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Fields, TimeUnit};

    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let item = Arc::new(Field::new("item", DataType::Int32, true));
        let fields = Fields::from(vec![
            Field::new("a b", DataType::Utf8View, true),
            Field::new("c", DataType::List(item.clone()), false),
        ]);
        let entries = Field::new(
            "entries",
            DataType::Struct(
                vec![
                    Field::new("key", DataType::Utf8, false),
                    Field::new("value", DataType::Int64, true),
                ]
                .into(),
            ),
            false,
        );
        let types = [
            DataType::Decimal128(15, 2),
            DataType::Decimal256(76, -3),
            DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Vienna".into())),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            DataType::FixedSizeBinary(16),
            DataType::FixedSizeList(item.clone(), 3),
            DataType::LargeList(item),
            DataType::Struct(fields),
            DataType::Map(Arc::new(entries), false),
        ];
        let columns: Vec<Column> = types
            .into_iter()
            .enumerate()
            .map(|(n, data_type)| Column::from(&Field::new(format!("c{n}"), data_type, n % 2 == 0)))
            .collect();
        let record = TableRecord {
            oid: 16384,
            life: 0,
            owner: "oribi".into(),
            grants: Grants::default(),
            row_security: None,
            policies: BTreeMap::new(),
            comment: Some("x".into()),
            columns,
            definition: Definition::External(External {
                location: "file:///data/".into(),
                format: FileFormat::Parquet,
                partition_columns: vec![],
                options: BTreeMap::new(),
            }),
            nonce: Uuid::nil(),
        };
        let json = serde_json::to_string(&record).expect("serialises");
        assert!(json.contains(r#""kind":"external""#), "{json}");
        assert_eq!(serde_json::from_str::<TableRecord>(&json).expect("reads back"), record);
    }
}
