//! What a store does when nothing goes wrong.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use oribi::coordination::{Error, Event, MAX_DATA, Mode, Op, Outcome, Scope, SessionState};
use uuid::Uuid;

use crate::backend::{Backend, changed, expect_event};

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn create(path: &str, data: &'static str) -> Op {
    Op::Create { path: path.to_owned(), data: text(data), mode: Mode::Persistent }
}

fn check(path: &str, version: Option<i32>) -> Op {
    Op::Check { path: path.to_owned(), version }
}

fn set(path: &str, data: &'static str, version: Option<i32>) -> Op {
    Op::Set { path: path.to_owned(), data: text(data), version }
}

fn delete(path: &str, version: Option<i32>) -> Op {
    Op::Delete { path: path.to_owned(), version }
}

macro_rules! assert_fails {
    ($call:expr, $pattern:pat $(if $guard:expr)?) => {
        let result = $call;
        assert!(
            matches!(&result, Err($pattern) $(if $guard)?),
            "{result:?} is not {}",
            stringify!($pattern $(if $guard)?)
        );
    };
}

pub async fn creation_in_every_mode(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    let session = a.session();
    assert_eq!((session.epoch, session.state), (1, SessionState::Connected));
    assert!(!session.timeout.is_zero());
    assert_ne!(session.id, b.session().id);

    let created = a.store.create("/p", text("one"), Mode::Persistent).await.unwrap();
    assert_eq!(created, "/p");
    let again = a.store.create("/p", text(""), Mode::Ephemeral).await;
    assert_fails!(again, Error::NodeExists { path } if path == "/p");
    a.store.create("/e", text("two"), Mode::Ephemeral).await.unwrap();
    b.store.sync().await.unwrap();
    let persistent = b.store.get("/p").await.unwrap().unwrap();
    assert_eq!(persistent.data, "one");
    assert_eq!((persistent.stat.version, persistent.stat.ephemeral_owner), (0, 0));
    let ephemeral = b.store.get("/e").await.unwrap().unwrap();
    assert_eq!(ephemeral.data, "two");
    assert_eq!(ephemeral.stat.ephemeral_owner, session.id);
    assert!(b.store.get("/missing").await.unwrap().is_none());
}

pub async fn sequential_numbers_never_repeat(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/q", "").await;
    let first = a.store.create("/q/n-", text(""), Mode::PersistentSequential).await.unwrap();
    assert_eq!(first, "/q/n-0000000000");
    let second = a.store.create("/q/n-", text(""), Mode::EphemeralSequential).await.unwrap();
    assert_eq!(second, "/q/n-0000000001");
    a.store.delete(&second, None).await.unwrap();
    let third = a.store.create("/q/", text(""), Mode::PersistentSequential).await.unwrap();
    assert_eq!(third, "/q/0000000002");
    let op =
        Op::Create { path: "/q/m-".to_owned(), data: text(""), mode: Mode::EphemeralSequential };
    let made = a.store.transact(vec![op.clone(), op]).await.unwrap();
    let numbered = |path: &str| Outcome::Created(path.to_owned());
    assert_eq!(made, [numbered("/q/m-0000000003"), numbered("/q/m-0000000004")]);
}

pub async fn versioned_set_and_delete(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/v", "0").await;
    assert_eq!(a.store.set("/v", text("1"), Some(0)).await.unwrap().version, 1);
    assert_fails!(a.store.set("/v", text("x"), Some(0)).await, Error::BadVersion { .. });
    assert_fails!(a.store.set("/v", text("x"), Some(-1)).await, Error::BadVersion { .. });
    assert_eq!(a.store.set("/v", text("2"), None).await.unwrap().version, 2);
    assert_fails!(a.store.delete("/v", Some(1)).await, Error::BadVersion { .. });
    assert_eq!(a.read("/v").await.unwrap(), "2");
    a.store.delete("/v", Some(2)).await.unwrap();
    assert_fails!(a.store.delete("/v", None).await, Error::NoNode { path } if path == "/v");
    let set = a.store.set("/v", text("x"), None).await;
    assert_fails!(set, Error::NoNode { path } if path == "/v");
    a.put("/v", "again").await;
    assert_eq!(a.store.get("/v").await.unwrap().unwrap().stat.version, 0);
}

