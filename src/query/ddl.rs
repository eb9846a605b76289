//! Statements that change the catalog: recognised from the parsed text, carried out on the store.

use std::collections::BTreeMap;

use arrow::datatypes::Field;
use datafusion::sql::parser::CreateExternalTable;
use sqlparser::ast::{
    AlterSchemaOperation, AlterTableOperation, ColumnDef, CommentObject, CreateTableOptions, Ident,
    ObjectName, ObjectType, Query, RenameTableNameKind, SchemaName, SqlOption, Statement, Value,
};

use super::life::Session;
use super::running::Registered;
use super::security::{self, Security};
use super::tables::{self, AlterTable, CreateTable};
use super::{Error, Notice, Result};
use crate::catalog::{
    self, Catalog, Column, Consistency, CreateMode, Definition, DropMode, FileFormat, ObjectKind,
    PUBLIC, RESERVED_SCHEMAS, TableName,
};
use crate::engine::parse;
use crate::engine::system::{NAME_MARK, shown_name};
use crate::storage::{self, Location};

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

    pub fn external(create: &CreateExternalTable) -> Result<Self> {
        let format = match create.file_type.to_ascii_uppercase().as_str() {
            "PARQUET" => FileFormat::Parquet,
            "CSV" => FileFormat::Csv,
            "JSON" | "NDJSON" => FileFormat::Json,
            other => {
                return Err(Error::Invalid(format!(
                    "the format {other} is not supported; use PARQUET, CSV or JSON"
                )));
            }
        };
        let [location] = create.locations.as_slice() else {
            return Err(Error::NotSupported("more than one LOCATION".to_owned()));
        };
        for (given, what) in [
            (create.temporary, "TEMPORARY"),
            (create.unbounded, "UNBOUNDED"),
            (!create.order_exprs.is_empty(), "WITH ORDER"),
            (!create.constraints.is_empty(), "a constraint on an external table"),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        Ok(Self::CreateExternal(Box::new(CreateExternal {
            name: create.name.clone(),
            columns: create.columns.clone(),
            format,
            location: location.clone(),
            partitions: create.table_partition_cols.iter().map(|name| unquoted(name)).collect(),
            options: (create.options.iter())
                .map(|(name, value)| (name.to_ascii_lowercase(), option_text(value)))
                .collect(),
            mode: mode(create.if_not_exists, create.or_replace),
        })))
    }

    /// Recognises a change of the catalog among standard statements.
    pub fn recognise(statement: &Statement) -> Result<Option<Self>> {
        Ok(Some(match statement {
            Statement::CreateDatabase { db_name, if_not_exists, .. } => {
                Self::CreateDatabase { name: single(db_name)?, mode: mode(*if_not_exists, false) }
            }
            Statement::CreateSchema { schema_name, if_not_exists, .. } => match schema_name {
                SchemaName::Simple(name) => {
                    let (name, mode) = (single(name)?, mode(*if_not_exists, false));
                    Self::CreateSchema { name, owner: None, mode }
                }
                SchemaName::NamedAuthorization(name, user) => {
                    let (name, mode) = (single(name)?, mode(*if_not_exists, false));
                    Self::CreateSchema { name, owner: Some(ident(user)), mode }
                }
                SchemaName::UnnamedAuthorization(user) => {
                    let (name, mode) = (ident(user), mode(*if_not_exists, false));
                    Self::CreateSchema { name: name.clone(), owner: Some(name), mode }
                }
            },
            Statement::CreateView(view) => {
                for (given, what) in [
                    (view.materialized, "CREATE MATERIALIZED VIEW"),
                    (view.temporary, "CREATE TEMPORARY VIEW"),
                ] {
                    if given {
                        return Err(Error::NotSupported(what.to_owned()));
                    }
                }
                Self::CreateView {
                    barrier: security_barrier(&view.options)?,
                    name: view.name.clone(),
                    columns: view.columns.iter().map(|column| column.name.clone()).collect(),
                    query: view.query.clone(),
                    mode: mode(view.if_not_exists, view.or_replace),
                }
            }
            Statement::Call(call) => tables::call(call)?,
            Statement::CreateTable(create) => {
                Self::CreateTable(Box::new(CreateTable::new(create)?))
            }
            Statement::Drop { object_type, if_exists, names, cascade, purge, .. } => {
                let mode = if *if_exists { DropMode::IfExists } else { DropMode::Fail };
                drop_object(*object_type, names, mode, (*cascade, *purge))?
            }
            Statement::AlterTable(alter) => match alter.operations.as_slice() {
                [AlterTableOperation::RenameTable { table_name }] => {
                    let (RenameTableNameKind::To(new) | RenameTableNameKind::As(new)) = table_name;
                    let mode = if alter.if_exists { DropMode::IfExists } else { DropMode::Fail };
                    let (name, new) = (alter.name.clone(), new.clone());
                    Self::RenameTable { name, new, view: false, mode }
                }
                steps => match AlterTable::new(&alter.name, alter.if_exists, steps) {
                    Some(alter) => Self::AlterTable(Box::new(alter)),
                    None => return Err(Error::NotSupported(format!("{statement}"))),
                },
            },
            Statement::AlterSchema(alter) => match alter.operations.as_slice() {
                [AlterSchemaOperation::Rename { .. }] => {
                    return Err(Error::NotSupported("ALTER SCHEMA RENAME".to_owned()));
                }
                _ => return Err(Error::NotSupported("ALTER SCHEMA".to_owned())),
            },
            Statement::Comment { object_type, object_name, comment, .. } => Self::Comment {
                on: *object_type,
                name: object_name.clone(),
                comment: comment.clone(),
            },
            _ => return Ok(None),
        }))
    }
}

