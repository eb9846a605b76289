//! The session's time zone: what `SET TIME ZONE` accepts, and the offset from UTC at a moment.

use std::cell::Cell;
use std::sync::Arc;

use chrono::{Offset, TimeZone as _};
use chrono_tz::OffsetName;

use super::calendar::{DAY_SECONDS, Day, day, days, is_leap};

/// PostgreSQL's limit for an offset given in hours (`MAX_TZDISP_HOUR`), in seconds.
const MAX_OFFSET: u32 = 168 * 3600;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone {
    name: Arc<str>,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Seconds east of Greenwich.
    Fixed(i32),
    Named(chrono_tz::Tz),
}

impl Default for TimeZone {
    fn default() -> Self {
        Self::utc()
    }
}

impl TimeZone {
    pub fn utc() -> Self {
        Self { name: "UTC".into(), rule: Rule::Fixed(0) }
    }

    /// Reads a zone as PostgreSQL does: hours east of Greenwich (`5.5`), a name of the time zone
    /// database in any case, or a POSIX specification without summer time, where the sign counts
    /// hours **west** (`UTC+3`, `<+03>-03`, `-03:00`).
    pub fn parse(text: &str) -> Option<Self> {
        // The commonest, without a search.
        if text == "UTC" {
            return Some(Self::utc());
        }
        if let Some(hours) = text.parse::<f64>().ok().filter(|hours| hours.is_finite()) {
            let offset = (hours * 3600.0) as i32;
            return fixed(hour_name(offset), offset);
        }
        Self::parse_posix(text)
    }

    /// Reads a zone as `AT TIME ZONE` does: as [`TimeZone::parse`], but hours alone are a POSIX specification
    /// too (`+05` is west). What [`TimeZone::name`] gives is read back.
    pub fn parse_posix(text: &str) -> Option<Self> {
        if text == "UTC" {
            return Some(Self::utc());
        }
        let named = |zone: &&chrono_tz::Tz| zone.name().eq_ignore_ascii_case(text);
        if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(named) {
            let rule = match zone.name() {
                "UTC" | "Etc/UTC" | "GMT" => Rule::Fixed(0),
                _ => Rule::Named(*zone),
            };
            return Some(Self { name: zone.name().into(), rule });
        }
        let offset = posix_offset(text)?;
        fixed(text.to_ascii_uppercase(), offset)
    }

    /// Reads a zone as `make_timestamptz` does: what begins with a sign is what stands behind a moment
    /// (`+05:30`, `+0530`), which ISO 8601 counts **east**, and anything else a name (`parse_sane_timezone` of
    /// PostgreSQL's `timestamp.c`). Bare digits are neither.
    pub fn parse_of_moment(text: &str) -> Option<Self> {
        match text.as_bytes().first()? {
            b'+' | b'-' => {
                let offset = crate::values::decode::offset(text)?;
                fixed(hour_name(offset), offset)
            }
            b'0'..=b'9' => None,
            _ => Self::parse_posix(text),
        }
    }

    /// A zone that is always so many seconds east of Greenwich; `None` if that is too many.
    pub fn east_by(seconds: i64) -> Option<Self> {
        let offset = i32::try_from(seconds).ok()?;
        fixed(hour_name(offset), offset)
    }

    /// The name that `SHOW TIME ZONE` gives.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Seconds east of Greenwich at a moment, given in seconds since 1970-01-01 UTC.
    pub fn offset_at(&self, utc_seconds: i64) -> i32 {
        match self.rule {
            Rule::Fixed(offset) => offset,
            Rule::Named(zone) => {
                let known = chrono::DateTime::from_timestamp(in_known_years(utc_seconds), 0);
                known.map_or(0, |at| {
                    zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()
                })
            }
        }
    }

    /// The offset of a local time, given as if it were UTC. As in PostgreSQL, a time that was
    /// skipped counts from before the change, one that came twice is the second.
    pub fn offset_at_local(&self, local_seconds: i64) -> i32 {
        let before = self.offset_at(local_seconds.saturating_sub(DAY_SECONDS));
        let after = self.offset_at(local_seconds.saturating_add(DAY_SECONDS));
        let holds =
            |offset: i32| self.offset_at(local_seconds.saturating_sub(i64::from(offset))) == offset;
        match (holds(before), holds(after)) {
            (true, false) => before,
            (false, true) => after,
            _ => before.min(after),
        }
    }

