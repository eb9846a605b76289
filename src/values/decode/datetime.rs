//! Dates, times and timestamps in ISO 8601 text, with the liberties PostgreSQL takes with it:
//! a space or a T, years before Christ, offsets and names of zones, and words such as `today`.
//!
//! Of other ways to write a day those are read that mean the same whatever the session's DateStyle:
//! with the name of the month, or the year first. `1/5/2024` is none of them.

use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::text::is_space;
use super::{Fault, date as valid_date, time as valid_time, timestamp as valid_timestamp};
use crate::values::encode::TimeZone;
use crate::values::encode::calendar::{DAY_MICROS, Day, days};

const SECOND: i64 = 1_000_000;

/// A date, and a time of day and a zone's offset if they were given.
struct Moment {
    days: i64,
    micros: i64,
    zone: Option<Zone>,
}

enum Zone {
    /// Seconds east of Greenwich.
    Offset(i64),
    Named(TimeZone),
}

pub(super) fn date(text: &str, session: &TimeZone) -> Result<ScalarValue, Fault> {
    let moment = moment(text, session)?;
    valid_date(Some(moment.days)).ok_or(Fault::Range)
}

pub(super) fn time(text: &str) -> Result<ScalarValue, Fault> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let spelled = match text.len() {
        4 if digits => Some(format!("{}:{}", &text[..2], &text[2..])),
        6 if digits => Some(format!("{}:{}:{}", &text[..2], &text[2..4], &text[4..])),
        _ => None,
    };
    let (micros, rest) = halved(clock(spelled.as_deref().unwrap_or(text))?)?;
    if !rest.is_empty() {
        return Err(Fault::Syntax);
    }
    valid_time(micros).ok_or(Fault::Range)
}

/// A `timestamp` ignores a zone, a `timestamptz` without one is in the session's.
pub(super) fn timestamp(text: &str, pg: &Type, session: &TimeZone) -> Result<ScalarValue, Fault> {
    let moment = moment(text, session)?;
    let days = moment.days.checked_mul(DAY_MICROS).ok_or(Fault::Range)?;
    let local = days.checked_add(moment.micros).ok_or(Fault::Range)?;
    let seconds = local.div_euclid(SECOND);
    let offset = match moment.zone {
        _ if *pg == Type::TIMESTAMP => 0,
        Some(Zone::Offset(offset)) => offset,
        Some(Zone::Named(zone)) => zone.offset_at_local(seconds).into(),
        None => session.offset_at_local(seconds).into(),
    };
    valid_timestamp(local.checked_sub(offset * SECOND), pg).ok_or(Fault::Range)
}

