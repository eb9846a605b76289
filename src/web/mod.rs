//! Health over HTTP, for load balancers and supervisors.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process serves requests |
//! | `/readyz` | 200 while clients are served (ready, degraded), 503 while joining or draining |
//!
//! Both answer `{"id", "state", "version"}`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Membership, State};

#[derive(Debug, Serialize)]
struct Health {
    id: String,
    state: State,
    version: &'static str,
}

/// Serves until `stop`.
pub async fn serve(
    socket: TcpListener,
    membership: Arc<Membership>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(membership);
    axum::serve(socket, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn live(Shared(membership): Shared<Arc<Membership>>) -> Json<Health> {
    Json(health(&membership))
}

async fn ready(Shared(membership): Shared<Arc<Membership>>) -> (StatusCode, Json<Health>) {
    let health = health(&membership);
    let status = match health.state {
        State::Ready | State::Degraded => StatusCode::OK,
        State::Joining | State::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

fn health(membership: &Membership) -> Health {
    Health {
        id: membership.id().to_owned(),
        state: membership.state(),
        version: env!("CARGO_PKG_VERSION"),
    }
}
