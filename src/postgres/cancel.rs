//! Cancel requests: a process id and a key, on a connection of their own.
//!
//! A client sends them to an address, and may reach another daemon than the one that serves it. The
//! process id tells which daemon gave it; the request is sent on to that one as it is. The key
//! decides there: nobody in between needs to know it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::cluster::Member;
use crate::query::Queries;
use crate::query::sessions::{Signal, prefix_of};

/// Requests that are sent on at once; more have to wait.
const AT_ONCE: usize = 64;

/// How long that may take, the wait included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cancel keys by process id, and the way to other daemons.
#[derive(Debug)]
pub struct Cancels {
    keys: Mutex<HashMap<i32, Bytes>>,
    places: Semaphore,
}

impl Cancels {
    pub fn new() -> Self {
        Self { keys: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// Makes the key by which a session's statements can be cancelled.
    pub fn key(&self, pid: i32, length: usize) -> Bytes {
        let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        // Six bits of a UUID are fixed; three of them have more than 32 random bytes.
        let key: Bytes = random
            .iter()
            .flat_map(|uuid| {
                let bytes = uuid.into_bytes();
                (0..16).filter(|at| *at != 6 && *at != 8).map(move |at| bytes[at])
            })
            .take(length)
            .collect::<Vec<_>>()
            .into();
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, key.clone());
        key
    }

    pub fn forget(&self, pid: i32) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// Deals with a request: what follows the length in its packet.
    pub async fn request(&self, queries: &Queries, packet: Bytes) {
        let mut rest = packet.clone();
        // The request code.
        rest.advance(4);
        if rest.len() < 4 {
            return;
        }
        let pid = rest.get_i32();
        if queries.sessions.gives(pid) {
            self.cancel(queries, pid, &rest);
        } else if let Some(prefix) = prefix_of(pid) {
            for member in queries.membership.others_with_prefix(prefix) {
                self.pass_on(&member, pid, &packet).await;
            }
        }
    }

    /// Cancels what a session runs, if the key is right.
    fn cancel(&self, queries: &Queries, pid: i32, key: &[u8]) {
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).cloned();
        // Compared in full, so that the time tells nothing of where they differ.
        let equal = known.is_some_and(|known| {
            known.len() == key.len()
                && known.iter().zip(key).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
        });
        match queries.sessions.find(pid) {
            Some(session) if equal => session.signal(Signal::Cancel),
            _ => debug!(pid, "a cancel request had no or a wrong key"),
        }
    }

    /// Sends a request to another daemon and waits until it has dealt with it: until it closes the
    /// connection, as the client does.
    async fn pass_on(&self, member: &Member, pid: i32, packet: &[u8]) {
        let exchange = async {
            let Ok(_place) = self.places.acquire().await else { return Ok(()) };
            let mut socket = TcpStream::connect(&member.record.postgres).await?;
            let length = packet.len() as u32 + 4;
            socket.write_all(&[&length.to_be_bytes(), packet].concat()).await?;
            socket.read(&mut [0]).await.map(drop)
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(())) => debug!(pid, daemon = member.id, "a cancel request was passed on"),
            Ok(Err(error)) => {
                warn!(pid, daemon = member.id, %error, "a cancel request could not be passed on");
            }
            Err(_) => warn!(pid, daemon = member.id, "a cancel request was not taken in time"),
        }
    }
}
