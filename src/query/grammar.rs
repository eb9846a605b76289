//! Commands whose grammar the SQL parser does not know, or knows in part: transactions, cursors,
//! prepared statements, and some that have little to do here.
//!
//! The grammar is that of PostgreSQL 15's `gram.y`.

use sqlparser::ast::{Ident, ObjectName, Statement};
use sqlparser::tokenizer::Token;

use super::command::{Command, Modes, Request};
use super::locks::Mode;
use super::maintenance::{Task, Upkeep};
use super::notify::Action;
use super::objects::{ALL, Declare, Direction, Execute, Fetch, ObjectCommand, Prepare};
use super::{Error, Result, instead};
use crate::engine::{self, Parsed, parse_one, tokens};

/// Reads a statement of this grammar; `None` if it is for the SQL parser.
pub(super) fn read(text: &str) -> Result<Option<Request>> {
    let read: fn(&mut Reader<'_>) -> Result<Option<Request>> = match first_word(text)?.as_str() {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            |reader| transaction(reader).map(|command| Some(Request::Command(command)))
        }
        "declare" | "fetch" | "move" | "close" | "prepare" | "execute" | "deallocate"
        | "discard" => {
            |reader| object(reader).map(|command| Some(Request::Object(Box::new(command))))
        }
        "listen" | "unlisten" | "notify" => {
            |reader| listen(reader).map(|command| Some(Request::Command(command)))
        }
        "explain" => explain,
        "set" => set,
        "do" | "reindex" | "cluster" | "refresh" | "security" | "import" | "create" | "alter"
        | "drop" => |reader| instead::refuse_unknown(&reader.first_words(4)).map(|()| None),
        "lock" => |reader| lock(reader).map(|command| Some(Request::Command(command))),
        "optimize" => |reader| optimize(reader).map(|command| Some(Request::Command(command))),
        "vacuum" => |reader| vacuum(reader).map(|command| Some(Request::Command(command))),
        "analyze" => |reader| analyze(reader).map(|command| Some(Request::Command(command))),
        "checkpoint" => |reader| {
            reader.require("checkpoint")?;
            // Nothing waits to be written.
            Ok(Some(Request::Command(Command::Nothing("CHECKPOINT"))))
        },
        _ => return Ok(None),
    };
    let mut reader = Reader { text, tokens: tokens(text)?, next: 0 };
    let request = read(&mut reader)?;
    if request.is_some() {
        reader.end()?;
    }
    Ok(request)
}

/// The first word in lower case; empty if there is none.
fn first_word(text: &str) -> Result<String> {
    let text = text.trim_start();
    if text.starts_with("--") || text.starts_with("/*") {
        return Ok(match tokens(text)?.into_iter().next() {
            Some((_, Token::Word(word))) => word.value.to_ascii_lowercase(),
            _ => String::new(),
        });
    }
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    Ok(text[..end].to_ascii_lowercase())
}

fn transaction(reader: &mut Reader<'_>) -> Result<Command> {
    let first = reader.any_word()?;
    Ok(match first.as_str() {
        "begin" => {
            reader.skip_noise();
            Command::Begin { tag: "BEGIN", modes: modes(reader)? }
        }
        "start" => {
            reader.require("transaction")?;
            Command::Begin { tag: "START TRANSACTION", modes: modes(reader)? }
        }
        "savepoint" => Command::Savepoint(reader.name()?),
        "release" => {
            reader.word("savepoint");
            Command::Release(reader.name()?)
        }
        "commit" | "rollback" if reader.word("prepared") => {
            return Err(Error::NotSupported("two-phase commit".to_owned()));
        }
        first => {
            reader.skip_noise();
            if first == "rollback" && reader.word("to") {
                reader.word("savepoint");
                return Ok(Command::RollbackTo(reader.name()?));
            }
            let commit = matches!(first, "commit" | "end");
            let chain = match reader.word("and") {
                true => {
                    let no = reader.word("no");
                    reader.require("chain")?;
                    !no
                }
                false => false,
            };
            Command::End { commit, chain }
        }
    })
}

