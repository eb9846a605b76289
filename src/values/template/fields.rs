//! The template of a date or time, in pieces.

use super::{Result, check_length};

/// A template of a date or time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MomentTemplate {
    pub(super) pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Field(Placed),
    /// Punctuation outside quotes.
    Separator(char),
    Space(char),
    Text(char),
}

/// A field in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub key: &'static Key,
    pub case: Case,
    /// `FM`: without zeros and blanks that only fill.
    pub fill: bool,
    /// `TM`, which is about names.
    pub local: bool,
    /// `TH` (true) or `th`.
    pub ordinal: Option<bool>,
}

impl Placed {
    /// The field as the template has it, for messages.
    pub(super) fn written(&self) -> String {
        match self.case {
            Case::Upper => self.key.name.to_owned(),
            Case::Lower => self.key.name.to_lowercase(),
            Case::Capital => capital(self.key.name),
        }
    }
}

pub(super) fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + &rest.to_lowercase()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Lower,
    /// `Month`, `Mon`, `Day`, `Dy`.
    Capital,
}

/// What a field stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Era {
        dots: bool,
    },
    Half {
        dots: bool,
    },
    Century,
    DayName,
    ShortDayName,
    DayOfYear,
    IsoDayOfYear,
    Day,
    Weekday,
    IsoWeekday,
    /// So many digits behind the point.
    Fraction(u8),
    Exact,
    Hour24,
    Hour12,
    IsoWeek,
    /// So many digits, of the ISO year or the calendar's.
    Year {
        digits: u8,
        iso: bool,
    },
    YearWithComma,
    Julian,
    Minute,
    Month,
    MonthName,
    ShortMonthName,
    Millis,
    Offset,
    Quarter,
    RomanMonth,
    SecondOfDay,
    Second,
    ZoneHours,
    ZoneMinutes,
    ZoneName,
    Micros,
    WeekOfYear,
    WeekOfMonth,
}

/// Which calendar a field belongs to: a text is read by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convention {
    Either,
    Gregorian,
    IsoWeek,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub name: &'static str,
    pub field: Field,
    /// Whether it is read as digits.
    pub digits: bool,
    pub convention: Convention,
}

const fn digits(name: &'static str, field: Field) -> Key {
    Key { name, field, digits: true, convention: Convention::Either }
}

const fn words(name: &'static str, field: Field) -> Key {
    Key { name, field, digits: false, convention: Convention::Either }
}

impl Key {
    const fn gregorian(self) -> Self {
        Self { convention: Convention::Gregorian, ..self }
    }

    const fn iso(self) -> Self {
        Self { convention: Convention::IsoWeek, ..self }
    }
}

const fn year(digits: u8) -> Field {
    Field::Year { digits, iso: false }
}

const fn iso_year(digits: u8) -> Field {
    Field::Year { digits, iso: true }
}

/// Of those that begin alike, the longest first.
static KEYS: &[Key] = &[
    words("A.D.", Field::Era { dots: true }),
    words("A.M.", Field::Half { dots: true }),
    words("AD", Field::Era { dots: false }),
    words("AM", Field::Half { dots: false }),
    words("B.C.", Field::Era { dots: true }),
    words("BC", Field::Era { dots: false }),
    digits("CC", Field::Century),
    words("DAY", Field::DayName),
    digits("DDD", Field::DayOfYear).gregorian(),
    digits("DD", Field::Day).gregorian(),
    words("DY", Field::ShortDayName),
    digits("D", Field::Weekday).gregorian(),
    digits("FF1", Field::Fraction(1)),
    digits("FF2", Field::Fraction(2)),
    digits("FF3", Field::Fraction(3)),
    digits("FF4", Field::Fraction(4)),
    digits("FF5", Field::Fraction(5)),
    digits("FF6", Field::Fraction(6)),
    words("FX", Field::Exact),
    digits("HH24", Field::Hour24),
    digits("HH12", Field::Hour12),
    digits("HH", Field::Hour12),
    digits("IDDD", Field::IsoDayOfYear).iso(),
    digits("ID", Field::IsoWeekday).iso(),
    digits("IW", Field::IsoWeek).iso(),
    digits("IYYY", iso_year(4)).iso(),
    digits("IYY", iso_year(3)).iso(),
    digits("IY", iso_year(2)).iso(),
    digits("I", iso_year(1)).iso(),
    digits("J", Field::Julian),
    digits("MI", Field::Minute),
    digits("MM", Field::Month).gregorian(),
    words("MONTH", Field::MonthName).gregorian(),
    words("MON", Field::ShortMonthName).gregorian(),
    digits("MS", Field::Millis),
    words("OF", Field::Offset),
    words("P.M.", Field::Half { dots: true }),
    words("PM", Field::Half { dots: false }),
    digits("Q", Field::Quarter),
    words("RM", Field::RomanMonth).gregorian(),
    digits("SSSSS", Field::SecondOfDay),
    digits("SSSS", Field::SecondOfDay),
    digits("SS", Field::Second),
    words("TZH", Field::ZoneHours),
    digits("TZM", Field::ZoneMinutes),
    words("TZ", Field::ZoneName),
    digits("US", Field::Micros),
    digits("WW", Field::WeekOfYear).gregorian(),
    digits("W", Field::WeekOfMonth).gregorian(),
    digits("Y,YYY", Field::YearWithComma).gregorian(),
    digits("YYYY", year(4)).gregorian(),
    digits("YYY", year(3)).gregorian(),
    digits("YY", year(2)).gregorian(),
    digits("Y", year(1)).gregorian(),
];

