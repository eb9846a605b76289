//! What operators do to the store by hand: znodes deleted, overwritten with nonsense, grown beyond all
//! bounds; an ensemble that comes back with an older state, or with none. Answers are right or errors all
//! the while, no file of a table goes, and once it is mended everything is as it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use zookeeper_client::{Acls, Client as Raw, CreateMode};

use crate::after;
use crate::common::zookeeper::{Ensemble, Server};
use crate::support::{Client, Cluster, Daemon, PATIENCE, all_ready, bounded, until};

#[derive(Clone, Copy, Debug)]
enum How {
    Delete,
    Nonsense,
    /// Nearly as much as ZooKeeper takes.
    Oversized,
}

/// A znode, `*` in whose name stands for its first child, and what becomes of it.
const TAMPERED: &[(&str, How)] = &[
    ("/catalog/oribi/t", How::Nonsense),
    ("/catalog/oribi/t", How::Oversized),
    ("/catalog/oribi/t", How::Delete),
    ("/catalog/oribi", How::Nonsense),
    ("/catalog/oribi", How::Oversized),
    ("/oids", How::Nonsense),
    ("/oids", How::Delete),
    ("/maintenance", How::Nonsense),
    ("/peer-key", How::Nonsense),
    ("/peer-key", How::Delete),
    ("/roles/ann", How::Nonsense),
    ("/roles/ann", How::Oversized),
    ("/inbox/x", How::Oversized),
    ("/inbox/y", How::Nonsense),
    ("/queries/x", How::Nonsense),
    ("/queries/x", How::Oversized),
    ("/queue/x", How::Nonsense),
    ("/schedules/x", How::Nonsense),
    ("/settings/statement_timeout", How::Nonsense),
    ("/pools/x", How::Nonsense),
    ("/daemons/a", How::Nonsense),
    ("/daemons/a", How::Delete),
    ("/incarnations/*", How::Delete),
    ("/lives/*", How::Delete),
    ("/leader/*", How::Delete),
    ("/leader/*", How::Nonsense),
    ("/cluster", How::Nonsense),
    ("/cluster", How::Delete),
];

/// How long what is tampered with stays so.
const LOOKED: Duration = Duration::from_millis(1500);

const SUMS: [(&str, &str); 2] = [("SELECT sum(n) FROM t", "6"), ("SELECT sum(n) FROM u", "60")];

async fn raw(hosts: &str, chroot: &str) -> Raw {
    let connected = after::connect(hosts, chroot).await;
    connected.unwrap_or_else(|| panic!("ZooKeeper at {hosts} answers"))
}

