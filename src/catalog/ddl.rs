//! DDL: databases, schemas, tables and views, made, changed and dropped.

use std::sync::Arc;

use super::cache::{Catalog, display_name};
use super::joint;
use super::lives::{self, Being};
use super::record::{DatabaseRecord, Definition, TableRecord};
use super::snapshot::{Database, Table, TableName};
use super::transact::{Proof, refused};
use super::{Consistency, Error, ObjectKind, PUBLIC, RESERVED_SCHEMAS, Result};
use crate::coordination::paths::{CatalogName, Path};
use crate::coordination::{self, Op};
use crate::id;

/// PostgreSQL's limit is 63 (`NAMEDATALEN`); nothing here needs one as low.
const MAX_NAME: usize = 255;

/// PostgreSQL's own for the schema `public` (its `pg_namespace.dat`).
pub const PUBLIC_SCHEMA_OID: u32 = 2200;

/// How often one writer tries again because others put something into the same schema.
const MAX_TOUCHES: usize = 50;

/// What to do when the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    Fail,
    IfNotExists,
    Replace,
}

/// What to do when the name is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropMode {
    Fail,
    IfExists,
}

impl Catalog {
    /// Returns false if it was there already and the mode allows that.
    pub async fn create_database(&self, name: &str, owner: &str, mode: CreateMode) -> Result<bool> {
        check_name(name)?;
        let record = self.namespace_record(owner).await?;
        let path = Path::Database(name).to_string();
        let mut ops = lives::made(&path, &record)?;
        ops.extend(self.owner_is_there(owner).await?);
        let proof = Proof::Written { path, nonce: record.nonce };
        let created = self.commit(ops, proof, ObjectKind::Database, name).await;
        self.refresh(&CatalogName::Database(name.to_owned())).await.or_else(stale_is_fine)?;
        if_not_exists(created, mode)
    }

    /// Drops a database and all tables and views in it, as PostgreSQL does. The files of external
    /// tables stay. Returns false if it was not there and the mode allows that.
    pub async fn drop_database(&self, name: &str, mode: DropMode) -> Result<bool> {
        if if_exists(self.database(name).await, mode)?.is_none() {
            return Ok(false);
        }
        self.coordination.sync().await?;
        self.refresh(&CatalogName::Database(name.to_owned())).await?;
        let Some(database) = if_exists(self.database(name).await, mode)? else { return Ok(false) };
        let mut ops = each(name, &database, Being::dropped);
        ops.extend(being(name, &database).dropped());
        let path = Path::Database(name).to_string();
        let proof = Proof::Deleted { path, czxid: database.stat.czxid };
        let dropped = self.commit(ops, proof, ObjectKind::Database, name).await;
        self.refresh(&CatalogName::Database(name.to_owned())).await.or_else(stale_is_fine)?;
        dropped.map(|()| true)
    }

    /// Renames a database with all it holds, in one step.
    pub async fn rename_database(&self, name: &str, new: &str) -> Result<()> {
        check_name(new)?;
        let database = self.database(name).await?;
        let record = DatabaseRecord { nonce: id::nonce(), ..database.record.clone() };
        let path = Path::Database(new).to_string();
        let mut renaming = being(name, &database).renamed(&path, record.clone())?;
        for (schema, content) in &database.schemas {
            if let Some((record, stat)) = &content.node {
                let being = Being::new(Path::Schema(name, schema), record, stat);
                let path = Path::Schema(new, schema).to_string();
                renaming.with(being.renamed(&path, record.clone())?);
            }
            for (table, entry) in &content.tables {
                let path = Path::Table { database: new, schema, table }.to_string();
                renaming.with(entry.being().renamed(&path, entry.record.clone())?);
            }
        }
        let ops = renaming.into();
        let proof = Proof::Written { path, nonce: record.nonce };
        let renamed = self.commit(ops, proof, ObjectKind::Database, new).await;
        for name in [name, new] {
            self.refresh(&CatalogName::Database(name.to_owned())).await.or_else(stale_is_fine)?;
        }
        renamed
    }

