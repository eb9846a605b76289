//! Sessions are cancelled and ended from any daemon.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Buf;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

use crate::support::*;
use crate::wire::{self, Wire};

/// Protocol 3.2, whose cancel keys are long.
const PROTOCOL_3_2: u32 = (3 << 16) | 2;

/// Waits until a daemon shows that a session runs something.
async fn until_running(client: &Client, pid: i32) {
    let running =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    until("the statement is seen", async || client.value(&running).await == "1").await;
}

fn pid_of(wire: &Wire) -> i32 {
    (&wire.key[..4]).get_i32()
}

/// The warnings among the answers to a query.
fn warnings(messages: &[wire::Message]) -> Vec<String> {
    let notices = messages.iter().filter(|message| message.kind == 'N');
    notices.map(|notice| notice.field(b'M').expect("a message")).collect()
}

/// Waits until nobody's signal is left.
async fn no_signals(store: &Store, daemons: &[&str]) {
    for daemon in daemons {
        let path = format!("/signals/{daemon}");
        until("no signal is left", async || store.children(&path).await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_finds_its_daemon() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b] = cluster.start_all(["a", "b"]);
        let (own, other) = (Client::connect(&a).await, Client::connect(&b).await);
        all_ready(&other, &["a", "b"]).await;
        for version in [wire::PROTOCOL_3_0, PROTOCOL_3_2] {
            let mut busy = Wire::open(&a);
            busy.start(version, &[("user", "oribi"), ("database", "oribi")]);
            let greeting = busy.until('Z');
            busy.key = wire::first(&greeting, 'K').body.clone();
            assert_eq!(busy.key.len(), if version == PROTOCOL_3_2 { 36 } else { 8 });
            busy.send([wire::query(ENDLESS)]);
            until_running(&other, pid_of(&busy)).await;

            // The key decides, and whose it is.
            let mut wrong = busy.key.to_vec();
            wrong[7] ^= 1;
            wire::cancel(&b, &wrong);
            wire::cancel(&b, &busy.key[..4]);
            wire::cancel(&b, &[&busy.key[..], b"\0\0\0\0"].concat());
            let mut nobodys = busy.key.to_vec();
            nobodys[0] ^= 0x40;
            wire::cancel(&b, &nobodys);
            until_running(&own, pid_of(&busy)).await;

            wire::cancel(&b, &busy.key);
            assert_eq!(wire::code(&busy.until('Z')), "57014");
            assert_eq!(wire::column(&busy.query("SELECT 'alive'")), ["alive"]);
        }
    })
    .await;
}

