//! Rolling upgrades under clients that go on: daemons of two builds side by side, and the ensemble below.
//!
//! `ORIBI_TEST_OTHER_BINARY` names the build that the cluster comes from. Without it that is a copy of the
//! one under test that calls itself another commit: daemons know each other's build by nothing else.

mod common;
#[path = "upgrade/ensemble.rs"]
mod ensemble;
#[path = "cluster/support.rs"]
mod support;
#[path = "upgrade/writers.rs"]
mod writers;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Client, Cluster, Daemon, PATIENCE, all_ready, bounded, until};
use writers::{Writers, account};

const IDS: [&str; 3] = ["a", "b", "c"];

/// A join of enough rows that each daemon of a build gets some of it.
const SPREAD: &str = "SELECT count(*), sum(l.x) FROM numbers l JOIN numbers r ON l.x = r.x + 1";

/// The commit that a binary calls itself by.
fn build_of(binary: &Path) -> String {
    let out = Command::new(binary).arg("--version").output().expect("it runs");
    let version = String::from_utf8(out.stdout).expect("text");
    let (_, build) = version.trim().rsplit_once('(').expect("a build in brackets");
    build.trim_end_matches(')').to_owned()
}

/// The build that the cluster comes from.
fn old_build(cluster: &Cluster) -> PathBuf {
    if let Some(named) = std::env::var_os("ORIBI_TEST_OTHER_BINARY") {
        return named.into();
    }
    let (binary, copy) = (common::daemon::binary(), cluster.path("old-oribi"));
    let build = build_of(&binary);
    assert!(build.bytes().all(|byte| byte.is_ascii_hexdigit()), "{build} is no commit");
    let other: String = build.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let mut sed = Command::new("sed");
    sed.env("LC_ALL", "C").arg(format!("s/{build}/{other}/g")).arg(&binary);
    sed.stdout(Stdio::from(File::create(&copy).expect("a copy")));
    assert!(sed.status().expect("sed runs").success());
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("it may run");
    copy
}

/// Who runs a statement that may be spread: the names in the first line of its plan.
async fn workers(client: &Client) -> BTreeSet<String> {
    client.rows("SET oribi.distribution = 'always'").await;
    let plan = client.value(&format!("EXPLAIN {SPREAD}")).await;
    let named = plan.strip_prefix("Workers: ").and_then(|rest| rest.split(" (").next());
    named.into_iter().flat_map(|names| names.split(", ")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_are_replaced_one_by_one_under_clients() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let (old, new) = (old_build(&cluster), common::daemon::binary());
        let (old_name, new_name) = (build_of(&old), build_of(&new));
        assert_ne!(old_name, new_name);
        let start = |id: &str| cluster.start_build(id, &old, None);
        let mut daemons: [Daemon; 3] = IDS.map(start);
        let addresses: [SocketAddr; 3] = std::array::from_fn(|at| daemons[at].postgres());
        let client = Client::connect(&daemons[0]).await;
        all_ready(&client, &IDS).await;
        // What the older build leaves behind.
        for sql in [
            "CREATE TABLE written (x bigint)",
            "CREATE TABLE numbers AS SELECT x FROM generate_series(1, 100000) s(x)",
            "CREATE VIEW evens AS SELECT x FROM numbers WHERE x % 2 = 0",
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT ON numbers TO reader",
            "ALTER SYSTEM SET statement_timeout = '4min'",
        ] {
            client.rows(sql).await;
        }
        assert_eq!(workers(&client).await, BTreeSet::from(IDS.map(str::to_owned)));
        let spread = client.rows(SPREAD).await;
        let submit = |sql: &str| format!("SELECT oribi.submit($${sql}$$)");
        let early = client.value(&submit("SELECT sum(x) FROM numbers")).await;
        let waited = format!("SELECT oribi.wait('{early}', interval '1 minute')");
        assert_eq!(client.value(&waited).await, "succeeded");
        let writers = Writers::start(2, &addresses);
        drop(client);
        for at in 0..IDS.len() {
            let (id, other) = (IDS[at], (at + 1) % IDS.len());
            // One that is under way when its daemon is told to end goes on.
            let leaving = Client::connect(&daemons[at]).await;
            let under_way = leaving
                .value(&submit("SELECT count(*) FROM generate_series(1, 20000000) s(x)"))
                .await;
            daemons[at].terminate();
            assert_eq!(daemons[at].wait(PATIENCE).code(), Some(0), "{}", daemons[at].log());
            daemons[at] = cluster.start_build(id, &new, Some(addresses[at]));
            let [newer, next] =
                [Client::connect(&daemons[at]).await, Client::connect(&daemons[other]).await];
            all_ready(&newer, &IDS).await;
            all_ready(&next, &IDS).await;
            let builds = newer.rows("SELECT build FROM system.daemons ORDER BY id").await;
            let of = |place: usize| if place <= at { &new_name } else { &old_name };
            let expected: Vec<_> = (0..IDS.len()).map(|place| vec![of(place).clone()]).collect();
            assert_eq!(builds, expected);
            // Each sees at once what the other makes, and both answer alike.
            for (here, there, name) in [(&newer, &next, "by_newer"), (&next, &newer, "by_next")] {
                let made = format!("CREATE TABLE {name}_{id} AS SELECT count(*) AS n FROM evens");
                here.rows(&made).await;
                let read = format!("SELECT n FROM {name}_{id}");
                until(&read, async || there.try_rows(&read).await.is_ok()).await;
                assert_eq!(there.value(&read).await, "50000");
                assert_eq!(here.rows(SPREAD).await, spread);
                assert_eq!(there.value("SHOW statement_timeout").await, "4min");
            }
            // Only daemons of one build run a statement together.
            let like: BTreeSet<_> = IDS[..=at].iter().map(|id| (*id).to_owned()).collect();
            let alone = if at == 0 { BTreeSet::new() } else { like };
            until("the workers of its build", async || workers(&newer).await == alone).await;
            assert_eq!(newer.rows(SPREAD).await, spread);
            // Results of the older build are there, and what it had under way comes to its end.
            let result = |id: &str| format!("SELECT * FROM oribi.result('{id}')");
            assert_eq!(newer.value(&result(&early)).await, "5000050000");
            let waited = format!("SELECT oribi.wait('{under_way}', interval '3 minutes')");
            assert_eq!(next.value(&waited).await, "succeeded");
            assert_eq!(newer.value(&result(&under_way)).await, "20000000");
            let reader = Client::connect_as(&daemons[at], "reader").await;
            assert_eq!(reader.value("SELECT count(*) FROM numbers").await, "100000");
            assert_eq!(reader.outcome("SELECT count(*) FROM written").await, "42501");
        }
        let all = writers.stop().await;
        for written in &all {
            // A daemon ends: nothing was run.
            assert!(written.said.keys().all(|code| code == "57P01"), "{:?}", written.said);
        }
        let acknowledged = account(&Client::connect(&daemons[0]).await, &all).await;
        println!("{old_name} to {new_name}: {acknowledged} rows acknowledged meanwhile");
    })
    .await;
}
