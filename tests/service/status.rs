//! The line that `systemctl status` shows.

use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::daemon::PATIENCE;
use crate::common::zookeeper::Server;
use crate::notices::Notices;
use crate::support::{Client, Cluster, ENDLESS, bounded, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_how_the_daemon_does() {
    bounded(async {
        let directory = TempDir::new().expect("a directory");
        let notices = Notices::listen(directory.path());
        let mut server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let peer = cluster.start("b");
        let cluster = cluster.with_variable("NOTIFY_SOCKET", &notices.path().display().to_string());
        let daemon = cluster.start("a");
        let joining = notices.wait("STATUS=");
        assert!(joining.starts_with("STATUS=Joining: looking for ZooKeeper at 127.0.0.1:"));
        notices.wait("READY=1");
        let ready = notices.wait("2 daemons in the cluster");
        let ports = format!("PostgreSQL on {}", daemon.postgres());
        assert!(ready.starts_with("STATUS=Ready, ") && ready.contains(&ports), "{ready}");

        server.stop();
        let degraded = notices.wait("STATUS=Degraded");
        let since = degraded.split_whitespace().nth(2).expect("a time").trim_end_matches(':');
        chrono::DateTime::parse_from_rfc3339(since)
            .unwrap_or_else(|error| panic!("{since}: {error}"));
        server.restart();
        notices.wait("2 daemons in the cluster");
        peer.terminate();
        assert!(peer.wait(PATIENCE).success());
        notices.wait("Ready, 1 daemon in the cluster");

        let (witness, busy) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
        let running = tokio::spawn(async move { busy.refused(ENDLESS).await });
        let count = "SELECT count(*) FROM system.queries WHERE sql LIKE '%generate_series(1, %' \
                     AND sql NOT LIKE '%system.queries%'";
        until("the statement runs", async || witness.value(count).await == "1").await;
        notices.so_far();
        daemon.terminate();
        notices.wait("STOPPING=1");
        let draining = notices.wait(": 1 connection and 1 statement left");
        assert!(draining.starts_with("STATUS=Draining since "), "{draining}");
        daemon.signal(Signal::TERM);
        assert_eq!(running.await.expect("it ends").code().code(), "57P01");
        assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    })
    .await;
}
