//! The connection of somebody at a terminal, or of a script: made anew elsewhere when it is lost.
//!
//! A statement that was under way then is never run again unasked: whoever is at the terminal is
//! asked, if it only reads; a script ends.

mod asked;
mod told;

use std::io::{self, IsTerminal, Read, Write, stderr, stdin, stdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::output::Output;
use super::print::{Printer, Style};
use super::progress::Watch;
use super::side::Side;
use super::wire::{Event, Fault, Said, Wire};
use super::{editor, scan};
use crate::cli::error::{Error, Result};
use crate::cli::link::login::Login;
use crate::cli::link::places::{Place, Places};
pub use told::{Verbosity, told};

/// How long somebody has to be found once the daemon that was asked so far has gone.
const SEARCH: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(300);

/// Bytes of COPY's input that are sent at once.
const CHUNK: usize = 64 << 10;

/// Where COPY FROM STDIN takes its rows from.
pub trait Feed {
    /// The next bytes; `None` at their end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>>;
}

/// A file, or whatever is read to its end.
pub struct Bytes<R>(pub R);

impl<R: Read> Feed for Bytes<R> {
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; CHUNK];
        let count = self.0.read(&mut bytes)?;
        bytes.truncate(count);
        Ok((count > 0).then_some(bytes))
    }
}

#[derive(Debug)]
pub struct Session {
    places: Places,
    login: Arc<Login>,
    wire: Option<Wire>,
    /// For what is asked beside it: names, progress.
    pub side: Arc<tokio::sync::Mutex<Side>>,
    /// Where the last connection was lost: asked last.
    lost: Option<Place>,
    seen: Vec<Place>,
    interrupts: Signal,
    /// Somebody is at the terminal, and can be asked.
    pub interactive: bool,
    /// A script is read from standard input: nobody answers there.
    pub script_on_stdin: bool,
    /// SIGINT has come.
    pub interrupted: bool,
    pub quiet: bool,
    pub timing: bool,
    /// What stands before an error: the file and line of a script.
    pub origin: Option<String>,
    /// How much is said of errors.
    pub verbosity: Verbosity,
    /// Values for the parameters of the next statement.
    pub bound: Option<Vec<String>>,
    /// The error of the statement that failed last, and its text.
    pub last_error: Option<(Said, String)>,
    /// What the statement that was run last has come to: its tag, or the SQLSTATE of its error.
    pub last_outcome: Result<String, String>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("place", self.place()).finish_non_exhaustive()
    }
}

/// What a statement came to on one connection.
enum Attempt {
    Done(bool),
    /// The connection has gone, and why; some of the rows may have been shown.
    Lost {
        why: String,
        shown: bool,
    },
}

impl Session {
    /// To be called on the runtime.
    pub fn new(places: Places, login: Login) -> Result<Self> {
        let failed = |source| Error::Io { what: "listen for signals".into(), source };
        let login = Arc::new(login);
        Ok(Self {
            side: Side::new(&login),
            places,
            login,
            wire: None,
            lost: None,
            seen: Vec::new(),
            interrupts: signal(SignalKind::interrupt()).map_err(failed)?,
            interactive: false,
            script_on_stdin: false,
            interrupted: false,
            quiet: false,
            timing: false,
            origin: None,
            verbosity: Verbosity::default(),
            bound: None,
            last_error: None,
            last_outcome: Ok(String::new()),
        })
    }

    pub fn login(&self) -> &Login {
        &self.login
    }

