//! Certificates for tests, made when they are needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};

/// Signs certificates, and keeps them as files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own certificate (PEM).
    pub certificate: PathBuf,
}

/// A certificate and its key, both PEM files.
#[derive(Clone, Debug)]
pub struct Certified {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one file.
    pub both: PathBuf,
}

impl Authority {
    /// Keeps its files in a directory, with names that begin with its own.
    pub fn new(directory: &Path, name: &str) -> Self {
        let mut parameters = named(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let path = directory.join(format!("{name}.pem"));
        fs::write(&path, certificate.pem()).expect("written");
        let issuer = Issuer::new(parameters, key);
        Self { issuer, directory: directory.to_owned(), certificate: path }
    }

    /// For a server on this machine.
    pub fn server(&self, name: &str) -> Certified {
        let mut parameters = named(name);
        let names = ["localhost", "127.0.0.1"].map(String::from);
        let others = CertificateParams::new(names).expect("names");
        parameters.subject_alt_names = others.subject_alt_names;
        self.sign(name, parameters)
    }

    /// For a client of that common name.
    pub fn client(&self, name: &str) -> Certified {
        let mut parameters = named(name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, parameters)
    }

    /// For a daemon, as far as the change leaves it one.
    #[allow(dead_code)]
    pub fn daemon(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let names = CertificateParams::new(vec!["oribi".to_owned()]).expect("a name");
        let mut parameters = named(name);
        parameters.subject_alt_names = names.subject_alt_names;
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut parameters);
        self.sign(name, parameters)
    }

    fn sign(&self, name: &str, parameters: CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let stem = self.certificate.file_stem().expect("a name").display().to_string();
        let path = |ending: &str| self.directory.join(format!("{stem}-{name}.{ending}"));
        let certified =
            Certified { certificate: path("pem"), key: path("key"), both: path("both.pem") };
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        fs::write(&certified.certificate, &certificate).expect("written");
        secret(&certified.key, &key);
        secret(&certified.both, &format!("{certificate}{key}"));
        certified
    }
}

fn named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

/// Writes a file that nobody else may read.
pub fn secret(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
}
