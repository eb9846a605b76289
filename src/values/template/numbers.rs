//! The template of a number, and numbers by it.

use super::fields::quoted;
use super::{Error, Result, check_length, ordinal};

/// A template of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberTemplate {
    pub(super) pieces: Vec<Piece>,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Field(Field),
    Text(char),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Comma,
    /// `.` and `D`.
    Point,
    /// `0`
    Zero,
    /// `9`
    Digit,
    Blank,
    Exponent,
    Fill,
    /// `G`
    Group,
    Currency,
    Minus,
    Plus,
    Brackets,
    Roman {
        lower: bool,
    },
    EitherSign,
    Sign,
    Ordinal {
        upper: bool,
    },
    /// `V`
    Shift,
    /// Known, and without a meaning: `C`, `SP`.
    Nothing,
}

/// Longer ones first, of those that begin alike.
const KEYS: &[(&str, Field)] = &[
    (",", Field::Comma),
    (".", Field::Point),
    ("0", Field::Zero),
    ("9", Field::Digit),
    ("B", Field::Blank),
    ("C", Field::Nothing),
    ("D", Field::Point),
    ("EEEE", Field::Exponent),
    ("FM", Field::Fill),
    ("G", Field::Group),
    ("L", Field::Currency),
    ("MI", Field::Minus),
    ("PL", Field::Plus),
    ("PR", Field::Brackets),
    ("RN", Field::Roman { lower: false }),
    ("SG", Field::EitherSign),
    ("SP", Field::Nothing),
    ("S", Field::Sign),
    ("TH", Field::Ordinal { upper: true }),
    ("V", Field::Shift),
];

/// Where the template has the sign that `S` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SignPlace {
    #[default]
    None,
    Before,
    Behind,
}

/// What the fields of a template come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Digits before and behind the point, and those that `V` shifts by.
    pub before: usize,
    pub behind: usize,
    pub shifted: usize,
    pub sign: SignPlace,
    /// Digits before the sign.
    before_sign: usize,
    pub has_sign: bool,
    pub brackets: bool,
    pub minus: bool,
    pub plus: bool,
    zero: bool,
    zero_start: usize,
    zero_end: usize,
    pub point: bool,
    pub fill: bool,
    pub shift: bool,
    pub roman: bool,
    pub exponent: bool,
    blank: bool,
}

/// A number to be written.
#[derive(Clone, Copy, Debug)]
pub enum Number<'a> {
    /// Its digits, with a sign and a point.
    Exact(&'a str),
    Float4(f32),
    Float8(f64),
}

impl NumberTemplate {
    /// # Errors
    /// Its fields do not go together, or it is too long.
    pub fn parse(template: &str) -> Result<Self> {
        check_length(template)?;
        let (mut pieces, mut form, mut rest) = (Vec::new(), Form::default(), template);
        while let Some(c) = rest.chars().next() {
            if let Some((length, field)) = field(rest) {
                form.prepare(field)?;
                pieces.push(Piece::Field(field));
                rest = &rest[length..];
            } else if c == '"' {
                rest = quoted(&rest[1..], |c| pieces.push(Piece::Text(c)));
            } else {
                // Outside quotes a backslash only keeps a quote from being one.
                rest = if rest.starts_with("\\\"") { &rest[1..] } else { rest };
                let c = if rest.starts_with('"') { '"' } else { c };
                pieces.push(Piece::Text(c));
                rest = &rest[c.len_utf8()..];
            }
        }
        Ok(Self { pieces, form })
    }

    /// Digits before and behind the point, of a number that is read.
    pub fn digits(&self) -> (usize, usize) {
        let Form { before, behind, shifted, .. } = self.form;
        (before + shifted, behind + shifted)
    }

    /// Writes a number by the template.
    ///
    /// # Errors
    /// A Roman number beyond the integers.
    pub fn write(&self, number: Number<'_>, out: &mut String) -> Result<()> {
        if self.form.roman {
            let text = roman(number)?;
            let mut writer = Writer::new(&self.form, &text, 0, false);
            writer.form.only_roman();
            writer.pieces(&self.pieces, out);
            return Ok(());
        }
        if self.form.exponent {
            out.push_str(&scientific(number, &self.form));
            return Ok(());
        }
        let mut form = self.form.clone();
        if form.shift {
            form.before += form.shifted;
        }
        let text = plain(number, &mut form);
        let negative = text.starts_with('-');
        let text = text.trim_start_matches('-');
        let before = text.find('.').unwrap_or(text.len());
        let (text, blanks) = match before > form.before {
            // It has no room.
            true => {
                let hashes = |count| "#".repeat(count);
                (format!("{}.{}", hashes(form.before), hashes(form.behind)), 0)
            }
            false => (text.to_owned(), form.before - before),
        };
        Writer::new(&form, &text, blanks, negative).pieces(&self.pieces, out);
        Ok(())
    }
}

