//! A client of the daemon's own: PostgreSQL's protocol over a stream within the process. So whatever
//! the console does is a statement like any other, with its role's rights.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use postgres_types::Type;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A failure or a notice, as the daemon tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub severity: String,
    pub code: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// In characters from 1 on, of the text that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Where it happened, in the words of COPY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A result's column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    pub name: String,
    /// PostgreSQL's name of its type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What the daemon says.
#[derive(Debug)]
pub enum Message {
    Columns(Vec<Column>),
    /// Values in text.
    Row(Row),
    /// A statement is complete, with this tag.
    Complete(String),
    /// There are more rows than were asked for.
    Suspended,
    Notice(Fault),
    Error(Fault),
    /// Rows that the client is to send.
    CopyIn,
    CopyOut,
    CopyData(Bytes),
    Ready,
    /// What a client need not know.
    Other,
}

/// A row as it came.
#[derive(Debug)]
pub struct Row(Bytes);

impl Row {
    /// Its values; `None` for NULL.
    pub fn values(&self) -> Vec<Option<String>> {
        let mut rest = self.0.clone();
        let mut values = Vec::new();
        if rest.remaining() < 2 {
            return values;
        }
        for _ in 0..rest.get_u16() {
            if rest.remaining() < 4 {
                break;
            }
            let value = match usize::try_from(rest.get_i32()) {
                Ok(length) if length <= rest.remaining() => {
                    Some(String::from_utf8_lossy(&rest.split_to(length)).into_owned())
                }
                _ => None,
            };
            values.push(value);
        }
        values
    }
}

/// Who logs in where.
#[derive(Clone, Copy, Debug)]
pub struct LogIn<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// `None`: whoever is asked for one is refused.
    pub password: Option<&'a str>,
    pub application_name: &'a str,
}

/// Why nobody is logged in.
#[derive(Debug)]
pub enum Refused {
    Fault(Box<Fault>),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection that is logged in.
#[derive(Debug)]
pub struct Wire {
    stream: DuplexStream,
    input: BytesMut,
    output: BytesMut,
    /// The session's process id.
    pid: i32,
}

impl Wire {
    pub async fn log_in(stream: DuplexStream, who: LogIn<'_>) -> Result<Self, Refused> {
        let mut wire = Self { stream, input: BytesMut::new(), output: BytesMut::new(), pid: 0 };
        let parameters = [
            ("user", who.user),
            ("database", who.database),
            ("application_name", who.application_name),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
        ];
        frontend::startup_message(parameters, &mut wire.output)?;
        wire.flush().await?;
        let mut scram = None;
        loop {
            let (kind, body) = wire.hear().await?;
            if kind == b'K' && body.remaining() >= 4 {
                wire.pid = (&body[..4]).get_i32();
            }
            if kind != b'R' {
                match understand(kind, body)? {
                    Message::Ready => return Ok(wire),
                    Message::Error(fault) => return Err(Refused::Fault(Box::new(fault))),
                    _ => continue,
                }
            }
            wire.prove(body, who.password, &mut scram)?;
            wire.flush().await?;
        }
    }

