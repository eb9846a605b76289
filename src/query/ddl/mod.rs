//! Statements that change the catalog, carried out on the store.
//!
//! - [`parse`]: which they are.
//! - [`names`]: what their names stand for.

mod names;
mod parse;

use std::collections::BTreeMap;

use arrow::datatypes::Field;
use sqlparser::ast::{ColumnDef, CommentObject, Ident, ObjectName, Query};

pub(super) use names::{ident, shown, single};
pub(super) use parse::beyond_the_parser;

use super::life::Session;
use super::running::Registered;
use super::security::Security;
use super::tables::{AlterTable, CreateTable};
use super::{Error, Notice, Result, instead};
use crate::catalog::{
    self, Catalog, Column, Consistency, CreateMode, Definition, DropMode, FileFormat, ObjectKind,
    TableName,
};
use crate::engine::system::{NAME_MARK, shown_name};
use crate::storage::{self, Location};
use crate::values::types::precision;
use names::part_name;

/// A change of the catalog.
#[derive(Clone, Debug)]
pub(super) enum Ddl {
    CreateDatabase {
        name: String,
        mode: CreateMode,
    },
    DropDatabase {
        name: String,
        mode: DropMode,
    },
    RenameDatabase {
        name: String,
        new: String,
    },
    CreateSchema {
        name: String,
        owner: Option<String>,
        mode: CreateMode,
    },
    DropSchema {
        names: Vec<String>,
        mode: DropMode,
        cascade: bool,
    },
    CreateExternal(Box<CreateExternal>),
    CreateTable(Box<CreateTable>),
    /// A table of another writer, by its metadata file.
    Adopt {
        name: ObjectName,
        metadata: String,
    },
    AlterTable(Box<AlterTable>),
    CreateView {
        name: ObjectName,
        columns: Vec<Ident>,
        query: Box<Query>,
        /// Whether the view's own conditions come before the reader's.
        barrier: bool,
        mode: CreateMode,
    },
    DropTables {
        names: Vec<ObjectName>,
        view: bool,
        mode: DropMode,
        /// The files of managed tables go as well.
        purge: bool,
    },
    RenameTable {
        name: ObjectName,
        new: ObjectName,
        view: bool,
        mode: DropMode,
    },
    Comment {
        on: CommentObject,
        name: ObjectName,
        comment: Option<String>,
    },
    Security(Box<Security>),
}

#[derive(Clone, Debug)]
pub(super) struct CreateExternal {
    name: ObjectName,
    columns: Vec<ColumnDef>,
    format: FileFormat,
    location: String,
    partitions: Vec<String>,
    options: BTreeMap<String, String>,
    mode: CreateMode,
}

impl CreateExternal {
    pub(super) fn name(&self) -> &ObjectName {
        &self.name
    }
}

impl Ddl {
    /// Whether it runs a query.
    pub fn is_work(&self) -> bool {
        matches!(self, Self::CreateTable(create) if create.has_query())
    }

    /// The command tag.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::CreateDatabase { .. } => "CREATE DATABASE",
            Self::DropDatabase { .. } => "DROP DATABASE",
            Self::RenameDatabase { .. } => "ALTER DATABASE",
            Self::CreateSchema { .. } => "CREATE SCHEMA",
            Self::DropSchema { .. } => "DROP SCHEMA",
            Self::CreateExternal(_) | Self::CreateTable(_) => "CREATE TABLE",
            Self::Adopt { .. } => "CALL",
            Self::AlterTable(_) => "ALTER TABLE",
            Self::CreateView { .. } => "CREATE VIEW",
            Self::DropTables { view: true, .. } => "DROP VIEW",
            Self::DropTables { .. } => "DROP TABLE",
            Self::RenameTable { view: true, .. } => "ALTER VIEW",
            Self::RenameTable { .. } => "ALTER TABLE",
            Self::Comment { .. } => "COMMENT",
            Self::Security(change) => change.tag(),
        }
    }
}

