//! Connections to other daemons: one for each, kept, on which all statements share streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{ChannelResolver, GetWorkerInfoRequest, WorkerChannel};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use url::Url;

use crate::cluster::Worker;
use crate::engine::Error;
use crate::tls::PeerIdentity;

/// The longest that a connection and its handshake may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How often a connection on which nothing comes is asked whether the other side lives, and how
/// long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// How long a daemon may take to answer a question.
const PROBE: Duration = Duration::from_secs(1);

/// Bytes of what stands before an answer: errors travel there, with the text of a statement.
const HEADERS: u32 = 1 << 20;

/// Bytes under way on one stream, and on all streams of a connection.
pub(super) const WINDOWS: (u32, u32) = (4 << 20, 64 << 20);

/// Connections by URL.
#[derive(Clone)]
pub(super) struct Channels {
    tls: ClientTlsConfig,
    open: Arc<Mutex<HashMap<Url, Channel>>>,
}

impl Channels {
    pub fn new(identity: &PeerIdentity) -> Self {
        let own = Identity::from_pem(&identity.certificate, &identity.key);
        let ca = Certificate::from_pem(&identity.ca);
        let mut tls = ClientTlsConfig::new().identity(own).ca_certificate(ca).timeout(CONNECT);
        if let Some(name) = identity.name {
            tls = tls.domain_name(name);
        }
        Self { tls, open: Arc::default() }
    }

    /// A connection; made when it is used first, and again after it was lost.
    fn channel(&self, url: &Url) -> Result<Channel> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(url) {
            return Ok(channel.clone());
        }
        let (every, patience) = KEEPALIVE;
        let (stream, connection) = WINDOWS;
        let endpoint = Endpoint::from_shared(url.to_string()).map_err(external)?;
        let channel = endpoint
            .tls_config(self.tls.clone())
            .map_err(external)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(every)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .http2_max_header_list_size(HEADERS)
            .connect_lazy();
        open.insert(url.clone(), channel.clone());
        Ok(channel)
    }

    /// Whether a daemon answers, and is of this build.
    pub async fn answers(&self, worker: &Worker, build: &str) -> bool {
        let ask = async {
            let mut client = self.get_worker_client_for_url(&url(worker)?).await?;
            client.get_worker_info(GetWorkerInfoRequest {}).await
        };
        match tokio::time::timeout(PROBE, ask).await {
            Ok(Ok(info)) => info.version == build,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// The same, asked again if there is no answer: a packet or a pause of a busy machine is not an end.
    pub async fn is_well(&self, worker: &Worker, build: &str) -> bool {
        self.answers(worker, build).await || self.answers(worker, build).await
    }

    /// Closes connections to all but these, once nothing runs on them.
    pub fn keep(&self, workers: &[Url]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|url, _| workers.contains(url));
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        Ok(create_worker_client(BoxCloneSyncChannel::new(self.channel(url)?)))
    }
}

/// Where a daemon listens to its peers.
pub(super) fn url(worker: &Worker) -> Result<Url> {
    Url::parse(&format!("https://{}", worker.peer)).map_err(external)
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl From<tonic::transport::Error> for Error {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Start(format!("peer: {error}"))
    }
}
