//! Settings: the commented default file, with a file of the user's, the environment and flags on
//! top. Whatever is wrong is refused by name before anything starts.

mod in_force;
mod layers;
mod least;
pub mod rules;
mod strange;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use layers::{Layers, flatten};
use rules::Rules;
use values::{address, duration, empty_is_none};

pub use in_force::{InForce, TakenUp};
pub use least::MEMORY as LEAST_MEMORY;
pub use values::{Count, Limit, Places, Rate, SCHEMES, Share, Size, ensemble};

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
    #[error("{origin}: there is no setting \"{key}\"; {}", instead(nearest.as_deref()))]
    UnknownKey { origin: String, key: String, nearest: Option<String> },
    #[error(
        "the environment variable {name} is no setting: mend its name, or unset it; {}", instead(nearest.as_deref())
    )]
    UnknownVariable { name: String, nearest: Option<String> },
    #[error("{}setting \"{key}\": {reason}", place(origin))]
    BadValue { origin: String, key: String, reason: String },
    #[error("{} things are wrong:{}", .0.len(), .0.iter().map(|error| format!("\n- {error}")).collect::<String>())]
    Several(Vec<Error>),
}

/// What to do about a name that is none.
fn instead(nearest: Option<&str>) -> String {
    let all = "\"oribi help settings\" lists all of them";
    match nearest {
        Some(nearest) => format!("did you mean {nearest}? {all}"),
        None => all.to_owned(),
    }
}

/// Where a value was set. Defaults are wrong only beside others.
fn place(origin: &str) -> String {
    match origin {
        "" | DEFAULT => String::new(),
        origin => format!("{origin}: "),
    }
}

/// Where values come from that nobody has set.
const DEFAULT: &str = "default";

/// What can be changed while a daemon runs, by key.
pub const LIVE: &[&str] = &[
    "distribution.compression",
    "distribution.max_parts",
    "distribution.min_bytes",
    "distribution.retries",
    "distribution.spool",
    "distribution.statement_memory",
    "engine.metadata_cache",
    "history.keep",
    "history.profile",
    "history.size",
    "history.slow",
    "log.filter",
    "log.literals",
    "maintenance.interval",
    "maintenance.orphan_grace",
    "maintenance.rate",
    "shutdown.drain_timeout",
    "submitted.attempts",
    "submitted.history",
    "submitted.keep",
    "submitted.queue",
    "submitted.results",
    "submitted.running",
];

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
    #[serde(with = "address")]
    pub postgres: SocketAddr,
    #[serde(with = "address")]
    pub peer: SocketAddr,
    #[serde(with = "address")]
    pub web: SocketAddr,
    #[serde(with = "empty_is_none")]
    pub advertise: Option<String>,
    #[serde(with = "empty_is_none")]
    pub warehouse: Option<String>,
    pub coordination: Coordination,
    pub storage: Storage,
    pub engine: Engine,
    pub query: Query,
    pub history: History,
    pub connections: Connections,
    pub distribution: Distribution,
    pub peers: Peers,
    pub maintenance: Maintenance,
    pub submitted: Submitted,
    pub tls: Tls,
    pub audit: Audit,
    pub console: Console,
    pub shutdown: Shutdown,
    pub health: Health,
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
    #[serde(with = "duration")]
    pub session_timeout: Duration,
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    #[serde(with = "duration")]
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
    pub metadata_cache: Share,
    pub page_cache: Share,
    pub result_cache: Size,
    pub filter_pushdown: Switch,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub statement_timeout: Limit,
    #[serde(with = "duration")]
    pub register_interval: Duration,
    pub register_text_limit: Size,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub size: Size,
    #[serde(with = "duration")]
    pub keep: Duration,
    pub profile: Limit,
    pub slow: Limit,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    pub min_bytes: Size,
    pub retries: u32,
    pub spool: Size,
    pub compression: Compression,
    pub max_parts: usize,
    pub statement_memory: Share,
}

