//! Who asks, and how that is proved: by the variables and files that psql reads.

use std::io::{Write, stderr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio_postgres::config::SslMode;

use super::places::Place;
use crate::catalog;
use crate::cli::error::{Error, Result};
use crate::tls::{Connector, Proof};

/// The mode bits that let others than the owner in, with which psql leaves a password file aside.
const OTHERS: u32 = 0o077;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Role to log in as.
    #[arg(short = 'U', long, global = true, env = "PGUSER", default_value = catalog::FIRST_ROLE, value_name = "ROLE")]
    pub user: String,
    /// Database to be in.
    #[arg(short, long, global = true, env = "PGDATABASE", default_value = catalog::DEFAULT_DATABASE, value_name = "NAME")]
    pub database: String,
    /// Whether connections are encrypted, and what a daemon has to prove.
    #[arg(long, global = true, env = "PGSSLMODE", default_value = "prefer", value_name = "MODE")]
    sslmode: Mode,
    /// Certificates (PEM) that vouch for daemons; without it, ~/.postgresql/root.crt.
    #[arg(long, global = true, env = "PGSSLROOTCERT", value_name = "FILE")]
    sslrootcert: Option<PathBuf>,
}

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Disable,
    #[value(alias = "allow")]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// How a daemon is logged in to.
#[derive(Clone, Debug)]
pub struct Login {
    options: Options,
    /// What is asked for, as daemons list it.
    application: &'static str,
    connector: Connector,
    passwords: Passwords,
}

#[derive(Clone, Debug)]
enum Passwords {
    /// The same everywhere.
    One(String),
    /// The lines of a password file.
    Lines(String),
}

impl Login {
    pub fn new(options: Options, application: &'static str) -> Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let roots = options.sslrootcert.clone();
        let proof = match options.sslmode {
            Mode::Disable | Mode::Prefer => Proof::None,
            // As libpq has it: whoever names certificates wants them looked at.
            Mode::Require => roots.map_or(Proof::None, Proof::Signed),
            verify => {
                let path = roots.unwrap_or_else(|| home.join(".postgresql/root.crt"));
                match verify {
                    Mode::VerifyCa => Proof::Signed(path),
                    _ => Proof::SignedForHost(path),
                }
            }
        };
        let passwords = match std::env::var("PGPASSWORD") {
            Ok(password) if !password.is_empty() => Passwords::One(password),
            _ => {
                let named = std::env::var_os("PGPASSFILE").map(PathBuf::from);
                Passwords::Lines(read_passwords(named.unwrap_or_else(|| home.join(".pgpass"))))
            }
        };
        Ok(Self { connector: Connector::new(&proof)?, options, application, passwords })
    }

    pub fn connector(&self) -> Connector {
        self.connector.clone()
    }

    pub fn user(&self) -> &str {
        &self.options.user
    }

    pub fn database(&self) -> &str {
        &self.options.database
    }

    pub fn application(&self) -> &'static str {
        self.application
    }

    /// The same for another database, or another role.
    pub fn become_other(&mut self, database: Option<String>, user: Option<String>) {
        self.options.database = database.unwrap_or_else(|| self.options.database.clone());
        self.options.user = user.unwrap_or_else(|| self.options.user.clone());
    }

    /// Under which name daemons list it.
    pub fn set_application(&mut self, application: &'static str) {
        self.application = application;
    }

    /// A password that somebody was asked for.
    pub fn set_password(&mut self, password: String) {
        self.passwords = Passwords::One(password);
    }

    /// What is known for a place.
    pub fn password(&self, place: &Place) -> Option<String> {
        let Options { user, database, .. } = &self.options;
        match &self.passwords {
            Passwords::One(password) => Some(password.clone()),
            Passwords::Lines(lines) => find(
                lines,
                [&place.host, &place.port.to_string(), database.as_str(), user.as_str()],
            ),
        }
    }

    /// Whether connections are encrypted.
    pub fn ssl_mode(&self) -> SslMode {
        match self.options.sslmode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        }
    }

    /// What to connect with.
    pub fn to(&self, place: &Place) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&place.host)
            .port(place.port)
            .user(self.user())
            .dbname(self.database())
            .application_name(self.application)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3)
            .ssl_mode(self.ssl_mode());
        if let Some(password) = self.password(place) {
            config.password(password);
        }
        config
    }
}

/// The password file; nothing if there is none, or if others may read it.
fn read_passwords(path: PathBuf) -> String {
    let Ok(metadata) = std::fs::metadata(&path) else { return String::new() };
    if metadata.permissions().mode() & OTHERS != 0 {
        // Nobody has to listen.
        let _ = writeln!(
            stderr(),
            "oribi: password file {0} is left aside, because others may read it (chmod 600 {0})",
            path.display()
        );
        return String::new();
    }
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The password of the first line that fits host, port, database and user.
fn find(lines: &str, wanted: [&str; 4]) -> Option<String> {
    lines.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = split(line);
        let password = fields.get(4)?.clone();
        fields.truncate(4);
        let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then_some(password)
    })
}

/// A line's five fields. A backslash takes the meaning of a colon or backslash away.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(field) = fields.last_mut() {
            field.push(character);
        }
    }
    fields
}

/// A setting `name=value` of the query's session.
pub fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("must be name=value".to_owned()),
    }
}

impl From<crate::tls::Error> for Error {
    fn from(error: crate::tls::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let lines = "# a comment\nh:1:d:u:one\n*:*:d:u:t\\:w\\\\o:x\n*:*:*:*:all\nshort:line\n";
        let find = |wanted| find(lines, wanted);
        assert_eq!(find(["h", "1", "d", "u"]).as_deref(), Some("one"));
        assert_eq!(find(["x", "2", "d", "u"]).as_deref(), Some("t:w\\o:x"));
        assert_eq!(find(["x", "2", "e", "u"]).as_deref(), Some("all"));
        assert_eq!(super::find("h:1:d:u:one", ["x", "1", "d", "u"]), None);
    }

    #[test]
    fn settings_have_a_name_and_a_value() {
        assert_eq!(setting("TimeZone=UTC"), Ok(("TimeZone".into(), "UTC".into())));
        assert_eq!(setting("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(setting("a").is_err() && setting("=b").is_err());
    }
}
