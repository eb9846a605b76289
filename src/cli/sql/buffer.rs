//! Commands on the statement that stands before them, or on the one that was run last.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::commands::set_from_result;
use super::output::Output;
use super::print::Expanded;
use super::scan;
use super::shell::{Lines, Nothing, Shell};
use super::variables::{arguments, interpolate};
use super::wire::Row;
use crate::cli::error::{Error, Result};

/// Whether a command is one of these.
pub fn has(name: &str) -> bool {
    let names = ["g", "gx", "gset", "gexec", "gdesc", "watch", "e", "p", "r", "w", "write"];
    names.contains(&name)
}

/// Does one.
pub async fn run(
    shell: &mut Shell,
    name: &str,
    rest: &str,
    sql: &str,
    lines: &mut dyn Lines,
) -> Result<bool> {
    if scan::is_blank(sql) && !matches!(name, "e" | "p" | "r") {
        return Err(Error::Usage("there is no statement to run".to_owned()));
    }
    match name {
        "p" => {
            let text = if sql.is_empty() { "The query is empty." } else { &scan::unescaped(sql) };
            shell.say(text)?;
            Ok(true)
        }
        "r" => Ok(true),
        "e" => edit(shell, sql, rest, lines).await,
        "w" | "write" => write(shell, sql, rest),
        "watch" => watch(shell, sql, rest).await,
        "gset" => set_from(shell, sql, rest).await,
        "gexec" => run_all(shell, sql).await,
        "gdesc" => describe(shell, sql).await,
        _ => go(shell, name, rest, sql, lines).await,
    }
}

/// `\g` and `\gx`.
async fn go(
    shell: &mut Shell,
    name: &str,
    rest: &str,
    sql: &str,
    lines: &mut dyn Lines,
) -> Result<bool> {
    let mut style = shell.style.clone();
    if name == "gx" {
        style.expanded = Expanded::On;
    }
    if rest.is_empty() {
        return shell.statement_in(sql, &style, lines).await;
    }
    let output = Output::of_argument(rest, &shell.variables)?;
    let before = std::mem::replace(&mut shell.out, output);
    let done = shell.statement_in(sql, &style, lines).await;
    std::mem::replace(&mut shell.out, before).close()?;
    done
}

/// Each column of the one row becomes a variable; NULL is none.
async fn set_from(shell: &mut Shell, sql: &str, rest: &str) -> Result<bool> {
    let Some((names, rows)) = table(shell, sql).await? else { return Ok(false) };
    let row: [Row; 1] = match rows.try_into() {
        Ok(row) => row,
        Err(rows) => {
            let rows: Vec<Row> = rows;
            let what = if rows.is_empty() { "no row" } else { "more than one row" };
            return Err(Error::Usage(format!(
                "the statement gave {what}: variables are set from one"
            )));
        }
    };
    let prefix = arguments(rest, &shell.variables).into_iter().next().unwrap_or_default();
    for (name, value) in names.into_iter().zip(row.into_iter().flatten()) {
        set_from_result(shell, format!("{prefix}{name}"), value);
    }
    Ok(true)
}

/// Each value is a statement, which is run.
async fn run_all(shell: &mut Shell, sql: &str) -> Result<bool> {
    let Some((_, rows)) = table(shell, sql).await? else { return Ok(false) };
    let mut good = true;
    for sql in rows.into_iter().flatten().flatten() {
        good &= shell.statement_as_it_is(&sql).await?;
        if shell.session.interrupted || (!good && shell.stops_at_errors()) {
            break;
        }
    }
    Ok(good)
}

/// The columns that a statement would give, without running it.
async fn describe(shell: &mut Shell, sql: &str) -> Result<bool> {
    let sql = interpolate(sql, &shell.variables);
    let Some(columns) = shell.session.columns_of(&sql).await? else { return Ok(false) };
    if columns.is_empty() {
        shell.say("The statement has no result, or the result has no columns.")?;
        return Ok(true);
    }
    let quoted = |text: &str| super::describe::literal(text);
    let rows = columns.iter().enumerate().map(|(at, column)| {
        format!("({at}, {}, pg_catalog.format_type({}, NULL))", quoted(&column.name), column.oid)
    });
    let rows = rows.collect::<Vec<_>>().join(", ");
    let style = shell.style.clone();
    let sql = format!(
        "SELECT c.n AS \"Column\", c.t AS \"Type\" FROM (VALUES {rows}) c (at, n, t) ORDER BY c.at"
    );
    let mut none = super::session::Bytes(std::io::empty());
    shell.session.execute(&sql, &style, &mut shell.out, &mut none).await
}

/// A statement's columns' names and rows; none if it failed, which was told.
async fn table(shell: &mut Shell, sql: &str) -> Result<Option<(Vec<String>, Vec<Row>)>> {
    let sql = interpolate(sql, &shell.variables);
    shell.last.clone_from(&sql);
    let style = shell.style.clone();
    let found = shell.session.table(&sql, &style, &mut shell.out).await?;
    shell.note_outcome();
    Ok(found.map(|(columns, rows)| (columns.into_iter().map(|column| column.name).collect(), rows)))
}

/// Runs a statement every few seconds, until SIGINT or an error.
async fn watch(shell: &mut Shell, sql: &str, rest: &str) -> Result<bool> {
    let (mut seconds, mut count) = (2.0, None);
    for argument in arguments(rest, &shell.variables) {
        let told = match argument.split_once('=').unwrap_or(("i", &argument)) {
            ("i" | "interval", text) => text.parse::<f64>().map(|parsed| seconds = parsed).is_ok(),
            ("c" | "count", text) => text.parse::<u64>().map(|parsed| count = Some(parsed)).is_ok(),
            _ => false,
        };
        let pause = Duration::try_from_secs_f64(seconds);
        if !told || pause.is_err() {
            let wrong = format!("\"{argument}\": write it as \\watch [SECONDS] [c=TIMES]");
            return Err(Error::Usage(wrong));
        }
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

fn write(shell: &Shell, sql: &str, rest: &str) -> Result<bool> {
    if rest.is_empty() {
        return Err(Error::Usage("to which file?".to_owned()));
    }
    let mut out = Output::of_argument(rest, &shell.variables)?;
    writeln!(out, "{}", scan::unescaped(sql)).map_err(Error::Print)?;
    out.close()?;
    Ok(true)
}

async fn edit(shell: &mut Shell, sql: &str, rest: &str, lines: &mut dyn Lines) -> Result<bool> {
    let own = std::env::temp_dir().join(format!("oribi-sql-{}.sql", std::process::id()));
    let named = arguments(rest, &shell.variables).into_iter().next();
    let path = named.map_or_else(|| own.clone(), PathBuf::from);
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