    /// What the zone is called for short at a moment: `CEST`, or `+03` where it has no letters.
    pub fn abbreviation_at(&self, utc_seconds: i64) -> String {
        let offset = match self.rule {
            Rule::Fixed(0) => return self.name.to_string(),
            Rule::Fixed(offset) => offset,
            Rule::Named(zone) => {
                let at = chrono::DateTime::from_timestamp(in_known_years(utc_seconds), 0);
                let at = at.unwrap_or_default().naive_utc();
                let offset = zone.offset_from_utc_datetime(&at);
                match offset.abbreviation() {
                    Some(letters) => return letters.to_owned(),
                    None => offset.fix().local_minus_utc(),
                }
            }
        };
        // A POSIX name stands in angle brackets.
        let named = self.name.strip_prefix('<').and_then(|name| name.split_once('>'));
        if let Some((name, _)) = named {
            return name.to_owned();
        }
        let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs() / 60);
        match minutes % 60 {
            0 => format!("{sign}{:02}", minutes / 60),
            more => format!("{sign}{:02}{more:02}", minutes / 60),
        }
    }

    /// The offset if it never changes.
    pub(super) fn fixed_offset(&self) -> Option<i32> {
        match self.rule {
            Rule::Fixed(offset) => Some(offset),
            Rule::Named(_) => None,
        }
    }
}

fn fixed(name: String, offset: i32) -> Option<TimeZone> {
    let rule = Rule::Fixed(offset);
    (offset.unsigned_abs() <= MAX_OFFSET).then(|| TimeZone { name: name.into(), rule })
}

/// How PostgreSQL shows a zone given in hours: `<+05:30>-05:30`.
fn hour_name(offset: i32) -> String {
    let (sign, posix) = if offset < 0 { ('-', '+') } else { ('+', '-') };
    let (hours, minutes) = (offset.unsigned_abs() / 3600, offset.unsigned_abs() / 60 % 60);
    match minutes {
        0 => format!("<{sign}{hours:02}>{posix}{hours:02}"),
        _ => format!("<{sign}{hours:02}:{minutes:02}>{posix}{hours:02}:{minutes:02}"),
    }
}

