//! All that the store holds, for people who look at it: what is beside the daemons' chroot as well,
//! as far as the access control lists let this daemon read it.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::counted::Counted;
use super::embedded::{self, EmbeddedStore};
use super::zookeeper::{self, ZooKeeper};
use super::{Coordination, Result};

/// The store as a daemon has it.
#[derive(Clone, Debug)]
pub struct Store {
    /// What the daemon lives by, below its chroot.
    pub own: Arc<Counted>,
    pub whole: Arc<Whole>,
}

/// The way to all of it: a session of its own, made when it is used first, so that no large read
/// stands before what the daemon lives by. Paths count from the store's root.
#[derive(Debug)]
pub struct Whole {
    source: Source,
    opened: OnceCell<Arc<Counted>>,
}

#[derive(Debug)]
enum Source {
    ZooKeeper(zookeeper::Options),
    Embedded(Arc<EmbeddedStore>, embedded::Options),
}

impl Whole {
    pub fn of_ensemble(options: zookeeper::Options) -> Arc<Self> {
        Arc::new(Self { source: Source::ZooKeeper(options), opened: OnceCell::new() })
    }

    pub fn of_embedded(store: Arc<EmbeddedStore>, options: embedded::Options) -> Arc<Self> {
        Arc::new(Self { source: Source::Embedded(store, options), opened: OnceCell::new() })
    }

    /// The client; connects if it has not yet. To be read with only.
    pub async fn client(&self) -> Result<Arc<Counted>> {
        let open = async || match &self.source {
            Source::ZooKeeper(options) => {
                let client = ZooKeeper::look(options).await?;
                Ok(Counted::new(client))
            }
            Source::Embedded(store, options) => {
                let client = store.connect(options.clone());
                Ok(Counted::new(client))
            }
        };
        self.opened.get_or_try_init(open).await.cloned()
    }

    /// The client, if it was used already.
    pub fn opened(&self) -> Option<&Arc<Counted>> {
        self.opened.get()
    }

    /// What stands before the daemons' own paths; empty where nothing does.
    pub fn chroot(&self) -> Result<String> {
        let chroot = match &self.source {
            Source::ZooKeeper(options) => options.chroot()?,
            Source::Embedded(..) => "/".to_owned(),
        };
        Ok(if chroot == "/" { String::new() } else { chroot })
    }

    /// The ensemble, where there is one.
    pub fn ensemble(&self) -> Option<&zookeeper::Options> {
        match &self.source {
            Source::ZooKeeper(options) => Some(options),
            Source::Embedded(..) => None,
        }
    }

    /// What the store is, for people.
    pub fn backend(&self) -> &'static str {
        match &self.source {
            Source::ZooKeeper(_) => "zookeeper",
            Source::Embedded(..) => "embedded",
        }
    }

    pub async fn close(&self) {
        if let Some(client) = self.opened() {
            client.close().await;
        }
    }
}
