//! Intervals in text: PostgreSQL's own style, verbose or not, and ISO 8601's `P1DT2H`.

use datafusion::common::ScalarValue;

use super::datetime::micros;
use super::text::is_space;
use super::{Fault, interval as valid_interval};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// PostgreSQL's month, for fractions of one.
const MONTH_DAYS: f64 = 30.0;

#[derive(Default)]
struct Parts {
    months: i64,
    days: i64,
    micros: i64,
}

/// Whether a text begins with a time, such as `-2:03`.
fn is_time(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < digits.len() && rest.starts_with(':')
}

/// A number such as -1.5 in two parts of the same sign.
#[derive(Clone, Copy)]
struct Number<'a> {
    negative: bool,
    whole: i64,
    /// The digits behind the point.
    fraction: &'a str,
}

pub(super) fn parse(text: &str) -> Result<ScalarValue, Fault> {
    let mut parts = Parts::default();
    match text.strip_prefix(['P', 'p']) {
        Some(iso) => parts.iso(iso)?,
        None => parts.verbose(text)?,
    }
    let months = i32::try_from(parts.months).map_err(|_| Fault::Range)?;
    let days = i32::try_from(parts.days).map_err(|_| Fault::Range)?;
    valid_interval(months, days, parts.micros).ok_or(Fault::Range)
}