/// The field that a template begins with, and its length.
fn field(template: &str) -> Option<(usize, Field)> {
    KEYS.iter().find_map(|(name, field)| {
        let start = template.get(..name.len())?;
        let lower = start == name.to_lowercase();
        (start == *name || lower).then(|| {
            let field = match field {
                Field::Roman { .. } => Field::Roman { lower },
                Field::Ordinal { .. } => Field::Ordinal { upper: !lower },
                other => *other,
            };
            (name.len(), field)
        })
    })
}

fn refused<T>(reason: &str) -> Result<T> {
    Err(Error::Template(reason.to_owned()))
}

impl Form {
    fn prepare(&mut self, field: Field) -> Result<()> {
        if self.exponent && field != Field::Exponent {
            return refused("\"EEEE\" must be the last pattern used");
        }
        match field {
            Field::Digit if self.brackets => return refused("\"9\" must be ahead of \"PR\""),
            Field::Zero if self.brackets => return refused("\"0\" must be ahead of \"PR\""),
            Field::Digit if self.shift => self.shifted += 1,
            Field::Digit if self.point => self.behind += 1,
            Field::Digit => self.before += 1,
            Field::Zero => {
                if !self.zero && !self.point {
                    (self.zero, self.zero_start) = (true, self.before + 1);
                }
                match self.point {
                    true => self.behind += 1,
                    false => self.before += 1,
                }
                self.zero_end = self.before + self.behind;
            }
            Field::Blank => self.blank |= self.before == 0 && self.behind == 0 && !self.zero,
            Field::Point if self.point => return refused("multiple decimal points"),
            Field::Point | Field::Shift if self.point || self.shift && field == Field::Point => {
                return refused("cannot use \"V\" and decimal point together");
            }
            Field::Point => self.point = true,
            Field::Shift => self.shift = true,
            Field::Fill => self.fill = true,
            Field::Roman { .. } => self.roman = true,
            Field::Exponent => return self.prepare_exponent(),
            other => return self.prepare_sign(other),
        }
        Ok(())
    }

    fn prepare_exponent(&mut self) -> Result<()> {
        if self.exponent {
            return refused("cannot use \"EEEE\" twice");
        }
        let signs = self.has_sign || self.brackets || self.minus || self.plus;
        if signs || self.blank || self.fill || self.roman || self.shift {
            return refused("\"EEEE\" is incompatible with other formats");
        }
        self.exponent = true;
        Ok(())
    }

    fn prepare_sign(&mut self, field: Field) -> Result<()> {
        match field {
            Field::Sign if self.has_sign => return refused("cannot use \"S\" twice"),
            Field::Sign if self.plus || self.minus || self.brackets => {
                return refused("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together");
            }
            Field::Sign => {
                self.has_sign = true;
                match self.point {
                    true => self.sign = SignPlace::Behind,
                    false => (self.sign, self.before_sign) = (SignPlace::Before, self.before),
                }
            }
            Field::Minus if self.has_sign => {
                return refused("cannot use \"S\" and \"MI\" together");
            }
            Field::Plus if self.has_sign => return refused("cannot use \"S\" and \"PL\" together"),
            Field::EitherSign if self.has_sign => {
                return refused("cannot use \"S\" and \"SG\" together");
            }
            Field::Minus => self.minus = true,
            Field::Plus => self.plus = true,
            Field::EitherSign => (self.minus, self.plus) = (true, true),
            Field::Brackets if self.has_sign || self.plus || self.minus => {
                return refused("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together");
            }
            Field::Brackets => self.brackets = true,
            _ => {}
        }
        Ok(())
    }

    /// A Roman number has no digits, signs and points.
    fn only_roman(&mut self) {
        *self = Self { fill: self.fill, roman: true, ..Self::default() };
    }
}

/// The digits of a number with as many behind the point as the template has, or as a float has at all.
fn plain(number: Number<'_>, form: &mut Form) -> String {
    let shift = if form.shift { form.shifted } else { 0 };
    let float = |value: f64, digits: usize, form: &mut Form| {
        let value = value * 10_f64.powi(shift as i32);
        if !value.is_finite() {
            let name = if value.is_nan() { "NaN" } else { "Infinity" };
            return if value < 0.0 { format!("-{name}") } else { name.to_owned() };
        }
        let before = format!("{:.0}", value.abs()).len();
        form.behind = form.behind.min(digits.saturating_sub(before));
        format!("{value:.behind$}", behind = form.behind)
    };
    match number {
        Number::Exact(text) => rounded(text, shift, form.behind),
        // C's FLT_DIG and DBL_DIG.
        Number::Float4(value) => float(value.into(), 6, form),
        Number::Float8(value) => float(value, 15, form),
    }
}