/// A view's options, of which there is one. What is not understood is refused: a view that hides
/// less than it says is worse than none.
fn security_barrier(options: &CreateTableOptions) -> Result<bool> {
    let list = match options {
        CreateTableOptions::None => return Ok(false),
        CreateTableOptions::With(list) => list.as_slice(),
        _ => return Err(Error::NotSupported("this kind of options of a view".to_owned())),
    };
    let mut barrier = false;
    for option in list {
        let (name, value) = match option {
            SqlOption::Ident(name) => (ident(name), "true".to_owned()),
            SqlOption::KeyValue { key, value } => (ident(key), value.to_string()),
            other => return Err(Error::Invalid(format!("unrecognized parameter \"{other}\""))),
        };
        let value = value.trim_matches('\'').to_lowercase();
        match (name.as_str(), value.as_str()) {
            ("security_barrier", "true" | "on" | "yes" | "1") => barrier = true,
            ("security_barrier", "false" | "off" | "no" | "0") => barrier = false,
            ("security_invoker", "false" | "off" | "no" | "0") => {}
            ("security_invoker", _) => {
                let text = "security_invoker (a view reads with its owner's rights)";
                return Err(Error::NotSupported(text.to_owned()));
            }
            ("check_option", _) => {
                return Err(Error::NotSupported("check_option of a view".to_owned()));
            }
            _ => return Err(Error::Invalid(format!("unrecognized parameter \"{name}\""))),
        }
    }
    Ok(barrier)
}

fn drop_object(
    kind: ObjectType,
    names: &[ObjectName],
    mode: DropMode,
    (cascade, purge): (bool, bool),
) -> Result<Ddl> {
    Ok(match kind {
        ObjectType::Table => Ddl::DropTables { names: names.to_vec(), view: false, mode, purge },
        ObjectType::View => Ddl::DropTables { names: names.to_vec(), view: true, mode, purge },
        ObjectType::Schema => {
            let names = names.iter().map(single).collect::<Result<_>>()?;
            Ddl::DropSchema { names, mode, cascade }
        }
        ObjectType::Database => match names {
            [name] => Ddl::DropDatabase { name: single(name)?, mode },
            _ => return Err(Error::Invalid("DROP DATABASE takes one name".to_owned())),
        },
        other => return Err(Error::NotSupported(format!("DROP {other}"))),
    })
}