    pub async fn create_schema(
        &self,
        database: &str,
        schema: &str,
        owner: &str,
        mode: CreateMode,
    ) -> Result<bool> {
        check_name(schema)?;
        if RESERVED_SCHEMAS.contains(&schema) {
            let error = Error::AlreadyExists { kind: ObjectKind::Schema, name: schema.to_owned() };
            return if_not_exists(Err(error), mode);
        }
        self.database(database).await?;
        let record = self.namespace_record(owner).await?;
        let path = Path::Schema(database, schema).to_string();
        let mut ops = lives::made(&path, &record)?;
        ops.extend(self.owner_is_there(owner).await?);
        let proof = Proof::Written { path, nonce: record.nonce };
        let created = self.commit(ops, proof, ObjectKind::Schema, schema).await;
        self.refresh(&CatalogName::Schema(database.to_owned(), schema.to_owned()))
            .await
            .or_else(stale_is_fine)?;
        if_not_exists(created, mode)
    }

    /// Drops a schema; with `cascade` its tables and views too.
    pub async fn drop_schema(
        &self,
        database: &str,
        schema: &str,
        mode: DropMode,
        cascade: bool,
    ) -> Result<bool> {
        if RESERVED_SCHEMAS.contains(&schema) {
            return Err(Error::Reserved(schema.to_owned()));
        }
        self.database(database).await?;
        // All from one snapshot: in a later one the schema may be newer than what is known to be in it.
        let snapshot = self.refresh_schema(database, schema).await?;
        let name = CatalogName::Schema(database.to_owned(), schema.to_owned());
        let content = (snapshot.databases.get(database))
            .and_then(|database| database.schemas.get(schema))
            .ok_or_else(|| Error::NotFound { kind: ObjectKind::Schema, name: schema.to_owned() });
        let Some(content) = if_exists(content, mode)? else { return Ok(false) };
        let Some((record, stat)) = &content.node else {
            return Err(Error::Reserved(schema.into()));
        };
        if !content.tables.is_empty() && !cascade {
            return Err(Error::NotEmpty {
                kind: ObjectKind::Schema,
                name: schema.to_owned(),
                count: content.tables.len(),
            });
        }
        let mut ops: Vec<Op> =
            content.tables.values().flat_map(|table| table.being().dropped()).collect();
        let path = Path::Schema(database, schema);
        let proof = Proof::Deleted { path: path.to_string(), czxid: stat.czxid };
        ops.extend(Being::new(path, record, stat).dropped());
        let dropped = self.commit(ops, proof, ObjectKind::Schema, schema).await;
        for table in content.tables.values() {
            self.refresh(&node_name(&table.name)).await.or_else(stale_is_fine)?;
        }
        self.refresh(&name).await.or_else(stale_is_fine)?;
        dropped.map(|()| true)
    }

