//! Text by a template, as a number (`NUM_processor` of PostgreSQL's `formatting.c`, read the other way).

use super::numbers::{Field, Form, NumberTemplate, Piece, SignPlace};
use super::{Error, Result};

/// A text, read from left to right.
struct Reader<'a> {
    form: &'a Form,
    text: &'a [u8],
    at: usize,
    sign: Option<u8>,
    digits: String,
    point: bool,
    /// Digits before and behind the point.
    before: usize,
    behind: usize,
}

impl NumberTemplate {
    /// Reads a number: its digits, with a sign and a point.
    ///
    /// # Errors
    /// There is no number, it has more digits than the template, or it is in a form that is only written.
    pub fn read(&self, text: &str) -> Result<String> {
        let form = &self.form;
        if form.exponent {
            return Err(Error::NotRead("EEEE"));
        }
        if form.roman {
            return Err(Error::NotRead("RN"));
        }
        let (digits, sign) = (String::new(), None);
        let bytes = text.as_bytes();
        let mut reader =
            Reader { form, text: bytes, at: 0, sign, digits, point: false, before: 0, behind: 0 };
        for piece in &self.pieces {
            if reader.at >= bytes.len() {
                break;
            }
            match piece {
                Piece::Field(field) => reader.field(*field),
                Piece::Text(_) => reader.skip(),
            }
        }
        reader.number(text)
    }
}

impl Reader<'_> {
    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips one character of any length.
    fn skip(&mut self) {
        self.at += 1;
        while self.next().is_some_and(|byte| byte & 0xc0 == 0x80) {
            self.at += 1;
        }
    }

    /// Skips what cannot be part of a number.
    fn skip_other(&mut self, characters: usize) {
        for _ in 0..characters {
            match self.next() {
                None | Some(b'0'..=b'9' | b'.' | b',' | b'+' | b'-') => break,
                Some(_) => self.skip(),
            }
        }
    }

    fn field(&mut self, field: Field) {
        match field {
            Field::Digit | Field::Zero | Field::Point => {
                self.digit(field);
                self.at += 1;
            }
            // With FM a comma is not looked for: it takes the place of a digit.
            Field::Comma | Field::Group if self.form.fill => {}
            Field::Comma | Field::Group => self.at += usize::from(self.next() == Some(b',')),
            Field::Currency => self.skip_other(1),
            Field::Ordinal { .. } if !self.form.point && self.sign != Some(b'-') => {
                self.skip_other(2);
            }
            Field::Minus => self.sign_or_other(b"-"),
            Field::Plus => self.sign_or_other(b"+"),
            Field::EitherSign => self.sign_or_other(b"-+"),
            _ => {}
        }
    }

    fn sign_or_other(&mut self, signs: &[u8]) {
        match self.next() {
            Some(sign) if signs.contains(&sign) => {
                self.sign = Some(sign);
                self.at += 1;
            }
            _ => self.skip_other(1),
        }
    }

    /// `NUM_numpart_from_char`; what is read is the character that comes next.
    fn digit(&mut self, field: Field) {
        if self.next() == Some(b' ') {
            self.at += 1;
        }
        let is_first = self.before + self.behind == 0;
        if self.sign.is_none() && field != Field::Point && is_first {
            let localised = self.form.has_sign && self.form.sign == SignPlace::Before;
            self.sign = match self.next() {
                Some(sign @ (b'-' | b'+')) => Some(sign),
                Some(b'<') if self.form.brackets && !localised => Some(b'-'),
                _ => None,
            };
            self.at += usize::from(self.sign.is_some());
        }
        let mut read = false;
        match self.next() {
            Some(digit @ b'0'..=b'9') => {
                if self.point && self.behind == self.form.behind {
                    return;
                }
                self.digits.push(char::from(digit));
                match self.point {
                    true => self.behind += 1,
                    false => self.before += 1,
                }
                read = true;
            }
            Some(b'.') if self.form.point && !self.point => {
                self.digits.push('.');
                (self.point, read) = (true, true);
            }
            _ => {}
        }
        if self.sign.is_none() && self.before + self.behind > 0 {
            self.sign_behind(read);
        }
    }

    fn sign_behind(&mut self, read: bool) {
        if self.form.has_sign && read {
            // Right behind the last digit.
            if let Some(sign @ (b'-' | b'+')) = self.text.get(self.at + 1).copied() {
                self.sign = Some(sign);
                self.at += 1;
            }
        } else if !read
            && !self.form.has_sign
            && !self.form.plus
            && !self.form.minus
            && let Some(sign @ (b'-' | b'+')) = self.next()
        {
            self.sign = Some(sign);
        }
    }

    fn number(self, text: &str) -> Result<String> {
        let digits = self.digits.strip_suffix('.').unwrap_or(&self.digits);
        if !digits.bytes().any(|b| b.is_ascii_digit()) {
            return Err(Error::NoNumber(match text.is_empty() {
                true => " ".to_owned(),
                false => self.sign.map_or(' ', char::from).to_string() + digits,
            }));
        }
        let whole = digits.split('.').next().unwrap_or_default().trim_start_matches('0');
        if whole.len() > self.form.before + self.form.shifted {
            return Err(Error::Overflow);
        }
        let sign = if self.sign == Some(b'-') { "-" } else { "" };
        match self.form.shift {
            false => Ok(format!("{sign}{digits}")),
            true => Ok(format!("{sign}{}", shifted(digits, self.form.shifted))),
        }
    }
}

/// A number divided by a power of ten.
fn shifted(digits: &str, places: usize) -> String {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = format!("{whole:0>width$}", width = places + 1);
    let (whole, moved) = whole.split_at(whole.len() - places);
    format!("{whole}.{moved}{fraction}")
}
