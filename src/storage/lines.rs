//! Lines of CSV in which something is wrong, as people count them: from 1, with the header.

use arrow::datatypes::{DataType, Field};
use serde::de::IgnoredAny;

use super::json::MARK;
use crate::values::types::{pg_type, sql_name};

/// What readers of CSV say of a line, in words; `None` if it is something else. `before` are lines in front
/// of those that they have read.
pub(super) fn told(text: &str, before: u64) -> Option<String> {
    of_value(text, before)
        .or_else(|| of_moment(text, before))
        .or_else(|| of_fields(text, before))
        .or_else(|| of_quote(text, before))
}

/// `unterminated quote at line 3`, or `... at line 3 of a part`, counted from 1: of our own.
fn of_quote(text: &str, before: u64) -> Option<String> {
    let rest = text.strip_prefix("unterminated quote at line ")?;
    let &[line, ..] = numbers(rest).as_slice() else { return None };
    let line = before + line;
    Some(match rest.ends_with(" of a part") {
        true => format!(
            "line {line} has a quoted value that ends in another line, which takes \
             OPTIONS ('newlines_in_values' 'true')"
        ),
        false => format!("line {line} has a quoted value that does not end"),
    })
}

/// `Error while parsing value 'x' as type 'Int32' for column 0 at line 2. Row data: '[x,y]'`, without the
/// row, which may hold what is nobody's business. Both are counted from 0.
fn of_value(text: &str, before: u64) -> Option<String> {
    let rest = text.strip_prefix("Error while parsing value '")?;
    let (value, rest) = rest.split_once("' as type '")?;
    let (kind, rest) = rest.split_once("' for column ")?;
    let &[column, line, ..] = numbers(rest).as_slice() else { return None };
    let kind: DataType = kind.parse().ok()?;
    let kind = sql_name(pg_type(&Field::new("", kind, true)).name());
    let place = place(before + line + 1, column + 1);
    Some(format!("{place}: invalid input syntax for type {kind}: \"{value}\""))
}

/// `Error parsing column 0 at line 2: Parser error: ...`, counted from 0 as well.
fn of_moment(text: &str, before: u64) -> Option<String> {
    let rest = text.strip_prefix("Error parsing column ")?;
    let (numbered, reason) = rest.split_once(": ")?;
    let &[column, line] = numbers(numbered).as_slice() else { return None };
    let reason = reason.trim_start_matches("Parser error: ");
    Some(format!("{}: {reason}", place(before + line + 1, column + 1)))
}

/// `... unequal lengths between records on CSV file. Expected 2 records, found 1 records at line 3`,
/// `incorrect number of fields for line 3, expected 2 got 1`, or `Encountered invalid UTF-8 data for line 3
/// and field 1`: counted from 1.
fn of_fields(text: &str, before: u64) -> Option<String> {
    let (expected, found, line) =
        if let Some((_, rest)) = text.split_once("invalid UTF-8 data for line ") {
            let &[line, field, ..] = numbers(rest).as_slice() else { return None };
            return Some(format!("{}: it is not UTF-8", place(before + line, field)));
        } else if let Some((_, rest)) = text.split_once("unequal lengths between records") {
            let &[expected, found, line, ..] = numbers(rest).as_slice() else { return None };
            (expected, found, line)
        } else {
            let (_, rest) = text.split_once("incorrect number of fields for line ")?;
            let &[line, expected, found, ..] = numbers(rest).as_slice() else { return None };
            (expected, found, line)
        };
    let line = before + line;
    if text.contains("got more than") {
        return Some(format!("line {line} has more than the {expected} fields that were expected"));
    }
    let fields = |count| if count == 1 { "1 field".to_owned() } else { format!("{count} fields") };
    Some(format!("line {line} has {}, where {} were expected", fields(found), fields(expected)))
}

