//! What can happen to a client of a real ensemble only: servers that stop, freeze and come back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use oribi::coordination::zookeeper::{Options, ZooKeeper};
use oribi::coordination::{Coordination, Error, Event, Mode, Op, Scope, Session, SessionState};

use crate::backend::{PATIENCE, bounded, changed, connect, eventually, expect_event};
use crate::common::zookeeper::{Ensemble, Server};
use crate::proxy::{Break, Proxy};

/// Longer than a server takes to start on a busy machine.
const LONG_SESSION: Duration = Duration::from_secs(60);

async fn until(store: &ZooKeeper, state: SessionState) -> Session {
    let mut session = store.session();
    let waiting = tokio::time::timeout(PATIENCE, session.wait_for(|now| now.state == state)).await;
    *waiting.unwrap_or_else(|_| panic!("never {state:?}")).unwrap()
}

#[tokio::test]
async fn an_ensemble_out_of_reach_is_named() {
    let options = Options {
        request_timeout: Duration::from_millis(500),
        ..Options::new("127.0.0.1:1,127.0.0.1:2/x")
    };
    let begun = Instant::now();
    let error = ZooKeeper::connect(options).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:1,127.0.0.1:2/x"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_again_keeps_the_session() {
    bounded(async {
        let mut server = Server::start();
        let store = connect(&server.connect_string(), "/deep/chroot", LONG_SESSION).await;
        store.create("/p", Bytes::from_static(b"1"), Mode::Persistent).await.unwrap();
        store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
        let mut watch = store.watch("/p", Scope::Node);
        assert_eq!(watch.next().await, Some(Event::Resync));
        let before = *store.session().borrow();

        server.stop();
        until(&store, SessionState::Disconnected).await;
        let refused = store.set("/p", Bytes::new(), None).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");

        server.restart();
        assert_eq!(until(&store, SessionState::Connected).await, before);
        expect_event(&mut watch, Event::Resync).await;
        assert_eq!(store.get("/p").await.unwrap().unwrap().data, "1");
        assert!(store.get("/e").await.unwrap().is_some());
        store.set("/p", Bytes::from_static(b"2"), Some(0)).await.unwrap();
        expect_event(&mut watch, changed("/p")).await;
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_in_time_while_the_server_is_frozen() {
    bounded(async {
        let server = Server::start();
        let request_timeout = Duration::from_secs(1);
        let options = Options {
            session_timeout: Duration::from_secs(10),
            request_timeout,
            ..Options::new(server.connect_string())
        };
        let store = ZooKeeper::connect(options).await.unwrap();
        store.create("/x", Bytes::new(), Mode::Persistent).await.unwrap();
        server.pause();
        let begun = Instant::now();
        let steps = vec![Op::Delete { path: "/missing".into(), version: None }];
        let (created, set, deleted, transacted, read, listed, synced) = tokio::join!(
            store.create("/y", Bytes::new(), Mode::Persistent),
            store.set("/x", Bytes::new(), None),
            store.delete("/missing", None),
            store.transact(steps),
            store.get("/x"),
            store.children("/"),
            store.sync(),
        );
        let elapsed = begun.elapsed();
        assert!(elapsed < request_timeout + Duration::from_secs(2), "{elapsed:?}");
        let writes = [created.map(drop), set.map(drop), deleted, transacted.map(drop)]
            .map(Result::unwrap_err);
        for error in writes {
            assert!(error.may_have_landed(), "{error:?}");
        }
        for error in [read.map(drop), listed.map(drop), synced].map(Result::unwrap_err) {
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        }
        // Soon the silence is noticed, and later calls are refused at once.
        until(&store, SessionState::Disconnected).await;
        let begun = Instant::now();
        assert!(matches!(store.get("/x").await, Err(Error::Unavailable { .. })));
        assert!(begun.elapsed() < request_timeout);
        server.resume();
        eventually("calls work again", async || store.get("/x").await.is_ok()).await;
        // Closing does not hang either.
        server.pause();
        let begun = Instant::now();
        store.close().await;
        assert!(begun.elapsed() < request_timeout + Duration::from_secs(2));
        server.resume();
    })
    .await;
}

/// A connection that is closed, one that is reset and one that falls silent end in different
/// errors of the client, and each leaves the same doubt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_lost_in_any_way_leaves_a_doubt() {
    bounded(async {
        let server = Server::start();
        for how in [Break::Close, Break::Reset, Break::Silence] {
            let proxy = Proxy::start(server.address()).await;
            let chroot = format!("/{how:?}");
            let timeout = Duration::from_secs(10);
            let store = connect(&proxy.address().to_string(), &chroot, timeout).await;
            let before = *store.session().borrow();
            store.sync().await.unwrap();
            proxy.lose_next_reply(how);
            let created = store.create("/x", Bytes::from_static(b"mine"), Mode::Ephemeral).await;
            let error = created.unwrap_err();
            assert!(error.may_have_landed(), "{how:?}: {error:?}");
            until(&store, SessionState::Disconnected).await;
            proxy.restore();
            assert_eq!(until(&store, SessionState::Connected).await, before, "{how:?}");
            let found = store.get("/x").await.unwrap().expect("the write has landed");
            assert_eq!((&*found.data, found.stat.ephemeral_owner), (&b"mine"[..], before.id));
            store.close().await;
        }
    })
    .await;
}

/// The crate would queue requests while disconnected and send them after the reconnect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_or_abandoned_never_happens_later() {
    bounded(async {
        let server = Server::start();
        let proxy = Proxy::start(server.address()).await;
        let timeout = Duration::from_secs(10);
        let store = connect(&proxy.address().to_string(), "", timeout).await;
        let observer = connect(&server.connect_string(), "", timeout).await;
        store.sync().await.unwrap();
        proxy.lose_next_reply(Break::Silence);
        let lost = store.create("/lost", Bytes::new(), Mode::Persistent);
        let abandon = async {
            proxy.shut().await;
            // From here on nothing gets through, and at first the client does not know.
            let mut refused = 0;
            while refused < 1000 {
                let path = format!("/abandoned-{refused}");
                let abandoned = store.create(&path, Bytes::new(), Mode::Persistent);
                match tokio::time::timeout(Duration::from_millis(10), abandoned).await {
                    Ok(Err(Error::Unavailable { .. })) => refused += 1,
                    Ok(Ok(_)) => panic!("the connection is silent"),
                    Ok(Err(_)) | Err(_) => (),
                }
            }
        };
        let (lost, ()) = tokio::join!(lost, abandon);
        assert!(lost.unwrap_err().may_have_landed());
        proxy.restore();
        until(&store, SessionState::Connected).await;
        store.create("/last", Bytes::new(), Mode::Persistent).await.unwrap();
        observer.sync().await.unwrap();
        assert_eq!(observer.children("/").await.unwrap(), ["last", "lost"]);
    })
    .await;
}

/// The crate's own back-off would sleep from 6.3 s to 12.7 s after the cut, past the session's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_shorter_than_the_session_is_survived() {
    bounded(async {
        let server = Server::start();
        let proxy = Proxy::start(server.address()).await;
        let hosts = proxy.address().to_string();
        let store = connect(&hosts, "", Duration::from_secs(10)).await;
        let before = *store.session().borrow();
        store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(6500)).await;
        proxy.restore();
        assert_eq!(until(&store, SessionState::Connected).await, before);
        assert!(store.get("/e").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn heartbeats_do_not_depend_on_the_callers_runtime() {
    let server = Server::start();
    let store = connect(&server.connect_string(), "", Duration::from_secs(2)).await;
    let before = *store.session().borrow();
    assert_eq!(before.timeout, Duration::from_secs(2));
    // Blocks the only thread of this runtime.
    std::thread::sleep(3 * before.timeout);
    store.sync().await.unwrap();
    assert_eq!(*store.session().borrow(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_watch_costs_the_server_nothing_any_more() {
    bounded(async {
        let server = Server::start();
        let store = connect(&server.connect_string(), "", LONG_SESSION).await;
        let total = || {
            let answer = server.four_letters("wchs").expect("wchs");
            let (_, total) = answer.trim().rsplit_once(':').expect("Total watches:n");
            total.parse::<usize>().expect("a number")
        };
        let mut watches: Vec<_> =
            (0..50).map(|n| store.watch(&format!("/w-{n}"), Scope::Subtree)).collect();
        for watch in &mut watches {
            assert_eq!(watch.next().await, Some(Event::Resync));
        }
        assert!(total() >= 50, "{}", total());
        drop(watches);
        eventually("the watches are gone", async || total() == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_neither_session_nor_data() {
    bounded(async {
        let mut ensemble = Ensemble::start(3);
        let hosts = ensemble.connect_string();
        let store = connect(&hosts, "", LONG_SESSION).await;
        let observer = connect(&hosts, "", LONG_SESSION).await;
        store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
        let epoch = store.session().borrow().epoch;
        let mut watch = store.watch("/p", Scope::Node);
        assert_eq!(watch.next().await, Some(Event::Resync));
        let leader = ensemble.leader().expect("a leader");
        ensemble.servers[leader].stop();
        eventually("writes work again", async || {
            match observer.create("/p", Bytes::new(), Mode::Persistent).await {
                Ok(_) => true,
                Err(Error::NodeExists { .. }) => true,
                Err(error) => {
                    assert!(error.is_unavailable(), "{error:?}");
                    false
                }
            }
        })
        .await;
        let seen = async {
            loop {
                let _ = watch.next().await;
                if let Ok(Some(_)) = store.get("/p").await {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the watch tells of it");
        assert!(store.get("/e").await.unwrap().is_some());
        assert_eq!(store.session().borrow().epoch, epoch);
    })
    .await;
}