impl Session {
    /// Carries out a change of the catalog. Only what goes before the change itself can be stopped:
    /// what the client is told is what became of it. Returns what the client is told beside the result, and
    /// the tag if it is not the command's own.
    pub(super) async fn change(
        &mut self,
        registered: &Registered,
        ddl: &Ddl,
    ) -> Result<(Vec<Notice>, Option<String>)> {
        let catalog = self.catalog().clone();
        let (user, database) = (self.user().to_owned(), self.database().to_owned());
        let mut notices = Vec::new();
        match ddl {
            Ddl::Security(change) => notices = self.secure(change).await?,
            Ddl::CreateDatabase { name, mode } => {
                self.may_create_databases().await?;
                if !catalog.create_database(name, &user, *mode).await? {
                    notices.push(exists(ObjectKind::Database, name));
                }
            }
            Ddl::DropDatabase { name, .. } if *name == database => {
                return Err(Error::DatabaseInUse);
            }
            Ddl::DropDatabase { name, mode } => {
                self.must_own_database(name).await?;
                if !catalog.drop_database(name, *mode).await? {
                    notices.push(missing(ObjectKind::Database, name));
                }
            }
            Ddl::RenameDatabase { name, .. } if *name == database => {
                return Err(Error::Invalid("current database cannot be renamed".to_owned()));
            }
            Ddl::RenameDatabase { name, new } => {
                self.must_own_database(name).await?;
                self.may_create_databases().await?;
                catalog.rename_database(name, new).await?;
            }
            Ddl::CreateSchema { name, owner, mode } => {
                self.may_create_schemas().await?;
                if let Some(owner) = owner {
                    self.may_give_to(owner).await?;
                }
                let owner = owner.as_ref().unwrap_or(&user);
                if !catalog.create_schema(&database, name, owner, *mode).await? {
                    notices.push(exists(ObjectKind::Schema, name));
                }
            }
            Ddl::DropSchema { names, mode, cascade } => {
                // One that is missing leaves all of them as they are.
                if *mode == DropMode::Fail && names.len() > 1 {
                    let found = catalog.database(&database).await?;
                    if let Some(name) = names.iter().find(|n| !found.schemas.contains_key(*n)) {
                        let (kind, name) = (ObjectKind::Schema, name.clone());
                        return Err(catalog::Error::NotFound { kind, name }.into());
                    }
                }
                for name in names {
                    self.must_own_schema(name).await?;
                }
                for name in names {
                    if !catalog.drop_schema(&database, name, *mode, *cascade).await? {
                        notices.push(missing(ObjectKind::Schema, name));
                    }
                }
            }
            Ddl::CreateExternal(create) => {
                notices.extend(self.create_external(registered, create).await?);
            }
            Ddl::CreateTable(create) => {
                let (rows, notice) = self.create_table(registered, create).await?;
                notices.extend(notice);
                return Ok((notices, rows.map(super::tables::filled)));
            }
            Ddl::Adopt { name, metadata } => self.adopt(name, metadata).await?,
            Ddl::AlterTable(alter) => notices.extend(self.alter_columns(registered, alter).await?),
            Ddl::CreateView { name, columns, query, barrier, mode } => {
                notices.extend(self.create_view(name, columns, query, (*barrier, *mode)).await?);
            }
            Ddl::DropTables { names, view, mode, purge } => {
                let mut targets = Vec::new();
                for name in names {
                    let name = self.existing(name).await?;
                    // One that is missing leaves all of them as they are.
                    if *mode == DropMode::Fail && names.len() > 1 {
                        catalog.table(&name, Consistency::Strong).await?;
                    }
                    self.may_drop(&name).await?;
                    self.may_purge(&name, *purge).await?;
                    targets.push(name);
                }
                for name in targets {
                    match catalog.drop_table(&name, *view, *mode).await? {
                        Some(table) if *purge => notices.extend(self.purge(&table).await),
                        Some(_) => {}
                        None => {
                            let kind = if *view { ObjectKind::View } else { ObjectKind::Table };
                            notices.push(missing(kind, &name.table));
                        }
                    }
                }
            }
            Ddl::RenameTable { name, new, view, mode } => {
                let old = self.existing(name).await?;
                let new = match new.0.len() {
                    // Without a schema the table stays in its own, as in PostgreSQL.
                    1 => TableName::new(&old.database, &old.schema, single(new)?),
                    _ => self.target(new).await?,
                };
                self.must_own_table(&old).await?;
                self.may_create_in(&new).await?;
                match catalog.rename_table(&old, &new, *view).await {
                    Err(catalog::Error::NotFound { kind, name }) if *mode == DropMode::IfExists => {
                        notices.push(missing(kind, &name));
                    }
                    done => done?,
                }
            }
            Ddl::Comment { on, name, comment } => {
                self.comment(&catalog, *on, name, comment.clone()).await?;
            }
        }
        Ok((notices, None))
    }

    async fn create_external(
        &mut self,
        registered: &Registered,
        create: &CreateExternal,
    ) -> Result<Option<Notice>> {
        let name = self.target(&create.name).await?;
        self.may_create(&name, create.mode).await?;
        let location = Location::parse(&create.location).map_err(crate::engine::Error::from)?;
        self.may_use_location(&location).await?;
        let declared = self.engine_session().columns(create.columns.clone())?;
        if let Some(field) = declared.fields().iter().find(|field| precision(field).is_some()) {
            return Err(instead::of_digits(field.name()));
        }
        let is_partition = |field: &&Field| create.partitions.contains(field.name());
        let fields: Vec<Field> = (declared.fields().iter())
            .map(|field| field.as_ref())
            .filter(|field| !is_partition(field))
            .cloned()
            .collect();
        let partitions: Vec<_> = (create.partitions.iter())
            .map(|name| {
                let kind = declared.field_with_name(name).ok().map(|f| f.data_type().clone());
                (name.clone(), kind)
            })
            .collect();
        let definition = storage::Definition {
            location,
            format: create.format,
            columns: (!fields.is_empty()).then_some(fields),
            partitions: (!partitions.is_empty()).then_some(partitions),
            options: create.options.clone(),
        };
        let described = self.engine_session().describe_files(definition);
        let (columns, external) = registered.until_stopped(described).await??;
        let (user, catalog) = (self.user().to_owned(), self.catalog().clone());
        let definition = Definition::External(external);
        let created = catalog
            .create_table(&name, &user, columns, definition, create.mode, Vec::new())
            .await?;
        Ok((!created).then(|| exists(ObjectKind::Table, &name.table)))
    }

