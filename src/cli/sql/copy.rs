//! `\copy`: COPY with a file or a program here in place of the daemon's input or output.

use std::fs::File;
use std::io::{self, BufReader, Read, stdin};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::output::Output;
use super::session::{Bytes, Feed};
use super::shell::{Lines, Shell, UntilDot};
use super::variables::{Variables, arguments};
use crate::cli::error::{Error, Result};

/// What stands at this end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Standard,
    File(String),
    Program(String),
}

pub async fn run(shell: &mut Shell, rest: &str, lines: &mut dyn Lines) -> Result<bool> {
    let usage = || {
        Error::Usage(
            "write it as \\copy TABLE|(QUERY) FROM|TO 'FILE'|PROGRAM 'COMMAND'|STDIN|STDOUT [OPTIONS]"
                .to_owned(),
        )
    };
    let (before, direction, after) = split(rest).ok_or_else(usage)?;
    let (end, options) = end(after).ok_or_else(usage)?;
    let from = direction == "FROM";
    let theirs = if from { "STDIN" } else { "STDOUT" };
    let sql = format!("COPY {before} {direction} {theirs} {options}");
    let style = shell.style.clone();
    let mut none = Bytes(io::empty());
    if from {
        let own = after.to_lowercase().starts_with("stdin");
        let mut feed: Box<dyn Feed + '_> = match end {
            // As in psql: what follows in the script, up to a line of \. alone.
            End::Standard if shell.is_at_script_on_stdin() || (own && shell.depth > 0) => {
                Box::new(UntilDot::new(lines))
            }
            End::Standard if shell.session.script_on_stdin => {
                let what = "standard input is the script that reads this one: name a file, or STDIN for \
                            what follows here";
                return Err(Error::Usage(what.to_owned()));
            }
            End::Standard => Box::new(Bytes(stdin())),
            End::File(file) => {
                let failed = |source| Error::Io { what: format!("read {file}"), source };
                Box::new(Bytes(BufReader::new(File::open(Path::new(&file)).map_err(failed)?)))
            }
            End::Program(command) => {
                Box::new(Program::start(command, shell.session.script_on_stdin)?)
            }
        };
        return shell.session.execute(&sql, &style, &mut shell.out, feed.as_mut()).await;
    }
    let (mut output, command) = match end {
        End::Standard => {
            return shell.session.execute(&sql, &style, &mut shell.out, &mut none).await;
        }
        End::File(file) => (Output::file(&file)?, None),
        End::Program(command) => (Output::program(&command)?, Some(command)),
    };
    let done = shell.session.execute(&sql, &style, &mut output, &mut none).await;
    let ended = output.close();
    if let Some(command) = &command
        && (done.as_ref().is_err_and(Error::is_unheard)
            || ended.as_ref().is_err_and(Error::is_unheard))
    {
        shell.session.note(&format!("\\copy: {command} has ended before it had read all"));
        return Ok(false);
    }
    match (ended?, command) {
        (Some(status), Some(command)) if !status.success() => {
            shell.session.note(&format!("\\copy: {}", failure(&command, status)));
            done.map(|_| false)
        }
        _ => done,
    }
}

/// What is copied, FROM or TO, and the rest.
fn split(text: &str) -> Option<(&str, &'static str, &str)> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), character) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, character) if character.is_whitespace() && depth == 0 => {
                let rest = text[at..].trim_start();
                let word = rest.split(char::is_whitespace).next().unwrap_or_default();
                let direction = match word.to_uppercase().as_str() {
                    "FROM" => "FROM",
                    "TO" => "TO",
                    _ => continue,
                };
                return Some((text[..at].trim(), direction, rest[word.len()..].trim()));
            }
            _ => {}
        }
    }
    None
}

/// This end, and the options behind it.
fn end(text: &str) -> Option<(End, &str)> {
    let word = text.split(char::is_whitespace).next().unwrap_or_default();
    if word.eq_ignore_ascii_case("program") {
        let (command, options) = quoted(text[word.len()..].trim_start())?;
        return Some((End::Program(command), options));
    }
    if ["stdin", "stdout", "pstdin", "pstdout"].contains(&word.to_lowercase().as_str()) {
        return Some((End::Standard, text[word.len()..].trim()));
    }
    let file = arguments(text, &Variables::new()).into_iter().next()?;
    let options = match text.starts_with('\'') {
        true => quoted(text)?.1,
        false => text[word.len()..].trim(),
    };
    Some((End::File(file), options))
}

/// A text in quotes, in which two of them are one, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut inner = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        inner += part;
        let Some(more) = after.strip_prefix('\'') else {
            return (!inner.is_empty()).then(|| (inner, after.trim()));
        };
        inner.push('\'');
        rest = more;
    }
}

/// What a program writes, of which nothing is kept where it fails.
struct Program {
    command: String,
    child: Child,
}

impl Program {
    fn start(command: String, stdin_is_taken: bool) -> Result<Self> {
        let failed = |source| Error::Io { what: format!("run {command}"), source };
        let input = if stdin_is_taken { Stdio::null() } else { Stdio::inherit() };
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(input).stdout(Stdio::piped());
        let child = shell.spawn().map_err(failed)?;
        Ok(Self { command, child })
    }
}

impl Feed for Program {
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(output) = &mut self.child.stdout
            && let Some(bytes) = Bytes(output.by_ref()).chunk()?
        {
            return Ok(Some(bytes));
        }
        match self.child.wait()? {
            status if status.success() => Ok(None),
            status => Err(io::Error::other(failure(&self.command, status))),
        }
    }
}

impl Drop for Program {
    /// One that is still at it has nobody to write for.
    fn drop(&mut self) {
        drop(self.child.stdout.take());
        let _ = self.child.wait();
    }
}

fn failure(command: &str, status: ExitStatus) -> String {
    format!("the program has failed ({status}): {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_is_told_from_where_it_goes() {
        assert_eq!(
            split("(SELECT 1 from t) to 'x y' csv"),
            Some(("(SELECT 1 from t)", "TO", "'x y' csv"))
        );
        assert_eq!(split("t (a, b) FROM stdin"), Some(("t (a, b)", "FROM", "stdin")));
        assert_eq!(split("t"), None);
        let file = |name: &str| End::File(name.to_owned());
        let program = |command: &str| End::Program(command.to_owned());
        for (text, expected) in [
            ("'x y' csv header", Some((file("x y"), "csv header"))),
            ("x.csv csv", Some((file("x.csv"), "csv"))),
            ("PSTDOUT", Some((End::Standard, ""))),
            ("program 'sort | uniq' csv", Some((program("sort | uniq"), "csv"))),
            ("PROGRAM 'echo ''x'' y'", Some((program("echo 'x' y"), ""))),
            ("program sort", None),
            ("program 'sort", None),
            ("program ''", None),
            ("program", None),
        ] {
            assert_eq!(end(text), expected, "{text}");
        }
    }
}
