//! The door: who comes in, by which proof, how many at once, and what is written down of it.

#[path = "authentication/certificates.rs"]
mod certificates;
mod common;
#[path = "clients/python.rs"]
#[allow(dead_code)]
mod python;
#[path = "protocol/wire.rs"]
#[allow(dead_code)]
mod wire;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use common::daemon::{Daemon, Options, eventually, explain};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use python::{python, run};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};
use wire::{PROTOCOL_3_0, Wire, code, first};

/// Everybody but `oribi` proves who they are.
const RULES: &str = "host all oribi 127.0.0.1 trust\n\
                     host all banned 127.0.0.0/8 reject\n\
                     host \"my db\" all 127.0.0.0/8 reject\n\
                     host all all 127.0.0.1 scram-sha-256";

const PASSWORD: &str = "correct horse ☃";

/// What `oribi` sets up.
const ROLES: &[&str] = &[
    "CREATE ROLE alice LOGIN PASSWORD 'correct horse ☃'",
    "CREATE ROLE \"Ünï, =c\" LOGIN PASSWORD 'correct horse ☃'",
    "CREATE ROLE banned LOGIN PASSWORD 'correct horse ☃'",
    "CREATE ROLE nobody LOGIN",
    "CREATE ROLE group_only PASSWORD 'correct horse ☃'",
    "CREATE ROLE late LOGIN PASSWORD 'correct horse ☃' VALID UNTIL '2020-01-01'",
    "CREATE ROLE early LOGIN PASSWORD 'correct horse ☃' VALID UNTIL '2200-01-01'",
    "CREATE ROLE single LOGIN PASSWORD 'correct horse ☃' CONNECTION LIMIT 1",
    // Made by PostgreSQL 15, of the password "pencil".
    "CREATE ROLE moved LOGIN PASSWORD 'SCRAM-SHA-256$4096:6xqqkL+ob5jbfc06DEfb7g==$NSTUzRf/a+WCwhWEuCSkiRDowhJKtSRFDECgxpK+1KM=:8QmtvEuTDSU85hmw7eGSTbE0EkLQh0wMx3Ajm4BQxRw='",
];

fn options(rules: &str) -> Options {
    Options::new().env("ORIBI_CONNECTIONS_RULES", rules)
}

async fn daemon(options: &Options) -> Daemon {
    let daemon = Daemon::start(options);
    let client = daemon.connect().await;
    for role in ROLES {
        let made = client.batch_execute(role).await;
        made.unwrap_or_else(|error| panic!("{role}: {}", explain(&error)));
    }
    daemon
}

async fn log_in(daemon: &Daemon, user: &str, password: &str) -> Result<Client, String> {
    let mut config = daemon.client_config();
    let connected = daemon.try_connect(config.user(user).password(password)).await;
    connected.map_err(|error| explain(&error))
}

#[tokio::test]
async fn whoever_proves_who_they_are_comes_in() {
    let daemon = daemon(&options(RULES)).await;
    for (user, password) in
        [("alice", PASSWORD), ("Ünï, =c", PASSWORD), ("early", PASSWORD), ("moved", "pencil")]
    {
        let client = log_in(&daemon, user, password).await;
        let client = client.unwrap_or_else(|error| panic!("{user}: {error}"));
        let row = client.query_one("SELECT session_user, current_user", &[]).await.expect("a row");
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (user, user));
    }
    // Where it may not connect, it does not come in.
    let oribi = daemon.connect().await;
    oribi.batch_execute("CREATE DATABASE closed").await.expect("made");
    oribi.batch_execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC").await.expect("revoked");
    let mut config = daemon.client_config();
    config.user("alice").password(PASSWORD).dbname("closed");
    let refused = daemon.try_connect(&config).await.expect_err("no CONNECT");
    assert_eq!(explain(&refused), "FATAL 42501: permission denied for database \"closed\"");
    // A role changes its own password, and the old one is worth nothing at once.
    let alice = log_in(&daemon, "alice", PASSWORD).await.expect("in");
    alice.batch_execute("ALTER ROLE alice PASSWORD 'new'").await.expect("changed");
    assert!(log_in(&daemon, "alice", PASSWORD).await.is_err());
    log_in(&daemon, "alice", "new").await.expect("in");
}