/// The first line of JSON that is none, and why. Each value has a line of its own, or takes several: then it is
/// told where it goes wrong.
pub(super) fn of_json(text: &[u8]) -> Option<String> {
    let text = text.strip_prefix(&MARK).unwrap_or(text);
    // Packed bytes are no lines.
    std::str::from_utf8(text).ok()?;
    let is_blank = |line: &&[u8]| line.trim_ascii().is_empty();
    let lines = text.split(|byte| *byte == b'\n');
    let blank = lines.clone().take_while(is_blank).count() as u64;
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    let fault = values.find_map(Result::err)?;
    let numbered = (1..).zip(lines).filter(|(_, line)| !is_blank(line));
    let own = |(at, line)| Some((at, serde_json::from_slice::<IgnoredAny>(line).err()?));
    let (line, own) = numbered.filter_map(own).next()?;
    let (line, fault) = match line > blank + 1 {
        true => (line, own),
        false => (fault.line() as u64, fault),
    };
    let reason = fault.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    Some(format!("{}: {reason}", place(line, fault.column() as u64)))
}

fn place(line: u64, column: u64) -> String {
    format!("line {line}, column {column}")
}

fn numbers(text: &str) -> Vec<u64> {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_json_is_told() {
        for (text, said) in [
            (
                "{\"a\":1}\n{\"a\":\n{\"a\":3}\n",
                Some("line 2, column 5: EOF while parsing a value"),
            ),
            ("{\"a\":1}\n\nnonsense\n", Some("line 3, column 2: expected ident")),
            ("nonsense\n", Some("line 1, column 2: expected ident")),
            ("{\n\"a\":1\n}\n{\n\"a\" 1\n}\n", Some("line 5, column 5: expected `:`")),
            ("{\"a\":1}\n{\"a\":2}", None),
            ("{\n\"a\":1\n}\n", None),
            ("\u{feff}{\"a\":1}\n", None),
            ("\u{feff}{\"a\":1}\n{\"a\" 1}\n", Some("line 2, column 6: expected `:`")),
        ] {
            assert_eq!(of_json(text.as_bytes()).as_deref(), said, "{text:?}");
        }
    }

    #[test]
    fn lines_and_columns_are_told_from_one() {
        for (text, said) in [
            (
                "Error while parsing value 'x' as type 'Int32' for column 0 at line 2. Row data: '[x,secret]'",
                "line 3, column 1: invalid input syntax for type integer: \"x\"",
            ),
            (
                "Error parsing column 1 at line 0: Parser error: Error parsing timestamp from '7': error \
                 parsing date",
                "line 1, column 2: Error parsing timestamp from '7': error parsing date",
            ),
            (
                "Encountered unequal lengths between records on CSV file. Expected 2 records, found 1 \
                 records at line 3",
                "line 3 has 1 field, where 2 fields were expected",
            ),
            (
                "incorrect number of fields for line 4, expected 2 got more than 2",
                "line 4 has more than the 2 fields that were expected",
            ),
            (
                "incorrect number of fields for line 3, expected 2 got 1",
                "line 3 has 1 field, where 2 fields were expected",
            ),
            ("unterminated quote at line 4", "line 4 has a quoted value that does not end"),
            (
                "unterminated quote at line 4 of a part",
                "line 4 has a quoted value that ends in another line, which takes \
                 OPTIONS ('newlines_in_values' 'true')",
            ),
            (
                "Encountered invalid UTF-8 data for line 2 and field 1",
                "line 2, column 1: it is not UTF-8",
            ),
        ] {
            assert_eq!(told(text, 0).as_deref(), Some(said));
            // It is said once.
            assert_eq!(told(said, 7), None);
            let line = said.split([' ', ',']).nth(1).and_then(|line| line.parse::<u64>().ok());
            let line = line.expect("the line's number");
            let behind = said.replacen(&line.to_string(), &(line + 100).to_string(), 1);
            assert_eq!(told(text, 100), Some(behind));
        }
        assert_eq!(told("its metadata of 7 bytes is cut off", 0), None);
    }
}
