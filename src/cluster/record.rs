//! What a daemon tells of itself.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a daemon can be counted on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Starting: takes no statements yet.
    Joining,
    Ready,
    /// Serves reads from what it knows; changes nothing that is shared. Or cannot write to one of its disks.
    Degraded,
    /// Finishes what runs, takes nothing new.
    Draining,
}

impl State {
    /// Whether it takes statements, and parts of those of others.
    pub fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }
}

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
        })
    }
}

/// The value of `/daemons/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// New for each session with the store.
    pub incarnation: Uuid,
    /// The data directory's own identity. Its lock admits one process, so a record of the same
    /// instance is that of a dead predecessor.
    pub instance: Uuid,
    /// Where clients connect, as `host:port`.
    pub postgres: String,
    /// Where other daemons connect.
    pub peer: String,
    /// Health checks.
    pub web: String,
    pub version: String,
    /// The commit this binary was built from: only equal ones work together on a statement.
    pub build: String,
    pub cores: usize,
    /// Bytes the engine may use.
    pub memory: u64,
    /// What the process ids that it tells its clients begin with, in 15 bits, for as long as it
    /// runs: by it others know whose a process id is. None of a daemon of an earlier version.
    #[serde(default)]
    pub pid_prefix: Option<u16>,
    /// The URL of its warehouse, or [`super::NO_WAREHOUSE`]. None of a daemon of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warehouse: Option<String>,
    pub state: State,
    /// Why it is degraded, in words for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When it came into this state, by its own clock; for people only.
    pub since: DateTime<Utc>,
}

/// What a daemon cannot write to on its machine, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub of: Lacking,
    /// In words, such as `warehouse`.
    pub what: &'static str,
    pub place: PathBuf,
}

/// What it takes to write somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    Room,
    /// The file system takes no writes, as one that is mounted read-only.
    Writable,
    /// The daemon's user may not.
    Rights,
}

impl Lack {
    /// In words for everybody: without the name of the directory.
    pub fn outline(&self) -> String {
        let what = self.what;
        match self.of {
            Lacking::Room => format!("the disk of the {what} is full"),
            Lacking::Writable => format!("the file system of the {what} is read-only"),
            Lacking::Rights => format!("the daemon's user may not write to the {what}"),
        }
    }
}

impl Display for Lack {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (outline, place) = (self.outline(), self.place.display());
        match self.of {
            Lacking::Room => write!(f, "{outline}: make room in {place}"),
            Lacking::Writable => write!(
                f,
                "{outline}: mount {place} for writing (findmnt -T {place}; ReadWritePaths= of a service)"
            ),
            Lacking::Rights => write!(f, "{outline}: chown {place} to it"),
        }
    }
}

/// Why a daemon is degraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// With the names of directories.
    pub full: String,
    /// In words for everybody.
    pub outline: String,
}

impl Trouble {
    /// Of which more is not known.
    pub fn of_everybody(outline: String) -> Self {
        Self { full: outline.clone(), outline }
    }
}

/// A live daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub record: Record,
}
