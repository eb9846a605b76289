//! What two servers answer to a statement, and whether it is the same.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;

use crate::script::{Bind, Step};
use crate::session::{Heard, Session};

/// OIDs of types.
const NUMBERS: &[u32] = &[20, 21, 23, 1700];
const FLOATS: &[u32] = &[700, 701];

/// By what part of themselves two inexact numbers may differ, that were computed in another order.
const ROUNDING: f64 = 1e-9;

/// How many rows of an answer are shown.
const SHOWN: usize = 6;

pub type Row = Vec<Option<String>>;

#[derive(Clone, Debug)]
pub enum Answer {
    Rows {
        types: Vec<u32>,
        rows: Vec<Row>,
    },
    Failed {
        code: String,
        message: String,
    },
    /// It said nothing, or nonsense.
    Lost(String),
}

/// How alike two answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    Same,
    /// But for the last digits of inexact numbers.
    Rounded,
    Different,
}

/// Asks for a statement's rows in text; `extended`: with Parse, Bind and Execute.
pub fn ask(session: &mut Session, sql: &str, extended: bool) -> Answer {
    let (name, portal) = (String::new(), String::new());
    let steps = match extended {
        false => vec![Step::Query(sql.to_owned())],
        true => vec![
            Step::Parse { name: name.clone(), types: Vec::new(), sql: sql.to_owned() },
            Step::Bind(Bind::default()),
            Step::Describe { kind: b'P', name },
            Step::Execute { portal, rows: 0 },
            Step::Sync,
        ],
    };
    steps.iter().for_each(|step| session.say(step));
    let (mut types, mut rows, mut failed, mut lost) = (Vec::new(), Vec::new(), None, None);
    for heard in session.hear('Z') {
        match heard {
            Heard::Message(Message::RowDescription(body)) => {
                types = body.fields().map(|field| Ok(field.type_oid())).collect().expect("fields");
            }
            Heard::Message(Message::DataRow(body)) => {
                let text = |range: Option<std::ops::Range<usize>>| {
                    let bytes = range.map(|range| &body.buffer()[range]);
                    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
                };
                rows.push(body.ranges().map(text).collect().expect("values"));
            }
            Heard::Message(Message::ErrorResponse(body)) => {
                let field = |kind: u8| {
                    let mut fields = body.fields().filter(|field| Ok(field.type_() == kind));
                    let found = fields.next().ok().flatten();
                    found.map(|field| String::from_utf8_lossy(field.value_bytes()).into_owned())
                };
                let (code, message) = (field(b'C'), field(b'M'));
                failed = Some((code.unwrap_or_default(), message.unwrap_or_default()));
            }
            Heard::Message(_) => {}
            Heard::Nothing | Heard::End => lost = Some("no answer".to_owned()),
            Heard::Nonsense(what) => lost = Some(what),
            Heard::Negotiation(_) => lost = Some("another version".to_owned()),
        }
    }
    match (lost, failed) {
        (Some(what), _) => Answer::Lost(what),
        (None, Some((code, message))) => Answer::Failed { code, message },
        (None, None) => Answer::Rows { types, rows },
    }
}

/// Compares two answers: rows as a set of them, or in their order; failures by the class of their
/// SQLSTATE.
pub fn compare(theirs: &Answer, ours: &Answer, ordered: bool) -> Alike {
    match (theirs, ours) {
        (Answer::Rows { types, rows }, Answer::Rows { rows: ours, .. }) => {
            let same = |one: &Row, other: &Row| alike(types, one, other);
            match rows.len() == ours.len() {
                false => Alike::Different,
                true if ordered => rows
                    .iter()
                    .zip(ours)
                    .map(|(one, other)| same(one, other))
                    .fold(Alike::Same, worse),
                true => as_sets(rows, ours, same),
            }
        }
        (Answer::Failed { code, .. }, Answer::Failed { code: ours, .. })
            if code.get(..2) == ours.get(..2) =>
        {
            Alike::Same
        }
        _ => Alike::Different,
    }
}

fn worse(one: Alike, other: Alike) -> Alike {
    match (one, other) {
        (Alike::Different, _) | (_, Alike::Different) => Alike::Different,
        (Alike::Rounded, _) | (_, Alike::Rounded) => Alike::Rounded,
        _ => Alike::Same,
    }
}

/// Each row has one of its own on the other side.
fn as_sets(rows: &[Row], others: &[Row], same: impl Fn(&Row, &Row) -> Alike) -> Alike {
    let mut left: Vec<&Row> = others.iter().collect();
    let mut whole = Alike::Same;
    for row in rows {
        let best = [Alike::Same, Alike::Rounded].into_iter().find_map(|wanted| {
            Some((left.iter().position(|other| same(row, other) == wanted)?, wanted))
        });
        let Some((at, found)) = best else { return Alike::Different };
        left.swap_remove(at);
        whole = worse(whole, found);
    }
    whole
}

