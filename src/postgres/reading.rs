//! A result that is being read: its rows, how far they were read, and which are within reach.
//!
//! Positions are those of PostgreSQL's portals: before the first row, on a row, or after the last.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::{Buf, BufMut, BytesMut};
use datafusion::execution::memory_pool::MemoryReservation;

use super::batches::{Batches, Scroll};
use super::connection::Connection;
use super::session::Trouble;
use super::sqlstate::Report;
use crate::query::objects::{ALL, Direction};
use crate::query::{self, Prepared, Running};
use crate::storage::results::ResultFile;
use crate::values::encode::{Format, RowEncoder, TextStyle};

/// Encoded rows: whole messages, of DataRow or of COPY.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: BytesMut,
    pub rows: usize,
}

/// Turns batches into chunks, on the engine's threads; those of a file that COPY sends into its pieces.
pub fn encoder(
    prepared: &Prepared,
    formats: Vec<Format>,
    style: TextStyle,
    file: Option<ResultFile>,
) -> Result<
    impl FnMut(RecordBatch) -> Result<Chunk, Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    Report,
> {
    let schema = prepared.schema();
    let encoder = match prepared.copy() {
        Some(copy) => RowEncoder::copy(&schema, copy.format.clone(), style),
        None => RowEncoder::new(&schema, formats, style),
    };
    let mut encoder =
        encoder.map_err(|error| Report::error(error.sqlstate(), error.to_string()))?;
    Ok(move |batch: RecordBatch| {
        let mut bytes = BytesMut::new();
        if let Some(file) = &file {
            put_piece(&file.write(&batch)?, &mut bytes);
            return Ok(Chunk { bytes, rows: batch.num_rows() });
        }
        encoder.encode(&batch, 0..batch.num_rows(), &mut bytes)?;
        Ok(Chunk { bytes, rows: batch.num_rows() })
    })
}

/// Puts a piece of a file into COPY's messages; nothing for an empty one.
pub fn put_piece(piece: &[u8], out: &mut BytesMut) {
    for part in piece.chunks(PIECE) {
        out.put_u8(b'd');
        out.put_u32(part.len() as u32 + 4);
        out.put_slice(part);
    }
}

/// Bytes of a file in one message.
const PIECE: usize = 64 * 1024;

