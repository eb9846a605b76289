//! A client's connection as messages: buffers on both sides of the socket.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frontend::{Frontend, Malformed};

/// Bytes that wait before they are sent in one system call.
const FLUSH_AT: usize = 64 * 1024;

/// Bytes of further messages that are taken while a statement runs; then the client has to wait.
const READ_AHEAD: usize = 64 * 1024;

/// The longest start-up packet, as in PostgreSQL (`MAX_STARTUP_PACKET_LENGTH`).
const MAX_STARTUP: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a message of {length} bytes is longer than connections.message_limit ({limit})")]
    TooLong { length: usize, limit: usize },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The socket with its buffers.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    input: BytesMut,
    output: BytesMut,
    message_limit: usize,
}

impl Connection {
    pub fn new(socket: TcpStream, message_limit: usize) -> Self {
        Self { socket, input: BytesMut::new(), output: BytesMut::new(), message_limit }
    }

    /// The next start-up packet, its length taken off; `None` at the end of the connection.
    pub async fn startup_packet(&mut self) -> Result<Option<Bytes>> {
        if !self.fill_to(4).await? {
            return Ok(None);
        }
        let length = (&self.input[..4]).get_u32() as usize;
        if !(8..=MAX_STARTUP).contains(&length) {
            return Err(Malformed("the length of the start-up packet is invalid").into());
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
        if !self.fill_to(5).await? {
            return Ok(None);
        }
        let length = (&self.input[1..5]).get_u32() as usize;
        if length < 4 {
            return Err(Malformed("its length is invalid").into());
        }
        if length > self.message_limit {
            return Err(Error::TooLong { length, limit: self.message_limit });
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
    async fn fill_to(&mut self, length: usize) -> io::Result<bool> {
        while self.input.len() < length {
            // What is claimed is reserved only as far as it arrives.
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends when the client is gone, taking in what it sends meanwhile. Cancel safe.
    pub async fn closed(&mut self) {
        while self.input.len() < READ_AHEAD {
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
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
            self.socket.write_buf(&mut self.output).await?;
        }
        // What grew for one large result is not kept for a session's life.
        if self.output.capacity() > 4 * FLUSH_AT {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Sends what waits and closes the connection.
    pub async fn close(&mut self) {
        if self.flush().await.is_ok() {
            let _ = self.socket.shutdown().await;
        }
    }
}
