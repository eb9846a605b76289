//! What goes on between daemons: who is let in, connections that statements share, workers that are
//! stopped, and what statements leave behind.

mod common;

#[path = "tpch/answers.rs"]
#[allow(dead_code)]
mod answers;
#[path = "cluster/support.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use common::certificates::{Authority, Certified};
use common::daemon::Options;
use support::*;

const SCALE: &str = "0.01";

/// A query in whose stages all daemons have a part.
const JOINED: &str = "SELECT count(*), sum(l_quantity) FROM lineitem, orders \
                      WHERE l_orderkey = o_orderkey AND o_orderdate < DATE '1996-01-01'";

/// One that keeps all daemons busy for longer than any test takes, a nested loop join on each.
const LONG: &str = "SELECT count(*) FROM lineitem a, lineitem b, orders c \
                    WHERE a.l_orderkey + b.l_orderkey < c.o_orderkey - 100000000 AND a.l_comment < b.l_comment";

/// One of some seconds.
const SOME_SECONDS: &str = "SELECT count(*) FROM lineitem a, orders b \
                            WHERE a.l_orderkey * 2 < b.o_orderkey AND length(a.l_comment) % 7 = b.o_orderkey % 5";

/// Makes the tables of TPC-H.
async fn tables(cluster: &Cluster, daemons: &[&Daemon], ids: &[&str]) {
    answers::generate(SCALE, &cluster.path(""));
    let client = Client::connect(daemons[0]).await;
    all_ready(&client, ids).await;
    let made = answers::tables("public", &cluster.path(&format!("tpch/sf{SCALE}")));
    client.rows(&made).await;
}

/// A client whose statements run on all daemons.
async fn spread(daemon: &Daemon) -> Client {
    let client = Client::connect(daemon).await;
    client.rows("SET oribi.distribution = 'always'").await;
    client
}

/// Whether the statement would run on exactly these daemons.
async fn runs_on(client: &Client, daemons: &str) -> bool {
    let first = client.value(&format!("EXPLAIN {JOINED}")).await;
    first.starts_with(&format!("Workers: {daemons} "))
}

/// Whether a part of another daemon's statement runs here.
async fn has_part(daemon: &Daemon) -> bool {
    metrics(daemon).await.contains("oribi_running{what=\"part of a statement\"}")
}

