//! Who may do what in a real ensemble, and that nothing goes there in plaintext that should not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oribi::coordination::zookeeper::{Credentials, Options, Tls, ZooKeeper};
use oribi::coordination::{Coordination, Error, Mode, Op, SessionState};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::backend::{PATIENCE, bounded, connect, credentials};
use crate::common::certificates::{Authority, Certified};
use crate::common::zookeeper::Server;
use crate::proxy::Proxy;

const SESSION: Duration = Duration::from_secs(10);

fn options(hosts: &str, credentials: Option<&Credentials>) -> Options {
    Options {
        session_timeout: SESSION,
        credentials: credentials.cloned(),
        ..Options::new(format!("{hosts}/herd"))
    }
}

async fn reach(server: &Server, credentials: &Credentials) -> Arc<ZooKeeper> {
    let options = options(&server.connect_string(), Some(credentials));
    ZooKeeper::connect(options).await.expect("ZooKeeper is reached")
}

/// Why it does not come to a connection; has to be a setting.
async fn refusal(options: Options) -> String {
    match ZooKeeper::connect(options).await {
        Err(error @ Error::Setting { .. }) => error.to_string(),
        other => panic!("not a setting: {other:?}"),
    }
}

fn create(path: &str, mode: Mode) -> Op {
    Op::Create { path: path.to_owned(), data: Bytes::from_static(b"{}"), mode }
}

/// Nodes made in each way there is.
async fn populate(store: &ZooKeeper) {
    let data = || Bytes::from_static(b"{}");
    store.create("/cluster", data(), Mode::Persistent).await.unwrap();
    store.create("/daemons", data(), Mode::Persistent).await.unwrap();
    store.create("/daemons/a", data(), Mode::Ephemeral).await.unwrap();
    let steps = vec![
        create("/catalog", Mode::Persistent),
        create("/catalog/t-", Mode::PersistentSequential),
        create("/daemons/b", Mode::Ephemeral),
    ];
    store.transact(steps).await.unwrap();
}

const NODES: [&str; 5] = ["/cluster", "/daemons", "/daemons/a", "/catalog", "/daemons/b"];

