//! Everything goes wrong, by a seed: three daemons and an ensemble of three, with a link of its own for
//! every way between them, work for many clients while processes die and freeze, networks are cut, disks
//! fill up and storage goes. What clients were told is checked against what there is.
//!
//! A run is short by default. `ORIBI_FAULTS_SECONDS` makes it longer, `ORIBI_FAULTS_SEED` deals the same
//! faults again: each run prints its own seed. `ORIBI_FAULTS_KINDS` leaves only some kinds of faults, such as
//! `failing reads, apart`.

mod common;

#[path = "faults/after.rs"]
mod after;
#[path = "faults/checker.rs"]
mod checker;
#[path = "faults/files.rs"]
mod files;
#[path = "faults/history.rs"]
mod history;
#[path = "faults/linear.rs"]
mod linear;
#[path = "faults/load.rs"]
mod load;
#[path = "fuzz/mutate.rs"]
#[allow(dead_code)]
mod mutate;
#[path = "faults/nemesis.rs"]
mod nemesis;
#[path = "faults/operator.rs"]
mod operator;
#[path = "faults/pairs.rs"]
mod pairs;
#[path = "cluster/support.rs"]
mod support;
#[path = "faults/threads.rs"]
mod threads;
#[path = "faults/trouble.rs"]
mod trouble;
#[path = "faults/world.rs"]
mod world;
#[path = "faults/wrong.rs"]
mod wrong;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use after::{Seen, Witness};
use history::{Entry, Op, Outcome, Table, Violation, seconds};
use load::{Load, Session};
use nemesis::Nemesis;
use world::World;

/// Of a short run.
const SECONDS: u64 = 30;

/// Work that lasts longer says nothing of who worked when: its daemon was frozen.
const FROZEN: u64 = 2_000_000;

