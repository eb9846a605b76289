//! `oribi sql`: SQL at a terminal, or from scripts, with any daemon.
//!
//! - [`wire`]: one connection, message by message.
//! - [`session`]: the connection, and the next one when it is lost.
//! - [`side`], [`progress`]: what is asked beside the statements.
//! - [`scan`], [`variables`]: text taken apart into statements and commands.
//! - [`shell`]: these, done one by one; [`commands`], [`buffer`], [`describe`], [`form`], [`conditions`]: those
//!   with a backslash.
//! - [`print`], [`output`]: rows, in which form and where to.
//! - [`editor`], [`complete`]: what is typed.
//!
//! Exit codes are psql's: 0, all went well; 1, it failed by itself, or the last `-c` has failed; 2, no
//! connection; 3, a statement of a script has failed and `ON_ERROR_STOP` is set.

mod buffer;
mod commands;
mod complete;
mod conditions;
mod copy;
pub mod describe;
pub mod editor;
mod form;
pub mod output;
pub mod print;
mod progress;
pub mod scan;
pub mod session;
mod shell;
mod side;
mod variables;
pub mod wire;

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Runtime;

use self::conditions::Conditions;
use self::editor::{Editor, History, Language, Prompts, Read};
use self::output::Output;
use self::print::{Expanded, Format, Style};
use self::session::Session;
use self::shell::{Nothing, Shell};
use super::error::{Error, Result};
use super::link::Link;
use super::link::login::{Login, setting};
use super::link::places::Places;
use super::runtime;

const APPLICATION: &str = "oribi sql";

/// Of a script that has failed.
const SCRIPT_FAILED: u8 = 3;

#[derive(Debug, Args)]
pub struct Options {
    /// Run this, and end; may be given several times. What begins with a backslash is a command.
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    command: Vec<String>,
    /// Run a script, and end; "-" is standard input. May be given several times.
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// How rows are shown.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with_all = ["format", "csv", "no_align"])]
    json: bool,
    /// The same as --format csv.
    #[arg(long, conflicts_with_all = ["format", "no_align"])]
    csv: bool,
    /// The same as --format unaligned.
    #[arg(short = 'A', long, conflicts_with = "format")]
    no_align: bool,
    /// Rows only: no headings, no number of rows.
    #[arg(short, long)]
    tuples_only: bool,
    /// One column a line.
    #[arg(short = 'x', long)]
    expanded: bool,
    /// What stands between values that are not aligned.
    #[arg(short = 'F', long, default_value = "|", value_name = "TEXT")]
    field_separator: String,
    /// What stands in place of NULL.
    #[arg(long, default_value = "", value_name = "TEXT")]
    null: String,
    /// Rows go to a file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only rows and errors.
    #[arg(short, long)]
    quiet: bool,
    /// A variable, such as ON_ERROR_STOP=1; may be given several times.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = setting)]
    variables: Vec<(String, String)>,
    /// Do not keep what is typed (else: $XDG_STATE_HOME/oribi/sql_history).
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    link: Link,
}

pub fn run(options: Options) -> Result<()> {
    let runtime = runtime()?;
    let mut shell = runtime.block_on(open(&options))?;
    let done = match (&options.command[..], &options.file[..]) {
        ([], []) if stdin().is_terminal() => {
            shell.session.interactive = true;
            interact(&runtime, &mut shell, options.no_history)
        }
        ([], []) => runtime.block_on(scripts(&mut shell, &[PathBuf::from("-")])),
        ([], files) => runtime.block_on(scripts(&mut shell, files)),
        (commands, _) => runtime.block_on(each(&mut shell, commands)),
    };
    let Shell { mut session, out, .. } = shell;
    runtime.block_on(session.close());
    done.and(out.close().map(drop))
}

async fn open(options: &Options) -> Result<Shell> {
    let Options { link, .. } = options;
    let login = Login::new(link.login.clone(), APPLICATION)?;
    let places = Places::open(link.places.clone()).await.map_err(|error| match error {
        Error::Unreachable(reason) => Error::Lost(reason),
        other => other,
    })?;
    let mut session = Session::new(places, login)?;
    session.quiet = options.quiet;
    session.connect(None).await?;
    let format = match options {
        Options { json: true, .. } => Format::Json,
        Options { csv: true, .. } => Format::Csv,
        Options { no_align: true, .. } => Format::Unaligned,
        other => other.format,
    };
    let style = Style {
        format,
        expanded: if options.expanded { Expanded::On } else { Expanded::Off },
        tuples_only: options.tuples_only,
        footer: true,
        separator: options.field_separator.clone(),
        null: options.null.clone(),
        columns: editor::terminal::columns(),
    };
    let out = match &options.output {
        Some(path) => Output::open(&path.display().to_string())?,
        None => Output::stdout(),
    };
    let variables: BTreeMap<_, _> = options.variables.iter().cloned().collect();
    let (last, quit, directory, depth) = (String::new(), false, None, 0);
    let conditions = Conditions::default();
    let mut shell = Shell {
        session,
        style,
        out,
        variables: BTreeMap::new(),
        conditions,
        last,
        quit,
        directory,
        depth,
    };
    shell.note_connection();
    // Those that mean something take effect, as by \set.
    for (name, value) in variables {
        commands::set_variable(&mut shell, &name, value)?;
    }
    Ok(shell)
}

