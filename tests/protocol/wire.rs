//! A client that speaks the protocol message by message, so that tests can say what no driver
//! would. It blocks, and panics rather than wait for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::common::daemon::{Daemon, PATIENCE};

/// Protocol 3.0, the one that all clients speak.
pub const PROTOCOL_3_0: u32 = 3 << 16;

/// Request codes in place of a protocol version (PostgreSQL's `pqcomm.h`).
pub const CANCEL: u32 = (1234 << 16) | 5678;
pub const SSL: u32 = (1234 << 16) | 5679;
pub const GSSAPI: u32 = (1234 << 16) | 5680;

#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// What the server gave for cancel requests: process id and key.
    pub key: Bytes,
    /// The messages of the greeting, up to ReadyForQuery.
    pub greeting: Vec<Message>,
}

/// A message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: char,
    pub body: Bytes,
}

impl Wire {
    /// Connects, and says nothing yet.
    pub fn open(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect_timeout(&daemon.postgres(), PATIENCE);
        let stream = stream.expect("the daemon accepts a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, key: Bytes::new(), greeting: Vec::new() }
    }

    /// A session as `oribi` in the database `oribi`.
    pub fn log_in(daemon: &Daemon) -> Self {
        let mut wire = Self::open(daemon);
        wire.start(PROTOCOL_3_0, &[("user", "oribi"), ("database", "oribi")]);
        wire.greeting = wire.until('Z');
        let key = wire.greeting.iter().find(|message| message.kind == 'K');
        wire.key = key.expect("BackendKeyData").body.clone();
        wire
    }

    /// Sends a start-up message.
    pub fn start(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut body = BytesMut::new();
        body.put_u32(version);
        for (name, value) in parameters {
            put_text(&mut body, name);
            put_text(&mut body, value);
        }
        body.put_u8(0);
        self.packet(&body);
    }

    /// Sends bytes with a length in front, as messages before the log-in are.
    pub fn packet(&mut self, body: &[u8]) {
        let mut packet = BytesMut::new();
        packet.put_u32(body.len() as u32 + 4);
        packet.put_slice(body);
        self.raw(&packet);
    }

    pub fn send(&mut self, messages: impl IntoIterator<Item = Bytes>) {
        self.raw(&messages.into_iter().collect::<Vec<_>>().concat());
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the daemon takes what is sent");
    }

    /// Says a query and returns all that comes of it, up to ReadyForQuery.
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send([query(sql)]);
        self.until('Z')
    }

    /// Sends messages and a Sync; returns all that comes of them.
    pub fn exchange(&mut self, messages: impl IntoIterator<Item = Bytes>) -> Vec<Message> {
        self.send(messages.into_iter().chain([sync()]));
        self.until('Z')
    }

    /// Messages up to the first of that kind.
    pub fn until(&mut self, kind: char) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let Some(message) = self.next() else {
                panic!("the connection ended before {kind}: {messages:?}");
            };
            messages.push(message);
            if messages.last().is_some_and(|message| message.kind == kind) {
                return messages;
            }
        }
    }

    /// Messages up to ReadyForQuery, or to the connection's end if that comes first.
    pub fn until_closed_or_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            let ready = message.kind == 'Z';
            messages.push(message);
            if ready {
                break;
            }
        }
        messages
    }

    /// Messages up to the connection's end.
    pub fn until_closed(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The next message; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Message> {
        let mut head = [0; 5];
        if !self.fill(&mut head) {
            return None;
        }
        let length = (&head[1..]).get_u32() as usize - 4;
        let mut body = vec![0; length];
        assert!(self.fill(&mut body), "a message was cut off");
        Some(Message { kind: head[0].into(), body: body.into() })
    }

    /// A single byte: the answer to an encryption request.
    pub fn byte(&mut self) -> char {
        let mut byte = [0];
        assert!(self.fill(&mut byte), "the connection ended");
        byte[0].into()
    }

    /// Reads some of what comes, whatever it is; 0 at the end of the connection.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> usize {
        self.stream.read(buffer).expect("the daemon sends in time")
    }

    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => false,
                _ => panic!("nothing came within {PATIENCE:?}: {error}"),
            },
        }
    }
}

/// Asks to cancel what the session with this key runs, over a connection of its own, and waits
/// until the server has closed that.
pub fn cancel(daemon: &Daemon, key: &[u8]) {
    let mut body = BytesMut::new();
    body.put_u32(CANCEL);
    body.put_slice(key);
    let mut wire = Wire::open(daemon);
    wire.packet(&body);
    assert_eq!(wire.until_closed(), [], "a cancel request is not answered");
}

