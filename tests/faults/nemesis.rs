//! What goes wrong: one fault after the other, or two at a time, by a seed.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::common::daemon::Daemon;
use crate::common::link::{Link, State};
use crate::history::{Moment, seconds};
use crate::load::Session;
use crate::mutate::Random;
use crate::threads::Bound;
use crate::world::{IDS, SESSION_TIMEOUT, World, has_clock, lock, mend};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Kill(usize),
    Stop(usize),
    Terminate(usize),
    Cut(Way, State),
    /// Between two daemons: what the first opens to the second, and the other way round.
    Apart(usize, usize, [State; 2]),
    KillMember(usize),
    KillLeader,
    LoseQuorum,
    StopMember(usize),
    StopLeader,
    CutMember(usize, State),
    DiskFull,
    OwnDiskFull,
    ReadOnly,
    Vanish,
    /// What one daemon, or each, asks of storage: see `src/faults.rs`.
    Storage(Option<usize>, Trouble),
    Descriptors(usize),
    Threads(usize),
    AddressSpace(usize),
    Heavy(usize),
    Clock(usize, i64),
}

/// What becomes of so many of a hundred reads, and of writes where it takes time, by a seed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Fail(u64, u64),
    Cut(u64, u64),
    /// So many milliseconds each.
    Slow(u64, u64, u64),
    Stick(u64, u64),
}

impl Trouble {
    fn rule(self) -> String {
        match self {
            Self::Fail(percent, seed) => format!("fail {percent} 0 {seed}"),
            Self::Cut(percent, seed) => format!("cut {percent} 0 {seed}"),
            Self::Slow(percent, delay, seed) => format!("slow {percent} {delay} {seed}"),
            Self::Stick(percent, seed) => format!("stick {percent} 0 {seed}"),
        }
    }
}

/// A stretch of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// From a daemon to all of the ensemble.
    Ensemble(usize),
    /// From a daemon to one member.
    Member(usize, usize),
    /// From the other daemons to one.
    Peers(usize),
    Clients(usize),
    /// All of these.
    Around(usize),
}

/// Kinds as they are dealt, each in its turn. Those that are written twice come twice as often.
const DECK: &[&str] = &[
    "kill",
    "kill",
    "kill",
    "stop",
    "stop",
    "terminate",
    "ensemble",
    "ensemble",
    "ensemble",
    "member",
    "peers",
    "apart",
    "apart",
    "clients",
    "around",
    "around",
    "kill member",
    "kill leader",
    "lose quorum",
    "stop member",
    "stop leader",
    "cut member",
    "cut member",
    "disk full",
    "own disk full",
    "read-only",
    "vanish",
    "failing reads",
    "failing reads",
    "slow storage",
    "stuck storage",
    "descriptors",
    "threads",
    "address space",
    "heavy",
    "clock",
];

/// A query that wants more memory than there is.
const HEAVY: &str = "SELECT count(*) FROM (SELECT x, row_number() OVER (ORDER BY x % 1000003, x) AS n \
                     FROM generate_series(1, 6000000) s(x)) t WHERE n % 1000 = 0";

/// What was done, and what came of it.
pub struct Record {
    pub kinds: Vec<String>,
    pub text: String,
    pub from: Moment,
    pub to: Moment,
    /// From the end of the fault until the cluster was whole; none if that was not waited for.
    pub recovered: Option<Duration>,
}

pub struct Nemesis {
    world: Arc<World>,
    random: Random,
    deck: Vec<&'static str>,
    pub records: Vec<Record>,
    /// Of the daemons' threads.
    bounds: Mutex<BTreeMap<usize, Bound>>,
    /// What this machine cannot do, and how often it came up.
    pub skipped: BTreeMap<String, u64>,
}

impl Nemesis {
    pub fn new(world: Arc<World>, seed: u64) -> Self {
        let (records, bounds, skipped) = Default::default();
        Self { world, random: Random::new(seed), deck: Vec::new(), records, bounds, skipped }
    }