/// The texts of `-c`: each is one request, as psql sends it, or one command.
async fn each(shell: &mut Shell, commands: &[String]) -> Result<()> {
    let mut good = true;
    for text in commands {
        good = match text.trim_start().starts_with('\\') {
            true => shell.take(text, &mut Nothing).await?.1,
            false => {
                let mut lines = shell::Reader { input: stdin().lock(), number: 0 };
                shell.statement(text, &mut lines).await?
            }
        };
        interrupted(shell)?;
        if shell.quit || (!good && shell.stops_at_errors()) {
            break;
        }
    }
    if good { Ok(()) } else { Err(Error::Told(1)) }
}

async fn scripts(shell: &mut Shell, files: &[PathBuf]) -> Result<()> {
    for path in files {
        let good = match path.as_os_str() == "-" {
            true => {
                shell.session.script_on_stdin = true;
                let done = shell.script("<stdin>", stdin().lock()).await;
                shell.session.script_on_stdin = false;
                done?
            }
            false => shell.file(path).await?,
        };
        interrupted(shell)?;
        if !good && shell.stops_at_errors() {
            return Err(Error::Told(SCRIPT_FAILED));
        }
        if shell.quit {
            break;
        }
    }
    Ok(())
}

fn interrupted(shell: &Shell) -> Result<()> {
    if shell.session.interrupted { Err(Error::Interrupted) } else { Ok(()) }
}

/// SQL for the editor.
struct Sql<'a> {
    runtime: &'a Runtime,
    session: &'a Session,
    /// What was typed before and is not at its end.
    pending: &'a str,
}

impl Language for Sql<'_> {
    fn is_whole(&self, text: &str) -> bool {
        scan::is_whole(&format!("{}{text}", self.pending))
    }

    fn complete(&mut self, text: &str, cursor: usize) -> (usize, Vec<String>) {
        self.runtime.block_on(async {
            let mut side = self.session.side.lock().await;
            complete::candidates(text, cursor, side.names().await)
        })
    }
}

fn interact(runtime: &Runtime, shell: &mut Shell, no_history: bool) -> Result<()> {
    if !shell.session.quiet {
        greet(shell)?;
    }
    let path = History::default_path().filter(|_| !no_history);
    let mut editor = Editor { history: History::open(path) };
    let failed = |source| Error::Io { what: "read from the terminal".into(), source };
    let mut pending = String::new();
    while !shell.quit {
        shell.style.columns = editor::terminal::columns();
        shell.session.interrupted = false;
        let prompts = prompts(shell, !pending.is_empty());
        let mut language = Sql { runtime, session: &shell.session, pending: &pending };
        match editor.read(&prompts, &mut language).map_err(failed)? {
            Read::End => {
                if !shell.session.quiet && stdout().is_terminal() {
                    shell.say("\\q")?;
                }
                break;
            }
            Read::Interrupted => pending.clear(),
            Read::Text(text) => {
                let all = format!("{pending}{text}");
                pending = take(runtime, shell, &all)?;
            }
        }
    }
    Ok(())
}

/// Does what was typed. Without a way to any daemon it goes on: one may come up.
fn take(runtime: &Runtime, shell: &mut Shell, text: &str) -> Result<String> {
    match runtime.block_on(shell.take(text, &mut Typed)) {
        Ok((rest, _)) if scan::is_blank(&rest) => Ok(String::new()),
        Ok((rest, _)) => Ok(rest),
        Err(Error::Lost(reason)) => {
            shell.session.note(&format!(
                "{reason}\nThe next statement looks for a daemon again; \\q quits."
            ));
            Ok(String::new())
        }
        Err(error) => Err(error),
    }
}

/// Rows for COPY FROM STDIN, typed.
struct Typed;

impl shell::Lines for Typed {
    fn line(&mut self) -> std::io::Result<Option<String>> {
        use std::io::Write;
        let mut out = stdout();
        write!(out, ">> ")?;
        out.flush()?;
        let mut line = String::new();
        Ok((stdin().read_line(&mut line)? > 0).then_some(line))
    }
}

fn greet(shell: &mut Shell) -> Result<()> {
    let place = shell.session.wire().map(|wire| wire.place().to_string()).unwrap_or_default();
    shell.say(&format!(
        "oribi sql {}, connected to {place}. \\? lists commands, \\h helps with SQL, \\q quits.\n",
        env!("CARGO_PKG_VERSION")
    ))
}

/// `=` where a new statement begins, `-` where one goes on; `*` within a transaction, `!` in one
/// that has failed, `@` where a condition does not hold.
fn prompts(shell: &Shell, pending: bool) -> Prompts {
    let database = shell.session.login().database();
    let state = match shell.session.wire() {
        // Nothing is done here.
        _ if !shell.conditions.hold() => "@",
        Some(wire) if wire.is_in_failed_transaction() => "!",
        Some(wire) if wire.is_in_transaction() => "*",
        _ => "",
    };
    let next = format!("{database}-{state}> ");
    let first = if pending { next.clone() } else { format!("{database}={state}> ") };
    Prompts { first, next }
}