fn modes(reader: &mut Reader<'_>) -> Result<Modes> {
    let mut modes = Modes::default();
    while !reader.at_end() {
        if reader.word("isolation") {
            reader.require("level")?;
            modes.isolation = Some(if reader.word("serializable") {
                "serializable"
            } else if reader.word("repeatable") {
                reader.require("read")?;
                "repeatable read"
            } else {
                reader.require("read")?;
                match reader.word("uncommitted") {
                    true => "read uncommitted",
                    false => reader.require("committed").map(|()| "read committed")?,
                }
            });
        } else if reader.word("read") {
            let only = reader.word("only");
            if !only {
                reader.require("write")?;
            }
            modes.read_only = Some(only);
        } else {
            let deferrable = !reader.word("not");
            reader.require("deferrable")?;
            modes.deferrable = Some(deferrable);
        }
        reader.token(&Token::Comma);
    }
    Ok(modes)
}

/// SET TRANSACTION, SET SESSION CHARACTERISTICS, SET CONSTRAINTS.
fn set(reader: &mut Reader<'_>) -> Result<Option<Request>> {
    reader.require("set")?;
    let command = if reader.word("constraints") {
        let first = match reader.word("all") {
            true => None,
            false => Some(reader.name()?),
        };
        while first.is_some() && reader.token(&Token::Comma) {
            reader.name()?;
        }
        if !reader.word("deferred") {
            reader.require("immediate")?;
        }
        Command::SetConstraints(first)
    } else if reader.words(&["session", "characteristics", "as", "transaction"]) {
        Command::SetCharacteristics(modes(reader)?)
    } else if reader.word("transaction") || reader.words(&["local", "transaction"]) {
        if reader.word("snapshot") {
            return Err(Error::NotSupported("SET TRANSACTION SNAPSHOT".to_owned()));
        }
        Command::SetTransaction(modes(reader)?)
    } else {
        return Ok(None);
    };
    Ok(Some(Request::Command(command)))
}

/// LISTEN, UNLISTEN, NOTIFY.
fn listen(reader: &mut Reader<'_>) -> Result<Command> {
    Ok(match reader.any_word()?.as_str() {
        "listen" => Command::Listen(Action::Listen(reader.name()?)),
        "unlisten" => Command::Listen(Action::Unlisten(match reader.token(&Token::Mul) {
            true => None,
            false => Some(reader.name()?),
        })),
        _ => {
            let channel = reader.name()?;
            let payload = match reader.token(&Token::Comma) {
                true => reader.string()?,
                false => String::new(),
            };
            Command::Notify { channel, payload }
        }
    })
}

fn lock(reader: &mut Reader<'_>) -> Result<Command> {
    reader.require("lock")?;
    reader.word("table");
    let mut names = Vec::new();
    loop {
        reader.word("only");
        names.push(reader.object_name()?);
        reader.token(&Token::Mul);
        if !reader.token(&Token::Comma) {
            break;
        }
    }
    let mut mode = Vec::new();
    if reader.word("in") {
        while !reader.word("mode") {
            mode.push(reader.any_word()?);
        }
    }
    let mode = match mode.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["share"] | ["share", "row", "exclusive"] | ["exclusive"] => Mode::Exclusive,
        ["access", "exclusive"] => Mode::Exclusive,
        ["access", "share"] => Mode::Read,
        ["row", "exclusive"] => Mode::Write,
        ["row", "share"] | ["share", "update", "exclusive"] => Mode::Shared,
        _ => return Err(reader.before()),
    };
    reader.word("nowait");
    Ok(Command::Lock { names, mode })
}

/// OPTIMIZE [TABLE] t [, ...]
fn optimize(reader: &mut Reader<'_>) -> Result<Command> {
    reader.require("optimize")?;
    if reader.left() > 1 {
        reader.word("table");
    }
    let mut names = vec![reader.object_name()?];
    while reader.token(&Token::Comma) {
        names.push(reader.object_name()?);
    }
    Ok(Command::Maintain(Upkeep { names, task: Task::Optimize, columns: Vec::new(), retain: None }))
}

