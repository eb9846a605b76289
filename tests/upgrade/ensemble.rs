//! The ensemble underneath a cluster is upgraded, one member after the other.
//!
//! `ORIBI_TEST_NEWER_ZOOKEEPER` names the directory with the newer version's jars, such as `tests/run`
//! installs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::zookeeper::{Ensemble, Server};
use crate::support::{Client, Cluster, all_ready, bounded, until};
use crate::writers::{Writers, account};

const IDS: [&str; 2] = ["a", "b"];

/// The jars of a directory, as a class path.
fn jars(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let jars = paths.filter(|path| path.extension().is_some_and(|end| end == "jar"));
    jars.map(|jar| jar.display().to_string()).collect::<Vec<_>>().join(":")
}

/// What a member calls itself.
fn version(server: &Server) -> String {
    let answer = server.four_letters("srvr").unwrap_or_default();
    let line = answer.lines().find_map(|line| line.strip_prefix("Zookeeper version: "));
    line.and_then(|line| line.split(['-', ',']).next()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_replaced_one_by_one_under_daemons() {
    let Some(newer) = std::env::var_os("ORIBI_TEST_NEWER_ZOOKEEPER") else {
        println!("no newer ZooKeeper is named: nothing to do");
        return;
    };
    let classpath = jars(Path::new(&newer));
    bounded(async {
        let mut ensemble = Ensemble::start(3);
        let before: BTreeSet<_> = ensemble.servers.iter().map(version).collect();
        let cluster = Cluster::on(&ensemble.connect_string());
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let daemons = cluster.start_all(IDS);
        let client = Client::connect(&daemons[0]).await;
        all_ready(&client, &IDS).await;
        client.rows("CREATE TABLE written (x bigint)").await;
        let addresses = daemons.each_ref().map(|daemon| daemon.postgres());
        let writers = Writers::start(2, &addresses);
        // The leader last, as its manual has it.
        let leader = ensemble.leader().expect("a leader");
        for member in [1, 2, 0].map(|step| (leader + step) % 3) {
            ensemble.servers[member].restart_with(&classpath);
            for daemon in &daemons {
                let client = Client::connect(daemon).await;
                all_ready(&client, &IDS).await;
                let made =
                    format!("CREATE TABLE IF NOT EXISTS made_{member}_{} (n int)", daemon.pid());
                until(&made, async || client.try_rows(&made).await.is_ok()).await;
            }
        }
        let after: BTreeSet<_> = ensemble.servers.iter().map(version).collect();
        assert!(after.len() == 1 && after.is_disjoint(&before), "{before:?}, then {after:?}");
        let all = writers.stop().await;
        for written in &all {
            // Out of touch nothing is written, and what is lost on the way is not known.
            let expected = |code: &String| ["08007", "25006"].contains(&code.as_str());
            assert!(written.said.keys().all(expected), "{:?}", written.said);
        }
        for daemon in &daemons {
            let client = Client::connect(daemon).await;
            client.rows("SET oribi.consistency = 'strong'").await;
            let acknowledged = account(&client, &all).await;
            let made = "SELECT count(*) FROM pg_class WHERE relname LIKE 'made%'";
            assert_eq!(client.value(made).await, "6");
            println!("{before:?} to {after:?}: {acknowledged} rows acknowledged meanwhile");
        }
    })
    .await;
}