#[tokio::test]
async fn whoever_does_not_is_told_no_more_than_that() {
    let daemon = daemon(&options(RULES)).await;
    let failed = |user| format!("FATAL 28P01: password authentication failed for user \"{user}\"");
    for (user, password, expected) in [
        ("alice", "wrong", failed("alice")),
        ("unknown", PASSWORD, failed("unknown")),
        ("nobody", PASSWORD, failed("nobody")),
        ("late", PASSWORD, failed("late")),
        ("group_only", "wrong", failed("group_only")),
        (
            "group_only",
            PASSWORD,
            "FATAL 28000: role \"group_only\" is not permitted to log in".to_owned(),
        ),
        (
            "banned",
            PASSWORD,
            "FATAL 28000: pg_hba.conf rejects connection for host \"127.0.0.1\", user \"banned\", \
             database \"oribi\", no encryption"
                .to_owned(),
        ),
    ] {
        let refused = match log_in(&daemon, user, password).await {
            Ok(_) => panic!("{user} came in with {password:?}"),
            Err(error) => error,
        };
        assert_eq!(refused, expected, "{user} {password:?}");
    }
    // Drivers do not send an empty password: nobody has one, not even a role without any.
    for user in ["alice", "nobody", "unknown"] {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, &[("user", user), ("database", "oribi")]);
        assert_eq!(wire.next().expect("mechanisms").kind, 'R');
        let mut scram = ScramSha256::new(b"", ChannelBinding::unsupported());
        wire.send([sasl("SCRAM-SHA-256", scram.message())]);
        let challenge = wire.next().expect("a challenge");
        scram.update(&challenge.body[4..]).expect("a challenge of SCRAM");
        wire.send([wire::message(b'p', scram.message())]);
        let answer = wire.until_closed();
        assert_eq!(code(&answer), "28P01", "{user}");
        let text = first(&answer, 'E').field(b'M').unwrap_or_default();
        assert_eq!(format!("FATAL 28P01: {text}"), failed(user));
    }
}

#[tokio::test]
async fn strangers_cannot_tell_which_roles_there_are() {
    let daemon = daemon(&options(RULES)).await;
    let salt = |user: &str| {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, &[("user", user), ("database", "nowhere")]);
        let offered = wire.next().expect("mechanisms");
        assert_eq!(&offered.body[..], b"\0\0\0\x0aSCRAM-SHA-256\0\0", "{user}");
        wire.send([sasl("SCRAM-SHA-256", b"n,,n=,r=abcdefgh")]);
        let challenge = wire.next().expect("a challenge");
        let text = String::from_utf8(challenge.body[4..].to_vec()).expect("text");
        let parts: Vec<_> = text.split(',').map(str::to_owned).collect();
        assert!(parts[0].starts_with("r=abcdefgh") && parts[0].len() > 20, "{text}");
        assert_eq!(parts[2], "i=4096", "{text}");
        parts[1].clone()
    };
    for user in ["alice", "unknown", "nobody", "late"] {
        assert_eq!(salt(user), salt(user), "{user}: always the same");
        assert_eq!(salt(user).len(), salt("alice").len(), "{user}");
    }
    assert_ne!(salt("unknown"), salt("unknown2"));
}

fn sasl(mechanism: &str, data: &[u8]) -> bytes::Bytes {
    let mut body = BytesMut::new();
    body.put_slice(mechanism.as_bytes());
    body.put_u8(0);
    body.put_u32(data.len() as u32);
    body.put_slice(data);
    wire::message(b'p', &body)
}

