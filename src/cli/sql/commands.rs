//! Commands that begin with a backslash, as users of psql know them.

use std::fs::File;
use std::io::{BufReader, Write, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::describe::{self, Listing};
use super::output::Output;
use super::print::{Expanded, Format, Style};
use super::scan;
use super::session::{Bytes, Feed};
use super::shell::{Lines, Nothing, Shell};
use crate::cli::error::{Error, Result};

/// What `\?` shows.
const HELP: &str = include_str!("commands.txt");

/// What follows a command.
pub enum Then {
    /// The flag is false if something has failed.
    Done(bool),
    /// The statement that was begun before the command goes on.
    Keep,
}

/// Does a command. `before` is the statement that stands before it without a semicolon.
pub async fn run(
    shell: &mut Shell,
    before: &str,
    command: &str,
    lines: &mut dyn Lines,
) -> Result<Then> {
    let (name, rest) = split_name(command);
    if matches!(name, "g" | "gx" | "watch" | "e" | "p" | "r") {
        let sql = if scan::is_blank(before) { shell.last.clone() } else { before.to_owned() };
        return query_command(shell, name, rest, &sql, lines).await.map(Then::Done);
    }
    let done = match other(shell, name, rest).await {
        Ok(done) => done,
        // What is wrong with one command is no reason to end.
        Err(error @ (Error::Usage(_) | Error::Io { .. })) => {
            shell.session.note(&format!("\\{name}: {error}"));
            false
        }
        // A script would go on where it was not meant to: it ends, as psql does.
        Err(Error::Lost(reason))
            if shell.session.interactive && (name == "c" || name == "connect") =>
        {
            shell.session.note(&format!("{reason}\nThe connection stays as it was."));
            false
        }
        Err(error) => return Err(error),
    };
    Ok(if done && !scan::is_blank(before) { Then::Keep } else { Then::Done(done) })
}

/// The name of a command and what follows it. `\!` needs no space.
fn split_name(command: &str) -> (&str, &str) {
    let end = match command.strip_prefix('!') {
        Some(_) => 1,
        None => command.find(char::is_whitespace).unwrap_or(command.len()),
    };
    (&command[..end], command[end..].trim())
}

async fn query_command(
    shell: &mut Shell,
    name: &str,
    rest: &str,
    sql: &str,
    lines: &mut dyn Lines,
) -> Result<bool> {
    match name {
        "p" => {
            let text = if sql.is_empty() { "The query is empty." } else { sql };
            shell.say(text)?;
            Ok(true)
        }
        "r" => Ok(true),
        "e" => edit(shell, sql, rest, lines).await,
        "watch" => watch(shell, sql, rest).await,
        _ => {
            let mut style = shell.style.clone();
            if name == "gx" {
                style.expanded = Expanded::On;
            }
            if rest.is_empty() {
                return shell.statement_in(sql, &style, lines).await;
            }
            let output = match Output::open(rest) {
                Ok(output) => output,
                Err(error) => {
                    shell.session.note(&format!("\\{name}: {error}"));
                    return Ok(false);
                }
            };
            let before = std::mem::replace(&mut shell.out, output);
            let done = shell.statement_in(sql, &style, lines).await;
            std::mem::replace(&mut shell.out, before).close()?;
            done
        }
    }
}

async fn other(shell: &mut Shell, name: &str, rest: &str) -> Result<bool> {
    let arguments = arguments(rest);
    let first = arguments.first().map(String::as_str);
    match name {
        "q" | "quit" => shell.quit = true,
        "?" => shell.say(HELP.trim_end())?,
        "h" | "help" => {
            let text = crate::cli::help::show(first)?;
            shell.say(text.trim_end())?;
        }
        "c" | "connect" => return connect(shell, &arguments).await,
        "conninfo" => return conninfo(shell),
        "!" => {
            let failed = |source| Error::Io { what: "run a shell".into(), source };
            let script = if rest.is_empty() { "exec \"${SHELL:-sh}\"" } else { rest };
            let ended = std::process::Command::new("sh").args(["-c", script]).status();
            return Ok(ended.map_err(failed)?.success());
        }
        "cd" => {
            let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
            let to = first.unwrap_or(&home);
            let failed = |source| Error::Io { what: format!("change to {to}"), source };
            std::env::set_current_dir(to).map_err(failed)?;
        }
        "i" | "include" | "ir" | "include_relative" => {
            let Some(path) = first else { return Err(Error::Usage("which file?".to_owned())) };
            let base = shell.directory.clone().filter(|_| name.contains('r') && name != "include");
            let path = base.unwrap_or_default().join(path);
            return Box::pin(shell.file(&path)).await;
        }
        "o" | "out" => {
            let output = if rest.is_empty() { Output::stdout() } else { Output::open(rest)? };
            std::mem::replace(&mut shell.out, output).close()?;
        }
        "copy" => return copy(shell, rest).await,
        "echo" | "qecho" => shell.say(&arguments.join(" "))?,
        "warn" => shell.session.note(&arguments.join(" ")),
        "sv" | "sf" => return definition(shell, first).await,
        "timing" => {
            shell.session.timing = switch(first, shell.session.timing)?;
            let state = if shell.session.timing { "on" } else { "off" };
            report(shell, &format!("Timing is {state}."))?;
        }
        "encoding" => shell.say("UTF8")?,
        "set" => return set(shell, &arguments),
        "unset" => {
            shell.variables.remove(first.unwrap_or_default());
        }
        "x" | "a" | "t" | "f" | "pset" => return form(shell, name, &arguments),
        "" => {}
        _ if name.starts_with('d') || name.starts_with('l') || name == "z" => {
            return describe(shell, name, first).await;
        }
        "if" | "elif" | "else" | "endif" => {
            // What a condition leaves out must not be run for want of it.
            shell.variables.insert("ON_ERROR_STOP".to_owned(), "1".to_owned());
            let what = "conditions are not supported, so the script ends here: run it with psql";
            return Err(Error::Usage(what.to_owned()));
        }
        _ => return Err(Error::Usage("there is no such command: \\? lists them".to_owned())),
    }
    Ok(true)
}

/// Something for people at a terminal.
fn report(shell: &mut Shell, text: &str) -> Result<()> {
    match shell.session.quiet {
        true => Ok(()),
        false => shell.say(text),
    }
}

/// Arguments between spaces; quotes hold one together.
fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                begun = true;
                while let Some(inner) = characters.next() {
                    match inner {
                        '\'' if characters.peek() == Some(&'\'') => {
                            characters.next();
                            word.push('\'');
                        }
                        '\'' => break,
                        '\\' => word.push(match characters.next() {
                            Some('n') => '\n',
                            Some('t') => '\t',
                            other => other.unwrap_or('\\'),
                        }),
                        inner => word.push(inner),
                    }
                }
            }
            '"' => {
                // Part of the name, as patterns want it.
                begun = true;
                word.push('"');
                for inner in characters.by_ref() {
                    word.push(inner);
                    if inner == '"' {
                        break;
                    }
                }
            }
            character if character.is_whitespace() => {
                if begun {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            character => {
                begun = true;
                word.push(character);
            }
        }
    }
    if begun {
        all.push(word);
    }
    all
}