impl Parts {
    /// `P[nY][nM][nW][nD][T[nH][nM][nS]]`
    fn iso(&mut self, text: &str) -> Result<(), Fault> {
        let (mut rest, mut time, mut any) = (text, false, false);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(['T', 't']).filter(|_| !time) {
                (rest, time) = (after, true);
                continue;
            }
            let (number, after) = number(rest)?;
            let unit = match (after.bytes().next().map(|b| b.to_ascii_uppercase()), time) {
                (Some(b'Y'), false) => "year",
                (Some(b'M'), false) => "month",
                (Some(b'W'), false) => "week",
                (Some(b'D'), false) => "day",
                (Some(b'H'), true) => "hour",
                (Some(b'M'), true) => "minute",
                (Some(b'S'), true) => "second",
                _ => return Err(Fault::Syntax),
            };
            self.add(number, unit)?;
            (rest, any) = (&after[1..], true);
        }
        if any { Ok(()) } else { Err(Fault::Syntax) }
    }

    /// Numbers with units, a time, years-months; `ago` behind them turns all signs.
    fn verbose(&mut self, text: &str) -> Result<(), Fault> {
        let mut rest = text.strip_prefix('@').unwrap_or(text).trim_start_matches(is_space);
        let mut any = false;
        while !rest.is_empty() {
            if rest.eq_ignore_ascii_case("ago") && any {
                return self.negate();
            }
            let (number, after) = number(rest)?;
            rest = match after.as_bytes().first() {
                Some(b':') => self.time(number, after)?,
                Some(b'-') => self.years(number, &after[1..])?,
                _ => {
                    let after = after.trim_start_matches(is_space);
                    let end = after.find(|c: char| !c.is_ascii_alphabetic());
                    let (unit, after) = after.split_at(end.unwrap_or(after.len()));
                    let unit = match unit {
                        // In front of a time it counts days.
                        "" if is_time(after) => "day",
                        "" => "second",
                        unit => unit,
                    };
                    self.add(number, unit)?;
                    after
                }
            }
            .trim_start_matches(is_space);
            any = true;
        }
        if any { Ok(()) } else { Err(Fault::Syntax) }
    }

    /// `h:mm[:ss[.fraction]]`, where the hours were read already.
    fn time<'a>(&mut self, hours: Number, text: &'a str) -> Result<&'a str, Fault> {
        let (minutes, rest) = number(&text[1..])?;
        let (seconds, rest) = match rest.strip_prefix(':') {
            Some(rest) => number(rest)?,
            None => (Number { negative: false, whole: 0, fraction: "" }, rest),
        };
        let signed = minutes.negative || seconds.negative;
        let fractions = !hours.fraction.is_empty() || !minutes.fraction.is_empty();
        if signed || fractions || minutes.whole > 59 || seconds.whole > 60 {
            return Err(Fault::Syntax);
        }
        let minor = (minutes.whole * 60 + seconds.whole) * SECOND + micros(seconds.fraction);
        let total = hours.whole.checked_mul(HOUR).and_then(|hours| hours.checked_add(minor));
        let total = total.ok_or(Fault::Range)?;
        add(&mut self.micros, if hours.negative { -total } else { total })?;
        Ok(rest)
    }

    /// `years-months`, where the years were read already.
    fn years<'a>(&mut self, years: Number, text: &'a str) -> Result<&'a str, Fault> {
        let (months, rest) = number(text)?;
        if months.negative || months.whole > 11 || !months.fraction.is_empty() {
            return Err(Fault::Syntax);
        }
        let total = years.whole.checked_mul(12).and_then(|years| years.checked_add(months.whole));
        let total = total.ok_or(Fault::Range)?;
        add(&mut self.months, if years.negative { -total } else { total })?;
        Ok(rest)
    }

    fn add(&mut self, number: Number, unit: &str) -> Result<(), Fault> {
        let unit = unit.to_ascii_lowercase();
        match unit.as_str() {
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" => self.add_micros(number, 1),
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => {
                self.add_micros(number, 1000)
            }
            "second" | "seconds" | "s" | "sec" | "secs" => self.add_micros(number, SECOND),
            "minute" | "minutes" | "m" | "min" | "mins" => self.add_micros(number, 60 * SECOND),
            "hour" | "hours" | "h" | "hr" | "hrs" => self.add_micros(number, HOUR),
            "day" | "days" | "d" => self.add_days(number, 1),
            "week" | "weeks" | "w" => self.add_days(number, 7),
            "month" | "months" | "mon" | "mons" => self.add_months(number),
            "year" | "years" | "y" | "yr" | "yrs" => self.add_years(number, 1),
            "decade" | "decades" | "dec" | "decs" => self.add_years(number, 10),
            "century" | "centuries" | "c" | "cent" => self.add_years(number, 100),
            "millennium" | "millennia" | "mil" | "mils" => self.add_years(number, 1000),
            _ => Err(Fault::Syntax),
        }
    }

    fn add_micros(&mut self, number: Number, factor: i64) -> Result<(), Fault> {
        add(&mut self.micros, number.whole_times(factor)?)?;
        let fraction = match factor {
            SECOND => number.signed(micros(number.fraction)),
            _ => (number.fraction() * factor as f64).round() as i64,
        };
        add(&mut self.micros, fraction)
    }

    fn add_days(&mut self, number: Number, factor: i64) -> Result<(), Fault> {
        add(&mut self.days, number.whole_times(factor)?)?;
        self.add_part_days(number.fraction() * factor as f64)
    }

    fn add_part_days(&mut self, days: f64) -> Result<(), Fault> {
        add(&mut self.days, days.trunc() as i64)?;
        add(&mut self.micros, (days.fract() * DAY as f64).round() as i64)
    }

    fn add_months(&mut self, number: Number) -> Result<(), Fault> {
        add(&mut self.months, number.whole_times(1)?)?;
        self.add_part_days(number.fraction() * MONTH_DAYS)
    }

    fn add_years(&mut self, number: Number, factor: i64) -> Result<(), Fault> {
        add(&mut self.months, number.whole_times(12 * factor)?)?;
        add(&mut self.months, (number.fraction() * 12.0 * factor as f64).round() as i64)
    }

    fn negate(&mut self) -> Result<(), Fault> {
        for part in [&mut self.months, &mut self.days, &mut self.micros] {
            *part = part.checked_neg().ok_or(Fault::Range)?;
        }
        Ok(())
    }
}

impl Number<'_> {
    fn signed(self, value: i64) -> i64 {
        if self.negative { -value } else { value }
    }

    fn whole_times(self, factor: i64) -> Result<i64, Fault> {
        self.signed(self.whole).checked_mul(factor).ok_or(Fault::Range)
    }

    fn fraction(self) -> f64 {
        let magnitude = format!("0.{}0", self.fraction).parse().unwrap_or(0.0);
        if self.negative { -magnitude } else { magnitude }
    }
}

fn add(sum: &mut i64, value: i64) -> Result<(), Fault> {
    *sum = sum.checked_add(value).ok_or(Fault::Range)?;
    Ok(())
}

/// `[+-]digits[.digits]`, with a digit on either side of the point.
fn number(text: &str) -> Result<(Number<'_>, &str), Fault> {
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, rest) = digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(Fault::Syntax);
    }
    let value = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| Fault::Range)? };
    Ok((Number { negative, whole: value, fraction }, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}
