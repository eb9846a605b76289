//! ZooKeeper loses its data: nobody goes on as if nothing had happened.

use std::path::PathBuf;

use crate::common::zookeeper::Server;
use crate::support::*;

/// Where a running server keeps its data.
fn data_directory(server: &Server) -> PathBuf {
    let answer = server.four_letters("conf").expect("an answer");
    let line = answer.lines().find_map(|line| line.strip_prefix("dataDir="));
    line.expect("a data directory").into()
}

/// Starts a server again, on the same port and with nothing in it.
fn wipe(server: &mut Server) {
    let data = data_directory(server);
    server.stop();
    std::fs::remove_dir_all(&data).expect("its data");
    server.restart();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_goes_on_by_himself_when_the_data_is_lost() {
    bounded(async {
        let mut server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let daemons = [cluster.start("a"), cluster.start("b")];
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE VIEW v AS SELECT 1 AS x").await;
        wipe(&mut server);
        // Each either has gone, or refuses to change anything and takes itself for degraded.
        for daemon in &daemons {
            until("the daemon has gone or is degraded", async || {
                if daemon.ended().is_some() {
                    return true;
                }
                let Ok(client) = Client::try_connect(daemon).await else { return false };
                let Ok(code) = client.try_rows("CREATE VIEW w AS SELECT 1 AS x").await else {
                    let state = readyz(daemon).await;
                    return state.is_some_and(|(_, body)| body["state"] == "degraded")
                        && daemon.log().contains("lost its data");
                };
                panic!("a view was made in an empty store: {code:?}")
            })
            .await;
            until("the reason is told", async || daemon.log().contains("lost its data")).await;
        }
        let store = Store::of(&cluster).await;
        for path in ["/cluster", "/daemons", "/catalog", "/queries", "/oids", "/incarnations"] {
            assert_eq!(store.get(path).await, None, "{path}");
            assert!(store.children(path).await.is_empty(), "{path}");
        }
        for daemon in &daemons {
            if daemon.ended().is_none() {
                daemon.terminate();
            }
            daemon.wait(PATIENCE);
        }
        // Nor does a restart: the data directory remembers.
        let again = cluster.launch("a", "a");
        assert_eq!(again.wait(PATIENCE).code(), Some(1), "{}", again.log());
        let file = cluster.path("a").join("clusters.json").display().to_string();
        let log = again.log();
        assert!(log.contains(&file) && log.contains("lost its data"), "{log}");
        assert_eq!(store.get("/cluster").await, None);

        // A new cluster in the store is not this daemon's either.
        let other = cluster.start("c");
        let again = cluster.launch("a", "a");
        assert_eq!(again.wait(PATIENCE).code(), Some(1));
        assert!(again.log().contains(&file), "{}", again.log());
        // Until the operator says so, by removing what the message names.
        std::fs::remove_file(&file).expect("the file");
        let _again = cluster.start("a");
        all_ready(&Client::connect(&other).await, &["a", "c"]).await;
    })
    .await;
}
