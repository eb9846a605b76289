//! COPY's options: read one by one, then put together (PostgreSQL's `ProcessCopyOptions`).

use super::{CopyOut, Error};
use crate::engine::{CopyOption, CopyValue};
use crate::values::decode::copy::{CopySource, Csv, Header};
use crate::values::encode::{CopyCsv, CopyFormat, CopyText};

type Result<T> = std::result::Result<T, Error>;

/// Options as they were given, each at most once.
#[derive(Default)]
pub(super) struct Options {
    kind: Option<Kind>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<Header>,
    quote: Option<String>,
    escape: Option<String>,
    /// For COPY TO.
    force_quote: Option<ForceQuote>,
    /// For COPY FROM, as the next.
    force_not_null: Option<Vec<String>>,
    force_null: Option<Vec<String>>,
    /// Of rows that come in a promise that nobody needs here. Of those that leave it says nothing,
    /// and PostgreSQL 15 takes it all the same.
    freeze: Option<bool>,
    /// There is only one.
    encoding: Option<()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Text,
    Csv,
    Binary,
    /// Beyond PostgreSQL, and only for rows that leave.
    Parquet,
}

impl Kind {
    /// Whether its rows are no lines.
    fn is_bytes(self) -> bool {
        matches!(self, Self::Binary | Self::Parquet)
    }

    fn mode(self) -> &'static str {
        if self == Self::Parquet { "PARQUET" } else { "BINARY" }
    }
}

/// The columns whose values are always quoted.
#[derive(Debug)]
pub(super) enum ForceQuote {
    All,
    Columns(Vec<String>),
}

/// Which way the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    To,
    From,
}

/// Columns of CSV whose values are read otherwise than those of others.
#[derive(Debug, Default)]
pub(super) struct ForceNull {
    pub not_null: Vec<String>,
    pub null: Vec<String>,
}

/// What both directions have.
struct Settled {
    kind: Kind,
    header: Header,
    delimiter: u8,
    null: Box<str>,
    quote: u8,
    escape: u8,
}

impl Options {
    pub(super) fn read(given: &[CopyOption], direction: Direction) -> Result<Self> {
        let mut options = Self::default();
        for option in given {
            match option.name.as_str() {
                "format" => once(&mut options.kind, option, kind)?,
                "delimiter" => once(&mut options.delimiter, option, text)?,
                "null" => once(&mut options.null, option, text)?,
                "header" => {
                    once(&mut options.header, option, |option| header(option, direction))?;
                }
                "quote" => once(&mut options.quote, option, text)?,
                "escape" => once(&mut options.escape, option, text)?,
                "force_quote" => once(&mut options.force_quote, option, columns_or_all)?,
                "force_not_null" => once(&mut options.force_not_null, option, columns)?,
                "force_null" => once(&mut options.force_null, option, columns)?,
                "freeze" => once(&mut options.freeze, option, boolean)?,
                "encoding" => once(&mut options.encoding, option, encoding)?,
                name => return Err(Error::Syntax(format!("option \"{name}\" not recognized"))),
            }
        }
        Ok(options)
    }

    /// The format of rows that leave; which columns of CSV are always quoted is left to whoever
    /// knows the columns.
    pub(super) fn settle(self) -> Result<(CopyOut, ForceQuote)> {
        let settled = self.settled(Direction::To)?;
        let Settled { kind, header, delimiter, null, quote, escape } = settled;
        let force_quote = Vec::new();
        let format = match kind {
            Kind::Text => CopyFormat::Text(CopyText { delimiter, null }),
            Kind::Csv => CopyFormat::Csv(CopyCsv { delimiter, null, quote, escape, force_quote }),
            Kind::Binary | Kind::Parquet => CopyFormat::Binary,
        };
        let force_quote = self.force_quote.unwrap_or(ForceQuote::Columns(Vec::new()));
        let parquet = kind == Kind::Parquet;
        Ok((CopyOut { format, header: header != Header::None, parquet }, force_quote))
    }

    /// How rows that come in are read; as [`Self::settle`].
    pub(super) fn settle_from(self) -> Result<(CopySource, ForceNull)> {
        let settled = self.settled(Direction::From)?;
        let Settled { kind, header, delimiter, null, quote, escape } = settled;
        let (force_not_null, force_null) = (Vec::new(), Vec::new());
        let source = match kind {
            Kind::Text => CopySource::Text(CopyText { delimiter, null }, header),
            Kind::Csv => {
                let csv = Csv { delimiter, null, quote, escape, force_not_null, force_null };
                CopySource::Csv(csv, header)
            }
            Kind::Binary => CopySource::Binary,
            Kind::Parquet => {
                return Err(not_supported("COPY FROM with FORMAT parquet is not supported"));
            }
        };
        let not_null = self.force_not_null.unwrap_or_default();
        let null = self.force_null.unwrap_or_default();
        Ok((source, ForceNull { not_null, null }))
    }

