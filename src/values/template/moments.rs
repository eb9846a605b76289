//! Dates, times and intervals by a template.

use std::fmt::Write;

use super::fields::{Case, Field, MomentTemplate, Piece, Placed, capital};
use super::{Error, ROMAN_MONTHS, Result, ordinal};
use crate::values::encode::calendar::{DAY_MICROS, Day, day, days};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The Julian day of 1970-01-01.
pub(super) const JULIAN_EPOCH: i64 = 2_440_588;

/// 294276-12-31 in days after 1970-01-01.
const LAST_DATE: i32 = 106_762_939;

/// Letters of the longest name, to which the others are filled up.
const NAME_WIDTH: usize = 9;

/// What a zone adds to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// `CET`.
    pub abbreviation: String,
    /// Seconds east of Greenwich.
    pub offset: i32,
}

/// What is written of a date, a time or an interval.
#[derive(Clone, Debug)]
pub struct Moment {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// Days since 1970; none for an interval.
    date: Option<i64>,
    zone: Option<Zone>,
}

impl Moment {
    /// What clocks show so many microseconds after 1970-01-01 00:00, in a zone if it has one.
    pub fn at(micros: i64, zone: Option<Zone>) -> Self {
        let date = micros.div_euclid(DAY_MICROS);
        let Day { year, month, day } = day(date);
        let own = Self::clock(micros.rem_euclid(DAY_MICROS));
        let (year, month, day) = (year.into(), month.into(), day.into());
        Self { year, month, day, date: Some(date), zone, ..own }
    }

    /// The beginning of a day, in days after 1970-01-01.
    ///
    /// # Errors
    /// The day is beyond the moments that PostgreSQL has, which end with the year 294276.
    pub fn of_date(date: i32, zone: Zone) -> Result<Self> {
        if date > LAST_DATE {
            return Err(Error::DateOutOfRange);
        }
        let Day { year, month, day } = day(date.into());
        let (year, month, day) = (year.into(), month.into(), day.into());
        Ok(Self { year, month, day, date: Some(date.into()), zone: Some(zone), ..Self::clock(0) })
    }

    pub fn interval(months: i32, days: i32, micros: i64) -> Self {
        let (year, month) = (i64::from(months) / 12, i64::from(months) % 12);
        Self { year, month, day: days.into(), ..Self::clock(micros) }
    }

    fn clock(micros: i64) -> Self {
        let seconds = micros / 1_000_000;
        Self {
            year: 0,
            month: 0,
            day: 0,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: micros % 1_000_000,
            date: None,
            zone: None,
        }
    }

    /// Writes it by a template.
    ///
    /// # Errors
    /// An interval has no weekday, no era and no zone.
    pub fn write(&self, template: &MomentTemplate, out: &mut String) -> Result<()> {
        for piece in &template.pieces {
            match piece {
                Piece::Separator(c) | Piece::Space(c) | Piece::Text(c) => out.push(*c),
                Piece::Field(placed) => self.field(placed, out)?,
            }
        }
        Ok(())
    }

    fn field(&self, placed: &Placed, out: &mut String) -> Result<()> {
        match placed.key.field {
            Field::Era { .. }
            | Field::Half { .. }
            | Field::DayName
            | Field::ShortDayName
            | Field::MonthName
            | Field::ShortMonthName
            | Field::RomanMonth => self.name(placed, out),
            Field::Offset | Field::ZoneHours | Field::ZoneMinutes | Field::ZoneName => {
                self.zone(placed, out)
            }
            Field::Exact => Ok(()),
            _ => {
                let start = out.len();
                self.number(placed, out)?;
                if let Some(upper) = placed.ordinal
                    && out.len() > start
                {
                    let ending = ordinal(&out[start..], upper);
                    out.push_str(ending);
                }
                Ok(())
            }
        }
    }

    /// The days since 1970, of which an interval has none.
    fn date(&self) -> Result<i64> {
        self.date.ok_or_else(|| {
            Error::format(
                "invalid format specification for an interval value",
                "Intervals are not tied to specific calendar dates.",
            )
        })
    }

