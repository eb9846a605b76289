//! Literals that the SQL parser has no, or another, understanding of, as those that it reads: `U&'...'` and
//! `U&"..."` with any escape character and with pairs of surrogates, the escapes of `E'...'` that stand for
//! bytes, and a literal that goes on in another line.

use super::{Error, Result};
use crate::values::decode;

/// The text with such literals written plainly; `None` if there are none.
pub(super) fn plain(text: &str) -> Result<Option<String>> {
    // Few statements need a second look.
    let unicode = text.contains("&'") || text.contains("&\"");
    let escapes = || text.contains('\\') && (text.contains("E'") || text.contains("e'"));
    if !unicode && !goes_on(text) && !escapes() {
        return Ok(None);
    }
    let mut scanner = Scanner { text, at: 0, made: String::new(), copied: 0 };
    scanner.all()?;
    let Scanner { mut made, copied, .. } = scanner;
    if copied == 0 {
        return Ok(None);
    }
    made.push_str(&text[copied..]);
    Ok(Some(made))
}

/// Whether a line ends with a quote and the next begins with one.
fn goes_on(text: &str) -> bool {
    // Of what was last seen that is no blank: whether it is a quote, and whether its line has ended.
    let (mut quote, mut ended) = (false, false);
    for c in text.chars() {
        match c {
            '\'' if quote && ended => return true,
            '\'' => (quote, ended) = (true, false),
            '\n' => ended = true,
            c if c.is_whitespace() => {}
            _ => quote = false,
        }
    }
    false
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// What takes the text's place, up to where it was copied.
    made: String,
    copied: usize,
}

fn syntax<T>(reason: &str) -> Result<T> {
    Err(Error::Syntax(reason.to_owned()))
}

impl Scanner<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or_default()
    }

    /// Whether a letter in front of a place belongs to a name.
    fn in_name(&self, at: usize) -> bool {
        let before = at.checked_sub(1).map(|at| self.byte(at));
        before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80)
    }

    fn all(&mut self) -> Result<()> {
        while self.at < self.text.len() {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'-', b'-') => self.skip_to("\n"),
                (b'/', b'*') => self.skip_comment(),
                (b'"', _) => self.at = self.end_of(self.at, b'"').unwrap_or(self.text.len()),
                (b'$', _) if !self.in_name(self.at) => self.skip_dollars(),
                (b'\'', _) => self.literal()?,
                (b'U' | b'u', b'&')
                    if matches!(self.byte(self.at + 2), b'\'' | b'"') && !self.in_name(self.at) =>
                {
                    self.unicode()?;
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn skip_to(&mut self, end: &str) {
        let found = self.text.get(self.at..).and_then(|rest| rest.find(end));
        self.at = found.map_or(self.text.len(), |found| self.at + found + end.len());
    }

    fn skip_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// `$tag$ ... $tag$`
    fn skip_dollars(&mut self) {
        let name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        let bytes = &self.text.as_bytes()[self.at + 1..];
        let length = bytes.iter().take_while(|b| name(b)).count();
        let end = self.at + 1 + length;
        if self.byte(end) != b'$' || bytes.first().is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            return;
        }
        let tag = &self.text[self.at..=end];
        self.at = end + 1;
        self.skip_to(tag);
    }

    /// Behind what stands between quotes, of which two are one; `None` if it is not ended.
    fn end_of(&self, start: usize, quote: u8) -> Option<usize> {
        let mut at = start + 1;
        while at < self.text.len() {
            match (self.byte(at), self.byte(at + 1)) {
                (first, second) if first == quote && second == quote => at += 2,
                (first, _) if first == quote => return Some(at + 1),
                _ => at += 1,
            }
        }
        None
    }

    /// The same of `E'...'`, where a backslash keeps a quote from ending it.
    fn end_of_escaped(&self, start: usize) -> Option<usize> {
        let mut at = start + 1;
        while at < self.text.len() {
            match (self.byte(at), self.byte(at + 1)) {
                (b'\\', _) | (b'\'', b'\'') => at += 2,
                (b'\'', _) => return Some(at + 1),
                _ => at += 1,
            }
        }
        None
    }

    /// Where a literal that ends here goes on: in another line.
    fn next_part(&self, end: usize) -> Option<usize> {
        let rest = self.text.get(end..)?;
        let blanks = rest.len() - rest.trim_start().len();
        let next = rest[blanks..].starts_with('\'') && rest[..blanks].contains('\n');
        next.then_some(end + blanks)
    }

    /// What stands between the quotes of a literal, as it is written, and where it ends; whether it has
    /// several parts. `None` if it is not ended, which is the parser's to refuse: nothing may be put in its
    /// place.
    fn parts(&self, start: usize, escaped: bool) -> Option<(String, usize, bool)> {
        let (mut content, mut start, mut several) = (String::new(), start, false);
        loop {
            let end = match escaped {
                true => self.end_of_escaped(start)?,
                false => self.end_of(start, b'\'')?,
            };
            content.push_str(self.text.get(start + 1..end - 1)?);
            match self.next_part(end) {
                Some(next) => (start, several) = (next, true),
                None => return Some((content, end, several)),
            }
        }
    }

    fn literal(&mut self) -> Result<()> {
        let start = self.at;
        let before = start.checked_sub(1).map(|at| self.byte(at));
        let escaped = matches!(before, Some(b'E' | b'e')) && !self.in_name(start - 1);
        let Some((content, end, several)) = self.parts(start, escaped) else {
            self.at = self.text.len();
            return Ok(());
        };
        self.at = end;
        if escaped && has_codes(&content) {
            let text = unescaped(&content)?;
            self.put(start - 1, &quoted(&text, '\''), end);
        } else if several {
            self.put(start, &format!("'{content}'"), end);
        }
        Ok(())
    }

    /// `U&'...' [UESCAPE '.']`, or with double quotes.
    fn unicode(&mut self) -> Result<()> {
        let (start, quote) = (self.at, self.byte(self.at + 2));
        let literal = match quote {
            b'"' => self.end_of(start + 2, b'"').and_then(|end| {
                let content = self.text.get(start + 3..end - 1)?;
                Some((content.to_owned(), end))
            }),
            _ => self.parts(start + 2, false).map(|(content, end, _)| (content, end)),
        };
        let Some((content, mut end)) = literal else {
            self.at = self.text.len();
            return Ok(());
        };
        let mut escape = '\\';
        let rest = self.text.get(end..).unwrap_or_default();
        let word = rest.trim_start();
        if word.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("uescape")) {
            let literal = word[7..].trim_start();
            let mut chars = literal.chars();
            match (chars.next(), chars.next(), chars.next()) {
                (Some('\''), Some(c), Some('\'')) if is_escape(c) => escape = c,
                _ => return syntax("invalid Unicode escape character"),
            }
            end = self.text.len() - chars.as_str().len();
        }
        let quote = char::from(quote);
        let content = content.replace(&format!("{quote}{quote}"), &quote.to_string());
        let text = decoded(&content, escape)?;
        self.put(start, &quoted(&text, quote), end);
        self.at = end;
        Ok(())
    }

    /// Puts something in the place of a part of the text.
    fn put(&mut self, from: usize, instead: &str, to: usize) {
        self.made.push_str(&self.text[self.copied..from]);
        self.made.push_str(instead);
        self.copied = to;
    }
}

