//! TLS at the door: channel binding, client certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::common::daemon::Options;
use crate::python::{python, run};
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
    let file = |name: &str| directory.path().join(name).display().to_string();
    make(directory.path());
    let options = Options::new()
        .env("ORIBI_CONNECTIONS_RULES", RULES)
        .env("ORIBI_TLS_CERTIFICATE", file("server.pem"))
        .env("ORIBI_TLS_KEY", file("server.key"))
        .env("ORIBI_TLS_CLIENT_CA", file("ca.pem"));
    let daemon = daemon(&options).await;
    daemon.connect().await.batch_execute("CREATE ROLE certain LOGIN").await.expect("made");
    let mut command = Command::new(python(&["psycopg"], "psycopg[binary]"));
    let (host, port) = ("127.0.0.1", daemon.postgres().port().to_string());
    run(command.args(["-c", SCRIPT, host, &port, PASSWORD]).arg(directory.path()));
}

/// An authority with certificates for the daemon and for two users.
fn make(directory: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "authority");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let ca = ca.expect("signed");
    write(directory, "ca.pem", &ca.pem());
    for (name, addresses) in
        [("server", vec!["127.0.0.1".to_owned()]), ("certain", Vec::new()), ("moved", Vec::new())]
    {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(addresses).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &ca).expect("signed");
        write(directory, &format!("{name}.pem"), &certificate.pem());
        write(directory, &format!("{name}.key"), &key.serialize_pem());
    }
}

/// Keys that others may read are refused on both sides.
fn write(directory: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
}
