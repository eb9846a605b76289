//! Pools: what `/pools/<name>` holds, how it is changed, and whose statements are in which.
//!
//! A pool names roles; whoever names a role in a pool writes the role's node as well (see
//! [`super::roles`]).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cache::Catalog;
use super::ddl::{check_name, stale_is_fine};
use super::snapshot::Snapshot;
use super::transact::{Proof, create, delete, set};
use super::{Error, ObjectKind, PUBLIC_ROLE, Result, Stat};
use crate::coordination::paths::{CatalogName, Path};
use crate::id;

/// How much the statements of some roles may do at once, in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Statements that run at once; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Statements that wait at once.
    pub queue: u32,
    /// How long a statement waits at most; `None`: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "humantime_serde")]
    pub queue_timeout: Option<Duration>,
    /// Bytes that a statement may use on each daemon; `None`: what there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Whose statements are in it; [`PUBLIC_ROLE`] for all who are in no other.
    pub roles: Vec<String>,
    /// The last writer's mark, by which it recognises its own write.
    pub nonce: Uuid,
}

/// A pool with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub record: PoolRecord,
    pub stat: Stat,
}

impl Default for PoolRecord {
    /// As CREATE POOL makes them when nothing is said. Length and time-out are about Impala's
    /// (`default_pool_max_queued`, 200, and `queue_wait_timeout_ms`, 60,000).
    fn default() -> Self {
        Self {
            concurrency: None,
            queue: 200,
            queue_timeout: Some(Duration::from_secs(60)),
            memory: None,
            roles: Vec::new(),
            nonce: Uuid::nil(),
        }
    }
}

impl Snapshot {
    /// The pool of a role's statements: the one that names the role, else one that names a role
    /// whose privileges it has, else one for all. Of several of a kind it is the first by name. A
    /// superuser is only in a pool that names it.
    pub fn pool_of(&self, role: &str) -> Option<&Pool> {
        let with = |fits: &dyn Fn(&str) -> bool| {
            let named = |pool: &&Arc<Pool>| pool.record.roles.iter().any(|name| fits(name));
            self.pools.values().find(named).map(AsRef::as_ref)
        };
        let access = self.access(role);
        match with(&|named| named == role) {
            None if access.is_superuser() => None,
            None => with(&|named| access.has_role(named)).or_else(|| with(&|n| n == PUBLIC_ROLE)),
            own => own,
        }
    }
}

impl Catalog {
    /// Creates a pool. `record` has no nonce yet.
    pub async fn create_pool(&self, name: &str, record: PoolRecord) -> Result<()> {
        check_name(name)?;
        if name.is_empty() {
            return Err(Error::InvalidName("a pool needs a name".to_owned()));
        }
        let roles: Vec<&str> = record.roles.iter().map(String::as_str).collect();
        let mut ops = self.touch_roles(&roles).await?;
        let record = PoolRecord { nonce: id::nonce(), ..record };
        let path = Path::Pool(name).to_string();
        ops.push(create(&path, &record)?);
        let proof = Proof::Written { path, nonce: record.nonce };
        let created = self.commit(ops, proof, ObjectKind::Pool, name).await;
        self.refresh_pool(name).await.or_else(stale_is_fine)?;
        created
    }

    /// Changes a pool.
    pub async fn alter_pool(&self, name: &str, change: impl FnOnce(&mut PoolRecord)) -> Result<()> {
        let pool = self.pool(name).await?;
        let mut record = PoolRecord { nonce: id::nonce(), ..pool.record.clone() };
        change(&mut record);
        let roles: Vec<&str> = record.roles.iter().map(String::as_str).collect();
        let mut ops = self.touch_roles(&roles).await?;
        let path = Path::Pool(name).to_string();
        ops.push(set(&path, &record, pool.stat.version)?);
        let proof = Proof::Written { path, nonce: record.nonce };
        let altered = self.commit(ops, proof, ObjectKind::Pool, name).await;
        self.refresh_pool(name).await.or_else(stale_is_fine)?;
        altered
    }

    pub async fn drop_pool(&self, name: &str) -> Result<()> {
        let pool = self.pool(name).await?;
        let path = Path::Pool(name).to_string();
        let ops = vec![delete(path.clone(), Some(pool.stat.version))];
        let proof = Proof::Deleted { path, czxid: pool.stat.czxid };
        let dropped = self.commit(ops, proof, ObjectKind::Pool, name).await;
        self.refresh_pool(name).await.or_else(stale_is_fine)?;
        dropped
    }

    /// A pool as the store has it now.
    async fn pool(&self, name: &str) -> Result<Arc<Pool>> {
        self.coordination.sync().await?;
        self.refresh_pool(name).await?;
        let missing = || Error::NotFound { kind: ObjectKind::Pool, name: name.to_owned() };
        self.snapshot().pools.get(name).cloned().ok_or_else(missing)
    }

    async fn refresh_pool(&self, name: &str) -> Result<()> {
        self.refresh(&CatalogName::Pool(name.to_owned())).await
    }
}
