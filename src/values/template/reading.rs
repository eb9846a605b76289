//! Text by a template, as a moment.

use super::fields::{Convention, Field, MomentTemplate, Piece, Placed, is_blank, is_separator};
use super::moments::{JULIAN_EPOCH, MONTHS, WEEKDAYS, iso_year_start};
use super::{Error, ROMAN_MONTHS, Result};
use crate::values::encode::calendar::{DATE_RANGE, DAY_MICROS, Day, day, days};

/// What a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Days since 1970.
    pub date: i64,
    /// Microseconds of the day.
    pub micros: i64,
    /// Seconds east of Greenwich, if it says so.
    pub offset: Option<i32>,
}

/// What the fields of a text have said so far; 0 where nothing was said, as in PostgreSQL.
#[derive(Default)]
struct Said {
    convention: Option<Convention>,
    half_day: bool,
    afternoon: i64,
    hour: i64,
    minute: i64,
    second: i64,
    second_of_day: i64,
    weekday: i64,
    day: i64,
    day_of_year: i64,
    month: i64,
    millis: i64,
    year: i64,
    /// Digits that the year's field has.
    year_digits: u8,
    before_christ: i64,
    week: i64,
    week_of_month: i64,
    century: i64,
    julian: i64,
    micros: i64,
    zone_sign: i64,
    zone_hours: i64,
    zone_minutes: i64,
}

/// A text, read from left to right.
struct Reader<'a> {
    rest: &'a str,
    /// The character in front of the rest.
    before: Option<char>,
    /// Blanks and punctuation that were skipped beyond what the template has.
    skipped: i64,
    /// `FX`: only what the template has may be skipped.
    exact: bool,
    said: Said,
}

impl MomentTemplate {
    /// Reads a text by the template.
    ///
    /// # Errors
    /// The text does not fit, its fields contradict each other, there is no such day or time, or a field
    /// can only be written.
    pub fn read(&self, text: &str) -> Result<Read> {
        let said = Said::default();
        let mut reader = Reader { rest: text, before: None, skipped: 0, exact: false, said };
        for (at, piece) in self.pieces.iter().enumerate() {
            if reader.rest.is_empty() {
                break;
            }
            let field = matches!(piece, Piece::Field(_));
            let exact = matches!(piece, Piece::Field(placed) if placed.key.field == Field::Exact);
            if !reader.exact && !exact && (field || at == 0) {
                reader.skip_blanks();
            }
            match piece {
                Piece::Separator(_) | Piece::Space(_) => reader.separator(),
                Piece::Text(_) => reader.text(),
                Piece::Field(placed) => {
                    let next = self.pieces.get(at + 1);
                    reader.field(placed, placed.ordinal.is_some() || ends_digits(next))?;
                    if !reader.exact {
                        reader.skipped = 0;
                        reader.skip_blanks();
                    }
                }
            }
        }
        reader.said.moment(text)
    }
}

/// Whether what follows cannot go on with digits.
fn ends_digits(next: Option<&Piece>) -> bool {
    match next {
        None => true,
        Some(Piece::Field(placed)) => !placed.key.digits,
        Some(Piece::Separator(c) | Piece::Space(c) | Piece::Text(c)) => !c.is_ascii_digit(),
    }
}

impl<'a> Reader<'a> {
    fn advance(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        self.before = taken.chars().next_back().or(self.before);
        self.rest = rest;
    }

    fn first(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self) {
        if let Some(c) = self.first() {
            self.advance(c.len_utf8());
        }
    }

    fn skip_blanks(&mut self) {
        while self.first().is_some_and(is_blank) {
            self.skip();
            self.skipped += 1;
        }
    }

    /// One blank or sign of the template is one of the text, or none.
    fn separator(&mut self) {
        if self.exact {
            self.skip();
            return;
        }
        self.skipped -= 1;
        if self.first().is_some_and(|c| is_blank(c) || is_separator(c)) {
            self.skip();
            self.skipped += 1;
        }
    }

    /// A character of the template is any one of the text, unless more was skipped already.
    fn text(&mut self) {
        match !self.exact && self.skipped > 0 {
            true => self.skipped -= 1,
            false => self.skip(),
        }
    }