    pub fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// Connects to any daemon, if there is no connection. With patience, daemons are looked for until
    /// one is found.
    pub async fn connect(&mut self, patience: Option<Duration>) -> Result<()> {
        if self.wire.is_some() {
            return Ok(());
        }
        let since = Instant::now();
        loop {
            match self.places.list().await {
                Ok(places) => self.seen = places,
                Err(error) if patience.is_none() => return Err(Error::Lost(error.to_string())),
                // ZooKeeper has gone as well: daemons may be where they were.
                Err(_) => {}
            }
            let mut places = self.seen.clone();
            places.sort_by_key(|place| Some(place) == self.lost.as_ref());
            let mut last = String::new();
            for place in &places {
                match self.enter(place).await {
                    Ok(wire) => {
                        self.side.lock().await.move_to(&self.login, place);
                        self.wire = Some(wire);
                        return Ok(());
                    }
                    Err(Fault::Gone(error)) => last = format!(" ({error})"),
                    Err(Fault::Said(said)) if said.is_of_daemon() => {
                        last = format!(" ({})", said.message);
                    }
                    Err(error) => {
                        return Err(Error::Lost(format!("connecting to {place}: {}", of(&error))));
                    }
                }
            }
            if patience.is_none_or(|patience| since.elapsed() > patience) {
                let tried = self.places.describe(&places);
                return Err(Error::Lost(format!("{tried}{last}: {}", self.places.advice())));
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = self.interrupts.recv() => {
                    return Err(Error::Lost("interrupted while a daemon was looked for".to_owned()));
                }
            }
        }
    }

    /// Logs in, asking for a password where one is wanted.
    async fn enter(&mut self, place: &Place) -> Result<Wire, Fault> {
        let entered = Wire::connect(place, &self.login).await;
        if !matches!(entered, Err(Fault::NoPassword)) || !stdin().is_terminal() {
            return entered;
        }
        let prompt = format!("Password for user {}: ", self.login.user());
        let password = editor::ask(&prompt, true, self.script_on_stdin)?;
        let mut login = (*self.login).clone();
        login.set_password(password);
        self.login = Arc::new(login);
        Wire::connect(place, &self.login).await
    }

    /// Another database, role or daemon. If there is no way in, all stays as it was.
    pub async fn change(
        &mut self,
        database: Option<String>,
        user: Option<String>,
        place: Option<Place>,
    ) -> Result<()> {
        let mut login = (*self.login).clone();
        login.become_other(database, user);
        let before = std::mem::replace(&mut self.login, Arc::new(login));
        let kept = self.wire.take();
        let wanted = place.or_else(|| kept.as_ref().map(|wire| wire.place().clone()));
        let entered = match &wanted {
            Some(place) => match self.enter(place).await {
                Ok(wire) => {
                    self.side.lock().await.move_to(&self.login, place);
                    self.wire = Some(wire);
                    Ok(())
                }
                Err(error) => Err(Error::Lost(format!("connecting to {place}: {}", of(&error)))),
            },
            None => self.connect(None).await,
        };
        match (&entered, kept) {
            (Ok(()), Some(old)) => old.close().await,
            (Err(_), old) => (self.login, self.wire) = (before, old),
            _ => {}
        }
        entered
    }

    /// The connection, once what has come on it unasked is shown. If it has gone meanwhile, another
    /// takes its place, unless a transaction was open.
    async fn ready(&mut self) -> Result<bool> {
        let Some(wire) = &mut self.wire else {
            self.connect(Some(SEARCH)).await?;
            return Ok(true);
        };
        let in_transaction = wire.is_in_transaction();
        match wire.unasked() {
            Ok(events) => {
                events.into_iter().for_each(|event| self.tell(event));
                Ok(true)
            }
            Err(error) => {
                self.note(&format!("the connection was lost: {}", of(&error)));
                self.lose();
                self.connect_again().await?;
                if in_transaction {
                    self.note("the transaction that was open has been rolled back: begin it again");
                }
                Ok(!in_transaction)
            }
        }
    }

    fn lose(&mut self) {
        self.lost = self.wire.take().map(|wire| wire.place().clone());
    }

    /// For a script, what was set on the connection cannot be known to be unimportant.
    async fn connect_again(&mut self) -> Result<()> {
        if !self.interactive {
            let reason = "the connection was lost, and a script is not gone on with on another one";
            return Err(Error::Lost(reason.to_owned()));
        }
        self.connect(Some(SEARCH)).await?;
        if let Some(wire) = &self.wire {
            let place = wire.place().clone();
            self.note(&format!(
                "connected to {place}; settings of the session and prepared statements are gone"
            ));
        }
        Ok(())
    }

