//! What is typed or read, done piece by piece: statements to the daemon, commands by [`commands`].
//!
//! [`commands`]: super::commands

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use super::conditions::Conditions;
use super::output::Output;
use super::print::Style;
use super::session::{Feed, Session};
use super::variables::{Variables, interpolate};
use super::{commands, scan};
use crate::cli::error::{Error, Result};

/// Files that read each other.
const DEPTH: usize = 16;

#[derive(Debug)]
pub struct Shell {
    pub session: Session,
    pub style: Style,
    pub out: Output,
    pub variables: Variables,
    /// Those that what is read stands in.
    pub conditions: Conditions,
    /// The statement that was run last.
    pub last: String,
    /// Nothing more is to be read.
    pub quit: bool,
    /// The folder of the script that is read, for `\ir`.
    pub directory: Option<PathBuf>,
    pub depth: usize,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

/// Lines that are left to read, of which COPY FROM STDIN takes some.
pub trait Lines {
    /// The next line with its line break; `None` at the end.
    fn line(&mut self) -> io::Result<Option<String>>;
}

/// Those of a file or of standard input.
pub struct Reader<R> {
    pub input: R,
    pub number: usize,
}

impl<R: BufRead> Lines for Reader<R> {
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        self.number += 1;
        Ok((self.input.read_line(&mut line)? > 0).then_some(line))
    }
}

/// No lines at all.
pub struct Nothing;

impl Lines for Nothing {
    fn line(&mut self) -> io::Result<Option<String>> {
        Ok(None)
    }
}

/// Lines up to one of `\.`: what follows COPY FROM STDIN in a script.
pub struct UntilDot<'a>(&'a mut dyn Lines, bool);

impl<'a> UntilDot<'a> {
    pub fn new(lines: &'a mut dyn Lines) -> Self {
        Self(lines, false)
    }
}

impl Feed for UntilDot<'_> {
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.1 {
            return Ok(None);
        }
        let line = self.0.line()?.filter(|line| line.trim_end() != "\\.");
        self.1 = line.is_none();
        Ok(line.map(String::into_bytes))
    }
}

impl Shell {
    pub fn stops_at_errors(&self) -> bool {
        let value = self.variables.get("ON_ERROR_STOP").map(String::as_str);
        value.is_some_and(|value| !matches!(value, "" | "0" | "off" | "false"))
    }

    /// Whether what is read is the script on standard input itself, and no file that it includes.
    pub fn is_at_script_on_stdin(&self) -> bool {
        self.session.script_on_stdin && self.depth == 0
    }

    /// Runs one statement; false if it has failed.
    pub async fn statement(&mut self, sql: &str, lines: &mut dyn Lines) -> Result<bool> {
        let style = self.style.clone();
        self.statement_in(sql, &style, lines).await
    }

    pub async fn statement_in(
        &mut self,
        sql: &str,
        style: &Style,
        lines: &mut dyn Lines,
    ) -> Result<bool> {
        let sql = interpolate(sql, &self.variables);
        self.run(&sql, style, lines).await
    }

    /// One that was made of values, in which nothing stands for variables.
    pub async fn statement_as_it_is(&mut self, sql: &str) -> Result<bool> {
        let style = self.style.clone();
        self.run(sql, &style, &mut Nothing).await
    }

    async fn run(&mut self, sql: &str, style: &Style, lines: &mut dyn Lines) -> Result<bool> {
        if scan::is_blank(sql) {
            return Ok(true);
        }
        let mut feed = UntilDot::new(lines);
        sql.clone_into(&mut self.last);
        let done = self.session.execute(sql, style, &mut self.out, &mut feed).await?;
        self.note_outcome();
        let first = scan::words(sql).into_iter().next().unwrap_or_default();
        if matches!(first.as_str(), "CREATE" | "DROP" | "ALTER") {
            self.session.side.lock().await.forget();
        }
        Ok(done)
    }

    /// What psql tells scripts of the statement before.
    pub fn note_outcome(&mut self) {
        let (tag, code) = match &self.session.last_outcome {
            Ok(tag) => (tag.as_str(), "00000"),
            Err(code) => ("", code.as_str()),
        };
        // SELECT 3, INSERT 0 3.
        let count = tag.rsplit(' ').next().filter(|count| count.parse::<u64>().is_ok());
        let failed = code != "00000";
        let told = [
            ("ERROR", failed.to_string()),
            ("SQLSTATE", code.to_owned()),
            ("ROW_COUNT", count.unwrap_or("0").to_owned()),
        ];
        for (name, value) in told {
            self.variables.insert(name.to_owned(), value);
        }
        if let Some((said, _)) = self.session.last_error.as_ref().filter(|_| failed) {
            let (message, code) = (said.message.clone(), said.code.clone());
            self.variables.insert("LAST_ERROR_MESSAGE".to_owned(), message);
            self.variables.insert("LAST_ERROR_SQLSTATE".to_owned(), code);
        }
    }