    fn settled(&self, direction: Direction) -> Result<Settled> {
        let kind = self.kind.unwrap_or_default();
        if kind.is_bytes() {
            for (given, name) in [(&self.delimiter, "DELIMITER"), (&self.null, "NULL")] {
                if given.is_some() {
                    let mode = kind.mode();
                    return Err(Error::Syntax(format!("cannot specify {name} in {mode} mode")));
                }
            }
        }
        let (delimiter, null) = match kind {
            Kind::Csv => (",", ""),
            Kind::Text | Kind::Binary | Kind::Parquet => ("\t", "\\N"),
        };
        let delimiter = delimiter_byte(self.delimiter.as_deref().unwrap_or(delimiter), kind)?;
        let null = self.null.as_deref().unwrap_or(null);
        if null.contains(['\r', '\n']) {
            let what = "COPY null representation cannot use newline or carriage return";
            return Err(Error::InvalidValue(what.to_owned()));
        }
        let header = self.header.unwrap_or_default();
        if kind.is_bytes() && header != Header::None {
            let what = format!("cannot specify HEADER in {} mode", kind.mode());
            return Err(Error::NotSupported(what));
        }
        let (quote, escape) = self.quoting(kind, delimiter, direction)?;
        if null.as_bytes().contains(&delimiter) {
            return Err(not_supported("COPY delimiter must not appear in the NULL specification"));
        }
        if kind == Kind::Csv && null.as_bytes().contains(&quote) {
            let what = "CSV quote character must not appear in the NULL specification";
            return Err(not_supported(what));
        }
        Ok(Settled { kind, header, delimiter, null: null.into(), quote, escape })
    }

    /// Quote and escape of CSV. No other format may have options of theirs.
    fn quoting(&self, kind: Kind, delimiter: u8, direction: Direction) -> Result<(u8, u8)> {
        let for_csv = |given: bool, name: &str| match given && kind != Kind::Csv {
            true => Err(Error::NotSupported(format!("COPY {name} available only in CSV mode"))),
            false => Ok(()),
        };
        for_csv(self.quote.is_some(), "quote")?;
        let quote = one_byte(self.quote.as_deref().unwrap_or("\""), "quote")?;
        if kind == Kind::Csv && quote == delimiter {
            let what = "COPY delimiter and quote must be different";
            return Err(Error::InvalidValue(what.to_owned()));
        }
        for_csv(self.escape.is_some(), "escape")?;
        let escape = match &self.escape {
            Some(escape) => one_byte(escape, "escape")?,
            None => quote,
        };
        let forced = [
            (self.force_quote.is_some(), "force quote", Direction::To),
            (self.force_not_null.is_some(), "force not null", Direction::From),
            (self.force_null.is_some(), "force null", Direction::From),
        ];
        for (given, name, wanted) in forced {
            for_csv(given, name)?;
            if given && wanted != direction {
                let way = if wanted == Direction::To { "TO" } else { "FROM" };
                let what = format!("COPY {name} only available using COPY {way}");
                return Err(Error::NotSupported(what));
            }
        }
        Ok((quote, escape))
    }
}

fn not_supported(what: &str) -> Error {
    Error::NotSupported(what.to_owned())
}

/// Takes an option that must not have been there before.
fn once<T>(
    slot: &mut Option<T>,
    option: &CopyOption,
    read: impl Fn(&CopyOption) -> Result<T>,
) -> Result<()> {
    if slot.is_some() {
        return Err(Error::Syntax("conflicting or redundant options".to_owned()));
    }
    *slot = Some(read(option)?);
    Ok(())
}

fn kind(option: &CopyOption) -> Result<Kind> {
    match text(option)?.as_str() {
        "text" => Ok(Kind::Text),
        "csv" => Ok(Kind::Csv),
        "binary" => Ok(Kind::Binary),
        "parquet" => Ok(Kind::Parquet),
        other => Err(Error::InvalidValue(format!("COPY format \"{other}\" not recognized"))),
    }
}

/// A value as text, whatever was written (PostgreSQL's `defGetString`).
fn text(option: &CopyOption) -> Result<String> {
    match &option.value {
        None => Err(Error::Syntax(format!("{} requires a parameter", option.name))),
        Some(CopyValue::Text(text) | CopyValue::Number(text)) => Ok(text.clone()),
        Some(CopyValue::Star) => Ok("*".to_owned()),
        Some(CopyValue::List(names)) => Ok(names.join(".")),
    }
}

fn truth(option: &CopyOption) -> Option<bool> {
    match option.value.as_ref() {
        None => Some(true),
        Some(CopyValue::Number(number)) => match number.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        },
        Some(CopyValue::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        },
        Some(CopyValue::Star | CopyValue::List(_)) => None,
    }
}

fn boolean(option: &CopyOption) -> Result<bool> {
    let wrong = || Error::Syntax(format!("{} requires a Boolean value", option.name));
    truth(option).ok_or_else(wrong)
}