/// That zkCli may do nothing with a tree, and all with the right password.
fn only_for(server: &Server, login: &str) {
    let commands = [
        "get /herd/cluster",
        "ls /herd",
        "create /herd/x 1",
        "set /herd/cluster 1",
        "delete /herd/daemons/b",
        "deleteall /herd",
        "setAcl /herd world:anyone:cdrwa",
        "getAcl /herd/catalog",
    ];
    let printed = server.cli(&commands);
    let denied = printed.matches("Insufficient permission").count();
    assert_eq!(denied, commands.len(), "{printed}");
    let unlock = format!("addauth digest {login}");
    let printed = server.cli(&[&unlock, "get /herd/cluster", "ls /herd", "getAcl /herd/daemons/b"]);
    assert!(printed.contains("{}") && printed.contains("[catalog, cluster, daemons]"), "{printed}");
    assert!(!printed.contains("world"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_do_nothing() {
    bounded(async {
        let server = Server::start();
        let herd = credentials("digest herd:s3:cret\n");
        let store = reach(&server, &herd).await;
        populate(&store).await;
        only_for(&server, "herd:s3:cret");
        // A second daemon with the same credentials works with the same nodes.
        let second = reach(&server, &herd).await;
        second.set("/cluster", Bytes::from_static(b"{}"), Some(0)).await.unwrap();
        // Others are told which setting to mend.
        let hosts = server.connect_string();
        for other in [None, Some(credentials("digest herd:wrong"))] {
            let refused = refusal(options(&hosts, other.as_ref())).await;
            assert!(refused.contains("coordination.credentials"), "{refused}");
            assert!(!refused.contains("wrong"), "{refused}");
        }
        let root = Options { credentials: Some(herd), ..Options::new(format!("{hosts}/")) };
        assert!(refusal(root).await.contains("chroot"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_were_open_are_closed() {
    bounded(async {
        let server = Server::start();
        let open = connect(&server.connect_string(), "/herd", SESSION).await;
        populate(&open).await;
        // Two at once, as when a cluster starts.
        let herd = credentials("digest herd:s3cret");
        let (first, second) = tokio::join!(reach(&server, &herd), reach(&server, &herd));
        only_for(&server, "herd:s3cret");
        for path in NODES {
            assert!(matches!(open.get(path).await, Err(Error::Denied { .. })), "{path}");
            assert!(first.get(path).await.unwrap().is_some(), "{path}");
        }
        second.delete("/daemons/b", None).await.unwrap();
    })
    .await;
}

/// A start that was cut short leaves the chroot to readers: the next one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_taken_up_again() {
    bounded(async {
        let server = Server::start();
        let open = connect(&server.connect_string(), "/herd", SESSION).await;
        populate(&open).await;
        let printed = server.cli(&[
            "addauth digest herd:s3cret",
            "setAcl /herd auth::cdrwa,world:anyone:r",
            "setAcl /herd/daemons auth::cdrwa",
        ]);
        assert!(!printed.contains("permission"), "{printed}");
        assert!(open.get("/cluster").await.unwrap().is_some());
        let _store = reach(&server, &credentials("digest herd:s3cret")).await;
        only_for(&server, "herd:s3cret");
    })
    .await;
}

/// Somebody else's node below the chroot is not passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_others_are_named() {
    bounded(async {
        let server = Server::start();
        let open = connect(&server.connect_string(), "/herd", SESSION).await;
        populate(&open).await;
        server.cli(&["addauth digest other:x", "setAcl /herd/catalog auth::cdrwa"]);
        let herd = credentials("digest herd:s3cret");
        refusal(options(&server.connect_string(), Some(&herd))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sasl_users_are_known_to_the_ensemble() {
    bounded(async {
        let server = Server::start_with_users(&["herd=s3cret", "other=x"]);
        let herd = credentials("sasl herd:s3cret");
        let store = reach(&server, &herd).await;
        populate(&store).await;
        let printed = server.cli(&["ls /herd", "delete /herd/cluster", "getAcl /herd"]);
        assert_eq!(printed.matches("Insufficient permission").count(), 3, "{printed}");
        let hosts = server.connect_string();
        for login in ["sasl herd:wrong", "sasl nobody:x", "sasl other:x", "digest herd:s3cret"] {
            let refused = refusal(options(&hosts, Some(&credentials(login)))).await;
            assert!(refused.contains("coordination.credentials"), "{login}: {refused}");
        }
        assert!(refusal(options(&hosts, None)).await.contains("coordination.credentials"));
        // Another connection says again who it is.
        let proxy = Proxy::start(server.address()).await;
        let through = options(&proxy.address().to_string(), Some(&herd));
        let through = ZooKeeper::connect(through).await.unwrap();
        proxy.cut();
        until(&through, SessionState::Disconnected).await;
        proxy.restore();
        until(&through, SessionState::Connected).await;
        through.set("/cluster", Bytes::from_static(b"{}"), None).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_without_sasl_is_named() {
    bounded(async {
        let server = Server::start();
        let herd = credentials("sasl herd:s3cret");
        let refused = refusal(options(&server.connect_string(), Some(&herd))).await;
        assert!(refused.contains("coordination.credentials"), "{refused}");
    })
    .await;
}

async fn until(store: &ZooKeeper, state: SessionState) {
    let mut session = store.session();
    let reached = session.wait_for(|now| now.state == state);
    tokio::time::timeout(PATIENCE, reached).await.expect("in time").expect("published");
}

fn tls(authority: &Authority, identity: Option<&Certified>) -> Tls {
    let identity = identity.map(|client| (client.certificate.clone(), client.key.clone()));
    Tls { ca: authority.certificate.clone(), identity }
}

fn encrypted(hosts: &str, tls: Tls) -> Options {
    Options { tls: Some(tls), session_timeout: SESSION, ..Options::new(format!("{hosts}/herd")) }
}

async fn unreachable(options: Options) -> String {
    match ZooKeeper::connect(options).await {
        Err(error @ Error::Unavailable { .. }) => error.to_string(),
        other => panic!("not out of reach: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_and_never_left_out() {
    bounded(async {
        let directory = TempDir::with_prefix("oribi-tls-").expect("a directory");
        let authority = Authority::new(directory.path(), "herd");
        let stranger = Authority::new(directory.path(), "stranger");
        let identity = authority.server("zookeeper");
        let server = Server::start_with_tls(&identity.both, &authority.certificate, "none");
        let secure = server.secure_connect_string();
        let store = ZooKeeper::connect(encrypted(&secure, tls(&authority, None))).await.unwrap();
        populate(&store).await;

        let refused = unreachable(encrypted(&secure, tls(&stranger, None))).await;
        assert!(refused.contains("UnknownIssuer"), "{refused}");
        // The certificate is not for this name.
        let renamed = secure.replace("localhost", "127.0.0.2");
        unreachable(encrypted(&renamed, tls(&authority, None))).await;
        // A server that speaks plaintext only hears nothing but TLS.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hosts = listener.local_addr().unwrap().to_string();
        let first_bytes = tokio::spawn(async move {
            let mut first_bytes = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                first_bytes.push(socket.read_u8().await.unwrap());
                if first_bytes.len() == 4 {
                    break;
                }
            }
            first_bytes
        });
        while !first_bytes.is_finished() {
            unreachable(encrypted(&hosts, tls(&authority, None))).await;
        }
        assert_eq!(first_bytes.await.unwrap(), [0x16; 4]);
        // And plaintext does not get in where TLS is spoken.
        unreachable(Options { ..options(&secure, None) }).await;
        let missing = Tls { ca: Path::new("/missing").into(), identity: None };
        assert!(refusal(encrypted(&secure, missing)).await.contains("tls_ca"));
        let nameless = encrypted("-zk:2281", tls(&authority, None));
        assert!(refusal(nameless).await.contains("-zk"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_where_it_is_needed() {
    bounded(async {
        let directory = TempDir::with_prefix("oribi-tls-").expect("a directory");
        let authority = Authority::new(directory.path(), "herd");
        let identity = authority.server("zookeeper");
        let server = Server::start_with_tls(&identity.both, &authority.certificate, "need");
        let secure = server.secure_connect_string();
        let (first, second) = (authority.client("first"), authority.client("second"));
        let refused = unreachable(encrypted(&secure, tls(&authority, None))).await;
        assert!(refused.contains("TLS with"), "{refused}");

        // Each daemon has a certificate of its own, by which ZooKeeper knows it as well: what one
        // makes is the other's, too.
        let herd = credentials("digest herd:s3cret");
        let connect = async |client: &Certified| {
            let options = encrypted(&secure, tls(&authority, Some(client)));
            ZooKeeper::connect(Options { credentials: Some(herd.clone()), ..options })
                .await
                .unwrap()
        };
        let store = connect(&first).await;
        populate(&store).await;
        let other = connect(&second).await;
        for path in NODES {
            assert!(other.get(path).await.unwrap().is_some(), "{path}");
        }
        only_for(&server, "herd:s3cret");

        let (certificate, key) = (first.certificate.clone(), second.key.clone());
        let torn = Tls { ca: authority.certificate.clone(), identity: Some((certificate, key)) };
        assert!(refusal(encrypted(&secure, torn)).await.contains("tls_key"));
    })
    .await;
}
