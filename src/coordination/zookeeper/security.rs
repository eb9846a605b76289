//! Who this client is for the ensemble, and how the two speak.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zookeeper_client::{Acls, Connector, SaslOptions, TlsOptions};

use super::address::{Address, host_name};
use crate::coordination::{Error, Result};
use crate::secret;

/// How long a server has for saying what it does not like about a handshake.
const LISTEN: Duration = Duration::from_millis(200);

/// Whom ZooKeeper is to take this client for.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    scheme: Scheme,
    user: String,
    password: String,
}

/// How ZooKeeper finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// ZooKeeper's own: the password goes over the wire, and its hash is in each ACL.
    Digest,
    /// SASL with DIGEST-MD5: ZooKeeper knows the users, passwords stay off the wire.
    Sasl,
}

impl Credentials {
    /// From a file with one line: `digest USER:PASSWORD` or `sasl USER:PASSWORD`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = secret::read(path).map_err(|error| setting("credentials", error))?;
        Self::parse(&text).ok_or_else(|| {
            let reason = "is not one line \"digest USER:PASSWORD\" or \"sasl USER:PASSWORD\"";
            setting("credentials", format!("{} {reason}", path.display()))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, login) = text.trim_end_matches(['\r', '\n']).split_once(' ')?;
        let (user, password) = login.split_once(':')?;
        let scheme = match scheme {
            "digest" => Scheme::Digest,
            "sasl" => Scheme::Sasl,
            _ => return None,
        };
        // They would end the names in what SASL says.
        let quoting = |c: char| c == '"' || c == '\\' || c.is_control();
        let clean = !login.contains(['\r', '\n']) && !user.contains(quoting);
        let (user, password) = (user.to_owned(), password.to_owned());
        (clean && !user.is_empty() && !password.is_empty()).then_some(Self {
            scheme,
            user,
            password,
        })
    }

    /// The scheme's name in an ACL.
    pub(super) fn scheme(&self) -> &'static str {
        match self.scheme {
            Scheme::Digest => "digest",
            Scheme::Sasl => "sasl",
        }
    }

    pub(super) fn apply(&self, connector: Connector) -> Connector {
        let Self { scheme, user, password } = self;
        match scheme {
            Scheme::Digest => {
                connector.with_auth("digest", format!("{user}:{password}").as_bytes())
            }
            Scheme::Sasl => {
                connector.with_sasl(SaslOptions::digest_md5(user.clone(), password.clone()))
            }
        }
    }
}

/// Never the password.
impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { scheme, user, .. } = self;
        f.debug_struct("Credentials").field("scheme", scheme).field("user", user).finish()
    }
}

/// The files that TLS to the ensemble needs, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of those who sign the servers'.
    pub ca: PathBuf,
    /// This client's certificate and key, for servers that ask.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Reads the files. The servers' names are always verified.
    pub(super) fn read(&self) -> Result<TlsOptions> {
        // The client takes the process's choice, and panics when there is none; an error says that
        // it was made already.
        let _ = ring::default_provider().install_default();
        let options = TlsOptions::new()
            .with_pem_ca(&public("tls_ca", &self.ca)?)
            .map_err(|error| setting("tls_ca", format!("{}: {error}", self.ca.display())))?;
        let Some((certificate, key)) = &self.identity else { return Ok(options) };
        let shown = certificate.display();
        let chain = public("tls_certificate", certificate)?;
        let key = secret::read(key).map_err(|error| setting("tls_key", error))?;
        options
            .with_pem_identity(&chain, &key)
            .map_err(|error| setting("tls_key", format!("for {shown}: {error}")))
    }

    /// Refuses files that cannot be used together.
    pub(super) fn check(&self) -> Result<()> {
        self.read()?;
        self.config().map(drop)
    }
}

impl Tls {
    /// Why TLS with a server fails, if it does: the client says no more than that it is not
    /// connected.
    pub(super) async fn trouble(&self, host: &str) -> Option<String> {
        let attempt = async {
            let mut stream = self.open(host).await?;
            // A server that wants another certificate from us says so only now.
            let mut nothing = [0];
            match timeout(LISTEN, stream.read(&mut nothing)).await {
                Ok(Err(error)) => Err(error),
                _ => Ok(()),
            }
        };
        attempt.await.err().map(|error| error.to_string())
    }