/// Waits until nothing runs on any of them, and no memory is reserved.
async fn nothing_is_left(daemons: &[&Daemon]) {
    for daemon in daemons {
        until("nothing is left", async || {
            let told = metrics(daemon).await;
            !told.contains("oribi_running{") && told.contains("oribi_memory_reserved_bytes 0\n")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_nobody_reads_stop_nobody_else() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("DISTRIBUTION_COMPRESSION", "none");
        let [a, b] = cluster.start_all(["a", "b"]);
        tables(&cluster, &[&a, &b], &["a", "b"]).await;
        let client = spread(&a).await;
        let expected = client.rows(JOINED).await;
        // Each worker has more to say of each than what its reader takes in (64 MiB), what waits
        // between steps (some batches), and what is on its way.
        let cursor = "DECLARE c CURSOR FOR SELECT l_orderkey, repeat(min(l_comment), 200) \
                      FROM lineitem GROUP BY l_orderkey, l_linenumber";
        let mut unread = Vec::new();
        for _ in 0..32 {
            let client = spread(&a).await;
            client.rows("SET datafusion.execution.batch_size = 512").await;
            client.rows("BEGIN").await;
            client.rows(cursor).await;
            assert_eq!(client.rows("FETCH 1 FROM c").await.len(), 1);
            unread.push(client);
        }
        client.rows("SET statement_timeout = '30s'").await;
        for _ in 0..5 {
            assert_eq!(client.rows(JOINED).await, expected);
            assert!(runs_on(&client, "a, b").await, "a worker was suspected");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(!a.log().contains("left alone"), "{}", a.log());
        drop(unread);
        nothing_is_left(&[&a, &b]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_or_given_up_leaves_nothing() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = cluster.start_all(["a", "b", "c"]);
        let [a, b, c] = [&daemons[0], &daemons[1], &daemons[2]];
        tables(&cluster, &[a, b, c], &["a", "b", "c"]).await;
        let client = spread(a).await;
        client.rows(JOINED).await;
        nothing_is_left(&[a, b, c]).await;
        for given_up in [false, true] {
            let busy = spread(a).await;
            let (token, connection) = (busy.cancel_token(), busy.connection.abort_handle());
            let running = tokio::spawn(async move { busy.try_rows(LONG).await });
            until("it runs everywhere", async || has_part(b).await && has_part(c).await).await;
            match given_up {
                true => connection.abort(),
                false => {
                    token.cancel_query(tokio_postgres::NoTls).await.expect("cancelled");
                    let error = running.await.expect("it ends").expect_err("an error");
                    assert_eq!(db_error(&error).code().code(), "57014");
                }
            }
            nothing_is_left(&[a, b, c]).await;
        }
        // Those that run to their end leave as little.
        for _ in 0..3 {
            client
                .rows("SELECT l_comment, count(*) FROM lineitem GROUP BY 1 ORDER BY 2 DESC, 1")
                .await;
        }
        nothing_is_left(&[a, b, c]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_ends_soon_after_a_part_that_it_had() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("SHUTDOWN_DRAIN_TIMEOUT", "10m");
        let daemons = cluster.start_all(["a", "b", "c"]);
        let [a, b, c] = [&daemons[0], &daemons[1], &daemons[2]];
        tables(&cluster, &[a, b, c], &["a", "b", "c"]).await;
        let client = spread(a).await;
        client.rows(JOINED).await;
        let begun = Instant::now();
        b.terminate();
        assert_eq!(b.wait(PATIENCE).code(), Some(0), "{}", b.log());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "it took {took:?}");
        until("two are left", async || runs_on(&client, "a, c").await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_finishes_its_parts_and_is_not_missed() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("SHUTDOWN_DRAIN_TIMEOUT", "10m");
        let daemons = cluster.start_all(["a", "b", "c"]);
        let [a, b, c] = [&daemons[0], &daemons[1], &daemons[2]];
        tables(&cluster, &[a, b, c], &["a", "b", "c"]).await;
        let (client, busy) = (spread(a).await, spread(a).await);
        let expected = client.value(JOINED).await;
        let long = spread(b).await;
        long.rows("SET oribi.distribution = 'off'").await;
        let right = long.value(SOME_SECONDS).await;
        let running = tokio::spawn(async move { busy.value(SOME_SECONDS).await });
        until("it runs there", async || has_part(c).await).await;
        c.terminate();
        // Nobody who asks meanwhile notices.
        while !running.is_finished() {
            assert_eq!(client.value(JOINED).await, expected);
        }
        assert_eq!(running.await.expect("it ends"), right);
        while c.ended().is_none() {
            assert_eq!(client.value(JOINED).await, expected);
        }
        assert_eq!(c.wait(PATIENCE).code(), Some(0), "{}", c.log());
        assert!(!c.log().contains("cancelling"), "{}", c.log());
        assert!(!a.log().contains("a worker was lost"), "{}", a.log());
    })
    .await;
}

/// How somebody is met on the port for daemons: whether HTTP/2 is spoken to it.
fn is_let_in(peer: SocketAddr, ca: &Authority, own: Option<&Certified>) -> bool {
    let mut roots = RootCertStore::empty();
    let known = CertificateDer::from_pem_file(&ca.certificate).expect("a certificate");
    roots.add(known).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::from_pem_file(&own.certificate).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
            builder.with_client_auth_cert(vec![chain], key).expect("its key")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "oribi".try_into().expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let socket = TcpStream::connect(peer).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let mut stream = StreamOwned::new(connection, socket);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut first = [0; 9];
    let spoken = stream.write_all(preface).and_then(|()| stream.read_exact(&mut first));
    // Its settings are the first that a server says.
    spoken.is_ok() && first[3] == 4
}

/// Settings with which a daemon shows a certificate.
fn showing(cluster: Cluster, authority: &Authority, own: &Certified) -> Cluster {
    cluster
        .with("PEERS_CA", &authority.certificate.display().to_string())
        .with("PEERS_CERTIFICATE", &own.certificate.display().to_string())
        .with("PEERS_KEY", &own.key.display().to_string())
}

fn nameless(parameters: &mut CertificateParams) {
    let names = CertificateParams::new(vec!["web.example".to_owned()]).expect("a name");
    parameters.subject_alt_names = names.subject_alt_names;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_certificates_let_daemons_in_and_nobody_else() {
    bounded(async {
        let directory = TempDir::with_prefix("oribi-peers-").expect("a directory");
        let herd = Authority::new(directory.path(), "herd");
        let other = Authority::new(directory.path(), "other");
        let own = herd.daemon("own", |_| {});
        let cluster = showing(Cluster::on_shared_zookeeper(), &herd, &own);
        let [a, b] = cluster.start_all(["a", "b"]);
        tables(&cluster, &[&a, &b], &["a", "b"]).await;
        let client = spread(&a).await;
        let expected = client.rows(JOINED).await;
        assert!(runs_on(&client, "a, b").await);

        let usage = |usage| {
            move |parameters: &mut CertificateParams| parameters.extended_key_usages = vec![usage]
        };
        let strangers = [
            ("nobody", None),
            ("of another authority", Some(other.daemon("daemon", |_| {}))),
            ("a web server of the same authority", Some(herd.daemon("web", nameless))),
            ("a client of the same authority", Some(herd.client("oribi"))),
            (
                "not meant for clients",
                Some(herd.daemon("server", usage(ExtendedKeyUsagePurpose::ServerAuth))),
            ),
            (
                "expired",
                Some(herd.daemon("old", |parameters| {
                    parameters.not_after = date_time_ymd(2020, 1, 1);
                })),
            ),
        ];
        assert!(is_let_in(b.peer(), &herd, Some(&own)), "a daemon");
        for (who, shown) in &strangers {
            assert!(!is_let_in(b.peer(), &herd, shown.as_ref()), "{who} is let in");
        }

        // Renewed while they run: by another authority, so that both take part in it.
        let renewed = other.daemon("renewed", |_| {});
        for (from, to) in [
            (&other.certificate, &herd.certificate),
            (&renewed.certificate, &own.certificate),
            (&renewed.key, &own.key),
        ] {
            std::fs::copy(from, to).expect("replaced");
        }
        for daemon in [&a, &b] {
            daemon.signal(Signal::HUP);
            until("it is read", async || daemon.log().contains("settings' files read again")).await;
        }
        assert!(is_let_in(b.peer(), &other, Some(&renewed)), "the new one");
        assert_eq!(client.rows(JOINED).await, expected);
        until("they work together", async || runs_on(&client, "a, b").await).await;
        // What is wrong changes nothing.
        std::fs::write(&own.certificate, "nonsense").expect("written");
        b.signal(Signal::HUP);
        until("it is refused", async || b.log().contains("peers.certificate")).await;
        assert!(is_let_in(b.peer(), &other, Some(&renewed)), "as before");
    })
    .await;
}

#[test]
fn certificates_that_peers_would_refuse_are_refused_at_the_start() {
    let directory = TempDir::with_prefix("oribi-peers-").expect("a directory");
    let herd = Authority::new(directory.path(), "herd");
    let other = Authority::new(directory.path(), "other");
    let own = herd.daemon("own", |_| {});
    let old = herd.daemon("old", |parameters| parameters.not_after = date_time_ymd(2020, 1, 1));
    let of_server = herd.daemon("server", |parameters| {
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let of_web = herd.daemon("web", nameless);
    let nowhere = directory.path().join("nowhere");
    let ca = &herd.certificate;
    let cases = [
        ((&own.certificate, &old.key, ca), ["peers.key", "is not the key of"]),
        ((&old.certificate, &old.key, ca), ["peers.certificate", "expired"]),
        (
            (&of_server.certificate, &of_server.key, ca),
            ["peers.certificate", "both servers and clients"],
        ),
        ((&of_web.certificate, &of_web.key, ca), ["\"oribi\" as a subject", "peers.name"]),
        ((&own.certificate, &own.key, &other.certificate), ["peers.ca", "has signed"]),
        ((&own.certificate, &nowhere, ca), ["peers.key", "cannot read"]),
        ((&nowhere, &own.key, ca), ["peers.certificate", "cannot read"]),
    ];
    for ((certificate, key, ca), said) in cases {
        let options = Options::new()
            .env("ORIBI_PEERS_CERTIFICATE", certificate)
            .env("ORIBI_PEERS_KEY", key)
            .env("ORIBI_PEERS_CA", ca);
        let ended = Daemon::spawn(&options);
        assert_ne!(ended.code, Some(0));
        assert!(said.iter().all(|part| ended.stderr.contains(part)), "{said:?}: {}", ended.stderr);
    }
    let options = Options::new().env("ORIBI_PEERS_CA", ca);
    let ended = Daemon::spawn(&options);
    assert!(ended.stderr.contains("peers.certificate") && ended.stderr.contains("go together"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_keep_no_daemon_out() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b] = cluster.start_all(["a", "b"]);
        tables(&cluster, &[&a, &b], &["a", "b"]).await;
        let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(b.peer())).collect();
        let silent: Vec<_> = silent.into_iter().map(|stream| stream.expect("accepted")).collect();
        // A daemon that nobody knows yet, since its connections are new.
        let c = cluster.start("c");
        let client = spread(&c).await;
        all_ready(&client, &["a", "b", "c"]).await;
        until("they work together", async || runs_on(&client, "a, b, c").await).await;
        let begun = Instant::now();
        client.rows(JOINED).await;
        assert!(runs_on(&client, "a, b, c").await, "{}", c.log());
        assert!(begun.elapsed() < Duration::from_secs(30));
        // And they are sent away.
        for mut stream in silent {
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
            assert!(!matches!(stream.read(&mut [0; 16]), Ok(1..)), "a stranger was told something");
        }
    })
    .await;
}
