//! Settings: the commented default file, with a file of the user's, the environment and flags on
//! top. Whatever is wrong is refused by name before anything starts.

pub mod rules;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use rules::{Rules, Surroundings};

/// The default file, part of the binary.
pub const DEFAULTS: &str = include_str!("../config/oribi.toml");

/// Prefix of the environment variables that set settings.
pub const ENV_PREFIX: &str = "ORIBI_";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin} is not valid TOML: {source}")]
    Syntax { origin: String, source: Box<toml::de::Error> },
    #[error("{origin}: unknown setting \"{key}\"; config/oribi.toml lists all of them")]
    UnknownKey { origin: String, key: String },
    #[error("{origin}: setting \"{key}\": {reason}")]
    BadValue { origin: String, key: String, reason: String },
}

/// Settings that are wrong, with the key to mend.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All settings, valid. The meaning of each stands in `config/oribi.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(with = "empty_is_none")]
    pub data_dir: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub id: Option<String>,
    #[serde(with = "empty_is_none")]
    pub zookeeper: Option<String>,
    pub postgres: SocketAddr,
    pub peer: SocketAddr,
    pub web: SocketAddr,
    #[serde(with = "empty_is_none")]
    pub advertise: Option<String>,
    #[serde(with = "empty_is_none")]
    pub warehouse: Option<String>,
    pub coordination: Coordination,
    pub storage: Storage,
    pub engine: Engine,
    pub query: Query,
    pub connections: Connections,
    pub tls: Tls,
    pub audit: Audit,
    pub shutdown: Shutdown,
    pub log: Log,
    /// Where values other than the defaults were set, by key.
    #[serde(skip)]
    origins: BTreeMap<String, String>,
}

/// One setting with its value and where that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `section.key`, or a key alone.
    pub key: String,
    pub value: String,
    pub default: String,
    /// A file, a variable, a flag, or `default`.
    pub origin: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Coordination {
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    #[serde(with = "empty_is_none")]
    pub credentials: Option<PathBuf>,
    pub tls: Switch,
    #[serde(with = "empty_is_none")]
    pub tls_ca: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub tls_certificate: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub roots: Places,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    pub memory_limit: Share,
    pub threads: Count,
    pub target_partitions: Count,
    pub batch_size: usize,
    #[serde(with = "empty_is_none")]
    pub spill_dir: Option<PathBuf>,
    pub spill_limit: Size,
    pub metadata_cache: Size,
    pub filter_pushdown: Switch,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub statement_timeout: Limit,
    #[serde(with = "humantime_serde")]
    pub register_interval: Duration,
    pub register_text_limit: Size,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    pub max: usize,
    pub superuser_reserved: usize,
    pub rules: Rules,
    #[serde(with = "empty_is_none")]
    pub superuser_password_file: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub login_timeout: Duration,
    pub login_max: usize,
    pub login_failures: u32,
    pub message_limit: Size,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    #[serde(with = "empty_is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub key: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub client_ca: Option<PathBuf>,
    pub mode: TlsMode,
    pub min_version: TlsVersion,
}

/// Whether clients use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    Off,
    Allow,
    Require,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum TlsVersion {
    #[serde(rename = "TLSv1.2")]
    V1_2,
    #[serde(rename = "TLSv1.3")]
    V1_3,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    #[serde(with = "empty_is_none")]
    pub file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    On,
    Off,
}

impl Config {
    /// The defaults, with a file, the environment and flags on top. Flags are pairs of a key such
    /// as `data_dir` and its value as text.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self> {
        let mut layers = Layers::new()?;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::Read { path: path.to_owned(), source })?;
            layers.add_file(&path.display().to_string(), &text)?;
        }
        for (name, value) in environment {
            layers.add_variable(&name, &value);
        }
        for (key, value) in flags {
            layers.set(key, &value, format!("--{}", key.replace('_', "-")));
        }
        layers.finish()
    }
}

/// Settings while they are gathered: each value with the place it came from, for messages.
struct Layers {
    values: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    fn new() -> Result<Self> {
        Ok(Self { values: parse("config/oribi.toml", DEFAULTS)?, origins: BTreeMap::new() })
    }