impl Message {
    /// A field of an error or a notice, such as `C` for its SQLSTATE.
    pub fn field(&self, kind: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        let mut found = fields.filter(|field| field.first() == Some(&kind));
        found.next().map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// The values of a row.
    pub fn values(&self) -> Vec<Option<Bytes>> {
        let mut body = self.body.clone();
        let count = body.get_u16();
        let mut value = || match body.get_i32() {
            -1 => None,
            length => Some(body.split_to(length as usize)),
        };
        (0..count).map(|_| value()).collect()
    }

    /// The values of a row in text.
    pub fn texts(&self) -> Vec<Option<String>> {
        let text = |value: Bytes| String::from_utf8_lossy(&value).into_owned();
        self.values().into_iter().map(|value| value.map(text)).collect()
    }

    /// What stands in it up to its first zero byte, such as the tag of CommandComplete.
    pub fn text(&self) -> String {
        let end = self.body.iter().position(|byte| *byte == 0).unwrap_or(self.body.len());
        String::from_utf8_lossy(&self.body[..end]).into_owned()
    }
}

/// The kinds of messages, one letter each. Rows in sequence count as one: `TDC`.
pub fn kinds(messages: &[Message]) -> String {
    let mut kinds: Vec<char> = messages.iter().map(|message| message.kind).collect();
    kinds.dedup_by(|a, b| *a == 'D' && *b == 'D');
    kinds.into_iter().collect()
}

/// The first message of a kind.
#[track_caller]
pub fn first(messages: &[Message], kind: char) -> &Message {
    let found = messages.iter().find(|message| message.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {messages:?}"))
}

/// The SQLSTATE of the error that came.
#[track_caller]
pub fn code(messages: &[Message]) -> String {
    first(messages, 'E').field(b'C').expect("an error has an SQLSTATE")
}

/// The first value of each row, in text.
pub fn column(messages: &[Message]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.kind == 'D');
    rows.map(|row| row.texts().swap_remove(0).unwrap_or_else(|| "NULL".to_owned())).collect()
}

/// The transaction status in ReadyForQuery.
#[track_caller]
pub fn status(messages: &[Message]) -> char {
    first(messages, 'Z').body[0].into()
}

/// A message of any kind.
pub fn message(kind: u8, body: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(kind);
    message.put_u32(body.len() as u32 + 4);
    message.put_slice(body);
    message.freeze()
}

pub fn query(sql: &str) -> Bytes {
    message(b'Q', &texts(&[sql]))
}

/// `types`: OIDs, 0 for one that the server has to find.
pub fn parse(name: &str, sql: &str, types: &[u32]) -> Bytes {
    let mut body = texts(&[name, sql]);
    body.put_u16(types.len() as u16);
    types.iter().for_each(|oid| body.put_u32(*oid));
    message(b'P', &body)
}

/// Binds text parameters; all columns come in text.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Bytes {
    let parameters: Vec<_> = parameters.iter().map(|value| value.map(str::as_bytes)).collect();
    bind_as(portal, statement, &[], &parameters, &[])
}

/// Formats: 0 is text, 1 is binary; none is text for all, one stands for all.
pub fn bind_as(
    portal: &str,
    statement: &str,
    parameter_formats: &[i16],
    parameters: &[Option<&[u8]>],
    result_formats: &[i16],
) -> Bytes {
    let mut body = texts(&[portal, statement]);
    body.put_u16(parameter_formats.len() as u16);
    parameter_formats.iter().for_each(|format| body.put_i16(*format));
    body.put_u16(parameters.len() as u16);
    for value in parameters {
        body.put_i32(value.map_or(-1, |value| value.len() as i32));
        body.put_slice(value.unwrap_or_default());
    }
    body.put_u16(result_formats.len() as u16);
    result_formats.iter().for_each(|format| body.put_i16(*format));
    message(b'B', &body)
}

pub fn describe_statement(name: &str) -> Bytes {
    message(b'D', &[b"S", &texts(&[name])[..]].concat())
}

pub fn describe_portal(name: &str) -> Bytes {
    message(b'D', &[b"P", &texts(&[name])[..]].concat())
}

pub fn close_statement(name: &str) -> Bytes {
    message(b'C', &[b"S", &texts(&[name])[..]].concat())
}

/// `rows`: at most so many, 0 for all.
pub fn execute(portal: &str, rows: i32) -> Bytes {
    let mut body = texts(&[portal]);
    body.put_i32(rows);
    message(b'E', &body)
}

pub fn sync() -> Bytes {
    message(b'S', &[])
}

pub fn flush() -> Bytes {
    message(b'H', &[])
}

fn texts(values: &[&str]) -> BytesMut {
    let mut body = BytesMut::new();
    values.iter().for_each(|value| put_text(&mut body, value));
    body
}

fn put_text(body: &mut BytesMut, text: &str) {
    body.put_slice(text.as_bytes());
    body.put_u8(0);
}