fn switch(argument: Option<&str>, now: bool) -> Result<bool> {
    match argument.map(str::to_lowercase).as_deref() {
        None => Ok(!now),
        Some("on" | "true" | "1" | "yes") => Ok(true),
        Some("off" | "false" | "0" | "no") => Ok(false),
        Some(other) => Err(Error::Usage(format!("\"{other}\" is neither on nor off"))),
    }
}

async fn connect(shell: &mut Shell, arguments: &[String]) -> Result<bool> {
    let at = |index: usize| arguments.get(index).filter(|text| *text != "-").cloned();
    let place = at(2).map(|text| text.parse().map_err(Error::Usage)).transpose()?;
    let unquoted = |name: String| name.trim_matches('"').to_owned();
    shell.session.change(at(0).map(unquoted), at(1).map(unquoted), place).await?;
    if !shell.session.quiet {
        conninfo(shell)?;
    }
    Ok(true)
}

fn conninfo(shell: &mut Shell) -> Result<bool> {
    let login = shell.session.login();
    let (database, user) = (login.database().to_owned(), login.user().to_owned());
    let text = match shell.session.wire() {
        Some(wire) => {
            let how = if wire.is_encrypted() { "encrypted" } else { "not encrypted" };
            format!(
                "You are connected to database \"{database}\" as user \"{user}\" at {} ({how}; \
                 session {}, as PostgreSQL {}).",
                wire.place(),
                wire.pid(),
                wire.version()
            )
        }
        None => "You are not connected.".to_owned(),
    };
    shell.say(&text)?;
    Ok(true)
}