    fn add_file(&mut self, origin: &str, text: &str) -> Result<()> {
        for (key, value) in flatten(parse(origin, text)?) {
            let Some(slot) = find(&mut self.values, &key) else {
                return Err(Error::UnknownKey { origin: origin.to_owned(), key });
            };
            *slot = value;
            self.origins.insert(key, origin.to_owned());
        }
        Ok(())
    }

    /// Takes a variable that names a setting. Others with the prefix are somebody else's:
    /// Kubernetes, for one, sets `ORIBI_SERVICE_HOST` for a service called `oribi`.
    fn add_variable(&mut self, name: &str, value: &str) {
        let Some(wanted) = name.strip_prefix(ENV_PREFIX) else { return };
        let key = flatten(self.values.clone())
            .into_keys()
            .find(|key| key.replace('.', "_").to_uppercase() == wanted);
        if let Some(key) = key {
            self.set(&key, value, name.to_owned());
        }
    }

    fn set(&mut self, key: &str, text: &str, origin: String) {
        if let Some(slot) = find(&mut self.values, key) {
            *slot = match slot {
                // Text that is no number stays text, and is refused with its key in `finish`.
                Value::Integer(_) => text.parse().map_or_else(|_| text.into(), Value::Integer),
                _ => text.into(),
            };
            self.origins.insert(key.to_owned(), origin);
        }
    }

    /// Checks each value on its own, so that a message can name its key and where it was set.
    fn finish(self) -> Result<Config> {
        let defaults = parse("config/oribi.toml", DEFAULTS)?;
        for (key, value) in flatten(self.values.clone()) {
            let mut one = defaults.clone();
            if let Some(slot) = find(&mut one, &key) {
                *slot = value;
            }
            let origin = self.origins.get(&key).cloned().unwrap_or_default();
            let error = |reason| Error::BadValue { origin, key, reason };
            let config: Config = typed(one).map_err(error.clone())?;
            config.check().map_err(error)?;
        }
        let config: Config = typed(self.values).map_err(|reason| Error::BadValue {
            origin: String::new(),
            key: String::new(),
            reason,
        })?;
        let tls = config.tls.certificate.is_some() && config.tls.mode != TlsMode::Off;
        let around = Surroundings {
            listens_on: config.postgres.ip(),
            tls,
            client_certificates: tls && config.tls.client_ca.is_some(),
        };
        config.connections.rules.check(around).map_err(|reason| {
            let key = "connections.rules".to_owned();
            let default = || "default".to_owned();
            let origin = self.origins.get(&key).cloned().unwrap_or_else(default);
            Error::BadValue { origin, key, reason }
        })?;
        Ok(Config { origins: self.origins, ..config })
    }
}

impl Config {
    /// All settings by key.
    pub fn rows(&self) -> Vec<Row> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let table = |config: &Self| flatten(Table::try_from(config).unwrap_or_default());
        // Through the same types, so that both are written in the same way.
        let defaults = DEFAULTS.parse::<Table>().ok().and_then(|table| table.try_into().ok());
        let mut defaults = defaults.as_ref().map(table).unwrap_or_default();
        (table(self).into_iter())
            .map(|(key, value)| Row {
                value: text(&value),
                default: defaults.remove(&key).as_ref().map(text).unwrap_or_default(),
                origin: self.origins.get(&key).cloned().unwrap_or_else(|| "default".to_owned()),
                key,
            })
            .collect()
    }

    /// What the types alone do not say.
    fn check(&self) -> Result<(), String> {
        if self.engine.batch_size == 0 || self.engine.batch_size > 1 << 20 {
            return Err("must be between 1 and 1048576 rows".to_owned());
        }
        if self.connections.max == 0 || self.connections.login_max == 0 {
            return Err("must be at least 1".to_owned());
        }
        let shortest = [
            self.coordination.session_timeout,
            self.coordination.request_timeout,
            self.query.register_interval,
            self.connections.login_timeout,
        ];
        if shortest.iter().any(|duration| *duration < Duration::from_millis(1)) {
            return Err("must be at least 1ms".to_owned());
        }
        if let Some(id) = &self.id
            && (id.contains('/') || id.chars().any(char::is_control))
        {
            return Err("must not contain \"/\" or control characters".to_owned());
        }
        Ok(())
    }
}