    /// Where somebody is, for scripts.
    pub fn note_connection(&mut self) {
        let login = self.session.login();
        let mut told = vec![
            ("DBNAME", login.database().to_owned()),
            ("USER", login.user().to_owned()),
            ("ENCODING", "UTF8".to_owned()),
        ];
        if let Some(wire) = self.session.wire() {
            told.push(("HOST", wire.place().host.clone()));
            told.push(("PORT", wire.place().port.to_string()));
        }
        for (name, value) in told {
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// Does all the whole pieces of a text, and gives back what is left of it. The flag tells whether
    /// all of them went well; after one that did not, nothing more is done if errors are to stop.
    pub async fn take(&mut self, text: &str, lines: &mut dyn Lines) -> Result<(String, bool)> {
        let (mut rest, mut good) = (text, true);
        while let Some((piece, length)) = scan::first(rest) {
            let done = match piece {
                scan::Piece::Statement(_) if !self.conditions.hold() => true,
                scan::Piece::Statement(sql) => self.statement(&sql, lines).await?,
                scan::Piece::Command { before, command } => {
                    match Box::pin(commands::run(self, &before, &command, lines)).await? {
                        commands::Then::Done(good) => good,
                        commands::Then::Keep => {
                            // The statement that was begun goes on behind the command.
                            let text = format!("{before}\n{}", &rest[length..]);
                            let (rest, done) = Box::pin(self.take(&text, lines)).await?;
                            return Ok((rest, good & done));
                        }
                    }
                }
            };
            good &= done;
            rest = &rest[length..];
            if self.quit || self.session.interrupted || (!good && self.stops_at_errors()) {
                return Ok((String::new(), good));
            }
        }
        Ok((rest.to_owned(), good))
    }

    /// Reads a script to its end; false if something in it has failed. Errors name `name` and the line.
    pub async fn script(&mut self, name: &str, input: impl BufRead) -> Result<bool> {
        let outer = self.session.origin.take();
        let around = std::mem::take(&mut self.conditions);
        let mut reader = Reader { input, number: 0 };
        let failed = |source| Error::Io { what: format!("read {name}"), source };
        let (mut pending, mut good) = (String::new(), true);
        while let Some(line) = reader.line().map_err(failed)? {
            if scan::is_blank(&pending) {
                // Errors are told with the line on which the statement begins.
                self.session.origin = Some(format!("{name}:{}", reader.number));
            }
            pending.push_str(&line);
            let (rest, done) = self.take(&pending, &mut reader).await?;
            (pending, good) = (rest, good & done);
            if self.is_at_end(good) {
                break;
            }
        }
        if !self.is_at_end(good) && !scan::is_blank(&pending) && self.conditions.hold() {
            // The last statement needs no semicolon.
            good &= self.statement(&pending, &mut Nothing).await?;
        }
        if !self.is_at_end(good) && self.conditions.is_open() {
            self.session.note("an \\if has no \\endif in the script that it is in");
            good = false;
        }
        (self.session.origin, self.conditions) = (outer, around);
        Ok(good)
    }

    fn is_at_end(&self, good: bool) -> bool {
        self.quit || self.session.interrupted || (!good && self.stops_at_errors())
    }

    /// Reads the script in a file.
    pub async fn file(&mut self, path: &std::path::Path) -> Result<bool> {
        if self.depth >= DEPTH {
            return Err(Error::Usage(format!(
                "{}: files read each other for ever",
                path.display()
            )));
        }
        let failed = |source| Error::Io { what: format!("read {}", path.display()), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let outer = self.directory.take();
        self.directory = path.parent().map(std::path::Path::to_owned);
        self.depth += 1;
        let name = path.display().to_string();
        let done = Box::pin(self.script(&name, io::BufReader::new(file))).await;
        self.depth -= 1;
        self.directory = outer;
        done
    }

    /// A line for whoever reads results.
    pub fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").map_err(Error::Print)?;
        self.out.flush()
    }
}