async fn set_up(client: &Client) {
    client.rows("CREATE TABLE t (n int)").await;
    client.rows("INSERT INTO t VALUES (1), (2), (3)").await;
    client.rows("CREATE TABLE u (n int)").await;
    client.rows("INSERT INTO u VALUES (10), (20), (30)").await;
    client.rows("CREATE ROLE ann").await;
    client.rows("ALTER SYSTEM SET maintenance.rate = '32MiB'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_tampered_with_costs_no_more_than_that() {
    // Each case is bounded by itself.
    let server = Server::start();
    let cluster = Cluster::on(&server.connect_string());
    let warehouse = cluster.path("warehouse");
    let cluster = cluster.with("WAREHOUSE", &warehouse.display().to_string());
    let cluster = cluster.with("MAINTENANCE_INTERVAL", "500ms");
    let mut daemons = cluster.start_together(["a", "b"]).await;
    let client = Client::connect(&daemons[0]).await;
    set_up(&client).await;
    drop(client);
    let chroot = cluster.zookeeper().split_once('/').expect("a chroot").1.to_owned();
    let store = raw(&server.connect_string(), &format!("/{chroot}")).await;
    let mut sums = 0;
    for (path, how) in TAMPERED {
        let what = format!("{how:?} of {path}");
        let before = files(&warehouse);
        let path = existing(&store, path).await;
        let saved =
            store.get_data(&path).await.ok().map(|(data, stat)| (data, stat.ephemeral_owner));
        tamper(&store, &path, *how).await;
        let began = Instant::now();
        while began.elapsed() < LOOKED {
            for daemon in daemons.iter().filter(|daemon| daemon.ended().is_none()) {
                sums += right_or_error(daemon, &what).await;
            }
        }
        // Mended: what an operator has from a back-up.
        match saved {
            Some((data, 0)) => {
                let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
                if store.set_data(&path, &data, None).await.is_err() {
                    let _ = store.create(&path, &data, &options).await;
                }
            }
            // Whose it is sees to it.
            Some(_) => {}
            None => drop(store.delete(&path, None).await),
        }
        whole_again(&cluster, &mut daemons, &what).await;
        let gone: Vec<_> = before.difference(&files(&warehouse)).cloned().collect();
        let data = gone.iter().filter(|file| file.extension().is_some_and(|end| end == "parquet"));
        assert_eq!(data.count(), 0, "{what}: {gone:?}");
    }
    println!(
        "{} znodes tampered with, {sums} right answers meanwhile, no wrong one",
        TAMPERED.len()
    );
}

/// The path with the first child in place of `*`.
async fn existing(store: &Raw, path: &str) -> String {
    let Some(parent) = path.strip_suffix("/*") else { return path.to_owned() };
    let first = store.list_children(parent).await.expect("children").into_iter().min();
    format!("{parent}/{}", first.expect("a child"))
}

async fn tamper(store: &Raw, path: &str, how: How) {
    let data = match how {
        How::Delete => {
            // Housekeeping may have been quicker.
            let _ = store.delete(path, None).await;
            return;
        }
        How::Nonsense => b"{\"no\": [such".to_vec(),
        How::Oversized => vec![b'x'; 1_000_000],
    };
    if store.set_data(path, &data, None).await.is_err() {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        store.create(path, &data, &options).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// How many answers were right; the others were errors.
async fn right_or_error(daemon: &Daemon, what: &str) -> usize {
    let asked = async {
        let Ok(client) = Client::try_connect(daemon).await else { return 0 };
        let mut right = 0;
        for (sql, sum) in SUMS {
            if let Ok(rows) = client.try_rows(sql).await {
                assert_eq!(rows, [[sum]], "{what}: {sql}");
                right += 1;
            }
        }
        right
    };
    // Many would fill the log.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_default()
}

const IDS: [&str; 2] = ["a", "b"];

/// Daemons that have ended start again, and everything is as it was.
async fn whole_again(cluster: &Cluster, daemons: &mut [Daemon], what: &str) {
    let give_up = Instant::now() + 2 * PATIENCE;
    for (number, asked) in IDS.into_iter().enumerate() {
        loop {
            // Each of them: neither is whole without the other.
            for (daemon, id) in daemons.iter_mut().zip(IDS) {
                // One that is told to leave takes its time.
                if daemon.ended().is_some() {
                    let log = daemon.log();
                    let last = log.lines().rfind(|line| line.contains("\"ERROR\""));
                    let last = last.unwrap_or_default();
                    println!("{what}: {id} ended: {}", last.chars().take(300).collect::<String>());
                    *daemon = cluster.start(id);
                }
            }
            if is_as_it_was(&daemons[number]).await {
                break;
            }
            assert!(Instant::now() < give_up, "{asked} is not as it was after {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = daemons[number].log();
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
}

/// Whether a daemon sees both, answers right and takes changes.
async fn is_as_it_was(daemon: &Daemon) -> bool {
    let asked = async {
        let client = Client::try_connect(daemon).await.ok()?;
        let members = "SELECT string_agg(id || state, ' ' ORDER BY id) FROM system.daemons";
        let rows = client.try_rows(members).await.ok()?;
        let mut right = rows == [["aready bready"]];
        for (sql, sum) in SUMS {
            right &= client.try_rows(sql).await.ok()? == [[sum]];
        }
        for write in ["INSERT INTO t VALUES (100)", "DELETE FROM t WHERE n = 100"] {
            client.try_rows(write).await.ok()?;
        }
        Some(right)
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default()
}

fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() }).collect()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp starts").success());
}

/// All members stop, their data becomes what `with` makes of it, and they start again.
fn replace_data(ensemble: &mut Ensemble, with: impl Fn(usize, &Path)) {
    ensemble.servers.iter_mut().for_each(Server::stop);
    for (number, server) in ensemble.servers.iter().enumerate() {
        with(number, &server.data_dir());
    }
    ensemble.servers.iter_mut().for_each(Server::launch_again);
    ensemble.servers.iter().for_each(Server::wait_until_serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_state_and_none_destroy_nothing() {
    bounded(async {
        let mut ensemble = Ensemble::start(3);
        let cluster = Cluster::on(&ensemble.connect_string());
        let warehouse = cluster.path("warehouse");
        let cluster = cluster.with("WAREHOUSE", &warehouse.display().to_string());
        let cluster = cluster.with("MAINTENANCE_INTERVAL", "500ms");
        let mut daemons = cluster.start_together(["a", "b"]).await;
        set_up(&Client::connect(&daemons[0]).await).await;
        let copies = cluster.path("copies");
        fs::create_dir(&copies).expect("a directory");
        replace_data(&mut ensemble, |number, data| copy(data, &copies.join(number.to_string())));
        whole_again(&cluster, &mut daemons, "a restart of the ensemble").await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE later (n int)").await;
        client.rows("INSERT INTO later VALUES (7)").await;
        drop(client);
        let before = files(&warehouse);

        // As of the copy: `later` is not known any more, and everything else is as it was.
        replace_data(&mut ensemble, |number, data| {
            fs::remove_dir_all(data).expect("its data");
            copy(&copies.join(number.to_string()), data);
        });
        let began = Instant::now();
        while began.elapsed() < 2 * LOOKED {
            for daemon in daemons.iter().filter(|daemon| daemon.ended().is_none()) {
                right_or_error(daemon, "an older state").await;
            }
        }
        // What the documentation asks for: no daemon runs on over it.
        for daemon in daemons.iter().filter(|daemon| daemon.ended().is_none()) {
            daemon.terminate();
        }
        for daemon in &daemons {
            daemon.wait(PATIENCE);
        }
        whole_again(&cluster, &mut daemons, "an older state").await;
        let gone: Vec<_> = before.difference(&files(&warehouse)).cloned().collect();
        let data = gone.iter().filter(|file| file.extension().is_some_and(|end| end == "parquet"));
        assert_eq!(data.count(), 0, "{gone:?}");

        // Nothing at all: nobody goes on, and nothing is removed.
        let before = files(&warehouse);
        replace_data(&mut ensemble, |_, data| {
            fs::remove_dir_all(data.join("version-2")).expect("its data");
        });
        for daemon in &daemons {
            until("the reason is told", async || daemon.log().contains("lost its data")).await;
            if daemon.ended().is_none() {
                daemon.terminate();
            }
            daemon.wait(PATIENCE);
        }
        let again = cluster.launch("a", "a");
        assert_eq!(again.wait(PATIENCE).code(), Some(1), "{}", again.log());
        assert!(again.log().contains("lost its data"), "{}", again.log());
        assert_eq!(files(&warehouse), before);
        // Back with its data, they go on.
        replace_data(&mut ensemble, |number, data| {
            fs::remove_dir_all(data).expect("its data");
            copy(&copies.join(number.to_string()), data);
        });
        for (daemon, id) in daemons.iter_mut().zip(["a", "b"]) {
            *daemon = cluster.start(id);
        }
        all_ready(&Client::connect(&daemons[0]).await, &["a", "b"]).await;
        whole_again(&cluster, &mut daemons, "a restored ensemble").await;
    })
    .await;
}