#[tokio::test]
async fn broken_exchanges_end_in_an_error() {
    let daemon = daemon(&options(RULES)).await;
    let long = vec![b'x'; 2000];
    for (message, expected) in [
        (sasl("SCRAM-SHA-1", b"n,,n=,r=abc"), "08P01"),
        (sasl("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc"), "08P01"),
        (sasl("SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=abc"), "08P01"),
        (sasl("SCRAM-SHA-256", b""), "08P01"),
        (sasl("SCRAM-SHA-256", b"n,,n=,r="), "08P01"),
        (sasl("SCRAM-SHA-256", b"n,,m=x,n=,r=abc"), "08P01"),
        (sasl("SCRAM-SHA-256", &long), "08P01"),
        (wire::message(b'p', b"SCRAM-SHA-256\0"), "08P01"),
        (wire::query("SELECT 1"), "08P01"),
    ] {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, &[("user", "alice"), ("database", "oribi")]);
        assert_eq!(wire.next().expect("mechanisms").kind, 'R');
        wire.send([message.clone()]);
        let answer = wire.until_closed();
        assert_eq!(code(&answer), expected, "{message:?}");
        assert_eq!(first(&answer, 'E').field(b'S').as_deref(), Some("FATAL"));
    }
    // A nonce that is not the one of this exchange, and a proof of nothing.
    for last in [&b"c=biws,r=other,p=AAAA"[..], b"c=biws", b"\xff\xff"] {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, &[("user", "alice"), ("database", "oribi")]);
        wire.send([sasl("SCRAM-SHA-256", b"n,,n=,r=abc"), wire::message(b'p', last)]);
        let answer = wire.until_closed();
        assert!(["28000", "08P01"].contains(&code(&answer).as_str()), "{answer:?}");
    }
    log_in(&daemon, "alice", PASSWORD).await.expect("others come in as before");
}

const PSYCOPG: &str = "
import sys, psycopg
host, port, password = sys.argv[1:]
address = dict(host=host, port=port, dbname='oribi', connect_timeout=30)
for extra in ({}, {'require_auth': 'scram-sha-256'}, {'max_protocol_version': '3.2'}):
    with psycopg.connect(**address, **extra, user='alice', password=password) as connection:
        assert connection.execute('SELECT session_user').fetchone() == ('alice',)
try:
    psycopg.connect(**address, user='alice', password='wrong')
    raise AssertionError('came in')
except psycopg.OperationalError as error:
    assert 'password authentication failed for user \"alice\"' in str(error), error
";

const ASYNCPG: &str = "
import asyncio, sys, asyncpg
host, port, password = sys.argv[1:]
async def main():
    address = dict(host=host, port=int(port), database='oribi', user='alice')
    connection = await asyncpg.connect(**address, password=password)
    assert await connection.fetchval('SELECT session_user') == 'alice'
    await connection.close()
    try:
        await asyncpg.connect(**address, password='wrong')
        raise AssertionError('came in')
    except asyncpg.InvalidPasswordError:
        pass
asyncio.run(main())
";

const PG8000: &str = "
import sys, pg8000.native
host, port, password = sys.argv[1:]
connection = pg8000.native.Connection('alice', host=host, port=int(port), database='oribi',
                                      password=password)
assert connection.run('SELECT session_user') == [['alice']]
";

#[tokio::test]
async fn real_clients_log_in_with_passwords() {
    let daemon = daemon(&options(RULES)).await;
    let address = daemon.postgres();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    for (module, package, script) in [
        ("psycopg", "psycopg[binary]", PSYCOPG),
        ("asyncpg", "asyncpg", ASYNCPG),
        ("pg8000", "pg8000", PG8000),
    ] {
        let mut command = Command::new(python(&[module], package));
        run(command.args(["-c", script, &host, &port, PASSWORD]));
    }
    let mut psql = Command::new("psql");
    psql.args(["-X", "-At", "-h", &host, "-p", &port, "-U", "alice", "-d", "oribi"])
        .args(["-c", "SELECT session_user"])
        .env("PGPASSWORD", PASSWORD);
    assert_eq!(run(&mut psql).trim(), "alice");
    let output = psql.env("PGPASSWORD", "wrong").output().expect("psql starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("password authentication failed for user \"alice\""), "{errors}");
    // Without a password psql asks for one and goes away; that is no failure.
    let output = psql.env_remove("PGPASSWORD").arg("-w").output().expect("psql starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no password supplied"), "{errors}");
    jdbc(&host, &port);
}

