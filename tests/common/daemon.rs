//! The real daemon as a process, with its own data directory, and clients for it.
//!
//! `ORIBI_TEST_BINARY` names another binary than the one that cargo has built.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::await_stop;

/// What a busy machine may need for anything that should be quick.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes of the log's end that a failing test shows.
const SHOWN_LOG: usize = 16 * 1024;

/// The binary under test.
pub fn binary() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_oribi").into();
    std::env::var_os("ORIBI_TEST_BINARY").map_or_else(built, PathBuf::from)
}

/// How to start a daemon. Those started from the same options, or from clones of them, use the
/// same data directory: the second continues the first one's life.
#[derive(Clone, Debug)]
pub struct Options {
    directory: Arc<TempDir>,
    data_dir: PathBuf,
    binary: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    /// Sockets that it is given, by name.
    sockets: Vec<(String, Arc<OwnedFd>)>,
}

/// Hands on what it has as standard input and output as sockets, and becomes the daemon: the process id
/// stays what it is.
const ACTIVATE: &str = "exec 3<&0 </dev/null; [ $LISTEN_FDS = 1 ] || exec 4<&1 >/dev/null; \
                        export LISTEN_PID=$$; exec \"$@\"";

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// A fresh data directory, embedded coordination, free ports on 127.0.0.1.
    pub fn new() -> Self {
        let directory = TempDir::with_prefix("oribi-daemon-").expect("a temporary directory");
        let data_dir = directory.path().join("data");
        let (arguments, variables, sockets) = Default::default();
        let binary = binary();
        Self { directory: Arc::new(directory), data_dir, binary, arguments, variables, sockets }
    }

    /// Runs another build.
    #[allow(dead_code)]
    pub fn binary(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.binary);
        self
    }

    /// Adds one argument, such as `--id=a`. The addresses are given already: override them with
    /// [`Self::env`].
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets one environment variable. No other `ORIBI_*` reaches the daemon.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Has it given a socket under a name, as systemd does; two at most.
    #[allow(dead_code)]
    pub fn socket(mut self, name: &str, socket: &TcpListener) -> Self {
        let socket = socket.try_clone().expect("a socket can be shared");
        self.sockets.push((name.to_owned(), Arc::new(socket.into())));
        self
    }

    /// Uses another data directory.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = path.into();
        self
    }

    /// A directory that lives as long as the options and their daemons: for logs and files of the
    /// test's own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file there for tests that share a daemon: whole from the moment that it is there, however
    /// many write it.
    #[allow(dead_code)]
    pub fn shared_file(&self, name: &str, content: &str) -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let path = self.directory.path().join(name);
        if !path.exists() {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let new = self.directory.path().join(format!("{name}.new-{count}"));
            fs::write(&new, content).expect("a file is written");
            fs::rename(&new, &path).expect("it gets its name");
        }
        path
    }

    fn command(&self, log: &Path) -> Command {
        let mut command = match self.sockets.is_empty() {
            true => Command::new(&self.binary),
            false => {
                let mut shell = Command::new("sh");
                shell.args(["-c", ACTIVATE, "sh"]).arg(&self.binary);
                shell
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ORIBI_") {
                command.env_remove(name);
            }
        }
        let given = |name: &str| self.variables.iter().any(|(given, _)| given == name);
        command.arg("serve").arg("--data-dir").arg(&self.data_dir);
        for (flag, variable) in
            [("--postgres", "ORIBI_POSTGRES"), ("--peer", "ORIBI_PEER"), ("--web", "ORIBI_WEB")]
        {
            if !given(variable) {
                command.env(variable, "127.0.0.1:0");
            }
            debug_assert!(!self.arguments.iter().any(|a| a == flag), "set {variable} instead");
        }
        command
            .env("ORIBI_LOG_FORMAT", "json")
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("a log file"));
        let share = |socket: &Arc<OwnedFd>| Stdio::from(socket.try_clone().expect("shared"));
        let names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
        match self.sockets.as_slice() {
            [] => return command,
            [(_, first)] => command.stdin(share(first)),
            [(_, first), (_, second)] => command.stdin(share(first)).stdout(share(second)),
            _ => panic!("more than two sockets"),
        };
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command
    }

    fn new_log(&self) -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(format!("log-{count}"))
    }
}

/// A running daemon. Killed when dropped, or when the test process dies.
///
/// Its methods block the thread; a test whose clients go on meanwhile wants
/// `#[tokio::test(flavor = "multi_thread")]`.
#[derive(Debug)]
pub struct Daemon {
    options: Options,
    child: Mutex<Child>,
    pid: u32,
    /// Kills the daemon when this process's end closes its standard input.
    guardian: Mutex<Child>,
    log: PathBuf,
    addresses: Addresses,
}

/// Where a daemon listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub postgres: SocketAddr,
    pub peer: SocketAddr,
    pub web: SocketAddr,
}

/// How a process ended that was not meant to serve.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stderr: String,
}

