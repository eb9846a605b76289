//! Lives: a node for each database, schema, table, view and role, by its identifier, there from CREATE to DROP.
//!
//! What is made anew under an old name begins with version 0 again, so that the version of a record alone
//! does not tell whether it is still the one that a change was made for. Each step that writes or removes
//! such a record checks the life as well. What gets another name gets another life with it: its old name may
//! be another's by now.
//!
//! Whatever is made writes its owner's life as well, with nothing and at any version: so makers do not stand in
//! each other's way, and a drop of the role, which takes the life at the version that it had before it looked
//! for what the role owns, fails if something has come since.
//!
//! What an older daemon has made has none: it is made up for when a step first misses it; and what an older
//! daemon drops leaves its life behind, which nothing asks for any more. What an older daemon changes forgets which of
//! its lives it is, and has the first again. The schemas `public` share one identifier, and have none.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;

use super::cache::Catalog;
use super::ddl::{PUBLIC_SCHEMA_OID, path_of};
use super::record::{DatabaseRecord, TableRecord};
use super::roles::{RoleRecord, is_predefined};
use super::snapshot::{Role, Snapshot, Table};
use super::transact::{create, delete, set};
use super::{Error, Result};
use crate::coordination::paths::Path;
use crate::coordination::{self, Mode, Op, Outcome, Stat};
use crate::id;

/// A record of what has a life.
pub(super) trait Living: Serialize {
    /// Its identifier, and which of its lives this is.
    fn life(&self) -> (u32, u32);

    /// Notes that it gets another name.
    fn rename(&mut self);
}

macro_rules! living {
    ($($record:ty),*) => {
        $(impl Living for $record {
            fn life(&self) -> (u32, u32) {
                (self.oid, self.life)
            }

            fn rename(&mut self) {
                // Any other: an older daemon may have left some behind.
                self.life = id::nonce().as_u128() as u32 | 1;
            }
        })*
    };
}

living!(DatabaseRecord, TableRecord, RoleRecord);

/// A record's node as it was read, with the path of its life.
#[derive(Clone, Debug)]
pub(super) struct Being {
    path: String,
    life: Option<String>,
    version: i32,
}

/// The steps that give something another name: all is made before anything is removed.
#[derive(Debug)]
pub(super) struct Renaming {
    made: Vec<Op>,
    gone: Vec<Op>,
}

impl Renaming {
    /// Renames something below it in the same step.
    pub fn with(&mut self, below: Self) {
        self.made.extend(below.made);
        self.gone.splice(0..0, below.gone);
    }
}

impl From<Renaming> for Vec<Op> {
    fn from(renaming: Renaming) -> Self {
        renaming.made.into_iter().chain(renaming.gone).collect()
    }
}

/// The steps that make what is at a node.
pub(super) fn made(path: &str, record: &impl Living) -> Result<Vec<Op>> {
    let life = life(record).map(begun);
    Ok([create(path, record)?].into_iter().chain(life).collect())
}

fn life(record: &impl Living) -> Option<String> {
    let (oid, life) = record.life();
    (oid != PUBLIC_SCHEMA_OID).then(|| Path::Life(oid, life).to_string())
}

fn begun(path: String) -> Op {
    Op::Create { path, data: Bytes::new(), mode: Mode::Persistent }
}

/// The step that notes that something came to be a role's.
pub(super) fn noted(role: &RoleRecord) -> Op {
    let path = Path::Life(role.oid, role.life).to_string();
    Op::Set { path, data: Bytes::new(), version: None }
}

impl Being {
    pub fn new(path: Path<'_>, record: &impl Living, stat: &Stat) -> Self {
        Self { path: path.to_string(), life: life(record), version: stat.version }
    }

    /// The steps that give it another record.
    pub fn changed(&self, record: &impl Serialize) -> Result<Vec<Op>> {
        Ok([set(&self.path, record, self.version)?].into_iter().chain(self.lives()).collect())
    }

    /// The steps that fail unless it is there, as it was read.
    pub fn kept(&self) -> Vec<Op> {
        let check = Op::Check { path: self.path.clone(), version: Some(self.version) };
        [check].into_iter().chain(self.lives()).collect()
    }

