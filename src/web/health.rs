//! Whether the process lives, and whether clients should come to it.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process serves requests |
//! | `/readyz` | 200 while clients are served, 503 while joining or draining, or while the engine hangs; else degraded, as `health.ready_when_degraded` says |
//!
//! Both answer `{"id", "state", "version"}`, and `"reason"` where a daemon is degraded.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;

use super::Sources;
use crate::cluster::State;
use crate::config::Switch;

#[derive(Debug, Serialize)]
struct Health {
    id: String,
    state: State,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) fn router() -> Router<Arc<Sources>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

async fn live(Shared(sources): Shared<Arc<Sources>>) -> Json<Health> {
    Json(health(&sources))
}

async fn ready(Shared(sources): Shared<Arc<Sources>>) -> (StatusCode, Json<Health>) {
    let health = health(&sources);
    let status = match is_ready(&sources) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// Whether clients should come.
pub(super) fn is_ready(sources: &Sources) -> bool {
    let membership = &sources.queries.membership;
    match membership.state() {
        State::Ready => true,
        State::Degraded => {
            sources.health.ready_when_degraded == Switch::On && !membership.is_stuck()
        }
        State::Joining | State::Draining => false,
    }
}

fn health(sources: &Sources) -> Health {
    let membership = &sources.queries.membership;
    Health {
        id: membership.id().to_owned(),
        state: membership.state(),
        version: env!("CARGO_PKG_VERSION"),
        // Everybody may ask.
        reason: membership.trouble().map(|trouble| trouble.outline),
    }
}