pub async fn children_are_sorted(backend: &dyn Backend) {
    let a = backend.connect().await;
    for path in ["/c", "/c/b", "/c/a", "/c/ä", "/c/B", "/c/a/below", "/cc"] {
        a.put(path, "").await;
    }
    assert_eq!(a.store.children("/c").await.unwrap(), ["B", "a", "b", "ä"]);
    assert_eq!(a.store.children("/c/b").await.unwrap(), [""; 0]);
    assert_eq!(a.store.children("/").await.unwrap(), ["c", "cc"]);
    let listed = a.store.children("/missing").await;
    assert_fails!(listed, Error::NoNode { path } if path == "/missing");
}

pub async fn parents_must_exist(backend: &dyn Backend) {
    let a = backend.connect().await;
    for mode in [Mode::Persistent, Mode::Ephemeral, Mode::PersistentSequential] {
        let created = a.store.create("/no/child", text(""), mode).await;
        assert_fails!(created, Error::NoNode { path } if path == "/no");
    }
    let failed = a.store.transact(vec![create("/no/child", "")]).await;
    assert_fails!(&failed, Error::Transaction { index: 0, .. });
    assert_fails!(failed.as_ref().map_err(Error::root), Error::NoNode { path } if path == "/no");
}

pub async fn ephemerals_have_no_children(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.store.create("/e", text(""), Mode::Ephemeral).await.unwrap();
    let created = a.store.create("/e/child", text(""), Mode::Persistent).await;
    assert_fails!(created, Error::NoChildrenForEphemerals { path } if path == "/e/child");
}

pub async fn nodes_with_children_stay(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/n", "").await;
    a.put("/n/child", "").await;
    assert_fails!(a.store.delete("/n", None).await, Error::NotEmpty { path } if path == "/n");
    assert_fails!(a.store.delete("/n", Some(7)).await, Error::BadVersion { .. });
    a.store.transact(vec![delete("/n/child", None), delete("/n", None)]).await.unwrap();
    assert!(!a.exists("/n").await);
}

pub async fn data_is_limited(backend: &dyn Backend) {
    let a = backend.connect().await;
    let most = Bytes::from(vec![b'x'; MAX_DATA]);
    let more = Bytes::from(vec![b'x'; MAX_DATA + 1]);
    a.store.create("/big", most.clone(), Mode::Persistent).await.unwrap();
    assert_eq!(a.store.get("/big").await.unwrap().unwrap().data, most);
    assert_fails!(a.store.set("/big", more.clone(), None).await, Error::TooLarge { .. });
    let created = a.store.create("/more", more.clone(), Mode::Persistent).await;
    assert_fails!(created, Error::TooLarge { limit: MAX_DATA, .. });
    let set = |data: &Bytes| Op::Set { path: "/big".into(), data: data.clone(), version: None };
    let failed = a.store.transact(vec![set(&most), set(&more)]).await;
    assert_fails!(&failed, Error::Transaction { index: 1, .. });
    assert_fails!(failed.as_ref().map_err(Error::root), Error::TooLarge { .. });
    assert_fails!(a.store.transact(vec![set(&most); 16]).await, Error::TooLarge { .. });
    a.store.transact(vec![set(&most); 15]).await.unwrap();
    assert_eq!(a.store.get("/big").await.unwrap().unwrap().stat.version, 15);
}

pub async fn paths_are_validated(backend: &dyn Backend) {
    let a = backend.connect().await;
    for path in ["", "a", "/a/", "//", "/a//b", "/./a", "/..", "/a\u{0}", "/a\u{7f}", "/😊"] {
        let created = a.store.create(path, text(""), Mode::Persistent).await;
        assert_fails!(created, Error::BadPath { path: named, .. } if named == path);
        assert_fails!(a.store.get(path).await, Error::BadPath { .. });
        assert_fails!(a.store.children(path).await, Error::BadPath { .. });
    }
    for path in ["/größe", "/with space", "/...", "/a%2Fb", "/\u{d7ff}", "/\u{f900}"] {
        a.put(path, path).await;
        assert_eq!(a.read(path).await.unwrap(), path);
    }
}