/// Whether two rows are, as far as the types of the first say so.
fn alike(types: &[u32], row: &Row, other: &Row) -> Alike {
    if row.len() != other.len() {
        return Alike::Different;
    }
    let values = row.iter().zip(other).zip(types);
    values.map(|((one, other), kind)| value(*kind, one, other)).fold(Alike::Same, worse)
}

fn value(kind: u32, one: &Option<String>, other: &Option<String>) -> Alike {
    let (one, other) = match (one, other) {
        (None, None) => return Alike::Same,
        (Some(one), Some(other)) => (one, other),
        _ => return Alike::Different,
    };
    let inexact = FLOATS.contains(&kind);
    if one == other || !inexact && NUMBERS.contains(&kind) && plain(one) == plain(other) {
        return Alike::Same;
    }
    if !inexact && !NUMBERS.contains(&kind) {
        return Alike::Different;
    }
    let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) else {
        return Alike::Different;
    };
    // Integers are right or wrong.
    let close = one.is_finite()
        && other.is_finite()
        && (one - other).abs() <= ROUNDING * one.abs().max(other.abs());
    match one == other && inexact || one.is_nan() && other.is_nan() {
        true => Alike::Same,
        false if close && (inexact || kind == 1700) => Alike::Rounded,
        false => Alike::Different,
    }
}

/// An exact number without zeros at its end: how many PostgreSQL shows depends on the values, here it does
/// on the types.
fn plain(number: &str) -> &str {
    let shorter = match number.contains('.') && !number.contains('e') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    if shorter == "-0" { "0" } else { shorter }
}

impl Answer {
    /// Whether a value of a row is written in this way.
    pub fn has(&self, value: &str) -> bool {
        let Self::Rows { rows, .. } = self else { return false };
        rows.iter().flatten().any(|found| found.as_deref() == Some(value))
    }

    /// Its rows in some order, with three digits behind the point: as many as the numbers in the tables have.
    pub fn about(&self) -> Option<Vec<Vec<Option<String>>>> {
        let Self::Rows { rows, .. } = self else { return None };
        let about = |value: &String| match value.parse::<f64>() {
            Ok(number) => ((number * 1e3).round() / 1e3 + 0.0).to_string(),
            Err(_) => value.clone(),
        };
        let row = |row: &Row| row.iter().map(|value| value.as_ref().map(about)).collect();
        let mut rows: Vec<Vec<Option<String>>> = rows.iter().map(row).collect();
        rows.sort();
        Some(rows)
    }

    pub fn shown(&self) -> String {
        match self {
            Self::Failed { code, message } => format!("{code} {message}"),
            Self::Lost(what) => what.clone(),
            Self::Rows { rows, .. } => {
                let value = |value: &Option<String>| value.as_deref().unwrap_or("NULL").to_owned();
                let row = |row: &Row| row.iter().map(value).collect::<Vec<_>>().join(" | ");
                let mut sorted: Vec<String> = rows.iter().map(row).collect();
                sorted.sort();
                sorted.truncate(SHOWN);
                format!("{} rows: {}", rows.len(), sorted.join(" ; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(kind: u32, values: &[Option<&str>]) -> Answer {
        let rows = values.iter().map(|value| vec![value.map(str::to_owned)]).collect();
        Answer::Rows { types: vec![kind], rows }
    }

    #[test]
    fn another_value_is_noticed() {
        let one = rows(23, &[Some("1"), None, Some("1")]);
        assert_eq!(compare(&one, &one, true), Alike::Same);
        let mixed = rows(23, &[None, Some("1"), Some("1")]);
        assert_eq!(compare(&one, &mixed, false), Alike::Same);
        assert_eq!(compare(&one, &mixed, true), Alike::Different);
        for other in
            [&[Some("1"), None, None][..], &[Some("1"), None], &[Some("1"), None, Some("2")]]
        {
            assert_eq!(compare(&one, &rows(23, other), false), Alike::Different);
        }
        let failed = |code: &str| Answer::Failed { code: code.to_owned(), message: String::new() };
        assert_eq!(compare(&one, &failed("22012"), false), Alike::Different);
        assert_eq!(compare(&failed("22003"), &failed("22012"), false), Alike::Same);
        assert_eq!(compare(&failed("22003"), &failed("42883"), false), Alike::Different);
    }

    #[test]
    fn digits_are_rounded_but_integers_are_not() {
        let of =
            |kind, one, other| value(kind, &Some(String::from(one)), &Some(String::from(other)));
        assert_eq!(of(1700, "1.50", "1.5"), Alike::Same);
        assert_eq!(of(1700, "1.50", "1.51"), Alike::Different);
        assert_eq!(of(701, "0.30000000000000004", "0.3"), Alike::Rounded);
        assert_eq!(of(701, "NaN", "NaN"), Alike::Same);
        assert_eq!(of(20, "9223372036854775807", "9223372036854775806"), Alike::Different);
        assert_eq!(of(25, "1.0", "1"), Alike::Different);
    }
}