fn is_escape(c: char) -> bool {
    !c.is_ascii_hexdigit() && !c.is_whitespace() && !matches!(c, '+' | '\'' | '"')
}

fn quoted(text: &str, quote: char) -> String {
    let doubled = format!("{quote}{quote}");
    format!("{quote}{}{quote}", text.replace(quote, &doubled))
}

/// Whether an escape string has others than those of single characters.
fn has_codes(content: &str) -> bool {
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next().is_some_and(|c| matches!(c, '0'..='7' | 'x' | 'u' | 'U')) {
            return true;
        }
    }
    false
}

/// Characters by their numbers, of which two surrogates are one.
#[derive(Default)]
struct Codes {
    high: Option<u32>,
}

impl Codes {
    fn character(&mut self, code: u32) -> Result<Option<char>> {
        match (self.high.take(), code) {
            (Some(high), 0xdc00..0xe000) => {
                Ok(char::from_u32(0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00)))
            }
            (None, 0xd800..0xdc00) => {
                self.high = Some(code);
                Ok(None)
            }
            (Some(_), _) | (None, 0xdc00..0xe000) => syntax("invalid Unicode surrogate pair"),
            (None, 0) => syntax("invalid Unicode escape value"),
            (None, code) => match char::from_u32(code) {
                Some(c) => Ok(Some(c)),
                None => syntax("invalid Unicode escape value"),
            },
        }
    }

    /// Anything else ends a pair.
    fn other(&self) -> Result<()> {
        match self.high {
            Some(_) => syntax("invalid Unicode surrogate pair"),
            None => Ok(()),
        }
    }
}

fn hex(digits: Option<&str>) -> Result<u32> {
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        Some(code) => Ok(code),
        None => syntax("invalid Unicode escape"),
    }
}

/// What stands in `U&'...'`.
fn decoded(content: &str, escape: char) -> Result<String> {
    let (mut text, mut rest, mut codes) = (String::new(), content, Codes::default());
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != escape {
            codes.other()?;
            text.push(c);
        } else if rest.starts_with(escape) {
            codes.other()?;
            text.push(escape);
            rest = &rest[escape.len_utf8()..];
        } else {
            let (from, to) = if rest.starts_with('+') { (1, 7) } else { (0, 4) };
            text.extend(codes.character(hex(rest.get(from..to))?)?);
            rest = &rest[to..];
        }
    }
    codes.other()?;
    Ok(text)
}