    /// Answers a step of the authentication.
    fn prove(
        &mut self,
        mut body: Bytes,
        password: Option<&str>,
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), Refused> {
        let step =
            if body.remaining() < 4 { return Err(malformed().into()) } else { body.get_u32() };
        match (step, scram) {
            (0, _) => Ok(()),
            (10, scram) => {
                // Nobody has a password of no characters.
                let password = password.filter(|password| !password.is_empty());
                let password = password.ok_or_else(|| {
                    Refused::Fault(Box::new(Fault {
                        severity: "FATAL".to_owned(),
                        code: "28P01".to_owned(),
                        message: "a password is needed".to_owned(),
                        ..Fault::default()
                    }))
                })?;
                // The stream within the process is not the client's TLS connection.
                let binding = ChannelBinding::unsupported();
                let scram = scram.insert(ScramSha256::new(password.as_bytes(), binding));
                let first = scram.message();
                Ok(frontend::sasl_initial_response(SCRAM_SHA_256, first, &mut self.output)?)
            }
            (11, Some(scram)) => {
                scram.update(&body)?;
                Ok(frontend::sasl_response(scram.message(), &mut self.output)?)
            }
            (12, Some(scram)) => Ok(scram.finish(&body)?),
            _ => Err(malformed().into()),
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks for one statement, and for so many of its rows at most.
    pub async fn ask(&mut self, sql: &str, rows: Option<u32>) -> io::Result<()> {
        let rows = rows.map_or(0, |rows| i32::try_from(rows).unwrap_or(i32::MAX));
        frontend::parse("", sql, std::iter::empty(), &mut self.output)?;
        // No parameters, and all columns in text.
        let none = std::iter::empty::<i16>;
        let no_values = std::iter::empty::<()>();
        let null = |(), _: &mut BytesMut| Ok(IsNull::Yes);
        let bound = frontend::bind("", "", none(), no_values, null, none(), &mut self.output);
        bound.map_err(|_| malformed())?;
        frontend::describe(b'P', "", &mut self.output)?;
        frontend::execute("", rows, &mut self.output)?;
        frontend::sync(&mut self.output);
        self.flush().await
    }

    /// Asks for all statements of a text, and for all of their rows.
    pub async fn ask_all(&mut self, sql: &str) -> io::Result<()> {
        frontend::query(sql, &mut self.output)?;
        self.flush().await
    }

    /// Sends no rows, for which the daemon waits.
    pub async fn refuse_copy(&mut self) -> io::Result<()> {
        frontend::copy_fail("COPY FROM STDIN is not possible here", &mut self.output)?;
        // The one behind the statement was taken for a part of the rows.
        frontend::sync(&mut self.output);
        self.flush().await
    }

    /// Shows that the client is there.
    pub async fn sync(&mut self) -> io::Result<()> {
        frontend::sync(&mut self.output);
        self.flush().await
    }

    /// What the daemon says next; an error at the end of the connection. Cancel safe.
    pub async fn next(&mut self) -> io::Result<Message> {
        let (kind, body) = self.hear().await?;
        understand(kind, body)
    }

    /// Whether something that it has said is here already.
    pub fn has_message(&self) -> bool {
        self.input.len() >= 5 && self.input.len() > length_of(&self.input)
    }

    async fn hear(&mut self) -> io::Result<(u8, Bytes)> {
        while !self.has_message() {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = length_of(&self.input);
        let mut message = self.input.split_to(length + 1).freeze();
        let kind = message.get_u8();
        message.advance(4);
        Ok((kind, message))
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.output.has_remaining() {
            self.stream.write_buf(&mut self.output).await?;
        }
        self.stream.flush().await
    }
}

/// A message's length, which does not count the byte before it.
fn length_of(input: &[u8]) -> usize {
    (&input[1..5]).get_u32().max(4) as usize
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the daemon does not speak the protocol")
}

fn understand(kind: u8, mut body: Bytes) -> io::Result<Message> {
    Ok(match kind {
        b'T' => Message::Columns(columns(body)?),
        b'D' => Message::Row(Row(body)),
        b'C' => Message::Complete(text(&mut body)?),
        b's' => Message::Suspended,
        b'N' => Message::Notice(fault(body)?),
        b'E' => Message::Error(fault(body)?),
        b'G' => Message::CopyIn,
        b'H' => Message::CopyOut,
        b'd' => Message::CopyData(body),
        b'Z' => Message::Ready,
        _ => Message::Other,
    })
}

/// A text that ends in a zero byte.
fn text(body: &mut Bytes) -> io::Result<String> {
    let end = body.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
    let text = String::from_utf8_lossy(&body.split_to(end)).into_owned();
    body.advance(1);
    Ok(text)
}

fn columns(mut body: Bytes) -> io::Result<Vec<Column>> {
    if body.remaining() < 2 {
        return Err(malformed());
    }
    let count = body.get_u16();
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let name = text(&mut body)?;
        if body.remaining() < 18 {
            return Err(malformed());
        }
        body.advance(6);
        let oid = body.get_u32();
        body.advance(8);
        let kind =
            Type::from_oid(oid).map_or_else(|| oid.to_string(), |kind| kind.name().to_owned());
        columns.push(Column { name, kind });
    }
    Ok(columns)
}

fn fault(mut body: Bytes) -> io::Result<Fault> {
    let mut fault = Fault::default();
    while body.remaining() > 1 {
        let field = body.get_u8();
        let value = text(&mut body)?;
        match field {
            b'V' => fault.severity = value,
            b'C' => fault.code = value,
            b'M' => fault.message = value,
            b'D' => fault.detail = Some(value),
            b'H' => fault.hint = Some(value),
            b'P' => fault.position = value.parse().ok(),
            b'W' => fault.context = Some(value),
            _ => {}
        }
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_says_is_understood() {
        let body = Bytes::from_static(b"SERROR\0VERROR\0C42501\0Mno\0Hask\0P12\0\0");
        let Ok(Message::Error(fault)) = understand(b'E', body) else { panic!("no error") };
        assert_eq!((fault.code.as_str(), fault.message.as_str()), ("42501", "no"));
        assert_eq!((fault.hint.as_deref(), fault.detail), (Some("ask"), None));
        assert_eq!(fault.position, Some(12));
        let body = b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
        let Ok(Message::Columns(columns)) = understand(b'T', Bytes::from_static(body)) else {
            panic!("no columns")
        };
        assert_eq!(columns, [Column { name: "n".into(), kind: "int4".into() }]);
        let row = Row(Bytes::from_static(b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0"));
        assert_eq!(row.values(), [Some("ab".into()), None, Some(String::new())]);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for (kind, body) in [(b'T', &b"\0\x01n\0\0\0"[..]), (b'C', b"SELECT"), (b'E', b"Cx")] {
            assert!(understand(kind, Bytes::from_static(body)).is_err(), "{}", kind as char);
        }
        let row = Row(Bytes::from_static(b"\0\x02\0\0\0\x09ab"));
        assert_eq!(row.values().first(), Some(&None));
    }
}
