//! What is kept of a password: a SCRAM-SHA-256 verifier, by which it can be recognised and not
//! known.
//!
//! Verifiers are PostgreSQL's text, `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, so
//! that those made by `pg_dumpall` or `psql`'s `\password` are taken as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{ScramSecret, gen_salted_password};

const PREFIX: &str = "SCRAM-SHA-256$";

/// Bytes of a SHA-256 hash.
const KEY_LENGTH: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "passwords hashed with MD5 are not supported: give the password itself, or its SCRAM-SHA-256 verifier"
    )]
    Md5,
}

/// What is kept of a password. A text that is a verifier already stays as it is.
///
/// The password is prepared as PostgreSQL does (SASLprep; one that SASLprep does not take counts as
/// it is). Takes milliseconds, on purpose.
pub fn verifier(password: &str) -> Result<String, Error> {
    if is_md5(password) {
        return Err(Error::Md5);
    }
    match Verifier::parse(password) {
        Some(_) => Ok(password.to_owned()),
        None => Ok(postgres_protocol::password::scram_sha_256(password.as_bytes())),
    }
}

/// PostgreSQL's rule for what is a hash rather than a password.
fn is_md5(text: &str) -> bool {
    let digits = text.strip_prefix("md5").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// A verifier's parts.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl Verifier {
    /// Reads a verifier's text; `None` for any other.
    pub fn parse(text: &str) -> Option<Self> {
        let (costs, keys) = text.strip_prefix(PREFIX)?.split_once('$')?;
        let (iterations, salt) = costs.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok().filter(|key| key.len() == KEY_LENGTH);
        Some(Self {
            iterations: iterations.parse().ok().filter(|iterations| *iterations > 0)?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// A verifier that no password fits, for a name without one. Its salt is always the same for
    /// the same name and secret, as that of a real one would be.
    pub fn mock(name: &str, secret: &[u8]) -> Self {
        // A keyed hash: PBKDF2 with one iteration is HMAC-SHA256.
        let hash = gen_salted_password(name, secret, 1);
        let (salt, _) = hash.split_at(16);
        let random = || [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        Self {
            // What PostgreSQL and most tools use.
            iterations: 4096,
            salt: salt.to_vec(),
            stored_key: random().concat(),
            server_key: random().concat(),
        }
    }

    pub fn secret(self) -> ScramSecret {
        let Self { iterations, salt, stored_key, server_key } = self;
        ScramSecret::Verifier { salt, iterations: iterations as usize, stored_key, server_key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by PostgreSQL 15 of the password `pencil`.
    const PENCIL: &str = "SCRAM-SHA-256$4096:6xqqkL+ob5jbfc06DEfb7g==$NSTUzRf/a+WCwhWEuCSkiRDowhJKtSRFDECgxpK+1KM=:8QmtvEuTDSU85hmw7eGSTbE0EkLQh0wMx3Ajm4BQxRw=";

    #[test]
    fn a_verifier_is_kept_and_a_password_is_not() {
        assert_eq!(verifier(PENCIL), Ok(PENCIL.to_owned()));
        let made = verifier("pencil").expect("a password");
        assert!(!made.contains("pencil"));
        assert_ne!(verifier("pencil"), Ok(made.clone()), "salted");
        let Verifier { iterations, salt, stored_key, .. } =
            Verifier::parse(&made).expect("a verifier");
        assert_eq!((iterations, salt.len()), (4096, 16));
        // The same keys from the same salt, by another's arithmetic.
        let salted = gen_salted_password("pencil", &salt, 4096);
        match ScramSecret::verifier_from_salted_password(salt, salted, 4096) {
            ScramSecret::Verifier { stored_key: expected, .. } => assert_eq!(stored_key, expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn md5_is_refused_and_near_misses_are_passwords() {
        assert_eq!(verifier("md5d3b07384d113edec49eaa6238ad5ff00"), Err(Error::Md5));
        for text in ["md5", "md5d3b07384d113edec49eaa6238ad5ff0z", "SCRAM-SHA-256$4096:x", ""] {
            let made = verifier(text).expect(text);
            assert!(Verifier::parse(&made).is_some() && made != text, "{text}");
        }
        for broken in [
            "SCRAM-SHA-256$0:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3Ot=:wfPL",
            "SCRAM-SHA-1$4096:W22ZaJ0SNY7soEsUEjb6gQ==$x:y",
        ] {
            assert_eq!(Verifier::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_mock_has_the_salt_of_its_name() {
        let salt = |name, secret: &[u8]| Verifier::mock(name, secret).salt;
        assert_eq!(salt("a", b"secret"), salt("a", b"secret"));
        assert_ne!(salt("a", b"secret"), salt("b", b"secret"));
        assert_ne!(salt("a", b"secret"), salt("a", b"other"));
        assert_ne!(Verifier::mock("a", b""), Verifier::mock("a", b""), "and keys nobody knows");
    }
}
