//! The console's pages, part of the binary. They need nothing from elsewhere, and may use nothing from
//! elsewhere.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::guard::text;

/// What pages may do: run this daemon's own scripts, ask this daemon, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; \
                      form-action 'self'";

/// What all answers of the console say.
pub fn safe() -> [(HeaderName, HeaderValue); 6] {
    let same = HeaderValue::from_static("same-origin");
    [
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), same.clone()),
        (HeaderName::from_static("cross-origin-resource-policy"), same),
    ]
}

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal: $kind:expr),* $(,)?) => {
        &[$(Asset { name: $name, kind: $kind, content: include_str!(concat!("assets/", $name)) }),*]
    };
}

const ASSETS: &[Asset] = assets! {
    "index.html": HTML,
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": SCRIPT,
    "dom.js": SCRIPT,
    "api.js": SCRIPT,
    "format.js": SCRIPT,
    "plan.js": SCRIPT,
    "chart.js": SCRIPT,
    "overview.js": SCRIPT,
    "queries.js": SCRIPT,
    "history.js": SCRIPT,
    "statement.js": SCRIPT,
    "submitted.js": SCRIPT,
    "catalog.js": SCRIPT,
    "zookeeper.js": SCRIPT,
    "settings.js": SCRIPT,
    "sql.js": SCRIPT,
};

/// Changes with any of them: a browser never mixes two versions.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    ASSETS.iter().for_each(|asset| asset.content.hash(&mut hasher));
    format!("\"{:016x}\"", hasher.finish())
});

pub async fn index(headers: HeaderMap) -> Response {
    send("index.html", &headers)
}

pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    send(&name, &headers)
}

fn send(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "there is no such page\n").into_response();
    };
    // Asked each time whether it is still the same, which costs no more than the answer.
    let caching = [(ETAG, TAG.as_str()), (CACHE_CONTROL, "no-cache")];
    if text(headers, IF_NONE_MATCH.as_str()) == Some(TAG.as_str()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(CONTENT_TYPE, asset.kind)], Body::from(asset.content)).into_response()
}
