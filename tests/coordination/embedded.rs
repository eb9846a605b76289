//! What only the embedded store promises: its file survives crashes, and belongs to one process.

use std::io::{BufRead, BufReader, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oribi::coordination::embedded::{EmbeddedSession, EmbeddedStore, Options};
use oribi::coordination::{Coordination, Error, Mode, Op, SessionState};

/// Tells the helper processes below which directory to use.
const DIRECTORY: &str = "ORIBI_TEST_EMBEDDED_DIRECTORY";

const WRITERS: usize = 4;

fn connect(dir: &Path) -> Arc<EmbeddedSession> {
    EmbeddedStore::open(dir).expect("the store opens").connect(Options::default())
}

fn helper(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args([&format!("embedded_store::{name}"), "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped());
    command
}

fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).expect("started by a test").into()
}

#[tokio::test]
async fn a_restart_loses_nothing_but_ephemerals() {
    let dir = tempfile::tempdir().unwrap();
    let a = connect(dir.path());
    let create = async |path: &str, mode| a.create(path, Bytes::from_static(b"x"), mode).await;
    create("/p", Mode::Persistent).await.unwrap();
    create("/p/q", Mode::Persistent).await.unwrap();
    create("/p/e", Mode::Ephemeral).await.unwrap();
    assert_eq!(create("/p/s-", Mode::EphemeralSequential).await.unwrap(), "/p/s-0000000002");
    create("/gone", Mode::Persistent).await.unwrap();
    a.delete("/gone", None).await.unwrap();
    a.set("/p/q", Bytes::from_static(b"y"), Some(0)).await.unwrap();
    a.set("/p/e", Bytes::new(), None).await.unwrap();
    let last = a.get("/p/e").await.unwrap().unwrap().stat.mzxid;
    let before = a.get("/p/q").await.unwrap().unwrap();
    let session = a.session().borrow().id;
    drop(a);

    let a = connect(dir.path());
    assert_ne!(a.session().borrow().id, session);
    assert_eq!(a.children("/").await.unwrap(), ["p"]);
    assert_eq!(a.children("/p").await.unwrap(), ["q"]);
    assert_eq!(a.get("/p/q").await.unwrap().unwrap(), before);
    let next = a.create("/p/s-", Bytes::new(), Mode::PersistentSequential).await.unwrap();
    assert_eq!(next, "/p/s-0000000003");
    assert!(a.get(&next).await.unwrap().unwrap().stat.czxid > last);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let held = connect(dir.path());
    let output = helper("open_and_tell", dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("another process holds this directory"), "{told}");
    assert!(told.contains(dir.path().to_str().unwrap()), "{told}");
    held.create("/x", Bytes::new(), Mode::Persistent).await.unwrap();
    drop(held);
    let output = helper("open_and_tell", dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("opened"));
}

#[test]
#[ignore = "a helper process of a_second_process_is_refused"]
fn open_and_tell() {
    match EmbeddedStore::open(&directory()) {
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

#[tokio::test]
async fn a_damaged_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let a = connect(dir.path());
    a.create("/x", Bytes::from(vec![b'x'; 1000]), Mode::Persistent).await.unwrap();
    drop(a);
    let file = dir.path().join("coordination.redb");
    for damaged in [vec![0xab; 100_000], b"short".to_vec()] {
        std::fs::write(&file, damaged).unwrap();
        let error = EmbeddedStore::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Storage { .. }), "{error:?}");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_store_in_memory_is_forgotten() {
    let store = EmbeddedStore::in_memory().unwrap();
    let (a, b) = (store.connect(Options::default()), store.connect(Options::default()));
    a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap();
    assert!(b.get("/x").await.unwrap().is_some());
    drop((store, a, b));
    let store = EmbeddedStore::in_memory().unwrap();
    assert!(store.connect(Options::default()).get("/x").await.unwrap().is_none());
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_write_leaves_a_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let a = connect(dir.path());
    let mut doubts = 0;
    for round in 0..200 {
        let path = format!("/{round}");
        let mut write = Box::pin(a.create(&path, Bytes::new(), Mode::Persistent));
        let polled = futures::poll!(&mut write);
        a.disconnect();
        assert_eq!(a.session().borrow().state, SessionState::Disconnected);
        if polled.is_pending() {
            // The answer may have been there already.
            match write.await {
                Ok(_) => (),
                Err(error) if error.may_have_landed() => doubts += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        a.reconnect();
    }
    assert!(doubts > 0);
}

/// The heart of it: whatever was acknowledged before a crash is there after it.
#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 0..10_u64 {
        let mut child = helper("write_until_killed", dir.path()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        while !first.contains("acknowledged") {
            first.clear();
            assert_ne!(output.read_line(&mut first).unwrap(), 0, "the helper works");
        }
        // At any moment.
        let nanos = std::time::SystemTime::now().elapsed().unwrap_or_default().as_nanos() as u64;
        std::thread::sleep(Duration::from_micros((nanos * 7919 + round * 31_337) % 150_000));
        kill(&mut child);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        total += verify(dir.path(), &format!("{first}{rest}"));
    }
    println!("{total} acknowledged writes survived 10 kills");
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Checks what the helper was told against what is there; returns how much it was told.
fn verify(dir: &Path, told: &str) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = connect(dir);
        let mut acknowledged = 0;
        let mut last_number = String::new();
        // A line cut short by the kill is not complete, and the write it tells of is not checked.
        for line in told.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Some((_, told)) = line.trim_end().split_once("acknowledged ") else { continue };
            let words: Vec<_> = told.split(' ').collect();
            let (path, value, number) = (words[0], words[1], words[2]);
            let node = store.get(path).await.unwrap().unwrap_or_else(|| panic!("{path} is lost"));
            assert_eq!(node.data, value, "{path}");
            let counter = path.rsplit_once('/').unwrap().0;
            let node = store.get(counter).await.unwrap().expect("the writer's node");
            let count: u64 = std::str::from_utf8(&node.data).unwrap().parse().unwrap();
            assert!(count >= value.parse().unwrap(), "{counter} went back to {count}");
            last_number = last_number.max(number.to_owned());
            acknowledged += 1;
        }
        let next = store.create("/n-", Bytes::new(), Mode::EphemeralSequential).await.unwrap();
        assert!(next > last_number, "{next} was handed out before ({last_number})");
        acknowledged
    })
}

