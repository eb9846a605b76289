//! Managed tables: made, with or without rows, changed and dropped.

mod adopt;
mod parse;

use std::collections::HashMap;

use arrow::datatypes::Field;
use datafusion::sql::parser::Statement as EngineStatement;
use futures::future::BoxFuture;
use sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, ColumnDef, ColumnOption, CreateTable as SqlCreate,
    CreateTableLikeKind, CreateTableOptions, Expr, Ident, ObjectName, Query, SqlOption, Statement,
    Value,
};
use sqlparser::tokenizer::Token;
use tracing::debug;

pub(super) use adopt::call;
pub(super) use parse::with_clauses;

use super::ddl::{exists, ident, mode, shown};
use super::life::Session;
use super::running::Registered;
use super::{Error, Notice, Result, instead};
use crate::catalog::{
    self, Column, Consistency, CreateMode, Definition, Managed, ObjectKind, Table, TableName,
};
use crate::engine::{self, Addition, Target};
use crate::faults;
use crate::storage::managed::{
    self, Alteration, Change, Commit, NewTable, Partitioning, SortColumn, columns_of,
};
use crate::storage::{self, Location};
use crate::values::types::{json_type, pg_type, precision};

/// Tables of the warehouse of which one must be there before another is made: of a single one the files
/// may be lost.
const TABLES_LOOKED_FOR: usize = 8;

/// CREATE TABLE without EXTERNAL.
#[derive(Clone, Debug)]
pub(super) struct CreateTable {
    pub name: ObjectName,
    columns: Vec<ColumnDef>,
    like: Option<ObjectName>,
    query: Option<Box<Query>>,
    partitioning: Vec<Partitioning>,
    sort: Vec<SortColumn>,
    properties: HashMap<String, String>,
    location: Option<String>,
    mode: CreateMode,
}

impl CreateTable {
    pub(super) fn has_query(&self) -> bool {
        self.query.is_some()
    }
}

/// A new table, written but in no catalog yet.
struct Made {
    columns: Vec<Column>,
    definition: Managed,
    /// Of the query that it is made from.
    rows: Option<u64>,
}

/// ALTER TABLE's changes of columns and properties.
#[derive(Clone, Debug)]
pub(super) struct AlterTable {
    pub name: ObjectName,
    if_exists: bool,
    steps: Vec<AlterTableOperation>,
}

