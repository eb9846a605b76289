//! A result as a portal: rows leave it all at once or some at a time.

use std::io;

use arrow::array::RecordBatch;
use bytes::{Buf, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::extendedquery::PortalSuspended;
use pgwire::messages::response::CommandComplete;

use super::connection::Connection;
use super::sqlstate::Report;
use crate::query::{self, Running};
use crate::values::encode::{Format, RowEncoder, TextStyle};

/// Encoded rows: whole DataRow messages.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: BytesMut,
    pub rows: usize,
}

/// Turns batches into chunks, on the engine's threads.
pub fn encoder(
    schema: &arrow::datatypes::Schema,
    formats: Vec<Format>,
    style: TextStyle,
) -> Result<
    impl FnMut(RecordBatch) -> Result<Chunk, Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    Report,
> {
    let encoder = RowEncoder::new(schema, formats, style);
    let mut encoder =
        encoder.map_err(|error| Report::error(error.sqlstate(), error.to_string()))?;
    Ok(move |batch: RecordBatch| {
        let mut bytes = BytesMut::new();
        encoder.encode(&batch, 0..batch.num_rows(), &mut bytes)?;
        Ok(Chunk { bytes, rows: batch.num_rows() })
    })
}

/// A result on its way.
#[derive(Debug)]
pub struct Portal {
    running: Running<Chunk>,
    /// Rows that came with the last ones but were not asked for yet.
    rest: Option<Chunk>,
}

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

impl Portal {
    pub fn new(running: Running<Chunk>) -> Self {
        Self { running, rest: None }
    }

    /// Sends rows: `limit` of them, or all. True if that was the last of them.
    pub async fn send(
        &mut self,
        connection: &mut Connection,
        limit: Option<usize>,
    ) -> Result<bool, Failure> {
        self.running.resume();
        let mut left = limit.unwrap_or(usize::MAX);
        // As in PostgreSQL, the tag counts what this turn sent.
        let mut sent = 0;
        while left > 0 {
            let Some(mut chunk) = self.next(connection).await? else {
                let tag = format!("{} {}", self.running.tag, sent);
                let tag = if self.counts() { tag } else { self.running.tag.to_owned() };
                connection.put(Backend::CommandComplete(CommandComplete::new(tag)))?;
                return Ok(true);
            };
            if chunk.rows > left {
                self.rest = Some(split(&mut chunk, left));
            }
            left -= chunk.rows;
            sent += chunk.rows as u64;
            connection.put_encoded(chunk.bytes);
            connection.flush_if_full().await?;
        }
        self.running.suspend();
        connection.put(Backend::PortalSuspended(PortalSuspended::new()))?;
        Ok(false)
    }

    /// PostgreSQL counts the rows of queries only.
    fn counts(&self) -> bool {
        self.running.tag == "SELECT"
    }

    /// The next rows. Ends early when the client goes away.
    async fn next(&mut self, connection: &mut Connection) -> Result<Option<Chunk>, Failure> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        tokio::select! {
            biased;
            next = self.running.next() => Ok(next.transpose()?),
            () = connection.closed() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
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