fn moment(text: &str, session: &TimeZone) -> Result<Moment, Fault> {
    if let Some(moment) = word(text, session) {
        return Ok(moment);
    }
    if text.eq_ignore_ascii_case("epoch") {
        return Ok(Moment { days: 0, micros: 0, zone: Some(Zone::Offset(0)) });
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if ["infinity", "inf"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Err(Fault::Range);
    }
    let (text, before_christ) = era(text);
    let (day, rest) = match calendar_day(text, before_christ) {
        Err(Fault::Syntax) => named_day(text, before_christ)?,
        day => day?,
    };
    let days = days(day).ok_or(Fault::Range)?;
    if rest.is_empty() {
        return Ok(Moment { days, micros: 0, zone: None });
    }
    let with_clock = rest.strip_prefix(['T', 't']);
    let rest = with_clock.unwrap_or(rest).trim_start_matches(is_space);
    // A date may have an offset and no time: the JDBC driver writes dates so.
    let (micros, rest) =
        match with_clock.is_some() || rest.starts_with(|c: char| c.is_ascii_digit()) {
            true => halved(clock(rest)?)?,
            false => (0, rest),
        };
    let zone = match rest.trim_start_matches(is_space) {
        "" => None,
        rest => Some(zone(rest)?),
    };
    Ok(Moment { days, micros, zone })
}

/// `now`, `today`, `tomorrow` and `yesterday`, by this machine's clock. Constants of a statement do not come
/// here with them: those follow the statement's own time.
fn word(text: &str, session: &TimeZone) -> Option<Moment> {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let words = [("now", None), ("today", Some(0)), ("tomorrow", Some(1)), ("yesterday", Some(-1))];
    let (_, more) = words.iter().find(|(word, _)| text.eq_ignore_ascii_case(word))?;
    let utc = chrono::Utc::now().timestamp_micros();
    let offset = i64::from(session.offset_at(utc.div_euclid(SECOND)));
    let local = utc + offset * SECOND;
    let (days, micros) = (local.div_euclid(DAY_MICROS), local.rem_euclid(DAY_MICROS));
    Some(match more {
        None => Moment { days, micros, zone: Some(Zone::Offset(offset)) },
        Some(more) => Moment { days: days + more, micros: 0, zone: None },
    })
}

/// Takes "BC" or "AD" off the end.
fn era(text: &str) -> (&str, bool) {
    let Some((rest, last)) = text.rsplit_once(is_space) else { return (text, false) };
    if last.eq_ignore_ascii_case("bc") {
        return (rest.trim_end_matches(is_space), true);
    }
    let rest = if last.eq_ignore_ascii_case("ad") { rest } else { text };
    (rest.trim_end_matches(is_space), false)
}

/// `Y-M-D`, or eight digits without hyphens.
fn calendar_day(text: &str, before_christ: bool) -> Result<(Day, &str), Fault> {
    let (first, rest) = digits(text)?;
    let separator = rest.chars().next().filter(|c| matches!(c, '-' | '/' | '.'));
    let (year, month, day, rest) = match separator {
        Some(separator) if first.len() >= 3 => {
            let (month, rest) = digits(&rest[1..])?;
            let (day, rest) = digits(rest.strip_prefix(separator).ok_or(Fault::Syntax)?)?;
            (number(first)?, number(month)?, number(day)?, rest)
        }
        None if first.len() == 8 => {
            (number(&first[..4])?, number(&first[4..6])?, number(&first[6..])?, rest)
        }
        _ => return Err(Fault::Syntax),
    };
    if year == 0 {
        return Err(Fault::Range);
    }
    let year = if before_christ { 1 - year } else { year };
    Ok((Day { year, month: month.unsigned_abs(), day: day.unsigned_abs() }, rest))
}

const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

const WEEKDAYS: &[&str] =
    &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Whether a word is a name, or its first three letters; `sept`, `tues`, `weds`, `thur` and `thurs` are
/// known as well (`datetktbl` of PostgreSQL's `datetime.c`).
fn is_short_for(word: &str, name: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let other = ["sept", "tues", "thur", "thurs"].contains(&word.as_str());
    word == name
        || name.starts_with(&word) && (word.len() == 3 || other)
        || word == "weds" && name == "wednesday"
}

/// A day with the name of its month, and a year of three digits or more: `January 8, 1999`, `8 Jan 1999`,
/// `1999-Jan-08`. What day of the week it is may stand before it, and is not looked at.
fn named_day(text: &str, before_christ: bool) -> Result<(Day, &str), Fault> {
    let between = |c: char| is_space(c) || matches!(c, ',' | '-' | '/' | '.');
    let (mut month, mut day, mut year) = (None, None, None);
    let mut rest = text;
    while month.is_none() || day.is_none() || year.is_none() {
        rest = rest.trim_start_matches(between);
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            let (part, after) = digits(rest)?;
            let place = if part.len() >= 3 { &mut year } else { &mut day };
            if place.replace(number(part)?).is_some() {
                return Err(Fault::Syntax);
            }
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let named = (1..).zip(MONTHS).find(|(_, name)| is_short_for(word, name));
        match named {
            Some((number, _)) if month.is_none() => month = Some(number),
            None if WEEKDAYS.iter().any(|name| is_short_for(word, name)) => {}
            _ => return Err(Fault::Syntax),
        }
        rest = after;
    }
    let (Some(month), Some(day), Some(year)) = (month, day, year) else {
        return Err(Fault::Syntax);
    };
    if year == 0 {
        return Err(Fault::Range);
    }
    let year = if before_christ { 1 - year } else { year };
    Ok((Day { year, month, day: i32::unsigned_abs(day) }, rest))
}

/// A time with the half of the day behind it: `04:05 PM`.
fn halved((micros, rest): (i64, &str)) -> Result<(i64, &str), Fault> {
    const NOON: i64 = DAY_MICROS / 2;
    let word = rest.trim_start_matches(is_space);
    let (half, after) = match word.get(..2) {
        Some(half) if half.eq_ignore_ascii_case("am") => (0, &word[2..]),
        Some(half) if half.eq_ignore_ascii_case("pm") => (NOON, &word[2..]),
        _ => return Ok((micros, rest)),
    };
    // Behind it stands a zone, or nothing: it may be the beginning of a zone's name.
    if after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') {
        return Ok((micros, rest));
    }
    match micros >= NOON + 3600 * SECOND {
        true => Err(Fault::Range),
        false => Ok((micros % NOON + half, after)),
    }
}