#[tokio::test]
#[ignore = "a helper process of a_killed_process_loses_nothing_acknowledged"]
async fn write_until_killed() {
    let store = connect(&directory());
    let writers = (0..WRITERS).map(|writer| write_for_ever(store.clone(), writer));
    futures::future::join_all(writers).await;
}

async fn write_for_ever(store: Arc<EmbeddedSession>, writer: usize) {
    let counter = format!("/writer-{writer}");
    let mut count = match store.get(&counter).await.unwrap() {
        Some(node) => std::str::from_utf8(&node.data).unwrap().parse().unwrap(),
        None => {
            let zero = Bytes::from_static(b"0");
            store.create(&counter, zero, Mode::Persistent).await.unwrap();
            0_u64
        }
    };
    loop {
        count += 1;
        let value = || Bytes::from(count.to_string());
        let path = format!("{counter}/{count}");
        let steps = vec![
            Op::Set { path: counter.clone(), data: value(), version: None },
            Op::Create { path: path.clone(), data: value(), mode: Mode::Persistent },
        ];
        match store.transact(steps).await {
            Ok(_) => (),
            // Landed before the kill, without having been acknowledged.
            Err(error) if matches!(error.root(), Error::NodeExists { .. }) => continue,
            Err(error) => panic!("{error:?}"),
        }
        let number = store.create("/n-", Bytes::new(), Mode::EphemeralSequential).await.unwrap();
        let mut out = stdout().lock();
        writeln!(out, "acknowledged {path} {count} {number}").unwrap();
        out.flush().unwrap();
    }
}
