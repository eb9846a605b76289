//! A warehouse whose file system goes, and comes back: nothing is acknowledged that is not there then.

use std::fs::{create_dir, remove_dir_all, rename};

use crate::common::daemon::{Daemon, Options};
use crate::support::Client;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_where_the_warehouse_was() {
    let options = Options::new().env("ORIBI_MAINTENANCE_INTERVAL", "none");
    let daemon = Daemon::start(&options);
    let client = Client::connect(&daemon).await;
    client.rows("CREATE TABLE t (n int)").await;
    client.rows("INSERT INTO t VALUES (1), (2)").await;
    let (warehouse, away) =
        (daemon.data_dir().join("warehouse"), daemon.data_dir().join("warehouse-away"));
    // A directory that is gone, and the empty one below a mount point.
    for empty in [false, true] {
        rename(&warehouse, &away).expect("it goes");
        if empty {
            create_dir(&warehouse).expect("a mount point");
        }
        for statement in [
            "INSERT INTO t VALUES (3)",
            "INSERT INTO t SELECT 4",
            "INSERT OVERWRITE TABLE t SELECT 5",
            "TRUNCATE t",
            "ALTER TABLE t ADD COLUMN m int",
            "CREATE TABLE u (n int)",
            "CREATE TABLE u AS SELECT 1 AS n",
        ] {
            let error = client.refused(statement).await;
            // What is not in memory is missed before it comes to the commit.
            let mounted = error.message().contains("storage mounted");
            let code = if mounted { "58030" } else { "58P01" };
            assert_eq!(error.code().code(), code, "{statement}: {error}");
        }
        if warehouse.exists() {
            remove_dir_all(&warehouse).expect("what was made meanwhile");
        }
        rename(&away, &warehouse).expect("it comes back");
        assert_eq!(client.rows("SELECT n FROM t ORDER BY n").await, [["1"], ["2"]]);
    }
    client.rows("INSERT INTO t VALUES (3)").await;
    client.rows("CREATE TABLE u AS SELECT sum(n) AS n FROM t").await;
    assert_eq!(client.rows("SELECT n FROM u").await, [["6"]]);
}