fn set(shell: &mut Shell, arguments: &[String]) -> Result<bool> {
    match arguments {
        [] => {
            let all = shell.variables.iter().map(|(name, value)| format!("{name} = '{value}'"));
            let all = all.collect::<Vec<_>>().join("\n");
            if !all.is_empty() {
                shell.say(&all)?;
            }
        }
        [name, values @ ..] => {
            let value = if values.is_empty() { "1".to_owned() } else { values.concat() };
            shell.variables.insert(name.clone(), value);
        }
    }
    Ok(true)
}

/// `\pset` and what stands for parts of it.
fn form(shell: &mut Shell, name: &str, arguments: &[String]) -> Result<bool> {
    let first = arguments.first().map(String::as_str);
    let (name, value) = match name {
        "x" => ("expanded", first),
        "t" => ("tuples_only", first),
        "f" => ("fieldsep", first),
        "a" => (
            "format",
            Some(match shell.style.format {
                Format::Unaligned => "aligned",
                _ => "unaligned",
            }),
        ),
        _ => (first.unwrap_or_default(), arguments.get(1).map(String::as_str)),
    };
    let style = &mut shell.style;
    match name {
        "" => {}
        "expanded" => {
            style.expanded = match (value, style.expanded) {
                (Some("auto"), _) => Expanded::Auto,
                (value, now) => match switch(value, now != Expanded::Off)? {
                    true => Expanded::On,
                    false => Expanded::Off,
                },
            }
        }
        "tuples_only" => style.tuples_only = switch(value, style.tuples_only)?,
        "fieldsep" => value.unwrap_or_default().clone_into(&mut style.separator),
        "null" => value.unwrap_or_default().clone_into(&mut style.null),
        "format" => style.format = match value.unwrap_or("aligned") {
            "aligned" => Format::Table,
            other => <Format as clap::ValueEnum>::from_str(other, true).map_err(|_| {
                Error::Usage(format!(
                    "\"{other}\" is no format: aligned, unaligned, expanded, csv, tsv, json, jsonl \
                         and markdown are"
                ))
            })?,
        },
        other => return Err(Error::Usage(format!("\"{other}\" cannot be set"))),
    }
    let Style { format, expanded, tuples_only, separator, null, .. } = &shell.style;
    let on = |on: bool| if on { "on" } else { "off" };
    let expanded = match expanded {
        Expanded::Auto => "used automatically",
        other => on(*other == Expanded::On),
    };
    let format = format!("{format:?}").to_lowercase();
    let text = match name {
        "expanded" => format!("Expanded display is {expanded}."),
        "tuples_only" => format!("Tuples only is {}.", on(*tuples_only)),
        "fieldsep" => format!("Field separator is \"{separator}\"."),
        "null" => format!("Null display is \"{null}\"."),
        "format" => format!("Output format is {format}."),
        _ => format!(
            "expanded     {expanded}\nfieldsep     '{separator}'\nformat       {format}\n\
             null         '{null}'\ntuples_only  {}",
            on(*tuples_only)
        ),
    };
    // What was asked for is said however quiet it is to be.
    if name.is_empty() {
        shell.say(&text)?
    } else {
        report(shell, &text)?
    }
    Ok(true)
}

