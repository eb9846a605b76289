//! Scripts: text, a line per message, an empty line between cases. Each case has a session of its
//! own.
//!
//! ```text
//! # A case's name: its comment.
//! with messages                        the texts of errors are compared as well
//! known difference 1a2b3c4d: why       it differs, and that is known; what Oribi says, in short
//! another text: why                    only the texts of errors differ, and that is known
//! Start 3.0 user=oribi database=oribi  instead of the usual log-in, which is not compared
//! Query SELECT 1                       the rest of the line; indented lines continue it
//! Parse s1 (23,0) SELECT $1, $2        "" is the unnamed one; types are OIDs, and optional
//! Bind p1 s1 'text' x'00ff' NULL -> text binary
//! Bind "" s1 'text' formats 0 7        formats as given, rather than as the values are written
//! Describe statement s1                or: portal p1
//! Execute p1 10
//! Close portal p1                      or: statement s1
//! Flush until T                        reads up to such a message, an error or the end
//! Sync                                 reads up to ReadyForQuery, as Query does
//! Message f 'reason\0' until E         any message; x'00ff' for bytes
//!
//! # A list: each line is a case by itself.
//! each simple                          or: text, binary (extended), both (simple, and binary)
//! known difference 1a2b3c4d: why       of the line that follows
//! SELECT 1
//!
//! # A list of values: a parameter in text comes back in binary; that, as a parameter, in text.
//! each value
//! int4 -1
//! ```

use std::iter::Peekable;
use std::path::{Path, PathBuf};

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use crate::transcript::{self, Transcript};

#[derive(Default)]
pub struct Case {
    pub name: String,
    pub line: usize,
    /// The line of its mark, if it has one.
    mark: usize,
    /// Why it differs.
    known: Option<Known>,
    /// Why the texts of its errors differ.
    another_text: Option<String>,
    messages: bool,
    pub steps: Vec<Step>,
}

/// A difference that is known.
struct Known {
    /// The [`transcript::digest`] of what Oribi says instead; none if it was not recorded yet.
    digest: Option<String>,
}

impl Known {
    /// What stands behind `known difference`.
    fn parse(text: &str) -> Option<Self> {
        let (digest, reason) = text.split_once(':')?;
        let digest = Some(digest.trim()).filter(|digest| !digest.is_empty());
        (!reason.trim().is_empty()).then(|| Self { digest: digest.map(str::to_owned) })
    }
}

/// What is wrong with a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// It differs, or in more than the text that is marked.
    Differs,
    /// It differs in another way than the one that is known.
    DiffersAnew,
    /// It is marked and differs no longer.
    Needless,
}

impl Case {
    /// What is wrong, if anything is.
    pub fn judge(&self, theirs: &Transcript, ours: &Transcript) -> Option<Complaint> {
        let same = |texts| transcript::same(theirs, ours, texts);
        match (&self.known, &self.another_text) {
            (Some(_), _) if same(self.messages) => Some(Complaint::Needless),
            (Some(known), _) => {
                let recorded = known.digest.as_ref() == Some(&self.digest(ours));
                (!recorded).then_some(Complaint::DiffersAnew)
            }
            (None, Some(_)) if !same(false) => Some(Complaint::Differs),
            (None, Some(_)) => same(true).then_some(Complaint::Needless),
            (None, None) => (!same(self.messages)).then_some(Complaint::Differs),
        }
    }

    fn digest(&self, ours: &Transcript) -> String {
        transcript::digest(ours, self.messages)
    }
}