    /// One fault after the other, until a moment; afterwards nothing is wrong any more.
    pub async fn rage(&mut self, until: Instant) {
        while Instant::now() < until {
            let count = if self.random.chance(35) { 2 } else { 1 };
            self.once(count).await;
        }
    }

    async fn once(&mut self, count: usize) {
        let faults: Vec<(&'static str, Fault)> = (0..count).map(|_| self.deal()).collect();
        let long = self.random.chance(40);
        let from = self.world.history.now();
        let mut begun = Vec::new();
        for (kind, fault) in faults {
            match self.begin(fault) {
                Ok(fault) => {
                    lock(&self.world.under_way).push(format!("{fault:?}"));
                    begun.push((kind, fault));
                }
                Err(why) => *self.skipped.entry(format!("{kind}: {why}")).or_default() += 1,
            }
        }
        if begun.is_empty() {
            return;
        }
        let session = u64::try_from(SESSION_TIMEOUT.as_millis()).expect("short");
        let hold = match long {
            true => session * 5 / 4 + self.random.next() % session,
            false => 200 + self.random.next() % (session / 2),
        };
        sleep(Duration::from_millis(hold)).await;
        for (_, fault) in begun.iter().rev() {
            self.end(*fault);
        }
        let to = self.world.history.now();
        let text = begun.iter().map(|(_, fault)| format!("{fault:?}")).collect::<Vec<_>>();
        let kind = |kind: &str| match long {
            true => format!("{kind}, longer than the session"),
            false => kind.to_owned(),
        };
        let kinds = begun.iter().map(|(name, _)| kind(name)).collect();
        let mut recovered = None;
        // Sometimes the next one comes before it has recovered.
        if self.random.chance(80) {
            match self.world.recovered().await {
                Ok(took) => recovered = Some(took),
                Err(why) => {
                    let what = format!("not whole again after {}: {why}", text.join(" and "));
                    self.world.history.violation(what);
                }
            }
        }
        lock(&self.world.under_way).clear();
        let text = text.join(" and ");
        println!(
            "{:8.1} s  {text} for {:.1} s{}",
            seconds(from),
            seconds(to - from),
            recovered.map(|took| format!(", whole after {took:.1?}")).unwrap_or_default()
        );
        self.records.push(Record { kinds, text, from, to, recovered });
    }

    fn deal(&mut self) -> (&'static str, Fault) {
        if self.deck.is_empty() {
            self.deck = DECK.iter().copied().filter(|kind| is_wanted(kind)).collect();
            for at in (1..self.deck.len()).rev() {
                let other = self.random.below(at + 1);
                self.deck.swap(at, other);
            }
        }
        let kind = self.deck.pop().expect("a kind that there is");
        let (one, other) = (self.random.below(3), self.random.below(3));
        let how = self.how();
        let cut = |way| Fault::Cut(way, how);
        let fault = match kind {
            "kill" => Fault::Kill(one),
            "stop" => Fault::Stop(one),
            "terminate" => Fault::Terminate(one),
            "ensemble" => cut(Way::Ensemble(one)),
            "member" => cut(Way::Member(one, other)),
            "peers" => cut(Way::Peers(one)),
            "clients" => cut(Way::Clients(one)),
            "around" => cut(Way::Around(one)),
            "kill member" => Fault::KillMember(one),
            "kill leader" => Fault::KillLeader,
            "lose quorum" => Fault::LoseQuorum,
            "stop member" => Fault::StopMember(one),
            "stop leader" => Fault::StopLeader,
            "cut member" => Fault::CutMember(one, how),
            "apart" => {
                let how = [how, self.random.pick(&[State::Whole, how])];
                Fault::Apart(one, (one + 1 + other % 2) % 3, how)
            }
            "disk full" => Fault::DiskFull,
            "own disk full" => Fault::OwnDiskFull,
            "failing reads" | "slow storage" | "stuck storage" => self.storage(kind, one),
            "threads" => Fault::Threads(one),
            "read-only" => Fault::ReadOnly,
            "vanish" => Fault::Vanish,
            "descriptors" => Fault::Descriptors(one),
            "address space" => Fault::AddressSpace(one),
            "heavy" => Fault::Heavy(one),
            "clock" => Fault::Clock(one, [-86_400, -3600, 3600, 86_400][self.random.below(4)]),
            other => unreachable!("{other}"),
        };
        (kind, fault)
    }

    fn storage(&mut self, kind: &str, one: usize) -> Fault {
        let whose = self.random.chance(50).then_some(one);
        let percent = self.random.pick(&[5, 30, 100]);
        let seed = self.random.next() % 1_000_000;
        let trouble = match kind {
            "slow storage" => Trouble::Slow(percent, 20 + self.random.next() % 400, seed),
            "stuck storage" => Trouble::Stick(percent, seed),
            _ if self.random.chance(50) => Trouble::Cut(percent, seed),
            _ => Trouble::Fail(percent, seed),
        };
        Fault::Storage(whose, trouble)
    }

    fn how(&mut self) -> State {
        let delay = Duration::from_millis(20 + self.random.next() % 400);
        let all = [
            State::Silent,
            State::Unheard,
            State::Unanswered,
            State::Slow(delay),
            State::Lossy(2 + self.random.next() % 8, 2 * delay),
            State::HalfOpen,
            State::Refusing,
        ];
        self.random.pick(&all)
    }

    /// Begins with a fault, and says which one it came to; or why not.
    fn begin(&self, fault: Fault) -> Result<Fault, &'static str> {
        let world = &self.world;
        match fault {
            Fault::Kill(one) => {
                world.slots[one].held.store(true, Ordering::SeqCst);
                world.slots[one].stop(&world.history);
            }
            Fault::Stop(one) => {
                let stopped = block_in_place(|| world.slots[one].with(|daemon| daemon.pause()));
                stopped.ok_or("the daemon does not run")?;
            }
            Fault::Terminate(one) => {
                let told = world.slots[one].with(|daemon| daemon.terminate());
                told.ok_or("the daemon does not run")?;
            }
            Fault::Cut(way, how) => self.set(way, how),
            Fault::KillMember(one) => kill_member(world, one)?,
            Fault::KillLeader => {
                let leader = leader(world).ok_or("there is no leader")?;
                kill_member(world, leader)?;
                return Ok(Fault::KillMember(leader));
            }
            Fault::LoseQuorum => {
                kill_member(world, 0)?;
                // A member that is down already is as good.
                let _ = kill_member(world, 1);
            }
            Fault::StopMember(one) => stop_member(world, one)?,
            Fault::StopLeader => {
                let leader = leader(world).ok_or("there is no leader")?;
                stop_member(world, leader)?;
                return Ok(Fault::StopMember(leader));
            }
            Fault::CutMember(one, how) => set(world.around_member(one), how),
            Fault::Apart(one, other, how) => self.apart(one, other, how),
            Fault::DiskFull => possible(world.storage.fill(), NO_MOUNT)?,
            Fault::OwnDiskFull => possible(world.storage.fill_own(), NO_MOUNT)?,
            Fault::ReadOnly => {
                // Not while a file is being written.
                let tried = || (0..50).any(|_| world.storage.remount("ro") || pause());
                possible(block_in_place(tried), NO_MOUNT)?;
            }
            Fault::Vanish => possible(world.storage.vanish(), "it cannot be renamed now")?,
            Fault::Storage(whose, trouble) => self.trouble(whose, Some(&trouble.rule())),
            Fault::Threads(one) => {
                let bound = |daemon: &Daemon| Bound::set(daemon.pid(), MORE_THREADS);
                let bound = world.slots[one].with(bound).ok_or("the daemon does not run")?;
                let bound = bound.ok_or("no control groups for threads")?;
                lock(&self.bounds).insert(one, bound);
            }
            Fault::Descriptors(one) => {
                let limit = |pid| {
                    let open =
                        std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(64, Iterator::count);
                    limit(pid, &format!("--nofile={}:", open + 2))
                };
                let set = world.slots[one].with(|daemon| limit(daemon.pid()));
                possible(set == Some(true), "prlimit does not do it")?;
            }
            Fault::AddressSpace(one) => {
                let limit = |pid| {
                    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"));
                    let pages: u64 = statm.ok()?.split(' ').next()?.parse().ok()?;
                    limit(pid, &format!("--as={}:", pages * 4096 + (48 << 20))).then_some(())
                };
                let set = world.slots[one].with(|daemon| limit(daemon.pid())).flatten();
                possible(set.is_some(), "prlimit does not do it")?;
            }
            Fault::Heavy(one) => {
                let world = world.clone();
                tokio::spawn(async move {
                    // Whether it succeeds, spills or is refused: others must not notice.
                    if let Ok(session) = Session::connect(&world, one, false).await {
                        let _ = session.run(HEAVY).await;
                    }
                });
            }
            Fault::Clock(one, by) => {
                possible(
                    world.slots[one].set_clock(by),
                    "Debian's package faketime is not installed",
                )?;
            }
        }
        Ok(fault)
    }

