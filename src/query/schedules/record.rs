//! A schedule as the coordination store has it, and which of its times are due.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

use super::{Error, Result, Wish};
use crate::catalog::Role;
use crate::query::options;

/// A time is missed when nobody has come to it for so long: more than it takes to notice that the
/// leader has died, and to elect another.
const GRACE: TimeDelta = TimeDelta::minutes(1);

/// Missed times that are made up for at most: the newest.
const MAX_MISSED: usize = 100;

/// The value of `/schedules/<name>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whose rights its queries have.
    pub user: String,
    /// The role's OID, which counts: it may have another name by now, and another role this one. One
    /// that was written by hand goes by the name until it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    pub database: String,
    pub cron: String,
    pub time_zone: String,
    pub sql: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    pub enabled: bool,
    pub missed: Missed,
    pub overlap: Overlap,
    /// Its times up to here have been seen to.
    pub since: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// The newest run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// For when it was scheduled.
    pub time: DateTime<Utc>,
    /// The submitted query's id.
    pub query: String,
}

/// What becomes of times that nobody has come to in time, since no daemon ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    #[default]
    Skip,
    /// One run for all of them.
    RunOnce,
    /// One for each of the newest [`MAX_MISSED`].
    RunAll,
}

impl Missed {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::RunOnce => "run_once",
            Self::RunAll => "run_all",
        }
    }
}

/// What becomes of a time that comes while the query before is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out; if all that is missed is made up for, it waits.
    #[default]
    Skip,
    Allow,
}

impl Overlap {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Allow => "allow",
        }
    }
}

/// What may be said of a schedule beyond its name, times and query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    #[serde(default)]
    pub time_zone: Option<String>,
    #[serde(default)]
    pub missed: Missed,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    pub database: Option<String>,
    #[serde(default, deserialize_with = "options::settings")]
    pub settings: BTreeMap<String, String>,
}

impl Record {
    /// Times from `now` on count.
    pub(super) fn new(wish: Wish<'_>, options: Options, now: DateTime<Utc>) -> Self {
        Self {
            user: wish.user.to_owned(),
            owner: wish.owner,
            database: options.database.unwrap_or_else(|| wish.database.to_owned()),
            cron: wish.cron.trim().to_owned(),
            time_zone: options.time_zone.unwrap_or_else(|| "UTC".to_owned()),
            sql: wish.sql.to_owned(),
            settings: options.settings,
            enabled: options.enabled.unwrap_or(true),
            missed: options.missed,
            overlap: options.overlap,
            since: now,
            last: None,
        }
    }

    /// This instead of an earlier one of its name. Where the times stay, none of them is lost.
    pub(super) fn in_place_of(self, before: Self) -> Self {
        let same =
            before.enabled && (&before.cron, &before.time_zone) == (&self.cron, &self.time_zone);
        let since = if same { before.since } else { self.since };
        Self { user: before.user, owner: before.owner, last: before.last, since, ..self }
    }

    /// Whether it is a role's own.
    pub fn is_of(&self, role: &Role) -> bool {
        match self.owner {
            Some(owner) => owner == role.record.oid,
            None => self.user == role.name,
        }
    }

    /// When it comes next.
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let pattern = Pattern::of(self).ok().filter(|_| self.enabled)?;
        pattern.next(now.max(self.since))
    }
}

/// A schedule's times.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    cron: Cron,
    zone: Tz,
}

impl Pattern {
    pub fn of(record: &Record) -> Result<Self> {
        let zone = record.time_zone.parse();
        let zone = zone.map_err(|_| Error::TimeZone(record.time_zone.clone()))?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
        let cron = parser.build().parse(&record.cron).map_err(|error| Error::Cron {
            cron: record.cron.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self { cron, zone })
    }

    /// The first time after a moment.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&after.with_timezone(&self.zone), false);
        next.ok().map(|next| next.to_utc()).filter(|next| *next > after)
    }

    /// The newest times after one moment and up to another, in their order: all that have come in the
    /// last minute, and of older ones [`MAX_MISSED`].
    fn between(&self, after: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut times = Vec::new();
        let (mut from, mut old) = (now.with_timezone(&self.zone), 0);
        let mut inclusive = true;
        while old < MAX_MISSED {
            let Ok(time) = self.cron.find_previous_occurrence(&from, inclusive) else { break };
            let at = time.to_utc();
            // Strictly back, whatever the clocks do.
            if at <= after || times.last().is_some_and(|last| at >= *last) {
                break;
            }
            old += usize::from(now - at > GRACE);
            times.push(at);
            (from, inclusive) = (time, false);
        }
        times.reverse();
        times
    }

