//! Three daemons, an ensemble of three, storage, and all ways between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::common::daemon::{Daemon, Options};
use crate::common::link::{Link, State};
use crate::common::zookeeper::{Ensemble, free_port};
use crate::history::History;
use crate::load::{Failure, Session};
use crate::pairs::Pids;

/// Of the daemons with ZooKeeper.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the cluster may take to be whole once nothing is wrong any more. The machine may be busy.
pub const BOUND: Duration = Duration::from_secs(90);

/// How long one question of a probe may take.
const PROBE: Duration = Duration::from_secs(10);

pub const IDS: [&str; 3] = ["a", "b", "c"];

/// Where a daemon is, with everything that leads to it and from it.
pub struct Slot {
    number: usize,
    options: Options,
    /// Says what becomes of what it reads, while it is there.
    trouble: PathBuf,
    pids: Arc<Pids>,
    running: Mutex<Option<Daemon>>,
    /// Somebody wants it to be down.
    pub held: AtomicBool,
    /// How often it was found to have ended.
    pub own_ends: AtomicUsize,
    /// What clients connect to.
    pub postgres: SocketAddr,
    web: SocketAddr,
    /// To each of the ensemble's members.
    pub zookeeper: Vec<Link>,
    /// From the other daemons.
    pub peers: Link,
    /// From clients.
    pub clients: Link,
}

pub struct World {
    pub slots: Vec<Slot>,
    pub ensemble: Mutex<Ensemble>,
    /// From one member to another: for the quorum, and for elections.
    pub members: Vec<(usize, usize, [Link; 2])>,
    pub storage: Storage,
    pub history: Arc<History>,
    /// What is wrong at the moment.
    pub under_way: Mutex<Vec<String>>,
    _folder: TempDir,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn at(host: u8, port: u16) -> SocketAddr {
    ([127, 0, 0, host], port).into()
}

impl World {
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("oribi-faults-").expect("a temporary directory");
        let storage = Storage::new(folder.path());
        let ports: Vec<[u16; 2]> = IDS.iter().map(|_| [free_port(), free_port()]).collect();
        let mut members = Vec::new();
        for from in 0..IDS.len() {
            for to in (0..IDS.len()).filter(|to| *to != from) {
                let way = |port| Link::start(at(1, 0), at(1, port));
                members.push((from, to, [way(ports[to][0]).await, way(ports[to][1]).await]));
            }
        }
        let seen = |from: usize, to: usize| {
            let link = members.iter().find(|(a, b, _)| (*a, *b) == (from, to));
            let (_, _, [quorum, election]) = link.expect("a link for each pair");
            [quorum.address().port(), election.address().port()]
        };
        let ensemble = block_in_place(|| Ensemble::start_between(&ports, seen));
        let (mut slots, pids) = (Vec::new(), Arc::new(Pids::default()));
        for number in 0..IDS.len() {
            let mut zookeeper = Vec::new();
            for server in &ensemble.servers {
                zookeeper.push(Link::start(at(1, 0), server.address()).await);
            }
            slots.push(Slot::new(number, zookeeper, &storage, pids.clone()).await);
        }
        let ensemble = Mutex::new(ensemble);
        let (history, under_way) = (Arc::new(History::new()), Mutex::default());
        Self { slots, ensemble, members, storage, history, under_way, _folder: folder }
    }

    /// All links that lead to a daemon or from it.
    pub fn around(&self, daemon: usize) -> impl Iterator<Item = &Link> {
        let slot = &self.slots[daemon];
        slot.zookeeper.iter().chain([&slot.peers, &slot.clients])
    }

    /// All links between a member of the ensemble and the others.
    pub fn around_member(&self, member: usize) -> impl Iterator<Item = &Link> {
        let touches =
            move |(from, to, _): &&(usize, usize, [Link; 2])| [*from, *to].contains(&member);
        self.members.iter().filter(touches).flat_map(|(_, _, links)| links)
    }

    /// What each daemon says of itself and of the others, and whether it takes a write.
    pub async fn whole(&self) -> Result<(), String> {
        for (number, slot) in self.slots.iter().enumerate() {
            let ready = slot.http("/readyz").await.unwrap_or_default();
            if !ready.starts_with("HTTP/1.1 200") || !ready.contains("\"state\":\"ready\"") {
                let last = ready.lines().last().unwrap_or_default();
                return Err(format!("{} is not ready: {last}", IDS[number]));
            }
        }
        for (number, id) in IDS.iter().enumerate() {
            let probe = timeout(PROBE, self.answers(number)).await;
            probe
                .unwrap_or_else(|_| Err(format!("no answer within {PROBE:?}")))
                .map_err(|why| format!("{id}: {why}"))?;
        }
        Ok(())
    }

