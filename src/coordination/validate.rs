//! What both backends refuse before they ask the store, in the same words: paths and versions that
//! ZooKeeper does not accept, and values that are too large.

use super::{Error, MAX_DATA, Mode, Op, Result};

/// Largest transaction in bytes. ZooKeeper closes the connection on a request beyond its
/// `jute.maxbuffer` (one byte less than 1 MiB by default), which looks like a lost reply and invites a retry for
/// ever. A little is left for what goes before and after the steps.
const MAX_TRANSACTION: usize = (1 << 20) - 1024;

/// What a step takes on the wire beside its path and value: 9 bytes of header, a length before each of the two,
/// and a version (`zookeeper.jute` of ZooKeeper's sources).
const STEP_OVERHEAD: usize = 21;

/// What a new node takes beside that: flags, and the access control list, with identities of any usual length.
const NEW_OVERHEAD: usize = 256;

/// A path to read or watch.
pub(super) fn path(path: &str) -> Result<()> {
    match defect(path) {
        Some(reason) => Err(Error::BadPath { path: path.to_owned(), reason }),
        None => Ok(()),
    }
}

/// A step of a transaction, or a write of its own.
pub(super) fn step(step: &Op) -> Result<()> {
    match step {
        Op::Check { path, version } => {
            self::path(path)?;
            expected(path, *version)
        }
        Op::Create { path, data, mode } => {
            match mode {
                // The number completes the name, so `/queue/` is a parent with a bare number.
                Mode::PersistentSequential | Mode::EphemeralSequential => {
                    self::path(&format!("{path}0"))
                        .map_err(|error| with_path(error, path.clone()))?;
                }
                Mode::Persistent | Mode::Ephemeral => self::path(path)?,
            }
            not_root(path)?;
            value(path, data)
        }
        Op::Set { path, data, version } => {
            self::path(path)?;
            expected(path, *version)?;
            value(path, data)
        }
        Op::Delete { path, version } => {
            self::path(path)?;
            not_root(path)?;
            expected(path, *version)
        }
    }
}

/// The steps of a transaction, and all of them together, where so many bytes go before each path.
pub(super) fn transaction(steps: &[Op], chroot: usize) -> Result<()> {
    let mut bytes = 0;
    for (index, op) in steps.iter().enumerate() {
        step(op).map_err(|source| Error::Transaction { index, source: Box::new(source) })?;
        bytes += STEP_OVERHEAD + chroot + op.path().len();
        bytes += match op {
            Op::Create { data, .. } => NEW_OVERHEAD + data.len(),
            Op::Set { data, .. } => data.len(),
            Op::Check { .. } | Op::Delete { .. } => 0,
        };
    }
    if bytes > MAX_TRANSACTION {
        let path = format!("a transaction of {} steps", steps.len());
        return Err(Error::TooLarge { path, bytes, limit: MAX_TRANSACTION });
    }
    Ok(())
}

fn not_root(path: &str) -> Result<()> {
    if path == "/" {
        let reason = "the root can be neither created nor deleted";
        return Err(Error::BadPath { path: path.to_owned(), reason });
    }
    Ok(())
}

/// ZooKeeper takes a negative version for "any", which here is `None`.
fn expected(path: &str, version: Option<i32>) -> Result<()> {
    match version {
        Some(version) if version < 0 => Err(Error::BadVersion { path: path.to_owned() }),
        _ => Ok(()),
    }
}

fn value(path: &str, data: &[u8]) -> Result<()> {
    if data.len() > MAX_DATA {
        let path = path.to_owned();
        return Err(Error::TooLarge { path, bytes: data.len(), limit: MAX_DATA });
    }
    Ok(())
}

fn with_path(error: Error, path: String) -> Error {
    match error {
        Error::BadPath { reason, .. } => Error::BadPath { path, reason },
        other => other,
    }
}

/// Why ZooKeeper would refuse a path (its `PathUtils.validatePath`).
fn defect(path: &str) -> Option<&'static str> {
    let Some(names) = path.strip_prefix('/') else {
        return Some("it does not begin with /");
    };
    if names.is_empty() {
        return None;
    }
    // ZooKeeper looks at UTF-16 units and refuses surrogates, hence all beyond U+FFFF.
    let refused = |character: char| {
        matches!(character, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{e000}'..='\u{f8ff}')
            || character >= '\u{fff0}'
    };
    if names.chars().any(refused) {
        return Some("it contains a character that ZooKeeper refuses");
    }
    names.split('/').find_map(|name| match name {
        "" => Some("it contains an empty name"),
        "." | ".." => Some("it contains a relative name"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn paths_zookeeper_refuses() {
        for good in ["/", "/a", "/a/b.c", "/größe", "/...", "/a b"] {
            assert!(path(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a", "//", "/a/", "/a//b", "/.", "/a/..", "/a\n", "/\u{1f60a}", "/\u{fff0}"]
        {
            assert!(matches!(path(bad), Err(Error::BadPath { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_sequential_path_may_end_in_a_slash_and_the_root_is_fixed() {
        let create = |path: &str, mode| {
            step(&Op::Create { path: path.to_owned(), data: Bytes::new(), mode })
        };
        assert!(create("/a/", Mode::PersistentSequential).is_ok());
        assert!(create("/a/", Mode::Persistent).is_err());
        assert!(create("/", Mode::Persistent).is_err());
        assert!(step(&Op::Delete { path: "/".to_owned(), version: None }).is_err());
        let negative = step(&Op::Delete { path: "/a".to_owned(), version: Some(-1) });
        assert!(matches!(negative, Err(Error::BadVersion { .. })));
    }

    #[test]
    fn transactions_are_bounded_as_a_whole() {
        let data = Bytes::from(vec![0; MAX_DATA]);
        let set = Op::Set { path: "/a".to_owned(), data, version: None };
        assert!(transaction(&vec![set.clone(); 15], 6).is_ok());
        assert!(matches!(transaction(&vec![set; 16], 6), Err(Error::TooLarge { .. })));
    }
}
