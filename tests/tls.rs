//! TLS for clients: psql and libpq 18 as they are, and what neither of them would send.

mod common;
#[path = "clients/python.rs"]
mod python;
#[path = "protocol/wire.rs"]
#[allow(dead_code)]
mod wire;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use common::certificates::{Authority, Certified, secret};
use common::daemon::{Daemon, Options, eventually};
use python::{python, run};
use wire::{GSSAPI, PROTOCOL_3_0, SSL, Wire, cancel, code, column, first, kinds};

const LOGIN: [(&str, &str); 2] = [("user", "oribi"), ("database", "oribi")];

/// Rows of `pg_stat_ssl` for the one who asks.
const FACTS: &str = "SELECT ssl, version, cipher, bits, client_dn, issuer_dn \
                     FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// Files of one test, and a daemon's settings with them.
struct Stage {
    directory: TempDir,
    authority: Authority,
    server: Certified,
}

impl Stage {
    fn new() -> Self {
        let directory = TempDir::with_prefix("oribi-tls-").expect("a directory");
        let authority = Authority::new(directory.path(), "herd");
        let server = authority.server("server");
        Self { directory, authority, server }
    }

    fn options(&self) -> Options {
        Options::new()
            .env("ORIBI_TLS_CERTIFICATE", &self.server.certificate)
            .env("ORIBI_TLS_KEY", &self.server.key)
            .env("ORIBI_TLS_CLIENT_CA", &self.authority.certificate)
    }

    fn stranger(&self) -> Authority {
        Authority::new(self.directory.path(), "stranger")
    }
}

fn conninfo(daemon: &Daemon, rest: &str) -> String {
    let port = daemon.postgres().port();
    format!("host=localhost hostaddr=127.0.0.1 port={port} user=oribi dbname=oribi {rest}")
}

/// What psql prints, or why it fails.
fn psql(daemon: &Daemon, rest: &str, sql: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", &conninfo(daemon, rest), "-c", sql])
        .env("PGSSLCERT", "/nonexistent")
        .env("PGSSLKEY", "/nonexistent")
        .output()
        .expect("psql starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn psql_encrypts_and_verifies() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    let trusting = format!("sslrootcert={}", stage.authority.certificate.display());
    let full = format!("sslmode=verify-full {trusting}");
    let facts = psql(&daemon, &full, FACTS).expect("psql connects");
    assert!(facts.starts_with("t|TLSv1.3|TLS_") && facts.ends_with("|256||"), "{facts}");
    assert_eq!(psql(&daemon, &full, "SHOW ssl").as_deref(), Ok("on"));
    let shown = psql(&daemon, &full, r"\conninfo").expect("psql connects");
    assert!(shown.contains("SSL") && shown.contains("TLSv1.3"), "{shown}");

    let older = psql(&daemon, &format!("{full} ssl_max_protocol_version=TLSv1.2"), FACTS);
    let older = older.expect("psql connects");
    assert!(older.starts_with("t|TLSv1.2|ECDHE-ECDSA-AES256-GCM-SHA384|256|"), "{older}");

    assert_eq!(psql(&daemon, "sslmode=disable", FACTS).as_deref(), Ok("f|||||"));
    let stranger =
        format!("sslmode=verify-ca sslrootcert={}", stage.stranger().certificate.display());
    let refused = psql(&daemon, &stranger, "SELECT 1").expect_err("another authority");
    assert!(refused.contains("certificate verify failed"), "{refused}");
}

#[test]
fn the_command_line_encrypts_and_verifies() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options().env("ORIBI_TLS_MODE", "require"));
    let list = |host: &str, mode: &str, roots: Option<&Authority>| {
        let host = format!("{host}:{}", daemon.postgres().port());
        let mut command = Command::new(common::daemon::binary());
        command.args(["query", "list", "--format", "json", "--host", &host, "--sslmode", mode]);
        command.env("HOME", stage.directory.path()).env_remove("PGSSLROOTCERT");
        command.args(roots.iter().flat_map(|roots| {
            ["--sslrootcert".to_owned(), roots.certificate.display().to_string()]
        }));
        let output = command.output().expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (own, stranger) = (Some(&stage.authority), stage.stranger());
    let well = (Some(0), "[]\n".to_owned());
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(list("localhost", mode, own), well, "{mode}");
    }
    assert_eq!(list("localhost", "require", None), well);
    assert_eq!(list("127.0.0.1", "verify-full", own), well);
    for mode in ["require", "verify-ca", "verify-full"] {
        let (code, said) = list("localhost", mode, Some(&stranger));
        assert!(code != Some(0) && said.contains("certificate"), "{mode}: {said}");
    }
    let (code, said) = list("localhost", "verify-full", None);
    assert!(code == Some(2) && said.contains("root.crt"), "{said}");
    assert_ne!(list("localhost", "disable", None).0, Some(0));
}

