//! This daemon as a worker: takes parts of other daemons' statements and runs them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion_distributed::{
    DistributedConfig, DistributedExt, Worker, WorkerPlanRewriteEvent,
    WorkerPlanRewriteEventResponse, WorkerQueryContext, WorkerSessionBuilder,
};
use http::HeaderMap;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::channels::{Channels, WINDOWS};
use super::codec::Codec;
use super::guests::{Guest, Guests};
use super::travel::{self, Travel};
use crate::engine::Error;
use crate::engine::cooperation::watch_part;
use crate::shutdown::{Gate, GateGuard};
use crate::storage;
use crate::tls::PeerIdentity;

/// Makes the session in which a part of a statement runs: as that of its coordinator, as far as it
/// matters for the part.
#[derive(Clone)]
pub(super) struct Sessions {
    pub template: Arc<SessionState>,
    pub channels: Channels,
    pub build: &'static str,
    /// Keeps the daemon from ending under the part.
    pub gate: Gate,
    pub guests: Arc<Guests>,
}

/// Held as long as anybody holds the part.
struct Inside(#[expect(dead_code, reason = "held, not read")] (GateGuard, Option<Guest>));

#[async_trait]
impl WorkerSessionBuilder for Sessions {
    async fn build_session_state(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let WorkerQueryContext { mut builder, headers } = context;
        let travel = self.admit(&headers)?;
        let (guest, environment) = self.guests.admit(&travel)?;
        let mut config = builder.config().take().unwrap_or_default();
        let distributed = DistributedConfig::from_config_options(config.options())?.clone();
        let mut options = self.template.config().options().as_ref().clone();
        travel.apply(&mut options)?;
        options.extensions.insert(distributed);
        *config.options_mut() = options;
        let inside = self.gate.enter_again("part of a statement");
        config.set_extension(Arc::new(Inside((inside, guest))));
        config.set_distributed_channel_resolver(self.channels.clone());
        config.set_distributed_user_codec(Codec);
        config.set_distributed_worker_plan_rewrite_handler(|event: WorkerPlanRewriteEvent<'_>| {
            let plan = storage::name_files(watch_part(event.plan)?)?;
            Ok(WorkerPlanRewriteEventResponse::new(plan))
        });
        let state = SessionStateBuilder::new_from_existing(self.template.as_ref().clone());
        let mut state = state.with_runtime_env(environment).build();
        let options = config.options().as_ref();
        let changed: Vec<_> = (state.scalar_functions().values())
            .filter_map(|function| function.inner().with_updated_config(options))
            .collect();
        *state.config_mut() = config;
        for function in changed {
            state.register_udf(Arc::new(function))?;
        }
        Ok(state)
    }
}

impl Sessions {
    /// Only daemons of the same build understand each other's plans.
    fn admit(&self, headers: &HeaderMap) -> Result<Travel> {
        let build = headers.get(travel::BUILD).and_then(|value| value.to_str().ok());
        if build != Some(self.build) {
            let own = self.build;
            let other = build.unwrap_or("unknown");
            return Err(DataFusionError::Execution(format!(
                "this daemon is of build {own}, the one that asks of build {other}"
            )));
        }
        Travel::read(headers)
    }
}

/// Serves other daemons until `end`. Who does not show a certificate of the cluster gets nothing.
pub(super) async fn serve(
    worker: Worker,
    identity: &PeerIdentity,
    socket: std::net::TcpListener,
    end: CancellationToken,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Start(format!("peer: {error}"));
    socket.set_nonblocking(true).map_err(failed)?;
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    let own = Identity::from_pem(&identity.certificate, &identity.key);
    let tls = ServerTlsConfig::new()
        .identity(own)
        .client_ca_root(Certificate::from_pem(&identity.ca))
        .timeout(super::HANDSHAKE);
    let (stream, connection) = WINDOWS;
    Server::builder()
        .tls_config(tls)?
        .tcp_nodelay(true)
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .http2_keepalive_interval(Some(super::QUIET))
        .add_service(worker.into_worker_server())
        .serve_with_incoming_shutdown(TcpListenerStream::new(socket), end.cancelled_owned())
        .await?;
    Ok(())
}
