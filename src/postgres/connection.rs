//! A client's connection as messages: buffers on both sides of the socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::door::{Guest, Proof};
use super::frontend::{Frontend, Malformed};
use crate::bursts;
use crate::metrics::Clients;
use crate::tls::{Acceptor, Tls};

/// Bytes that wait before they are sent in one system call.
const FLUSH_AT: usize = 64 * 1024;

/// Bytes of further messages that are taken while a statement runs; then the client has to wait.
const READ_AHEAD: usize = 64 * 1024;

/// Bytes that are read at once where many come.
const READ_MUCH: usize = 128 * 1024;

/// The longest start-up packet, as in PostgreSQL (`MAX_STARTUP_PACKET_LENGTH`).
const MAX_STARTUP: usize = 10_000;

/// How long a connection is kept after the last word, for the client to read it.
pub(super) const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a message of {length} bytes is longer than the limit here ({limit})")]
    TooLong { length: usize, limit: usize },
    /// See [`Connection::until`].
    #[error("the daemon ends")]
    Ending,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The socket with its buffers.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    tls: Option<Arc<Tls>>,
    /// On whose behalf it was opened within this process.
    guest: Option<Box<Guest>>,
    /// Until its client is logged in: ends the wait for what that says.
    ending: Option<CancellationToken>,
    input: BytesMut,
    output: BytesMut,
    message_limit: usize,
    /// Bytes there is place for before more are read; 0: as it comes.
    read_at_once: usize,
    counts: Arc<Clients>,
}

impl Connection {
    pub fn new(socket: TcpStream, message_limit: usize, counts: Arc<Clients>) -> Self {
        Self {
            socket: Socket::Plain(socket),
            tls: None,
            guest: None,
            ending: None,
            input: BytesMut::new(),
            output: BytesMut::new(),
            message_limit,
            read_at_once: 0,
            counts,
        }
    }

    /// One within this process.
    pub fn inside(
        stream: DuplexStream,
        guest: Guest,
        message_limit: usize,
        counts: Arc<Clients>,
    ) -> Self {
        Self {
            socket: Socket::Inside(stream),
            tls: guest.tls.clone(),
            guest: Some(Box::new(guest)),
            ending: None,
            input: BytesMut::new(),
            output: BytesMut::new(),
            message_limit,
            read_at_once: 0,
            counts,
        }
    }

    /// Waits for what a client says that is not logged in no longer than until `ending`: whoever waits
    /// gets [`Error::Ending`] then, and the client is yet to be told.
    pub fn until(mut self, ending: CancellationToken) -> Self {
        self.ending = Some(ending);
        self
    }

    /// Its client is logged in: sessions end in another way.
    pub fn logged_in(&mut self) {
        self.ending = None;
    }

