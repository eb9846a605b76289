//! Where an ensemble is: `host:port,host:port/chroot`.

use crate::config;
use crate::coordination::{Error, Result, validate};

const DEFAULT_CHROOT: &str = "/oribi";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `host:port`, at least one.
    pub hosts: Vec<String>,
    /// An absolute path; `/` for none.
    pub chroot: String,
}

impl Address {
    pub fn parse(hosts: &str) -> Result<Self> {
        let (hosts, chroot) =
            config::ensemble(hosts).map_err(|reason| Error::Refused { reason })?;
        let chroot = chroot.unwrap_or(DEFAULT_CHROOT);
        validate::path(chroot)?;
        Ok(Self { hosts, chroot: chroot.to_owned() })
    }
}

/// The name or address in `host:port`.
pub(in crate::coordination) fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings() {
        let parsed = |hosts| Address::parse(hosts).unwrap();
        let hosts = vec!["a:1".to_owned(), "b".to_owned()];
        assert_eq!(parsed("a:1, b"), Address { hosts: hosts.clone(), chroot: "/oribi".into() });
        assert_eq!(parsed("a:1,b/x/y"), Address { hosts: hosts.clone(), chroot: "/x/y".into() });
        assert_eq!(parsed("a:1,b/"), Address { hosts, chroot: "/".into() });
        for (host, name) in [("a:1", "a"), ("a", "a"), ("[::1]:1", "::1"), ("[::1]", "::1")] {
            assert_eq!(host_name(host), name);
        }
        for bad in ["", "/x", "tcp://a:1", "a,,b", "a/x/", "a//"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }
}