    /// Creates a table or view. Returns false if it was there already and the mode allows that.
    /// [`CreateMode::Replace`] keeps the identifier, and replaces a view by a view only. The steps
    /// `with` go with it.
    pub async fn create_table(
        &self,
        name: &TableName,
        owner: &str,
        columns: Vec<super::Column>,
        definition: Definition,
        mode: CreateMode,
        with: Vec<Op>,
    ) -> Result<bool> {
        check_name(&name.table)?;
        self.touch_schema(&name.database, &name.schema).await?;
        let existing = match self.table(name, Consistency::Strong).await {
            Ok(table) => Some(table),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let is_view = matches!(definition, Definition::View { .. });
        let taken = || Error::AlreadyExists { kind: ObjectKind::Table, name: display_name(name) };
        let record = |oid| TableRecord::new(oid, owner, columns, definition);
        let path = path_of(name);
        let (record, steps) = match (existing, mode) {
            (None, _) => {
                let record = record(self.oids.next().await?);
                let steps = lives::made(&path, &record)?;
                (record, steps)
            }
            (Some(_), CreateMode::IfNotExists) => return Ok(false),
            (Some(_), CreateMode::Fail) => return Err(taken()),
            (Some(table), CreateMode::Replace) if table.record.is_view() != is_view => {
                let expected = if is_view { "view" } else { "table" };
                return Err(Error::WrongKind { name: display_name(name), expected });
            }
            (Some(table), CreateMode::Replace) => {
                let TableRecord { oid, life, owner, grants, row_security, policies, .. } =
                    table.record.clone();
                let kept = record(oid);
                let mut record =
                    TableRecord { life, owner, grants, row_security, policies, ..kept };
                joint::go_on(&table.record, &mut record);
                let steps = table.being().changed(&record)?;
                (record, steps)
            }
        };
        let proof = Proof::Written { path, nonce: record.nonce };
        let owner = self.owner_is_there(&record.owner).await?;
        let ops = steps.into_iter().chain(owner).chain(with).collect();
        let created = self.commit_in_schema(name, ops, proof).await;
        self.refresh(&node_name(name)).await.or_else(stale_is_fine)?;
        if_not_exists(created, mode)
    }

    /// Creates a table whose files were there before, unless `check` finds something against it in
    /// the catalog as the store has it in the moment of the write: of several daemons that do this
    /// one comes after the other.
    pub async fn adopt_table(
        &self,
        name: &TableName,
        owner: &str,
        columns: Vec<super::Column>,
        definition: Definition,
        check: impl Fn(&super::Snapshot) -> Result<()>,
    ) -> Result<()> {
        check_name(&name.table)?;
        let path = path_of(name);
        for _ in 0..MAX_TOUCHES {
            // First: whoever adopts after this is read takes the turn away.
            let (oid, turn) = self.oids.turn().await?;
            self.coordination.sync().await?;
            self.reload().await?;
            let snapshot = self.snapshot();
            if snapshot.table(name).is_some() {
                let (kind, name) = (ObjectKind::Table, display_name(name));
                return Err(Error::AlreadyExists { kind, name });
            }
            check(&snapshot)?;
            let record = TableRecord::new(oid, owner, columns.clone(), definition.clone());
            let touch = self.touch_schema(&name.database, &name.schema).await?;
            let contested: Vec<String> =
                [&turn].into_iter().chain(&touch).map(|op| op.path().to_owned()).collect();
            let mut ops = vec![turn];
            ops.extend(touch);
            ops.extend(lives::made(&path, &record)?);
            ops.extend(self.owner_is_there(owner).await?);
            let proof = Proof::Written { path: path.clone(), nonce: record.nonce };
            let attempted = self.attempt(ops, &proof).await?;
            self.refresh(&node_name(name)).await.or_else(stale_is_fine)?;
            let Err(error) = attempted else { return Ok(()) };
            match error.root() {
                coordination::Error::BadVersion { path } if contested.contains(path) => {}
                _ => return Err(refused(error, ObjectKind::Table, &display_name(name))),
            }
        }
        Err(Error::Conflict { kind: ObjectKind::Table, name: display_name(name) })
    }

    /// Drops a table or view, and returns it; its files stay. `None` if it was not there and the
    /// mode allows that.
    pub async fn drop_table(
        &self,
        name: &TableName,
        view: bool,
        mode: DropMode,
    ) -> Result<Option<Arc<Table>>> {
        let found = self.table(name, Consistency::Strong).await;
        let Some(table) = if_exists(found, mode)? else { return Ok(None) };
        expect_kind(&table, view)?;
        let ops = table.being().dropped();
        let proof = Proof::Deleted { path: path_of(name), czxid: table.stat.czxid };
        let dropped = self.commit(ops, proof, ObjectKind::Table, &display_name(name)).await;
        self.refresh(&node_name(name)).await.or_else(stale_is_fine)?;
        dropped.map(|()| Some(table))
    }

    /// Moves a table or view to another name or schema of the same database.
    pub async fn rename_table(&self, name: &TableName, new: &TableName, view: bool) -> Result<()> {
        check_name(&new.table)?;
        let table = self.table(name, Consistency::Strong).await?;
        expect_kind(&table, view)?;
        let record = TableRecord { nonce: id::nonce(), ..table.record.clone() };
        let path = path_of(new);
        let proof = Proof::Written { path: path.clone(), nonce: record.nonce };
        let ops = table.being().renamed(&path, record)?.into();
        let renamed = self.commit_in_schema(new, ops, proof).await;
        for name in [name, new] {
            self.refresh(&node_name(name)).await.or_else(stale_is_fine)?;
        }
        renamed
    }

    /// Changes a table's or view's record, such as a comment. `beneficiaries` are the roles to
    /// which the change gives something: see [`super::roles`].
    pub async fn alter_table(
        &self,
        name: &TableName,
        beneficiaries: &[&str],
        change: impl FnOnce(&mut TableRecord) -> Result<()>,
    ) -> Result<()> {
        let table = self.table(name, Consistency::Strong).await?;
        let mut record = TableRecord { nonce: id::nonce(), ..table.record.clone() };
        change(&mut record)?;
        let mut ops = self.touch_roles(beneficiaries).await?;
        ops.extend(table.being().changed(&record)?);
        let proof = Proof::Written { path: path_of(name), nonce: record.nonce };
        let altered = self.commit(ops, proof, ObjectKind::Table, &display_name(name)).await;
        self.refresh(&node_name(name)).await.or_else(stale_is_fine)?;
        altered
    }

    /// Changes a database's record.
    pub async fn alter_database(
        &self,
        name: &str,
        beneficiaries: &[&str],
        change: impl FnOnce(&mut DatabaseRecord) -> Result<()>,
    ) -> Result<()> {
        let node = CatalogName::Database(name.to_owned());
        self.database(name).await?;
        self.coordination.sync().await?;
        self.refresh(&node).await?;
        let database = self.database(name).await?;
        let mut record = DatabaseRecord { nonce: id::nonce(), ..database.record.clone() };
        change(&mut record)?;
        let mut ops = self.touch_roles(beneficiaries).await?;
        ops.extend(being(name, &database).changed(&record)?);
        let path = Path::Database(name).to_string();
        let proof = Proof::Written { path, nonce: record.nonce };
        let altered = self.commit(ops, proof, ObjectKind::Database, name).await;
        self.refresh(&node).await.or_else(stale_is_fine)?;
        altered
    }

    /// Changes a schema's record; that of `public` is made when it is first changed.
    pub async fn alter_schema(
        &self,
        database: &str,
        schema: &str,
        beneficiaries: &[&str],
        change: impl FnOnce(&mut DatabaseRecord) -> Result<()>,
    ) -> Result<()> {
        self.look_again(database, schema).await?;
        let found = self.database(database).await?;
        let not_found = || Error::NotFound { kind: ObjectKind::Schema, name: schema.to_owned() };
        let content = found.schemas.get(schema).ok_or_else(not_found)?;
        let path = Path::Schema(database, schema);
        let (record, steps) = match &content.node {
            Some((record, stat)) => {
                let mut record = DatabaseRecord { nonce: id::nonce(), ..record.clone() };
                change(&mut record)?;
                let steps = Being::new(path.clone(), &record, stat).changed(&record)?;
                (record, steps)
            }
            None => {
                let owner = content.owner(&found);
                let mut record = self.namespace_record(owner).await?;
                record.oid = PUBLIC_SCHEMA_OID;
                change(&mut record)?;
                let steps = lives::made(&path.to_string(), &record)?;
                (record, steps)
            }
        };
        let mut ops = self.touch_roles(beneficiaries).await?;
        ops.extend(steps);
        let proof = Proof::Written { path: path.to_string(), nonce: record.nonce };
        let altered = self.commit(ops, proof, ObjectKind::Schema, schema).await;
        self.look_again(database, schema).await.or_else(stale_is_fine)?;
        altered
    }

    /// The steps that go with whatever gives roles something.
    pub(super) async fn touch_roles(&self, names: &[&str]) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for name in names {
            ops.extend(self.touch_role(name).await?);
        }
        Ok(ops)
    }

