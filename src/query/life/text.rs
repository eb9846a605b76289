//! A client's text: its statements, and where in it something is wrong.

use sqlparser::tokenizer::Token;

use crate::engine::{self, parse_one, split, tokens};
use crate::query::command::{Command, Request};
use crate::query::prepared::Source;
use crate::query::{Error, Result, ddl, grammar};

/// What names begin with that only the daemon gives.
const OWN: char = '\u{2}';

/// The statements of a message's text.
pub(super) fn parse(text: &str) -> Result<Vec<Source>> {
    let parts = split(text).map_err(|error| placed(error.into(), text, text))?;
    let parsed = parts.into_iter().map(|part| match parse_statement(part) {
        Ok(source) => Ok(source.behind(before(part, text))),
        Err(error) => Err(placed(error, part, text)),
    });
    parsed.collect()
}

/// What is wrong with a part of a client's text, with its place in all of it.
fn placed(error: Error, part: &str, text: &str) -> Error {
    let Error::Engine(engine::Error::SyntaxAt { at, .. }) = &error else { return error };
    Error::At { at: before(part, text) + at, source: Box::new(error) }
}

/// The characters in front of a part of a text.
fn before(part: &str, text: &str) -> usize {
    let before = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    text.get(..before).map_or(0, |before| before.chars().count())
}

/// Refuses a text in which a client uses names that only the daemon gives, or that are none.
fn refuse_names(text: &str) -> Result<()> {
    if !text.contains(OWN) && !text.contains("\"\"") {
        return Ok(());
    }
    // What is wrong with the text the parser says better.
    for (place, token) in tokens(text).unwrap_or_default() {
        let Token::Word(word) = token else { continue };
        let reason = match word.value.as_str() {
            "" => "zero-length delimited identifier",
            name if name.contains(OWN) => "an identifier may not contain the character U+0002",
            _ => continue,
        };
        let at = text[..place].chars().count();
        return Err(engine::Error::SyntaxAt { reason: reason.to_owned(), at }.into());
    }
    Ok(())
}

fn parse_statement(text: &str) -> Result<Source> {
    refuse_names(text)?;
    if let Some(request) = grammar::read(text)? {
        return Ok(Source::own(text, request));
    }
    if let Some(ddl) = ddl::beyond_the_parser(text)? {
        let request = Request::Command(Command::Ddl(Box::new(ddl)));
        return Ok(Source::own(text, request));
    }
    Ok(Source::parsed(parse_one(text)?))
}
