//! Tables that pyiceberg has made, taken over, and taken over by two at the same time.

use std::path::Path;
use std::process::Command;

use crate::common::daemon::{Daemon, Options};
use crate::python::{python, run};
use crate::support::{Client, Cluster, bounded};

#[test]
fn tables_of_other_writers_are_taken_over() {
    let python = python(&["pyiceberg", "psycopg"], "pyiceberg 'psycopg[binary]'");
    let daemon = Daemon::start(&Options::new());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = daemon.postgres();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/adopt.py");
    let report = run(Command::new(python)
        .arg(script)
        .args([address.ip().to_string(), address.port().to_string()])
        .arg(directory.path()));
    assert!(report.ends_with("adopted tables agree\n"), "{report}");
}

/// Whoever is second sees the first one's table in the store, whatever it knew before.
#[tokio::test(flavor = "multi_thread")]
async fn one_table_is_taken_over_once() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let daemons = cluster.start_all(["a", "b"]);
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        for round in 0..5 {
            a.rows(&format!("CREATE TABLE made{round} AS SELECT {round} AS n")).await;
            let location =
                format!("SELECT metadata_location FROM system.tables WHERE name = 'made{round}'");
            let location = a.rows(&location).await[0][0].clone();
            a.rows(&format!("DROP TABLE made{round}")).await;
            let adopt = |name: &str| format!("CALL oribi.adopt('{name}{round}', '{location}')");
            let (of_a, of_b) = (adopt("first"), adopt("second"));
            let (of_a, of_b) = tokio::join!(a.try_rows(&of_a), b.try_rows(&of_b));
            let errors: Vec<_> = [of_a.err(), of_b.err()].into_iter().flatten().collect();
            assert_eq!(errors.len(), 1, "{errors:?}");
            let code = errors[0].code().map(|code| code.code().to_owned());
            assert_eq!(code.as_deref(), Some("42710"), "{:?}", errors[0]);
            let named =
                format!("SELECT name FROM system.tables WHERE metadata_location = '{location}'");
            a.rows("SET oribi.consistency = 'strong'").await;
            let named = a.rows(&named).await;
            assert_eq!(named.len(), 1, "{named:?}");
        }
    })
    .await;
}