/// VACUUM in all of PostgreSQL's forms, whose options change nothing here, with RETAIN behind.
fn vacuum(reader: &mut Reader<'_>) -> Result<Command> {
    reader.require("vacuum")?;
    if reader.brackets()?.is_none() {
        for option in ["full", "freeze", "verbose", "analyze"] {
            reader.word(option);
        }
    }
    if reader.at_end() {
        // The leader looks after all tables.
        return Ok(Command::Nothing("VACUUM"));
    }
    let mut names = Vec::new();
    loop {
        names.push(reader.object_name()?);
        reader.brackets()?;
        if !reader.token(&Token::Comma) {
            break;
        }
    }
    let retain = match reader.word("retain") {
        true => Some(Upkeep::age(&reader.string()?)?),
        false => None,
    };
    Ok(Command::Maintain(Upkeep { names, task: Task::Vacuum, columns: Vec::new(), retain }))
}

/// ANALYZE in PostgreSQL's forms, and with TABLE as others write it.
fn analyze(reader: &mut Reader<'_>) -> Result<Command> {
    reader.require("analyze")?;
    if reader.brackets()?.is_none() {
        reader.word("verbose");
    }
    if reader.at_end() {
        return Ok(Command::Nothing("ANALYZE"));
    }
    if reader.left() > 1 {
        reader.word("table");
    }
    let (mut names, mut columns) = (Vec::new(), Vec::new());
    loop {
        names.push(reader.object_name()?);
        let mut named = Vec::new();
        if reader.token(&Token::LParen) {
            loop {
                named.push(reader.name()?);
                if !reader.token(&Token::Comma) {
                    break;
                }
            }
            if !reader.token(&Token::RParen) {
                return Err(reader.unexpected());
            }
        }
        columns.push(named);
        if !reader.token(&Token::Comma) {
            break;
        }
    }
    Ok(Command::Maintain(Upkeep { names, task: Task::Analyze, columns, retain: None }))
}

/// EXPLAIN EXECUTE: what explains comes before the name, as it was written.
fn explain(reader: &mut Reader<'_>) -> Result<Option<Request>> {
    reader.require("explain")?;
    if reader.brackets()?.is_none() {
        reader.word("analyze");
        reader.word("verbose");
    }
    let before = reader.place();
    if !reader.word("execute") {
        return Ok(None);
    }
    let explain = reader.text[..before].to_owned();
    let execute = Execute { explain: Some(explain), ..execute(reader)? };
    Ok(Some(Request::Object(Box::new(ObjectCommand::Execute(execute)))))
}

fn object(reader: &mut Reader<'_>) -> Result<ObjectCommand> {
    let first = reader.any_word()?;
    Ok(match first.as_str() {
        "declare" => ObjectCommand::Declare(declare(reader)?),
        "fetch" => ObjectCommand::Fetch(fetch(reader, false)?),
        "move" => ObjectCommand::Fetch(fetch(reader, true)?),
        "close" => ObjectCommand::Close(reader.all_or_name()?),
        "prepare" => ObjectCommand::Prepare(prepare(reader)?),
        "execute" => ObjectCommand::Execute(execute(reader)?),
        "deallocate" => {
            // PREPARE is a name as well.
            if reader.left() > 1 {
                reader.word("prepare");
            }
            ObjectCommand::Deallocate(reader.all_or_name()?)
        }
        _ => discard(reader)?,
    })
}

fn discard(reader: &mut Reader<'_>) -> Result<ObjectCommand> {
    Ok(match reader.any_word()?.as_str() {
        "all" => ObjectCommand::DiscardAll,
        "plans" => ObjectCommand::Discard("DISCARD PLANS"),
        "sequences" => ObjectCommand::Discard("DISCARD SEQUENCES"),
        "temp" | "temporary" => ObjectCommand::Discard("DISCARD TEMP"),
        _ => return Err(reader.before()),
    })
}

fn declare(reader: &mut Reader<'_>) -> Result<Declare> {
    let name = reader.name()?;
    let (mut binary, mut scroll, mut no_scroll) = (false, false, false);
    let (mut sensitive, mut insensitive) = (false, false);
    loop {
        if reader.word("binary") {
            binary = true;
        } else if reader.word("insensitive") {
            insensitive = true;
        } else if reader.word("asensitive") {
            sensitive = true;
        } else if reader.word("scroll") {
            scroll = true;
        } else if reader.word("no") {
            reader.require("scroll")?;
            no_scroll = true;
        } else {
            break;
        }
    }
    reader.require("cursor")?;
    for (both, what) in [
        (scroll && no_scroll, "cannot specify both SCROLL and NO SCROLL"),
        (sensitive && insensitive, "cannot specify both ASENSITIVE and INSENSITIVE"),
    ] {
        if both {
            return Err(Error::CursorDefinition(what));
        }
    }
    let hold = reader.word("with");
    if hold || reader.word("without") {
        reader.require("hold")?;
    }
    reader.require("for")?;
    let scroll = (scroll || no_scroll).then_some(scroll);
    Ok(Declare { name, binary, scroll, hold, query: query(reader)? })
}

