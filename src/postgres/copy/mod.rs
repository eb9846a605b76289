//! COPY ... TO STDOUT: a result as the client's file wants it. COPY ... FROM STDIN: such a file, as
//! it comes.

mod incoming;

use arrow::datatypes::Schema;
use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};

pub use self::incoming::gone;
use self::incoming::{End, receive};
use super::connection::Connection;
use super::reading::{Chunk, Failure, next, put_piece};
use super::session::{Client, Trouble};
use super::sqlstate::Report;
use crate::engine::{self, system::shown_name};
use crate::query::copy::CopyOut;
use crate::query::{Prepared, Registered, Running};
use crate::storage::results::ResultFile;
use crate::values::encode::CopyFormat;

/// Sends all rows, and says how many there were. After a failure the client is told of that, and of
/// no end of the copy.
pub async fn copy_out(
    running: Running<Chunk>,
    (copy, file): (&CopyOut, Option<ResultFile>),
    schema: &Schema,
    connection: &mut Connection,
) -> Result<u64, Failure> {
    let columns = schema.fields();
    let format = i8::from(copy.format == CopyFormat::Binary);
    // The encoder refused more columns than an i16 counts.
    let response =
        CopyOutResponse::new(format, columns.len() as i16, vec![format.into(); columns.len()]);
    connection.put(Backend::CopyOutResponse(response))?;
    if copy.header {
        let names = columns.iter().map(|field| shown_name(field.name()));
        connection.put_encoded(copy.format.header(names));
    }
    let mut running = Some(running);
    let mut rows = 0;
    while let Some(chunk) = next(&mut running, connection).await? {
        rows += chunk.rows as u64;
        connection.put_encoded(chunk.bytes);
        connection.flush_if_full().await?;
    }
    match file {
        None => connection.put_encoded(copy.format.trailer(rows)),
        Some(file) => {
            let rest =
                file.finish().map_err(|error| Failure::Query(engine::Error::from(error).into()))?;
            let mut bytes = BytesMut::new();
            put_piece(&rest, &mut bytes);
            connection.put_encoded(bytes);
        }
    }
    connection.put(Backend::CopyDone(CopyDone::new()))?;
    Ok(rows)
}

impl Client {
    /// Takes what the client copies into a table, up to its end.
    pub async fn copy_in(
        &mut self,
        registered: Registered,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        let copy = self.session.begin_copy_in(&registered, prepared).await?;
        let (columns, binary) = (copy.columns(), copy.is_binary());
        let Ok(count) = i16::try_from(columns) else {
            return Err(Report::error("54011", "too many columns to copy").into());
        };
        let format = i8::from(binary);
        let response = CopyInResponse::new(format, count, vec![format.into(); columns]);
        self.warn()?;
        self.connection.put(Backend::CopyInResponse(response))?;
        self.connection.flush().await?;
        let limit = self.connection.message_limit();
        let (feed, inserting) = self.session.receive(registered, copy, limit);
        self.connection.expect_much(true);
        let (rows, end) = receive(&mut self.connection, feed, inserting).await;
        self.connection.expect_much(false);
        match (rows, end) {
            (Ok(rows), _) => Ok(self.complete(&format!("COPY {rows}"))?),
            // What the client says next is not what it is taken for.
            (Err(Trouble::Report(report)), End::Lost) => {
                self.report(report)?;
                let lost = "terminating connection because protocol synchronization was lost";
                Err(self.part(Report::fatal("08P01", lost)).await.err().unwrap_or_else(gone).into())
            }
            (Err(trouble), _) => Err(trouble),
        }
    }
}