/// Runs a statement every few seconds, until SIGINT or an error.
async fn watch(shell: &mut Shell, sql: &str, rest: &str) -> Result<bool> {
    let (mut seconds, mut count) = (2.0, None);
    for argument in arguments(rest) {
        match argument.split_once('=').unwrap_or(("i", &argument)) {
            ("i" | "interval", text) => seconds = text.parse().unwrap_or(seconds),
            ("c" | "count", text) => count = text.parse::<u64>().ok(),
            _ => {}
        }
    }
    if scan::is_blank(sql) {
        shell.session.note("\\watch: there is no statement to run");
        return Ok(false);
    }
    let pause = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(2));
    let mut run = 0;
    loop {
        let now = chrono::Local::now().format("%a %b %e %H:%M:%S %Y");
        shell.say(&format!("{now} (every {seconds}s)\n"))?;
        if !shell.statement(sql, &mut Nothing).await? {
            return Ok(false);
        }
        run += 1;
        if shell.session.interrupted || count.is_some_and(|count| run >= count) {
            return Ok(true);
        }
        if !shell.session.pause(pause).await {
            return Ok(true);
        }
    }
}

async fn edit(shell: &mut Shell, sql: &str, rest: &str, lines: &mut dyn Lines) -> Result<bool> {
    let own = std::env::temp_dir().join(format!("oribi-sql-{}.sql", std::process::id()));
    let path = if rest.is_empty() { own.clone() } else { PathBuf::from(rest) };
    let failed = |source| Error::Io { what: format!("edit {}", path.display()), source };
    if rest.is_empty() {
        use std::os::unix::fs::OpenOptionsExt;
        // Nobody else's file of that name is written to.
        let _ = std::fs::remove_file(&own);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&own);
        writeln!(file.map_err(failed)?, "{sql}").map_err(failed)?;
    }
    let script = "exec ${PSQL_EDITOR:-${EDITOR:-${VISUAL:-vi}}} \"$0\"";
    let ended = std::process::Command::new("sh").args(["-c", script]).arg(&path).status();
    let edited = ended.map_err(failed)?.success();
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    if rest.is_empty() {
        let _ = std::fs::remove_file(&own);
    }
    if !edited || scan::is_blank(&text) {
        return Ok(edited);
    }
    shell.say(text.trim_end())?;
    let (rest, good) = Box::pin(shell.take(&text, lines)).await?;
    Ok(good && shell.statement(&rest, lines).await?)
}

/// COPY with a file here in place of the daemon's input or output.
async fn copy(shell: &mut Shell, rest: &str) -> Result<bool> {
    let usage = || {
        Error::Usage(
            "write it as \\copy TABLE|(QUERY) FROM|TO 'FILE'|STDIN|STDOUT [OPTIONS]".to_owned(),
        )
    };
    let (before, direction, after) = split_copy(rest).ok_or_else(usage)?;
    let file = arguments(after).into_iter().next().ok_or_else(usage)?;
    let options = match after.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').map(|(_, options)| options),
        None => after.split_once(char::is_whitespace).map(|(_, options)| options),
    };
    let options = options.unwrap_or_default().trim();
    let from = direction == "FROM";
    let end = if from { "STDIN" } else { "STDOUT" };
    let sql = format!("COPY {before} {direction} {end} {options}");
    let failed = |source| Error::Io { what: format!("read {file}"), source };
    let style = shell.style.clone();
    let standard =
        matches!(file.to_lowercase().as_str(), "stdin" | "stdout" | "pstdin" | "pstdout");
    let mut none = Bytes(std::io::empty());
    if from {
        let mut feed: Box<dyn Feed> = match standard {
            true => Box::new(Bytes(stdin())),
            false => Box::new(Bytes(BufReader::new(File::open(Path::new(&file)).map_err(failed)?))),
        };
        return shell.session.execute(&sql, &style, &mut shell.out, feed.as_mut()).await;
    }
    if standard {
        return shell.session.execute(&sql, &style, &mut shell.out, &mut none).await;
    }
    let mut output = Output::open(&file)?;
    let done = shell.session.execute(&sql, &style, &mut output, &mut none).await;
    output.close()?;
    done
}