/// Recognises `ALTER {DATABASE | VIEW | SCHEMA} name RENAME TO name`, which the SQL parser does not
/// know.
pub(super) fn rename(text: &str) -> Result<Option<Ddl>> {
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    let [alter, kind, _] = words.as_slice() else { return Ok(None) };
    if !alter.eq_ignore_ascii_case("alter") {
        return Ok(None);
    }
    let view = kind.eq_ignore_ascii_case("view");
    if !view && !kind.eq_ignore_ascii_case("database") {
        return Ok(None);
    }
    // The same words after ALTER TABLE are known.
    let after = text.trim_start()[alter.len()..].trim_start();
    let as_table = format!("ALTER TABLE {}", after[kind.len()..].trim_start());
    let Ok(parsed) = parse(&as_table) else { return Ok(None) };
    let [parsed] = parsed.as_slice() else { return Ok(None) };
    let Some(Ddl::RenameTable { name, new, mode, .. }) =
        parsed.sql().map(Ddl::recognise).transpose()?.flatten()
    else {
        return Ok(None);
    };
    Ok(Some(match view {
        true => Ddl::RenameTable { name, new, view: true, mode },
        false => Ddl::RenameDatabase { name: single(&name)?, new: single(&new)? },
    }))
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
                return Ok((notices, rows.map(|rows| format!("SELECT {rows}"))));
            }
            Ddl::Adopt { name, metadata } => self.adopt(name, metadata).await?,
            Ddl::AlterTable(alter) => notices.extend(self.alter_columns(alter).await?),
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
        let created = catalog.create_table(&name, &user, columns, definition, create.mode).await?;
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
        if let Some(twice) = columns.iter().find(|column| column.name.contains(NAME_MARK)) {
            let (kind, name) = (ObjectKind::Column, shown_name(&twice.name).to_owned());
            return Err(catalog::Error::AlreadyExists { kind, name }.into());
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
        let definition =
            Definition::View { sql, search_path: self.search_path(), security_barrier };
        let (user, catalog) = (self.user().to_owned(), self.catalog().clone());
        let created = catalog.create_table(&name, &user, columns, definition, mode).await?;
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

    /// The full name of something to be made.
    pub(super) async fn target(&self, name: &ObjectName) -> Result<TableName> {
        let parts: Vec<String> = name.0.iter().map(part_name).collect();
        Ok(match parts.as_slice() {
            [table] => {
                // The first schema of the search path that holds users' tables.
                let snapshot = self.catalog().snapshot();
                let schemas = snapshot.databases.get(self.database()).map(|d| &d.schemas);
                let path = self.search_path();
                let schema = path
                    .iter()
                    .find(|name| schemas.is_some_and(|known| known.contains_key(*name)))
                    .map_or(PUBLIC, String::as_str);
                TableName::new(self.database(), schema, table)
            }
            [qualifier, table] => self.qualified(qualifier, table).await,
            [database, schema, table] => TableName::new(database, schema, table),
            _ => return Err(Error::Invalid(format!("improper qualified name: {name}"))),
        })
    }

    /// `qualifier.table`: in a schema of this database or, where that has none of this name, in the
    /// database of this name.
    async fn qualified(&self, qualifier: &str, table: &str) -> TableName {
        let snapshot = self.catalog().snapshot();
        let own = snapshot.databases.get(self.database());
        let is_schema = RESERVED_SCHEMAS.contains(&qualifier)
            || own.is_some_and(|database| database.schemas.contains_key(qualifier));
        match is_schema || self.catalog().database(qualifier).await.is_err() {
            true => TableName::new(self.database(), qualifier, table),
            false => TableName::new(qualifier, PUBLIC, table),
        }
    }

    /// The full name of something that is there; if it is not, the name under which it would be
    /// made.
    pub(super) async fn existing(&self, name: &ObjectName) -> Result<TableName> {
        let target = self.target(name).await?;
        if name.0.len() == 1 {
            for schema in self.search_path() {
                let name = TableName::new(&target.database, &schema, &target.table);
                if self.catalog().snapshot().table(&name).is_some() {
                    return Ok(name);
                }
            }
        }
        Ok(target)
    }
}

/// Reads a statement that the parser does not know, or not well enough.
pub(super) fn beyond_the_parser(text: &str) -> Result<Option<Ddl>> {
    if let Some(create) = tables::with_clauses(text)? {
        return Ok(Some(Ddl::CreateTable(Box::new(create))));
    }
    if let Some(security) = security::parse(text)? {
        return Ok(Some(Ddl::Security(Box::new(security))));
    }
    rename(text.trim().trim_end_matches(';'))
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

/// An identifier as PostgreSQL folds it.
pub(super) fn ident(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn part_name(part: &sqlparser::ast::ObjectNamePart) -> String {
    part.as_ident().map(ident).unwrap_or_else(|| part.to_string())
}

/// A name as messages show it, which have quotes of their own around it.
pub(super) fn shown(name: &ObjectName) -> String {
    name.0.iter().map(part_name).collect::<Vec<_>>().join(".")
}

pub(super) fn single(name: &ObjectName) -> Result<String> {
    match name.0.as_slice() {
        [part] => Ok(part_name(part)),
        _ => Err(Error::Invalid(format!("improper qualified name: {name}"))),
    }
}

/// A name that the parser has left in its quotes.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

fn option_text(value: &Value) -> String {
    match value {
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
        Value::EscapedStringLiteral(text) => text.clone(),
        other => other.to_string(),
    }
}
