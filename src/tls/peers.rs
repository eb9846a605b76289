//! Certificates by which daemons of one cluster know each other.
//!
//! Either the operator gives them, or the cluster has a key of its own, kept in the coordination
//! store, with which each daemon signs a certificate for itself when it starts: who can read that
//! key belongs to the cluster. Both sides of a connection show theirs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Why a daemon has nothing to show to its peers.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("setting \"peers.{key}\": {path}: {source}")]
    File { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the cluster's key is of no use: {0}")]
    Key(#[from] rcgen::Error),
}

type Result<T, E = PeerError> = std::result::Result<T, E>;

/// The name in certificates that daemons sign for themselves: it is the cluster's key that counts,
/// wherever a daemon listens.
const OWN_NAME: &str = "oribi";

/// What a daemon shows to its peers, and by what it knows them; all in PEM.
#[derive(Clone)]
pub struct PeerIdentity {
    pub certificate: String,
    pub key: String,
    /// Who signs the peers' certificates.
    pub ca: String,
    /// The name for which peers' certificates must be; `None`: that of the host that is called.
    pub name: Option<&'static str>,
}

impl std::fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerIdentity").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A new key for a cluster, in PEM.
pub fn new_cluster_key() -> Result<String> {
    Ok(KeyPair::generate()?.serialize_pem())
}

impl PeerIdentity {
    /// An identity signed with the cluster's key.
    pub fn of_cluster(key: &str) -> Result<Self> {
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
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            ca,
            name: Some(OWN_NAME),
        })
    }

    /// An identity from the operator's files. Certificates must be for the hosts by which the
    /// daemons call each other.
    pub fn of_files(certificate: &Path, key: &Path, ca: &Path) -> Result<Self> {
        let read = |key, path: &Path| {
            std::fs::read_to_string(path).map_err(|source| PeerError::File {
                key,
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificate: read("certificate", certificate)?,
            key: read("key", key)?,
            ca: read("ca", ca)?,
            name: None,
        })
    }
}
