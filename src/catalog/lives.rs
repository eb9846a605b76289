//! Lives: a node of its identifier for each database, schema, table, view and role, there from CREATE to DROP.
//!
//! What is made anew under an old name begins with version 0 again, so that the version of a record alone
//! does not tell whether it is still the one that a change was made for. Each step that writes or removes
//! such a record checks the life as well.
//!
//! Whatever is made writes its owner's life as well, with nothing and at any version: so makers do not stand in
//! each other's way, and a drop of the role, which takes the life at the version that it had before it looked
//! for what the role owns, fails if something has come since.
//!
//! What an older daemon has made has none: it is made up for when a step first misses it; and what an older
//! daemon drops leaves its life behind, which nothing asks for any more. The schemas `public` share one
//! identifier, and have none.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::cache::Catalog;
use super::ddl::{PUBLIC_SCHEMA_OID, path_of};
use super::roles::is_predefined;
use super::snapshot::{Snapshot, Table};
use super::transact::{create, delete, set};
use super::{Error, Result};
use crate::coordination::paths::Path;
use crate::coordination::{self, Mode, Op, Outcome, Stat};

/// A record's node as it was read, with its identifier.
#[derive(Clone, Debug)]
pub(super) struct Being {
    path: String,
    oid: u32,
    version: i32,
}

/// The steps that make what is at a node.
pub(super) fn made(path: &str, oid: u32, record: &impl Serialize) -> Result<Vec<Op>> {
    Ok([create(path, record)?].into_iter().chain(life(oid)).collect())
}

fn has_life(oid: u32) -> bool {
    oid != PUBLIC_SCHEMA_OID
}

fn life(oid: u32) -> Option<Op> {
    let path = Path::Life(oid).to_string();
    has_life(oid).then(|| Op::Create { path, data: Bytes::new(), mode: Mode::Persistent })
}

/// The step that notes that something came to be a role's.
pub(super) fn noted(oid: u32) -> Op {
    Op::Set { path: Path::Life(oid).to_string(), data: Bytes::new(), version: None }
}

impl Being {
    pub fn new(path: Path<'_>, oid: u32, stat: &Stat) -> Self {
        Self { path: path.to_string(), oid, version: stat.version }
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
        let life = self.lives().map(|life| delete(life.path().to_owned(), None));
        [self.gone()].into_iter().chain(life).collect()
    }

    /// The steps that leave its name: it goes on under another.
    pub fn moved(&self) -> Vec<Op> {
        [self.gone()].into_iter().chain(self.lives()).collect()
    }

    fn gone(&self) -> Op {
        delete(self.path.clone(), Some(self.version))
    }

    fn lives(&self) -> Option<Op> {
        let path = Path::Life(self.oid).to_string();
        has_life(self.oid).then_some(Op::Check { path, version: None })
    }
}

impl Table {
    pub(super) fn being(&self) -> Being {
        let Self { name, record, stat } = self;
        Being { path: path_of(name), oid: record.oid, version: stat.version }
    }
}

/// Whether a path is that of a life.
pub(super) fn is_life(path: &str) -> bool {
    life_of(path).is_some()
}

fn life_of(path: &str) -> Option<u32> {
    path.strip_prefix(&format!("{}/", Path::Lives))?.parse().ok()
}

impl Catalog {
    /// Carries out steps as [`Coordination::transact`](coordination::Coordination::transact) does, and
    /// makes up for lives that what older daemons have made does not have.
    pub(super) async fn transact(
        &self,
        ops: Vec<Op>,
    ) -> Result<coordination::Result<Vec<Outcome>>> {
        let error = match self.transact_past_turns(ops.clone()).await {
            Ok(done) => return Ok(Ok(done)),
            Err(error) => error,
        };
        let missed = match error.root() {
            coordination::Error::NoNode { path } => life_of(path),
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
    async fn make_up_for_lives(&self, missed: u32, ops: &[Op]) -> Result<bool> {
        let root = Path::Lives.to_string();
        coordination::ensure(self.coordination.as_ref(), &root).await?;
        let beings = beings(self.latest().await?.as_ref());
        let known = self.coordination.children(&root).await?;
        let mut wanted: Vec<u32> = ops.iter().filter_map(|op| life_of(op.path())).collect();
        wanted.retain(|oid| !known.contains(&oid.to_string()));
        let mut made = known.contains(&missed.to_string());
        for being in wanted.iter().filter_map(|oid| beings.get(oid)) {
            let check = Op::Check { path: being.path.clone(), version: Some(being.version) };
            let steps = [check].into_iter().chain(life(being.oid)).collect();
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
    pub(super) async fn end_of_role(&self, oid: u32) -> Result<Op> {
        let path = Path::Life(oid).to_string();
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

/// All of a snapshot, by identifier.
fn beings(snapshot: &Snapshot) -> BTreeMap<u32, Being> {
    let mut all: BTreeMap<u32, Being> =
        snapshot.tables().map(|table| (table.record.oid, table.being())).collect();
    let roles = snapshot.roles.values().filter(|role| !is_predefined(&role.name));
    all.extend(roles.map(|role| {
        let oid = role.record.oid;
        (oid, Being::new(Path::Role(&role.name), oid, &role.stat))
    }));
    for (name, database) in &snapshot.databases {
        let oid = database.record.oid;
        all.insert(oid, Being::new(Path::Database(name), oid, &database.stat));
        for (schema, content) in &database.schemas {
            if let Some((record, stat)) = &content.node {
                let path = Path::Schema(name, schema);
                all.insert(record.oid, Being::new(path, record.oid, stat));
            }
        }
    }
    all
}