    async fn create_view(
        &mut self,
        name: &ObjectName,
        titles: &[Ident],
        query: &Query,
        (security_barrier, mode): (bool, CreateMode),
    ) -> Result<Option<Notice>> {
        let name = self.target(name).await?;
        self.may_create(&name, mode).await?;
        let mut sql = query.to_string();
        let plan = self.plan_text(&sql).await?;
        let mut columns: Vec<Column> =
            plan.schema.fields().iter().map(|field| Column::from(field.as_ref())).collect();
        if !plan.parameters.is_empty() {
            return Err(Error::Invalid("there is no parameter $1 in a view".to_owned()));
        }
        if titles.len() > columns.len() {
            let reason = "CREATE VIEW specifies more column names than columns".to_owned();
            return Err(Error::Invalid(reason));
        }
        if !titles.is_empty() {
            for (column, title) in columns.iter_mut().zip(titles) {
                column.name = ident(title);
            }
            let titles: Vec<String> =
                columns.iter().map(|c| format!("\"{}\"", c.name.replace('"', "\"\""))).collect();
            sql = format!("SELECT * FROM ({sql}) AS renamed ({})", titles.join(", "));
        }
        if let Some(twice) = columns.iter().find(|column| column.name.contains(NAME_MARK)) {
            let (kind, name) = (ObjectKind::Column, shown_name(&twice.name).to_owned());
            return Err(catalog::Error::AlreadyExists { kind, name }.into());
        }
        let definition =
            Definition::View { sql, search_path: self.search_path(), security_barrier };
        let (user, catalog) = (self.user().to_owned(), self.catalog().clone());
        let created =
            catalog.create_table(&name, &user, columns, definition, mode, Vec::new()).await?;
        Ok((!created).then(|| exists(ObjectKind::Table, &name.table)))
    }

    async fn comment(
        &self,
        catalog: &Catalog,
        on: CommentObject,
        name: &ObjectName,
        comment: Option<String>,
    ) -> Result<()> {
        match on {
            CommentObject::Database => {
                let name = single(name)?;
                self.must_own_database(&name).await?;
                let set = |record: &mut catalog::DatabaseRecord| {
                    record.comment = comment;
                    Ok(())
                };
                catalog.alter_database(&name, &[], set).await?;
            }
            CommentObject::Schema => {
                let name = single(name)?;
                self.must_own_schema(&name).await?;
                let set = |record: &mut catalog::DatabaseRecord| {
                    record.comment = comment;
                    Ok(())
                };
                catalog.alter_schema(self.database(), &name, &[], set).await?;
            }
            CommentObject::Table | CommentObject::View => {
                let name = self.existing(name).await?;
                self.must_own_table(&name).await?;
                let set = |record: &mut catalog::TableRecord| {
                    record.comment = comment;
                    Ok(())
                };
                catalog.alter_table(&name, &[], set).await?;
            }
            CommentObject::Column => {
                let mut parts = name.0.clone();
                let column = parts.pop().map(|part| part_name(&part)).unwrap_or_default();
                if parts.is_empty() {
                    return Err(Error::Invalid("column name must be qualified".to_owned()));
                }
                let name = self.existing(&ObjectName(parts)).await?;
                self.must_own_table(&name).await?;
                let set = |record: &mut catalog::TableRecord| {
                    let found = record.columns.iter_mut().find(|c| c.name == column);
                    let kind = ObjectKind::Column;
                    let missing = catalog::Error::NotFound { kind, name: column.clone() };
                    found.ok_or(missing)?.comment = comment;
                    Ok(())
                };
                catalog.alter_table(&name, &[], set).await?;
            }
            other => return Err(Error::NotSupported(format!("COMMENT ON {other}"))),
        }
        Ok(())
    }
}

pub(super) fn exists(kind: ObjectKind, name: &str) -> Notice {
    let code = match kind {
        ObjectKind::Database => "42P04",
        ObjectKind::Schema => "42P06",
        _ => "42P07",
    };
    Notice { code, message: format!("{kind} \"{name}\" already exists, skipping") }
}

pub(super) fn missing(kind: ObjectKind, name: &str) -> Notice {
    Notice { code: "00000", message: format!("{kind} \"{name}\" does not exist, skipping") }
}

pub(super) fn mode(if_not_exists: bool, or_replace: bool) -> CreateMode {
    match (if_not_exists, or_replace) {
        (_, true) => CreateMode::Replace,
        (true, false) => CreateMode::IfNotExists,
        (false, false) => CreateMode::Fail,
    }
}