    /// The times of a schedule that are to be submitted now, in their order.
    pub fn due(&self, record: &Record, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut times = self.between(record.since, now);
        let missed = times.partition_point(|time| now - *time > GRACE);
        match record.missed {
            Missed::Skip => drop(times.drain(..missed)),
            Missed::RunOnce => drop(times.drain(..missed.saturating_sub(1))),
            Missed::RunAll => {}
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect(text)
    }

    fn record(cron: &str, zone: &str, since: &str, missed: Missed) -> Record {
        let (sql, user, owner, database) = ("SELECT 1", "u", Some(7), "d");
        let wish = Wish { name: "n", cron, sql, user, owner, database };
        let time_zone = Some(zone.to_owned());
        Record::new(wish, Options { time_zone, missed, ..Options::default() }, at(since))
    }

    fn due(record: &Record, now: &str) -> Vec<String> {
        let due = Pattern::of(record).expect("a pattern").due(record, at(now));
        due.iter().map(|time| time.format("%d %H:%M:%S").to_string()).collect()
    }

    #[test]
    fn what_is_missed_is_made_up_for_as_declared() {
        let due = |missed| {
            let record = record("@hourly", "UTC", "2026-03-01T00:00:00Z", missed);
            due(&record, "2026-03-01T03:00:20Z")
        };
        assert_eq!(due(Missed::Skip), ["01 03:00:00"]);
        assert_eq!(due(Missed::RunOnce), ["01 02:00:00", "01 03:00:00"]);
        assert_eq!(due(Missed::RunAll), ["01 01:00:00", "01 02:00:00", "01 03:00:00"]);
        let years = record("* * * * *", "UTC", "2020-01-01T00:00:00Z", Missed::RunAll);
        let newest = super::tests::due(&years, "2026-03-01T03:00:20Z");
        assert_eq!(newest.len(), MAX_MISSED + 1);
        let now = record("@hourly", "UTC", "2026-03-01T03:00:00Z", Missed::RunAll);
        assert!(super::tests::due(&now, "2026-03-01T03:59:59Z").is_empty());
    }

    /// Paris goes from 02:00 to 03:00 on the 29th of March 2026, and from 03:00 to 02:00 on the 25th of
    /// October.
    #[test]
    fn clocks_that_go_forward_or_back_change_no_number_of_days() {
        for (since, now, expected) in [
            ("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z", 2),
            ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z", 2),
        ] {
            let record = record("30 2 * * *", "Europe/Paris", since, Missed::RunAll);
            let due = due(&record, now);
            assert_eq!(due.len(), expected, "{due:?}");
            // One after the other they are the same.
            let pattern = Pattern::of(&record).expect("a pattern");
            let (mut time, mut times) = (at(since), Vec::new());
            while let Some(next) = pattern.next(time).filter(|next| *next <= at(now)) {
                times.push(next.format("%d %H:%M:%S").to_string());
                time = next;
            }
            assert_eq!(times, due);
        }
    }

    #[test]
    fn patterns_that_make_no_sense_are_refused() {
        for cron in ["", "* * * *", "61 * * * *", "@reboot", "* * * * * * 2030", "soon"] {
            let record = record(cron, "UTC", "2026-03-01T00:00:00Z", Missed::Skip);
            let error = Pattern::of(&record).expect_err(cron).to_string();
            assert!(error.contains("cron pattern"), "{error}");
        }
        let never = record("0 0 30 2 *", "UTC", "2026-03-01T00:00:00Z", Missed::Skip);
        assert_eq!(never.next(never.since), None);
        for cron in ["*/5 0-6 1,15 jan-jun mon", "30 9 * * MON-FRI", "@daily", "*/2 * * * * *"] {
            let record = record(cron, "Asia/Kolkata", "2026-03-01T00:00:00Z", Missed::Skip);
            assert!(record.next(record.since).is_some(), "{cron}");
        }
        let lost = record("@daily", "Mars/Base", "2026-03-01T00:00:00Z", Missed::Skip);
        assert!(matches!(Pattern::of(&lost), Err(Error::TimeZone(_))));
    }

    #[test]
    fn a_change_keeps_owner_and_last_run() {
        let mut before = record("@hourly", "UTC", "2026-03-01T00:00:00Z", Missed::Skip);
        (before.user, before.owner) = ("owner".to_owned(), Some(8));
        before.last = Some(Last { time: before.since, query: "q".to_owned() });
        let same = record("@hourly", "UTC", "2026-03-02T00:00:00Z", Missed::Skip);
        let changed = same.in_place_of(before.clone());
        assert_eq!((&changed.user, changed.owner), (&before.user, Some(8)));
        assert_eq!(changed.last, before.last);
        assert_eq!(changed.since, before.since);
        let other = record("@daily", "UTC", "2026-03-02T00:00:00Z", Missed::Skip);
        assert_eq!(other.in_place_of(before).since, at("2026-03-02T00:00:00Z"));
    }
}