/// An exact number times a power of ten, rounded half away from zero to so many digits behind the point.
fn rounded(text: &str, shift: usize, places: usize) -> String {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let kept = shift + places;
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().take(kept)).collect();
    digits.resize(whole.len() + kept, b'0');
    if fraction.as_bytes().get(kept).is_some_and(|digit| *digit >= b'5') {
        carry(&mut digits);
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let zeros = zeros.min(digits.len() - places);
    let mut result: String = if negative && digits.iter().any(|digit| *digit != b'0') {
        "-".to_owned()
    } else {
        String::new()
    };
    let (before, behind) = digits[zeros..].split_at(digits.len() - zeros - places);
    let put = |digits: &[u8], to: &mut String| to.extend(digits.iter().map(|b| char::from(*b)));
    match before.is_empty() {
        true => result.push('0'),
        false => put(before, &mut result),
    }
    if places > 0 {
        result.push('.');
        put(behind, &mut result);
    }
    result
}

/// Adds one in the last place.
fn carry(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit != b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

/// `1.23e+04`, with a blank where a minus would be.
fn scientific(number: Number<'_>, form: &Form) -> String {
    let text = match number {
        Number::Exact(text) => scientific_of(text, form.behind),
        Number::Float4(value) if value.is_finite() => scientific_float(value.into(), form.behind),
        Number::Float8(value) if value.is_finite() => scientific_float(value, form.behind),
        _ => {
            let hashes = |count| "#".repeat(count);
            return format!(" {}.{}", hashes(form.before), hashes(form.behind + 4));
        }
    };
    if text.starts_with('-') { text } else { format!(" {text}") }
}

fn scientific_float(value: f64, places: usize) -> String {
    // Within the 65,535 places that Rust writes, as a template is shorter than that.
    let text = format!("{value:.places$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{digits}e{}", signed(exponent.parse().unwrap_or(0)))
}

fn signed(exponent: i64) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{:02}", exponent.abs())
}

fn scientific_of(text: &str, places: usize) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all: String = [whole, fraction].concat();
    let Some(first) = all.bytes().position(|digit| digit != b'0') else {
        return format!("{sign}{}e+00", rounded("0", 0, places));
    };
    let exponent = whole.len() as i64 - 1 - first as i64;
    let (lead, rest) = all[first..].split_at(1);
    format!("{sign}{}e{}", rounded(&format!("{lead}.{rest}"), 0, places), signed(exponent))
}

