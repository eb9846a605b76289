//! The watchdog's sign of life: it comes while everything turns over that the daemon depends on, and not
//! when one part of it is stuck.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::daemon::Daemon;
use crate::common::zookeeper::Server;
use crate::notices::Notices;
use crate::support::{Client, Cluster, bounded, until};

/// What systemd would wait for a sign.
const LIMIT: Duration = Duration::from_secs(3);

const SIGN: &str = "WATCHDOG=1";

/// A daemon that stalls one of its threads at a point, once there is a file.
struct Stage {
    cluster: Cluster,
    notices: Notices,
    file: PathBuf,
}

impl Stage {
    fn new(cluster: Cluster, point: &str) -> Self {
        let file = cluster.path("stall");
        let notices = Notices::listen(cluster.path("x").parent().expect("a directory"));
        let cluster = cluster
            .with_variable("NOTIFY_SOCKET", &notices.path().display().to_string())
            .with_variable("WATCHDOG_USEC", &LIMIT.as_micros().to_string())
            .with_variable("ORIBI_FAULT", point)
            .with_variable("ORIBI_FAULT_BY", "stall")
            .with_variable("ORIBI_FAULT_WHEN", &file.display().to_string());
        Self { cluster, notices, file }
    }

    fn stall(&self) {
        fs::write(&self.file, "").expect("written");
    }

    /// The part is stuck for good, all others are not, and there is no sign of life any more.
    async fn is_silent(&self, daemon: &Daemon, part: &str) {
        let complaints = || {
            let log = daemon.log();
            let lines = log.lines().filter(|line| line.contains("no sign of life"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let alone = format!("[\\\"{part}\\\"]");
        until("it is noticed", async || complaints().iter().any(|line| line.contains(&alone)))
            .await;
        self.notices.so_far();
        let before = complaints().len();
        until("it is noticed again", async || complaints().len() >= before + 4).await;
        let told = self.notices.so_far();
        assert!(told.iter().all(|message| !message.contains(SIGN)), "{part}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_threads_are_looked_at() {
    bounded(async {
        let stage = Stage::new(Cluster::embedded().with("ENGINE_THREADS", "1"), "a plan begins");
        let daemon = stage.cluster.start("a");
        let client = Client::connect(&daemon).await;
        assert_eq!(client.value("SELECT count(*) FROM generate_series(1, 1000)").await, "1000");
        for _ in 0..3 {
            stage.notices.wait(SIGN);
        }
        stage.stall();
        let stuck = tokio::spawn(async move {
            client.try_rows("SELECT count(*) FROM generate_series(1, 1000)").await
        });
        stage.is_silent(&daemon, "engine").await;
        assert!(!stuck.is_finished());
        daemon.kill();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thread_for_zookeeper_is_looked_at() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let stage = Stage::new(cluster, "the thread for ZooKeeper goes on");
        let daemon = stage.cluster.start("a");
        for _ in 0..3 {
            stage.notices.wait(SIGN);
        }
        stage.stall();
        stage.is_silent(&daemon, "coordination").await;
        daemon.kill();
    })
    .await;
}

/// With the only thread for network stuck nothing is said at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_threads_for_clients_are_looked_at() {
    bounded(async {
        let stage = Stage::new(Cluster::embedded(), "a client comes");
        let cluster = stage.cluster.with_variable("TOKIO_WORKER_THREADS", "1");
        let daemon = cluster.start("a");
        assert_eq!(Client::connect(&daemon).await.value("SELECT 1").await, "1");
        for _ in 0..3 {
            stage.notices.wait(SIGN);
        }
        fs::write(&stage.file, "").expect("written");
        let _stuck = std::net::TcpStream::connect(daemon.postgres()).expect("connected");
        // Signs that were on their way.
        while stage.notices.next(LIMIT).is_some_and(|message| message.contains(SIGN)) {}
        assert_eq!(stage.notices.next(2 * LIMIT), None);
        daemon.kill();
    })
    .await;
}

/// An ensemble that cannot be reached is no reason to end a daemon that serves what it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_out_of_touch_lives() {
    bounded(async {
        let mut server = Server::start();
        let stage = Stage::new(Cluster::on(&server.connect_string()), "nowhere");
        let daemon = stage.cluster.start("a");
        server.stop();
        stage.notices.wait("STATUS=Degraded");
        stage.notices.so_far();
        for _ in 0..5 {
            stage.notices.wait(SIGN);
        }
        assert_eq!(Client::connect(&daemon).await.value("SELECT 1").await, "1");
        daemon.kill();
    })
    .await;
}