    fn end(&self, fault: Fault) {
        let world = &self.world;
        match fault {
            Fault::Kill(one) => world.slots[one].held.store(false, Ordering::SeqCst),
            Fault::Stop(one) => {
                world.slots[one].with(|daemon| daemon.signal(Signal::CONT));
            }
            Fault::Terminate(_) | Fault::Heavy(_) => {}
            Fault::Cut(way, _) => self.set(way, State::Whole),
            Fault::KillMember(one) => start_member(world, one),
            Fault::LoseQuorum => [0, 1].into_iter().for_each(|one| start_member(world, one)),
            Fault::StopMember(one) => {
                let ensemble = lock(&world.ensemble);
                if ensemble.servers[one].is_running() {
                    ensemble.servers[one].resume();
                }
            }
            Fault::CutMember(one, _) => mend(world.around_member(one)),
            Fault::Apart(one, other, _) => self.apart(one, other, [State::Whole; 2]),
            Fault::DiskFull => assert!(world.storage.empty(), "it can grow again"),
            Fault::OwnDiskFull => assert!(world.storage.empty_own(), "it can grow again"),
            Fault::Storage(whose, _) => self.trouble(whose, None),
            Fault::Threads(one) => drop(lock(&self.bounds).remove(&one)),
            Fault::ReadOnly => assert!(world.storage.remount("rw"), "it can be written again"),
            Fault::Vanish => {
                // Files of changes that were refused may have been written meanwhile.
                world.storage.come_back();
            }
            Fault::Descriptors(one) => {
                let most = |pid| {
                    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
                    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
                    line.split_whitespace().nth(4).map(str::to_owned)
                };
                world.slots[one].with(|daemon| {
                    let most = most(daemon.pid()).unwrap_or_default();
                    limit(daemon.pid(), &format!("--nofile={most}:"))
                });
            }
            Fault::AddressSpace(one) => {
                world.slots[one].with(|daemon| limit(daemon.pid(), "--as=unlimited:"));
            }
            Fault::Clock(one, _) => {
                world.slots[one].set_clock(0);
            }
            Fault::KillLeader | Fault::StopLeader => unreachable!("it came to a member"),
        }
    }