/// `H:MM[:SS[.fraction]]` in microseconds, and what follows. 24:00:00 is the end of a day, and a
/// 60th second the next minute.
pub(super) fn clock(text: &str) -> Result<(i64, &str), Fault> {
    let (hours, rest) = digits(text)?;
    let (minutes, rest) = digits(rest.strip_prefix(':').ok_or(Fault::Syntax)?)?;
    let (seconds, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest)?,
        None => ("0", rest),
    };
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (micros(&rest[..end]), &rest[end..])
        }
        None => (0, rest),
    };
    let [hours, minutes, seconds] = [number(hours)?, number(minutes)?, number(seconds)?];
    if hours > 24 || minutes > 59 || seconds > 60 {
        return Err(Fault::Range);
    }
    let total = (i64::from(hours) * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
    let total = total * SECOND + fraction;
    if total > DAY_MICROS { Err(Fault::Range) } else { Ok((total, rest)) }
}

/// The digits of a fraction as millionths, to the nearest.
pub(super) fn micros(fraction: &str) -> i64 {
    let digit = |at: usize| fraction.as_bytes().get(at).map_or(0, |b| i64::from(b - b'0'));
    (0..6).fold(0, |n, at| n * 10 + digit(at)) + i64::from(digit(6) >= 5)
}

/// `+HH[:MM[:SS]]` or `+HHMM`, as it stands behind a moment: seconds east.
pub(in crate::values) fn offset(text: &str) -> Option<i32> {
    match zone(text) {
        Ok(Zone::Offset(seconds)) => i32::try_from(seconds).ok(),
        _ => None,
    }
}

fn zone(text: &str) -> Result<Zone, Fault> {
    let (sign, rest) = match text.as_bytes() {
        [b'Z' | b'z'] => return Ok(Zone::Offset(0)),
        [b'+', ..] => (1, &text[1..]),
        [b'-', ..] => (-1, &text[1..]),
        _ => return TimeZone::parse(text).map(Zone::Named).ok_or(Fault::Syntax),
    };
    let (first, rest) = digits(rest)?;
    let (mut parts, mut rest) = match first.len() {
        1 | 2 => (vec![number(first)?], rest),
        4 => (vec![number(&first[..2])?, number(&first[2..])?], rest),
        6 => (vec![number(&first[..2])?, number(&first[2..4])?, number(&first[4..])?], rest),
        _ => return Err(Fault::Syntax),
    };
    while let Some(more) = rest.strip_prefix(':').filter(|_| parts.len() < 3) {
        let (part, more) = digits(more)?;
        parts.push(number(part)?);
        rest = more;
    }
    // PostgreSQL's limit of an offset, `MAX_TZDISP_HOUR`.
    if !rest.is_empty() || parts[0] > 15 || parts[1..].iter().any(|&part| part > 59) {
        return Err(Fault::Syntax);
    }
    parts.resize(3, 0);
    let seconds = parts.iter().fold(0, |n, &part| n * 60 + i64::from(part));
    Ok(Zone::Offset(sign * seconds))
}

/// The digits in front, at least one, and the rest.
fn digits(text: &str) -> Result<(&str, &str), Fault> {
    match text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()) {
        0 => Err(Fault::Syntax),
        end => Ok(text.split_at(end)),
    }
}

fn number(digits: &str) -> Result<i32, Fault> {
    if digits.len() > 7 { Err(Fault::Range) } else { digits.parse().map_err(|_| Fault::Syntax) }
}
