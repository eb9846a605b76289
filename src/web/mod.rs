//! The web port: the console ([`console`]); health over HTTP, for load balancers and supervisors, and
//! what is in use, for monitoring, which nobody logs in for.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process serves requests |
//! | `/readyz` | 200 while clients are served (ready, degraded), 503 while joining or draining |
//! | `/metrics` | what runs here and what it takes, in Prometheus' text format |
//!
//! The first two answer `{"id", "state", "version"}`.

pub mod console;
pub mod port;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Membership, State};
use crate::query::Queries;
use console::Console;
use port::{Caller, Port};

#[derive(Debug, Serialize)]
struct Health {
    id: String,
    state: State,
    version: &'static str,
}

/// Serves until `stop`.
pub async fn serve(
    port: Port,
    queries: Arc<Queries>,
    console: Arc<Console>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(queries)
        .merge(console.clone().router())
        .into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(port, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    console.finish().await;
    served
}

async fn live(Shared(queries): Shared<Arc<Queries>>) -> Json<Health> {
    Json(health(&queries.membership))
}

async fn ready(Shared(queries): Shared<Arc<Queries>>) -> (StatusCode, Json<Health>) {
    let health = health(&queries.membership);
    let status = match health.state {
        State::Ready | State::Degraded => StatusCode::OK,
        State::Joining | State::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

async fn metrics(
    Shared(queries): Shared<Arc<Queries>>,
) -> ([(HeaderName, &'static str); 1], String) {
    let engine = &queries.engine;
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: Vec<(String, u64)>| {
        text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in values {
            text += &format!("{name}{labels} {value}\n");
        }
    };
    let plain = |value| vec![(String::new(), value)];
    let reserved = engine.memory_pool().reserved() as u64;
    gauge("oribi_memory_reserved_bytes", "Memory that statements have reserved.", plain(reserved));
    let spilled = engine.spilled_bytes();
    gauge("oribi_spilled_bytes", "Bytes in statements' temporary files.", plain(spilled));
    let (files, bytes, hits) = engine.known_files();
    for (name, help, value) in [
        ("oribi_known_files", "Files whose metadata is in memory.", files),
        ("oribi_known_files_bytes", "What their metadata takes.", bytes),
        ("oribi_known_files_hits", "How often it was found there, not read.", hits),
    ] {
        gauge(name, help, plain(value as u64));
    }
    let inside = queries.gate.inside().into_iter();
    let running = inside.map(|(what, count)| (format!("{{what=\"{what}\"}}"), count as u64));
    gauge("oribi_running", "What keeps this daemon from ending.", running.collect());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn health(membership: &Membership) -> Health {
    Health {
        id: membership.id().to_owned(),
        state: membership.state(),
        version: env!("CARGO_PKG_VERSION"),
    }
}