/// A message, or a part of several, to the server.
#[derive(Clone, Debug)]
pub enum Step {
    Start {
        minor: u16,
        parameters: Vec<(String, String)>,
    },
    Query(String),
    Parse {
        name: String,
        types: Vec<u32>,
        sql: String,
    },
    Bind(Bind),
    /// Binds what came last, in binary, to the unnamed statement.
    BindBack,
    Describe {
        kind: u8,
        name: String,
    },
    Execute {
        portal: String,
        rows: i32,
    },
    Close {
        kind: u8,
        name: String,
    },
    Flush {
        until: char,
    },
    Sync,
    Message {
        kind: u8,
        body: Vec<u8>,
        until: Option<char>,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Bind {
    portal: String,
    statement: String,
    values: Vec<Option<Vec<u8>>>,
    formats: Vec<i16>,
    results: Vec<i16>,
}

fn path(topic: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
    directory.join(topic).with_extension("txt")
}

/// Takes marks out of a script that hide nothing.
pub fn unmark(topic: &str, cases: &[&Case]) {
    let path = path(topic);
    let text = std::fs::read_to_string(&path).expect("a script");
    let needless = |number: usize| cases.iter().any(|case| case.mark == number);
    let left = text.lines().enumerate().filter(|(at, _)| !needless(at + 1));
    let left: String = left.map(|(_, line)| format!("{line}\n")).collect();
    std::fs::write(&path, left).expect("a script is written");
}

/// Writes beside marks what Oribi says now.
pub fn record(topic: &str, said: &[(&Case, Transcript)]) {
    let path = path(topic);
    let text = std::fs::read_to_string(&path).expect("a script");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (case, ours) in said {
        let line = &mut lines[case.mark - 1];
        let (_, reason) = line.split_once(':').expect("a reason");
        *line = format!("known difference {}:{reason}", case.digest(ours));
    }
    std::fs::write(&path, lines.join("\n") + "\n").expect("a script is written");
}

/// All cases of `tests/differential/<topic>.txt`.
pub fn load(topic: &str) -> Vec<Case> {
    let path = path(topic);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
    while lines.peek().is_some() {
        section(&mut lines, &mut cases);
    }
    cases
}

fn section<'a>(
    lines: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>,
    cases: &mut Vec<Case>,
) {
    let mut case = Case::default();
    let mut list: Option<&str> = None;
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            break;
        }
        let mut line = line.to_owned();
        while let Some((_, more)) = lines.next_if(|(_, next)| next.starts_with(' ')) {
            line.push('\n');
            line.push_str(more.trim());
        }
        if let Some(comment) = line.strip_prefix('#') {
            comment.trim().clone_into(&mut case.name);
        } else if let Some(known) = line.strip_prefix("known difference") {
            let known = Known::parse(known);
            assert!(known.is_some(), "line {number}: a reason is missing");
            case.known = known;
            case.mark = number;
        } else if let Some(reason) = line.strip_prefix("another text:") {
            case.another_text = Some(reason.trim().to_owned());
            case.mark = number;
        } else if line == "with messages" {
            case.messages = true;
        } else if let Some(way) = line.strip_prefix("each ") {
            list = ["simple", "text", "binary", "both", "value"]
                .into_iter()
                .find(|known| *known == way);
            assert!(list.is_some(), "line {number}: {line}");
        } else if let Some(way) = list {
            let steps = Step::of_statement(way, &line);
            let (known, another_text) = (case.known.take(), case.another_text.take());
            let (messages, mark) = (case.messages, case.mark);
            let name = line;
            cases.push(Case { name, line: number, mark, known, another_text, messages, steps });
        } else {
            case.line = if case.line == 0 { number } else { case.line };
            let step = Words(&line).step();
            case.steps.push(step.unwrap_or_else(|| panic!("line {number}: {line}")));
        }
    }
    if !case.steps.is_empty() {
        cases.push(case);
    }
}