const JDBC: &str = r#"
import java.sql.*;
public class LogIn {
    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/oribi";
        try (Connection connection = DriverManager.getConnection(url, "alice", arguments[2]);
             ResultSet rows = connection.createStatement().executeQuery("SELECT session_user")) {
            if (!rows.next() || !rows.getString(1).equals("alice")) throw new AssertionError();
        }
        try {
            DriverManager.getConnection(url, "alice", "wrong");
            throw new AssertionError("came in");
        } catch (SQLException error) {
            if (!error.getSQLState().equals("28P01")) throw error;
        }
    }
}
"#;

fn jdbc_driver() -> std::ffi::OsString {
    let jar = std::env::var_os("ORIBI_TEST_JDBC");
    jar.unwrap_or_else(|| "/usr/share/java/postgresql.jar".into())
}

fn jdbc(host: &str, port: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("LogIn.java");
    fs::write(&script, JDBC).expect("a script is written");
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp"])
        .arg(jdbc_driver())
        .arg(script);
    // Its own characters: the locale may not know the password's.
    run(java.args([host, port, PASSWORD]).env("LC_ALL", "C.UTF-8"));
}

#[tokio::test]
async fn places_are_limited_and_the_last_are_for_superusers() {
    let options = options(RULES).env("ORIBI_CONNECTIONS_MAX", "5");
    let options = options.env("ORIBI_CONNECTIONS_SUPERUSER_RESERVED", "2");
    let daemon = daemon(&options).await;
    let single = eventually("the setting-up client is gone", async || {
        log_in(&daemon, "single", PASSWORD).await.ok()
    })
    .await;
    let refused = log_in(&daemon, "single", PASSWORD).await.expect_err("one too many");
    assert_eq!(refused, "FATAL 53300: too many connections for role \"single\"");
    let mut others = Vec::new();
    let refused = loop {
        match log_in(&daemon, "alice", PASSWORD).await {
            Ok(client) => others.push(client),
            Err(error) => break error,
        }
        assert!(others.len() < 5);
    };
    assert_eq!(
        refused,
        "FATAL 53300: remaining connection slots are reserved for non-replication superuser \
         connections"
    );
    let mut superusers = Vec::new();
    let refused = loop {
        match log_in(&daemon, "oribi", "").await {
            Ok(client) => superusers.push(client),
            Err(error) => break error,
        }
        assert!(superusers.len() < 5);
    };
    assert_eq!(refused, "FATAL 53300: sorry, too many clients already");
    assert_eq!(1 + others.len() + superusers.len(), 5);
    drop((single, others, superusers));
    eventually("places are free again", async || log_in(&daemon, "single", PASSWORD).await.ok())
        .await;
}

#[tokio::test]
async fn connections_that_never_log_in_keep_nobody_out() {
    let daemon = daemon(&options(RULES).env("ORIBI_CONNECTIONS_LOGIN_MAX", "8")).await;
    let mut silent: Vec<_> = (0..40).map(|_| Wire::open(&daemon)).collect();
    log_in(&daemon, "alice", PASSWORD).await.expect("in, nevertheless");
    assert_eq!(silent[0].until_closed(), [], "the oldest had to go");
}