/// `[name]hh[:mm]`, the name of letters or in angle brackets; seconds east.
fn posix_offset(text: &str) -> Option<i32> {
    let rest = match text.strip_prefix('<') {
        Some(rest) => rest.split_once('>')?.1,
        None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    };
    let (sign, rest) = match rest.as_bytes().first()? {
        b'-' => (1, &rest[1..]),
        b'+' => (-1, &rest[1..]),
        _ => (-1, rest),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let number = |digits: &str| match digits.len() {
        1..=3 if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i32>().ok(),
        _ => None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 167 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// The time zone tables end with 2099. Later years follow their last rule: they are mapped to a
/// year from 2072 to 2099 with the same days of the week, for the calendar repeats after 28 years.
fn in_known_years(seconds: i64) -> i64 {
    const FIRST_UNKNOWN: i64 = 4_102_444_800; // 2100-01-01
    if seconds < FIRST_UNKNOWN {
        return seconds;
    }
    let year = day(seconds / DAY_SECONDS).year;
    let start = |year| days(Day { year, month: 1, day: 1 }).unwrap_or(0);
    let weekday = |year| start(year).rem_euclid(7);
    let alike = |&known: &i32| is_leap(known) == is_leap(year) && weekday(known) == weekday(year);
    let known = (2072..2100).find(alike).unwrap_or(2099);
    seconds - (start(year) - start(known)) * DAY_SECONDS
}

/// Offsets of a zone, remembered by spans of days, because neighbouring rows tend to have the same
/// and a look-up in the zone's table costs more than the formatting.
pub(super) struct Offsets {
    zone: TimeZone,
    spans: Box<[Cell<Span>]>,
}

#[derive(Clone, Copy)]
struct Span {
    number: i32,
    /// [`CHANGES`] if it changes within the span.
    offset: i32,
}

const CHANGES: i32 = i32::MIN;

/// Short enough that no zone changes twice within and comes back to the same offset, at least
/// since 1900: the shortest such period is a month of Ramadan.
const SPAN_SECONDS: i64 = 16 * DAY_SECONDS;

/// Ninety years' spans.
const SPANS: usize = 2048;

impl Offsets {
    pub(super) fn new(zone: &TimeZone) -> Self {
        let spans = if zone.fixed_offset().is_some() { 0 } else { SPANS };
        let unknown = Span { number: i32::MIN, offset: CHANGES };
        Self { zone: zone.clone(), spans: vec![Cell::new(unknown); spans].into() }
    }

    #[inline]
    pub(super) fn at(&self, utc_seconds: i64) -> i32 {
        if let Some(offset) = self.zone.fixed_offset() {
            return offset;
        }
        // Three million at most, for timestamps end with the year 294247.
        let number = utc_seconds.div_euclid(SPAN_SECONDS) as i32;
        let cell = &self.spans[number.rem_euclid(SPANS as i32) as usize];
        if cell.get().number != number {
            let start = i64::from(number) * SPAN_SECONDS;
            let first = self.zone.offset_at(start);
            let same = first == self.zone.offset_at(start + SPAN_SECONDS);
            cell.set(Span { number, offset: if same { first } else { CHANGES } });
        }
        match cell.get().offset {
            CHANGES => self.zone.offset_at(utc_seconds),
            offset => offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and offsets (January, July 2020) of PostgreSQL 15.
    #[test]
    fn zones_as_postgres_reads_them() {
        const HOUR: i32 = 3600;
        let cases = [
            ("5.5", "<+05:30>-05:30", 19_800, 19_800),
            ("-3", "<-03>+03", -3 * HOUR, -3 * HOUR),
            ("+3", "<+03>-03", 3 * HOUR, 3 * HOUR),
            ("UTC+3", "UTC+3", -3 * HOUR, -3 * HOUR),
            ("foo3", "FOO3", -3 * HOUR, -3 * HOUR),
            ("+05:30", "+05:30", -19_800, -19_800),
            ("<+03>-03", "<+03>-03", 3 * HOUR, 3 * HOUR),
            ("europe/paris", "Europe/Paris", HOUR, 2 * HOUR),
            ("EST5EDT", "EST5EDT", -5 * HOUR, -4 * HOUR),
            ("Etc/GMT+3", "Etc/GMT+3", -3 * HOUR, -3 * HOUR),
            ("utc", "UTC", 0, 0),
        ];
        for (text, name, january, july) in cases {
            let zone = TimeZone::parse(text).unwrap();
            assert_eq!(zone.name(), name);
            assert_eq!(zone.offset_at(1_577_836_800), january, "{text}");
            assert_eq!(zone.offset_at(1_593_561_600), july, "{text}");
        }
        for text in ["", "Foo/Bar", "abc", "Z", "UTC3:30:15", "UTC+999", "1e9", "nan", "<+03"] {
            assert_eq!(TimeZone::parse(text), None, "{text}");
        }
    }

    /// Seconds east of PostgreSQL 15: `timezone(zone, timestamp)`, `make_timestamptz(..., zone)` and SET.
    #[test]
    fn signs_are_those_of_who_reads_them() {
        const HOUR: i32 = 3600;
        let half = HOUR / 2;
        let (none, five) = (None, 5 * HOUR);
        for (text, posix, of_moment, set) in [
            ("+05", Some(-five), Some(five), Some(five)),
            ("+5", Some(-five), Some(five), Some(five)),
            ("-05", Some(five), Some(-five), Some(-five)),
            ("5", Some(-five), none, Some(five)),
            ("+05:30", Some(-five - half), Some(five + half), Some(-five - half)),
            ("+0530", none, Some(five + half), none),
            ("UTC+5", Some(-five), Some(-five), Some(-five)),
            ("<+05>-05", Some(five), Some(five), Some(five)),
            ("utc", Some(0), Some(0), Some(0)),
            ("", none, none, none),
        ] {
            let east = |zone: Option<TimeZone>| zone.map(|zone| zone.offset_at(0));
            assert_eq!(east(TimeZone::parse_posix(text)), posix, "{text}");
            assert_eq!(east(TimeZone::parse_of_moment(text)), of_moment, "{text}");
            if text != "+0530" {
                assert_eq!(east(TimeZone::parse(text)), set, "{text}");
            }
        }
    }

    #[test]
    fn spans_agree_with_the_table() {
        for name in ["Europe/Paris", "America/Sao_Paulo", "Africa/Casablanca", "Asia/Kolkata"] {
            let zone = TimeZone::parse(name).unwrap();
            let offsets = Offsets::new(&zone);
            for seconds in (-3_000_000_000..5_000_000_000).step_by(1_234_567) {
                assert_eq!(offsets.at(seconds), zone.offset_at(seconds), "{name} {seconds}");
            }
        }
    }

    #[test]
    fn skipped_and_repeated_local_times() {
        let zone = TimeZone::parse("Europe/Paris").unwrap();
        // 2020-03-29 02:30 was skipped, 2020-10-25 02:30 came twice.
        assert_eq!(zone.offset_at_local(1_585_449_000), 3600);
        assert_eq!(zone.offset_at_local(1_603_593_000), 3600);
        assert_eq!(zone.offset_at_local(1_593_561_600), 7200);
    }
}