impl CreateTable {
    pub fn new(create: &SqlCreate) -> Result<Self> {
        let like = match &create.like {
            None => None,
            Some(CreateTableLikeKind::Plain(like) | CreateTableLikeKind::Parenthesized(like)) => {
                Some(like.name.clone())
            }
        };
        if create.temporary {
            return Err(instead::of_temporary("CREATE TEMPORARY TABLE"));
        }
        if let Some(constraint) = create.constraints.first() {
            return Err(instead::of_table(constraint));
        }
        for (given, what) in [
            (create.inherits.is_some(), "INHERITS"),
            (create.partition_of.is_some(), "PARTITION OF"),
            (create.partition_by.is_some(), "PARTITION BY (use PARTITIONED BY)"),
            (create.on_commit.is_some(), "ON COMMIT"),
            (create.clone.is_some(), "CLONE"),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        let mut properties = options(&create.table_options)?;
        let clause = create.hive_formats.as_ref().and_then(|formats| formats.location.clone());
        Ok(Self {
            name: create.name.clone(),
            columns: create.columns.clone(),
            like,
            query: create.query.clone(),
            partitioning: Vec::new(),
            sort: Vec::new(),
            location: clause.or(properties.remove("location")),
            properties,
            mode: mode(create.if_not_exists, create.or_replace),
        })
    }
}

impl AlterTable {
    /// `None` if it is about something else.
    pub fn new(name: &ObjectName, if_exists: bool, steps: &[AlterTableOperation]) -> Option<Self> {
        use AlterTableOperation as Op;
        let known = |step: &Op| {
            matches!(
                step,
                Op::AddColumn { .. }
                    | Op::DropColumn { .. }
                    | Op::RenameColumn { .. }
                    | Op::AlterColumn { .. }
                    | Op::SetTblProperties { .. }
                    | Op::SetOptionsParens { .. }
            )
        };
        let steps = steps.to_vec();
        steps.iter().all(known).then(|| Self { name: name.clone(), if_exists, steps })
    }
}

/// The command tag of CREATE TABLE AS.
pub(super) fn filled(rows: u64) -> String {
    format!("SELECT {rows}")
}

impl Session {
    /// Returns how many rows the table has from the start, if it was made from a query.
    pub(super) fn create_table<'a>(
        &'a mut self,
        registered: &'a Registered,
        create: &'a CreateTable,
    ) -> BoxFuture<'a, Result<(Option<u64>, Option<Notice>)>> {
        Box::pin(self.create(registered, create))
    }

    async fn create(
        &mut self,
        registered: &Registered,
        create: &CreateTable,
    ) -> Result<(Option<u64>, Option<Notice>)> {
        let name = self.target(&create.name).await?;
        self.may_create(&name, create.mode).await?;
        let known = self.catalog().table(&name, Consistency::Strong).await;
        match (known, create.mode) {
            (Ok(_), CreateMode::IfNotExists) => {
                return Ok((None, Some(exists(ObjectKind::Table, &name.table))));
            }
            (Ok(_), CreateMode::Fail) => {
                let (kind, name) = (ObjectKind::Table, shown(&create.name));
                return Err(catalog::Error::AlreadyExists { kind, name }.into());
            }
            _ => {}
        }
        let plan = match &create.query {
            Some(query) => Some(self.plan_first_rows(&query.to_string()).await?),
            None => None,
        };
        let mut columns = self.declared(create).await?;
        if let Some(plan) = &plan {
            if !plan.parameters.is_empty() {
                return Err(engine::Error::NoParameter(1).into());
            }
            columns = from_query(&plan.schema, &create.columns)?;
        }
        let location = self.new_location(create, &name).await?;
        let made = registered.until_stopped(self.make(create, &name, &columns, &location)).await;
        let (user, catalog) = (self.user().to_owned(), self.catalog().clone());
        let created = match made.and_then(|made| made) {
            Ok(Made { columns, definition, rows }) => {
                let definition = Definition::Managed(definition);
                let with = match (&self.ending, rows) {
                    (Some(ending), Some(rows)) => ending.ops(&filled(rows))?,
                    _ => Vec::new(),
                };
                faults::point("a new table is to be named");
                let mode = create.mode;
                let created = catalog.create_table(&name, &user, columns, definition, mode, with);
                let created = created.await;
                faults::point("a new table is named");
                created.map(|created| (created, rows)).map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        let refused = match &created {
            Ok((created, _)) => !created,
            Err(error) => !matches!(error, Error::Catalog(catalog::Error::Unknown(_))),
        };
        if refused
            && let Err(error) = self.queries().commits.files().remove_directory(&location).await
        {
            debug!(%location, %error, "files of a table that was not made stay for a while");
        }
        let (created, rows) = created?;
        if let (true, Some(_), Some(ending)) = (created, rows, &self.ending) {
            ending.note_landed();
        }
        Ok((rows, (!created).then(|| exists(ObjectKind::Table, &name.table))))
    }

    /// Writes a new table's files, which nothing names yet.
    async fn make(
        &self,
        create: &CreateTable,
        name: &TableName,
        columns: &[Column],
        location: &str,
    ) -> Result<Made> {
        let new = NewTable {
            fields: columns.iter().map(Column::field).collect(),
            partitioning: create.partitioning.clone(),
            sort: create.sort.clone(),
            properties: create.properties.clone(),
            cluster: self.queries().membership.cluster(),
        };
        let files = self.queries().commits.files();
        let (metadata_url, metadata) = managed::create(files, location, new).await?;
        let mut now = columns_of(&metadata, &[])?;
        for (now, declared) in now.iter_mut().zip(columns) {
            now.default.clone_from(&declared.default);
            now.comment.clone_from(&declared.comment);
            *now = now.clone().declared_as(&declared.field());
        }
        let definition = Managed::new(metadata.uuid(), metadata_url, None);
        let mut made = Made { columns: now, definition, rows: None };
        if let Some(query) = &create.query {
            self.fill(name, query, &mut made).await?;
        }
        Ok(made)
    }

    /// Writes a query's rows into a new table.
    async fn fill(&self, name: &TableName, query: &Query, made: &mut Made) -> Result<()> {
        let files = self.queries().commits.files();
        let table = unnamed(name, &made.columns, &made.definition);
        let target = self.engine_session().target(table.into()).await?;
        let query = EngineStatement::Statement(Box::new(Statement::Query(query.clone().into())));
        let addition = Addition { columns: &[], source: &query, fixed: &[], returning: None };
        let plan = self.engine_session().plan_insert(&target, addition, &[]).await?;
        let ready = self.engine_session().prepare(&plan, Vec::new()).await?;
        let written = self.engine_session().insert(&target, ready).await?;
        made.rows = Some(written.rows);
        let Some(change) = written.change else { return Ok(()) };
        let Commit { changes, .. } = self.queries().commits.settled(target.commit(change)).await?;
        let state = (name.table.as_str(), made.definition.metadata.as_str());
        let staged = managed::stage(files, state, &changes, None).await?;
        let added = changes.iter().flat_map(Change::added);
        let added = added.map(|file| file.file_path().to_owned());
        files.flush(added.chain(staged.written).collect()).await?;
        made.definition.metadata = staged.metadata_url;
        Ok(())
    }

    /// Columns as CREATE TABLE writes them, or those of the table that it names as a model.
    async fn declared(&self, create: &CreateTable) -> Result<Vec<Column>> {
        if create.query.is_some() {
            return Ok(Vec::new());
        }
        let mut columns = Vec::new();
        if let Some(like) = &create.like {
            // Whoever may not read it is not told of its columns.
            let read = engine::parse_one(&format!("SELECT 1 FROM {like}"))?;
            self.engine_session().plan(&read.statement, &[]).await?;
            let model = self.existing(like).await?;
            let model = self.catalog().table(&model, Consistency::Cached).await?;
            columns.extend(model.record.columns.iter().map(|column| Column {
                grants: catalog::Grants::default(),
                metadata: without_ids(column),
                ..column.clone()
            }));
        }
        columns.extend(self.columns(&create.columns).await?);
        if columns.is_empty() {
            let reason = "a table needs at least one column".to_owned();
            return Err(storage::Error::BadTable { reason }.into());
        }
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].iter().any(|other| other.name == column.name) {
                let (kind, name) = (ObjectKind::Column, column.name.clone());
                return Err(Error::Twice { kind, name });
            }
        }
        Ok(columns)
    }

    /// Column definitions with their defaults.
    async fn columns(&self, definitions: &[ColumnDef]) -> Result<Vec<Column>> {
        let mut columns = Vec::new();
        for definition in definitions {
            instead::refuse_serial(&definition.data_type)?;
            let mut plain = definition.clone();
            let (mut nullable, mut default, mut comment) = (true, None, None);
            for option in std::mem::take(&mut plain.options) {
                match option.option {
                    ColumnOption::Null => {}
                    ColumnOption::NotNull => nullable = false,
                    ColumnOption::Default(value) => default = Some(value),
                    ColumnOption::Comment(text) => comment = Some(text),
                    other => return Err(instead::of_column(&other)),
                }
            }
            let schema = self.engine_session().columns(vec![plain])?;
            let Some(field) = schema.fields().first() else { continue };
            let field = field.as_ref().clone().with_nullable(nullable);
            let default = match default {
                Some(value) => self.checked_default(&value, definition).await?,
                None => None,
            };
            columns.push(Column { default, comment, ..Column::from(&field) });
        }
        Ok(columns)
    }

    /// A default as it is kept: an expression of the column's type that stands by itself.
    async fn checked_default(
        &self,
        value: &Expr,
        definition: &ColumnDef,
    ) -> Result<Option<String>> {
        if matches!(value, Expr::Value(value) if value.value == Value::Null) {
            return Ok(None);
        }
        let sql = format!("CAST({value} AS {})", definition.data_type);
        let parsed = engine::parse_one(&format!("SELECT {sql}"))?;
        self.engine_session().plan(&parsed.statement, &[]).await?;
        Ok(Some(value.to_string()))
    }

    /// Where a new table's files go.
    async fn new_location(&self, create: &CreateTable, name: &TableName) -> Result<String> {
        if let Some(location) = &create.location {
            let location = Location::parse(location).map_err(engine::Error::from)?;
            self.may_use_location(&location).await?;
            // In a directory of its own: what else lies there is not the table's to remove.
            return Ok(managed::table_location(&location.as_written(), name));
        }
        let warehouse = self.queries().warehouse.as_ref().ok_or(storage::Error::NoWarehouse)?;
        let place = Location::parse(warehouse).map_err(engine::Error::from)?;
        self.roots().check(&place).map_err(engine::Error::from)?;
        self.warehouse_is_there(warehouse).await?;
        Ok(managed::table_location(warehouse, name))
    }

    /// A warehouse that has none of the tables that are in it is not the one: see
    /// [`managed::TableFiles::must_be_there`].
    async fn warehouse_is_there(&self, warehouse: &str) -> Result<()> {
        let snapshot = self.catalog().snapshot();
        let metadata = snapshot.tables().filter_map(|table| match &table.record.definition {
            Definition::Managed(managed) => Some(managed.metadata.clone()),
            _ => None,
        });
        let inside = metadata.filter(|url| url.starts_with(warehouse)).take(TABLES_LOOKED_FOR);
        let mut missing = Ok(());
        for url in inside.collect::<Vec<_>>() {
            match self.queries().commits.files().must_be_there(&url).await {
                Ok(()) => return Ok(()),
                Err(error) => missing = Err(error.into()),
            }
        }
        missing
    }

    pub(super) fn alter_columns<'a>(
        &'a mut self,
        registered: &'a Registered,
        alter: &'a AlterTable,
    ) -> BoxFuture<'a, Result<Option<Notice>>> {
        Box::pin(self.alter(registered, alter))
    }

    async fn alter(
        &mut self,
        registered: &Registered,
        alter: &AlterTable,
    ) -> Result<Option<Notice>> {
        let name = self.existing(&alter.name).await?;
        let table = match self.catalog().table(&name, Consistency::Strong).await {
            Err(catalog::Error::NotFound { kind, name }) if alter.if_exists => {
                return Ok(Some(super::ddl::missing(kind, &name)));
            }
            table => table?,
        };
        self.must_own_table(&name).await?;
        if !matches!(table.record.definition, Definition::Managed(_)) {
            let what = "ALTER TABLE of external tables other than RENAME TO".to_owned();
            return Err(Error::NotSupported(what));
        }
        let target = self.engine_session().target(table).await?;
        let mut steps = Vec::new();
        refuse_columns_of_policies(&target.table, &alter.steps)?;
        for step in &alter.steps {
            self.alteration(step, &target, &mut steps).await?;
        }
        if !steps.is_empty() {
            self.keep(registered, vec![(target, Change::Alter(steps))], "ALTER TABLE").await?;
        }
        Ok(None)
    }

    /// What one step of ALTER TABLE means for the table.
    async fn alteration(
        &self,
        step: &AlterTableOperation,
        target: &Target,
        steps: &mut Vec<Alteration>,
    ) -> Result<()> {
        use AlterTableOperation as Op;
        match step {
            Op::AddColumn { if_not_exists, column_def, column_position, .. } => {
                if column_position.is_some() {
                    return Err(Error::NotSupported("the place of a new column".to_owned()));
                }
                let columns = self.columns(std::slice::from_ref(column_def)).await?;
                let Some(column) = columns.into_iter().next() else { return Ok(()) };
                if column.default.is_some() {
                    let what = "ADD COLUMN with a DEFAULT (add it without, UPDATE the rows that \
                                are there, then ALTER COLUMN ... SET DEFAULT)";
                    return Err(Error::NotSupported(what.to_owned()));
                }
                let if_not_exists = *if_not_exists;
                // Steps before this one may have changed what is there.
                if steps.is_empty() && !if_not_exists && target.column(&column.name).is_ok() {
                    let table = Some(target.table.name.table.clone());
                    return Err(storage::Error::ColumnExists { name: column.name, table }.into());
                }
                steps.push(Alteration::AddColumn { field: column.field(), if_not_exists });
            }
            Op::DropColumn { column_names, if_exists, .. } => {
                if let ([name], true, false) = (&column_names[..], steps.is_empty(), *if_exists) {
                    target.column(&ident(name))?;
                }
                steps.extend(column_names.iter().map(|name| Alteration::DropColumn {
                    name: ident(name),
                    if_exists: *if_exists,
                }));
            }
            Op::RenameColumn { old_column_name, new_column_name } => {
                let (name, new) = (ident(old_column_name), ident(new_column_name));
                if steps.is_empty() {
                    target.column(&name)?;
                }
                steps.push(Alteration::RenameColumn { name, new });
            }
            Op::AlterColumn { column_name, op } => {
                let name = ident(column_name);
                let at = target.column(&name)?;
                match op {
                    AlterColumnOperation::DropNotNull => {
                        steps.push(Alteration::DropNotNull { name });
                    }
                    AlterColumnOperation::SetDataType { data_type, using: None, .. } => {
                        let definition = ColumnDef {
                            name: column_name.clone(),
                            data_type: data_type.clone(),
                            options: Vec::new(),
                        };
                        let schema = self.engine_session().columns(vec![definition])?;
                        let nullable = target.schema.field(at).is_nullable();
                        let field: Option<Field> =
                            schema.fields().first().map(|field| field.as_ref().clone());
                        let Some(field) = field else { return Ok(()) };
                        let field = field.with_nullable(nullable);
                        refuse_fewer_digits(target.schema.field(at), &field)?;
                        refuse_other_form(target.schema.field(at), &field)?;
                        steps.push(Alteration::SetType { name, field });
                    }
                    AlterColumnOperation::SetDefault { value } => {
                        let definition = ColumnDef {
                            name: column_name.clone(),
                            data_type: super::write::sql_type(target.schema.field(at))?,
                            options: Vec::new(),
                        };
                        let default = self.checked_default(value, &definition).await?;
                        steps.push(Alteration::SetDefault { name, default });
                    }
                    AlterColumnOperation::DropDefault => {
                        steps.push(Alteration::SetDefault { name, default: None });
                    }
                    AlterColumnOperation::SetNotNull => return Err(instead::of_not_null()),
                    other => return Err(Error::NotSupported(format!("ALTER COLUMN {other}"))),
                }
            }
            Op::SetTblProperties { table_properties: list }
            | Op::SetOptionsParens { options: list } => {
                steps.push(Alteration::SetProperties(properties(list)?));
            }
            other => return Err(Error::NotSupported(format!("ALTER TABLE {other}"))),
        }
        Ok(())
    }

    /// DROP TABLE ... PURGE: the files go as well. The table is gone already, so that a failure is a
    /// warning.
    pub(super) async fn purge(&self, table: &Table) -> Option<Notice> {
        match &table.record.definition {
            // Adopted since it was looked at: its files may be others' too.
            Definition::Managed(managed) if managed.adopted.is_none() => {}
            _ => return None,
        }
        let error = self.queries().maintenance.purge(table).await.err()?;
        let message = format!("\"{}\" is dropped, but its files stay: {error}", table.name.table);
        Some(Notice { code: "01000", message })
    }
}

