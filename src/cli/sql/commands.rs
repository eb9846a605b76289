//! Commands that begin with a backslash, as users of psql know them.

use super::describe::{self, Listing};
use super::output::Output;
use super::print::Format;
use super::session::{Bytes, Verbosity, told};
use super::shell::{Lines, Shell};
use super::variables::arguments;
use super::{buffer, conditions, copy, editor, form, scan};
use crate::cli::error::{Error, Result};
use crate::password;

/// What `\?` shows.
const HELP: &str = include_str!("commands.txt");

/// Commands of psql's that are not here.
const PSQL: &str = "C H T copyright crosstabview ef ev html lo_export lo_import lo_list lo_unlink s parse \
                    bind_named close_prepared startpipeline endpipeline sendpipeline flush flushrequest \
                    getresults restrict unrestrict da dA db dc dC dd dD ddp des det deu dew dF dFd dFp dFt \
                    di dl dL dm do dO drds drg dRp dRs ds dT dx dX dy";

/// Variables that \set without a value switches on.
const SWITCHES: &[&str] =
    &["AUTOCOMMIT", "ON_ERROR_STOP", "ON_ERROR_ROLLBACK", "QUIET", "SINGLESTEP"];

/// Variables that mean something, here or in psql, or by which something is told: no result sets them.
const SPECIAL: &[&str] = &[
    "AUTOCOMMIT",
    "COMP_KEYWORD_CASE",
    "DBNAME",
    "ECHO",
    "ECHO_HIDDEN",
    "ENCODING",
    "ERROR",
    "FETCH_COUNT",
    "HIDE_TABLEAM",
    "HIDE_TOAST_COMPRESSION",
    "HISTCONTROL",
    "HISTFILE",
    "HISTSIZE",
    "HOST",
    "IGNOREEOF",
    "LAST_ERROR_MESSAGE",
    "LAST_ERROR_SQLSTATE",
    "ON_ERROR_ROLLBACK",
    "ON_ERROR_STOP",
    "PORT",
    "PROMPT1",
    "PROMPT2",
    "PROMPT3",
    "QUIET",
    "ROW_COUNT",
    "SHELL_ERROR",
    "SHELL_EXIT_CODE",
    "SHOW_ALL_RESULTS",
    "SHOW_CONTEXT",
    "SINGLELINE",
    "SINGLESTEP",
    "SQLSTATE",
    "USER",
    "VERBOSITY",
    "WATCH_INTERVAL",
];

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
    if conditions::is_condition(name) {
        return condition(shell, before, name, rest);
    }
    if !shell.conditions.hold() {
        return Ok(Then::Done(true));
    }
    let on_buffer = buffer::has(name);
    let done = match on_buffer {
        true => {
            let sql = if scan::is_blank(before) { shell.last.clone() } else { before.to_owned() };
            buffer::run(shell, name, rest, &sql, lines).await
        }
        false => other(shell, name, rest, lines).await,
    };
    let done = match done {
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
    // What only shows a statement leaves it as it is.
    let stays = !on_buffer || matches!(name, "p" | "w" | "write");
    let goes_on = done && stays && !scan::is_blank(before);
    Ok(if goes_on { Then::Keep } else { Then::Done(done) })
}

/// `\if` and what belongs to it, between statements.
fn condition(shell: &mut Shell, before: &str, name: &str, rest: &str) -> Result<Then> {
    if shell.conditions.hold() && !scan::is_blank(before) {
        // What a condition leaves out must not be run for want of it.
        shell.variables.insert("ON_ERROR_STOP".to_owned(), "1".to_owned());
        shell.session.note(&format!(
            "\\{name}: a condition stands between statements, not within one, so the script ends here: end \
             the statement before it with a semicolon"
        ));
        return Ok(Then::Done(false));
    }
    let arguments = arguments(rest, &shell.variables);
    let done = shell.conditions.take(name, arguments.first().map(String::as_str));
    if let Err(error) = &done {
        shell.session.note(&format!("\\{name}: {error}"));
    }
    Ok(Then::Done(done.is_ok()))
}

/// The name of a command and what follows it. `\!` needs no space.
fn split_name(command: &str) -> (&str, &str) {
    let end = match command.strip_prefix('!') {
        Some(_) => 1,
        None => command.find(char::is_whitespace).unwrap_or(command.len()),
    };
    (&command[..end], command[end..].trim())
}

