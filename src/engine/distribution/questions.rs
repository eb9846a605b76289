//! Questions of one daemon to the others that are no part of a statement: a text goes, bytes come
//! back. What they mean is for the floor above to say ([`SystemCatalog::answer`]), but for those about
//! parts of statements ([`figures`]).
//!
//! They are answered on the threads that no statement keeps busy, and only to who has shown a
//! daemon's certificate. Rights are for the one who asks to look at: it knows whose statement it is.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::to_bytes;
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::{Context, Future, Pin, Poll, Service};
use tonic::server::NamedService;
use tonic::transport::Channel;

use super::guests::Guests;
use super::{Distribution, figures};
use crate::cluster::Worker;
use crate::engine::system::{Others, SystemCatalog};

/// How long a daemon may take to answer, the connection included.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The same where an answer is of use at once or not at all.
const SOON: Duration = Duration::from_millis(500);

/// Bytes of the longest question, and of the longest answer.
const LONGEST: (usize, usize) = (64 << 10, 64 << 20);

const PATH: &str = "/oribi.Questions/Ask";

/// Of what is an answer, and not the word of a daemon that does not know of questions.
const CONTENT_TYPE: &str = "application/x-oribi-answer";

/// Answers those of the others.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    pub system: Arc<dyn SystemCatalog>,
    pub guests: Arc<Guests>,
}

impl NamedService for Questions {
    const NAME: &'static str = "oribi.Questions";
}

impl Service<Request<Body>> for Questions {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (status, bytes) = match this.answer(request).await {
                Ok(bytes) => (StatusCode::OK, bytes),
                Err(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason.into_bytes()),
            };
            let mut response = Response::new(Body::new(axum::body::Body::from(bytes)));
            *response.status_mut() = status;
            let kind = http::HeaderValue::from_static(CONTENT_TYPE);
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            Ok(response)
        })
    }
}

impl Questions {
    async fn answer(&self, request: Request<Body>) -> Result<Vec<u8>, String> {
        let (longest, _) = LONGEST;
        let question = read(request.into_body(), longest).await?;
        let question = std::str::from_utf8(&question).map_err(|error| error.to_string())?;
        if let Some(statements) = question.strip_prefix(figures::QUESTION) {
            return figures::answer(&self.guests, statements);
        }
        self.system.answer(question).await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Others for Distribution {
    async fn ask(&self, question: &str) -> Vec<(String, Result<Bytes, String>)> {
        let asked = self.peers.workers.others().into_iter().map(async |worker| {
            let answer = self.question(&worker, question).await;
            (worker.id, answer)
        });
        join_all(asked).await
    }

    async fn ask_soon(&self, question: &str, daemons: &[String]) -> Vec<(String, Bytes)> {
        let workers = &self.peers.workers;
        let wanted = |worker: &Worker| daemons.contains(&worker.id) && workers.is_well(worker);
        let asked = workers.others().into_iter().filter(wanted).map(async |worker| {
            let answer = timeout(SOON, self.question(&worker, question)).await;
            Some((worker.id, answer.ok()?.ok()?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

impl Distribution {
    /// Asks a daemon, on the threads that no statement keeps busy; why there is no answer, if there is
    /// none.
    pub(super) async fn question(&self, worker: &Worker, question: &str) -> Result<Bytes, String> {
        let (channels, worker, question) =
            (self.channels.clone(), worker.clone(), question.to_owned());
        let answer = async move { channels.question(&worker, &question).await };
        let answer = AbortOnDropHandle::new(self.peers.network.spawn(answer)).await;
        answer.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Asks the daemon at the other end, and waits for as long as it takes.
pub(super) async fn ask(mut channel: Channel, question: &str) -> Result<Bytes, String> {
    let mut request = Request::new(Body::new(axum::body::Body::from(question.to_owned())));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| innermost(&error))?;
    let response = channel.call(request).await.map_err(|error| innermost(&error))?;
    let status = response.status();
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != CONTENT_TYPE) {
        return Err("it is of a build that does not know of such questions".to_owned());
    }
    let (_, longest) = LONGEST;
    let bytes = read(response.into_body(), longest).await?;
    match status {
        StatusCode::OK => Ok(bytes),
        _ => Err(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes, String> {
    to_bytes(axum::body::Body::new(body), limit).await.map_err(|error| innermost(&error))
}

/// The cause of an error: what is around it says "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
