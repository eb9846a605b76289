//! SIGHUP: what is taken up, what waits, and what is refused.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::daemon::{Daemon, Options, explain};
use crate::notices::Notices;
use crate::support::{bounded, until};

/// Has the files read again; the line with the status when that is done.
fn reload(daemon: &Daemon, notices: &Notices) -> String {
    notices.so_far();
    daemon.signal(Signal::HUP);
    let clock = notices.wait("MONOTONIC_USEC=");
    let micros = clock.split_once('=').and_then(|(_, micros)| micros.parse::<u64>().ok());
    assert!(micros.is_some_and(|micros| micros > 0), "{clock}");
    loop {
        let message = notices.next(crate::common::daemon::PATIENCE).expect("it gets ready again");
        if message.lines().any(|line| line == "READY=1") {
            let status = message.lines().find(|line| line.starts_with("STATUS="));
            return status.expect("with a status").to_owned();
        }
    }
}

async fn setting(daemon: &Daemon, key: &str) -> (String, String) {
    let client = daemon.connect().await;
    let sql = "SELECT value, origin FROM system.settings WHERE key = $1";
    let row = client.query_one(sql, &[&key]).await.expect("a row");
    (row.get(0), row.get(1))
}

/// What somebody is told who comes as a role that there is not.
async fn told(daemon: &Daemon) -> String {
    let refused = daemon.try_connect(daemon.client_config().user("other")).await;
    explain(&refused.expect_err("not let in"))
}

fn started(directory: &Path, text: &str) -> (Daemon, Notices) {
    fs::write(directory.join("oribi.toml"), text).expect("written");
    let notices = Notices::listen(directory);
    let options = Options::new()
        .arg(format!("--config={}", directory.join("oribi.toml").display()))
        .env("NOTIFY_SOCKET", notices.path());
    (Daemon::start(&options), notices)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_host_rules_change_without_a_restart() {
    bounded(async {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("oribi.toml");
        let (daemon, notices) = started(directory.path(), "[log]\nfilter = 'info'\n");
        let before = daemon.connect().await;
        assert!(told(&daemon).await.contains("role \"other\" does not exist"));

        let new = "[log]\nfilter = 'info,oribi::postgres=debug'\n[connections]\nmax = 7\n\
                   rules = 'host all other all reject; host all all samehost trust'\n";
        fs::write(&file, new).expect("written");
        let status = reload(&daemon, &notices);
        assert!(status.starts_with("STATUS=Ready, alone: "), "{status}");
        assert!(status.ends_with("for the next start: connections.max"), "{status}");
        let rejected = "pg_hba.conf rejects connection";
        assert!(told(&daemon).await.contains(rejected), "{}", told(&daemon).await);
        let origin = file.display().to_string();
        let filter = ("info,oribi::postgres=debug".to_owned(), origin.clone());
        assert_eq!(setting(&daemon, "log.filter").await, filter);
        assert_eq!(setting(&daemon, "connections.max").await.0, "500");
        let mut stranger = TcpStream::connect(daemon.postgres()).expect("connected");
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        drop(stranger);
        until("more is logged", async || daemon.log().contains("\"DEBUG\"")).await;
        // Who was in stays in.
        before.batch_execute("SELECT 1").await.expect("answered");

        // What is wrong changes nothing, and is told.
        let bad = [
            ("[connections]\nrules = 'host all all all trust'\n", "connections.rules"),
            ("[connections]\nrules = 'hostssl all all all scram-sha-256'\n", "hostssl"),
            ("[log]\nfilter = 'info'\nfilters = 'debug'\n", "log.filters"),
            ("[log\n", "is not valid TOML"),
        ];
        for (text, expected) in bad {
            fs::write(&file, text).expect("written");
            let status = reload(&daemon, &notices);
            let failed = status.contains("the last reload failed") && status.contains(expected);
            assert!(failed, "{expected}: {status}");
            assert!(daemon.log().contains(expected), "{expected}: {}", daemon.log());
            assert!(told(&daemon).await.contains(rejected), "{expected}");
            assert_eq!(setting(&daemon, "log.filter").await, filter);
        }
        fs::remove_file(&file).expect("removed");
        assert!(reload(&daemon, &notices).contains("cannot read the configuration file"));

        fs::write(&file, "").expect("written");
        let status = reload(&daemon, &notices);
        assert!(!status.contains("reload") && !status.contains("next start"), "{status}");
        assert!(told(&daemon).await.contains("role \"other\" does not exist"));
        let default = ("info".to_owned(), "default".to_owned());
        assert_eq!(setting(&daemon, "log.filter").await, default);
    })
    .await;
}

/// What `ALTER SYSTEM` has set goes before the file, after a reload as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_settings_stay_on_top() {
    bounded(async {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("oribi.toml");
        let (daemon, notices) = started(directory.path(), "");
        let client = daemon.connect().await;
        client.batch_execute("ALTER SYSTEM SET shutdown.drain_timeout = '7s'").await.expect("set");
        fs::write(&file, "[shutdown]\ndrain_timeout = '9s'\n[history]\nslow = '3s'\n")
            .expect("written");
        reload(&daemon, &notices);
        assert_eq!(setting(&daemon, "shutdown.drain_timeout").await.0, "7s");
        assert_eq!(setting(&daemon, "history.slow").await.0, "3s");
        client.batch_execute("ALTER SYSTEM RESET shutdown.drain_timeout").await.expect("reset");
        until("the file's value counts", async || {
            setting(&daemon, "shutdown.drain_timeout").await.0 == "9s"
        })
        .await;
    })
    .await;
}