    /// The steps that end it.
    pub fn dropped(&self) -> Vec<Op> {
        [self.gone()].into_iter().chain(self.ended()).collect()
    }

    /// The steps by which it goes on elsewhere.
    pub fn renamed(&self, path: &str, mut record: impl Living) -> Result<Renaming> {
        record.rename();
        // If another was quicker its life is no more: that is told before its new one is found there.
        let made = self.ended().into_iter().chain(made(path, &record)?).collect();
        Ok(Renaming { made, gone: vec![self.gone()] })
    }

    fn gone(&self) -> Op {
        delete(self.path.clone(), Some(self.version))
    }

    fn ended(&self) -> Option<Op> {
        self.life.clone().map(|life| delete(life, None))
    }

    fn lives(&self) -> Option<Op> {
        self.life.clone().map(|path| Op::Check { path, version: None })
    }
}

impl Table {
    pub(super) fn being(&self) -> Being {
        let Self { name, record, stat } = self;
        Being { path: path_of(name), life: life(record), version: stat.version }
    }
}

impl Role {
    pub(super) fn being(&self) -> Being {
        Being::new(Path::Role(&self.name), &self.record, &self.stat)
    }
}

/// Whether a path is that of a life.
pub(super) fn is_life(path: &str) -> bool {
    path.strip_prefix(&Path::Lives.to_string()).is_some_and(|life| life.starts_with('/'))
}

impl Catalog {
    /// Carries out steps as [`Coordination::transact`](coordination::Coordination::transact) does, and
    /// makes up for lives that what older daemons have made does not have.
    pub async fn transact(&self, ops: Vec<Op>) -> Result<coordination::Result<Vec<Outcome>>> {
        let error = match self.transact_past_turns(ops.clone()).await {
            Ok(done) => return Ok(Ok(done)),
            Err(error) => error,
        };
        let missed = match error.root() {
            coordination::Error::NoNode { path } => {
                Some(path.as_str()).filter(|path| is_life(path))
            }
            _ => None,
        };
        match missed {
            Some(missed) if self.make_up_for_lives(missed, &ops).await? => {}
            _ => return Ok(Err(error)),
        }
        Ok(self.transact_past_turns(ops).await)
    }

    /// Gives all that steps are for, and that is still there, its life. Whether something had none, or the
    /// one that was missed has come to be there meanwhile, made up for by another.
    async fn make_up_for_lives(&self, missed: &str, ops: &[Op]) -> Result<bool> {
        let root = Path::Lives.to_string();
        coordination::ensure(self.coordination.as_ref(), &root).await?;
        let beings = beings(self.latest().await?.as_ref());
        let known = self.coordination.children(&root).await?;
        let known: BTreeSet<String> = known.iter().map(|life| format!("{root}/{life}")).collect();
        let wanted = ops.iter().map(Op::path).filter(|path| !known.contains(*path));
        let mut made = known.contains(missed);
        for (life, being) in wanted.filter_map(|path| beings.get_key_value(path)) {
            let check = Op::Check { path: being.path.clone(), version: Some(being.version) };
            let steps = vec![check, begun(life.clone())];
            // Where another was quicker the steps themselves tell.
            if let Err(error) = self.coordination.transact(steps).await
                && error.is_unavailable()
            {
                return Err(Error::Unavailable(error));
            }
            made = true;
        }
        Ok(made)
    }

    /// The step that ends the life of a role, unless something comes to be its from now on.
    pub(super) async fn end_of_role(&self, role: &Role) -> Result<Op> {
        let path = Path::Life(role.record.oid, role.record.life).to_string();
        let mut found = self.coordination.stat(&path).await?;
        if found.is_none() {
            // It is of an older daemon.
            coordination::ensure(self.coordination.as_ref(), &Path::Lives.to_string()).await?;
            coordination::ensure(self.coordination.as_ref(), &path).await?;
            found = self.coordination.stat(&path).await?;
        }
        Ok(delete(path, found.map(|stat| stat.version)))
    }
}