impl Step {
    /// The log-in of every case that does not begin with one.
    pub fn usual_start() -> Self {
        let parameters = [("user", "oribi"), ("database", "oribi")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self::Start { minor: 0, parameters: parameters.to_vec() }
    }

    fn of_statement(way: &str, sql: &str) -> Vec<Self> {
        if way == "value" {
            return Self::of_value(sql);
        }
        let query = || vec![Self::Query(sql.to_owned())];
        let extended = |format| {
            let (portal, statement) = Default::default();
            let (values, formats) = Default::default();
            vec![
                Self::Parse { name: String::new(), types: Vec::new(), sql: sql.to_owned() },
                Self::Describe { kind: b'S', name: String::new() },
                Self::Bind(Bind { portal, statement, values, formats, results: vec![format] }),
                Self::Execute { portal: String::new(), rows: 0 },
                Self::Sync,
            ]
        };
        match way {
            "simple" => query(),
            "text" => extended(0),
            "binary" => extended(1),
            _ => [query(), extended(1)].concat(),
        }
    }

    /// There and back. `(empty)` is the empty text.
    fn of_value(line: &str) -> Vec<Self> {
        let (kind, value) = line.split_once(' ').expect("a type and a value");
        let value = if value == "(empty)" { "" } else { value };
        let bind = Bind { values: vec![Some(value.into())], results: vec![1], ..Bind::default() };
        let execute = || Self::Execute { portal: String::new(), rows: 0 };
        let (name, types, sql) = (String::new(), Vec::new(), format!("SELECT $1::{kind} AS v"));
        vec![
            Self::Parse { name, types, sql },
            Self::Describe { kind: b'S', name: String::new() },
            Self::Bind(bind),
            execute(),
            Self::Sync,
            Self::BindBack,
            execute(),
            Self::Sync,
        ]
    }

    /// The message after which there is something to read.
    pub fn awaits(&self) -> Option<char> {
        match self {
            Self::Start { .. } | Self::Query(_) | Self::Sync => Some('Z'),
            Self::Flush { until } => Some(*until),
            Self::Message { until, .. } => *until,
            _ => None,
        }
    }

    /// For the report.
    pub fn text(&self) -> String {
        match self {
            Self::Query(sql) => format!("Query {sql}"),
            Self::Parse { name, sql, .. } => format!("Parse {name:?} {sql}"),
            Self::Bind(bind) => bind.text(),
            Self::Message { kind, .. } => format!("Message {:?}", char::from(*kind)),
            Self::Describe { kind, name } => format!("Describe {} {name:?}", char::from(*kind)),
            Self::Close { kind, name } => format!("Close {} {name:?}", char::from(*kind)),
            other => format!("{other:?}"),
        }
    }

    /// `last`: the first value of the row that came last.
    pub fn bytes(&self, last: Option<&[u8]>) -> BytesMut {
        let mut bytes = BytesMut::new();
        let out = &mut bytes;
        let written = match self {
            Self::Start { minor, parameters } => {
                let pairs = parameters.iter().map(|(name, value)| (&name[..], &value[..]));
                let written = frontend::startup_message(pairs, out);
                // Behind the length and the major version.
                out[6..8].copy_from_slice(&minor.to_be_bytes());
                written
            }
            Self::Query(sql) => frontend::query(sql, out),
            Self::Parse { name, types, sql } => {
                frontend::parse(name, sql, types.iter().copied(), out)
            }
            Self::Bind(bind) => return bind.bytes(),
            Self::BindBack => {
                let values = vec![last.map(<[u8]>::to_vec)];
                return Bind { values, formats: vec![1], ..Bind::default() }.bytes();
            }
            Self::Describe { kind, name } => frontend::describe(*kind, name, out),
            Self::Execute { portal, rows } => frontend::execute(portal, *rows, out),
            Self::Close { kind, name } => frontend::close(*kind, name, out),
            Self::Flush { .. } => {
                frontend::flush(out);
                Ok(())
            }
            Self::Sync => {
                frontend::sync(out);
                Ok(())
            }
            Self::Message { kind, body, .. } => {
                out.put_u8(*kind);
                out.put_i32(4 + body.len() as i32);
                out.put_slice(body);
                Ok(())
            }
        };
        written.expect("a message that can be written");
        bytes
    }
}

impl Bind {
    fn text(&self) -> String {
        let text = |value: &Option<Vec<u8>>| match value {
            None => "NULL".to_owned(),
            Some(value) => value.escape_ascii().to_string(),
        };
        let values: Vec<_> = self.values.iter().map(text).collect();
        let Self { portal, statement, formats, results, .. } = self;
        format!("Bind {portal:?} {statement:?} {values:?} {formats:?} -> {results:?}")
    }