/// How rows are compressed on their way between daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    #[serde(with = "empty_is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub key: Option<PathBuf>,
    #[serde(with = "empty_is_none")]
    pub ca: Option<PathBuf>,
    /// What their certificates must name.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    pub interval: Limit,
    #[serde(with = "duration")]
    pub orphan_grace: Duration,
    pub rate: Rate,
}

/// Names of nodes that a listing of the queue has at most: ZooKeeper answers with up to 1 MiB.
const MAX_QUEUE: usize = 5000;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    pub queue: usize,
    pub running: usize,
    pub attempts: u32,
    #[serde(with = "duration")]
    pub keep: Duration,
    pub history: usize,
    pub results: Size,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    pub max: usize,
    pub superuser_reserved: usize,
    pub rules: Rules,
    #[serde(with = "empty_is_none")]
    pub superuser_password_file: Option<PathBuf>,
    #[serde(with = "duration")]
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
pub struct Console {
    pub mode: ConsoleMode,
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Names by which browsers may know it, beside those that need no word; separated by commas.
    pub hosts: String,
}

/// What the web console is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleMode {
    On,
    ReadOnly,
    Off,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
    pub literals: Switch,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    pub ready_when_degraded: Switch,
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

impl Config {
    /// Whether there is a setting with this key.
    pub fn has_key(key: &str) -> bool {
        Layers::new().is_ok_and(|layers| layers.has(key))
    }

    /// Checks a value, and brings it into its normal form; an error says what is wrong.
    pub fn check_value(key: &str, value: &str) -> Result<String, String> {
        let mut layers = Layers::new().map_err(|error| error.to_string())?;
        layers.set(key, value, String::new());
        match layers.finish() {
            Ok(config) => {
                let row = config.rows().into_iter().find(|row| row.key == key);
                row.map(|row| row.value).ok_or_else(|| "there is no such setting".to_owned())
            }
            Err(Error::BadValue { reason, .. }) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The same with other values for some keys, which have been checked.
    pub fn with<'a>(&self, values: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let Ok(table) = Table::try_from(self) else { return self.clone() };
        let mut layers = Layers::on(table);
        for (key, value) in values.into_iter().filter(|(key, _)| LIVE.contains(&key.as_str())) {
            layers.set(key, value, String::new());
        }
        match layers.values() {
            Some(config) => Self { origins: self.origins.clone(), ..config },
            None => self.clone(),
        }
    }

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
                origin: self.origins.get(&key).cloned().unwrap_or_else(|| DEFAULT.to_owned()),
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
        if !(1..=MAX_QUEUE).contains(&self.submitted.queue) {
            return Err(format!("must be between 1 and {MAX_QUEUE}"));
        }
        if self.submitted.running == 0 || self.submitted.attempts == 0 {
            return Err("must be at least 1".to_owned());
        }
        least::check(self)?;
        if let Some(id) = &self.id
            && (id.contains('/') || id.chars().any(char::is_control))
        {
            return Err("must not contain \"/\" or control characters".to_owned());
        }
        if let Some(hosts) = &self.zookeeper {
            ensemble(hosts)?;
        }
        self.warehouse.as_deref().map_or(Ok(()), values::supported)
    }

    /// Has places be the same from wherever they are looked at: a relative one is below the directory in which
    /// the program was started.
    fn settle(&mut self) {
        let relative = self.warehouse.as_deref().filter(|place| !place.contains("://"));
        if let Some(Ok(place)) = relative.map(std::path::absolute) {
            self.warehouse = Some(place.display().to_string());
        }
    }