/// Rows that are there have more digits of a second than a type with fewer of them keeps.
fn refuse_fewer_digits(before: &Field, after: &Field) -> Result<()> {
    match (precision(before), precision(after)) {
        (before, Some(digits)) if before.is_none_or(|before| digits < before) => {
            let what = format!(
                "a column that is there with {digits} digits of a second (UPDATE rounds what is there: \
                 SET {0} = {0}::{1}({digits}), and a new column with that type keeps it so)",
                after.name(),
                pg_type(after).name()
            );
            Err(Error::NotSupported(what))
        }
        _ => Ok(()),
    }
}

/// Rows that are there may be no JSON, or not in `jsonb`'s form.
fn refuse_other_form(before: &Field, after: &Field) -> Result<()> {
    match json_type(after) {
        Some(pg) if json_type(before).as_ref() != Some(&pg) => {
            let what = format!(
                "a column that is there as {1} (a new column has it: ADD COLUMN, and UPDATE with {0}::{1})",
                after.name(),
                pg.name()
            );
            Err(Error::NotSupported(what))
        }
        _ => Ok(()),
    }
}

/// Policies know columns by their names.
fn refuse_columns_of_policies(table: &Table, steps: &[AlterTableOperation]) -> Result<()> {
    use AlterTableOperation as Op;
    let touched = steps.iter().flat_map(|step| match step {
        Op::DropColumn { column_names, .. } => column_names.as_slice(),
        Op::RenameColumn { old_column_name, .. } => std::slice::from_ref(old_column_name),
        _ => &[],
    });
    for column in touched.map(ident) {
        for (name, policy) in &table.record.policies {
            let conditions = [&policy.using, &policy.check].into_iter().flatten();
            let mut words = Vec::new();
            for condition in conditions {
                words.extend(engine::tokens(condition)?);
            }
            let names_it = |(_, token): &(usize, Token)| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(&column));
            if words.iter().any(names_it) {
                let (policy, table) = (name.clone(), table.name.table.clone());
                return Err(catalog::Error::InPolicy { column, table, policy }.into());
            }
        }
    }
    Ok(())
}