fn typed<T: DeserializeOwned>(values: Table) -> Result<T, String> {
    Value::Table(values).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn parse(origin: &str, text: &str) -> Result<Table> {
    text.parse()
        .map_err(|source| Error::Syntax { origin: origin.to_owned(), source: Box::new(source) })
}

/// All values with their keys as `section.key`.
fn flatten(table: Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                for (inner, value) in flatten(section) {
                    flat.insert(format!("{key}.{inner}"), value);
                }
            }
            value => drop(flat.insert(key, value)),
        }
    }
    flat
}

fn find<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key).filter(|value| !value.is_table()),
        Some((section, rest)) => find(table.get_mut(section)?.as_table_mut()?, rest),
    }
}

/// An empty string for "not set".
mod empty_is_none {
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

as_text!(Size);
as_text!(Share);
as_text!(Count);
as_text!(Limit);
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
                true => Ok(part.to_owned()),
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

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(duration) => humantime::format_duration(duration).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        file: Option<&str>,
        environment: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Result<Config> {
        let mut layers = Layers::new()?;
        if let Some(text) = file {
            layers.add_file("test.toml", text)?;
        }
        for (name, value) in environment {
            layers.add_variable(name, value);
        }
        for (key, value) in flags {
            layers.set(key, value, format!("--{key}"));
        }
        layers.finish()
    }

    #[test]
    fn later_layers_win() {
        let file = "data_dir = '/file'\n[query]\nstatement_timeout = '5s'\n";
        let environment = [("ORIBI_DATA_DIR", "/env"), ("ORIBI_CONNECTIONS_MAX", "7")];
        let config = load(Some(file), &environment, &[("data_dir", "/flag")]).expect("valid");
        assert_eq!(config.data_dir, Some("/flag".into()));
        assert_eq!(config.connections.max, 7);
        assert_eq!(config.query.statement_timeout, Limit(Some(Duration::from_secs(5))));
        assert_eq!(config.engine.memory_limit, Share::Percent(70));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, part) in [
            ("colour = 1", "\"colour\""),
            ("[query]\nlimit = 1", "\"query.limit\""),
            ("[query]\nstatement_timeout = 'soon'", "\"query.statement_timeout\""),
            ("[engine]\nmemory_limit = '200%'", "\"engine.memory_limit\""),
            ("[connections]\nmax = -1", "\"connections.max\""),
            ("postgres = 'here'", "\"postgres\""),
            ("id = 'a/b'", "\"id\""),
            ("[connections]\nrules = 'host all all all md5'", "\"connections.rules\""),
            ("postgres = '0.0.0.0:5439'", "\"connections.rules\""),
            ("= 3", "test.toml"),
        ] {
            let message = load(Some(file), &[], &[]).expect_err(file).to_string();
            assert!(message.contains(part), "{file}: {message}");
        }
        let message = load(None, &[("ORIBI_CONNECTIONS_MAX", "many")], &[]).expect_err("bad");
        assert!(message.to_string().contains("ORIBI_CONNECTIONS_MAX"), "{message}");
    }

    #[test]
    fn foreign_variables_are_left_alone() {
        let environment = [("ORIBI_SERVICE_HOST", "10.0.0.1"), ("HOME", "/")];
        assert_eq!(load(None, &environment, &[]).expect("valid"), load(None, &[], &[]).unwrap());
    }

    #[test]
    fn the_default_file_names_every_setting() {
        let config = load(None, &[], &[]).expect("valid");
        let written = Table::try_from(&config).expect("serialises");
        let defaults = parse("defaults", DEFAULTS).expect("valid");
        let keys = |table| flatten(table).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(written), keys(defaults));
        let rows = config.rows();
        let changed: Vec<_> = rows.iter().filter(|row| row.origin != "default").collect();
        assert!(changed.is_empty(), "{changed:?}");
    }
}