/// How many violations of one kind are told of in full.
const TOLD: usize = 5;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_goes_wrong_no_answer_is_wrong_and_nothing_is_lost() {
    let length = setting("ORIBI_FAULTS_SECONDS").unwrap_or(SECONDS);
    let seed = setting("ORIBI_FAULTS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("ORIBI_FAULTS_SEED={seed} ORIBI_FAULTS_SECONDS={length}");
    let world = Arc::new(World::start().await);
    println!("{}", nemesis::abilities(&world));
    let over = Arc::new(AtomicBool::new(false));
    let manager = {
        let (world, over) = (world.clone(), over.clone());
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                world.look_after();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    first_whole(&world).await;
    let before = after::figures(&world).await;
    let load = Load::new(world.clone());
    let clients = load.begin(seed);
    let witness = Witness::begin(world.clone());
    let mut nemesis = Nemesis::new(world.clone(), seed);
    let began = Instant::now();
    nemesis.rage(began + Duration::from_secs(length)).await;
    let whole = world.recovered().await;
    load.end();
    clients.join_all().await;
    let seen = witness.end().await;
    if let Err(why) = whole {
        world.history.violation(format!("not whole in the end: {why}"));
    }
    let entries = world.history.entries();
    let mut violations = Vec::new();
    match after::look(&world, &entries).await {
        Ok(last) => violations = check(&entries, &last, &seen),
        Err(why) => world.history.violation(format!("not to be asked in the end: {why}")),
    }
    if let Err(why) = after::nothing_left(&world, &before).await {
        world.history.violation(format!("something is left: {why}"));
    }
    over.store(true, Ordering::Relaxed);
    manager.await.expect("the manager does not panic");
    for slot in &world.slots {
        slot.held.store(true, Ordering::SeqCst);
        slot.stop(&world.history);
    }
    violations.extend(world.history.violations());
    report(&entries, &nemesis, &seen, began.elapsed());
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in &violations {
        // Those that begin alike are of one kind.
        let kind = violation.what.split([':', ' ']).next().unwrap_or_default();
        let count = told.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD {
            tell(violation, &entries, &nemesis);
        }
    }
    println!("violations by their first word: {told:?}");
    assert!(violations.is_empty(), "ORIBI_FAULTS_SEED={seed}: {} violations", violations.len());
}

/// Waits until all daemons know each other, and makes what clients work on.
async fn first_whole(world: &World) {
    let began = Instant::now();
    loop {
        if let Ok(session) = Session::connect(world, 0, true).await
            && session.run("SELECT 1").await.is_ok()
        {
            load::set_up(&session).await;
            break;
        }
        assert!(began.elapsed() < world::BOUND, "no daemon serves");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.recovered().await.unwrap_or_else(|why| panic!("not whole at the beginning: {why}"));
}

fn check(entries: &[Entry], last: &after::Final, seen: &Seen) -> Vec<Violation> {
    let mut all: Vec<Entry> = entries.to_vec();
    all.extend(last.reads.iter().cloned());
    let mut wrong = checker::rows(&all, Table::Events);
    wrong.extend(checker::rows(&all, Table::Ledger));
    wrong.extend(checker::sums(&all, &Op::Sum, &[load::TOTAL / 2]));
    wrong.extend(checker::sums(&all, &Op::Across, &[load::TOTAL, load::TOTAL / 2]));
    let (mut owed, without) = checker::submitted(entries, &last.states);
    wrong.extend(without);
    owed.extend(last.reads.iter().cloned());
    wrong.extend(checker::rows(&owed, Table::Done));
    wrong.extend(checker::setting(entries, last.setting));
    let (names, undecided) = linear::check(&all);
    wrong.extend(names);
    println!("names of tables too entangled to decide: {undecided}");
    wrong.extend(checker::leaders(&seen.terms));
    let works: Vec<_> = seen.works.iter().cloned().collect();
    // By the daemons' own clocks.
    if !world::has_clock() {
        wrong.extend(checker::housekeepers(&works, FROZEN));
    }
    wrong
}

fn report(entries: &[Entry], nemesis: &Nemesis, seen: &Seen, took: Duration) {
    let mut kinds: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        let name = format!("{:?}", entry.op);
        let name = name.split(['(', ',']).next().unwrap_or_default().to_owned();
        let which = match &entry.outcome {
            Outcome::Refused(code) => {
                *codes.entry(code).or_default() += 1;
                1
            }
            Outcome::Unknown(_) => 2,
            _ => 0,
        };
        kinds.entry(name).or_default()[which] += 1;
    }
    println!("{} operations in {took:.1?}: done, refused, unknown", entries.len());
    for (kind, [done, refused, unknown]) in kinds {
        println!("  {kind}: {done}, {refused}, {unknown}");
    }
    println!("refused with {codes:?}");
    println!("{} terms of leaders, {} pieces of housekeeping", seen.terms.len(), seen.works.len());
    for line in nemesis.report() {
        println!("  {line}");
    }
    println!("not possible here: {:?}", nemesis.skipped);
}

/// A violation with what happened around it.
fn tell(violation: &Violation, entries: &[Entry], nemesis: &Nemesis) {
    println!("\nVIOLATION at {:.3} s: {}", seconds(violation.at), violation.what);
    let (from, to) = (violation.at.saturating_sub(10_000_000), violation.at);
    for fault in nemesis.records.iter().filter(|fault| fault.from <= to && fault.to >= from) {
        println!("  {:.3}-{:.3} {}", seconds(fault.from), seconds(fault.to), fault.text);
    }
    let near =
        entries.iter().filter(|entry| entry.end + 300_000 >= to && entry.start <= to + 300_000);
    for entry in near.filter(|entry| entry.outcome != Outcome::Keys(Vec::new())).take(30) {
        let mut outcome = format!("{:?}", entry.outcome);
        outcome.truncate(outcome.char_indices().nth(200).map_or(outcome.len(), |(at, _)| at));
        println!(
            "    {:.3}-{:.3} session {} on {}: {:?}: {outcome}",
            seconds(entry.start),
            seconds(entry.end),
            entry.session,
            world::IDS[entry.daemon],
            entry.op,
        );
    }
}