/// Sends its first client to one address and all others to another, as a balancer may do.
async fn balancer(first: SocketAddr, others: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut to = first;
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut daemon = TcpStream::connect(to).await.expect("the daemon accepts");
                // It ends with either side.
                let _ = copy_bidirectional(&mut client, &mut daemon).await;
            });
            to = others;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_behind_a_balancer_can_cancel() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b] = cluster.start_all(["a", "b"]);
        let other = Client::connect(&b).await;
        all_ready(&other, &["a", "b"]).await;
        let address = balancer(a.postgres(), b.postgres()).await;
        let mut config = tokio_postgres::Config::new();
        config.host(address.ip().to_string()).port(address.port()).user("oribi").dbname("oribi");
        let (client, connection) = config.connect(NoTls).await.expect("a session");
        tokio::spawn(connection);
        let token = client.cancel_token();
        let running = tokio::spawn(async move { client.simple_query(ENDLESS).await });
        let seen = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series%' \
                    AND pid <> pg_backend_pid()";
        until("the statement is seen", async || other.value(seen).await == "1").await;
        token.cancel_query(NoTls).await.expect("a cancel request");
        let error = running.await.expect("it ends").expect_err("it does not succeed");
        assert_eq!(db_error(&error).code().code(), "57014");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_signalled_from_other_daemons() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b] = cluster.start_all(["a", "b"]);
        let store = Store::of(&cluster).await;
        let other = Client::connect(&b).await;
        all_ready(&other, &["a", "b"]).await;
        let mut asker = Wire::log_in(&b);
        let mut busy = Wire::log_in(&a);
        let pid = pid_of(&busy);

        busy.send([wire::query(ENDLESS)]);
        until_running(&other, pid).await;
        let shown = format!(
            "SELECT usename, datname, state, query, client_addr IS NULL, backend_type, \
             xact_start <= now() FROM pg_stat_activity WHERE pid = {pid}"
        );
        let row = other.rows(&shown).await.remove(0);
        assert_eq!(row, ["oribi", "oribi", "active", ENDLESS, "t", "client backend", "t"]);
        let answer = asker.query(&format!("SELECT pg_cancel_backend({pid})"));
        assert_eq!((wire::column(&answer), warnings(&answer)), (vec!["t".into()], vec![]));
        assert_eq!(wire::code(&busy.until('Z')), "57014");

        // An idle session has nothing to cancel, and can be ended; its end can be waited for.
        assert_eq!(wire::column(&asker.query(&format!("SELECT pg_cancel_backend({pid})"))), ["t"]);
        assert_eq!(wire::column(&busy.query("SELECT 'alive'")), ["alive"]);
        let answer = asker.query(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
        assert_eq!((wire::column(&answer), warnings(&answer)), (vec!["t".into()], vec![]));
        assert_eq!(wire::code(&busy.until_closed()), "57P01");
        let answer = asker.query(&format!("SELECT pg_terminate_backend({pid})"));
        let unknown = format!("PID {pid} is not a PostgreSQL backend process");
        assert_eq!((wire::column(&answer), warnings(&answer)), (vec!["f".into()], vec![unknown]));

        // One statement ends what all the others run.
        let mut several = [Wire::log_in(&a), Wire::log_in(&a), Wire::log_in(&b)];
        for busy in &mut several {
            busy.send([wire::query(ENDLESS)]);
            until_running(&other, pid_of(busy)).await;
        }
        let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE query LIKE '%generate_series%' AND pid <> pg_backend_pid()";
        assert_eq!(wire::column(&asker.query(all)), ["t", "t", "t"]);
        for busy in &mut several {
            assert_eq!(wire::code(&busy.until_closed()), "57P01");
        }
        no_signals(&store, &["a", "b"]).await;
        a.terminate();
        a.wait(PATIENCE);
        assert_eq!(store.children("/signals").await, ["b"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signals_a_silent_daemon_gets_an_answer() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "40s");
        let [a, b] = cluster.start_all(["a", "b"]);
        let store = Store::of(&cluster).await;
        all_ready(&Client::connect(&b).await, &["a", "b"]).await;
        let mut idle = Wire::log_in(&a);
        let mut asker = Wire::log_in(&b);
        let terminate = format!("SELECT pg_terminate_backend({})", pid_of(&idle));
        a.pause();

        // Whoever waits for the answer can be stopped.
        asker.query("SET statement_timeout = '100ms'");
        assert_eq!(wire::code(&asker.query(&terminate)), "57014");
        asker.query("RESET statement_timeout");
        let begun = Instant::now();
        let answer = asker.query(&terminate);
        let took = begun.elapsed();
        assert_eq!(wire::column(&answer), ["f"]);
        assert!(warnings(&answer)[0].contains("daemon \"a\" did not answer"), "{answer:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert!(b.log().contains("a signal was not answered in time"), "{}", b.log());
        no_signals(&store, &["a"]).await;

        // What nobody waits for any more does not happen later.
        a.resume();
        assert_eq!(wire::column(&idle.query("SELECT 'alive'")), ["alive"]);
        assert_eq!(wire::column(&asker.query(&terminate)), ["t"]);
        assert_eq!(wire::code(&idle.until_closed()), "57P01");

        let idle = Wire::log_in(&a);
        a.kill();
        let begun = Instant::now();
        let answer = asker.query(&format!("SELECT pg_cancel_backend({})", pid_of(&idle)));
        assert_eq!(wire::column(&answer), ["f"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        no_signals(&store, &["a"]).await;
    })
    .await;
}

/// A session of a role of its own.
fn session_of(daemon: &Daemon, user: &str) -> Wire {
    let mut wire = Wire::open(daemon);
    wire.start(wire::PROTOCOL_3_0, &[("user", user), ("database", "oribi")]);
    wire.key = wire::first(&wire.until('Z'), 'K').body.clone();
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_hold_on_all_daemons() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b] = cluster.start_all(["a", "b"]);
        let (here, there) = (Client::connect(&a).await, Client::connect(&b).await);
        all_ready(&there, &["a", "b"]).await;
        for role in ["signal_ann", "signal_bob", "signal_guard"] {
            there.rows(&format!("CREATE ROLE {role} LOGIN")).await;
        }
        there.rows("GRANT pg_signal_backend TO signal_guard").await;
        let member = "SELECT pg_has_role('signal_guard', 'pg_signal_backend', 'USAGE')";
        for client in [&here, &there] {
            until("the role is known", async || client.value(member).await == "t").await;
        }
        let ann = session_of(&a, "signal_ann");
        let superuser = Wire::log_in(&a);
        let cancel = |wire: &Wire| format!("SELECT pg_cancel_backend({})", pid_of(wire));
        let terminate = |wire: &Wire| format!("SELECT pg_terminate_backend({})", pid_of(wire));
        let said = |messages: &[wire::Message]| {
            assert_eq!(wire::code(messages), "42501");
            wire::first(messages, 'E').field(b'M').expect("a message")
        };
        for daemon in [&a, &b] {
            let mut bob = session_of(daemon, "signal_bob");
            let answer = said(&bob.query(&cancel(&ann)));
            assert!(answer.ends_with("or member of pg_signal_backend"), "{answer}");
            let answer = said(&bob.query(&terminate(&superuser)));
            assert_eq!(answer, "must be a superuser to terminate superuser process");
            let mut own = session_of(daemon, "signal_ann");
            assert_eq!(wire::column(&own.query(&cancel(&ann))), ["t"]);
            let mut guard = session_of(daemon, "signal_guard");
            assert_eq!(wire::column(&guard.query(&cancel(&ann))), ["t"]);
            let answer = said(&guard.query(&cancel(&superuser)));
            assert_eq!(answer, "must be a superuser to cancel superuser query");
        }
    })
    .await;
}
