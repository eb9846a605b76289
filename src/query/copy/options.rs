//! COPY's options: read one by one, then put together (PostgreSQL's `ProcessCopyOptions`).

use super::{CopyOut, Error};
use crate::engine::{CopyOption, CopyValue};
use crate::values::encode::{CopyCsv, CopyFormat, CopyText};

type Result<T> = std::result::Result<T, Error>;

/// Options as they were given, each at most once.
#[derive(Default)]
pub(super) struct Options {
    kind: Option<Kind>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<bool>,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: Option<ForceQuote>,
    /// For COPY FROM, as the next.
    force_not_null: Option<()>,
    force_null: Option<()>,
    /// Says nothing of rows that leave, and PostgreSQL 15 takes it all the same.
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
}

/// The columns whose values are always quoted.
#[derive(Debug)]
pub(super) enum ForceQuote {
    All,
    Columns(Vec<String>),
}

impl Options {
    pub(super) fn read(given: &[CopyOption]) -> Result<Self> {
        let mut options = Self::default();
        for option in given {
            match option.name.as_str() {
                "format" => once(&mut options.kind, option, kind)?,
                "delimiter" => once(&mut options.delimiter, option, text)?,
                "null" => once(&mut options.null, option, text)?,
                "header" => once(&mut options.header, option, header)?,
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

    /// The format that they make; which columns of CSV are always quoted is left to whoever knows
    /// the columns.
    pub(super) fn settle(self) -> Result<(CopyOut, ForceQuote)> {
        let kind = self.kind.unwrap_or_default();
        if kind == Kind::Binary {
            for (given, name) in [(&self.delimiter, "DELIMITER"), (&self.null, "NULL")] {
                if given.is_some() {
                    return Err(Error::Syntax(format!("cannot specify {name} in BINARY mode")));
                }
            }
        }
        let (delimiter, null) = match kind {
            Kind::Csv => (",", ""),
            Kind::Text | Kind::Binary => ("\t", "\\N"),
        };
        let delimiter = delimiter_byte(self.delimiter.as_deref().unwrap_or(delimiter), kind)?;
        let null = self.null.as_deref().unwrap_or(null);
        if null.contains(['\r', '\n']) {
            let what = "COPY null representation cannot use newline or carriage return";
            return Err(Error::InvalidValue(what.to_owned()));
        }
        let header = self.header.unwrap_or(false);
        if kind == Kind::Binary && header {
            return Err(not_supported("cannot specify HEADER in BINARY mode"));
        }
        let (quote, escape) = self.quoting(kind, delimiter)?;
        if null.as_bytes().contains(&delimiter) {
            return Err(not_supported("COPY delimiter must not appear in the NULL specification"));
        }
        if kind == Kind::Csv && null.as_bytes().contains(&quote) {
            let what = "CSV quote character must not appear in the NULL specification";
            return Err(not_supported(what));
        }
        let null = null.into();
        let force_quote = Vec::new();
        let format = match kind {
            Kind::Text => CopyFormat::Text(CopyText { delimiter, null }),
            Kind::Csv => CopyFormat::Csv(CopyCsv { delimiter, null, quote, escape, force_quote }),
            Kind::Binary => CopyFormat::Binary,
        };
        let force_quote = self.force_quote.unwrap_or(ForceQuote::Columns(Vec::new()));
        Ok((CopyOut { format, header }, force_quote))
    }

    /// Quote and escape of CSV. No other format may have options of theirs.
    fn quoting(&self, kind: Kind, delimiter: u8) -> Result<(u8, u8)> {
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
        for_csv(self.force_quote.is_some(), "force quote")?;
        for (given, name) in
            [(self.force_not_null, "force not null"), (self.force_null, "force null")]
        {
            for_csv(given.is_some(), name)?;
            if given.is_some() {
                let what = format!("COPY {name} only available using COPY FROM");
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

fn header(option: &CopyOption) -> Result<bool> {
    if let Some(value) = truth(option) {
        return Ok(value);
    }
    let text = text(option)?;
    match text.eq_ignore_ascii_case("match") {
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

fn columns(option: &CopyOption) -> Result<()> {
    match &option.value {
        Some(CopyValue::List(_)) => Ok(()),
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