#[test]
fn clients_certificates_are_verified_and_shown() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    let with = |certified: &Certified| {
        let (certificate, key) = (certified.certificate.display(), certified.key.display());
        format!("sslmode=require sslcert={certificate} sslkey={key}")
    };
    let alice = stage.authority.client("alice");
    let facts = psql(&daemon, &with(&alice), FACTS).expect("psql connects");
    assert!(facts.ends_with("|/CN=alice|/CN=herd"), "{facts}");
    let mallory = stage.stranger().client("alice");
    let refused = psql(&daemon, &with(&mallory), "SELECT 1").expect_err("not signed by the herd");
    assert!(refused.contains("alert unknown ca"), "{refused}");
}

#[test]
fn libpq_18_connects_directly() {
    let python = python(&["psycopg"], "'psycopg[binary]'");
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    let certificate = stage.authority.certificate.display();
    let script = "import psycopg, sys\n\
                  with psycopg.connect(sys.argv[1]) as c:\n\
                  \x20   rows = c.execute('SELECT repeat(\\'x\\', 1000) FROM generate_series(1, 5000)')\n\
                  \x20   print(psycopg.pq.version(), sum(len(row[0]) for row in rows.fetchall()))\n\
                  \x20   print(len(c.execute('SELECT %s::text', ['y' * 3000000]).fetchone()[0]))\n\
                  \x20   print(c.execute('SELECT ssl FROM pg_stat_ssl').fetchone())\n";
    for way in ["sslnegotiation=direct", "sslnegotiation=postgres", "gssencmode=prefer"] {
        let rest = format!("sslmode=verify-full sslrootcert={certificate} {way}");
        let printed = run(Command::new(&python).args(["-c", script, &conninfo(&daemon, &rest)]));
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[0].ends_with(" 5000000"), "{way}: {printed}");
        assert_eq!(&lines[1..], ["3000000", "(True,)"], "{way}");
    }
}

#[test]
fn encryption_is_asked_for_in_either_order_once() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    let mut wire = Wire::open(&daemon);
    wire.packet(&GSSAPI.to_be_bytes());
    assert_eq!(wire.byte(), 'N');
    wire.packet(&SSL.to_be_bytes());
    assert_eq!(wire.byte(), 'S');
    // A second request of a kind is none, as in PostgreSQL.
    let mut wire = Wire::open(&daemon);
    for answer in ["N", ""] {
        wire.packet(&GSSAPI.to_be_bytes());
        if !answer.is_empty() {
            assert_eq!(wire.byte(), 'N');
        }
    }
    assert_eq!(code(&wire.until_closed()), "0A000");
}

/// CVE-2021-23214: what came in plaintext with the request may be somebody else's.
#[test]
fn bytes_behind_a_request_end_the_connection() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    for request in [SSL, GSSAPI] {
        let mut wire = Wire::open(&daemon);
        let mut bytes = vec![0, 0, 0, 8];
        bytes.extend(request.to_be_bytes());
        bytes.extend([0, 0, 0, 41, 0, 3, 0, 0]);
        bytes.extend(b"user\0oribi\0database\0oribi\0\0");
        wire.raw(&bytes);
        assert_eq!(wire.until_closed(), [], "{request:x}");
    }
}

#[test]
fn plaintext_is_refused_where_tls_is_required() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options().env("ORIBI_TLS_MODE", "require"));
    let mut wire = Wire::open(&daemon);
    wire.start(PROTOCOL_3_0, &LOGIN);
    let messages = wire.until_closed();
    assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("E", "28000"));
    assert_eq!(first(&messages, 'E').field(b'S').as_deref(), Some("FATAL"));
    let refused = psql(&daemon, "sslmode=disable", "SELECT 1").expect_err("plaintext");
    assert!(refused.contains("sslmode=require"), "{refused}");
    assert_eq!(psql(&daemon, "sslmode=require", "SELECT 1").as_deref(), Ok("1"));
    // The older of libpq's two ways to cancel is always in plaintext.
    let script = "import psycopg, sys, threading\n\
                  c = psycopg.connect(sys.argv[1], autocommit=True)\n\
                  stop = threading.Event()\n\
                  def cancel():\n\
                  \x20   while not stop.wait(0.05): c.pgconn.get_cancel().cancel()\n\
                  thread = threading.Thread(target=cancel)\n\
                  thread.start()\n\
                  try: c.execute('SELECT count(*) FROM generate_series(1, 1000000000000)')\n\
                  except psycopg.Error as e: print(e.sqlstate)\n\
                  finally: stop.set(); thread.join()\n";
    let python = python(&["psycopg"], "'psycopg[binary]'");
    let printed =
        run(Command::new(python).args(["-c", script, &conninfo(&daemon, "sslmode=require")]));
    assert_eq!(printed.trim(), "57014");
    // A cancel request that is nobody's is not answered, and not an error either.
    cancel(&daemon, &[0; 8]);
}

