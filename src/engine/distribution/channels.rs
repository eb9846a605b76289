//! Connections to other daemons: one for each, kept, on which all statements share streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::error::{DataFusionError, Result};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{ChannelResolver, GetWorkerInfoRequest, WorkerChannel};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use url::Url;

use super::door::HANGS;
use super::questions;
use crate::cluster::Worker;
use crate::tls::{PeerIdentity, Peering};

/// The longest that a connection and its handshake may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How often a connection on which nothing comes is asked whether the other side lives, and how
/// long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// How long a daemon may take to answer a question.
const PROBE: Duration = Duration::from_secs(1);

/// Pause before a question that had no answer is asked once more.
const PAUSE: Duration = Duration::from_millis(100);

/// A clock that is late by this says that it is this machine which is busy.
const LATE: Duration = Duration::from_millis(250);

/// Bytes of what stands before an answer: errors travel there, with the text of a statement.
const HEADERS: u32 = 1 << 20;

/// Bytes under way on one stream, and on all streams of a connection: streams that nobody reads stop
/// their senders, each by itself, and never the connection that others share. So it has all that
/// HTTP/2 can count.
pub(super) const WINDOWS: (u32, u32) = (1 << 20, (1 << 31) - 1);

/// Connections by URL.
#[derive(Clone)]
pub(super) struct Channels {
    peering: Arc<Peering>,
    /// Where connections are driven: no statement keeps its threads busy.
    network: Handle,
    open: Arc<Mutex<Open>>,
}

struct Open {
    /// By which they were made.
    identity: Arc<PeerIdentity>,
    channels: HashMap<Url, Channel>,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Well,
    /// Nobody listens, or it is of another build.
    Failed,
    /// It says itself that nothing can run there.
    Hangs,
    /// None in time.
    Silent,
    /// None in time, but this machine was late itself.
    Unknown,
}

impl Channels {
    /// `network` is where the connections are driven.
    pub fn new(peering: Arc<Peering>, network: Handle) -> Self {
        let open = Open { identity: peering.current(), channels: HashMap::new() };
        Self { peering, network, open: Arc::new(Mutex::new(open)) }
    }

    /// A connection; made when it is used first, and again after it was lost.
    pub fn channel(&self, url: &Url) -> Result<Channel> {
        let identity = self.peering.current();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&open.identity, &identity) {
            // New certificates: what runs on the old connections keeps them.
            *open = Open { identity: identity.clone(), channels: HashMap::new() };
        }
        if let Some(channel) = open.channels.get(url) {
            return Ok(channel.clone());
        }
        let (every, patience) = KEEPALIVE;
        let (stream, connection) = WINDOWS;
        let endpoint = Endpoint::from_shared(url.to_string()).map_err(external)?;
        let endpoint = endpoint
            .tls_config(tls(&identity))
            .map_err(external)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(every)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .http2_max_header_list_size(HEADERS);
        // What drives a connection is spawned where it is made.
        let _network = self.network.enter();
        let channel = endpoint.connect_lazy();
        open.channels.insert(url.clone(), channel.clone());
        Ok(channel)
    }

    /// Whether a daemon answers, and is of this build. Silence is asked a second time; that of a
    /// machine which is busy itself says nothing of the other.
    pub async fn answers(&self, worker: &Worker, build: &str) -> bool {
        let answer = match self.ask(worker, build).await {
            Answer::Silent | Answer::Unknown => {
                tokio::time::sleep(PAUSE).await;
                self.ask(worker, build).await
            }
            answer => answer,
        };
        matches!(answer, Answer::Well | Answer::Unknown)
    }

    /// Asks a daemon once.
    pub async fn ask(&self, worker: &Worker, build: &str) -> Answer {
        let ask = async {
            let mut client = self.get_worker_client_for_url(&url(worker)?).await?;
            client.get_worker_info(GetWorkerInfoRequest {}).await
        };
        let asked = Instant::now();
        match tokio::time::timeout(PROBE, ask).await {
            Ok(Ok(info)) if info.version == build => Answer::Well,
            Ok(Err(error)) if hangs(&error) => Answer::Hangs,
            Ok(Ok(_) | Err(_)) => Answer::Failed,
            Err(_) if asked.elapsed() > PROBE + LATE => Answer::Unknown,
            Err(_) => Answer::Silent,
        }
    }

    /// Asks a daemon for what it alone knows, as [`questions`] has it; why there is no answer, if
    /// there is none.
    pub async fn question(&self, worker: &Worker, question: &str) -> Result<Bytes, String> {
        let ask = async {
            let channel = url(worker).and_then(|url| self.channel(&url));
            questions::ask(channel.map_err(|error| error.to_string())?, question).await
        };
        let none = || Err(format!("no answer within {} s", questions::PATIENCE.as_secs()));
        tokio::time::timeout(questions::PATIENCE, ask).await.unwrap_or_else(|_| none())
    }

    /// Closes connections to all but these, once nothing runs on them.
    pub fn keep(&self, workers: &[Url]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.channels.retain(|url, _| workers.contains(url));
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        Ok(create_worker_client(BoxCloneSyncChannel::new(self.channel(url)?)))
    }
}

fn tls(identity: &PeerIdentity) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .identity(Identity::from_pem(&identity.certificate, &identity.key))
        .ca_certificate(Certificate::from_pem(&identity.ca))
        .domain_name(identity.name.to_str())
        .timeout(CONNECT)
}

/// Where a daemon listens to its peers.
pub(super) fn url(worker: &Worker) -> Result<Url> {
    Url::parse(&format!("https://{}", worker.peer)).map_err(external)
}

/// Whether that is what a daemon has answered.
fn hangs(error: &DataFusionError) -> bool {
    let DataFusionError::External(error) = error else { return false };
    error.downcast_ref::<Status>().is_some_and(|status| status.message() == HANGS)
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