    async fn namespace_record(&self, owner: &str) -> Result<DatabaseRecord> {
        Ok(DatabaseRecord {
            oid: self.oids.next().await?,
            life: 0,
            owner: owner.to_owned(),
            grants: None,
            comment: None,
            settings: Default::default(),
            nonce: id::nonce(),
        })
    }

    /// The steps that make sure a schema is still there when a table is put into it; none for the
    /// schema that is always there. They write the schema's node as it is: whoever drops the schema
    /// meanwhile has seen another version of it, and is refused.
    async fn touch_schema(&self, database: &str, schema: &str) -> Result<Vec<Op>> {
        let mut found = self.database(database).await?;
        if schema == PUBLIC {
            return Ok(Vec::new());
        }
        if RESERVED_SCHEMAS.contains(&schema) {
            return Err(Error::Reserved(schema.to_owned()));
        }
        // It may be known by one of its tables alone, which was heard of first.
        if found.schemas.get(schema).is_none_or(|schema| schema.node.is_none()) {
            self.look_again(database, schema).await?;
            found = self.database(database).await?;
        }
        match found.schemas.get(schema).map(|schema| &schema.node) {
            Some(Some((record, stat))) => {
                Being::new(Path::Schema(database, schema), record, stat).changed(record)
            }
            _ => Err(Error::NotFound { kind: ObjectKind::Schema, name: schema.to_owned() }),
        }
    }