    fn bytes(&self) -> BytesMut {
        let mut bytes = BytesMut::new();
        let written = frontend::bind(
            &self.portal,
            &self.statement,
            self.formats.iter().copied(),
            &self.values,
            |value, out| {
                out.put_slice(value.as_deref().unwrap_or_default());
                Ok(if value.is_some() { IsNull::No } else { IsNull::Yes })
            },
            self.results.iter().copied(),
            &mut bytes,
        );
        assert!(written.is_ok(), "a Bind that can be written");
        bytes
    }
}

/// What is left of a line.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn step(mut self) -> Option<Step> {
        let step = match self.word()? {
            "Start" => {
                let minor = self.word()?.strip_prefix("3.")?.parse().ok()?;
                let mut parameters = Vec::new();
                while let Some(word) = self.name() {
                    let (name, value) = word.split_once('=')?;
                    parameters.push((name.to_owned(), value.to_owned()));
                }
                Step::Start { minor, parameters }
            }
            "Query" => Step::Query(self.rest()),
            "Parse" => {
                let (name, types) = (self.name()?, self.types());
                Step::Parse { name, types, sql: self.rest() }
            }
            "Bind" => Step::Bind(self.bind()?),
            "Describe" => Step::Describe { kind: self.kind()?, name: self.name()? },
            "Execute" => Step::Execute { portal: self.name()?, rows: self.word()?.parse().ok()? },
            "Close" => Step::Close { kind: self.kind()?, name: self.name()? },
            "Flush" => Step::Flush { until: self.until()? },
            "Sync" => Step::Sync,
            "Message" => {
                let kind = *self.word()?.as_bytes().first()?;
                let body = self.value()??;
                Step::Message { kind, body, until: self.until() }
            }
            _ => return None,
        };
        self.0.trim().is_empty().then_some(step)
    }

    fn bind(&mut self) -> Option<Bind> {
        let (portal, statement) = (self.name()?, self.name()?);
        let (mut values, mut formats) = (Vec::new(), Vec::new());
        let mut peeked = self.peek();
        while peeked.is_some_and(|word| word != "->" && word != "formats") {
            formats.push(i16::from(self.0.trim_start().starts_with('x')));
            values.push(self.value()?);
            peeked = self.peek();
        }
        // All in text is said by saying nothing.
        if formats.iter().all(|format| *format == 0) {
            formats.clear();
        }
        if peeked == Some("formats") {
            self.word();
            formats.clear();
            while self.peek().is_some_and(|word| word != "->") {
                formats.push(self.word()?.parse().ok()?);
            }
        }
        let mut results = Vec::new();
        if self.word() == Some("->") {
            while let Some(word) = self.word() {
                results.push(match word {
                    "text" => 0,
                    "binary" => 1,
                    other => other.parse().ok()?,
                });
            }
        }
        Some(Bind { portal, statement, values, formats, results })
    }

    fn peek(&self) -> Option<&'a str> {
        self.0.split_whitespace().next()
    }

    fn word(&mut self) -> Option<&'a str> {
        let trimmed = self.0.trim_start();
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (word, rest) = trimmed.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// A word, or something in double quotes.
    fn name(&mut self) -> Option<String> {
        match self.0.trim_start().strip_prefix('"') {
            None => self.word().map(str::to_owned),
            Some(quoted) => {
                let (name, rest) = quoted.split_once('"')?;
                self.0 = rest;
                Some(name.to_owned())
            }
        }
    }

    /// OIDs in parentheses; a statement may begin with a parenthesis as well.
    fn types(&mut self) -> Vec<u32> {
        let inside = self.0.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let Some((types, rest)) = inside else { return Vec::new() };
        let parsed: Result<_, _> = types.split(',').map(|oid| oid.trim().parse()).collect();
        let Ok(types) = parsed else { return Vec::new() };
        self.0 = rest;
        types
    }

    fn kind(&mut self) -> Option<u8> {
        match self.word()? {
            "statement" => Some(b'S'),
            "portal" => Some(b'P'),
            other => other.bytes().next().filter(|_| other.len() == 1),
        }
    }

    fn until(&mut self) -> Option<char> {
        (self.word()? == "until").then(|| self.word()?.chars().next())?
    }

    /// `'text'` with `\0` for a zero byte and `''` for a quote, `x'00ff'`, or `NULL`.
    fn value(&mut self) -> Option<Option<Vec<u8>>> {
        let trimmed = self.0.trim_start();
        if let Some(rest) = trimmed.strip_prefix("NULL") {
            self.0 = rest;
            return Some(None);
        }
        let (hexadecimal, quoted) = match trimmed.strip_prefix('x') {
            Some(rest) => (true, rest.strip_prefix('\'')?),
            None => (false, trimmed.strip_prefix('\'')?),
        };
        let mut end = quoted.find('\'')?;
        while quoted[end + 1..].starts_with('\'') {
            end += 2 + quoted[end + 2..].find('\'')?;
        }
        let text = &quoted[..end];
        self.0 = &quoted[end + 1..];
        if !hexadecimal {
            return Some(Some(text.replace("''", "'").replace("\\0", "\0").into_bytes()));
        }
        let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        Some(Some(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()))
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.0).trim().to_owned()
    }
}