pub async fn the_root_is_fixed(backend: &dyn Backend) {
    let a = backend.connect().await;
    assert!(a.store.get("/").await.unwrap().is_some());
    assert_fails!(a.store.create("/", text(""), Mode::Persistent).await, Error::BadPath { .. });
    assert_fails!(a.store.delete("/", None).await, Error::BadPath { .. });
    assert_eq!(a.store.set("/", text("root"), Some(0)).await.unwrap().version, 1);
    assert_eq!(a.read("/").await.unwrap(), "root");
}

pub async fn metadata_counts_as_zookeeper_does(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/m", "").await;
    let born = a.store.get("/m").await.unwrap().unwrap().stat;
    assert_eq!((born.czxid, born.ctime), (born.mzxid, born.mtime));
    a.put("/m/a", "").await;
    a.put("/m/b", "").await;
    a.store.delete("/m/a", None).await.unwrap();
    let now = a.store.get("/m").await.unwrap().unwrap().stat;
    assert_eq!((now.cversion, now.num_children, now.version), (3, 1, 0));
    assert_eq!((now.czxid, now.mzxid), (born.czxid, born.mzxid));
    let set = a.store.set("/m", text("x"), None).await.unwrap();
    assert_eq!(set, a.store.get("/m").await.unwrap().unwrap().stat);
    assert_eq!(set.czxid, born.czxid);
    assert!(set.mzxid > a.store.get("/m/b").await.unwrap().unwrap().stat.czxid);
    a.store.transact(vec![create("/x", ""), create("/y", "")]).await.unwrap();
    let [x, y] = [a.store.get("/x").await, a.store.get("/y").await];
    assert_eq!(x.unwrap().unwrap().stat.czxid, y.unwrap().unwrap().stat.czxid);
}

pub async fn transactions_do_all_or_nothing(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/t", "0").await;
    a.put("/t/child", "").await;
    assert_eq!(a.store.transact(Vec::new()).await.unwrap(), []);
    let failures = [
        (check("/t", Some(3)), "BadVersion"),
        (check("/missing", None), "NoNode"),
        (create("/t", ""), "NodeExists"),
        (create("/missing/x", ""), "NoNode"),
        (set("/t", "", Some(3)), "BadVersion"),
        (delete("/t", None), "NotEmpty"),
        (delete("/missing", None), "NoNode"),
    ];
    for (failing, expected) in failures {
        let before = vec![create("/new", ""), set("/t", "1", None), delete("/t/child", None)];
        let after = create("/later", "");
        let index = if expected == "NotEmpty" { 2 } else { 3 };
        let steps: Vec<_> = before.into_iter().take(index).chain([failing, after]).collect();
        let error = a.store.transact(steps).await.unwrap_err();
        let Error::Transaction { index: named, source } = &error else { panic!("{error:?}") };
        assert_eq!(*named, index, "{error:?}");
        assert!(format!("{source:?}").starts_with(expected), "{error:?} is not {expected}");
        assert!(!error.may_have_landed());
    }
    assert_eq!(a.store.children("/").await.unwrap(), ["t"]);
    assert_eq!(a.store.children("/t").await.unwrap(), ["child"]);
    assert_eq!(a.store.get("/t").await.unwrap().unwrap().stat.version, 0);
}

pub async fn transactions_see_their_own_steps(backend: &dyn Backend) {
    let a = backend.connect().await;
    let steps = vec![
        create("/p", "parent"),
        create("/p/c", "child"),
        check("/p/c", Some(0)),
        set("/p/c", "changed", Some(0)),
        check("/p/c", Some(1)),
        create("/p/gone", ""),
        delete("/p/gone", Some(0)),
    ];
    let outcomes = a.store.transact(steps).await.unwrap();
    assert_eq!(outcomes[0], Outcome::Created("/p".to_owned()));
    assert_eq!(outcomes[2], Outcome::Checked);
    assert!(matches!(&outcomes[3], Outcome::Set(stat) if stat.version == 1));
    assert_eq!(outcomes[6], Outcome::Deleted);
    assert_eq!(a.store.children("/p").await.unwrap(), ["c"]);
    assert_eq!(a.read("/p/c").await.unwrap(), "changed");
}