fn prepare(reader: &mut Reader<'_>) -> Result<Prepare> {
    if reader.left() == 2 && reader.word("transaction") {
        return Err(Error::NotSupported("two-phase commit".to_owned()));
    }
    let name = reader.name()?;
    let types = reader.brackets()?.map(engine::parse_types).transpose()?.unwrap_or_default();
    reader.require("as")?;
    let prepared = statement(reader, |sql| {
        matches!(
            sql,
            Statement::Query(_)
                | Statement::Insert(_)
                | Statement::Update(_)
                | Statement::Delete(_)
                | Statement::Merge(_)
        )
    })?;
    Ok(Prepare { name, types, query: prepared, text: reader.text.to_owned() })
}

/// The rest of the text, which has to be a query.
fn query(reader: &mut Reader<'_>) -> Result<Parsed> {
    statement(reader, |sql| matches!(sql, Statement::Query(_)))
}

/// The rest of the text, which has to be a statement of some kind.
fn statement(reader: &mut Reader<'_>, fits: impl Fn(&Statement) -> bool) -> Result<Parsed> {
    let unexpected = reader.unexpected();
    let rest = reader.rest();
    if rest.is_empty() {
        return Err(unexpected);
    }
    let before = reader.text[..reader.text.len() - rest.len()].chars().count();
    let parsed = parse_one(rest).map_err(|error| match error {
        engine::Error::SyntaxAt { reason, at } => {
            engine::Error::SyntaxAt { reason, at: before + at }
        }
        other => other,
    })?;
    match parsed.sql().is_some_and(fits) {
        true => Ok(parsed),
        false => Err(unexpected),
    }
}

fn execute(reader: &mut Reader<'_>) -> Result<Execute> {
    let name = reader.name()?;
    let arguments = match reader.brackets()? {
        Some(list) => engine::parse_expressions(list)?,
        None => Vec::new(),
    };
    Ok(Execute { name, arguments, explain: None })
}

fn fetch(reader: &mut Reader<'_>, moves: bool) -> Result<Fetch> {
    let direction = direction(reader)?;
    if !reader.word("from") {
        reader.word("in");
    }
    Ok(Fetch { name: reader.name()?, direction, moves })
}

fn direction(reader: &mut Reader<'_>) -> Result<Direction> {
    // Directions are names as well: with nothing behind them they are.
    if reader.left() == 1 {
        return Ok(Direction::Forward(1));
    }
    if let Some(count) = reader.number()? {
        return Ok(Direction::Forward(count));
    }
    let given =
        ["next", "prior", "first", "last", "absolute", "relative", "all", "forward", "backward"];
    let Some(word) = given.into_iter().find(|word| reader.word(word)) else {
        return Ok(Direction::Forward(1));
    };
    Ok(match word {
        "next" => Direction::Forward(1),
        "prior" => Direction::Backward(1),
        "first" => Direction::Absolute(1),
        "last" => Direction::Absolute(-1),
        "absolute" => Direction::Absolute(reader.needed_number()?),
        "relative" => Direction::Relative(reader.needed_number()?),
        "all" => Direction::Forward(ALL),
        "forward" => Direction::Forward(reader.count()?),
        _ => Direction::Backward(reader.count()?),
    })
}

