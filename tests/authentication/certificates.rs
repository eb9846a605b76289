//! TLS at the door: channel binding, client certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::common::daemon::{Daemon, Options};
use crate::python::{python, python_of, run};
use crate::{PASSWORD, daemon};

const RULES: &str = "hostnossl all oribi 127.0.0.1 trust\n\
                     hostssl all certain 127.0.0.1 cert\n\
                     hostssl all moved 127.0.0.1 scram-sha-256 clientcert=verify-full\n\
                     hostssl all all 127.0.0.1 scram-sha-256";

const SCRIPT: &str = "
import sys, psycopg
host, port, password, directory = sys.argv[1:]
address = dict(host=host, port=port, dbname='oribi', connect_timeout=30,
               sslmode='verify-full', sslrootcert=directory + '/ca.pem')
def identity(name):
    return dict(sslcert=f'{directory}/{name}.pem', sslkey=f'{directory}/{name}.key')
def log_in(user, **extra):
    with psycopg.connect(**address, user=user, **extra) as connection:
        assert connection.execute('SELECT session_user').fetchone() == (user,)
def refused(user, words, **extra):
    try:
        psycopg.connect(**address, user=user, **extra)
        raise AssertionError(f'{user} came in')
    except psycopg.OperationalError as error:
        assert words in str(error), error
nobody = dict(sslcert=directory + '/none.pem', sslkey=directory + '/none.key')
log_in('alice', password=password, channel_binding='require', require_auth='scram-sha-256')
log_in('alice', password=password, channel_binding='disable')
refused('alice', 'password authentication failed', password='wrong', channel_binding='require')
log_in('certain', **identity('certain'))
refused('certain', 'certificate authentication failed for user', **identity('moved'))
refused('certain', 'connection requires a valid client certificate', **nobody)
log_in('moved', password='pencil', **identity('moved'))
refused('moved', 'password authentication failed', password='wrong', **identity('moved'))
refused('moved', 'certificate authentication failed for user', password='pencil',
        **identity('certain'))
address.update(sslmode='disable')
del address['sslrootcert']
refused('alice', 'no pg_hba.conf entry for host \"127.0.0.1\", user \"alice\", database \"oribi\", '
                 'no encryption', password=password)
";

#[tokio::test]
async fn passwords_are_bound_to_the_connection_and_certificates_name_users() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = with_certificates(directory.path()).await;
    let mut command = Command::new(python(&["psycopg"], "psycopg[binary]"));
    let (host, port) = ("127.0.0.1", daemon.postgres().port().to_string());
    run(command.args(["-c", SCRIPT, host, &port, PASSWORD]).arg(directory.path()));
}

/// Each client with a password over TLS, bound to the connection where it can, and with a
/// certificate; wrong ones are refused.
#[tokio::test]
async fn clients_come_in_by_each_door() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = with_certificates(directory.path()).await;
    let (host, port) = ("127.0.0.1", daemon.postgres().port().to_string());
    let script =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/authentication").join(name);
    let mut commands = Vec::new();
    for (client, module, package) in [
        ("psycopg2", "psycopg2", "psycopg2-binary"),
        ("adbc", "adbc_driver_postgresql", "adbc-driver-postgresql pyarrow"),
        ("asyncpg", "asyncpg", "asyncpg"),
        ("pg8000", "pg8000", "pg8000"),
    ] {
        let mut command = Command::new(python(&[module], package));
        command.arg(script("doors.py")).arg(client);
        commands.push(command);
    }
    let modules = ["duckdb", "duckdb_extension_postgres_scanner"];
    let packages = "duckdb==1.5.5 duckdb-extension-postgres-scanner==1.5.5";
    let mut duckdb = Command::new(python_of("ORIBI_TEST_DUCKDB", &modules, packages));
    duckdb.arg(script("doors.py")).arg("duckdb");
    let mut node = Command::new("node");
    let packages = std::env::var_os("ORIBI_TEST_NODE_MODULES").expect("ORIBI_TEST_NODE_MODULES");
    node.env("NODE_PATH", packages).arg(script("doors.js"));
    let mut java = Command::new("java");
    // Its own characters: the locale may not know the password's.
    java.env("LC_ALL", "C.UTF-8");
    java.args(["-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp"]);
    java.arg(crate::jdbc_driver()).arg(script("Doors.java"));
    commands.extend([duckdb, node, java]);
    for mut command in commands {
        run(command.args([host, &port, PASSWORD]).arg(directory.path()));
    }
    let at = |name: &str| directory.path().join(name).display().to_string();
    let identity = format!("sslcert={} sslkey={}", at("certain.pem"), at("certain.key"));
    for (user, more) in [("alice", "channel_binding=require"), ("certain", &identity)] {
        let address = format!(
            "host={host} port={port} dbname=oribi user={user} sslmode=verify-full sslrootcert={} {more}",
            at("ca.pem")
        );
        let mut psql = Command::new("psql");
        psql.args(["-X", "-Atc", "SELECT session_user", &address]).env("PGPASSWORD", PASSWORD);
        assert_eq!(run(&mut psql).trim(), user);
    }
}

async fn with_certificates(directory: &Path) -> Daemon {
    let file = |name: &str| directory.join(name).display().to_string();
    make(directory);
    let options = Options::new()
        .env("ORIBI_CONNECTIONS_RULES", RULES)
        .env("ORIBI_TLS_CERTIFICATE", file("server.pem"))
        .env("ORIBI_TLS_KEY", file("server.key"))
        .env("ORIBI_TLS_CLIENT_CA", file("ca.pem"))
        // Each client fails twice, and nobody is to wait for that.
        .env("ORIBI_CONNECTIONS_LOGIN_FAILURES", "100");
    let daemon = daemon(&options).await;
    daemon.connect().await.batch_execute("CREATE ROLE certain LOGIN").await.expect("made");
    daemon
}

/// An authority with certificates for the daemon and for two users.
fn make(directory: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "authority");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let ca = ca.expect("signed");
    write(directory, "ca.pem", ca.pem());
    for (name, addresses) in
        [("server", vec!["127.0.0.1".to_owned()]), ("certain", Vec::new()), ("moved", Vec::new())]
    {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(addresses).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &ca).expect("signed");
        write(directory, &format!("{name}.pem"), certificate.pem());
        write(directory, &format!("{name}.key"), key.serialize_pem());
        // As pgjdbc wants it.
        write(directory, &format!("{name}.pk8"), key.serialize_der());
    }
}

/// Keys that others may read are refused on both sides.
fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
}