/// What stands in `E'...'`.
fn unescaped(content: &str) -> Result<String> {
    let invalid = || {
        Error::planning(datafusion::error::DataFusionError::External(Box::new(
            decode::Error::InvalidEncoding,
        )))
    };
    let (mut bytes, mut rest, mut codes) = (Vec::new(), content, Codes::default());
    let mut utf8 = [0; 4];
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let mut put = |c: char, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
        };
        if c != '\\' {
            codes.other()?;
            put(c, &mut bytes);
            // Of two quotes one is left.
            rest = if c == '\'' { rest.strip_prefix('\'').unwrap_or(rest) } else { rest };
            continue;
        }
        let Some(letter) = rest.chars().next() else { break };
        rest = &rest[letter.len_utf8()..];
        if let Some(length) = [('u', 4), ('U', 8)].iter().find(|(l, _)| *l == letter) {
            if let Some(c) = codes.character(hex(rest.get(..length.1))?)? {
                put(c, &mut bytes);
            }
            rest = &rest[length.1..];
            continue;
        }
        codes.other()?;
        let digits = |radix: u32, most: usize, text: &str| {
            text.chars().take(most).take_while(|c| c.is_digit(radix)).count()
        };
        let (number, used) = match letter {
            '0'..='7' => {
                let more = digits(8, 2, rest);
                (u32::from_str_radix(&format!("{letter}{}", &rest[..more]), 8), more)
            }
            'x' if digits(16, 2, rest) > 0 => {
                let used = digits(16, 2, rest);
                (u32::from_str_radix(&rest[..used], 16), used)
            }
            other => {
                put(single(other), &mut bytes);
                continue;
            }
        };
        rest = &rest[used..];
        match number.map(|number| number as u8) {
            Ok(0) | Err(_) => return Err(invalid()),
            Ok(byte) => bytes.push(byte),
        }
    }
    codes.other()?;
    String::from_utf8(bytes).map_err(|_| invalid())
}

fn single(letter: char) -> char {
    match letter {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_written_plainly() {
        for (text, expected) in [
            ("SELECT 'a'\n  'b' 'c'", "SELECT 'ab' 'c'"),
            ("SELECT U&'d\\0061t\\+01F600'''", "SELECT 'dat😀'''"),
            ("SELECT u&'\\D83D\\DE00'", "SELECT '😀'"),
            ("SELECT U&'d!0061' UESCAPE '!', 1", "SELECT 'da', 1"),
            ("SELECT U&\"d\\0061\"", "SELECT \"da\""),
            ("SELECT E'\\x41\\102\\u0043\\'\\n'", "SELECT 'ABC''\n'"),
            ("SELECT e'a'\n'\\\\b'", "SELECT e'a\\\\b'"),
        ] {
            assert_eq!(plain(text).expect(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in [
            "SELECT 'a' 'b'",
            "SELECT $$U&'\\0061'$$, $a$ 'a'\n'b' $a$",
            "-- 'a'\n'b",
            "/* U&'\\0061' */ SELECT \"a U&'\"",
            "SELECT nu&'a', E'\\n'",
        ] {
            assert_eq!(plain(text).expect(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_ended_is_left_to_the_parser() {
        for text in [
            "SELECT 'a'\n'bc",
            "SELECT U&'\\0061bc",
            "SELECT U&'a\u{e9}",
            "SELECT U&\"\\0061bc",
            "SELECT E'\\x41bc",
            "SELECT E'\\x41\\",
            "SELECT e'\\x41'\n'bc",
            "SELECT 'a'\n'b''",
        ] {
            assert_eq!(plain(text).expect(text), None, "{text}");
        }
    }

    /// Each line anew would be looked for the quote in front of all the others.
    #[test]
    fn many_lines_are_looked_through_once() {
        let lines = "\n".repeat(1 << 20);
        for (text, expected) in [
            (format!("SELECT 1{lines}"), false),
            (format!("SELECT 'a'{lines}, 'b'"), false),
            (format!("SELECT 'a'{lines}'b'"), true),
            (format!("SELECT 'a'{lines}x\n'b'"), false),
        ] {
            assert_eq!(goes_on(&text), expected);
        }
    }

    #[test]
    fn wrong_escapes_are_refused() {
        for text in [
            "SELECT U&'\\0000'",
            "SELECT U&'\\D83D'",
            "SELECT U&'\\00'",
            "SELECT U&'a' UESCAPE 'a'",
            "SELECT E'\\000'",
            "SELECT E'\\xff'",
        ] {
            assert!(plain(text).is_err(), "{text}");
        }
    }
}