    fn weekday(&self) -> Result<i64> {
        // 1970 began on a Thursday.
        Ok((self.date()? + 4).rem_euclid(7))
    }

    fn name(&self, placed: &Placed, out: &mut String) -> Result<()> {
        let (word, width) = match placed.key.field {
            Field::Half { dots } => {
                let word = if self.hour % 24 >= 12 { "PM" } else { "AM" };
                (with_dots(word, dots), 0)
            }
            Field::Era { dots } => {
                self.date()?;
                (with_dots(if self.year <= 0 { "BC" } else { "AD" }, dots), 0)
            }
            Field::DayName => (WEEKDAYS[self.weekday()? as usize].to_owned(), NAME_WIDTH),
            Field::ShortDayName => (WEEKDAYS[self.weekday()? as usize][..3].to_owned(), 0),
            Field::MonthName | Field::ShortMonthName => {
                self.date()?;
                let name = MONTHS[(self.month - 1) as usize];
                match placed.key.field {
                    Field::MonthName => (name.to_owned(), NAME_WIDTH),
                    _ => (name[..3].to_owned(), 0),
                }
            }
            _ => match self.roman_month() {
                Some(at) => (ROMAN_MONTHS[at].to_owned(), 4),
                None => return Ok(()),
            },
        };
        let word = match placed.case {
            Case::Upper => word.to_uppercase(),
            Case::Lower => word.to_lowercase(),
            Case::Capital => capital(&word),
        };
        let width = if placed.fill || placed.local { 0 } else { width };
        let _ = write!(out, "{word:width$}");
        Ok(())
    }

    /// Where the month stands among the Roman ones. An interval of whole years has their last month, and
    /// one that is negative counts from the end.
    fn roman_month(&self) -> Option<usize> {
        let at = match self.month {
            0 if self.year == 0 => return None,
            0 if self.year > 0 => 11,
            0 => 0,
            month if month < 0 => 12 + month,
            month => month - 1,
        };
        usize::try_from(at).ok().filter(|at| *at < 12)
    }

    fn zone(&self, placed: &Placed, out: &mut String) -> Result<()> {
        self.date()?;
        let offset = self.zone.as_ref().map_or(0, |zone| zone.offset);
        let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
        let sign = if offset < 0 { '-' } else { '+' };
        match placed.key.field {
            Field::ZoneName => {
                let name = self.zone.as_ref().map_or("", |zone| zone.abbreviation.as_str());
                match placed.case {
                    Case::Lower => out.push_str(&name.to_lowercase()),
                    _ => out.push_str(name),
                }
            }
            Field::ZoneMinutes => drop(write!(out, "{minutes:02}")),
            Field::ZoneHours => drop(write!(out, "{sign}{hours:02}")),
            _ => {
                let width = if placed.fill { 0 } else { 2 };
                let _ = write!(out, "{sign}{hours:0width$}");
                if minutes != 0 {
                    let _ = write!(out, ":{minutes:02}");
                }
            }
        }
        Ok(())
    }