    fn field(&mut self, placed: &Placed, open: bool) -> Result<()> {
        self.said.keep_to(placed.key.convention)?;
        match placed.key.field {
            Field::Exact => self.exact = true,
            Field::Half { .. }
            | Field::Era { .. }
            | Field::MonthName
            | Field::ShortMonthName
            | Field::DayName
            | Field::ShortDayName
            | Field::RomanMonth => return self.word(placed),
            Field::Offset | Field::ZoneName => return Err(Error::OnlyWritten(placed.written())),
            Field::ZoneHours => {
                let sign = self.first();
                self.said.zone_sign = match sign {
                    Some('-') => -1,
                    // A minus that was taken for a separator.
                    Some('+' | ' ') => 1,
                    _ if self.skipped > 0 && self.before == Some('-') => -1,
                    _ => 1,
                };
                if matches!(sign, Some('+' | '-' | ' ')) {
                    self.skip();
                }
                let (value, _) = self.digits(placed, 2, open)?;
                set(&mut self.said.zone_hours, value, placed)?;
            }
            Field::YearWithComma => self.year_with_comma(placed)?,
            _ => self.number(placed, open)?,
        }
        if placed.ordinal.is_some() {
            // The ending's two letters.
            for _ in 0..2 {
                self.skip();
            }
        }
        Ok(())
    }

    fn number(&mut self, placed: &Placed, open: bool) -> Result<()> {
        let width = match placed.key.field {
            Field::Hour24 | Field::Hour12 => 2,
            Field::Fraction(digits) => digits.into(),
            Field::Micros => 6,
            Field::Millis | Field::IsoDayOfYear => 3,
            Field::IsoWeekday => 1,
            _ => placed.key.name.len(),
        };
        let (value, length) = self.digits(placed, width, open)?;
        let said = &mut self.said;
        let place = match placed.key.field {
            Field::Hour24 => &mut said.hour,
            Field::Hour12 => {
                said.half_day = true;
                &mut said.hour
            }
            Field::Minute => &mut said.minute,
            Field::Second => &mut said.second,
            Field::SecondOfDay => &mut said.second_of_day,
            Field::Millis => {
                set(&mut said.millis, value, placed)?;
                said.millis *= power(3_usize.saturating_sub(length));
                return Ok(());
            }
            Field::Micros | Field::Fraction(_) => {
                set(&mut said.micros, value, placed)?;
                said.micros *= power(6_usize.saturating_sub(length));
                return Ok(());
            }
            Field::ZoneMinutes => {
                said.zone_sign = if said.zone_sign == 0 { 1 } else { said.zone_sign };
                &mut said.zone_minutes
            }
            Field::Month => &mut said.month,
            Field::Day => &mut said.day,
            Field::DayOfYear | Field::IsoDayOfYear => &mut said.day_of_year,
            Field::Weekday => &mut said.weekday,
            Field::IsoWeekday => {
                // The week begins on Sunday, with 1, in what is kept.
                return set(&mut said.weekday, if value >= 7 { 1 } else { value + 1 }, placed);
            }
            Field::WeekOfYear | Field::IsoWeek => &mut said.week,
            Field::WeekOfMonth => &mut said.week_of_month,
            Field::Century => &mut said.century,
            Field::Julian => &mut said.julian,
            Field::Year { digits, .. } => {
                said.year_digits = digits;
                let year = if digits < 4 && length < 4 { near_2020(value) } else { value };
                return set(&mut said.year, year, placed);
            }
            // A quarter says too little to be of use.
            _ => return Ok(()),
        };
        set(place, value, placed)
    }

    /// `1,999`
    fn year_with_comma(&mut self, placed: &Placed) -> Result<()> {
        let wrong = || Error::format("invalid input string for \"Y,YYY\"", "");
        let (thousands, rest) = self.rest.split_once(',').ok_or_else(wrong)?;
        let length = rest.bytes().take(3).take_while(u8::is_ascii_digit).count();
        let thousands: i64 = thousands.trim_start().parse().map_err(|_| wrong())?;
        let years: i64 = rest[..length].parse().map_err(|_| wrong())?;
        let taken = self.rest.len() - rest.len() + length;
        self.advance(taken);
        self.said.year_digits = 4;
        set(&mut self.said.year, thousands.saturating_mul(1000).saturating_add(years), placed)
    }

    /// A number, and of how many characters: as many as there are where the template says so, or where
    /// what follows tells its end.
    fn digits(&mut self, placed: &Placed, width: usize, open: bool) -> Result<(i64, usize)> {
        let start = self.rest.len();
        let wrong = |text: &str, detail: String| {
            let reason = format!("invalid value \"{text}\" for \"{}\"", placed.written());
            Error::format(reason, detail)
        };
        let copy: String = {
            let rest = self.rest.trim_start_matches(is_blank);
            rest.chars().take(width).collect()
        };
        self.advance(self.rest.len() - self.rest.trim_start_matches(is_blank).len());
        let (number, used) = match placed.fill || open {
            true => leading(self.rest),
            false => {
                if copy.len() < width {
                    let reason = format!(
                        "source string too short for \"{}\" formatting field",
                        placed.written()
                    );
                    let detail = format!(
                        "Field requires {width} characters, but only {} remain.",
                        copy.len()
                    );
                    return Err(Error::format(reason, detail));
                }
                let (number, used) = leading(&copy);
                if used > 0 && used < copy.len() {
                    let detail = format!(
                        "Field requires {width} characters, but only {used} could be parsed."
                    );
                    return Err(wrong(&copy, detail));
                }
                (number, used)
            }
        };
        if used == 0 {
            return Err(wrong(&copy, "Value must be an integer.".to_owned()));
        }
        self.advance(used);
        match number {
            Some(number) => Ok((i64::from(number), start - self.rest.len())),
            None => Err(Error::FieldOutOfRange(placed.written())),
        }
    }

