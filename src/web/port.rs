//! The web port: HTTP in plaintext, and over TLS for clients that begin with it, if there is a
//! certificate.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryFutureExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::tls::{Acceptor, Tls};

/// The first byte of TLS: a handshake record. No request begins with it.
const HANDSHAKE: u8 = 0x16;

/// How long a client may take for its first byte and its handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clients that may be on the way there at once. Who comes on top of that is sent away.
const ARRIVING: usize = 256;

/// Clients that are connected at once. Each takes a descriptor, which the other ports need as well.
const CONNECTED: usize = 1024;

/// Pause after the system has refused a connection, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection's bytes, whatever they travel in.
pub trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: SocketAddr,
    /// The address that it has connected to.
    pub server: SocketAddr,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Arc<Tls>>,
}

type Arrived = (Box<dyn Bytes>, Caller);

/// Accepts clients.
pub struct Port {
    socket: TcpListener,
    tls: Option<Arc<Acceptor>>,
    arriving: FuturesUnordered<BoxFuture<'static, io::Result<Arrived>>>,
    places: Arc<Semaphore>,
}

/// A connection that has one of the places.
struct Placed {
    bytes: Box<dyn Bytes>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, into)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

impl Port {
    pub fn new(socket: TcpListener, tls: Option<Arc<Acceptor>>) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTED));
        Self { socket, tls, arriving: FuturesUnordered::new(), places }
    }

    /// A client that has come; with TLS it arrives a moment later.
    fn welcome(&mut self, socket: TcpStream, peer: SocketAddr) -> Option<Arrived> {
        let server = socket.local_addr().ok()?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            debug!(%peer, "too many clients of the web port are connected");
            return None;
        };
        // Small answers must not wait for one another.
        let _ = socket.set_nodelay(true);
        let caller = Caller { peer, server, tls: None };
        let Some(acceptor) = self.tls.clone() else {
            return Some((placed(Box::new(socket), place), caller));
        };
        if self.arriving.len() >= ARRIVING {
            debug!(%peer, "too many clients of the web port have not said anything yet");
            return None;
        }
        let arrival = arrive(socket, caller, acceptor)
            .map_ok(|(bytes, caller)| (placed(bytes, place), caller));
        self.arriving.push(arrival.boxed());
        None
    }
}

fn placed(bytes: Box<dyn Bytes>, place: OwnedSemaphorePermit) -> Box<dyn Bytes> {
    Box::new(Placed { bytes, _place: place })
}

async fn arrive(socket: TcpStream, caller: Caller, acceptor: Arc<Acceptor>) -> io::Result<Arrived> {
    let arrival = async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first[0] == HANDSHAKE {
            let (stream, tls) = acceptor.accept_web(socket).await?;
            let caller = Caller { tls: Some(Arc::new(tls)), ..caller };
            return Ok((Box::new(stream) as Box<dyn Bytes>, caller));
        }
        Ok::<Arrived, io::Error>((Box::new(socket), caller))
    };
    timeout(PATIENCE, arrival).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Listener for Port {
    type Io = Box<dyn Bytes>;
    type Addr = Caller;

    async fn accept(&mut self) -> Arrived {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(arrived) = self.arriving.next(), if !self.arriving.is_empty() => {
                    match arrived {
                        Ok(arrived) => return arrived,
                        Err(error) => debug!(%error, "a client of the web port has not arrived"),
                    }
                    continue;
                }
            };
            match accepted {
                Ok((socket, peer)) => {
                    if let Some(arrived) = self.welcome(socket, peer) {
                        return arrived;
                    }
                }
                Err(error) => {
                    warn!(%error, "a connection to the web port could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        let server = self.socket.local_addr()?;
        Ok(Caller { peer: server, server, tls: None })
    }
}

impl Connected<IncomingStream<'_, Port>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Self {
        stream.remote_addr().clone()
    }
}
