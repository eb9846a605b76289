//! What a store does when the connection breaks, the session is lost, or a caller goes away.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use oribi::coordination::{Error, Event, Mode, Op, Scope, SessionState};
use uuid::Uuid;

use crate::backend::{Backend, PATIENCE, changed, eventually, expect_event};

pub async fn a_watch_survives_a_cut(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    a.put("/w", "").await;
    a.put("/w/a", "0").await;
    let mut watch = a.store.watch("/w", Scope::Subtree);
    assert_eq!(watch.next().await, Some(Event::Resync));
    // More than once: a watch must be armed again each time.
    for round in 1..=3 {
        a.cut().await;
        let data = Bytes::from(round.to_string());
        b.store.set("/w/a", data.clone(), None).await.unwrap();
        b.put(&format!("/w/{round}"), "").await;
        a.restore().await;
        expect_event(&mut watch, Event::Resync).await;
        assert_eq!(a.store.get("/w/a").await.unwrap().unwrap().data, data);
        assert!(a.store.get(&format!("/w/{round}")).await.unwrap().is_some());
        b.store.set("/w/a", Bytes::from_static(b"later"), None).await.unwrap();
        expect_event(&mut watch, changed("/w/a")).await;
    }
    // One that is asked for while cut off is armed afterwards.
    a.cut().await;
    let mut asked = a.store.watch("/w/a", Scope::Node);
    assert_eq!(asked.next().now_or_never(), None, "not armed yet");
    a.restore().await;
    expect_event(&mut asked, Event::Resync).await;
    b.store.delete("/w/a", None).await.unwrap();
    expect_event(&mut asked, changed("/w/a")).await;
}

pub async fn a_pulse_is_felt_in_touch_or_not(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.store.pulse().await.unwrap();
    a.cut().await;
    for _ in 0..10 {
        tokio::time::timeout(PATIENCE, a.store.pulse()).await.expect("felt").unwrap();
    }
    a.restore().await;
    a.store.pulse().await.unwrap();
}

