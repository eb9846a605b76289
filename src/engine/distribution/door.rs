//! The port for other daemons.
//!
//! Who does not show a daemon's certificate gets nothing: no byte of HTTP/2 is read before. Strangers
//! are few at a time and have little time, and the threads that let them in are not those on which
//! statements run; nor are those that answer whether this daemon lives. One whose engine hangs says that it
//! does not.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use datafusion_distributed::Worker;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::{Context, Future, Pin, Poll, Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tracing::{debug, warn};

use super::channels::WINDOWS;
use super::messages::Receiver;
use super::questions::Questions;
use crate::cluster::Workers;
use crate::engine::Error;
use crate::tls::Peering;

/// How long a stranger may take to show a certificate.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Strangers at a time; the one that came first makes room for one more.
const STRANGERS: usize = 64;

/// How long a connection may be quiet before the other side is asked whether it lives.
const QUIET: Duration = Duration::from_secs(10);

/// Pause after the system has refused a connection, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// Streams of one connection that the other side may give up before they were looked at: many
/// statements end at the same moment, and this is no attack.
const GIVEN_UP: usize = 1 << 16;

/// The question whether a daemon lives, which is answered by whoever hears it.
const QUESTION: &str = "/GetWorkerInfo";

/// The answer of one whose statements would wait in vain.
pub(super) const HANGS: &str = "the engine hangs";

/// Serves other daemons until `end`. Their statements run where `engine` says; `workers` know whether these
/// hang.
pub(super) async fn serve(
    (worker, questions, messages): (Worker, Questions, Receiver),
    (engine, workers): (Handle, Arc<Workers>),
    peering: Arc<Peering>,
    socket: std::net::TcpListener,
    end: CancellationToken,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Start(format!("peer: {error}"));
    socket.set_nonblocking(true).map_err(failed)?;
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    let (known, incoming) = mpsc::channel(1);
    let (stream, connection) = WINDOWS;
    let serving = Server::builder()
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        // Each unread cursor has some.
        .max_concurrent_streams(u32::MAX)
        .http2_max_pending_accept_reset_streams(Some(GIVEN_UP))
        .http2_keepalive_interval(Some(QUIET))
        .add_service(OnEngine { inner: worker.into_worker_server(), engine, workers })
        .add_service(questions)
        .add_service(messages)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), end.clone().cancelled_owned());
    let accepting = accept(socket, peering, known, end);
    let (served, ()) = tokio::join!(serving, accepting);
    served.map_err(|error| Error::Start(format!("peer: {error}")))
}

/// A daemon that has shown its certificate.
type Known = std::io::Result<TlsStream<TcpStream>>;

/// Lets daemons in until `end`.
async fn accept(
    socket: TcpListener,
    peering: Arc<Peering>,
    known: mpsc::Sender<Known>,
    end: CancellationToken,
) {
    let mut strangers: VecDeque<AbortOnDropHandle<()>> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        strangers.retain(|stranger| !stranger.is_finished());
        if strangers.len() >= STRANGERS {
            strangers.pop_front();
        }
        let meeting = meet(stream, peering.clone(), known.clone());
        strangers.push_back(AbortOnDropHandle::new(Handle::current().spawn(meeting)));
    }
}

/// Does the handshake.
async fn meet(stream: TcpStream, peering: Arc<Peering>, known: mpsc::Sender<Known>) {
    let _ = stream.set_nodelay(true);
    let from = stream.peer_addr().ok();
    let acceptor = TlsAcceptor::from(peering.current().server.clone());
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        // Nobody takes it once this daemon ends.
        Ok(Ok(stream)) => drop(known.send(Ok(stream)).await),
        Ok(Err(error)) => debug!(?from, %error, "somebody on the port for daemons is none"),
        Err(_) => {
            debug!(?from, "somebody on the port for daemons takes too long to show who it is")
        }
    }
}

/// A service whose calls run on the engine's threads.
#[derive(Clone)]
struct OnEngine<S> {
    inner: S,
    engine: Handle,
    workers: Arc<Workers>,
}

impl<S: NamedService> NamedService for OnEngine<S> {
    const NAME: &'static str = S::NAME;
}

type Response = http::Response<Body>;

impl<S> Service<http::Request<Body>> for OnEngine<S>
where
    S: Service<http::Request<Body>, Response = Response, Error = Infallible> + Clone + Send,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_question = request.uri().path().ends_with(QUESTION);
        if is_question && self.workers.is_own_stuck() {
            let status = tonic::Status::unavailable(HANGS);
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let answer = self.inner.call(request);
        if is_question {
            return Box::pin(answer);
        }
        // Ends with the caller's patience.
        let running = AbortOnDropHandle::new(self.engine.spawn(answer));
        Box::pin(async move {
            match running.await {
                Ok(answer) => answer,
                Err(error) => {
                    let status = tonic::Status::unavailable(format!("the call ended: {error}"));
                    Ok(status.into_http())
                }
            }
        })
    }
}
