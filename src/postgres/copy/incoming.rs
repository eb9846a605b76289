//! The client's part of COPY ... FROM STDIN.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};

use crate::postgres::connection::{self, Connection};
use crate::postgres::frontend::{Frontend, Malformed};
use crate::postgres::reading::Failure;
use crate::postgres::session::Trouble;
use crate::postgres::sqlstate::Report;
use crate::query;
use crate::query::copy::feed::Feed;
use crate::values::decode::copy::Fault;

/// Bytes that are gathered from small messages before they are passed on.
const BLOCK: usize = 256 * 1024;

/// What the client's part of a copy ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the end of the data, or a failure that the client told of; or it has not ended, since
    /// the rows were refused before.
    Told,
    /// With a message that has no business there.
    Lost,
}

/// Passes the client's data on to a feed, until it ends or the rows are refused. Dropping
/// `inserting` before its end undoes all of it: that is what happens when the client is gone.
pub async fn receive(
    connection: &mut Connection,
    feed: Feed,
    inserting: impl Future<Output = query::Result<u64>>,
) -> (Result<u64, Trouble>, End) {
    let mut inserting = pin!(inserting);
    let ended = tokio::select! {
        biased;
        rows = &mut inserting => return (rows.map_err(Trouble::from), End::Told),
        ended = pump(connection, feed) => ended,
    };
    match ended {
        Ok(end) => (inserting.await.map_err(Trouble::from), end),
        Err(trouble) => (Err(trouble), End::Told),
    }
}

/// Reads the client's messages up to the end of its data. What it sends is read only as fast as the
/// feed takes it.
async fn pump(connection: &mut Connection, feed: Feed) -> Result<End, Trouble> {
    let mut waiting = BytesMut::new();
    loop {
        let message = match connection.next().await {
            Ok(Some(Frontend::Terminate) | None) => return Err(gone().into()),
            Ok(Some(message)) => message,
            Err(connection::Error::Io(error)) => return Err(error.into()),
            Err(connection::Error::Malformed(Malformed::UnknownType(kind))) => {
                return Ok(lose(feed, waiting, kind).await);
            }
            Err(error @ connection::Error::TooLong { .. }) => {
                return Err(Report::fatal("54000", error.to_string()).into());
            }
            Err(error) => return Err(Report::fatal("08P01", error.to_string()).into()),
        };
        match message {
            Frontend::CopyData(mut block) if waiting.is_empty() && block.len() >= BLOCK => {
                while !block.is_empty() {
                    feed.push(block.split_to(BLOCK.min(block.len()))).await;
                }
            }
            Frontend::CopyData(block) => waiting.extend_from_slice(&block),
            Frontend::CopyDone => {
                feed.push(waiting.freeze()).await;
                feed.end().await;
                return Ok(End::Told);
            }
            Frontend::CopyFail(reason) => {
                feed.push(waiting.freeze()).await;
                feed.fail(failed(&reason)).await;
                return Ok(End::Told);
            }
            // Clients send these before they notice that this is a copy.
            Frontend::Flush | Frontend::Sync | Frontend::Invalid { kind: b'H' | b'S', .. } => {}
            other => return Ok(lose(feed, waiting, other.kind()).await),
        }
        if waiting.len() >= BLOCK || !waiting.is_empty() && !connection.has_message() {
            // A feed that takes no more has failed, and `receive` hears of it.
            feed.push(waiting.split().freeze()).await;
        }
    }
}

async fn lose(feed: Feed, waiting: BytesMut, kind: u8) -> End {
    feed.push(waiting.freeze()).await;
    feed.fail(Fault::Unexpected(kind)).await;
    End::Lost
}

/// Why the client says that it failed.
fn failed(reason: &Bytes) -> Fault {
    match reason.iter().position(|byte| *byte == 0) {
        Some(end) => Fault::Failed(String::from_utf8_lossy(&reason[..end]).into_owned()),
        None => Fault::EndlessString,
    }
}