    /// Ends when nobody waits any more for who is not logged in.
    pub fn ending(&self) -> impl Future<Output = ()> + use<> {
        let ending = self.ending.clone();
        async move {
            match ending {
                Some(ending) => ending.cancelled().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The first byte that comes through the socket, which stays there; `None` if none comes any more.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let Socket::Plain(socket) = &self.socket else { return Ok(None) };
        let mut first = [0];
        tokio::select! {
            biased;
            read = socket.peek(&mut first) => Ok((read? == 1).then_some(first[0])),
            () = self.ending() => Ok(None),
        }
    }

    /// On whose behalf it was opened within this process, if it was.
    pub fn guest(&self) -> Option<&Guest> {
        self.guest.as_deref()
    }

    /// Whether its client has proved who it is, on another connection.
    pub fn is_proven(&self) -> bool {
        self.guest().is_some_and(|guest| guest.proof == Proof::Given)
    }

    /// Does the handshake, and goes on in TLS. With `direct` nothing was said in plaintext before.
    /// What waits in the buffers is dropped.
    pub async fn encrypt(self, acceptor: &Acceptor, direct: bool) -> io::Result<Self> {
        let ended = self.ending();
        let Socket::Plain(socket) = self.socket else {
            return Err(io::Error::other("TLS within TLS"));
        };
        let (socket, tls) = tokio::select! {
            biased;
            accepted = acceptor.accept(socket, direct) => accepted?,
            // In the middle of a handshake there is no way to say so.
            () = ended => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        Ok(Self {
            socket: Socket::Tls(Box::new(socket)),
            tls: Some(Arc::new(tls)),
            guest: None,
            ending: self.ending,
            input: BytesMut::new(),
            output: BytesMut::new(),
            message_limit: self.message_limit,
            read_at_once: self.read_at_once,
            counts: self.counts,
        })
    }

    /// What is known of the encryption; `None` in plaintext.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// What goes between all clients and the daemon.
    pub fn counts(&self) -> &Clients {
        &self.counts
    }

    /// The most bytes a message may have.
    pub fn message_limit(&self) -> usize {
        self.message_limit
    }

    /// Whether many bytes are to come: then more of them are taken at once.
    pub fn expect_much(&mut self, much: bool) {
        self.read_at_once = if much { READ_MUCH } else { 0 };
    }

    /// Whether bytes have arrived that nobody has taken yet.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// The next start-up packet, its length taken off; `None` at the end of the connection.
    pub async fn startup_packet(&mut self) -> Result<Option<Bytes>> {
        if !self.fill_to(4).await? {
            return Ok(None);
        }
        let length = (&self.input[..4]).get_u32() as usize;
        if !(8..=MAX_STARTUP).contains(&length) {
            return Err(Malformed::Invalid("the length of the start-up packet is invalid").into());
        }
        if !self.fill_to(length).await? {
            return Ok(None);
        }
        let mut packet = self.input.split_to(length).freeze();
        packet.advance(4);
        Ok(Some(packet))
    }

    /// The next message; `None` at the end of the connection. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Frontend>> {
        self.next_up_to(self.message_limit).await
    }

    /// The next message, of at most so many bytes.
    pub async fn next_up_to(&mut self, limit: usize) -> Result<Option<Frontend>> {
        if !self.fill_to(5).await? {
            return Ok(None);
        }
        let length = (&self.input[1..5]).get_u32() as usize;
        if length < 4 {
            return Err(Malformed::Invalid("its length is invalid").into());
        }
        if length > limit {
            return Err(Error::TooLong { length, limit });
        }
        if !self.fill_to(length + 1).await? {
            return Ok(None);
        }
        let mut message = self.input.split_to(length + 1).freeze();
        let kind = message.get_u8();
        message.advance(4);
        Ok(Some(Frontend::decode(kind, message)?))
    }

    /// Whether a whole further message has arrived already.
    pub fn has_message(&self) -> bool {
        self.input.len() >= 5 && self.input.len() > (&self.input[1..5]).get_u32() as usize
    }

    /// Reads until there are so many bytes; false if the client closed the connection first.
    async fn fill_to(&mut self, length: usize) -> Result<bool> {
        while self.input.len() < length {
            if self.read_at_once > 0 {
                self.input.reserve(self.read_at_once);
            }
            // What is claimed is reserved only as far as it arrives.
            let read = self.socket.read_buf(&mut self.input);
            let read = match &self.ending {
                None => read.await?,
                Some(ending) => tokio::select! {
                    biased;
                    read = read => read?,
                    () = ending.cancelled() => return Err(Error::Ending),
                },
            };
            if read == 0 {
                return Ok(false);
            }
            self.counts.received.add(read as u64);
        }
        Ok(true)
    }

    /// Ends when the client is gone, taking in what it sends meanwhile. Cancel safe.
    pub async fn closed(&mut self) {
        while self.input.len() < READ_AHEAD {
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(read) => self.counts.received.add(read as u64),
            }
        }
        std::future::pending().await
    }

    /// Puts a message into the buffer.
    pub fn put(&mut self, message: Backend) -> io::Result<()> {
        message.encode(&mut self.output).map_err(io::Error::other)
    }

    /// Puts ready-made messages into the buffer; without a copy if it is empty.
    pub fn put_encoded(&mut self, messages: BytesMut) {
        if self.output.is_empty() {
            self.output = messages;
        } else {
            self.output.extend_from_slice(&messages);
        }
    }

    /// Puts a single byte into the buffer: the answer to an encryption request.
    pub fn put_byte(&mut self, byte: u8) {
        self.output.extend_from_slice(&[byte]);
    }

    /// Whether something waits to be sent.
    pub fn holds_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Sends what waits, if it is worth a system call.
    pub async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.output.len() < FLUSH_AT {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends all that waits.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.output.has_remaining() {
            let written = self.socket.write_buf(&mut self.output).await?;
            self.counts.sent.add(written as u64);
        }
        // TLS keeps what it has encrypted until it is told.
        self.socket.flush().await?;
        bursts::answered();
        // What grew for one large result is not kept for a session's life.
        if self.output.capacity() > 4 * FLUSH_AT {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Sends what waits and closes the connection.
    ///
    /// What the client sends at the same moment is read and dropped for a while: where it arrives at
    /// a socket that is closed, the client's system forgets what it has received, and the client
    /// never learns why the connection ended.
    pub async fn close(&mut self) {
        if self.flush().await.is_err() || self.socket.shutdown().await.is_err() {
            return;
        }
        let mut dropped = [0; 4096];
        let drain = async { while let Ok(1..) = self.socket.read(&mut dropped).await {} };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

/// Plaintext, TLS, or none at all. All are served by the same code; in plaintext it costs a branch.
#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Inside(DuplexStream),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Inside(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Inside(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Inside(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Inside(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
