//! Values that settings have: sizes, shares, counts, places, limits, and how they are written.

use std::fmt::{self, Display, Formatter};
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

use super::rules::Rules;

/// An empty string for "not set".
pub(super) mod empty_is_none {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, T: From<String>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

/// An address and a port.
pub(super) mod address {
    use std::net::SocketAddr;

    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is no address and port, such as \"127.0.0.1:5439\" or \"[::1]:5439\": names are \
                 not looked up"
            ))
        })
    }
}

/// A duration as people write it.
pub(super) mod duration {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is no duration, such as \"50ms\", \"30s\" or \"5m\""
            ))
        })
    }
}

/// A value that is written as text.
macro_rules! as_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match Value::deserialize(deserializer)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                text.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

/// What URLs of files may begin with.
pub const SCHEMES: &[&str] = &[
    "file",
    "s3",
    "s3a",
    #[cfg(feature = "gcs")]
    "gs",
    #[cfg(feature = "azure")]
    "az",
    #[cfg(feature = "azure")]
    "abfs",
    #[cfg(feature = "azure")]
    "abfss",
];

/// Refuses URLs that no store is there for. What is no URL is a directory.
pub(super) fn supported(place: &str) -> Result<(), String> {
    let Some((scheme, rest)) = place.split_once("://") else {
        return match place.split_once(':') {
            Some((scheme, rest)) if SCHEMES.contains(&scheme) => Err(format!(
                "{place:?} is no URL: it takes two slashes, as in {scheme}://{}",
                rest.trim_start_matches('/')
            )),
            _ => Ok(()),
        };
    };
    // As URLs have it, in small letters or large. What comes behind may have a password in it.
    let scheme = scheme.to_ascii_lowercase();
    match (scheme.as_str(), rest) {
        (scheme, _) if !SCHEMES.contains(&scheme) => Err(format!(
            "\"{scheme}://\" is not one of {}: give a directory, or a URL of these kinds",
            SCHEMES.join(", ")
        )),
        ("file", path) if !path.starts_with('/') && !path.starts_with("localhost/") => {
            Err(format!("{place:?}: after file:// comes an absolute path, as in file:///{path}"))
        }
        (_, rest) if rest.is_empty() || (scheme != "file" && rest.starts_with('/')) => {
            Err(format!("{place:?} names no bucket, as {scheme}://bucket/path does"))
        }
        _ => Ok(()),
    }
}

/// The members of an ensemble and its chroot, if it has one, of `host:port,host:port/chroot`.
pub fn ensemble(text: &str) -> Result<(Vec<String>, Option<&str>), String> {
    let (list, chroot) = match text.find('/') {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let hosts: Vec<String> = list.split(',').map(|host| host.trim().to_owned()).collect();
    for host in &hosts {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, None),
            Some((address, rest)) => (address, Some(rest.strip_prefix(':').unwrap_or(rest))),
            None => match host.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host.as_str(), None),
            },
        };
        let good = match host.starts_with('[') {
            // The part behind the percent sign is a network card's name.
            true => name.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
            false => {
                !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
            }
        };
        if !good {
            return Err(format!(
                "{host:?} is no host: it takes the form host:port,host:port/chroot (the port may be left out, \
                 and is 2181 then; an IPv6 address stands in brackets)"
            ));
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err(format!(
                "{host:?}: {:?} is no port; it takes the form host:port,host:port/chroot, with ports \
                 from 1 to 65535",
                port.unwrap_or_default()
            ));
        }
    }
    // As ZooKeeper has paths.
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains(char::is_control);
    match chroot {
        Some(chroot) if chroot != "/" && chroot.split('/').skip(1).any(bad) => Err(format!(
            "{text:?}: the chroot is a path such as /oribi, without a \"/\" at its end, and none of its parts is \
             empty, \".\" or \"..\""
        )),
        chroot => Ok((hosts, chroot)),
    }
}

/// A number of bytes, such as `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A size, or a share of the machine's memory in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Percent(u8),
    Bytes(u64),
}

/// A number, or one for each core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Auto,
    Exactly(usize),
}

/// Absolute directories and URLs, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(pub Vec<String>);

/// A duration, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// Bytes a second, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

as_text!(Size);
as_text!(Share);
as_text!(Count);
as_text!(Limit);
as_text!(Rate);
as_text!(Places);
as_text!(Rules);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) => Err(format!("{text:?} is not a size such as \"64MiB\"")),
        }
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", bytesize::ByteSize(self.0).display().iec())
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("{text:?} is not a share from \"1%\" to \"100%\"")),
            };
        }
        match text.parse::<Size>() {
            Ok(Size(bytes)) if bytes > 0 => Ok(Self::Bytes(bytes)),
            _ => Err(format!("{text:?} is neither a share such as \"70%\" nor a size")),
        }
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => Size(*bytes).fmt(f),
        }
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(count @ 1..=1024)) => Ok(Self::Exactly(count)),
            _ => Err(format!("{text:?} is neither \"auto\" nor a number from 1 to 1024")),
        }
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(count) => count.fmt(f),
        }
    }
}

impl Count {
    pub fn get(self) -> usize {
        match self {
            Self::Auto => std::thread::available_parallelism().map_or(1, usize::from),
            Self::Exactly(count) => count,
        }
    }
}

impl FromStr for Places {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| match part.starts_with('/') || part.contains("://") {
                true => supported(part).map(|()| part.to_owned()),
                false => Err(format!("{part:?} is neither an absolute directory nor a URL")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Display for Places {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Ok(Self(Some(duration))),
            _ => Err(format!("{text:?} is neither \"none\" nor a duration such as \"30s\"")),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<Size>()) {
            ("none", _) => Ok(Self(None)),
            (_, Ok(Size(bytes))) if bytes > 0 => Ok(Self(Some(bytes))),
            _ => Err(format!(
                "{text:?} is neither \"none\" nor a size, by the second, such as \"64MiB\""
            )),
        }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(bytes) => Size(bytes).fmt(f),
        }
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(duration) => humantime::format_duration(duration).fmt(f),
        }
    }
}