#[tokio::test]
async fn guessing_gets_slower_and_others_still_come_in() {
    let rules = "host all oribi 127.0.0.1 trust\nhost all all 127.0.0.0/8 scram-sha-256";
    let daemon = daemon(&options(rules).env("ORIBI_CONNECTIONS_LOGIN_FAILURES", "2")).await;
    let mut taken = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        log_in(&daemon, "alice", "wrong").await.expect_err("wrong");
        taken.push(start.elapsed());
    }
    assert!(taken[2] >= Duration::from_millis(500), "{taken:?}");
    assert!(taken[3] >= Duration::from_millis(1000), "{taken:?}");
    // Who comes from another address does not wait for the guesser's answer, nor with it.
    let mut guess = std::pin::pin!(log_in(&daemon, "alice", "wrong"));
    let other = log_in_from([127, 0, 0, 2], &daemon, "alice", PASSWORD);
    tokio::select! {
        biased;
        guessed = &mut guess => panic!("the guess was answered first: {:?}", guessed.err()),
        other = other => drop(other.expect("in")),
    }
    assert!(guess.await.is_err());
    log_in(&daemon, "alice", PASSWORD).await.expect("in, a little later");
}

async fn log_in_from(
    source: [u8; 4],
    daemon: &Daemon,
    user: &str,
    password: &str,
) -> Result<Client, String> {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("an address of this machine");
    let stream = socket.connect(daemon.postgres()).await.expect("a connection");
    let mut config = daemon.client_config();
    let connected = config.user(user).password(password).connect_raw(stream, NoTls).await;
    let (client, connection) = connected.map_err(|error| explain(&error))?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn a_first_password_lets_the_superuser_in() {
    let scram = "host all all all scram-sha-256";
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    fs::write(&file, "first\n").expect("written");
    let options = Options::new()
        .env("ORIBI_POSTGRES", "0.0.0.0:0")
        .env("ORIBI_CONNECTIONS_RULES", scram)
        .env("ORIBI_CONNECTIONS_SUPERUSER_PASSWORD_FILE", &file);
    let daemon = Daemon::start(&options);
    assert!(daemon.try_connect(&through_loopback(&daemon, "wrong")).await.is_err());
    let client = daemon.try_connect(&through_loopback(&daemon, "first")).await.expect("in");
    client.batch_execute("ALTER ROLE oribi PASSWORD 'second'").await.expect("changed");
    daemon.terminate();
    daemon.wait(common::daemon::PATIENCE);
    // The file counts no more, even if it is gone.
    fs::remove_file(&file).expect("removed");
    let again = Daemon::start(&options);
    again.try_connect(&through_loopback(&again, "second")).await.expect("in");
}

/// The address of a daemon that listens everywhere is none to connect to.
fn through_loopback(daemon: &Daemon, password: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(daemon.postgres().port());
    config.user("oribi").dbname("oribi").password(password);
    config
}

#[tokio::test]
async fn settings_of_a_role_are_its_sessions_defaults() {
    let daemon = daemon(&options(RULES)).await;
    let oribi = daemon.connect().await;
    oribi.batch_execute("ALTER ROLE alice SET TimeZone = 'Asia/Tokyo'").await.expect("set");
    oribi.batch_execute("ALTER ROLE alice SET statement_timeout = '90s'").await.expect("set");
    let mut config = daemon.client_config();
    config.user("alice").password(PASSWORD).options("-c statement_timeout=80s");
    let alice = daemon.try_connect(&config).await.expect("in");
    for (sql, expected) in [
        ("SHOW TimeZone", "Asia/Tokyo"),
        ("SHOW statement_timeout", "80s"),
        ("SHOW is_superuser", "off"),
    ] {
        let rows = alice.simple_query(sql).await.expect(sql);
        let row = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        assert_eq!(row.as_deref(), Some(expected), "{sql}");
    }
}

/// On a daemon of its own: nobody else could log in meanwhile.
#[tokio::test]
async fn another_superuser_who_can_log_in_is_the_last_one_then() {
    let daemon = Daemon::start(&Options::new());
    let oribi = daemon.connect().await;
    for sql in [
        "CREATE ROLE shut SUPERUSER NOLOGIN",
        "ALTER ROLE shut LOGIN",
        "ALTER ROLE oribi NOLOGIN",
        "ALTER ROLE shut RENAME TO open",
    ] {
        oribi.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", explain(&error)));
    }
    for sql in ["ALTER ROLE open NOSUPERUSER", "DROP ROLE open"] {
        let error = explain(&oribi.batch_execute(sql).await.expect_err(sql));
        assert!(error.contains("55006"), "{sql}: {error}");
    }
    let sql = "ALTER ROLE oribi LOGIN; DROP ROLE open";
    oribi.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", explain(&error)));
    daemon.connect().await;
}

/// Who has nothing of what the host rules ask for cannot log in.
#[tokio::test]
async fn a_superuser_without_a_password_counts_where_none_is_asked_for() {
    let rules = "host all oribi samehost trust; host all all samehost scram-sha-256";
    let daemon = Daemon::start(&options(rules));
    let oribi = daemon.connect().await;
    oribi.batch_execute("CREATE ROLE other SUPERUSER LOGIN").await.expect("made");
    let refused = async |sql: &str| {
        let error = explain(&oribi.batch_execute(sql).await.expect_err(sql));
        assert!(error.contains("55006"), "{sql}: {error}");
    };
    refused("ALTER ROLE oribi NOLOGIN").await;
    // The first one needs none: it is trusted.
    for sql in [
        "ALTER ROLE other PASSWORD 'correct horse'",
        "ALTER ROLE other PASSWORD NULL",
        "ALTER ROLE other PASSWORD 'correct horse'",
        "ALTER ROLE oribi NOLOGIN",
    ] {
        oribi.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", explain(&error)));
    }
    for sql in ["ALTER ROLE other PASSWORD NULL", "ALTER ROLE other NOLOGIN", "DROP ROLE other"] {
        refused(sql).await;
    }
    log_in(&daemon, "other", "correct horse").await.expect("somebody can");
}

#[tokio::test]
async fn a_role_runs_as_many_statements_as_it_may() {
    let daemon = daemon(&options(RULES)).await;
    let oribi = daemon.connect().await;
    oribi.batch_execute("ALTER ROLE alice SET oribi.statement_limit = 1").await.expect("set");
    let (busy, other) =
        (log_in(&daemon, "alice", PASSWORD).await, log_in(&daemon, "alice", PASSWORD).await);
    let (busy, other) = (busy.expect("in"), other.expect("in"));
    for sql in [
        "SET oribi.statement_limit = 0",
        "RESET oribi.statement_limit",
        "ALTER ROLE alice SET oribi.statement_limit = 0",
        "ALTER ROLE alice RESET oribi.statement_limit",
    ] {
        let error = explain(&other.batch_execute(sql).await.expect_err(sql));
        let expected = "ERROR 42501: permission denied to set parameter \"oribi.statement_limit\"";
        assert_eq!(error, expected, "{sql}");
    }
    other.batch_execute("ALTER ROLE alice RESET ALL").await.expect("what it may");
    let cancel = busy.cancel_token();
    let run = busy.batch_execute("SELECT count(*) FROM generate_series(1, 1000000000000)");
    let refused = async {
        // Only then is the place taken by the one that is to have it.
        let active = "SELECT 1 FROM pg_stat_activity WHERE usename = 'alice' AND state = 'active'";
        eventually("the first statement runs", async || {
            oribi.query_opt(active, &[]).await.expect("the activity")
        })
        .await;
        let refused = other.batch_execute("SELECT 1").await.expect_err("one too many");
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("cancelled");
        refused
    };
    let (stopped, refused) = tokio::join!(run, refused);
    assert!(explain(&stopped.expect_err("cancelled")).contains("57014"));
    let expected = "ERROR 53400: too many statements of role \"alice\" at once";
    assert_eq!(explain(&refused), expected);
    other.batch_execute("SELECT 1").await.expect("there is room again");
}

#[tokio::test]
async fn what_happens_at_the_door_is_written_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let trail = directory.path().join("audit.log");
    let daemon = daemon(&options(RULES).env("ORIBI_AUDIT_FILE", &trail)).await;
    log_in(&daemon, "alice", "wrong").await.expect_err("wrong");
    let alice = log_in(&daemon, "alice", PASSWORD).await.expect("in");
    alice.batch_execute("CREATE ROLE other").await.expect_err("denied");
    drop(alice);
    let oribi = daemon.connect().await;
    oribi
        .batch_execute("CREATE SCHEMA written; GRANT USAGE ON SCHEMA written TO alice")
        .await
        .expect("made");
    oribi.batch_execute("SET ROLE alice").await.expect("set");
    oribi.batch_execute("CREATE ROLE other").await.expect_err("denied");
    let moved = directory.path().join("audit.log.1");
    eventually("alice is written down as gone", async || {
        find(&trail, |line| line["event"] == "logout" && line["role"] == "alice").then_some(())
    })
    .await;
    fs::rename(&trail, &moved).expect("moved");
    daemon.signal(rustix::process::Signal::HUP);
    eventually("a new file is written", async || {
        log_in(&daemon, "alice", PASSWORD).await.expect("in");
        trail.exists().then_some(())
    })
    .await;
    daemon.terminate();
    daemon.wait(common::daemon::PATIENCE);
    for (event, role, key, value) in [
        ("login_failed", "alice", "sqlstate", "28P01"),
        ("login", "alice", "database", "oribi"),
        ("denied", "alice", "sqlstate", "42501"),
        ("denied", "alice", "login", "oribi"),
        ("role", "oribi", "object", "alice"),
        ("ddl", "oribi", "statement", "CREATE SCHEMA"),
        ("grant", "oribi", "statement", "GRANT"),
    ] {
        let matches =
            |line: &Value| line["event"] == event && line["role"] == role && line[key] == value;
        assert!(find(&moved, matches), "{event} {role} {key} {value}");
    }
    assert!(find(&trail, |line| line["event"] == "logout"), "written to the end");
    for file in [&trail, &moved] {
        let text = fs::read_to_string(file).expect("the trail");
        assert!(!text.contains("horse") && !text.contains("SCRAM"), "{text}");
    }
    assert!(!daemon.log().contains("horse"), "nor does the log know passwords");
}

