//! A submitted query as the coordination store has it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalog::Column;
use crate::query::options;

/// Where a submitted query stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No daemon works on it.
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The value of `/queries/<id>` of a submitted query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`KIND`].
    pub kind: String,
    pub state: State,
    /// Who works on it, or has done so last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<String>,
    /// How often it was begun.
    pub attempt: u32,
    /// How many of the attempts ended because their daemon was shut down in good order.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub given_back: u32,
    /// How far it is, from 0 to 1: as it runs, where that can be told, and 1 once it has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    pub user: String,
    /// The role's OID: it may have another name by now, and another role this one. Unknown if there was
    /// no role of the name that a letter in the inbox has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    pub database: String,
    pub sql: String,
    pub submitted: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<DateTime<Utc>>,
    /// Settings of its session, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What [`Record::kind`] says.
pub const KIND: &str = "submitted";

/// What a query that succeeded has come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// PostgreSQL's command tag, such as `SELECT 5`.
    pub tag: String,
    /// Where its rows are, if it has some to give: a URL of a Parquet file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Of that file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// The rows themselves, if they are few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<serde_json::Value>,
}

/// Why a query failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The value of a claim: who works on an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub daemon: String,
    pub incarnation: Uuid,
}

/// What somebody asks to be submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Submitting again with the same key gives the same query.
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub database: Option<String>,
    #[serde(default, deserialize_with = "options::settings")]
    pub settings: BTreeMap<String, String>,
}

impl Failure {
    /// Whether the next attempt may fare better: the store or a worker was out of reach, or another's
    /// commit came first.
    pub fn may_pass(&self) -> bool {
        let code = self.sqlstate.as_str();
        matches!(code, "25006" | "40001" | "58000") || code.starts_with("08")
    }
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Record {
    pub fn new(
        (user, owner): (&str, Option<u32>),
        database: &str,
        sql: &str,
        settings: BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind: KIND.to_owned(),
            state: State::Queued,
            daemon: None,
            attempt: 0,
            given_back: 0,
            progress: None,
            user: user.to_owned(),
            owner,
            database: database.to_owned(),
            sql: sql.to_owned(),
            submitted: Utc::now(),
            started: None,
            finished: None,
            settings,
            outcome: None,
            error: None,
        }
    }

    /// Unix milliseconds; a part of the name of its place in the queue.
    pub fn since(&self) -> i64 {
        self.submitted.timestamp_millis()
    }

    /// Attempts that nobody gave back.
    pub fn used_attempts(&self) -> u32 {
        self.attempt.saturating_sub(self.given_back)
    }

    /// The same at its end.
    pub fn ended(&self, state: State) -> Self {
        let progress = (state == State::Succeeded).then_some(1.0);
        Self { state, progress, finished: Some(Utc::now()), ..self.clone() }
    }

    /// The same once it has failed.
    pub fn failed(&self, error: Failure) -> Self {
        Self { error: Some(error), ..self.ended(State::Failed) }
    }
}
