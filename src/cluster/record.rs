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
    /// Serves reads from what it knows; changes nothing that is shared. Or has no room on a disk to write to.
    Degraded,
    /// Finishes what runs, takes nothing new.
    Draining,
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
    pub state: State,
    /// When it came into this state, by its own clock; for people only.
    pub since: DateTime<Utc>,
}

/// What a daemon has no room for on a disk of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// In words, such as `warehouse`.
    pub what: &'static str,
    pub place: PathBuf,
}

impl Lack {
    /// In words for everybody: without the name of the directory.
    pub fn outline(&self) -> String {
        format!("the disk of the {} is full", self.what)
    }
}

impl Display for Lack {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: make room in {}", self.outline(), self.place.display())
    }
}

/// A live daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub record: Record,
}
