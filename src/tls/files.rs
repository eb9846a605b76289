//! Certificates and keys in the operator's files, and what is wrong with them.

use std::path::Path;

use chrono::{DateTime, Utc};
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};
use x509_certificate::X509Certificate;

use super::facts::distinguished;
use crate::secret;

/// A setting that TLS cannot be set up with.
#[derive(Debug, thiserror::Error)]
#[error("setting \"{key}\": {reason}")]
pub struct Error {
    /// With its section.
    key: &'static str,
    reason: String,
}

impl Error {
    pub(super) fn new(key: &'static str, reason: impl ToString) -> Self {
        Self { key, reason: reason.to_string() }
    }
}

/// All certificates of a PEM file; at least one.
pub(super) fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates_in(key, path, &read(key, path)?)
}

/// A file that is no secret.
pub(super) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let shown = path.display();
    std::fs::read(path).map_err(|error| Error::new(key, format!("cannot read {shown}: {error}")))
}

/// All certificates in a PEM file's text; at least one.
pub(super) fn certificates_in(
    key: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let shown = path.display();
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| Error::new(key, format!("{shown}: {error}")))?;
    if found.is_empty() {
        return Err(Error::new(key, format!("{shown} holds no certificate (PEM)")));
    }
    Ok(found)
}

pub(super) fn roots(
    key: &'static str,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| Error::new(key, error))?;
    }
    Ok(roots)
}

pub(super) fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    private_key_in(key, path, &secret(key, path)?)
}

/// A file that is a secret.
pub(super) fn secret(key: &'static str, path: &Path) -> Result<String, Error> {
    secret::read(path).map_err(|error| Error::new(key, error))
}

pub(super) fn private_key_in(
    key: &'static str,
    path: &Path,
    text: &str,
) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        let shown = path.display();
        Error::new(
            key,
            match error {
                pem::Error::NoItemsFound => format!("{shown} holds no unencrypted key (PEM)"),
                other => format!("{shown}: {other}"),
            },
        )
    })
}

pub(super) fn parsed(key: &'static str, certificate: &[u8]) -> Result<X509Certificate, Error> {
    X509Certificate::from_der(certificate).map_err(|error| Error::new(key, error))
}

/// When the first certificate of a PEM file is no longer valid.
pub fn expiry(key: &'static str, path: &Path) -> Result<DateTime<Utc>, Error> {
    let all = certificates(key, path)?;
    let first = all.first().ok_or_else(|| Error::new(key, "there is no certificate"))?;
    Ok(parsed(key, first)?.validity_not_after())
}

/// Says in the log which certificate is in use from now on.
pub(super) fn describe(path: &Path, certificate: &X509Certificate) {
    let subject = distinguished(certificate.subject_name());
    let (from, until) = (certificate.validity_not_before(), certificate.validity_not_after());
    info!(path = %path.display(), subject, %from, %until, "TLS certificate");
    if !certificate.time_constraints_valid(None) {
        warn!(path = %path.display(), %from, %until, "the TLS certificate is not valid now");
    }
}