/// Why a result ended before its end.
#[derive(Debug)]
pub enum Failure {
    Query(query::Error),
    /// Nobody is there to be told.
    Gone(io::Error),
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        Self::Query(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// A result on its way.
#[derive(Debug)]
pub struct Reading {
    source: Source,
    /// The command tag, its word alone where it counts the rows that are read.
    pub tag: Cow<'static, str>,
    /// The row it is on, counted from 1; 0 before the first.
    at: u64,
    /// It is after the last row, which is `at`.
    ended: bool,
    suspended: bool,
}

#[derive(Debug)]
enum Source {
    /// In the formats that a client asked for from the start.
    Encoded {
        /// None at the end.
        running: Option<Running<Chunk>>,
        /// Rows that came with the last ones but were not asked for yet.
        rest: Option<Chunk>,
    },
    /// A declared cursor's, encoded when they are fetched.
    Batches(Batches),
}

/// Where rows go.
pub enum Sink<'a> {
    /// They are only passed.
    Skip,
    /// To the client; those of a cursor through its encoder.
    Send(Option<&'a mut RowEncoder>),
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    Rows(u64),
    /// To be started anew, with so many rows passed on the way back.
    Rewind(u64),
}

impl Reading {
    pub fn encoded(running: Running<Chunk>) -> Self {
        let tag = running.tag.clone();
        let source = Source::Encoded { running: Some(running), rest: None };
        Self { source, tag, at: 0, ended: false, suspended: false }
    }

    /// A declared cursor's result. `memory` pays for the rows of one that scrolls.
    pub fn batches(
        running: Running<RecordBatch>,
        scroll: Option<bool>,
        memory: MemoryReservation,
    ) -> Self {
        let tag = running.tag.clone();
        let scroll = match scroll {
            Some(true) => Scroll::Kept(memory),
            Some(false) => Scroll::Refused,
            None => Scroll::Forward,
        };
        let source = Source::Batches(Batches::new(running, scroll));
        Self { source, tag, at: 0, ended: false, suspended: false }
    }

    /// Computes what PostgreSQL computes before it describes a result.
    pub async fn settle(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        if let Source::Encoded { running, rest: rest @ None } = &mut self.source
            && running.as_ref().is_some_and(|running| running.constant)
        {
            *rest = next(running, connection).await?;
        }
        Ok(())
    }

    /// Whether all rows were read.
    pub fn is_over(&self) -> bool {
        self.ended
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// The client takes its time from here on.
    pub fn suspend(&mut self) {
        self.suspended = true;
        match &mut self.source {
            Source::Encoded { running: Some(running), .. } => running.suspend(),
            Source::Batches(Batches { running: Some(running), .. }) => running.suspend(),
            _ => {}
        }
    }

    /// The client reads on; each of its requests has so much time.
    pub fn resume(&mut self, timeout: Option<Duration>) {
        self.suspended = false;
        match &mut self.source {
            Source::Encoded { running: Some(running), .. } => running.resume(timeout),
            Source::Batches(Batches { running: Some(running), .. }) => running.resume(timeout),
            _ => {}
        }
    }

    /// Reads so many rows, or as many as there are; returns how many that was.
    pub async fn forward(
        &mut self,
        connection: &mut Connection,
        limit: u64,
        sink: &mut Sink<'_>,
    ) -> Result<u64, Trouble> {
        if self.ended {
            return Ok(0);
        }
        let mut left = limit;
        while left > 0 {
            let taken = match &mut self.source {
                Source::Encoded { running, rest } => {
                    take(running, rest, connection, left, sink).await?
                }
                Source::Batches(batches) => batches.take(connection, self.at, left, sink).await?,
            };
            let Some(rows) = taken else {
                self.ended = true;
                break;
            };
            self.at += rows;
            left -= rows;
            connection.flush_if_full().await?;
        }
        Ok(limit - left)
    }

    /// Where it is, the place after the last row being a row of its own.
    fn place(&self) -> u64 {
        self.at + u64::from(self.ended)
    }

    fn is_on_row(&self) -> bool {
        self.at > 0 && !self.ended
    }

    /// The rows behind, if they are kept.
    fn kept(&mut self) -> Result<&mut Batches, Trouble> {
        match &mut self.source {
            Source::Batches(batches) if matches!(batches.scroll, Scroll::Kept(_)) => Ok(batches),
            _ => Err(only_forward().into()),
        }
    }

    async fn backward(
        &mut self,
        connection: &mut Connection,
        count: u64,
        sink: &mut Sink<'_>,
    ) -> Result<u64, Trouble> {
        let place = self.place();
        let moved = count.min(place.saturating_sub(1));
        let batches = self.kept()?;
        for row in (place - moved..place).rev() {
            batches.send(row, connection, sink)?;
            connection.flush_if_full().await?;
        }
        // With fewer rows than were asked for, it is before the first.
        self.go_to(if moved < count { 0 } else { place - moved });
        Ok(moved)
    }

    fn go_to(&mut self, row: u64) {
        (self.at, self.ended) = (row, false);
    }

    /// Goes where FETCH and MOVE want it, and sends the rows there.
    pub async fn fetch(
        &mut self,
        connection: &mut Connection,
        direction: Direction,
        sink: &mut Sink<'_>,
    ) -> Result<Fetched, Trouble> {
        let skip = &mut Sink::Skip;
        let rows = match direction {
            Direction::Forward(0) | Direction::Backward(0) | Direction::Relative(0) => {
                self.again(connection, sink)?
            }
            Direction::Forward(count) if count > 0 => {
                self.forward(connection, count.unsigned_abs(), sink).await?
            }
            Direction::Backward(count) if count < 0 => {
                self.forward(connection, count.unsigned_abs(), sink).await?
            }
            Direction::Backward(ALL) if matches!(sink, Sink::Skip) => return self.rewind(),
            Direction::Forward(count) | Direction::Backward(count) => {
                self.backward(connection, count.unsigned_abs(), sink).await?
            }
            Direction::Relative(count) if count > 0 => {
                self.forward(connection, count.unsigned_abs() - 1, skip).await?;
                self.forward(connection, 1, sink).await?
            }
            Direction::Relative(count) => {
                self.backward(connection, count.unsigned_abs() - 1, skip).await?;
                self.backward(connection, 1, sink).await?
            }
            Direction::Absolute(row) if row > 0 => {
                let before = row.unsigned_abs() - 1;
                if self.place() > before {
                    self.kept()?;
                    self.go_to(before);
                }
                self.forward(connection, before - self.at, skip).await?;
                self.forward(connection, 1, sink).await?
            }
            Direction::Absolute(row) => {
                if row < 0 || self.place() > 0 {
                    self.kept()?;
                }
                let mut before = None;
                if row < 0 {
                    self.forward(connection, u64::MAX, skip).await?;
                    before = self.at.checked_sub(row.unsigned_abs());
                }
                self.go_to(before.unwrap_or(0));
                match before {
                    Some(_) => self.forward(connection, 1, sink).await?,
                    None => 0,
                }
            }
        };
        Ok(Fetched::Rows(rows))
    }

    /// The row it is on once more.
    fn again(&mut self, connection: &mut Connection, sink: &mut Sink<'_>) -> Result<u64, Trouble> {
        if !self.is_on_row() {
            return Ok(0);
        }
        match (&mut self.source, &sink) {
            (_, Sink::Skip) => {}
            (Source::Batches(batches), _) if !matches!(batches.scroll, Scroll::Refused) => {
                batches.send(self.at, connection, sink)?;
            }
            _ => return Err(only_forward().into()),
        }
        Ok(1)
    }

    /// MOVE BACKWARD ALL, which PostgreSQL allows wherever nobody has forbidden it.
    fn rewind(&mut self) -> Result<Fetched, Trouble> {
        let passed = self.place().saturating_sub(1);
        let Source::Batches(batches) = &self.source else { return Err(only_forward().into()) };
        match batches.scroll {
            _ if self.place() == 0 => Ok(Fetched::Rows(0)),
            Scroll::Refused => Err(only_forward().into()),
            Scroll::Forward => Ok(Fetched::Rewind(passed)),
            Scroll::Kept(_) => {
                self.go_to(0);
                Ok(Fetched::Rows(passed))
            }
        }
    }
}

fn only_forward() -> Report {
    Report::error("55000", "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}

/// The next rows of an encoded result; `None` at its end.
async fn take(
    running: &mut Option<Running<Chunk>>,
    rest: &mut Option<Chunk>,
    connection: &mut Connection,
    limit: u64,
    sink: &Sink<'_>,
) -> Result<Option<u64>, Trouble> {
    let mut chunk = match rest.take() {
        Some(rest) => rest,
        None => match next(running, connection).await? {
            Some(chunk) => chunk,
            None => return Ok(None),
        },
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if chunk.rows > limit {
        *rest = Some(split(&mut chunk, limit));
    }
    if matches!(sink, Sink::Send(_)) {
        connection.put_encoded(chunk.bytes);
    }
    Ok(Some(chunk.rows as u64))
}

/// How long rows wait for others to be sent with.
const LINGER: Duration = Duration::from_millis(100);

/// What the engine sends next; nothing any more after its end. Ends early when the client goes away.
/// While nothing comes, what came before is sent.
pub(super) async fn next<T: Send + 'static>(
    running: &mut Option<Running<T>>,
    connection: &mut Connection,
) -> Result<Option<T>, Failure> {
    let Some(statement) = running else { return Ok(None) };
    let next = loop {
        let holds_output = connection.holds_output();
        tokio::select! {
            biased;
            next = statement.next() => break next.transpose()?,
            () = connection.closed() => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            () = tokio::time::sleep(LINGER), if holds_output => {}
        }
        connection.flush().await?;
    };
    if next.is_none() {
        *running = None;
    }
    Ok(next)
}

/// Leaves the first rows in a chunk and returns the others.
fn split(chunk: &mut Chunk, rows: usize) -> Chunk {
    let mut end = 0;
    for _ in 0..rows {
        // A DataRow: its type, then its length, which counts itself.
        end += 1 + (&chunk.bytes[end + 1..end + 5]).get_u32() as usize;
    }
    let rest = Chunk { bytes: chunk.bytes.split_off(end), rows: chunk.rows - rows };
    chunk.rows = rows;
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_between_rows() {
        let row = |text: &[u8]| {
            let mut row = vec![b'D', 0, 0, 0, 10 + text.len() as u8, 0, 1, 0, 0, 0];
            row.push(text.len() as u8);
            row.extend(text);
            row
        };
        let bytes = [row(b"a"), row(b"bcd"), row(b"")].concat();
        let mut chunk = Chunk { bytes: bytes.as_slice().into(), rows: 3 };
        let rest = split(&mut chunk, 2);
        assert_eq!((chunk.rows, rest.rows), (2, 1));
        assert_eq!(chunk.bytes, [row(b"a"), row(b"bcd")].concat());
        assert_eq!(rest.bytes, row(b""));
    }
}
