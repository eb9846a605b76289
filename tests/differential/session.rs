//! One connection. It blocks, and gives up rather than wait for ever.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;

use crate::common::daemon::PATIENCE;
use crate::script::Step;

/// How long a server may say nothing where something is expected of it.
const SILENCE: Duration = Duration::from_secs(20);

pub struct Session {
    stream: TcpStream,
    /// What has come and is not read yet.
    waiting: BytesMut,
    closed: bool,
    /// The first value of the row that came last.
    last: Option<Vec<u8>>,
}

/// A message, or what there is instead.
pub enum Heard {
    Message(Message),
    /// NegotiateProtocolVersion: the crate does not know it.
    Negotiation(Vec<u8>),
    Nonsense(String),
    /// For too long.
    Nothing,
    /// The connection's end.
    End,
}

impl Session {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(SILENCE)).expect("a timeout can be set");
        Self { stream, waiting: BytesMut::new(), closed: false, last: None }
    }

    /// Sends a step's messages.
    pub fn say(&mut self, step: &Step) {
        let bytes = step.bytes(self.last.as_deref());
        self.send(&bytes);
    }

    /// A server that has closed the connection does not take it; what it said is still read.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Messages up to the first of this kind, to an error or to where the server waits for a copy;
    /// after ReadyForQuery is asked for, errors are not the end.
    pub fn hear(&mut self, until: char) -> Vec<Heard> {
        let mut heard = Vec::new();
        while !self.closed {
            let Some(kind) = self.next(&mut heard) else { break };
            if kind == until || kind == 'G' || kind == 'E' && until != 'Z' {
                break;
            }
        }
        heard
    }

    fn next(&mut self, heard: &mut Vec<Heard>) -> Option<char> {
        loop {
            if let Some(kind) = self.waiting.first().copied()
                && let Some(message) = self.complete()
            {
                if let Heard::Message(Message::DataRow(row)) = &message {
                    let first = row.ranges().next().ok().flatten().flatten();
                    self.last = first.map(|range| row.buffer()[range].to_vec());
                }
                heard.push(message);
                return Some(kind.into());
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => self.waiting.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    self.closed = true;
                }
                Err(_) => heard.push(Heard::Nothing),
            }
            if self.closed {
                heard.push(Heard::End);
            }
            if self.closed || matches!(heard.last(), Some(Heard::Nothing)) {
                return None;
            }
        }
    }

    /// The next message, if all of it is there.
    fn complete(&mut self) -> Option<Heard> {
        let length = u32::from_be_bytes(self.waiting.get(1..5)?.try_into().ok()?) as usize + 1;
        let negotiation = self.waiting.first() == Some(&b'v');
        if self.waiting.len() < length {
            return None;
        }
        let mut message = self.waiting.split_to(length);
        if negotiation {
            return Some(Heard::Negotiation(message[5..].to_vec()));
        }
        // Not what is in it, such as a key: it is another one each time.
        let shown = format!("{:?} of {length} bytes", char::from(message[0]));
        match Message::parse(&mut message) {
            Ok(Some(message)) => Some(Heard::Message(message)),
            Ok(None) => None,
            Err(error) => Some(Heard::Nonsense(format!("{error}: {shown}"))),
        }
    }
}
