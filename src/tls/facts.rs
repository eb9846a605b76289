//! What is known of an encrypted connection, in the words that PostgreSQL uses for it.

use std::sync::Arc;

use rustls::{CipherSuite, CommonState, ProtocolVersion};
use x509_certificate::X509Certificate;
use x509_certificate::rfc3280::Name;

/// An encrypted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The daemon's certificate chain that the client was shown, as PEM: what `tls-server-end-point`
    /// channel binding is computed from.
    pub server_chain: Arc<str>,
    /// The client's certificate; verified, since a handshake with another one fails.
    pub client: Option<ClientCertificate>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher by OpenSSL's name.
    pub cipher: &'static str,
    /// Length of the cipher's key.
    pub bits: i32,
}

/// Whom a client's certificate speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The first common name, if there is one that can be trusted to mean what it shows.
    pub common_name: Option<String>,
    /// Distinguished names, as `/C=NL/CN=alice`.
    pub subject: String,
    pub issuer: String,
}

impl Tls {
    /// Of a connection whose handshake is done. An error says what of it cannot be understood.
    pub(super) fn of(
        connection: &CommonState,
        server_chain: Arc<str>,
    ) -> Result<Self, &'static str> {
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let (cipher, bits) = cipher(suite.ok_or("no cipher")?).ok_or("an unknown cipher")?;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => return Err("an unknown version of TLS"),
        };
        let client = match connection.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(certificate) => Some(ClientCertificate::read(certificate)?),
        };
        Ok(Self { server_chain, client, version, cipher, bits })
    }
}

impl ClientCertificate {
    fn read(der: &[u8]) -> Result<Self, &'static str> {
        let certificate =
            X509Certificate::from_der(der).map_err(|_| "the client's certificate is malformed")?;
        // A name with a zero byte shows less than it says.
        let common_name = certificate.subject_common_name().filter(|name| !name.contains('\0'));
        Ok(Self {
            common_name,
            subject: distinguished(certificate.subject_name()),
            issuer: distinguished(certificate.issuer_name()),
        })
    }
}

/// A name in OpenSSL's one-line form, which PostgreSQL shows.
pub(super) fn distinguished(name: &Name) -> String {
    let mut text = String::new();
    for attribute in name.iter_attributes() {
        let oid = attribute.typ.to_string();
        let key = match oid.as_str() {
            "2.5.4.3" => "CN",
            "2.5.4.5" => "serialNumber",
            "2.5.4.6" => "C",
            "2.5.4.7" => "L",
            "2.5.4.8" => "ST",
            "2.5.4.10" => "O",
            "2.5.4.11" => "OU",
            "1.2.840.113549.1.9.1" => "emailAddress",
            "0.9.2342.19200300.100.1.1" => "UID",
            "0.9.2342.19200300.100.1.25" => "DC",
            other => other,
        };
        let value = attribute.to_string().unwrap_or_else(|_| "?".to_owned());
        text.extend(["/", key, "=", &value]);
    }
    text
}

/// The ciphers that can be negotiated, by OpenSSL's names.
fn cipher(suite: CipherSuite) -> Option<(&'static str, i32)> {
    Some(match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", 128),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", 256),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", 256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            ("ECDHE-ECDSA-AES128-GCM-SHA256", 128)
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            ("ECDHE-ECDSA-AES256-GCM-SHA384", 256)
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("ECDHE-ECDSA-CHACHA20-POLY1305", 256)
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-RSA-AES128-GCM-SHA256", 128),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-RSA-AES256-GCM-SHA384", 256),
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("ECDHE-RSA-CHACHA20-POLY1305", 256)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn client(names: &[(DnType, &str)]) -> ClientCertificate {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            parameters.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        ClientCertificate::read(certificate.der()).expect("it is read")
    }

    #[test]
    fn names_are_written_as_openssl_does() {
        let alice = client(&[(DnType::OrganizationName, "Herd"), (DnType::CommonName, "alice")]);
        assert_eq!(alice.common_name.as_deref(), Some("alice"));
        assert_eq!(alice.subject, "/O=Herd/CN=alice");
        assert_eq!(alice.issuer, alice.subject);
        assert_eq!(client(&[(DnType::CountryName, "NL")]).common_name, None);
    }

    #[test]
    fn a_name_that_hides_something_is_none() {
        assert_eq!(client(&[(DnType::CommonName, "oribi\0.example")]).common_name, None);
    }

    #[test]
    fn every_cipher_of_the_library_has_a_name() {
        for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
            assert!(cipher(suite.suite()).is_some(), "{suite:?}");
        }
    }
}