    /// Runs statements; false if one has failed, which was shown then.
    pub async fn execute(
        &mut self,
        sql: &str,
        style: &Style,
        out: &mut Output,
        feed: &mut dyn Feed,
    ) -> Result<bool> {
        let bound = self.bound.take();
        self.last_outcome = Ok(String::new());
        loop {
            if !self.ready().await? {
                return Ok(false);
            }
            let in_transaction = self.wire.as_ref().is_some_and(Wire::is_in_transaction);
            let since = Instant::now();
            let asked = (sql, bound.as_deref());
            let attempt = self.attempt(asked, style, out, feed).await?;
            out.flush()?;
            match attempt {
                Attempt::Done(good) => {
                    if self.timing {
                        let millis = since.elapsed().as_secs_f64() * 1000.0;
                        // Not where rows go: that may be a file.
                        writeln!(stdout(), "Time: {millis:.3} ms").map_err(Error::Print)?;
                    }
                    return Ok(good);
                }
                Attempt::Lost { why, shown } => {
                    if !self.again(sql, &why, shown, in_transaction).await? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Whether the statement that was under way when the connection was lost is to be run again.
    async fn again(&mut self, sql: &str, why: &str, shown: bool, open: bool) -> Result<bool> {
        self.lose();
        let reads = scan::only_reads(sql);
        let fate = match (open, reads) {
            (true, _) => "the transaction that was open has been rolled back: begin it again",
            (false, true) => "the statement only reads: it can be run again",
            (false, false) => {
                "whether the statement has taken effect is not known: look before you run it again"
            }
        };
        if !self.interactive {
            return Err(Error::Lost(format!("the connection was lost: {why}\n{fate}")));
        }
        self.note(&format!("the connection was lost: {why}"));
        self.connect_again().await?;
        if open || !reads {
            self.note(fate);
            return Ok(false);
        }
        let some = if shown { " Some of its rows are shown already." } else { "" };
        write!(stderr(), "The statement only reads.{some} Run it again? [Y/n] ")
            .map_err(Error::Print)?;
        let mut answer = String::new();
        let read = stdin().read_line(&mut answer);
        let failed = |source| Error::Io { what: "read the answer".into(), source };
        Ok(read.map_err(failed)? > 0 && matches!(answer.trim(), "" | "y" | "Y" | "yes"))
    }

    async fn attempt(
        &mut self,
        asked: (&str, Option<&[String]>),
        style: &Style,
        out: &mut Output,
        feed: &mut dyn Feed,
    ) -> Result<Attempt> {
        let Some(mut wire) = self.wire.take() else { return Ok(Attempt::Done(false)) };
        let run = self.run(&mut wire, asked, style, out, feed).await;
        self.wire = Some(wire);
        run
    }

    async fn run(
        &mut self,
        wire: &mut Wire,
        (sql, bound): (&str, Option<&[String]>),
        style: &Style,
        out: &mut Output,
        feed: &mut dyn Feed,
    ) -> Result<Attempt> {
        let canceller = wire.canceller(self.login.clone());
        let mut shown = false;
        let lost = |error: Fault, shown| Ok(Attempt::Lost { why: of(&error), shown });
        let sent = match bound {
            Some(values) => wire.ask_with(sql, values).await,
            None => wire.ask(sql).await,
        };
        if let Err(error) = sent {
            return lost(error, shown);
        }
        let watched = self.interactive && out.is_terminal() && stderr().is_terminal();
        let mut watch = watched.then(|| Watch::start(self.side.clone(), wire.pid()));
        let mut printer: Option<Printer<'_>> = None;
        let mut good = true;
        loop {
            let event = tokio::select! {
                event = wire.next() => event,
                _ = self.interrupts.recv() => {
                    self.interrupted = true;
                    if let Err(error) = canceller.cancel().await {
                        self.note(&format!("the statement could not be cancelled: {}", of(&error)));
                    }
                    continue;
                }
            };
            let event = match event {
                Ok(event) => event,
                Err(error) => return lost(error, shown),
            };
            if !matches!(event, Event::Columns(_) | Event::Row(_)) || out.is_busy() {
                watch = None;
            }
            match event {
                Event::Columns(columns) => printer = Some(Printer::begin(style, columns)),
                Event::Row(row) => {
                    let Some(printer) = &mut printer else { continue };
                    printer.row(row, out).map_err(Error::Print)?;
                    shown |= printer.is_begun();
                    if shown {
                        watch = None;
                    }
                }
                Event::Done(tag) => {
                    match printer.take() {
                        Some(printer) => printer.finish(out).map_err(Error::Print)?,
                        None => self.tag(&tag, style, out)?,
                    }
                    self.last_outcome = Ok(tag);
                }
                Event::Failed(said) => {
                    printer = None;
                    good = false;
                    if said.severity == "FATAL" || said.severity == "PANIC" {
                        return Ok(Attempt::Lost { why: said.message, shown });
                    }
                    out.flush()?;
                    self.fail(said, sql);
                }
                Event::CopyIn => {
                    if let Err(error) = self.feed(wire, feed).await? {
                        return lost(error, shown);
                    }
                }
                Event::CopyData(bytes) => out.write_all(&bytes).map_err(Error::Print)?,
                Event::Ready => {
                    drop(watch);
                    return Ok(Attempt::Done(good));
                }
                Event::Empty | Event::CopyOut | Event::CopyDone => {}
                told => self.tell(told),
            }
        }
    }

    fn tag(&self, tag: &str, style: &Style, out: &mut Output) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        if style.format.is_for_programs() || tag.starts_with("COPY") {
            // Standard output is for rows. Nobody has to listen.
            out.flush()?;
            let _ = writeln!(stderr(), "{tag}");
            return Ok(());
        }
        writeln!(out, "{tag}").map_err(Error::Print)
    }

    async fn feed(&mut self, wire: &mut Wire, feed: &mut dyn Feed) -> Result<Result<(), Fault>> {
        loop {
            let sent = match feed.chunk() {
                Ok(Some(bytes)) => wire.copy_data(&bytes).await,
                Ok(None) => return Ok(wire.copy_done().await),
                Err(error) => return Ok(wire.copy_fail(&error.to_string()).await),
            };
            if let Err(error) = sent {
                return Ok(Err(error));
            }
            if self.interrupts.recv().now_or_never().is_some() {
                self.interrupted = true;
                return Ok(wire.copy_fail("interrupted").await);
            }
        }
    }

    /// Shows why a statement has failed, and keeps it.
    fn fail(&mut self, said: Said, sql: &str) {
        self.complain(&said, sql);
        self.last_outcome = Err(said.code.clone());
        self.last_error = Some((said, sql.to_owned()));
    }

    /// What was said beside the rows.
    fn tell(&self, event: Event) {
        match event {
            Event::Notice(said) => self.complain(&said, ""),
            Event::Notification { channel, payload, pid } => {
                let payload = match payload.is_empty() {
                    true => String::new(),
                    false => format!(" with payload \"{payload}\""),
                };
                self.note(&format!(
                    "Asynchronous notification \"{channel}\"{payload} received from server process \
                     with PID {pid}."
                ));
            }
            _ => {}
        }
    }

    /// Shows an error or notice as psql does, with the line of the statement that it is about.
    fn complain(&self, said: &Said, sql: &str) {
        let text = told(said, sql, self.verbosity);
        match &self.origin {
            Some(origin) => self.note(&format!("oribi:{origin}: {text}")),
            None => self.note(&text),
        }
    }

    pub fn note(&self, text: &str) {
        // Nobody has to listen.
        let _ = writeln!(stderr(), "{text}");
    }

    /// Waits, unless it is interrupted: false.
    pub async fn pause(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => true,
            _ = self.interrupts.recv() => false,
        }
    }

    pub async fn close(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.close().await;
        }
    }
}

fn of(fault: &Fault) -> String {
    match fault {
        Fault::Said(said) => {
            let hint = said.hint.as_deref().map(|hint| format!("\nHINT:  {hint}"));
            format!("{} (SQLSTATE {}){}", said.message, said.code, hint.unwrap_or_default())
        }
        other => other.to_string(),
    }
}