impl Daemon {
    /// Starts a daemon and waits until it serves.
    pub fn start(options: &Options) -> Self {
        let mut daemon = Self::launch(options);
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(addresses) = addresses(&daemon.log()) {
                daemon.addresses = addresses;
                return daemon;
            }
            if let Some(status) = daemon.ended() {
                panic!("the daemon ended at once ({status}):\n{}", daemon.log());
            }
            assert!(Instant::now() < give_up, "the daemon does not get ready");
            sleep(PAUSE);
        }
    }

    /// Starts a daemon that is expected to end by itself, and waits for that.
    pub fn spawn(options: &Options) -> Ended {
        let daemon = Self::launch(options);
        let status = daemon.wait(PATIENCE);
        Ended { code: status.code(), stderr: daemon.log() }
    }

    /// Starts a daemon, and does not wait for anything: its addresses are not known yet.
    pub fn launch(options: &Options) -> Self {
        let log = options.new_log();
        let child = options.command(&log).spawn();
        let child = child.unwrap_or_else(|e| panic!("{} starts: {e}", options.binary.display()));
        let pid = child.id();
        let guardian = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$0\" 2>&-", &pid.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let (child, guardian) = (Mutex::new(child), Mutex::new(guardian));
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let addresses = Addresses { postgres: none, peer: none, web: none };
        Self { options: options.clone(), child, pid, guardian, log, addresses }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub fn postgres(&self) -> SocketAddr {
        self.addresses.postgres
    }

    #[allow(dead_code)]
    pub fn peer(&self) -> SocketAddr {
        self.addresses.peer
    }

    pub fn web(&self) -> SocketAddr {
        self.addresses.web
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// All that the daemon has written to standard error.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// How much that is.
    #[allow(dead_code)]
    pub fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it (SIGKILL), as a crash would, and waits for its end.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        child.kill().expect("the daemon can be killed");
        child.wait().expect("the daemon ends");
        drop(child);
        self.dismiss_guardian();
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        await_stop(lock(&self.child).id());
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        // As long as it is not waited for, the id is not given to another process.
        let child = lock(&self.child);
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("the daemon can be signalled");
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let status = lock(&self.child).try_wait().expect("the daemon can be waited for");
        if status.is_some() {
            self.dismiss_guardian();
        }
        status
    }

    /// Waits for its end.
    pub fn wait(&self, limit: Duration) -> ExitStatus {
        let give_up = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < give_up, "the daemon does not end within {limit:?}");
            sleep(PAUSE);
        }
    }

    /// Bytes of memory that are its own and resident, from `/proc`.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("the daemon runs, on Linux");
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"))
            .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok());
        kilobytes.expect("RssAnon in /proc/PID/status") * 1024
    }

    /// A client's settings: user and database `oribi`.
    pub fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.postgres().ip().to_string())
            .port(self.postgres().port())
            .user("oribi")
            .dbname("oribi")
            .connect_timeout(PATIENCE);
        config
    }

    /// A client in the database `oribi`.
    pub async fn connect(&self) -> Client {
        self.connect_to("oribi").await
    }

    pub async fn connect_to(&self, database: &str) -> Client {
        let connected = self.try_connect(self.client_config().dbname(database)).await;
        connected.unwrap_or_else(|error| panic!("connecting: {}", explain(&error)))
    }

    /// Connects with other settings than usual.
    pub async fn try_connect(
        &self,
        config: &tokio_postgres::Config,
    ) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn dismiss_guardian(&self) {
        let mut guardian = lock(&self.guardian);
        // Killed before it could take another process for the daemon.
        let _ = guardian.kill();
        let _ = guardian.wait();
    }

    fn show_log(&self) {
        let log = self.log();
        let from = log.len().saturating_sub(SHOWN_LOG);
        let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or_default();
        eprintln!("--- log of the daemon {} ---\n{}--- end ---", self.pid, &log[from..]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        if panicking() {
            self.show_log();
        }
    }
}

/// A daemon for several tests of one file, started by the first and ended by the last of those that
/// run at the same time.
///
///     static DAEMON: Shared = Shared::new(Options::new);
#[derive(Debug)]
pub struct Shared {
    options: fn() -> Options,
    running: Mutex<Weak<Daemon>>,
}

impl Shared {
    pub const fn new(options: fn() -> Options) -> Self {
        Self { options, running: Mutex::new(Weak::new()) }
    }

    pub fn get(&self) -> Handle {
        let mut running = lock(&self.running);
        if let Some(daemon) = running.upgrade() {
            return Handle(daemon);
        }
        let daemon = Arc::new(Daemon::start(&(self.options)()));
        *running = Arc::downgrade(&daemon);
        Handle(daemon)
    }
}

/// One test's hold of a [`Shared`] daemon.
#[derive(Debug)]
pub struct Handle(Arc<Daemon>);

impl Deref for Handle {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if panicking() && Arc::strong_count(&self.0) > 1 {
            self.0.show_log();
        }
    }
}

/// An error with the server's own words: the client crate's are only "db error".
pub fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            format!("{} {}: {}", error.severity(), error.code().code(), error.message())
        }
        None => format!("{error:?}"),
    }
}

/// Waits until `attempt` says something.
pub async fn eventually<T>(what: impl Display, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(Instant::now() < give_up, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The addresses in the log's line "ready".
fn addresses(log: &str) -> Option<Addresses> {
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields")?;
        let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
        (fields.get("message")? == "ready").then_some(())?;
        Some(Addresses {
            postgres: address("postgres")?,
            peer: address("peer")?,
            web: address("web")?,
        })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