/// Goes through the tokens of a text.
struct Reader<'a> {
    text: &'a str,
    /// With their places, in bytes.
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn left(&self) -> usize {
        self.tokens.len() - self.next
    }

    fn at_end(&self) -> bool {
        self.left() == 0
    }

    fn end(&self) -> Result<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The place of the next token.
    fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at)
    }

    /// Takes a token if it comes next.
    fn token(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    /// Takes a word if it comes next.
    fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
        self.next += usize::from(found);
        found
    }

    /// Takes all of the words, or none.
    fn words(&mut self, wanted: &[&str]) -> bool {
        let start = self.next;
        let found = wanted.iter().all(|word| self.word(word));
        if !found {
            self.next = start;
        }
        found
    }

    fn require(&mut self, wanted: &str) -> Result<()> {
        if self.word(wanted) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Any word without quotes, in lower case.
    fn any_word(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Word(word)) if word.quote_style.is_none() => {
                let word = word.value.to_ascii_lowercase();
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// WORK and TRANSACTION say nothing.
    fn skip_noise(&mut self) {
        if !self.word("work") {
            self.word("transaction");
        }
    }

    /// The words that come next, up to so many, in upper case.
    fn first_words(&self, most: usize) -> Vec<String> {
        let tokens = self.tokens[self.next..].iter().take(most);
        let words = tokens.map_while(|(_, token)| match token {
            Token::Word(word) if word.quote_style.is_none() => {
                Some(word.value.to_ascii_uppercase())
            }
            _ => None,
        });
        words.collect()
    }

    /// An identifier as PostgreSQL folds it.
    fn name(&mut self) -> Result<String> {
        Ok(super::ddl::ident(&self.ident()?))
    }

    fn ident(&mut self) -> Result<Ident> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let (value, quote_style) = (word.value.clone(), word.quote_style);
                self.next += 1;
                let ident = match quote_style {
                    Some(quote) => Ident::with_quote(quote, value),
                    None => Ident::new(value),
                };
                Ok(ident)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn object_name(&mut self) -> Result<ObjectName> {
        let mut parts = vec![self.ident()?];
        while self.token(&Token::Period) {
            parts.push(self.ident()?);
        }
        Ok(parts.into())
    }

    fn string(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::SingleQuotedString(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// `None`: ALL.
    fn all_or_name(&mut self) -> Result<Option<String>> {
        if self.word("all") { Ok(None) } else { self.name().map(Some) }
    }

    /// A whole number with an optional sign.
    fn number(&mut self) -> Result<Option<i64>> {
        let start = self.next;
        let negative = self.token(&Token::Minus);
        if !negative {
            self.token(&Token::Plus);
        }
        if let Some(Token::Number(text, _)) = self.peek() {
            // PostgreSQL's numbers in this place are of 32 bits.
            let Ok(number) = text.parse::<i32>().map(i64::from) else {
                return Err(self.unexpected());
            };
            self.next += 1;
            return Ok(Some(if negative { -number } else { number }));
        }
        self.next = start;
        Ok(None)
    }

    fn needed_number(&mut self) -> Result<i64> {
        self.number()?.ok_or_else(|| self.unexpected())
    }

    /// ALL, a number, or nothing, which is one.
    fn count(&mut self) -> Result<i64> {
        if self.word("all") { Ok(ALL) } else { Ok(self.number()?.unwrap_or(1)) }
    }

    /// What stands between a bracket that comes next and its partner.
    fn brackets(&mut self) -> Result<Option<&'a str>> {
        if !self.token(&Token::LParen) {
            return Ok(None);
        }
        let start = self.place();
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth -= 1,
                Some(_) => {}
                None => return Err(self.unexpected()),
            }
            self.next += 1;
        }
        Ok(Some(&self.text[start..self.tokens[self.next - 1].0]))
    }

    /// All that is left.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.place()..];
        self.next = self.tokens.len();
        rest
    }

    /// The error that the next token is.
    fn unexpected(&self) -> Error {
        self.error_at(self.next)
    }

    /// The error that the last token was.
    fn before(&self) -> Error {
        self.error_at(self.next.saturating_sub(1))
    }

    fn error_at(&self, at: usize) -> Error {
        let wrong = |reason: String, before: &str| {
            Error::Engine(engine::Error::SyntaxAt { reason, at: before.chars().count() })
        };
        let Some((place, token)) = self.tokens.get(at) else {
            return wrong("syntax error at end of input".to_owned(), self.text.trim_end());
        };
        let shown = match token {
            Token::Word(word) if word.quote_style.is_none() => word.value.clone(),
            token => token.to_string(),
        };
        wrong(format!("syntax error at or near \"{shown}\""), &self.text[..*place])
    }
}