/// A Roman number from 1 to 3999.
fn roman(number: Number<'_>) -> Result<String> {
    const DIGITS: [(i32, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let whole = match number {
        Number::Exact(text) => rounded(text, 0, 0),
        Number::Float4(value) => format!("{:.0}", value),
        Number::Float8(value) => format!("{:.0}", value),
    };
    let mut number: i32 = whole.parse().map_err(|_| Error::RomanOutOfRange)?;
    if !(1..4000).contains(&number) {
        return Ok("#".repeat(15));
    }
    let mut text = String::new();
    for (value, digits) in DIGITS {
        while number >= value {
            text.push_str(digits);
            number -= value;
        }
    }
    Ok(text)
}

/// Writes the digits of one number (`NUM_processor` of `formatting.c`).
struct Writer<'a> {
    form: Form,
    number: &'a [u8],
    /// The digit that comes next.
    at: usize,
    negative: bool,
    sign_written: bool,
    /// Whether a digit was written.
    began: bool,
    /// Places of the template so far, and in all.
    place: usize,
    places: usize,
    /// Places before the first digit.
    blanks: usize,
    /// The last digit behind the point that is not a zero, or the point.
    last: Option<usize>,
}

impl<'a> Writer<'a> {
    fn new(form: &Form, number: &'a str, blanks: usize, negative: bool) -> Self {
        let mut form = form.clone();
        form.zero_start = form.zero_start.saturating_sub(1);
        let mut sign_written = match (form.plus, form.minus) {
            (true, false) => false,
            (false, false) => !negative && form.fill && !form.has_sign,
            _ => true,
        };
        if !form.plus && !form.minus {
            if !negative && form.fill {
                form.brackets = false;
                sign_written = !form.has_sign;
            }
            if form.sign == SignPlace::Before && form.before == form.before_sign {
                form.sign = SignPlace::Behind;
            }
        }
        let bytes = number.as_bytes();
        let last = (form.fill && form.point).then(|| last_relevant(bytes)).flatten();
        let last = last.map(|last| match form.zero_end > blanks {
            true => last.max((bytes.len() - 1).min(form.zero_end - blanks)),
            false => last,
        });
        let places = (form.behind + form.before) + usize::from(!sign_written && blanks == 0);
        let (at, began, place) = (0, false, 0);
        Self { form, number: bytes, at, negative, sign_written, began, place, places, blanks, last }
    }

    fn pieces(&mut self, pieces: &[Piece], out: &mut String) {
        let hashes = self.number.first() == Some(&b'#');
        for piece in pieces {
            let field = match piece {
                Piece::Text(c) => {
                    out.push(*c);
                    continue;
                }
                Piece::Field(field) => *field,
            };
            let fill = self.form.fill;
            let blank = |out: &mut String| out.extend((!fill).then_some(' '));
            match field {
                Field::Digit | Field::Zero | Field::Point => self.digit(field, out),
                Field::Comma | Field::Group if self.began => out.push(','),
                Field::Comma | Field::Group => blank(out),
                // There is no currency where there is no country.
                Field::Currency => out.push(' '),
                Field::Roman { lower } => {
                    let text = String::from_utf8_lossy(self.number);
                    let text = if lower { text.to_lowercase() } else { text.into_owned() };
                    let width = if fill { 0 } else { 15 };
                    out.push_str(&format!("{text:>width$}"));
                }
                Field::Ordinal { upper }
                    if !self.form.roman && !hashes && !self.negative && !self.form.point =>
                {
                    out.push_str(ordinal(&String::from_utf8_lossy(self.number), upper));
                }
                Field::Minus if self.negative => out.push('-'),
                Field::Plus if !self.negative => out.push('+'),
                Field::Minus | Field::Plus => blank(out),
                Field::EitherSign => out.push(if self.negative { '-' } else { '+' }),
                _ => {}
            }
        }
    }

    /// `0` before a point, where the template has no zero for it.
    fn is_zero_before_point(&self) -> bool {
        !self.form.zero
            && self.at == 0
            && self.number.first() == Some(&b'0')
            && self.form.behind != 0
    }

    fn ends_with_point(&self) -> bool {
        self.last.is_some_and(|last| self.number.get(last) == Some(&b'.'))
    }

    /// What stands in one place of the template (`NUM_numpart_to_char`).
    fn digit(&mut self, field: Field, out: &mut String) {
        if self.form.roman {
            return;
        }
        self.began = false;
        let zero_here = self.form.zero && self.form.zero_start == self.place;
        if !self.sign_written
            && (self.place >= self.blanks || zero_here)
            && (!self.is_zero_before_point() || self.ends_with_point())
        {
            self.sign_before(out);
        }
        let before_digits = self.place < self.blanks;
        if before_digits && (self.form.zero_start > self.place || !self.form.zero) {
            out.extend((!self.form.fill).then_some(' '));
        } else if before_digits {
            out.push('0');
            self.began = true;
        } else {
            self.next_digit(field, out);
        }
        let places = self.places + usize::from(self.blanks > 0) + usize::from(self.form.point);
        if self.place + 2 == places && self.last != Some(self.at) {
            if self.sign_written && self.form.brackets {
                out.push(if self.negative { '>' } else { ' ' });
            } else if self.form.has_sign && self.form.sign == SignPlace::Behind {
                out.push(if self.negative { '-' } else { '+' });
            }
        }
        self.place += 1;
    }

    fn sign_before(&mut self, out: &mut String) {
        if self.form.has_sign {
            if self.form.sign == SignPlace::Before {
                out.push(if self.negative { '-' } else { '+' });
                self.sign_written = true;
            }
            return;
        }
        match (self.form.brackets, self.negative) {
            (true, negative) => out.push(if negative { '<' } else { ' ' }),
            (false, true) => out.push('-'),
            (false, false) => out.extend((!self.form.fill).then_some(' ')),
        }
        self.sign_written = true;
    }

    fn next_digit(&mut self, field: Field, out: &mut String) {
        let digit = self.number.get(self.at).copied();
        match digit {
            Some(b'.') => {
                if !self.ends_with_point() || self.form.fill {
                    out.push('.');
                }
            }
            _ if self.last.is_some_and(|last| self.at > last) && field != Field::Zero => {}
            _ if self.is_zero_before_point() => {
                if !self.form.fill {
                    out.push(' ');
                } else if self.ends_with_point() {
                    out.push('0');
                }
            }
            Some(digit) => {
                out.push(char::from(digit));
                self.began = true;
            }
            None => self.began = true,
        }
        if digit.is_some() {
            self.at += 1;
        }
    }
}

/// Where the last digit behind the point is that is not a zero, or else the point.
fn last_relevant(number: &[u8]) -> Option<usize> {
    let point = number.iter().position(|b| *b == b'.')?;
    let last = number[point..].iter().rposition(|b| !matches!(b, b'0' | b'.'));
    Some(point + last.unwrap_or(0))
}
