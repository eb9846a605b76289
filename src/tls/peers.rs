//! Certificates by which daemons of one cluster know each other.
//!
//! Either the operator gives them, or the cluster has a key of its own, kept in the coordination
//! store, with which each daemon signs a certificate for itself when it starts: who can read that
//! key belongs to the cluster. Both sides of a connection show theirs, and both must name
//! `peers.name`: a certificate that the same authority has signed for something else is no
//! daemon's.

use std::fmt::{self, Debug, Formatter};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::files::{Error, certificates_in, describe, parsed, private_key_in, read, roots, secret};
use crate::config;

type Result<T, E = Error> = std::result::Result<T, E>;

/// The keys of the settings.
const CERTIFICATE: &str = "peers.certificate";
const KEY: &str = "peers.key";
const CA: &str = "peers.ca";
const NAME: &str = "peers.name";

/// The name in certificates that daemons sign for themselves.
const OWN_NAME: &str = "oribi";

/// HTTP/2's name within TLS (ALPN).
const PROTOCOL: &[u8] = b"h2";

/// What a daemon shows its peers, and by what it knows them, as it may change.
pub struct Peering {
    /// Unset where the cluster's own key is what counts: that does not change.
    files: Option<Files>,
    current: RwLock<Arc<PeerIdentity>>,
}

/// What is in force.
pub struct PeerIdentity {
    /// The own certificate and its key, and who signs those of the others; in PEM.
    pub certificate: String,
    pub key: String,
    pub ca: String,
    /// The name that certificates must have.
    pub name: ServerName<'static>,
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

/// The operator's files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    name: String,
}

/// A new key for a cluster, in PEM.
pub fn new_cluster_key() -> Result<String> {
    Ok(KeyPair::generate().map_err(of_cluster)?.serialize_pem())
}

impl Peering {
    /// With certificates that are signed with the cluster's key. They are valid for as long as the
    /// key is, whatever the clocks say: rcgen's dates, from 1975 to 4096.
    pub fn of_cluster(key: &str) -> Result<Arc<Self>> {
        let identity = own_identity(key).map_err(of_cluster)??;
        Ok(Arc::new(Self { files: None, current: RwLock::new(Arc::new(identity)) }))
    }

    /// With the operator's certificates, if there are any. What the peers would refuse is refused
    /// here.
    pub fn of_files(settings: &config::Peers) -> Result<Option<Arc<Self>>> {
        let config::Peers { certificate, key, ca, name } = settings;
        let missing =
            |key| Error::new(key, "is missing: peers.certificate, key and ca go together");
        let files = match (certificate, key, ca) {
            (None, None, None) => return Ok(None),
            (Some(certificate), Some(key), Some(ca)) => Files {
                certificate: certificate.clone(),
                key: key.clone(),
                ca: ca.clone(),
                name: name.clone(),
            },
            (None, ..) => return Err(missing(CERTIFICATE)),
            (_, None, _) => return Err(missing(KEY)),
            (.., None) => return Err(missing(CA)),
        };
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Some(Arc::new(Self { files: Some(files), current })))
    }

    /// Reads the files again; connections that exist go on as they are. On an error all is as it
    /// was.
    pub fn reload(&self) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let identity = Arc::new(files.read()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    pub fn current(&self) -> Arc<PeerIdentity> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Debug for Peering {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peering").finish_non_exhaustive()
    }
}

fn of_cluster(error: rcgen::Error) -> Error {
    Error::new("coordination", format!("the cluster's key is of no use: {error}"))
}

/// An identity signed with the cluster's key.
fn own_identity(key: &str) -> Result<Result<PeerIdentity>, rcgen::Error> {
    let signer = KeyPair::from_pem(key)?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "oribi cluster");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = authority.self_signed(&signer)?.pem();
    let mut own = CertificateParams::new(vec![OWN_NAME.to_owned()])?;
    own.distinguished_name.push(DnType::CommonName, OWN_NAME);
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = own.signed_by(&key, &Issuer::new(authority, signer))?;
    let files = Files {
        certificate: "the daemon's own certificate".into(),
        key: "its key".into(),
        ca: "the cluster's".into(),
        name: OWN_NAME.to_owned(),
    };
    Ok(files.identity(certificate.pem(), key.serialize_pem(), ca))
}