pub async fn watches_asked_for_during_a_reconnect_are_armed(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    a.put("/w", "").await;
    for _ in 0..10 {
        a.cut().await;
        a.begin_restore();
        let mut watches = Vec::new();
        while a.session().state != SessionState::Connected {
            watches.push(a.store.watch("/w", Scope::Node));
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        watches.push(a.store.watch("/w", Scope::Node));
        for watch in &mut watches {
            expect_event(watch, Event::Resync).await;
        }
        b.store.set("/w", Bytes::new(), None).await.unwrap();
        for watch in &mut watches {
            expect_event(watch, changed("/w")).await;
        }
    }
}

pub async fn calls_are_refused_while_cut_off(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/x", "").await;
    a.cut().await;
    let begun = Instant::now();
    let data = Bytes::new;
    let path = || "/x".to_owned();
    let failures = [
        a.store.create("/y", data(), Mode::Persistent).await.unwrap_err(),
        a.store.get("/x").await.unwrap_err(),
        a.store.set("/x", data(), None).await.unwrap_err(),
        a.store.delete("/x", None).await.unwrap_err(),
        a.store.children("/").await.unwrap_err(),
        a.store.transact(vec![Op::Delete { path: path(), version: None }]).await.unwrap_err(),
        a.store.sync().await.unwrap_err(),
    ];
    assert!(begun.elapsed() < Duration::from_secs(1), "refused at once");
    for error in failures {
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
    a.restore().await;
    assert_eq!(a.store.children("/").await.unwrap(), ["x"], "nothing was kept for later");
}

pub async fn a_short_cut_keeps_the_session(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    let before = a.session();
    a.store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
    a.cut().await;
    let after = a.restore().await;
    assert_eq!(after, before);
    assert!(b.exists("/e").await);
    a.store.delete("/e", None).await.unwrap();
}

pub async fn a_lost_session_is_replaced(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    let before = a.session();
    a.store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
    a.put("/p", "").await;
    let mut watch = a.store.watch("/p", Scope::Node);
    assert_eq!(watch.next().await, Some(Event::Resync));

    let after = a.expire().await;
    assert_eq!(after.epoch, before.epoch + 1);
    assert_ne!(after.id, before.id);
    assert!(!b.exists("/e").await);
    assert!(b.exists("/p").await);
    expect_event(&mut watch, Event::Resync).await;
    b.store.set("/p", Bytes::from_static(b"1"), None).await.unwrap();
    expect_event(&mut watch, changed("/p")).await;
    a.store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
    b.store.sync().await.unwrap();
    assert_eq!(b.store.get("/e").await.unwrap().unwrap().stat.ephemeral_owner, after.id);
}

pub async fn a_lost_reply_is_recognised(backend: &dyn Backend) {
    let a = backend.connect().await;
    let nonce = || Bytes::from(Uuid::new_v4().to_string());

    let mine = nonce();
    a.lose_next_reply().await;
    let error = a.store.create("/x", mine.clone(), Mode::Persistent).await.unwrap_err();
    assert!(error.may_have_landed(), "{error:?}");
    a.restore().await;
    let found = a.store.get("/x").await.unwrap().expect("the write has landed");
    assert_eq!(found.data, mine);

    let mine = nonce();
    a.lose_next_reply().await;
    let error = a.store.set("/x", mine.clone(), Some(0)).await.unwrap_err();
    assert!(error.may_have_landed(), "{error:?}");
    a.restore().await;
    let found = a.store.get("/x").await.unwrap().expect("the node");
    assert_eq!((found.data, found.stat.version), (mine, 1));
    let again = a.store.set("/x", nonce(), Some(0)).await.unwrap_err();
    assert!(matches!(again, Error::BadVersion { .. }), "a retry meets its own write: {again:?}");

    let path = || "/x".to_owned();
    let steps = vec![
        Op::Check { path: path(), version: Some(1) },
        Op::Delete { path: path(), version: None },
    ];
    a.lose_next_reply().await;
    let error = a.store.transact(steps).await.unwrap_err();
    assert!(error.may_have_landed(), "{error:?}");
    a.restore().await;
    assert!(a.store.get("/x").await.unwrap().is_none());
}

pub async fn a_dropped_caller_harms_nobody(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/d", "").await;
    for round in 0..50 {
        let path = format!("/d/{round}");
        let abandoned = a.store.create(&path, Bytes::from_static(b"abandoned"), Mode::Persistent);
        assert!(abandoned.now_or_never().is_none_or(|done| done.is_ok()));
        // It happened or it did not, and never later than what the same client does next.
        let found = a.read(&path).await;
        match a.store.create(&path, Bytes::from_static(b"mine"), Mode::Persistent).await {
            Ok(_) => assert_eq!(found, None),
            Err(Error::NodeExists { .. }) => assert_eq!(a.read(&path).await.unwrap(), "abandoned"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(a.store.children("/d").await.unwrap().len(), 50);
}

pub async fn closing_removes_ephemerals_at_once(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    a.store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
    assert!(b.exists("/e").await);
    let mut watch = a.store.watch("/e", Scope::Node);
    assert_eq!(watch.next().await, Some(Event::Resync));
    let begun = Instant::now();
    a.store.close().await;
    assert!(!b.exists("/e").await, "gone when close returns");
    assert!(begun.elapsed() < a.session().timeout, "not by expiry");
    assert_eq!(a.session().state, SessionState::Closed);
    let ended = async { while watch.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the watch ends");
    assert_eq!(a.store.watch("/e", Scope::Node).next().await, None);
    assert!(matches!(a.store.get("/e").await, Err(Error::Closed)));
    let created = a.store.create("/e", Bytes::new(), Mode::Ephemeral).await;
    assert!(matches!(created, Err(Error::Closed)), "{created:?}");
    a.store.close().await;
}

pub async fn dropping_the_client_closes_it(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    a.store.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
    let timeout = a.session().timeout;
    let begun = Instant::now();
    drop(a.store);
    eventually("the ephemeral goes", async || !b.exists("/e").await).await;
    assert!(begun.elapsed() < timeout, "not by expiry");
}