pub fn gone() -> Failure {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use arrow::datatypes::{DataType, Field};
    use futures::TryStreamExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::Handle;

    use super::*;
    use crate::query::Stop;
    use crate::query::copy::feed::{Batches, channel};
    use crate::values::decode::copy::{CopyDecoder, CopySource, Header};
    use crate::values::encode::{CopyText, TimeZone};

    /// A table of two columns that counts the rows it has.
    #[derive(Clone, Default)]
    struct Table(Arc<AtomicU64>);

    impl Table {
        /// All batches, or none.
        async fn insert(self, batches: Batches) -> query::Result<u64> {
            let batches: Vec<_> = batches.into_stream().try_collect().await?;
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            self.0.fetch_add(rows, Ordering::Relaxed);
            Ok(rows)
        }

        fn rows(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn start(stop: impl Future<Output = Stop> + Send + 'static) -> (Feed, Batches) {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        let fields = [field("a", DataType::Int32), field("b", DataType::Utf8)];
        let text = CopyText { delimiter: b'\t', null: "\\N".into() };
        let source = CopySource::Text(text, Header::None);
        let decoder = CopyDecoder::new("t", &fields, source, TimeZone::utc(), 1 << 20);
        channel(decoder, &Handle::current(), stop)
    }

    async fn connect() -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut connection =
            Connection::new(server.expect("accepted").0, 1 << 20, Default::default());
        connection.expect_much(true);
        (client.expect("connected"), connection)
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    struct Copied {
        rows: Result<u64, Trouble>,
        end: End,
        table: Table,
        connection: Connection,
    }

    /// What comes of a client's messages; the client stays until the end.
    async fn copy(messages: &[Vec<u8>]) -> Copied {
        let (mut client, mut connection) = connect().await;
        let (feed, batches) = start(std::future::pending());
        let table = Table::default();
        let inserting = table.clone().insert(batches);
        client.write_all(&messages.concat()).await.expect("sent");
        let (rows, end) = receive(&mut connection, feed, inserting).await;
        drop(client);
        Copied { rows, end, table, connection }
    }

    fn report(rows: Result<u64, Trouble>) -> Report {
        match rows {
            Err(Trouble::Report(report)) => report,
            Err(Trouble::Failure(failure)) => panic!("{failure:?}"),
            Ok(rows) => panic!("{rows} rows"),
        }
    }

    #[tokio::test]
    async fn data_comes_in_messages_of_any_size() {
        let big: String = "7\tbig\n".repeat(100_000);
        let mut messages: Vec<_> =
            big.as_bytes().chunks(1 << 19).map(|c| message(b'd', c)).collect();
        messages.extend(b"1\tx\n2\ty\n".chunks(1).map(|byte| message(b'd', byte)));
        messages.extend([message(b'd', b""), message(b'H', b""), message(b'S', b"")]);
        messages.extend([message(b'd', b"3\tz"), message(b'c', b""), message(b'Q', b"SELECT 1\0")]);
        let mut copied = copy(&messages).await;
        assert_eq!(copied.rows.ok(), Some(100_003));
        assert_eq!((copied.end, copied.table.rows()), (End::Told, 100_003));
        let next = copied.connection.next().await.expect("a message");
        assert_eq!(next, Some(Frontend::Query("SELECT 1".to_owned())));
    }

    #[tokio::test]
    async fn a_client_that_fails_leaves_nothing() {
        let copied = copy(&[message(b'd', b"1\tx\n2\t"), message(b'f', b"why not\0")]).await;
        let report = report(copied.rows);
        assert_eq!((report.code, report.fatal), ("57014", false));
        assert_eq!(report.message, "COPY from stdin failed: why not");
        assert_eq!(report.context.as_deref(), Some("COPY t, line 2"));
        assert_eq!((copied.end, copied.table.rows()), (End::Told, 0));
        let copied = copy(&[message(b'f', b"endless")]).await;
        let report = self::report(copied.rows);
        assert_eq!((report.code, &*report.message), ("08P01", "invalid string in message"));
    }

    #[tokio::test]
    async fn wrong_rows_are_told_before_the_data_ends() {
        let copied = copy(&[message(b'd', b"1\tx\n"), message(b'd', b"x\ty\n")]).await;
        let report = report(copied.rows);
        assert_eq!((report.code, report.fatal), ("22P02", false));
        assert_eq!(report.context.as_deref(), Some("COPY t, line 2, column a: \"x\""));
        assert_eq!((copied.end, copied.table.rows()), (End::Told, 0));
    }

    #[tokio::test]
    async fn other_messages_have_no_place_there() {
        for other in [message(b'Q', b"SELECT 1\0"), message(b'P', b"bad"), message(b'?', b"")] {
            let kind = other[0];
            let copied = copy(&[message(b'd', b"1\tx\n"), other]).await;
            let report = report(copied.rows);
            assert_eq!((report.code, report.fatal), ("08P01", false));
            let text = format!("unexpected message type 0x{kind:02X} during COPY from stdin");
            assert_eq!(report.message, text);
            assert_eq!(report.context.as_deref(), Some("COPY t, line 2"));
            assert_eq!((copied.end, copied.table.rows()), (End::Lost, 0));
        }
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_ends_the_connection() {
        let copied = copy(&[[&b"d"[..], &(2_u32 << 20).to_be_bytes()].concat()]).await;
        let report = report(copied.rows);
        assert_eq!((report.code, report.fatal), ("54000", true));
        assert_eq!(copied.table.rows(), 0);
    }

    #[tokio::test]
    async fn a_client_that_goes_leaves_nothing() {
        for last in [message(b'd', b"2\ty\n"), message(b'X', b""), b"d\0".to_vec()] {
            let (mut client, mut connection) = connect().await;
            let (feed, batches) = start(std::future::pending());
            let table = Table::default();
            let inserting = table.clone().insert(batches);
            client.write_all(&[message(b'd', b"1\tx\n"), last].concat()).await.expect("sent");
            drop(client);
            let (rows, _) = receive(&mut connection, feed, inserting).await;
            assert!(matches!(rows, Err(Trouble::Failure(Failure::Gone(_)))));
            assert_eq!(table.rows(), 0);
        }
    }

    #[tokio::test]
    async fn a_statement_is_stopped_while_it_waits_for_data() {
        for (stop, code) in
            [(Stop::Cancelled, "57014"), (Stop::TimedOut, "57014"), (Stop::Terminated, "57P01")]
        {
            let (mut client, mut connection) = connect().await;
            client.write_all(&message(b'd', b"1\tx\n")).await.expect("sent");
            let (say, said) = tokio::sync::oneshot::channel();
            let (feed, batches) = start(async move { said.await.unwrap_or(Stop::ShuttingDown) });
            let table = Table::default();
            let receiving = receive(&mut connection, feed, table.clone().insert(batches));
            let stopping = async { say.send(stop).expect("somebody waits") };
            let ((rows, _), ()) = tokio::join!(receiving, stopping);
            assert_eq!(report(rows).code, code);
            assert_eq!(table.rows(), 0);
            drop(client);
        }
    }
}
