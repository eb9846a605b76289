//! `oribi doctor`: what keeps a daemon with these settings from running well on this machine, and how
//! to mend it. It changes nothing that stays.
//!
//! - [`machine`]: data directory, storage, ports, limits, memory, certificates.
//! - [`store`]: the ensemble, rights, clocks, the daemons that are there.

mod machine;
mod store;

use std::fmt::Display;

use clap::Args;
use serde::Serialize;

use super::error::{Error, Result};
use super::{runtime, serve, tour};
use crate::config::Error as ConfigError;
use crate::wording::counted;

#[derive(Debug, Args)]
pub struct Options {
    /// As `oribi serve` has them.
    #[command(flatten)]
    daemon: serve::Options,
    /// As JSON: an object with the worst of all results, and the checks.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// A daemon runs, but not as well as it could, or not for long.
    Warn,
    /// A daemon does not run, or loses something.
    Fail,
}

/// What was looked at, and what was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub status: Status,
    pub seen: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    pub fn ok(name: impl Display, seen: impl Display) -> Self {
        Self { name: name.to_string(), status: Status::Ok, seen: seen.to_string(), mend: None }
    }

    pub fn warn(name: impl Display, seen: impl Display, mend: impl Display) -> Self {
        let mend = Some(mend.to_string());
        Self { name: name.to_string(), status: Status::Warn, seen: seen.to_string(), mend }
    }

    pub fn fail(name: impl Display, seen: impl Display, mend: impl Display) -> Self {
        Self { status: Status::Fail, ..Self::warn(name, seen, mend) }
    }
}

/// All of it.
#[derive(Debug, Serialize)]
struct Findings {
    worst: Status,
    checks: Vec<Check>,
}

/// Exit code if something fails.
const FAILED: u8 = 1;

pub fn run(options: Options) -> Result<()> {
    let checks = runtime()?.block_on(look(options.daemon));
    let worst = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
    let findings = Findings { worst, checks };
    let text = match options.json {
        true => serde_json::to_string(&findings).map_err(|error| Error::Rows(error.to_string()))?,
        false => findings.show(),
    };
    tour::print(&text)?;
    if worst == Status::Fail { Err(Error::Told(FAILED)) } else { Ok(()) }
}

async fn look(daemon: serve::Options) -> Vec<Check> {
    let config = match daemon.settings() {
        Ok(config) => config,
        Err(error) => {
            let mend = match &error {
                Error::Config(ConfigError::Read { .. }) => {
                    "name a file that is there and can be read: --config or ORIBI_CONFIG does; without \
                     either, the defaults count"
                }
                Error::Config(ConfigError::Syntax { .. }) => "mend the file where it says",
                _ => "mend the key that is named: oribi help settings lists all of them",
            };
            return vec![Check::fail("configuration", error, mend)];
        }
    };
    let set: Vec<String> = (config.rows().into_iter())
        .filter(|row| row.origin != "default")
        .map(|row| format!("{} ({})", row.key, row.origin))
        .collect();
    let seen = match set.is_empty() {
        true => "readable; every setting has its default".to_owned(),
        false => format!("readable; set are {}", set.join(", ")),
    };
    let mut checks = vec![Check::ok("configuration", seen)];
    checks.extend(machine::checks(&config).await);
    checks.extend(store::checks(&config).await);
    checks
}

impl Findings {
    fn show(&self) -> String {
        let widest = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Check { name, status, seen, mend } in &self.checks {
            let status = match status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            text += &format!("{status}  {name:widest$}  {seen}\n");
            if let Some(mend) = mend {
                text += &format!("      {:widest$}  → {mend}\n", "");
            }
        }
        let count = |wanted| self.checks.iter().filter(|check| check.status == wanted).count();
        let (fail, warn) = (count(Status::Fail), count(Status::Warn));
        let checks = counted(self.checks.len() as u64, "check");
        text + &match self.worst {
            Status::Ok => format!("{checks}, and all is well"),
            _ => format!("{checks}: {fail} fail, {warn} warn"),
        }
    }
}