impl Files {
    fn read(&self) -> Result<PeerIdentity> {
        let text = |key, path| {
            let text = String::from_utf8(read(key, path)?);
            text.map_err(|_| Error::new(key, format!("{} is no PEM file", path.display())))
        };
        let certificate = text(CERTIFICATE, &self.certificate)?;
        let ca = text(CA, &self.ca)?;
        let identity = self.identity(certificate, secret(KEY, &self.key)?, ca)?;
        let chain =
            certificates_in(CERTIFICATE, &self.certificate, identity.certificate.as_bytes())?;
        if let Some(first) = chain.first() {
            describe(&self.certificate, &parsed(CERTIFICATE, first)?);
        }
        Ok(identity)
    }

    /// What is made of them, if peers with the same settings would take it.
    fn identity(&self, certificate: String, key: String, ca: String) -> Result<PeerIdentity> {
        let chain = certificates_in(CERTIFICATE, &self.certificate, certificate.as_bytes())?;
        let own_key = private_key_in(KEY, &self.key, &key)?;
        let known = Arc::new(roots(CA, certificates_in(CA, &self.ca, ca.as_bytes())?)?);
        let name = ServerName::try_from(self.name.clone())
            .map_err(|_| Error::new(NAME, format!("{:?} is no host name", self.name)))?;
        let provider = Arc::new(ring::default_provider());
        let verifier = Daemons::new(known.clone(), &provider, name.clone())?;
        self.check(&chain, &known, &provider, &verifier)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(CERTIFICATE, error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), own_key.clone_key())
            .map_err(|error| self.unfit(&error))?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Each connection shows its certificates anew, to those in charge now.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(CERTIFICATE, error))?
            .with_root_certificates(known)
            .with_client_auth_cert(chain, own_key)
            .map_err(|error| self.unfit(&error))?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok(PeerIdentity { certificate, key, ca, name, server, client })
    }

    /// Looks at the own certificate as the peers will, once as a server's and once as a client's.
    fn check(
        &self,
        chain: &[CertificateDer<'static>],
        known: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        verifier: &Daemons,
    ) -> Result<()> {
        let [own, between @ ..] = chain else { return Ok(()) };
        let now = UnixTime::now();
        let server = WebPkiServerVerifier::builder_with_provider(known.clone(), provider.clone())
            .build()
            .map_err(|error| Error::new(CA, error))?;
        server
            .verify_server_cert(own, between, &verifier.name, &[], now)
            .map_err(|error| self.unfit(&error))?;
        verifier.verify_client_cert(own, between, now).map_err(|error| self.unfit(&error))?;
        Ok(())
    }

    /// What is wrong, in the operator's words.
    fn unfit(&self, error: &rustls::Error) -> Error {
        let (shown, key, ca) = (self.certificate.display(), self.key.display(), self.ca.display());
        let rustls::Error::InvalidCertificate(reason) = error else {
            return match error {
                rustls::Error::InconsistentKeys(_) => {
                    Error::new(KEY, format!("{key} is not the key of {shown}"))
                }
                other => Error::new(CERTIFICATE, format!("{shown}: {other}")),
            };
        };
        match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Error::new(CA, format!("none of the certificates in {ca} has signed {shown}"))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let name = &self.name;
                let reason = "as a subject alternative name, by which daemons know each other";
                Error::new(CERTIFICATE, format!("{shown} does not have {name:?} {reason} ({NAME})"))
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                let reason = "is not for both servers and clients (extended key usage)";
                Error::new(CERTIFICATE, format!("{shown} {reason}"))
            }
            other => Error::new(CERTIFICATE, format!("{shown}: {other}")),
        }
    }
}

/// Lets those in whose certificate is signed by the right authority, and has a daemon's name.
#[derive(Debug)]
struct Daemons {
    signed: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl Daemons {
    fn new(
        known: Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        name: ServerName<'static>,
    ) -> Result<Self> {
        let signed = WebPkiClientVerifier::builder_with_provider(known, provider.clone())
            .build()
            .map_err(|error| Error::new(CA, error))?;
        Ok(Self { signed, name })
    }
}

impl ClientCertVerifier for Daemons {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let signed = self.signed.verify_client_cert(certificate, between, now)?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, &self.name)?;
        Ok(signed)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