fn header(option: &CopyOption, direction: Direction) -> Result<Header> {
    if let Some(value) = truth(option) {
        return Ok(if value { Header::Skip } else { Header::None });
    }
    let text = text(option)?;
    match text.eq_ignore_ascii_case("match") {
        true if direction == Direction::From => Ok(Header::Match),
        true => Err(Error::NotSupported(format!("cannot use \"{text}\" with HEADER in COPY TO"))),
        false => Err(Error::Syntax("header requires a Boolean value or \"match\"".to_owned())),
    }
}

fn columns_or_all(option: &CopyOption) -> Result<ForceQuote> {
    match &option.value {
        Some(CopyValue::Star) => Ok(ForceQuote::All),
        Some(CopyValue::List(columns)) => Ok(ForceQuote::Columns(columns.clone())),
        _ => Err(no_columns(option)),
    }
}

fn columns(option: &CopyOption) -> Result<Vec<String>> {
    match &option.value {
        Some(CopyValue::List(columns)) => Ok(columns.clone()),
        _ => Err(no_columns(option)),
    }
}

fn no_columns(option: &CopyOption) -> Error {
    let name = &option.name;
    Error::InvalidValue(format!("argument to option \"{name}\" must be a list of column names"))
}

/// Of a name's bytes only letters and digits count, as in PostgreSQL.
fn encoding(option: &CopyOption) -> Result<()> {
    let name = text(option)?;
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => Ok(()),
        _ => Err(Error::NotSupported(format!("encoding \"{name}\" is not supported; use UTF8"))),
    }
}

fn one_byte(text: &str, what: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(Error::NotSupported(format!("COPY {what} must be a single one-byte character"))),
    }
}

fn delimiter_byte(text: &str, kind: Kind) -> Result<u8> {
    let delimiter = one_byte(text, "delimiter")?;
    if matches!(delimiter, b'\r' | b'\n') {
        let what = "COPY delimiter cannot be newline or carriage return";
        return Err(Error::InvalidValue(what.to_owned()));
    }
    let confusing = delimiter.is_ascii_lowercase()
        || delimiter.is_ascii_digit()
        || matches!(delimiter, b'\\' | b'.');
    match confusing && kind != Kind::Csv {
        true => Err(Error::InvalidValue(format!("COPY delimiter cannot be \"{text}\""))),
        false => Ok(delimiter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(given: &[(&str, Option<CopyValue>)]) -> Result<(CopySource, ForceNull)> {
        let option = |(name, value): &(&str, Option<CopyValue>)| CopyOption {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let given: Vec<_> = given.iter().map(option).collect();
        Options::read(&given, Direction::From)?.settle_from()
    }

    fn word(text: &str) -> Option<CopyValue> {
        Some(CopyValue::Text(text.to_owned()))
    }

    #[test]
    fn rows_that_come_in_have_their_own_options() {
        let (source, _) = from(&[]).expect("text");
        let text = CopyText { delimiter: b'\t', null: "\\N".into() };
        assert_eq!(source, CopySource::Text(text.clone(), Header::None));
        let (source, _) = from(&[("header", word("Match"))]).expect("a header of text");
        assert_eq!(source, CopySource::Text(text, Header::Match));
        let list = |names: &[&str]| {
            Some(CopyValue::List(names.iter().map(|name| (*name).to_owned()).collect()))
        };
        let (source, forced) = from(&[
            ("format", word("csv")),
            ("header", None),
            ("escape", word("\\")),
            ("force_null", list(&["a", "b"])),
            ("force_not_null", list(&["b"])),
            ("freeze", None),
        ])
        .expect("CSV");
        let CopySource::Csv(csv, Header::Skip) = source else { panic!("{source:?}") };
        assert_eq!((csv.quote, csv.escape, csv.delimiter), (b'"', b'\\', b','));
        assert_eq!(forced.null, ["a", "b"]);
        assert_eq!(forced.not_null, ["b"]);
        let (source, _) = from(&[("format", word("binary"))]).expect("binary");
        assert_eq!(source, CopySource::Binary);
    }

    #[test]
    fn options_of_the_other_direction_are_refused_as_in_postgres() {
        let star = || ("force_quote", Some(CopyValue::Star));
        let cases = [
            (vec![star()], "COPY force quote available only in CSV mode"),
            (
                vec![("format", word("csv")), star()],
                "COPY force quote only available using COPY TO",
            ),
            (
                vec![("header", word("match")), ("format", word("binary"))],
                "cannot specify HEADER in BINARY mode",
            ),
            (
                vec![("force_null", Some(CopyValue::List(Vec::new())))],
                "COPY force null available only in CSV mode",
            ),
        ];
        for (given, expected) in cases {
            let error = from(&given).expect_err(expected);
            assert!(matches!(error, Error::NotSupported(_)), "{error:?}");
            assert_eq!(error.to_string(), expected);
        }
        let unknown = from(&[("nix", None)]).expect_err("no option");
        assert_eq!(unknown.to_string(), "option \"nix\" not recognized");
        let to = CopyOption { name: "header".to_owned(), value: word("match") };
        let refused = Options::read(&[to], Direction::To).err().expect("not so");
        assert_eq!(refused.to_string(), "cannot use \"match\" with HEADER in COPY TO");
    }
}
