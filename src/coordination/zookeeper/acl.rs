//! Access control: which ACL new nodes get, and the closing of nodes that were open.
//!
//! With credentials the chroot and all nodes below it belong to one identity alone. A store that
//! was used without is closed when the first daemon with credentials starts: first the chroot to all
//! but readers, so that nobody adds to it meanwhile; then all nodes below, from the top down; and
//! last the chroot to readers, too. So a chroot that belongs to the identity alone tells later
//! starts that there is nothing left to do, even if this one was cut short.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use zookeeper_client::{Acl, Acls, AuthId, Client, Error as ClientError, Permission};

use super::ZooKeeper;
use super::call::{self, Kind};
use super::security::{self, Credentials};
use crate::coordination::{Error, Result};

/// Nodes that are looked at at once.
const CONCURRENT: usize = 64;

/// Finds out which ACL new nodes get, closing what is open. Fails if the nodes belong to others.
pub(super) async fn settle(
    store: &ZooKeeper,
    credentials: Option<&Credentials>,
) -> Result<Arc<[Acl]>> {
    settled(store, credentials).await.map_err(|error| match error {
        Error::Denied { .. } => security::rejected(&store.hosts, credentials),
        other => other,
    })
}

async fn settled(store: &ZooKeeper, credentials: Option<&Credentials>) -> Result<Arc<[Acl]>> {
    let Some(credentials) = credentials else {
        // The root may be read by those only who may do all the rest.
        store.call(Kind::Read, async |client| read(&client).await.map(drop)).await?;
        return Ok(Acls::anyone_all().to_vec().into());
    };
    let present = store.call(Kind::Read, async |client| read(&client).await).await?;
    if let Some(own) = own(&present, credentials)
        && present == [own.clone()]
    {
        return Ok([own].into());
    }
    // Only the ensemble knows how it calls us: it writes that in place of the scheme "auth".
    let closing =
        [Acl::new(Permission::ALL, AuthId::authed()), Acl::new(Permission::READ, AuthId::anyone())];
    let present = store
        .call(Kind::Write, async move |client| {
            set(&client, "/", &closing).await?;
            read(&client).await
        })
        .await?;
    let own = own(&present, credentials).ok_or_else(|| {
        let scheme = credentials.scheme();
        security::setting("credentials", format!("ZooKeeper does not know the scheme {scheme}"))
    })?;
    let own: Arc<[Acl]> = [own].into();
    let closed = close_below(store, &own).await?;
    let last = own.clone();
    store.call(Kind::Write, async move |client| set(&client, "/", &last).await).await?;
    tracing::info!(closed, "the znodes belong to this daemon's credentials alone");
    Ok(own)
}

/// Our own entry of an ACL, if it permits all.
fn own(acl: &[Acl], credentials: &Credentials) -> Option<Acl> {
    acl.iter()
        .find(|acl| acl.scheme() == credentials.scheme() && acl.permission() == Permission::ALL)
        .cloned()
}

/// Closes all nodes below the root, level by level; returns how many were open.
async fn close_below(store: &ZooKeeper, own: &Arc<[Acl]>) -> Result<usize> {
    let mut count = 0;
    let mut level = vec![String::new()];
    while !level.is_empty() {
        let closed: Vec<(bool, Vec<String>)> = stream::iter(level)
            .map(|path| {
                let own = own.clone();
                store.call(Kind::Write, async move |client| close(&client, path, &own).await)
            })
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        count += closed.iter().filter(|(was_open, _)| *was_open).count();
        level = closed.into_iter().flat_map(|(_, children)| children).collect();
    }
    Ok(count)
}

/// Closes a node, unless it is the root (an empty path); returns whether it was open, and the paths
/// of its children. What has gone meanwhile has none.
async fn close(client: &Client, path: String, own: &[Acl]) -> Result<(bool, Vec<String>)> {
    let attempt = async {
        let mut was_open = false;
        if !path.is_empty() {
            let (acl, _) = client.get_acl(&path).await?;
            was_open = acl != own;
            if was_open {
                client.set_acl(&path, own, None).await?;
            }
        }
        let listed = if path.is_empty() { "/" } else { &path };
        let names = client.list_children(listed).await?;
        Ok((was_open, names.into_iter().map(|name| format!("{path}/{name}")).collect()))
    };
    match attempt.await {
        Err(ClientError::NoNode) => Ok((false, Vec::new())),
        other => other.map_err(|error| call::failed(Kind::Write, &path, error)),
    }
}

/// The root's ACL.
async fn read(client: &Client) -> Result<Vec<Acl>> {
    let read = client.get_acl("/").await;
    read.map(|(acl, _)| acl).map_err(|error| call::failed(Kind::Read, "/", error))
}

async fn set(client: &Client, path: &str, acl: &[Acl]) -> Result<()> {
    match client.set_acl(path, acl, None).await {
        Ok(_) => Ok(()),
        // There is nothing to put in place of the scheme "auth".
        Err(ClientError::InvalidAcl) => Err(Error::Denied { path: path.to_owned() }),
        Err(error) => Err(call::failed(Kind::Write, path, error)),
    }
}
