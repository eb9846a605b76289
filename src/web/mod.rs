//! The web port: the console ([`console`]); health for load balancers and supervisors and metrics for
//! monitoring, which nobody logs in for.
//!
//! - [`health`] is `/livez` and `/readyz`.
//! - [`metrics`] is `/metrics`.

mod health;
pub mod metrics;

pub mod console;
pub mod port;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Election, Workers};
use crate::config;
use crate::coordination::counted::Counted;
use crate::query::Queries;
use crate::traces::Traces;
use console::Console;
use port::{Caller, Port};

/// What is looked at.
#[derive(Debug)]
pub struct Sources {
    pub queries: Arc<Queries>,
    pub election: Arc<Election>,
    pub workers: Arc<Workers>,
    /// The session that the daemon lives by.
    pub store: Arc<Counted>,
    pub health: config::Health,
    /// Clients that may be there at once.
    pub max_connections: usize,
    pub traces: Option<Arc<Traces>>,
}

/// What is at all other paths. They are not repeated: they are somebody else's words.
async fn nothing() -> impl IntoResponse {
    let text = "there is no such page. /livez and /readyz tell of the daemon's health, /metrics has its figures, \
                and / is the console, unless console.mode is \"off\"\n";
    (StatusCode::NOT_FOUND, console::assets::safe(), text)
}

/// Serves until `stop`.
pub async fn serve(
    port: Port,
    sources: Sources,
    console: Arc<Console>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().merge(health::router()).merge(metrics::router());
    let router = router
        .with_state(Arc::new(sources))
        .merge(console.clone().router())
        .fallback(nothing)
        .into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(port, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    console.finish().await;
    served
}