/// A store that gives nothing to anybody; returns where it is.
fn forbidding() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_file_that_the_daemon_may_not_read_is_written_down_as_an_attempt() {
    let directory = tempfile::tempdir().expect("a directory");
    let trail = directory.path().join("audit.log");
    let options = options(RULES)
        .env("ORIBI_AUDIT_FILE", &trail)
        .env("ORIBI_STORAGE_ROOTS", "s3://bucket/")
        .env("AWS_ENDPOINT_URL", forbidding())
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret");
    let daemon = daemon(&options).await;
    let oribi = daemon.connect().await;
    let grant = "GRANT pg_read_server_files TO alice; GRANT CREATE ON SCHEMA public TO alice";
    oribi.batch_execute(grant).await.expect("granted");
    let alice = log_in(&daemon, "alice", PASSWORD).await.expect("in");
    let sql = "CREATE EXTERNAL TABLE secrets STORED AS CSV LOCATION 's3://bucket/secrets.csv'";
    let refused = explain(&alice.batch_execute(sql).await.expect_err("forbidden"));
    assert!(refused.starts_with("ERROR 42501: no permission to read "), "{refused}");
    eventually("the attempt is written down", async || {
        let of_file = |line: &Value| {
            let said = line["message"].as_str().unwrap_or_default();
            said.contains("no permission to read") && said.contains("secrets.csv")
        };
        find(&trail, |line| line["event"] == "denied" && line["role"] == "alice" && of_file(line))
            .then_some(())
    })
    .await;
}

fn find(trail: &Path, matches: impl Fn(&Value) -> bool) -> bool {
    let text = fs::read_to_string(trail).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.any(|line| matches(&line))
}