/// Columns of a table made from a query, with other names if they are given.
fn from_query(schema: &arrow::datatypes::Schema, titles: &[ColumnDef]) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    if titles.len() > schema.fields().len() {
        return Err(Error::Invalid("too many column names were specified".to_owned()));
    }
    for (at, field) in schema.fields().iter().enumerate() {
        let shown = engine::system::shown_name(field.name());
        let name = titles.get(at).map_or_else(|| shown.to_owned(), |title| ident(&title.name));
        if columns.iter().any(|column: &Column| column.name == name) {
            return Err(Error::Twice { kind: ObjectKind::Column, name });
        }
        let mut column = Column::from(&field.as_ref().clone().with_name(name));
        // As in PostgreSQL, no constraint comes with the rows.
        column.nullable = true;
        column.metadata = without_ids(&column);
        columns.push(column);
    }
    Ok(columns)
}

/// A column's marks without the field id that it has in another table.
fn without_ids(column: &Column) -> std::collections::BTreeMap<String, String> {
    let key = parquet::arrow::PARQUET_FIELD_ID_META_KEY;
    column.metadata.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A table that is not in the catalog yet.
fn unnamed(name: &TableName, columns: &[Column], definition: &Managed) -> Table {
    let definition = Definition::Managed(definition.clone());
    let record = catalog::TableRecord::new(0, "", columns.to_vec(), definition);
    Table { name: name.clone(), record, stat: catalog::Stat::default() }
}

fn options(options: &CreateTableOptions) -> Result<HashMap<String, String>> {
    match options {
        CreateTableOptions::None => Ok(HashMap::new()),
        CreateTableOptions::With(list) | CreateTableOptions::TableProperties(list) => {
            properties(list)
        }
        other => Err(Error::NotSupported(format!("the table options {other}"))),
    }
}

/// Iceberg's table properties.
fn properties(list: &[SqlOption]) -> Result<HashMap<String, String>> {
    let mut properties = HashMap::new();
    for option in list {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(Error::Invalid(format!("unrecognized parameter \"{option}\"")));
        };
        let value = match value {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => text.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        };
        let name = property_name(key);
        if !managed::is_for_users(&name) {
            return Err(Error::Invalid(format!("the property \"{name}\" is not for users")));
        }
        // Files elsewhere would be nobody's: not kept within roots, not swept, not purged.
        if name == "write.data.path" || name == "write.metadata.path" {
            return Err(Error::NotSupported(format!("the property \"{name}\" (use location)")));
        }
        properties.insert(name, value);
    }
    Ok(properties)
}

fn property_name(key: &Ident) -> String {
    match key.quote_style {
        Some(_) => key.value.clone(),
        None => key.value.to_lowercase(),
    }
}
