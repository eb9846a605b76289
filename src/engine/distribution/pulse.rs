//! Listens to the hearts of other daemons, to know of an end before the store does.
//!
//! A connection is held open to each of the next few daemons in the order of their names. The kernel
//! closes it when the daemon dies, within milliseconds; a daemon that hangs misses beats. Either is
//! followed by a question, and who does not answer it is left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use uuid::Uuid;

use super::channels::Channels;
use crate::cluster::{Worker, Workers};
use crate::engine::{Error, Result};
use crate::tls::PeerIdentity;

/// Daemons to which a connection is held: enough for two deaths at once to be noticed by somebody,
/// few enough for large clusters.
const HELD: usize = 8;

/// Time from one beat to the next.
const BEAT: Duration = Duration::from_millis(500);

/// Beats that may be missed in a row: a busy daemon takes its time.
const MISSED: u32 = 3;

/// Pause before a connection is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The longest that a connection and its handshake may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Who listens.
#[derive(Clone)]
pub(super) struct Pulse {
    workers: Arc<Workers>,
    probes: Channels,
    connector: TlsConnector,
    /// See [`PeerIdentity::name`].
    name: Option<&'static str>,
}

impl Pulse {
    pub fn new(workers: Arc<Workers>, probes: Channels, identity: &PeerIdentity) -> Result<Self> {
        let connector = TlsConnector::from(Arc::new(client(identity)?));
        Ok(Self { workers, probes, connector, name: identity.name })
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
                Ok(stream) => tokio::select! {
                    () = closed(stream) => "its connection was closed",
                    () = self.silence(&worker) => "it has missed beats",
                },
                Err(_) => "it cannot be reached",
            };
            debug!(worker = worker.id, heard, "asking whether a daemon lives");
            if !self.probes.is_well(&worker, self.workers.build()).await
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
        let host = worker.peer.rsplit_once(':').map_or("", |(host, _)| host);
        let name = self.name.unwrap_or(host.trim_matches(['[', ']'])).to_owned();
        let name = ServerName::try_from(name).map_err(|error| Error::Start(error.to_string()))?;
        let connect = async {
            let stream = TcpStream::connect(&worker.peer).await?;
            self.connector.connect(name, stream).await
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
            match self.probes.answers(worker, self.workers.build()).await {
                true => missed = 0,
                false => missed += 1,
            }
        }
    }
}

/// Ends when the other side closes the connection.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = [0; 256];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

fn client(identity: &PeerIdentity) -> Result<ClientConfig> {
    let bad = |error: &dyn std::fmt::Display| Error::Start(format!("peers: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.ca.as_bytes()) {
        let certificate = certificate.map_err(|error| bad(&error))?;
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    let own: Vec<_> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| bad(&error))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|e| bad(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?;
    let mut config = builder
        .with_root_certificates(roots)
        .with_client_auth_cert(own, key)
        .map_err(|error| bad(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
