//! Listens to the hearts of other daemons, to know of an end before the store does.
//!
//! A connection is held open to each of the next few daemons in the order of their names. The kernel
//! closes it when the daemon dies, within milliseconds; a daemon that hangs misses beats. Either is
//! followed by a question, and who does not answer it is left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use uuid::Uuid;

use super::channels::{Answer, Channels};
use crate::cluster::{Worker, Workers};
use crate::engine::{Error, Result};
use crate::tls::Peering;

/// Daemons to which a connection is held: enough for two deaths at once to be noticed by somebody,
/// few enough for large clusters.
const HELD: usize = 8;

/// Time from one beat to the next.
const BEAT: Duration = Duration::from_millis(500);

/// Beats that may be missed in a row before the last question, which has two tries: a busy daemon
/// takes its time.
const MISSED: u32 = 2;

/// Pause before a connection is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The longest that a connection and its handshake may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Who listens.
#[derive(Clone)]
pub(super) struct Pulse {
    workers: Arc<Workers>,
    channels: Channels,
    peering: Arc<Peering>,
}

impl Pulse {
    pub fn new(workers: Arc<Workers>, channels: Channels, peering: Arc<Peering>) -> Self {
        Self { workers, channels, peering }
    }

    /// Listens until `end`.
    pub async fn run(self, end: CancellationToken) {
        let mut members = self.workers.watch();
        let mut hearts: HashMap<Uuid, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            let near = self.workers.successors(HELD);
            hearts.retain(|incarnation, _| near.iter().any(|w| w.incarnation == *incarnation));
            for worker in near {
                hearts.entry(worker.incarnation).or_insert_with(|| {
                    let listening = self.clone().listen(worker);
                    AbortOnDropHandle::new(tokio::runtime::Handle::current().spawn(listening))
                });
            }
            tokio::select! {
                () = end.cancelled() => return,
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn listen(self, worker: Worker) {
        loop {
            let heard = match self.connect(&worker).await {
                Ok(stream) => {
                    self.workers.note_reached(&worker);
                    tokio::select! {
                        () = closed(stream) => "its connection was closed",
                        () = self.silence(&worker) => "it has missed beats",
                    }
                }
                Err(_) => "it cannot be reached",
            };
            debug!(worker = worker.id, heard, "asking whether a daemon lives");
            if !self.channels.answers(&worker, self.workers.build()).await
                && self.workers.is_well(&worker)
            {
                info!(worker = worker.id, heard, "a daemon does not answer and is left alone");
                self.workers.suspect(&worker);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(&self, worker: &Worker) -> Result<impl AsyncRead + Unpin + use<>> {
        let failed = |error: std::io::Error| Error::Start(error.to_string());
        let identity = self.peering.current();
        let connector = TlsConnector::from(identity.client.clone());
        let connect = async {
            let stream = TcpStream::connect(&worker.peer).await?;
            connector.connect(identity.name.clone(), stream).await
        };
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(stream) => stream.map_err(failed),
            Err(_) => Err(Error::Start("timed out".to_owned())),
        }
    }

    /// Ends when a worker has missed some beats in a row.
    async fn silence(&self, worker: &Worker) {
        let mut missed = 0;
        while missed < MISSED {
            tokio::time::sleep(BEAT).await;
            match self.channels.ask(worker, self.workers.build()).await {
                Answer::Well => {
                    missed = 0;
                    // One that has come back is known at once.
                    if !self.workers.is_well(worker) {
                        self.workers.trust(worker);
                    }
                }
                Answer::Failed | Answer::Hangs | Answer::Silent => missed += 1,
                // That says more of this daemon than of the other.
                Answer::Unknown => {}
            }
        }
    }
}

/// Ends when the other side closes the connection.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = [0; 256];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}