async fn other(shell: &mut Shell, name: &str, rest: &str, lines: &mut dyn Lines) -> Result<bool> {
    let arguments = arguments(rest, &shell.variables);
    let first = arguments.first().map(String::as_str);
    match name {
        "q" | "quit" => shell.quit = true,
        "?" => shell.say(HELP.trim_end())?,
        "h" | "help" => {
            let text = crate::cli::help::show(arguments.join(" ").trim_end_matches(';').trim())?;
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
            let output = if rest.is_empty() {
                Output::stdout()
            } else {
                Output::of_argument(rest, &shell.variables)?
            };
            std::mem::replace(&mut shell.out, output).close()?;
        }
        "copy" => return copy::run(shell, rest, lines).await,
        "echo" | "qecho" => shell.say(&arguments.join(" "))?,
        "warn" => shell.session.note(&arguments.join(" ")),
        "sv" | "sf" => return definition(shell, first).await,
        "timing" => {
            shell.session.timing = form::switch(first, shell.session.timing)?;
            let state = if shell.session.timing { "on" } else { "off" };
            report(shell, &format!("Timing is {state}."))?;
        }
        "encoding" => shell.say("UTF8")?,
        "set" => return set(shell, &arguments),
        "unset" => unset(shell, first.unwrap_or_default()),
        "x" | "a" | "t" | "f" | "pset" => return form::run(shell, name, &arguments),
        "errverbose" => match &shell.session.last_error {
            Some((said, sql)) => shell.session.note(&told(said, sql, Verbosity::Verbose)),
            None => shell.say("There is no previous error.")?,
        },
        "bind" => shell.session.bound = Some(arguments),
        "getenv" | "setenv" | "prompt" => return ask_around(shell, name, &arguments),
        "password" => return password(shell, first).await,
        "" => {}
        _ if name.starts_with('d') || name.starts_with('l') || name == "z" => {
            return describe(shell, name, first).await;
        }
        _ => return Err(unknown(name)),
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

/// Why a command is not done: psql has more of them.
fn unknown(name: &str) -> Error {
    Error::Usage(match PSQL.split_whitespace().any(|known| known == name) {
        true => "psql has this command and oribi sql does not: run it with psql, which works with any daemon, or \
                 see \\? for what there is"
            .to_owned(),
        false => "there is no such command: \\? lists them".to_owned(),
    })
}

async fn connect(shell: &mut Shell, arguments: &[String]) -> Result<bool> {
    let at = |index: usize| arguments.get(index).filter(|text| *text != "-").cloned();
    let place = at(2).map(|text| text.parse().map_err(Error::Usage)).transpose()?;
    let unquoted = |name: String| name.trim_matches('"').to_owned();
    shell.session.change(at(0).map(unquoted), at(1).map(unquoted), place).await?;
    shell.note_connection();
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
            // Of those that are switches, as psql has it.
            let value = if values.is_empty() && SWITCHES.contains(&name.as_str()) {
                "on".to_owned()
            } else {
                values.concat()
            };
            set_variable(shell, name, value)?;
        }
    }
    Ok(true)
}

/// Sets a variable to a value of a result, whose columns the server names: not one that means something
/// (as psql since CVE-2020-25696), which is told.
pub fn set_from_result(shell: &mut Shell, name: String, value: Option<String>) {
    if SPECIAL.contains(&name.as_str()) {
        shell.session.note(&format!(
            "\\gset: the variable {name} has a meaning of its own and is not set from a result"
        ));
        return;
    }
    match value {
        Some(value) => drop(shell.variables.insert(name, value)),
        None => drop(shell.variables.remove(&name)),
    }
}

/// Removes a variable; one that means something has its default again.
fn unset(shell: &mut Shell, name: &str) {
    match name {
        "VERBOSITY" => shell.session.verbosity = Verbosity::Default,
        "QUIET" => shell.session.quiet = false,
        _ => {}
    }
    shell.variables.remove(name);
}