/// The field that a template begins with.
fn field(template: &str) -> Option<(&'static Key, Case)> {
    KEYS.iter().find_map(|key| {
        let written = template.get(..key.name.len())?;
        if !written.eq_ignore_ascii_case(key.name) {
            return None;
        }
        let case = match written {
            upper if upper == key.name => Case::Upper,
            lower if !lower.bytes().any(|b| b.is_ascii_uppercase()) => Case::Lower,
            word if is_name(key.field) && word == capital(key.name) => Case::Capital,
            _ => return None,
        };
        Some((key, case))
    })
}

fn is_name(field: Field) -> bool {
    use Field::{DayName, MonthName, ShortDayName, ShortMonthName};
    matches!(field, DayName | MonthName | ShortDayName | ShortMonthName)
}

/// Takes one of two words, in capitals or in small letters, off the front.
fn strip<'a>(text: &'a str, upper: &str, lower: &str) -> Option<&'a str> {
    text.strip_prefix(upper).or_else(|| text.strip_prefix(lower))
}

impl MomentTemplate {
    /// Any text is a template: what is no field stands for itself.
    ///
    /// # Errors
    /// It is too long.
    pub fn parse(template: &str) -> Result<Self> {
        check_length(template)?;
        let (mut pieces, mut rest) = (Vec::new(), template);
        while !rest.is_empty() {
            let (mut fill, mut local) = (false, false);
            if let Some(behind) = strip(rest, "FM", "fm") {
                (fill, rest) = (true, behind);
            } else if let Some(behind) = strip(rest, "TM", "tm") {
                (local, rest) = (true, behind);
            }
            match field(rest) {
                Some((key, case)) => {
                    rest = &rest[key.name.len()..];
                    let mut ordinal = None;
                    if let Some(behind) = strip(rest, "TH", "th") {
                        ordinal = Some(rest.starts_with('T'));
                        rest = behind;
                    } else if let Some(behind) = strip(rest, "SP", "sp") {
                        // Numbers in words, which PostgreSQL has not either.
                        rest = behind;
                    }
                    pieces.push(Piece::Field(Placed { key, case, fill, local, ordinal }));
                }
                None => rest = other(rest, &mut pieces),
            }
        }
        Ok(Self { pieces })
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Takes a character that is no field's, or a text in quotes; what follows.
fn other<'a>(rest: &'a str, pieces: &mut Vec<Piece>) -> &'a str {
    if let Some(quoted) = rest.strip_prefix('"') {
        return self::quoted(quoted, |c| pieces.push(Piece::Text(c)));
    }
    // Outside quotes a backslash only keeps a quote from being one.
    let rest = if rest.starts_with("\\\"") { &rest[1..] } else { rest };
    let Some(c) = rest.chars().next() else { return rest };
    pieces.push(match c {
        c if is_separator(c) => Piece::Separator(c),
        c if is_blank(c) => Piece::Space(c),
        c => Piece::Text(c),
    });
    &rest[c.len_utf8()..]
}

/// Reads what stands in quotes, behind the first of them; what follows.
pub(super) fn quoted(text: &str, mut each: impl FnMut(char)) -> &str {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some(next) => each(next),
                None => each('\\'),
            },
            c => each(c),
        }
    }
    chars.as_str()
}

/// ASCII punctuation.
pub(super) fn is_separator(c: char) -> bool {
    c.is_ascii_graphic() && !c.is_ascii_alphanumeric()
}

/// What C's `isspace` takes for a blank.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
