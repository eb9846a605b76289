//! Results as they are wanted: side by side for people, or for programs.

use std::io::{self, Write};

use chrono::{DateTime, NaiveDateTime};
use clap::ValueEnum;
use serde_json::Value;

use super::editor::terminal::width;
use super::wire::{Column, Row};
use crate::cli::text_table;
use crate::wording::counted;

/// Rows that make a result long, on which automatic expansion looks no more.
const AUTO_ROWS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Side by side.
    Table,
    /// One column a line.
    Expanded,
    /// Values with a separator between them (--field-separator).
    Unaligned,
    Csv,
    Tsv,
    /// An array of objects, one a line.
    Json,
    /// An object a line.
    Jsonl,
    Markdown,
}

impl Format {
    /// Whether standard output is for rows and nothing else.
    pub fn is_for_programs(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Json | Self::Jsonl)
    }

    /// Whether rows can be written as they come.
    fn passes_through(self) -> bool {
        !matches!(self, Self::Table | Self::Expanded | Self::Markdown)
    }
}

/// How results are shown.
#[derive(Clone, Debug)]
pub struct Style {
    pub format: Format,
    pub expanded: Expanded,
    /// Neither headings nor the number of rows.
    pub tuples_only: bool,
    /// The number of rows, below those that people read.
    pub footer: bool,
    /// Between the values of the unaligned format.
    pub separator: String,
    /// In place of NULL, for people.
    pub null: String,
    /// Columns of the terminal that results are to fit, for [`Expanded::Auto`].
    pub columns: usize,
}

impl Style {
    fn has_footer(&self) -> bool {
        self.footer && !self.tuples_only
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expanded {
    Off,
    On,
    /// If rows do not fit the terminal.
    Auto,
}

/// A result that is shown, row by row.
pub struct Printer<'a> {
    style: &'a Style,
    columns: Vec<Column>,
    rows: Vec<Row>,
    count: usize,
}

impl<'a> Printer<'a> {
    pub fn begin(style: &'a Style, columns: Vec<Column>) -> Self {
        Self { style, columns, rows: Vec::new(), count: 0 }
    }

    /// Whether something of it has been written.
    pub fn is_begun(&self) -> bool {
        self.count > 0 && self.style.format.passes_through()
    }

    pub fn row(&mut self, row: Row, out: &mut dyn Write) -> io::Result<()> {
        if !self.style.format.passes_through() {
            self.rows.push(row);
            self.count += 1;
            return Ok(());
        }
        if self.count == 0 {
            self.head(out)?;
        }
        self.count += 1;
        match self.style.format {
            Format::Csv => writeln!(out, "{}", csv(&row)),
            Format::Tsv => writeln!(out, "{}", tsv(&row)),
            Format::Json => {
                let comma = if self.count == 1 { "[" } else { ",\n" };
                write!(out, "{comma}{}", self.object(&row))
            }
            Format::Jsonl => writeln!(out, "{}", self.object(&row)),
            _ => writeln!(out, "{}", self.unaligned(&row)),
        }
    }

    fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.style.tuples_only {
            return Ok(());
        }
        let names: Row = self.columns.iter().map(|column| Some(column.name.clone())).collect();
        match self.style.format {
            Format::Csv => writeln!(out, "{}", csv(&names)),
            Format::Tsv => writeln!(out, "{}", tsv(&names)),
            Format::Unaligned if self.style.expanded != Expanded::On => {
                writeln!(out, "{}", self.separated(&names))
            }
            _ => Ok(()),
        }
    }

    /// All rows are there.
    pub fn finish(self, out: &mut dyn Write) -> io::Result<()> {
        if self.count == 0 && self.style.format.passes_through() {
            self.head(out)?;
        }
        let footer = format!("({})", counted(self.count as u64, "row"));
        let footer = if self.style.has_footer() { footer + "\n" } else { String::new() };
        match self.style.format {
            Format::Json => writeln!(out, "{}", if self.count == 0 { "[]" } else { "]" }),
            Format::Csv | Format::Tsv | Format::Jsonl => Ok(()),
            Format::Unaligned => write!(out, "{footer}"),
            Format::Markdown => write!(out, "{}", self.markdown()),
            Format::Expanded => self.expanded(out),
            Format::Table => match self.style.expanded {
                Expanded::On => self.expanded(out),
                Expanded::Off => writeln!(out, "{}{footer}", self.side_by_side()),
                Expanded::Auto => {
                    let text = self.side_by_side();
                    let widths = text.lines().take(AUTO_ROWS).map(width);
                    match widths.max().unwrap_or_default() > self.style.columns {
                        true => self.expanded(out),
                        false => writeln!(out, "{text}{footer}"),
                    }
                }
            },
        }
    }