    fn number(&self, placed: &Placed, out: &mut String) -> Result<()> {
        let (number, width) = match placed.key.field {
            Field::Hour12 => (if self.hour % 12 == 0 { 12 } else { self.hour % 12 }, 2),
            Field::Hour24 => (self.hour, 2),
            Field::Minute => (self.minute, 2),
            Field::Second => (self.second, 2),
            Field::Millis => return put_fraction(self.micros, 3, out),
            Field::Micros => return put_fraction(self.micros, 6, out),
            Field::Fraction(digits) => return put_fraction(self.micros, digits, out),
            Field::SecondOfDay => ((self.hour * 60 + self.minute) * 60 + self.second, 0),
            Field::Month => (self.month, 2),
            Field::Day => (self.day, 2),
            Field::DayOfYear => (self.day_of_year(), 3),
            Field::IsoDayOfYear => (self.iso_day_of_year()?, 3),
            Field::Weekday => (self.weekday()? + 1, 0),
            Field::IsoWeekday => (iso_weekday(self.date()?), 0),
            Field::WeekOfYear => ((self.day_of_year() - 1) / 7 + 1, 2),
            Field::IsoWeek => (iso_week(self.date()?).1, 2),
            Field::WeekOfMonth => ((self.day - 1) / 7 + 1, 0),
            Field::Quarter if self.month == 0 => return Ok(()),
            Field::Quarter => ((self.month - 1) / 3 + 1, 0),
            Field::Julian => (self.julian(), 0),
            Field::Century => {
                let century = self.century();
                (century, if (-99..=99).contains(&century) { 2 } else { 0 })
            }
            Field::YearWithComma => {
                let year = self.shown(self.year);
                let _ = write!(out, "{},{:03}", year / 1000, year % 1000);
                return Ok(());
            }
            Field::Year { digits, iso } => {
                let year = match iso {
                    true => iso_week(self.date()?).0,
                    false => self.year,
                };
                let year = self.shown(year);
                let kept = if digits == 4 { year } else { year % 10_i64.pow(digits.into()) };
                // A single digit is never filled up.
                (kept, if digits == 1 { 0 } else { digits.into() })
            }
            _ => return Ok(()),
        };
        // A sign takes no digit's place, except among days.
        let days = matches!(placed.key.field, Field::Day | Field::DayOfYear | Field::IsoDayOfYear);
        let width = match placed.fill {
            true => 0,
            false if number < 0 && width > 0 && !days => width + 1,
            false => width,
        };
        let _ = write!(out, "{number:0width$}");
        Ok(())
    }

    /// A year counted as it is written: 1 BC is 1.
    fn shown(&self, year: i64) -> i64 {
        match self.date {
            Some(_) if year <= 0 => 1 - year,
            _ => year,
        }
    }

    fn century(&self) -> i64 {
        match self.date {
            None => self.year / 100,
            Some(_) if self.year > 0 => (self.year - 1) / 100 + 1,
            // The year 0 is 1 BC, of the first century before Christ.
            Some(_) => self.year / 100 - 1,
        }
    }

    /// For an interval about how many days it has.
    fn day_of_year(&self) -> i64 {
        match self.date {
            Some(date) => date - first_of_year(self.year) + 1,
            None => (self.year * 12 + self.month) * 30 + self.day,
        }
    }

    fn iso_day_of_year(&self) -> Result<i64> {
        let date = self.date()?;
        Ok(date - iso_year_start(iso_week(date).0) + 1)
    }

    fn julian(&self) -> i64 {
        match self.date {
            Some(date) => date + JULIAN_EPOCH,
            None => julian_of(self.year, self.month, self.day),
        }
    }
}

fn with_dots(word: &str, dots: bool) -> String {
    match dots {
        true => word.chars().flat_map(|c| [c, '.']).collect(),
        false => word.to_owned(),
    }
}

fn put_fraction(micros: i64, digits: u8, out: &mut String) -> Result<()> {
    let number = micros / 10_i64.pow(6 - u32::from(digits));
    let _ = write!(out, "{number:0width$}", width = usize::from(digits));
    Ok(())
}

/// PostgreSQL's `date2j`, which takes any numbers.
fn julian_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = match month > 2 {
        true => (year + 4800, month + 1),
        false => (year + 4799, month + 13),
    };
    let century = year / 100;
    year * 365 - 32167 + year / 4 - century + century / 4 + 7834 * month / 256 + day
}

fn first_of_year(year: i64) -> i64 {
    i32::try_from(year).ok().and_then(|year| days(Day { year, month: 1, day: 1 })).unwrap_or(0)
}

/// 1 for Monday to 7 for Sunday.
pub(super) fn iso_weekday(date: i64) -> i64 {
    (date + 3).rem_euclid(7) + 1
}

/// The Monday of the first week of an ISO year: that with January 4th.
pub(super) fn iso_year_start(year: i64) -> i64 {
    let fourth = first_of_year(year) + 3;
    fourth - (iso_weekday(fourth) - 1)
}

/// The ISO year and week of a day.
fn iso_week(date: i64) -> (i64, i64) {
    // Its week's Thursday decides.
    let thursday = date - (iso_weekday(date) - 1) + 3;
    let year = i64::from(day(thursday).year);
    (year, (thursday - iso_year_start(year)) / 7 + 1)
}