pub async fn claims_are_fenced_by_path(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    a.put("/incarnations", "").await;
    a.put("/work", "open").await;
    let mine = format!("/incarnations/{}", Uuid::new_v4());
    a.store.create(&mine, text(""), Mode::Ephemeral).await.unwrap();
    let fenced = |data| vec![check(&mine, None), set("/work", data, None)];
    a.store.transact(fenced("by a")).await.unwrap();
    // Someone removes the claim and makes one of his own: version 0 again, under another name.
    b.store.sync().await.unwrap();
    b.store.delete(&mine, None).await.unwrap();
    let other = format!("/incarnations/{}", Uuid::new_v4());
    b.store.create(&other, text(""), Mode::Ephemeral).await.unwrap();
    let error = a.store.transact(fenced("by a zombie")).await.unwrap_err();
    assert!(matches!(&error, Error::Transaction { index: 0, .. }), "{error:?}");
    assert!(matches!(error.root(), Error::NoNode { path } if *path == mine), "{error:?}");
    assert_eq!(a.read("/work").await.unwrap(), "by a");
}

pub async fn watches_see_changes_by_another_client(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    // The path need not exist yet.
    let mut node = a.store.watch("/w/n", Scope::Node);
    let mut children = a.store.watch("/w", Scope::Children);
    let mut subtree = a.store.watch("/w", Scope::Subtree);
    for watch in [&mut node, &mut children, &mut subtree] {
        assert_eq!(watch.next().await, Some(Event::Resync));
    }
    b.put("/w", "").await;
    expect_event(&mut children, changed("/w")).await;
    expect_event(&mut subtree, changed("/w")).await;
    b.put("/w/n", "").await;
    expect_event(&mut node, changed("/w/n")).await;
    expect_event(&mut children, changed("/w")).await;
    expect_event(&mut subtree, changed("/w/n")).await;
    b.store.set("/w/n", text("1"), None).await.unwrap();
    expect_event(&mut node, changed("/w/n")).await;
    expect_event(&mut subtree, changed("/w/n")).await;
    b.put("/w/n/deep", "").await;
    expect_event(&mut subtree, changed("/w/n/deep")).await;
    assert_eq!(children.next().now_or_never(), None, "neither data nor grandchildren");
    assert_eq!(node.next().now_or_never(), None, "no children");
    b.store.transact(vec![delete("/w/n/deep", None), delete("/w/n", None)]).await.unwrap();
    expect_event(&mut node, changed("/w/n")).await;
    expect_event(&mut children, changed("/w")).await;
    expect_event(&mut subtree, changed("/w/n")).await;
    assert!(a.store.get("/w/n").await.unwrap().is_none(), "an event comes with what it tells");
}

pub async fn watches_of_one_path_are_independent(backend: &dyn Backend) {
    let (a, b) = (backend.connect().await, backend.connect().await);
    a.put("/w", "").await;
    let mut kept = a.store.watch("/w", Scope::Subtree);
    assert_eq!(kept.next().await, Some(Event::Resync));
    for _ in 0..20 {
        let mut dropped = a.store.watch("/w", Scope::Node);
        assert_eq!(dropped.next().await, Some(Event::Resync));
        drop(dropped);
        b.store.set("/w", text("x"), None).await.unwrap();
        expect_event(&mut kept, changed("/w")).await;
    }
    drop(kept);
    let mut last = a.store.watch("/w", Scope::Children);
    assert_eq!(last.next().await, Some(Event::Resync));
    b.put("/w/c", "").await;
    expect_event(&mut last, changed("/w")).await;
}

pub async fn a_thousand_concurrent_writes(backend: &dyn Backend) {
    let a = backend.connect().await;
    a.put("/many", "").await;
    let begun = std::time::Instant::now();
    let writes = (0..1000).map(|n| {
        let store = a.store.clone();
        tokio::spawn(async move {
            match n % 2 {
                0 => store.create("/many/s-", text(""), Mode::PersistentSequential).await,
                _ => store.create(&format!("/many/p-{n}"), text(""), Mode::Persistent).await,
            }
        })
    });
    let paths: BTreeSet<_> =
        join_all(writes).await.into_iter().map(|made| made.unwrap().unwrap()).collect();
    println!("1000 concurrent writes: {:?}", begun.elapsed());
    assert_eq!(paths.len(), 1000);
    let names = a.store.children("/many").await.unwrap();
    assert!(names.iter().map(|name| format!("/many/{name}")).eq(paths));
}