/// A client's TLS with the herd as authority.
async fn handshake(
    daemon: &Daemon,
    stage: &Stage,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(&stage.authority.certificate);
    roots.add(certificate.expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(daemon.postgres()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

async fn presented(daemon: &Daemon, stage: &Stage) -> Vec<u8> {
    let stream = handshake(daemon, stage, &["postgresql"]).await.expect("a handshake");
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().expect("a certificate")[0].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_tls_has_to_name_the_protocol() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    let mut start = vec![0, 3, 0, 0];
    start.extend(b"user\0oribi\0database\0oribi\0\0");
    let mut packet = (start.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(start);

    let mut stream = handshake(&daemon, &stage, &["postgresql"]).await.expect("a handshake");
    stream.write_all(&packet).await.expect("sent");
    assert_eq!(stream.read_u8().await.expect("an answer"), b'R');

    // The client may believe that it is connected before it is sent away.
    if let Ok(mut stream) = handshake(&daemon, &stage, &[]).await {
        let _ = stream.write_all(&packet).await;
        assert!(stream.read_u8().await.is_err());
    }
    let error = handshake(&daemon, &stage, &["http/1.1"]).await.expect_err("another protocol");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");

    // Without TLS there is no direct TLS either.
    let plain = Daemon::start(&Options::new());
    assert!(handshake(&plain, &stage, &["postgresql"]).await.is_err());
    assert_eq!(psql(&plain, "sslmode=prefer", "SHOW ssl").as_deref(), Ok("off"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_without_a_restart() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options());
    let mut client = Wire::log_in(&daemon);
    let before = presented(&daemon, &stage).await;
    let new = stage.authority.server("new");
    let replace = |from: &Certified| {
        fs::copy(&from.certificate, &stage.server.certificate).expect("copied");
        fs::copy(&from.key, &stage.server.key).expect("copied");
    };

    // A certificate without its key: all stays as it was, and the log says why.
    fs::copy(&new.certificate, &stage.server.certificate).expect("copied");
    daemon.signal(Signal::HUP);
    eventually("the failure is logged", async || daemon.log().contains("tls.key").then_some(()))
        .await;
    assert_eq!(presented(&daemon, &stage).await, before);

    replace(&new);
    daemon.signal(Signal::HUP);
    let expected = CertificateDer::from_pem_file(&new.certificate).expect("a certificate");
    eventually("the new certificate is shown", async || {
        (presented(&daemon, &stage).await == *expected).then_some(())
    })
    .await;
    // Who was connected is connected.
    assert_eq!(column(&client.query("SELECT 1")), ["1"]);
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let stage = Stage::new();
    let other = stage.authority.server("other");
    let open = stage.directory.path().join("open.key");
    fs::copy(&stage.server.key, &open).expect("copied");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&open, mode).expect("its mode is set");
    let empty = stage.directory.path().join("empty");
    secret(&empty, "");
    let missing = stage.directory.path().join("missing");
    for (variable, value, setting) in [
        ("ORIBI_TLS_CERTIFICATE", &missing, "tls.certificate"),
        ("ORIBI_TLS_CERTIFICATE", &empty, "tls.certificate"),
        ("ORIBI_TLS_KEY", &missing, "tls.key"),
        ("ORIBI_TLS_KEY", &empty, "tls.key"),
        ("ORIBI_TLS_KEY", &other.key, "tls.key"),
        ("ORIBI_TLS_KEY", &open, "tls.key"),
        ("ORIBI_TLS_CLIENT_CA", &missing, "tls.client_ca"),
        ("ORIBI_TLS_CLIENT_CA", &empty, "tls.client_ca"),
    ] {
        let ended = Daemon::spawn(&stage.options().env(variable, value));
        let named = ended.stderr.contains(&format!("setting \"{setting}\""));
        assert!(named && ended.code == Some(2), "{variable}={}: {ended:?}", value.display());
    }
    for (variable, value) in [("ORIBI_TLS_MODE", "require"), ("ORIBI_TLS_MIN_VERSION", "TLSv1.1")] {
        let ended = Daemon::spawn(&Options::new().env(variable, value));
        assert!(ended.stderr.contains("setting \"tls.m") && ended.code == Some(2), "{ended:?}");
    }
}

#[test]
fn the_oldest_version_is_a_setting() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.options().env("ORIBI_TLS_MIN_VERSION", "TLSv1.3"));
    let refused = psql(&daemon, "sslmode=require ssl_max_protocol_version=TLSv1.2", "SELECT 1");
    assert!(refused.expect_err("too old").contains("protocol version"));
    assert_eq!(psql(&daemon, "sslmode=require", "SELECT 1").as_deref(), Ok("1"));
}

#[test]
fn a_handshake_that_never_ends_is_nobody_elses_problem() {
    let stage = Stage::new();
    let options = stage.options().env("ORIBI_CONNECTIONS_LOGIN_TIMEOUT", "500ms");
    let daemon = Daemon::start(&options);
    let mut silent: Vec<Wire> = (0..16).map(|_| Wire::open(&daemon)).collect();
    for (index, wire) in silent.iter_mut().enumerate() {
        if index % 2 == 0 {
            wire.packet(&SSL.to_be_bytes());
            assert_eq!(wire.byte(), 'S');
        }
        // The first bytes of a handshake, and no more.
        wire.raw(&[0x16, 3, 1, 2, 0, 1]);
    }
    assert_eq!(psql(&daemon, "sslmode=require", "SELECT 1").as_deref(), Ok("1"));
    let begun = Instant::now();
    for wire in &mut silent {
        assert_eq!(wire.until_closed(), []);
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}