    /// A connection to a server for something else than its protocol.
    pub(in crate::coordination) async fn open(
        &self,
        host: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config().map_err(io::Error::other)?;
        let name = host_name(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let with_port = host.ends_with(']') || !host.contains(':');
        let target = if with_port { format!("{host}:2181") } else { host.to_owned() };
        let socket = TcpStream::connect(target).await?;
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }

    fn config(&self) -> Result<ClientConfig> {
        let certificates = |key, path: &Path| {
            let text = public(key, path)?;
            let found: std::result::Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            found.map_err(|error| setting(key, error))
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("tls_ca", &self.ca)?);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| setting("tls", error))?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("tls_certificate", certificate)?;
        let wrong = |error: String| setting("tls_key", error);
        let key = secret::read(key).map_err(|error| wrong(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|error| wrong(error.to_string()))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| wrong(error.to_string()))
    }
}

/// What is not safe about speaking with ZooKeeper in this way over a network.
pub(super) fn warning(
    address: &Address,
    credentials: Option<&Credentials>,
    tls: bool,
) -> Option<&'static str> {
    if address.hosts.iter().all(|host| is_loopback(host_name(host))) {
        return None;
    }
    match credentials.map(|credentials| credentials.scheme) {
        None => {
            Some("znodes are open to everybody who reaches ZooKeeper: set coordination.credentials")
        }
        Some(Scheme::Digest) if !tls => Some(
            "the password for ZooKeeper goes over the network in clear: set coordination.tls, or \
             use sasl in coordination.credentials",
        ),
        Some(_) => None,
    }
}

/// Refuses hosts that no certificate can be for; the client would panic.
pub(super) fn check_names(address: &Address) -> Result<()> {
    for host in &address.hosts {
        if ServerName::try_from(host_name(host)).is_err() {
            let reason = format!("{host:?} in zookeeper is no name that a certificate can be for");
            return Err(setting("tls", reason));
        }
    }
    Ok(())
}

/// The ACL of a directory that is made before it is known whom ZooKeeper takes this client for.
pub(super) fn first_acl(credentials: Option<&Credentials>) -> Acls<'static> {
    match credentials {
        Some(_) => Acls::creator_all(),
        None => Acls::anyone_all(),
    }
}

/// ZooKeeper does not take the credentials, or they are not those of the nodes' owner.
pub(super) fn rejected(hosts: &str, credentials: Option<&Credentials>) -> Error {
    let reason = match credentials {
        Some(Credentials { scheme, user, .. }) => format!(
            "ZooKeeper at {hosts} does not let {scheme:?} user {user:?} in: all daemons of a \
             cluster need the same credentials, and sasl users have to be known to ZooKeeper"
        ),
        None => format!(
            "ZooKeeper at {hosts} wants credentials: the same that the cluster's other daemons have"
        ),
    };
    setting("credentials", reason)
}

pub(super) fn setting(key: &'static str, reason: impl ToString) -> Error {
    Error::Setting { key, reason: reason.to_string() }
}

fn public(key: &'static str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| setting(key, format!("cannot read {}: {error}", path.display())))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_one_line_and_stay_out_of_logs() {
        let good = Credentials::parse("digest herd:s:e c\u{20ac}\n").expect("valid");
        assert_eq!((good.scheme(), good.user.as_str()), ("digest", "herd"));
        assert_eq!(good.password, "s:e c\u{20ac}");
        assert!(!format!("{good:?}").contains("s:e"), "{good:?}");
        for bad in ["", "digest", "digest a", "digest :b", "digest a:", "x509 a:b", "sasl a:b\nc"] {
            assert_eq!(Credentials::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Credentials::parse("sasl a\"b:c"), None);
    }

    #[test]
    fn networks_are_warned_of() {
        let warning = |hosts, credentials: &str, tls| {
            let address = Address::parse(hosts).expect("valid");
            super::warning(&address, Credentials::parse(credentials).as_ref(), tls)
        };
        assert_eq!(warning("localhost,127.0.0.1:1,[::1]:2181", "", false), None);
        assert!(warning("127.0.0.1,zk1", "", true).is_some_and(|text| text.contains("open")));
        assert!(warning("zk1", "digest a:b", false).is_some_and(|text| text.contains("clear")));
        assert_eq!(warning("zk1", "digest a:b", true), None);
        assert_eq!(warning("zk1", "sasl a:b", false), None);
    }

    #[test]
    fn names_without_a_certificate_are_refused() {
        let checked = |hosts| check_names(&Address::parse(hosts).expect("valid"));
        assert!(checked("zk1.example:2281,10.0.0.1,[::1]:2281").is_ok());
        assert!(matches!(checked("-zk:2281"), Err(Error::Setting { key: "tls", .. })));
    }
}