    /// Refuses two ports at one address, before the second of them finds it taken. All addresses of IPv6 are
    /// those of IPv4 as well, and not the other way round.
    fn check_ports(&self) -> Result<()> {
        let ports = [("postgres", self.postgres), ("peer", self.peer), ("web", self.web)];
        let meet = |a: SocketAddr, b: SocketAddr| {
            let covers = |a: SocketAddr, b: SocketAddr| {
                a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4())
            };
            let same = a.ip() == b.ip() || covers(a, b) || covers(b, a);
            a.port() != 0 && a.port() == b.port() && same
        };
        for (at, (first, address)) in ports.iter().enumerate() {
            let others = &ports[at + 1..];
            let Some((second, other)) = others.iter().find(|(_, other)| meet(*address, *other))
            else {
                continue;
            };
            // The one that somebody has set.
            let key = if self.origins.contains_key(*second) { second } else { first };
            let reason = format!(
                "\"{first}\" ({address}) and \"{second}\" ({other}) are one and the same address, and each listener \
                 needs a port of its own: give one of them another (by default they are 5439 for postgres, 7439 for \
                 peer, 8439 for web)"
            );
            let origin = self.origins.get(*key).cloned().unwrap_or_default();
            return Err(Error::BadValue { origin, key: (*key).to_owned(), reason });
        }
        Ok(())
    }

    /// Refuses places for superusers that leave none for others.
    fn check_places(&self) -> Result<()> {
        const RESERVED: &str = "connections.superuser_reserved";
        let Connections { max, superuser_reserved: reserved, .. } = self.connections;
        if reserved < max {
            return Ok(());
        }
        // The one that somebody has set.
        let key = if self.origins.contains_key(RESERVED) { RESERVED } else { "connections.max" };
        let reason = format!(
            "of the {max} places for clients (connections.max) {reserved} are kept for superusers \
             ({RESERVED}), which leaves none for others: raise the one, or lower the other"
        );
        let origin = self.origins.get(key).cloned().unwrap_or_default();
        Err(Error::BadValue { origin, key: key.to_owned(), reason })
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
    fn a_warehouse_stays_where_the_program_was_started() {
        let here = std::env::current_dir().expect("a directory").display().to_string();
        for (given, expected) in [
            ("w/x", format!("{here}/w/x")),
            ("./w", format!("{here}/w")),
            ("/w", "/w".to_owned()),
            ("s3://bucket/w", "s3://bucket/w".to_owned()),
        ] {
            let config = load(None, &[("ORIBI_WAREHOUSE", given)], &[]).expect("valid");
            assert_eq!(config.warehouse, Some(expected.clone()));
            let row = config.rows().into_iter().find(|row| row.key == "warehouse");
            assert_eq!(row.map(|row| row.value), Some(expected));
        }
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
            ("postgres = 'here'", "\"here\" is no address and port"),
            ("[console]\nidle = '10'", "\"10\" is no duration"),
            ("[connections]\nmax = 'many'", "\"many\" is no whole number"),
            ("[connections]\nmax = -1", "-1 is negative"),
            ("[log]\nformat = 'xml'", "\"xml\" is none of \"text\", \"json\""),
            ("[tls]\nmode = 'on'", "\"on\" is none of \"off\", \"allow\", \"require\""),
            ("datadir = '/d'", "did you mean data_dir?"),
            ("warehouse = 'ftp://x'", "\"ftp://\" is not one of file, s3, s3a"),
            ("warehouse = 's3:/bucket/path'", "s3://"),
            ("warehouse = 's3://'", "bucket"),
            ("warehouse = 'file://path'", "absolute"),
            ("[storage]\nroots = '/a, ftp://x'", "\"ftp://\""),
            ("zookeeper = 'foo:bar'", "\"bar\" is no port"),
            ("zookeeper = 'foo:0'", "\"0\" is no port"),
            ("zookeeper = 'a:1,,b:2'", "host:port,host:port/chroot"),
            ("zookeeper = 'a:1/x/'", "chroot"),
            ("zookeeper = 'a:1/../x'", "chroot"),
            ("zookeeper = 'foo bar'", "\"foo bar\" is no host: it takes the form host:port"),
            ("zookeeper = 'a:1 b:2'", "no host"),
            ("zookeeper = ' '", "\"\" is no host"),
            ("zookeeper = '::1:2181'", "in brackets"),
            ("zookeeper = '[::1:2181'", "no host"),
            ("zookeeper = 'a:65536'", "\"65536\" is no port"),
            ("web = '[::]:7439'", "\"peer\" (127.0.0.1:7439) and \"web\" ([::]:7439)"),
            ("peer = '127.0.0.1:5439'", "\"postgres\" (127.0.0.1:5439) and \"peer\""),
            ("web = '0.0.0.0:7439'", "\"peer\" (127.0.0.1:7439) and \"web\" (0.0.0.0:7439)"),
            // Of another kind.
            (
                "\n[engine]\nthreads = 0",
                "test.toml, line 3: setting \"engine.threads\": \"0\" is neither \"auto\" nor",
            ),
            ("engine.threads = -1", "\"-1\" is neither \"auto\" nor a number from 1 to 1024"),
            ("engine.threads = [1]", "line 1: setting \"engine.threads\": [1] is a list"),
            ("[engine.threads]\nx = 1", "\"engine.threads\": it is a setting and no section"),
            ("[engine.threads]", "\"engine.threads\": it is a setting and no section"),
            ("engine = 3", "\"engine\": 3 is the value of no setting"),
            ("id = 5", "5 is no text: write it in quotes, \"5\""),
            ("[health]\nready_when_degraded = true", "\"true\" is none of \"on\", \"off\""),
            ("web = 8439", "\"8439\" is no address and port"),
            ("[console]\nidle = 10", "\"10\" is no duration"),
            ("[storage]\nroots = ['/a', '/b']", "commas"),
            ("[connections]\nmax = 1.5", "1.5 is no whole number such as"),
            ("[connections]\nmax = [1]", "[1] is no whole number such as"),
            ("[distribution]\nretries = 5000000000", "5000000000 is too large"),
            ("[distribution]\nretries = -5", "-5 is negative: it takes a whole number"),
            (
                "[engine]\nbatch_size = 0",
                "line 2: setting \"engine.batch_size\": 0 must be between",
            ),
            ("[engine]\n\ncolour = 1", "test.toml, line 3: there is no setting \"engine.colour\""),
            (
                "[engine]\nmemory_limit = '1KiB'",
                "\"engine.memory_limit\": \"1KiB\" must be at least 64.0 MiB",
            ),
            (
                "[connections]\nmessage_limit = '1KiB'",
                "\"connections.message_limit\": \"1KiB\" must be at least",
            ),
            (
                "[coordination]\nsession_timeout = '1ms'",
                "session_timeout\": \"1ms\" must be at least 1s",
            ),
            (
                "[coordination]\nrequest_timeout = '1ms'",
                "request_timeout\": \"1ms\" must be at least 100ms",
            ),
            ("[submitted]\nkeep = '0s'", "\"submitted.keep\": \"0s\" must be at least 1s"),
            ("[connections]\nmax = 2", "\"connections.max\""),
            ("[connections]\nsuperuser_reserved = 100000", "\"connections.superuser_reserved\""),
        ] {
            let message = load(Some(file), &[], &[]).expect_err(file).to_string();
            assert!(message.contains(part), "{file}: {message}");
        }
        let message = load(None, &[("ORIBI_CONNECTIONS_MAX", "many")], &[]).expect_err("bad");
        assert!(message.to_string().contains("ORIBI_CONNECTIONS_MAX"), "{message}");
        let message = load(None, &[("ORIBI_DATADIR", "/d")], &[]).expect_err("bad").to_string();
        assert!(
            message.contains("ORIBI_DATADIR") && message.contains("ORIBI_DATA_DIR?"),
            "{message}"
        );
    }

    #[test]
    fn foreign_variables_are_left_alone() {
        let environment =
            [("ORIBI_SERVICE_HOST", "10.0.0.1"), ("ORIBI_TEST_PYTHON", "x"), ("HOME", "/")];
        assert_eq!(load(None, &environment, &[]).expect("valid"), load(None, &[], &[]).unwrap());
    }

    #[test]
    fn the_default_file_names_every_setting() {
        let config = load(None, &[], &[]).expect("valid");
        let written = Table::try_from(&config).expect("serialises");
        let defaults = DEFAULTS.parse::<Table>().expect("valid");
        let keys = |table| flatten(table).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(written), keys(defaults));
        let rows = config.rows();
        let changed: Vec<_> = rows.iter().filter(|row| row.origin != "default").collect();
        assert!(changed.is_empty(), "{changed:?}");
    }
}
