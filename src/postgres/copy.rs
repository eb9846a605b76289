//! COPY ... TO STDOUT: a result as the client's file wants it.

use arrow::datatypes::Schema;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::copy::{CopyDone, CopyOutResponse};

use super::connection::Connection;
use super::reading::{Chunk, Failure, next};
use crate::engine::system::shown_name;
use crate::query::Running;
use crate::query::copy::CopyOut;
use crate::values::encode::CopyFormat;

/// Sends all rows, and says how many there were. After a failure the client is told of that, and of
/// no end of the copy.
pub async fn copy_out(
    running: Running<Chunk>,
    copy: &CopyOut,
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
    connection.put_encoded(copy.format.trailer(rows));
    connection.put(Backend::CopyDone(CopyDone::new()))?;
    Ok(rows)
}
