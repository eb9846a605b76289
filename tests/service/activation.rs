//! Sockets that the daemon is given, as systemd does (socket activation).

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_postgres::NoTls;

use crate::common::daemon::{Daemon, Options, PATIENCE, explain};
use crate::support::{SLOW, bounded, until};

fn free() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// Connects, asks, and is answered.
async fn ask(config: tokio_postgres::Config) -> Result<String, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let answer = client.query_one("SELECT 'served'", &[]).await;
    drop(client);
    let ended = connection.await.expect("the connection's task ends");
    match (answer, ended) {
        (Ok(row), _) => Ok(row.get(0)),
        // The server's own word came in answer to the question, or before that was sent; in the other
        // place there is only that the connection has ended.
        (Err(error), Err(told)) => Err(if error.as_db_error().is_some() { error } else { told }),
        (Err(error), Ok(())) => Err(error),
    }
}

#[tokio::test]
async fn sockets_are_found_by_name() {
    let ((postgres, at), (web, web_at)) = (free(), free());
    let options = Options::new().socket("postgres", &postgres).socket("web", &web);
    let daemon = Daemon::start(&options);
    assert_eq!((daemon.postgres(), daemon.web()), (at, web_at));
    assert_eq!(ask(daemon.client_config()).await.expect("served"), "served");
    let client = daemon.connect().await;
    let shown = "SELECT value, origin FROM system.settings WHERE key = 'postgres'";
    let row = client.query_one(shown, &[]).await.expect("a row");
    let shown: (String, String) = (row.get(0), row.get(1));
    assert_eq!(shown, (at.to_string(), "LISTEN_FDS".to_owned()));
}

#[tokio::test]
async fn sockets_are_found_by_address() {
    let (postgres, at) = free();
    let options = Options::new().env("ORIBI_POSTGRES", at.to_string());
    let daemon = Daemon::start(&options.socket("oribi.socket", &postgres));
    assert_eq!(daemon.postgres(), at);
    assert_eq!(ask(daemon.client_config()).await.expect("served"), "served");
}

#[test]
fn what_is_no_port_of_the_daemon_is_refused() {
    let ((one, at), (other, _)) = (free(), free());
    let ended = Daemon::spawn(&Options::new().socket("oribi.socket", &one));
    let expected = [&at.to_string(), "oribi.socket", "FileDescriptorName=postgres"];
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(expected.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);

    let twice = Options::new().socket("postgres", &one).socket("postgres", &other);
    let ended = Daemon::spawn(&twice);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("a second one"), "{}", ended.stderr);

    // Beyond this machine the host rules have to let somebody in.
    let wide = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let ended = Daemon::spawn(&Options::new().socket("postgres", &wide));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("connections.rules"), "{}", ended.stderr);
}

/// Sockets of another process are not this one's.
#[tokio::test]
async fn what_was_meant_for_another_process_is_left_alone() {
    let options = Options::new().env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let daemon = Daemon::start(&options);
    assert_eq!(ask(daemon.client_config()).await.expect("served"), "served");
}

/// Who comes while one daemon drains, and while there is none, is served by the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_the_next_daemon() {
    bounded(async {
        let (socket, _) = free();
        let options = Options::new().socket("postgres", &socket);
        let first = Daemon::start(&options);
        let config = first.client_config();
        let (busy, witness) = (first.connect().await, first.connect().await);
        let running = tokio::spawn(async move {
            let row = busy.query_one(SLOW.0, &[]).await;
            row.map(|row| row.get::<_, i64>(0).to_string())
        });
        let count = "SELECT count(*) FROM system.queries WHERE sql LIKE '%500000000%' \
                     AND sql NOT LIKE '%system.queries%'";
        until("the statement runs", async || {
            witness.query_one(count, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
        })
        .await;
        first.terminate();
        until("it has left the socket", async || first.log().contains("\"stopping\"")).await;
        let come = |number: usize| {
            (0..number).map(|_| tokio::spawn(ask(config.clone()))).collect::<Vec<_>>()
        };
        let mut waiting = come(20);
        assert_eq!(running.await.expect("it ends").expect("it is not cut off"), SLOW.1);
        assert_eq!(first.wait(PATIENCE).code(), Some(0), "{}", first.log());
        waiting.extend(come(20));
        assert!(waiting.iter().all(|client| !client.is_finished()), "nobody was there to answer");
        let second = Daemon::start(&options);
        assert_eq!(second.postgres(), first.postgres());
        for client in waiting {
            let answer = client.await.expect("it ends");
            assert_eq!(answer.unwrap_or_else(|error| explain(&error)), "served");
        }
    })
    .await;
}

/// Clients come all the time, and the daemon restarts again and again: nobody is refused, and at most
/// those who were in the middle of it are sent away, with a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_over_restarts() {
    const CLIENTS: usize = 4;
    const RESTARTS: usize = 5;
    bounded(async {
        let (socket, _) = free();
        let options = Options::new().socket("postgres", &socket);
        let mut daemon = Daemon::start(&options);
        let (end, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = [(); CLIENTS].map(|()| {
            let (config, end, served) = (daemon.client_config(), end.clone(), served.clone());
            tokio::spawn(async move {
                let mut sent_away = 0;
                while !end.load(Ordering::Relaxed) {
                    match ask(config.clone()).await {
                        Ok(_) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => {
                            let code = error.code().map(|code| code.code());
                            assert!(
                                matches!(code, Some("57P01" | "57P03")),
                                "refused: {}",
                                explain(&error)
                            );
                            sent_away += 1;
                        }
                    }
                }
                sent_away
            })
        });
        for _ in 0..RESTARTS {
            let before = served.load(Ordering::Relaxed);
            until("the daemon serves", async || served.load(Ordering::Relaxed) > before + 10).await;
            daemon.terminate();
            assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
            // Nobody is there for a while.
            tokio::time::sleep(Duration::from_millis(200)).await;
            daemon = Daemon::start(&options);
        }
        end.store(true, Ordering::Relaxed);
        let mut sent_away = 0;
        for client in clients {
            sent_away += client.await.expect("nobody was refused");
        }
        let served = served.load(Ordering::Relaxed);
        println!("{served} served over {RESTARTS} restarts, {sent_away} sent away with a word");
        assert!(sent_away <= CLIENTS * RESTARTS, "{sent_away} were sent away");
    })
    .await;
}
