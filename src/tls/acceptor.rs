//! The daemon's side of handshakes: its certificate and key, from files that may be renewed.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_certificate::CapturedX509Certificate;

use super::facts::Tls;
use super::files::{Error, certificates, describe, parsed, private_key, roots};
use crate::config::{self, TlsMode, TlsVersion};

/// The protocols' names within TLS (ALPN), as registered.
const PROTOCOL: &[u8] = b"postgresql";
const WEB: &[u8] = b"http/1.1";

/// Does handshakes with clients.
pub struct Acceptor {
    settings: config::Tls,
    identity: RwLock<Identity>,
}

/// What the daemon shows clients, and whom it trusts to know them.
#[derive(Clone)]
struct Identity {
    config: Arc<ServerConfig>,
    /// The same for browsers, which are not asked for a certificate: they would ask their user.
    web: Arc<ServerConfig>,
    /// The certificate chain, as PEM.
    chain: Arc<str>,
}

impl Acceptor {
    /// Reads certificate and key; `None` if there is to be no TLS. What is configured and does not
    /// work is an error, for nothing may go on in plaintext that was meant to be encrypted.
    pub fn open(settings: &config::Tls) -> Result<Option<Arc<Self>>, Error> {
        if settings.mode == TlsMode::Off {
            return Ok(None);
        }
        if settings.certificate.is_none() {
            let needless = [("tls.key", &settings.key), ("tls.client_ca", &settings.client_ca)];
            if let Some((key, _)) = needless.into_iter().find(|(_, path)| path.is_some()) {
                return Err(Error::new(key, "is of no use without tls.certificate"));
            }
            return match settings.mode {
                TlsMode::Require => {
                    Err(Error::new("tls.mode", "\"require\" needs tls.certificate and tls.key"))
                }
                TlsMode::Allow | TlsMode::Off => Ok(None),
            };
        }
        let identity = RwLock::new(Identity::read(settings)?);
        Ok(Some(Arc::new(Self { settings: settings.clone(), identity })))
    }

    /// Reads the files again; connections that exist go on as they are. On an error all is as it
    /// was.
    pub fn reload(&self) -> Result<(), Error> {
        let identity = Identity::read(&self.settings)?;
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// Whether clients have to use TLS.
    pub fn is_required(&self) -> bool {
        self.settings.mode == TlsMode::Require
    }

    /// Does the handshake. With `direct` nothing was said in plaintext before: then the client has
    /// to name the protocol, so that nobody can lead another protocol's client here.
    pub async fn accept(
        &self,
        socket: TcpStream,
        direct: bool,
    ) -> io::Result<(TlsStream<TcpStream>, Tls)> {
        let Identity { config, chain, .. } =
            self.identity.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        let (_, connection) = stream.get_ref();
        if direct && connection.alpn_protocol() != Some(PROTOCOL) {
            return Err(io::Error::other("direct TLS without the protocol's name (ALPN)"));
        }
        let tls = Tls::of(connection, chain).map_err(io::Error::other)?;
        Ok((stream, tls))
    }

    /// Does the handshake with a client that begins with TLS on the web port.
    pub async fn accept_web(&self, socket: TcpStream) -> io::Result<(TlsStream<TcpStream>, Tls)> {
        let Identity { web, chain, .. } =
            self.identity.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = TlsAcceptor::from(web).accept(socket).await?;
        let tls = Tls::of(stream.get_ref().1, chain).map_err(io::Error::other)?;
        Ok((stream, tls))
    }
}

impl Debug for Acceptor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Identity {
    fn read(settings: &config::Tls) -> Result<Self, Error> {
        let certificate = settings.certificate.as_deref();
        let certificate = certificate.ok_or_else(|| Error::new("tls.certificate", "is not set"))?;
        let chain = certificates("tls.certificate", certificate)?;
        let key = settings.key.as_deref();
        let key = key.ok_or_else(|| Error::new("tls.key", "is not set, and tls.certificate is"))?;
        let pem = chain.iter().map(pem_of).collect::<Result<String, _>>()?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| Error::new("tls.min_version", error))?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let known = certificates("tls.client_ca", path)?;
                let roots = Arc::new(roots("tls.client_ca", known)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    // Who must have one is for the host rules to say.
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| Error::new("tls.client_ca", error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let shown = chain.first().map(|first| parsed("tls.certificate", first)).transpose()?;
        let web = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| Error::new("tls.min_version", error))?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), private_key("tls.key", key)?);
        let mut config =
            builder.with_single_cert(chain, private_key("tls.key", key)?).map_err(|error| {
                match error {
                    rustls::Error::InconsistentKeys(_) => {
                        let certificate = certificate.display();
                        let key = key.display();
                        Error::new("tls.key", format!("{key} is not the key of {certificate}"))
                    }
                    rustls::Error::InvalidCertificate(_) => Error::new("tls.certificate", error),
                    other => Error::new("tls.key", other),
                }
            })?;
        if let Some(shown) = shown {
            describe(certificate, &shown);
        }
        // What is wrong with the files is told above.
        let mut web = web.map_err(|error| Error::new("tls.key", error))?;
        web.alpn_protocols = vec![WEB.to_vec()];
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Every connection shows its certificates anew, to those in charge now. PostgreSQL resumes
        // no TLS sessions either.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), web: Arc::new(web), chain: pem.into() })
    }
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST: &[&SupportedProtocolVersion] = &[&version::TLS13];
    static BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    match least {
        TlsVersion::V1_2 => BOTH,
        TlsVersion::V1_3 => NEWEST,
    }
}

/// Byte for byte as clients are shown it: encoded anew it could be another, to which no password
/// would be bound.
fn pem_of(certificate: &CertificateDer<'_>) -> Result<String, Error> {
    let certificate = CapturedX509Certificate::from_der(certificate.to_vec());
    certificate.map(|it| it.encode_pem()).map_err(|error| Error::new("tls.certificate", error))
}