    /// Takes the newest version of a schema's node.
    async fn look_again(&self, database: &str, schema: &str) -> Result<()> {
        self.coordination.sync().await?;
        self.refresh(&CatalogName::Schema(database.to_owned(), schema.to_owned())).await
    }

    /// Carries out a change that puts a table or view into a schema. Others may do so at the same
    /// time: that is no conflict.
    async fn commit_in_schema(&self, table: &TableName, ops: Vec<Op>, proof: Proof) -> Result<()> {
        let TableName { database, schema, .. } = table;
        let mut left = MAX_TOUCHES;
        loop {
            let touch = self.touch_schema(database, schema).await?;
            let touched: Vec<_> = touch.iter().map(|op| op.path().to_owned()).collect();
            let ops = touch.into_iter().chain(ops.clone()).collect();
            let Err(error) = self.attempt(ops, &proof).await? else { return Ok(()) };
            match error.root() {
                coordination::Error::BadVersion { path } | coordination::Error::NoNode { path }
                    if touched.contains(path) && left > 0 =>
                {
                    left -= 1;
                    self.look_again(database, schema).await?;
                }
                _ => return Err(refused(error, ObjectKind::Table, &display_name(table))),
            }
        }
    }
}

pub(super) fn path_of(name: &TableName) -> String {
    let TableName { database, schema, table } = name;
    Path::Table { database, schema, table }.to_string()
}

pub(super) fn node_name(name: &TableName) -> CatalogName {
    let TableName { database, schema, table } = name.clone();
    CatalogName::Table { database, schema, table }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(Error::NameTooLong { length: name.len(), limit: MAX_NAME });
    }
    Ok(())
}

fn expect_kind(table: &Table, view: bool) -> Result<()> {
    if table.record.is_view() == view {
        return Ok(());
    }
    let expected = if view { "view" } else { "table" };
    Err(Error::WrongKind { name: display_name(&table.name), expected })
}

impl Catalog {
    /// The steps that fail once the owner of what is made has been dropped or renamed meanwhile, and have a
    /// drop fail that has not seen what is made.
    pub(super) async fn owner_is_there(&self, owner: &str) -> Result<Vec<Op>> {
        let check = Op::Check { path: Path::Role(owner).to_string(), version: None };
        match self.role(owner, Consistency::Cached).await {
            Ok(role) => Ok(vec![check, lives::noted(&role.record)]),
            // As the step will find.
            Err(Error::NotFound { .. }) => Ok(vec![check]),
            Err(error) => Err(error),
        }
    }
}

/// The steps for each of what a database holds.
fn each(name: &str, database: &Database, steps: fn(&Being) -> Vec<Op>) -> Vec<Op> {
    let mut ops = Vec::new();
    for (schema, content) in &database.schemas {
        for table in content.tables.values() {
            ops.extend(steps(&table.being()));
        }
        if let Some((record, stat)) = &content.node {
            ops.extend(steps(&Being::new(Path::Schema(name, schema), record, stat)));
        }
    }
    ops
}

fn being(name: &str, database: &Database) -> Being {
    Being::new(Path::Database(name), &database.record, &database.stat)
}

fn if_not_exists(created: Result<()>, mode: CreateMode) -> Result<bool> {
    match created {
        Ok(()) => Ok(true),
        Err(Error::AlreadyExists { .. }) if mode == CreateMode::IfNotExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn if_exists<T>(found: Result<T>, mode: DropMode) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) if mode == DropMode::IfExists => Ok(None),
        Err(error) => Err(error),
    }
}

/// The change itself is done or refused by now; when the store is out of reach only this daemon's
/// view of it is late, and the watch will mend that.
pub(super) fn stale_is_fine(error: Error) -> Result<()> {
    match error {
        Error::Unavailable(_) | Error::Unknown(_) => Ok(()),
        error => Err(error),
    }
}