/// All of a snapshot, by the path of its life.
fn beings(snapshot: &Snapshot) -> BTreeMap<String, Being> {
    let mut all: Vec<Being> = snapshot.tables().map(|table| table.being()).collect();
    let roles = snapshot.roles.values().filter(|role| !is_predefined(&role.name));
    all.extend(roles.map(|role| role.being()));
    for (name, database) in &snapshot.databases {
        all.push(Being::new(Path::Database(name), &database.record, &database.stat));
        for (schema, content) in &database.schemas {
            if let Some((record, stat)) = &content.node {
                all.push(Being::new(Path::Schema(name, schema), record, stat));
            }
        }
    }
    let by_life = |being: Being| being.life.clone().map(|life| (life, being));
    all.into_iter().filter_map(by_life).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::wide::tests::{name, two};
    use crate::catalog::{DropMode, FIRST_ROLE};

    #[tokio::test]
    async fn a_name_that_is_anothers_by_now_is_no_way_to_it() {
        let (catalog, stale) = two().await;
        let (old, new) = (name(0), name(1000));
        let known = stale.snapshot().table(&old).expect("it is there").clone();
        catalog.rename_table(&old, &new, false).await.expect("renamed");
        let record = known.record.clone();
        let (columns, mode) = (record.columns.clone(), crate::catalog::CreateMode::Fail);
        let made =
            catalog.create_table(&old, FIRST_ROLE, columns, record.definition, mode, Vec::new());
        assert!(made.await.expect("another"));
        let is = catalog.snapshot().table(&old).expect("it is there").clone();
        assert_eq!(is.stat.version, known.stat.version);
        for steps in [
            known.being().kept(),
            known.being().changed(&known.record).expect("steps"),
            known.being().dropped(),
            known.being().renamed("/catalog/oribi/x", known.record.clone()).expect("steps").into(),
        ] {
            let done = stale.transact(steps).await.expect("the store answers");
            assert!(
                done.is_err_and(|error| matches!(error.root(), coordination::Error::NoNode { .. }))
            );
        }
        for name in [&old, &new] {
            let dropped = catalog.drop_table(name, false, DropMode::Fail).await;
            assert!(dropped.expect("dropped").is_some());
        }
    }

    #[tokio::test]
    async fn whatever_is_renamed_is_changed_and_dropped_as_before() {
        let (catalog, _) = two().await;
        let lives = async || {
            catalog.coordination.children(&Path::Lives.to_string()).await.expect("lives").len()
        };
        let before = lives().await;
        catalog.create_role("r", RoleRecord::default()).await.expect("a role");
        let mode = crate::catalog::CreateMode::Fail;
        catalog.create_database("d", "r", mode).await.expect("a database");
        catalog.create_schema("d", "s", "r", mode).await.expect("a schema");
        assert_eq!(lives().await, before + 3);
        catalog.rename_database("d", "e").await.expect("renamed");
        catalog.rename_role("r", "q").await.expect("renamed");
        let settings = |record: &mut DatabaseRecord| {
            record.comment = Some("x".to_owned());
            Ok(())
        };
        catalog.alter_schema("e", "s", &["q"], settings).await.expect("altered");
        catalog.alter_database("e", &["q"], settings).await.expect("altered");
        catalog
            .alter_role("q", |record| {
                record.login = true;
                Ok(())
            })
            .await
            .expect("altered");
        assert_eq!(lives().await, before + 3);
        catalog.drop_database("e", DropMode::Fail).await.expect("dropped");
        let roles = catalog.roles_to_drop(&["q".to_owned()]).await.expect("a role");
        catalog.drop_roles(&roles, |_| Vec::new()).await.expect("dropped");
        assert_eq!(lives().await, before);
    }

    #[tokio::test]
    async fn what_an_older_daemon_has_changed_is_renamed_again() {
        let (catalog, _) = two().await;
        let [a, b] = [name(0), name(1000)];
        catalog.rename_table(&a, &b, false).await.expect("renamed");
        // It knows of one life only, and makes it up.
        let forgetful = |record: &mut TableRecord| {
            record.life = 0;
            Ok(())
        };
        catalog.alter_table(&b, &[], forgetful).await.expect("altered");
        for (old, new) in [(&b, &a), (&a, &b), (&b, &a)] {
            catalog.rename_table(old, new, false).await.expect("renamed");
            catalog.alter_table(new, &[], forgetful).await.expect("altered");
        }
        catalog.drop_table(&a, false, DropMode::Fail).await.expect("dropped");
    }
}