    fn set(&self, way: Way, state: State) {
        let slots = &self.world.slots;
        match way {
            Way::Ensemble(one) => set(slots[one].zookeeper.iter(), state),
            Way::Member(one, member) => slots[one].zookeeper[member].set(state),
            Way::Peers(one) => slots[one].peers.set(state),
            Way::Clients(one) => slots[one].clients.set(state),
            Way::Around(one) => set(self.world.around(one), state),
        }
    }

    fn apart(&self, one: usize, other: usize, [there, back]: [State; 2]) {
        let slots = &self.world.slots;
        slots[other].peers.set_for(one, there);
        slots[one].peers.set_for(other, back);
    }

    fn trouble(&self, whose: Option<usize>, rule: Option<&str>) {
        for (number, slot) in self.world.slots.iter().enumerate() {
            if whose.is_none_or(|whose| whose == number) {
                slot.trouble(rule);
            }
        }
    }

    /// Recovery by kind: how often, median and longest.
    pub fn report(&self) -> Vec<String> {
        let mut by_kind: BTreeMap<&str, (usize, Vec<Duration>)> = BTreeMap::new();
        for record in &self.records {
            for kind in &record.kinds {
                let (count, times) = by_kind.entry(kind).or_default();
                *count += 1;
                times.extend(record.recovered);
            }
        }
        let line = |(kind, (count, times)): (&str, (usize, Vec<Duration>))| {
            format!("{kind}: {count}{}", times_of(times))
        };
        let mut lines: Vec<_> = by_kind.into_iter().map(line).collect();
        let all: Vec<Duration> =
            self.records.iter().filter_map(|record| record.recovered).collect();
        lines.push(format!("all: {} rounds{}", self.records.len(), times_of(all)));
        lines
    }
}