    async fn answers(&self, number: usize) -> Result<(), String> {
        let session = Session::connect(self, number, true).await?;
        let said = |failure: Failure| format!("{failure:?}");
        let members = "SELECT id, state FROM system.daemons ORDER BY id";
        let seen = session.run(members).await.map_err(said)?.rows;
        if seen != IDS.map(|id| vec![id.to_owned(), "ready".to_owned()]) {
            return Err(format!("it sees {seen:?}"));
        }
        let leaders = session.run("SELECT id FROM system.daemons WHERE leader").await;
        let leaders = leaders.map_err(said)?.rows;
        if leaders.len() != 1 {
            return Err(format!("it sees the leaders {leaders:?}"));
        }
        session.run("UPDATE probe SET n = n + 1").await.map_err(said)?;
        session.run("SELECT count(*) FROM facts").await.map_err(said)?;
        Ok(())
    }

    /// Waits until the cluster is whole; how long it took, or what was still wrong in the end.
    pub async fn recovered(&self) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            match self.whole().await {
                Ok(()) => return Ok(began.elapsed()),
                Err(why) if began.elapsed() > BOUND => return Err(why),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Starts daemons that ended by themselves, as a service manager would; to be called often.
    pub fn look_after(&self) {
        for slot in &self.slots {
            block_in_place(|| slot.keep_running(&self.history));
        }
    }
}

impl Slot {
    async fn new(number: usize, zookeeper: Vec<Link>, storage: &Storage, pids: Arc<Pids>) -> Self {
        let id = IDS[number];
        let host = 2 + u8::try_from(number).expect("few");
        let [postgres, peer, web] = [free_port(), free_port(), free_port()];
        let hosts: Vec<_> = zookeeper.iter().map(|link| link.address().to_string()).collect();
        let timeout = format!("{}s", SESSION_TIMEOUT.as_secs());
        let mut options = Options::new()
            .arg(format!("--id={id}"))
            .arg(format!("--zookeeper={}/faults", hosts.join(",")))
            .arg(format!("--warehouse={}", storage.warehouse().display()))
            .env("ORIBI_ADVERTISE", at(host, 0).ip().to_string())
            .env("ORIBI_COORDINATION_SESSION_TIMEOUT", timeout)
            .env("ORIBI_MAINTENANCE_INTERVAL", "500ms")
            .env("ORIBI_SUBMITTED_HISTORY", "100000")
            .env("ORIBI_ENGINE_MEMORY_LIMIT", "512MiB")
            .env("ORIBI_ENGINE_PAGE_CACHE", "16MiB");
        let data_dir = storage.local(id);
        let trouble = options.directory().join("trouble");
        options = options.data_dir(data_dir).env("ORIBI_FAULT_STORAGE", &trouble);
        for (name, port) in [("POSTGRES", postgres), ("PEER", peer), ("WEB", web)] {
            options = options.env(format!("ORIBI_{name}"), at(1, port).to_string());
        }
        if let Some((library, file)) = clock(options.directory()) {
            options = options
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", file)
                .env("FAKETIME_NO_CACHE", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let who = pids.clone();
        let who = Arc::new(move |from, to| who.of(from, to));
        let peers = Link::start_for(at(host, peer), at(1, peer), IDS.len(), who).await;
        let clients = Link::start(at(host, postgres), at(1, postgres)).await;
        Self {
            number,
            options,
            trouble,
            pids,
            running: Mutex::default(),
            held: AtomicBool::new(false),
            own_ends: AtomicUsize::new(0),
            postgres: clients.address(),
            web: at(1, web),
            zookeeper,
            peers,
            clients,
        }
    }

    /// Starts it if it does not run and nobody wants it to be down; does not wait for anything.
    pub fn keep_running(&self, history: &History) {
        let mut running = lock(&self.running);
        if self.held.load(Ordering::SeqCst) {
            return;
        }
        if let Some(daemon) = running.as_ref() {
            let Some(status) = daemon.ended() else { return };
            self.own_ends.fetch_add(1, Ordering::Relaxed);
            let log = daemon.log();
            let mut errors = log.lines().filter(|line| line.contains("\"ERROR\""));
            let last = errors.next_back().or(log.lines().next_back()).unwrap_or_default();
            let last: String = last.chars().take(400).collect();
            eprintln!("daemon {} has ended ({status}): {last}", daemon.pid());
            report_panics(daemon, history);
        }
        let daemon = Daemon::launch(&self.options);
        self.pids.set(self.number, daemon.pid());
        *running = Some(daemon);
    }

    /// Kills it, if it runs, and looks at what it has logged.
    pub fn stop(&self, history: &History) {
        let Some(daemon) = lock(&self.running).take() else { return };
        block_in_place(|| {
            if daemon.ended().is_none() {
                daemon.kill();
            }
        });
        report_panics(&daemon, history);
    }

    /// Does something with the daemon, if it runs.
    pub fn with<T>(&self, what: impl FnOnce(&Daemon) -> T) -> Option<T> {
        let running = lock(&self.running);
        let daemon = running.as_ref().filter(|daemon| daemon.ended().is_none())?;
        Some(what(daemon))
    }

    /// What becomes of what it reads and writes from now on; `None` for no trouble.
    pub fn trouble(&self, rule: Option<&str>) {
        match rule {
            Some(rule) => {
                // Whole from the moment that it is there.
                let new = self.trouble.with_extension("new");
                std::fs::write(&new, rule).expect("a file");
                std::fs::rename(new, &self.trouble).expect("it gets its name");
            }
            None => drop(std::fs::remove_file(&self.trouble)),
        }
    }

    /// Sets its wall clock off by so many seconds, if that is possible.
    pub fn set_clock(&self, seconds: i64) -> bool {
        let clock = clock(self.options.directory());
        clock.is_some_and(|(_, file)| std::fs::write(file, format!("{seconds:+}s\n")).is_ok())
    }

    /// What it answers over HTTP, head and all; not by way of a link.
    pub async fn http(&self, path: &str) -> Option<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        let asked = async {
            let mut stream = TcpStream::connect(self.web).await.ok()?;
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(PROBE, asked).await.ok()?
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let all = self.http("/metrics").await?;
        let values = all.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Some(values.sum())
    }
}

fn report_panics(daemon: &Daemon, history: &History) {
    for line in daemon.log().lines().filter(|line| line.contains("panicked")) {
        history.violation(format!("a panic: {line}"));
    }
}

/// Debian's `faketime`, which gives a process another clock.
const CLOCK: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

pub fn has_clock() -> bool {
    Path::new(CLOCK).exists()
}

/// The library, and the file that says by how much the clock is off; none if it is not installed.
fn clock(directory: &Path) -> Option<(&'static str, PathBuf)> {
    let file = directory.join("clock");
    if has_clock() && !file.exists() {
        std::fs::write(&file, "+0s\n").expect("a file");
    }
    has_clock().then_some((CLOCK, file))
}

/// Where the tables lie, and what the daemons have for themselves: on file systems of their own, if the test
/// may make such.
pub struct Storage {
    place: PathBuf,
    mounted: bool,
    own: PathBuf,
    own_mounted: bool,
}

const SIZE: &str = "size=2g";

/// Bytes that are left where a file system is full.
const ROOM: u64 = 64 * 1024;

fn mount(place: &Path) -> bool {
    std::fs::create_dir(place).expect("a directory");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(place);
    mount.output().is_ok_and(|done| done.status.success())
}

fn remount(place: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-o", &format!("remount,{options}")]).arg(place);
    mount.output().is_ok_and(|done| done.status.success())
}

/// Leaves so many bytes free.
fn leave(place: &Path, bytes: u64) -> bool {
    let Ok(now) = rustix::fs::statvfs(place) else { return false };
    let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
    remount(place, &format!("size={}", used + bytes))
}

impl Storage {
    fn new(folder: &Path) -> Self {
        let (place, own) = (folder.join("storage"), folder.join("own"));
        let (mounted, own_mounted) = (mount(&place), mount(&own));
        let storage = Self { place, mounted, own, own_mounted };
        std::fs::create_dir(storage.warehouse()).expect("a directory");
        storage
    }

    pub fn is_mounted(&self) -> bool {
        self.mounted
    }

    pub fn warehouse(&self) -> PathBuf {
        self.place.join("warehouse")
    }

    /// A daemon's data directory.
    fn local(&self, id: &str) -> PathBuf {
        self.own.join(id)
    }

    /// Mounts it again with these options; false if that does not go.
    pub fn remount(&self, options: &str) -> bool {
        self.mounted && remount(&self.place, options)
    }

    /// Leaves next to no room; false if that does not go.
    pub fn fill(&self) -> bool {
        self.mounted && leave(&self.place, ROOM)
    }

    /// The same where the daemons have what is their own.
    pub fn fill_own(&self) -> bool {
        self.own_mounted && leave(&self.own, ROOM)
    }

    /// As it was before.
    pub fn empty(&self) -> bool {
        self.remount(SIZE)
    }

    pub fn empty_own(&self) -> bool {
        self.own_mounted && remount(&self.own, SIZE)
    }

    /// The warehouse goes.
    pub fn vanish(&self) -> bool {
        std::fs::rename(self.warehouse(), self.place.join("away")).is_ok()
    }

    /// It comes back. What was made in its place meanwhile gets out of the way, as what is below a mount
    /// point does.
    pub fn come_back(&self) {
        if self.warehouse().exists() {
            let aside = self.place.join(format!("made-{}", uuid::Uuid::new_v4().simple()));
            std::fs::rename(self.warehouse(), aside).expect("it can be moved");
        }
        std::fs::rename(self.place.join("away"), self.warehouse()).expect("it comes back");
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        for (place, mounted) in [(&self.place, self.mounted), (&self.own, self.own_mounted)] {
            if mounted {
                let _ = Command::new("umount").arg("-l").arg(place).output();
            }
        }
    }
}

/// All links whole.
pub fn mend<'a>(links: impl Iterator<Item = &'a Link>) {
    links.for_each(|link| link.set(State::Whole));
}