    fn word(&mut self, placed: &Placed) -> Result<()> {
        let dotted = |dots: bool, plain: &[&'static str], long: &[&'static str]| match dots {
            true => long.to_vec(),
            false => plain.to_vec(),
        };
        let short = |names: &[&'static str]| names.iter().map(|name| &name[..3]).collect();
        let names: Vec<&str> = match placed.key.field {
            Field::Half { dots } => dotted(dots, &["am", "pm"], &["a.m.", "p.m."]),
            Field::Era { dots } => dotted(dots, &["ad", "bc"], &["a.d.", "b.c."]),
            Field::MonthName => MONTHS.to_vec(),
            Field::ShortMonthName => short(&MONTHS),
            Field::DayName => WEEKDAYS.to_vec(),
            Field::ShortDayName => short(&WEEKDAYS),
            _ => ROMAN_MONTHS.to_vec(),
        };
        let begins = |name: &&str| {
            let start = self.rest.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        // VIII begins as VII, VI and V do.
        let found = (names.iter().enumerate())
            .filter(|(_, name)| begins(name))
            .max_by_key(|(_, name)| name.len());
        let Some((at, name)) = found else {
            let word: String = self.rest.chars().take_while(|c| !is_blank(*c)).collect();
            let reason = format!("invalid value \"{word}\" for \"{}\"", placed.written());
            let detail = "The given value did not match any of the allowed values for this field.";
            return Err(Error::format(reason, detail));
        };
        self.advance(name.len());
        let (said, at) = (&mut self.said, at as i64);
        match placed.key.field {
            Field::Half { .. } => {
                said.half_day = true;
                set(&mut said.afternoon, at, placed)
            }
            Field::Era { .. } => set(&mut said.before_christ, at, placed),
            Field::DayName | Field::ShortDayName => set(&mut said.weekday, at + 1, placed),
            _ => set(&mut said.month, at + 1, placed),
        }
    }
}

/// The number that a text begins with, and how many bytes it has; `None` for one that is too large.
fn leading(text: &str) -> (Option<i32>, usize) {
    let blanks = text.len() - text.trim_start_matches(is_blank).len();
    let unsigned = text[blanks..].strip_prefix(['+', '-']).unwrap_or(&text[blanks..]);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return (None, 0);
    }
    let end = text.len() - unsigned.len() + digits;
    (text[blanks..end].parse().ok(), end)
}

/// Keeps a value, which must not contradict an earlier one.
fn set(place: &mut i64, value: i64, placed: &Placed) -> Result<()> {
    if *place != 0 && *place != value {
        let field = placed.written();
        return Err(Error::format(
            format!("conflicting values for \"{field}\" field in formatting string"),
            "This value contradicts a previous setting for the same field type.",
        ));
    }
    *place = value;
    Ok(())
}

fn power(zeros: usize) -> i64 {
    (0..zeros).fold(1, |power, _| power * 10)
}

/// The year nearest to 2020 that ends with these digits.
fn near_2020(year: i64) -> i64 {
    match year {
        ..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

impl Said {
    fn keep_to(&mut self, convention: Convention) -> Result<()> {
        match self.convention {
            _ if convention == Convention::Either => {}
            None => self.convention = Some(convention),
            Some(known) if known == convention => {}
            Some(_) => {
                return Err(Error::format(
                    "invalid combination of date conventions",
                    "Do not mix Gregorian and ISO week date conventions in a formatting template.",
                ));
            }
        }
        Ok(())
    }

    /// The moment that all of it means.
    fn moment(&self, text: &str) -> Result<Read> {
        let outside = || Error::OutOfRange(text.to_owned());
        let micros = self.clock(text)?;
        let date = self.date(text)?;
        if !i32::try_from(date).is_ok_and(|date| DATE_RANGE.contains(&date)) {
            return Err(outside());
        }
        let offset = match self.zone_sign {
            0 => None,
            sign => {
                let (hours, minutes) = (self.zone_hours, self.zone_minutes);
                if !(0..=15).contains(&hours) || !(0..60).contains(&minutes) {
                    return Err(Error::ZoneOutOfRange(text.to_owned()));
                }
                i32::try_from(sign * (hours * 3600 + minutes * 60)).ok()
            }
        };
        Ok(Read { date, micros, offset })
    }

    fn clock(&self, text: &str) -> Result<i64> {
        let or = |value: i64, otherwise: i64| if value == 0 { otherwise } else { value };
        let of_day = self.second_of_day;
        let mut hour = or(self.hour, of_day / 3600);
        let (minute, second) = (or(self.minute, of_day / 60 % 60), or(self.second, of_day % 60));
        if self.half_day {
            if !(1..=12).contains(&hour) {
                return Err(Error::format(
                    format!("hour \"{hour}\" is invalid for the 12-hour clock"),
                    "Use the 24-hour clock, or give an hour between 1 and 12.",
                ));
            }
            hour = hour % 12 + 12 * self.afternoon;
        }
        let fraction = self.millis * 1000 + self.micros;
        let valid = (0..24).contains(&hour)
            && (0..60).contains(&minute)
            && (0..60).contains(&second)
            && (0..1_000_000).contains(&fraction);
        match valid {
            true => Ok(((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction),
            false => Err(Error::OutOfRange(text.to_owned())),
        }
    }

    /// The year, 0 for 1 BC, and for none.
    fn whole_year(&self) -> i64 {
        let century = if self.before_christ != 0 { -self.century } else { self.century };
        if self.year != 0 && self.century != 0 && self.year_digits <= 2 {
            // The two digits in the century.
            return match self.year % 100 {
                0 => century * 100 + i64::from(century < 0),
                year if century >= 0 => year + (century - 1) * 100,
                year => (century + 1) * 100 - year + 1,
            };
        }
        if self.year != 0 {
            let year = if self.before_christ != 0 { -self.year } else { self.year };
            return if year < 0 { year + 1 } else { year };
        }
        match century {
            0 => 0,
            // A century's first year.
            1.. => (century - 1) * 100 + 1,
            _ => century * 100 + 1,
        }
    }

    /// Days since 1970.
    fn date(&self, text: &str) -> Result<i64> {
        let outside = || Error::OutOfRange(text.to_owned());
        let (mut year, mut month, mut in_month) = (self.whole_year(), 1, 1);
        let put = |date: i64| {
            let day = day(date);
            (i64::from(day.year), i64::from(day.month), i64::from(day.day))
        };
        if self.julian != 0 {
            (year, month, in_month) = put(self.julian - JULIAN_EPOCH);
        }
        let by_weeks = self.convention == Some(Convention::IsoWeek);
        let mut of_year = self.day_of_year;
        if self.week != 0 && by_weeks {
            // Sunday, which is kept as 1, ends a week.
            let weekday = match self.weekday {
                0 | 2 => 0,
                1 => 6,
                other => other - 2,
            };
            (year, month, in_month) = put(iso_year_start(year) + (self.week - 1) * 7 + weekday);
        } else if self.week != 0 {
            of_year = (self.week - 1) * 7 + 1;
        }
        if self.week_of_month != 0 {
            in_month = (self.week_of_month - 1) * 7 + 1;
        }
        in_month = if self.day != 0 { self.day } else { in_month };
        month = if self.month != 0 { self.month } else { month };
        if of_year != 0 && (month <= 1 || in_month <= 1) {
            if year == 0 && self.before_christ == 0 {
                return Err(Error::format(
                    "cannot calculate day of year without year information",
                    "",
                ));
            }
            let (first, most) = match by_weeks {
                true => (iso_year_start(year), i64::from(i32::MAX)),
                false => (start_of(year).ok_or_else(outside)?, 366),
            };
            if !(1..=most).contains(&of_year) {
                return Err(outside());
            }
            let found = put(first + of_year - 1);
            match by_weeks {
                true => (year, month, in_month) = found,
                // Day 366 of a year that has 365 would be of a thirteenth month.
                false if month <= 1 && found.0 != year => return Err(outside()),
                false => {
                    month = if month <= 1 { found.1 } else { month };
                    in_month = if in_month <= 1 { found.2 } else { in_month };
                }
            }
        }
        let number = |value: i64| u32::try_from(value).ok();
        let (Some(month), Some(day)) = (number(month), number(in_month)) else {
            return Err(outside());
        };
        let year = i32::try_from(year).map_err(|_| outside())?;
        days(Day { year, month, day }).ok_or_else(outside)
    }
}

fn start_of(year: i64) -> Option<i64> {
    days(Day { year: i32::try_from(year).ok()?, month: 1, day: 1 })
}

impl Read {
    /// Microseconds since 1970, on the clocks that the text is about.
    pub fn local_micros(&self) -> Option<i64> {
        self.date.checked_mul(DAY_MICROS)?.checked_add(self.micros)
    }
}