/// Whether `ORIBI_FAULTS_KINDS`, names with commas between them, leaves a kind in.
fn is_wanted(kind: &str) -> bool {
    let wanted = std::env::var("ORIBI_FAULTS_KINDS").ok();
    wanted.is_none_or(|wanted| wanted.split(',').any(|one| one.trim() == kind))
}

fn times_of(mut times: Vec<Duration>) -> String {
    times.sort();
    let Some(worst) = times.last() else { return String::new() };
    format!(", whole again after {:.1?} (median), {worst:.1?} (worst)", times[times.len() / 2])
}

/// Threads that a daemon may make besides, where they are bounded.
const MORE_THREADS: usize = 1;

const NO_MOUNT: &str = "a file system of its own is not mounted, or is in use";

/// A moment later, perhaps.
fn pause() -> bool {
    std::thread::sleep(Duration::from_millis(5));
    false
}

fn possible(done: bool, why: &'static str) -> Result<(), &'static str> {
    if done { Ok(()) } else { Err(why) }
}

fn set<'a>(links: impl Iterator<Item = &'a Link>, state: State) {
    links.for_each(|link| link.set(state));
}

/// Sets a limit of a process by `prlimit`'s option.
fn limit(pid: u32, option: &str) -> bool {
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--pid={pid}")).arg(option);
    prlimit.output().is_ok_and(|done| done.status.success())
}

fn leader(world: &World) -> Option<usize> {
    block_in_place(|| lock(&world.ensemble).leader())
}

fn kill_member(world: &World, one: usize) -> Result<(), &'static str> {
    let mut ensemble = lock(&world.ensemble);
    let server = &mut ensemble.servers[one];
    possible(server.is_running(), "the member does not run")?;
    block_in_place(|| server.stop());
    Ok(())
}

fn stop_member(world: &World, one: usize) -> Result<(), &'static str> {
    let ensemble = lock(&world.ensemble);
    possible(ensemble.servers[one].is_running(), "the member does not run")?;
    ensemble.servers[one].pause();
    Ok(())
}

fn start_member(world: &World, one: usize) {
    let mut ensemble = lock(&world.ensemble);
    if !ensemble.servers[one].is_running() {
        block_in_place(|| ensemble.servers[one].launch_again());
    }
}

/// What this machine can do of what is optional.
pub fn abilities(world: &World) -> String {
    let told = |what: &str, can: bool, lack: &str| match can {
        true => format!("{what}: yes"),
        false => format!("{what}: no ({lack})"),
    };
    [
        told("storage of its own", world.storage.is_mounted(), "mount is not allowed"),
        told("clocks", has_clock(), "Debian's faketime is not installed"),
        format!("daemons {}", IDS.join(", ")),
    ]
    .join("; ")
}