/// Sets a variable. Those that would have a meaning in psql have it here, or are refused.
pub fn set_variable(shell: &mut Shell, name: &str, value: String) -> Result<()> {
    let lower = value.to_lowercase();
    let on = || form::switch(Some(&lower), false);
    match name {
        "VERBOSITY" => {
            shell.session.verbosity = match lower.as_str() {
                "default" => Verbosity::Default,
                "verbose" => Verbosity::Verbose,
                "terse" => Verbosity::Terse,
                "sqlstate" => Verbosity::Sqlstate,
                _ => {
                    let what = "VERBOSITY is default, verbose, terse or sqlstate";
                    return Err(Error::Usage(what.to_owned()));
                }
            }
        }
        "QUIET" => shell.session.quiet = on()?,
        "AUTOCOMMIT" if !on()? => {
            return Err(Error::Usage(
                "each statement is a transaction of its own here: write BEGIN where one is to begin"
                    .to_owned(),
            ));
        }
        "ON_ERROR_ROLLBACK" | "SINGLESTEP" | "SINGLELINE" if lower != "off" => {
            return Err(Error::Usage(format!(
                "psql does something where {name} is set, and oribi sql does not: run it with psql"
            )));
        }
        _ => {}
    }
    shell.variables.insert(name.to_owned(), value);
    Ok(())
}

/// Variables from the environment, and back; and from whoever is at the terminal.
fn ask_around(shell: &mut Shell, name: &str, arguments: &[String]) -> Result<bool> {
    match (name, arguments) {
        ("getenv", [variable, environment]) => {
            if let Ok(value) = std::env::var(environment) {
                set_variable(shell, variable, value)?;
            }
        }
        ("prompt", [texts @ .., variable]) => {
            let failed = |source| Error::Io { what: "read the answer".into(), source };
            let held = shell.session.script_on_stdin;
            let value = editor::ask(&texts.concat(), false, held).map_err(failed)?;
            set_variable(shell, variable, value)?;
        }
        ("setenv", _) => {
            let what = "set it before oribi sql is started, or in front of the command: \\! NAME=VALUE ...";
            return Err(Error::Usage(what.to_owned()));
        }
        _ => {
            let what = "write it as \\getenv NAME ENVIRONMENT, \\prompt [TEXT] NAME";
            return Err(Error::Usage(what.to_owned()));
        }
    }
    Ok(true)
}

/// A password that neither the daemon nor any log gets to see: its verifier is made here.
async fn password(shell: &mut Shell, role: Option<&str>) -> Result<bool> {
    let role = role.unwrap_or_else(|| shell.session.login().user()).trim_matches('"').to_owned();
    let failed = |source| Error::Io { what: "read the password".into(), source };
    let prompts =
        [format!("Enter new password for user \"{role}\": "), "Enter it again: ".to_owned()];
    let held = shell.session.script_on_stdin;
    let [first, second] = prompts.map(|prompt| editor::ask(&prompt, true, held));
    let (first, second) = (first.map_err(failed)?, second.map_err(failed)?);
    if first != second {
        return Err(Error::Usage("the passwords are not the same".to_owned()));
    }
    if first.is_empty() {
        return Err(Error::Usage("the password is empty".to_owned()));
    }
    let verifier = password::verifier(&first).map_err(|error| Error::Usage(error.to_string()))?;
    let name = role.replace('"', "\"\"");
    let sql = format!("ALTER ROLE \"{name}\" PASSWORD {}", describe::literal(&verifier));
    let style = shell.style.clone();
    let mut none = Bytes(std::io::empty());
    shell.session.execute(&sql, &style, &mut shell.out, &mut none).await
}

async fn describe(shell: &mut Shell, name: &str, pattern: Option<&str>) -> Result<bool> {
    let plain = name.trim_end_matches(['+', 'S']);
    if let Some(pattern) = pattern.filter(|_| plain == "d") {
        return relations(shell, pattern, name.contains('+')).await;
    }
    let listing = describe::listing(name, pattern);
    show(shell, listing.ok_or_else(|| unknown(plain))?).await
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
async fn relations(shell: &mut Shell, pattern: &str, more: bool) -> Result<bool> {
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
            false => facts(shell, &schema, &name, more).await?,
        }
    }
    Ok(true)
}

async fn facts(shell: &mut Shell, schema: &str, name: &str, more: bool) -> Result<()> {
    let rows = shell.session.ask(&describe::facts(schema, name)).await?;
    let Some(row) = rows.into_iter().flatten().next() else { return Ok(()) };
    let (always, beyond) = describe::FACTS;
    let names = always.iter().chain(beyond.iter().filter(|_| more));
    let mut lines: Vec<String> =
        names.zip(row).filter_map(|(name, value)| Some(format!("{name}: {}", value?))).collect();
    let created = shell.session.ask(&describe::created(schema, name)).await?;
    let created = created.into_iter().flatten().flatten().flatten().next().unwrap_or_default();
    if let Some(by) = describe::partitioning(&created) {
        lines.push(format!("Partitioned by: {by}"));
    }
    let text = lines.join("\n");
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
    }
}