    fn side_by_side(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let numeric: Vec<bool> = self.columns.iter().map(|column| is_number(column.oid)).collect();
        let headings = (!self.style.tuples_only).then_some(names.as_slice());
        text_table::aligned(headings, &numeric, &self.rows, &self.style.null)
    }

    fn expanded(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return if self.style.has_footer() { writeln!(out, "(0 rows)\n") } else { Ok(()) };
        }
        let names = self.columns.iter().map(|column| width(&column.name)).max().unwrap_or(0);
        let lines = |value: &Option<String>| {
            let text = value.as_deref().unwrap_or(&self.style.null);
            text.split('\n').map(str::to_owned).collect::<Vec<_>>()
        };
        let values = self.rows.iter().flatten().flat_map(lines).map(|line| width(&line));
        let values = values.max().unwrap_or(0);
        for (number, row) in (1..).zip(&self.rows) {
            if !self.style.tuples_only {
                let mut rule = format!("-[ RECORD {number} ]");
                let fill = (names + 1).saturating_sub(rule.len());
                rule.push_str(&"-".repeat(fill));
                if rule.len() == names + 1 {
                    rule.push('+');
                }
                let all = names + 3 + values;
                rule.push_str(&"-".repeat(all.saturating_sub(rule.len())));
                writeln!(out, "{rule}")?;
            } else if number > 1 {
                writeln!(out)?;
            }
            for (column, value) in self.columns.iter().zip(row) {
                let mut name = column.name.as_str();
                for line in lines(value) {
                    let space = " ".repeat(names - width(name));
                    let text = format!("{name}{space} | {line}");
                    writeln!(out, "{}", text.trim_end_matches(' '))?;
                    name = "";
                }
            }
        }
        writeln!(out)
    }

    fn markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', "<br>");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let names = self.columns.iter().map(|column| cell(&column.name)).collect();
        let rules = self.columns.iter().map(|column| match is_number(column.oid) {
            true => "---:".to_owned(),
            false => "---".to_owned(),
        });
        let mut text = line(names) + &line(rules.collect());
        for row in &self.rows {
            let cells = row.iter().map(|value| cell(value.as_deref().unwrap_or(&self.style.null)));
            text += &line(cells.collect());
        }
        text
    }

    fn separated(&self, row: &Row) -> String {
        let values = row.iter().map(|value| value.as_deref().unwrap_or(&self.style.null));
        values.collect::<Vec<_>>().join(&self.style.separator)
    }

    fn unaligned(&self, row: &Row) -> String {
        if self.style.expanded != Expanded::On {
            return self.separated(row);
        }
        let lines = self.columns.iter().zip(row).map(|(column, value)| {
            let value = value.as_deref().unwrap_or(&self.style.null);
            format!("{}{}{value}", column.name, self.style.separator)
        });
        let before = if self.count > 1 { "\n" } else { "" };
        before.to_owned() + &lines.collect::<Vec<_>>().join("\n")
    }

    fn object(&self, row: &Row) -> String {
        let fields = self.columns.iter().zip(row).map(|(column, value)| {
            let name = Value::from(column.name.as_str());
            let value =
                value.as_deref().map_or_else(|| "null".to_owned(), |text| json(text, column.oid));
            format!("{name}:{value}")
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

/// PostgreSQL's types of moments.
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;

/// PostgreSQL's types of numbers.
fn is_number(oid: u32) -> bool {
    matches!(oid, 20 | 21 | 23 | 26 | 700 | 701 | 790 | 1700)
}

/// A value as JSON has it: a number, a truth value and JSON as such, all else as a string; moments as all
/// commands have them, in UTC.
fn json(text: &str, oid: u32) -> String {
    let raw = match oid {
        16 => match text {
            "t" => return "true".to_owned(),
            "f" => return "false".to_owned(),
            _ => false,
        },
        TIMESTAMP | TIMESTAMPTZ => {
            return Value::from(moment(text, oid).unwrap_or_else(|| text.to_owned())).to_string();
        }
        114 | 3802 => serde_json::from_str::<Value>(text).is_ok(),
        oid if is_number(oid) => {
            text.ends_with(|last: char| last.is_ascii_digit())
                && serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_number())
        }
        _ => false,
    };
    // Values of several lines would break the lines of objects.
    if raw && !text.contains('\n') { text.to_owned() } else { Value::from(text).to_string() }
}

/// `2026-11-29T12:00:00.5`, and a `Z` if it has a zone; `None` for those that RFC 3339 cannot say.
fn moment(text: &str, oid: u32) -> Option<String> {
    const FORM: &str = "%Y-%m-%d %H:%M:%S%.f";
    let (moment, end) = match oid {
        TIMESTAMPTZ => {
            let moment = DateTime::parse_from_str(text, &format!("{FORM}%#z")).ok()?;
            (moment.naive_utc(), "Z")
        }
        _ => (NaiveDateTime::parse_from_str(text, FORM).ok()?, ""),
    };
    let text = moment.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned() + end)
}

fn csv(row: &Row) -> String {
    let field = |value: &Option<String>| match value {
        None => String::new(),
        // Not NULL, and the end of data, as COPY writes them.
        Some(text) if text.is_empty() || text == "\\." => format!("\"{text}\""),
        Some(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.clone(),
    };
    row.iter().map(field).collect::<Vec<_>>().join(",")
}

/// As COPY's text format has it.
fn tsv(row: &Row) -> String {
    let field = |value: &Option<String>| match value {
        None => "\\N".to_owned(),
        Some(text) => {
            let text = text.replace('\\', "\\\\").replace('\t', "\\t");
            text.replace('\n', "\\n").replace('\r', "\\r")
        }
    };
    row.iter().map(field).collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(format: Format) -> Style {
        let (separator, null) = ("|".to_owned(), String::new());
        let expanded = Expanded::Off;
        Style { format, expanded, tuples_only: false, footer: true, separator, null, columns: 80 }
    }

    fn printed(style: &Style) -> String {
        let columns = [("n", 23), ("t", 25), ("b", 16)];
        let columns = columns.map(|(name, oid)| Column { name: name.to_owned(), oid });
        let mut printer = Printer::begin(style, columns.to_vec());
        let mut out = Vec::new();
        for row in [[Some("1"), Some("a,\n\"b\""), Some("t")], [None, Some(""), Some("f")]] {
            let row = row.map(|value| value.map(str::to_owned)).to_vec();
            printer.row(row, &mut out).expect("written");
        }
        printer.finish(&mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_format_has_its_form() {
        for (format, expected) in [
            (Format::Csv, "n,t,b\n1,\"a,\n\"\"b\"\"\",t\n,\"\",f\n"),
            (Format::Tsv, "n\tt\tb\n1\ta,\\n\"b\"\tt\n\\N\t\tf\n"),
            (
                Format::Json,
                "[{\"n\":1,\"t\":\"a,\\n\\\"b\\\"\",\"b\":true},\n{\"n\":null,\"t\":\"\",\"b\":false}]\n",
            ),
            (Format::Unaligned, "n|t|b\n1|a,\n\"b\"|t\n||f\n(2 rows)\n"),
            (
                Format::Table,
                " n |  t  | b\n---+-----+---\n 1 | a, +| t\n   | \"b\" |\n   |     | f\n(2 rows)\n\n",
            ),
            (
                Format::Expanded,
                "-[ RECORD 1 ]\nn | 1\nt | a,\n  | \"b\"\nb | t\n-[ RECORD 2 ]\nn |\nt |\nb | f\n\n",
            ),
            (
                Format::Markdown,
                "| n | t | b |\n| ---: | --- | --- |\n| 1 | a,<br>\"b\" | t |\n|  |  | f |\n",
            ),
        ] {
            assert_eq!(printed(&style(format)), expected, "{format:?}");
        }
        let tuples = Style { tuples_only: true, ..style(Format::Unaligned) };
        assert_eq!(printed(&tuples), "1|a,\n\"b\"|t\n||f\n");
    }

    #[test]
    fn what_json_cannot_say_is_text() {
        assert_eq!(json("NaN", 701), "\"NaN\"");
        assert_eq!(json("1.50", 1700), "1.50");
        assert_eq!(json("{\"a\": 1}", 3802), "{\"a\": 1}");
        assert_eq!(json("1", 25), "\"1\"");
        for (text, oid, expected) in [
            ("2026-11-29 13:00:00+01", TIMESTAMPTZ, "2026-11-29T12:00:00Z"),
            ("2026-11-29 12:00:10.250+05:30", TIMESTAMPTZ, "2026-11-29T06:30:10.25Z"),
            ("infinity", TIMESTAMPTZ, "infinity"),
            ("0044-03-15 12:00:00+00 BC", TIMESTAMPTZ, "0044-03-15 12:00:00+00 BC"),
            ("2026-11-29 12:00:10", TIMESTAMP, "2026-11-29T12:00:10"),
        ] {
            assert_eq!(json(text, oid), format!("\"{expected}\""), "{text}");
        }
    }
}
