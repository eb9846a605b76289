//! A declared cursor's rows, as they come from the engine: which are within reach, and how they are
//! sent.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::RecordBatch;
use bytes::BytesMut;
use datafusion::execution::memory_pool::MemoryReservation;

use super::connection::Connection;
use super::reading::{Sink, next};
use super::session::Trouble;
use super::sqlstate::Report;
use crate::engine;
use crate::query::{self, Running};

/// A cursor's rows as they come from the engine.
#[derive(Debug)]
pub struct Batches {
    /// None at the end.
    pub running: Option<Running<RecordBatch>>,
    /// Batches with the number of rows before them, in order.
    kept: VecDeque<(u64, RecordBatch)>,
    /// Rows that have come so far.
    known: u64,
    pub scroll: Scroll,
}

/// Which rows stay within reach.
#[derive(Debug)]
pub enum Scroll {
    /// SCROLL: all that were read.
    Kept(MemoryReservation),
    /// The one it is on.
    Forward,
    /// NO SCROLL: none.
    Refused,
}

impl Batches {
    pub fn new(running: Running<RecordBatch>, scroll: Scroll) -> Self {
        Self { running: Some(running), kept: VecDeque::new(), known: 0, scroll }
    }

    /// Sends rows from after row `at` on, at most `limit` of them; `None` at the end.
    pub async fn take(
        &mut self,
        connection: &mut Connection,
        at: u64,
        limit: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Option<u64>, Trouble> {
        while at >= self.known {
            let Some(batch) = next(&mut self.running, connection).await? else { return Ok(None) };
            self.keep(batch)?;
        }
        let Some((before, batch)) = self.find(at + 1) else { return Ok(None) };
        let start = (at - before) as usize;
        let rows = usize::try_from(limit).unwrap_or(usize::MAX).min(batch.num_rows() - start);
        put(batch, start..start + rows, connection, sink)?;
        if !matches!(self.scroll, Scroll::Kept(_)) {
            let on = at + rows as u64;
            self.kept.retain(|(before, batch)| before + batch.num_rows() as u64 >= on);
        }
        Ok(Some(rows as u64))
    }

    fn keep(&mut self, batch: RecordBatch) -> Result<(), Trouble> {
        if let Scroll::Kept(memory) = &mut self.scroll {
            let grown = memory.try_grow(batch.get_array_memory_size());
            grown.map_err(|error| query::Error::from(engine::Error::Execution(error)))?;
        }
        let before = self.known;
        self.known += batch.num_rows() as u64;
        if batch.num_rows() > 0 {
            self.kept.push_back((before, batch));
        }
        Ok(())
    }

    /// The batch of a row, and how many rows are before it.
    fn find(&self, row: u64) -> Option<(u64, &RecordBatch)> {
        let after = self.kept.partition_point(|(before, _)| *before < row);
        let (before, batch) = self.kept.get(after.checked_sub(1)?)?;
        Some((*before, batch))
    }

    /// Sends a row that is within reach.
    pub fn send(
        &self,
        row: u64,
        connection: &mut Connection,
        sink: &mut Sink<'_>,
    ) -> Result<(), Trouble> {
        let Some((before, batch)) = self.find(row) else { return Ok(()) };
        let at = (row - before - 1) as usize;
        put(batch, at..at + 1, connection, sink)
    }
}

fn put(
    batch: &RecordBatch,
    rows: Range<usize>,
    connection: &mut Connection,
    sink: &mut Sink<'_>,
) -> Result<(), Trouble> {
    if let Sink::Send(Some(encoder)) = sink {
        let mut bytes = BytesMut::new();
        let encoded = encoder.encode(batch, rows, &mut bytes);
        encoded.map_err(|error| Report::error(error.sqlstate(), error.to_string()))?;
        connection.put_encoded(bytes);
    }
    Ok(())
}