/// What is copied, FROM or TO, and the rest.
fn split_copy(text: &str) -> Option<(&str, &'static str, &str)> {
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

async fn describe(shell: &mut Shell, name: &str, pattern: Option<&str>) -> Result<bool> {
    let plain = name.trim_end_matches(['+', 'S']);
    if let Some(pattern) = pattern.filter(|_| plain == "d") {
        return relations(shell, pattern).await;
    }
    let listing = describe::listing(name, pattern);
    let listing = listing
        .ok_or_else(|| Error::Usage("there is no such command: \\? lists them".to_owned()))?;
    show(shell, listing).await
}

/// A listing with its title, whatever form rows have otherwise.
async fn show(shell: &mut Shell, listing: Listing) -> Result<bool> {
    let people = shell.style.format == Format::Table && !shell.style.tuples_only;
    if people {
        shell.say(&listing.title)?;
    }
    let style = shell.style.clone();
    let mut none = Bytes(std::io::empty());
    shell.session.execute(&listing.sql, &style, &mut shell.out, &mut none).await
}

/// The columns of each relation that a pattern means, and what else is known of it.
async fn relations(shell: &mut Shell, pattern: &str) -> Result<bool> {
    let Some(found) = shell.session.ask(&describe::found(pattern)).await? else { return Ok(false) };
    if found.is_empty() {
        shell.session.note(&format!(
            "Did not find any relation named \"{pattern}\": \\d lists them, \\dS the system's as well."
        ));
        return Ok(false);
    }
    for row in found {
        let [Some(oid), Some(schema), Some(name), kind] =
            <[_; 4]>::try_from(row).unwrap_or_default()
        else {
            continue;
        };
        let is_view = matches!(kind.as_deref(), Some("v" | "m"));
        let kind = if is_view { "View" } else { "Table" };
        let title = format!("{kind} \"{schema}.{name}\"");
        if !show(shell, Listing { title, sql: describe::columns(&oid) }).await? {
            return Ok(false);
        }
        if shell.style.format != Format::Table || shell.style.tuples_only {
            continue;
        }
        match is_view {
            true => {
                let definition = shell.session.ask(&describe::definition(&oid)).await?;
                let text = definition.into_iter().flatten().flatten().flatten().next();
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    shell.say(&format!("View definition:\n{text}\n"))?;
                }
            }
            false => facts(shell, &schema, &name).await?,
        }
    }
    Ok(true)
}

async fn facts(shell: &mut Shell, schema: &str, name: &str) -> Result<()> {
    let rows = shell.session.ask(&describe::facts(schema, name)).await?;
    let Some(row) = rows.into_iter().flatten().next() else { return Ok(()) };
    let names = ["Kind", "Format", "Location", "Rows", "Bytes", "Files", "Error"];
    let lines =
        names.iter().zip(row).filter_map(|(name, value)| Some(format!("{name}: {}", value?)));
    let text = lines.collect::<Vec<_>>().join("\n");
    shell.say(&format!("{text}\n"))
}

async fn definition(shell: &mut Shell, name: Option<&str>) -> Result<bool> {
    let name = name.ok_or_else(|| Error::Usage("of which view?".to_owned()))?;
    let Some(found) = shell.session.ask(&describe::found(name)).await? else { return Ok(false) };
    let oid = found.into_iter().next().and_then(|row| row.into_iter().next()?);
    let Some(oid) = oid else {
        return Err(Error::Usage(format!("there is no view \"{name}\"")));
    };
    let rows = shell.session.ask(&describe::definition(&oid)).await?;
    let text = rows.into_iter().flatten().flatten().flatten().next().unwrap_or_default();
    shell.say(&text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_their_arguments_are_told_apart() {
        assert_eq!(split_name("dt+ a.*"), ("dt+", "a.*"));
        assert_eq!(split_name("!ls -l"), ("!", "ls -l"));
        assert_eq!(
            arguments("a 'b c' \"D e\".f '' 'it''s'"),
            ["a", "b c", "\"D e\".f", "", "it's"]
        );
        assert_eq!(
            split_copy("(SELECT 1 from t) to 'x y' csv"),
            Some(("(SELECT 1 from t)", "TO", "'x y' csv"))
        );
        assert_eq!(split_copy("t (a, b) FROM stdin"), Some(("t (a, b)", "FROM", "stdin")));
        assert_eq!(split_copy("t"), None);
    }
}
