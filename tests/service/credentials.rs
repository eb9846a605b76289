//! `config/credentials.conf`: the names of credentials, and that each arrives where it is needed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::common::certificates::Authority;
use crate::common::daemon::{Daemon, Options, PATIENCE};
use crate::common::zookeeper::Server;
use crate::support::bounded;

const DROP_IN: &str = include_str!("../../config/credentials.conf");

/// The request for TLS, and what says that it will be.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_arrive() {
    bounded(async {
        let directory = TempDir::new().expect("a directory");
        let server = Server::start();
        let certified = Authority::new(directory.path(), "authority").server("server");
        // As systemd makes them: for the service's user alone, not to be changed.
        let credentials = directory.path().join("credentials");
        fs::create_dir(&credentials).expect("made");
        let key = fs::read_to_string(&certified.key).expect("a key");
        let secrets = [
            ("superuser-password", "first and secret\n"),
            ("zookeeper", "digest oribi:also secret\n"),
            ("tls-key", key.as_str()),
        ];
        for (name, secret) in secrets {
            let path = credentials.join(name);
            fs::write(&path, secret).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("closed");
        }
        let loaded: Vec<&str> = (DROP_IN.lines())
            .filter_map(|line| line.strip_prefix("LoadCredential=")?.split(':').next())
            .collect();
        assert_eq!(loaded, secrets.map(|(name, _)| name));
        let mut options = Options::new()
            .arg(format!("--zookeeper={}/credentials", server.connect_string()))
            .env("ORIBI_TLS_CERTIFICATE", &certified.certificate)
            .env("ORIBI_CONNECTIONS_RULES", "host all all samehost scram-sha-256");
        let variables = DROP_IN.lines().filter_map(|line| line.strip_prefix("Environment="));
        for variable in variables {
            let (name, value) = variable.split_once('=').expect("a variable");
            options = options.env(name, value.replace("%d", &credentials.display().to_string()));
        }
        let daemon = Daemon::start(&options);
        let mut right = daemon.client_config();
        right.password("first and secret");
        let client = daemon.try_connect(&right).await.expect("let in");
        client.batch_execute("CREATE DATABASE closed").await.expect("made");
        daemon.try_connect(right.password("another")).await.expect_err("not let in");
        let mut socket = TcpStream::connect(daemon.postgres()).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket.write_all(&SSL_REQUEST).expect("sent");
        let mut answer = [0];
        socket.read_exact(&mut answer).expect("answered");
        assert_eq!(answer, *b"S", "there is TLS");
        // The znodes are that user's alone.
        let shown = server.cli(&["getAcl /credentials/catalog"]);
        assert!(shown.contains("Insufficient permission"), "{shown}");
    })
    .await;
}
