//! Deterministic simulation of what daemons do through the coordination store: several of them in
//! one thread, on the embedded store, under faults that a seed decides on.
//!
//! Each schedule has a world of its own ([`world`]): no clock, no thread and no random number in it
//! but those that its seed gives. A daemon's way to the store ([`link`]) loses, delays and reorders,
//! and ends sessions; processes stop, end and start again ([`processes`]). What must hold is looked at
//! from the outside, with each write that the store carries out. [`mutations`] proves that it would be
//! noticed if it did not.
//!
//! `ORIBI_SIMULATION_SEEDS` is the number of schedules of each recipe (default 300), and
//! `ORIBI_SIMULATION_FIRST` the first of them (default 0). `ORIBI_SIMULATION_SEED=<n>` runs that one
//! alone and prints its trace.

#[path = "simulation/calls.rs"]
mod calls;
#[path = "simulation/claims.rs"]
mod claims;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/cluster.rs"]
mod cluster;
#[path = "simulation/ddl.rs"]
mod ddl;
#[path = "simulation/joint.rs"]
mod joint;
#[path = "simulation/link.rs"]
mod link;
#[path = "simulation/mutations.rs"]
mod mutations;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/processes.rs"]
mod processes;
#[path = "simulation/sim.rs"]
mod sim;
#[path = "simulation/tables.rs"]
mod tables;
#[path = "simulation/world.rs"]
mod world;

use std::path::PathBuf;
use std::sync::Once;
use std::time::Instant;

use mutations::{CASES, Case, Mutation};
use sim::{Sim, Verdict};
use world::World;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    Cluster,
    Ddl,
    Tables,
    Joint,
    Claims,
}

const RECIPES: [Recipe; 5] =
    [Recipe::Cluster, Recipe::Ddl, Recipe::Tables, Recipe::Joint, Recipe::Claims];

/// Seeds of schedules that have found something once: they stay.
const REGRESSIONS: &[(Recipe, u64)] =
    &[(Recipe::Cluster, 1_000_116), (Recipe::Ddl, 1_000_314), (Recipe::Joint, 500_052)];

/// Lines of the trace that are kept of a schedule that is one of many.
const KEPT: usize = 400;

/// Runs one schedule. Its trace is written only if so many lines of it are wanted: that takes its time.
fn schedule(recipe: Recipe, seed: u64, mutation: Option<Mutation>, lines: usize) -> Verdict {
    // What is made once in a process, at its first use, takes no random numbers from a seed then.
    static WARM: [Once; RECIPES.len()] = [const { Once::new() }; RECIPES.len()];
    WARM[recipe as usize].call_once(|| drop(run(recipe, 0, None, 0)));
    run(recipe, seed, mutation, lines)
}

/// Runs one schedule on a thread of its own.
fn run(recipe: Recipe, seed: u64, mutation: Option<Mutation>, lines: usize) -> Verdict {
    let memory = PathBuf::from("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let directory = directory.expect("a directory");
    std::thread::scope(|scope| {
        let work = || {
            let _world = World::enter(seed);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(1)
                .build()
                .expect("a runtime");
            // As a task: one that is no task is woken by way of the system.
            let sim = Sim::new(seed, mutation, directory.path(), lines);
            let main = runtime.spawn({
                let sim = sim.clone();
                async move {
                    match recipe {
                        Recipe::Cluster => cluster::run(sim).await,
                        Recipe::Ddl => ddl::run(sim).await,
                        Recipe::Tables => tables::run(sim).await,
                        Recipe::Joint => joint::run(sim).await,
                        Recipe::Claims => claims::run(sim).await,
                    }
                }
            });
            runtime.block_on(main).expect("it does not panic");
            let verdict = sim.verdict();
            drop(sim);
            drop(runtime);
            verdict
        };
        let thread = std::thread::Builder::new().stack_size(16 << 20);
        let thread = thread.spawn_scoped(scope, work).expect("a thread");
        thread.join().unwrap_or_else(|_| panic!("{recipe:?}: seed {seed} panicked"))
    })
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Fails with all that is needed to see a violation again.
fn check(recipe: Recipe, seed: u64, verdict: &Verdict) {
    let Some(violation) = &verdict.violation else { return };
    let traced = schedule(recipe, seed, None, KEPT);
    let same = traced.violation.as_ref() == Some(violation);
    assert!(same, "{recipe:?}: seed {seed} does not repeat: {violation}, {:?}", traced.violation);
    fail(recipe, seed, &traced);
}

fn fail(recipe: Recipe, seed: u64, verdict: &Verdict) {
    let Some(violation) = &verdict.violation else { return };
    let trace = verdict.lines.join("\n");
    panic!(
        "{trace}\n{recipe:?}: {violation}\nto see it again: ORIBI_SIMULATION_SEED={seed} \
         (the trace above is the end of {:016x})",
        verdict.hash
    );
}

/// Runs as many schedules as are asked for.
fn schedules(recipe: Recipe) {
    if let Some(seed) = variable("ORIBI_SIMULATION_SEED") {
        let verdict = schedule(recipe, seed, None, usize::MAX);
        println!("{}", verdict.lines.join("\n"));
        return fail(recipe, seed, &verdict);
    }
    let first = variable("ORIBI_SIMULATION_FIRST").unwrap_or(0);
    let count = variable("ORIBI_SIMULATION_SEEDS").unwrap_or(300);
    let regressions = REGRESSIONS.iter().filter(|(of, _)| *of == recipe).map(|(_, seed)| *seed);
    let (begun, mut calls) = (Instant::now(), 0);
    for seed in regressions.chain(first..first + count) {
        let verdict = schedule(recipe, seed, None, 0);
        calls += verdict.calls;
        check(recipe, seed, &verdict);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{recipe:?}: {count} schedules with {calls} calls in {seconds:.1} s");
}

#[test]
fn members_and_their_leader() {
    schedules(Recipe::Cluster);
}

#[test]
fn changes_of_the_catalog() {
    schedules(Recipe::Ddl);
}

#[test]
fn commits_of_a_table() {
    schedules(Recipe::Tables);
}

#[test]
fn commits_over_several_tables() {
    schedules(Recipe::Joint);
}

#[test]
fn claims_of_submitted_queries() {
    schedules(Recipe::Claims);
}

#[test]
fn a_seed_repeats_exactly() {
    for recipe in RECIPES {
        for seed in 0..5 {
            let traced = || schedule(recipe, seed, None, KEPT);
            let (once, again) = (traced(), traced());
            let differs = once.lines.iter().zip(&again.lines).find(|(one, two)| one != two);
            assert_eq!(once.hash, again.hash, "{recipe:?} {seed}: {differs:?}");
            assert!(once.calls > 100, "{recipe:?} {seed}: {} calls", once.calls);
        }
        let other = schedule(recipe, 5, None, KEPT);
        assert_ne!(schedule(recipe, 6, None, KEPT).hash, other.hash);
    }
}

/// Fails unless some schedule notices each check of a recipe that is missing.
fn missing_checks(recipe: Recipe) {
    let mut unnoticed = Vec::new();
    let cases = CASES.iter().filter(|case| case.recipe == recipe);
    for Case { what, mutation, first, seeds, .. } in cases {
        let found = (*first..first + seeds).find_map(|seed| {
            let violation = schedule(recipe, seed, Some(*mutation), 0).violation?;
            Some((seed, violation))
        });
        match found {
            Some((seed, violation)) => println!("{what}: seed {seed}: {violation}"),
            None => unnoticed.push(format!("{what}: not noticed by {seeds} schedules")),
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn a_missing_check_of_members_is_noticed() {
    missing_checks(Recipe::Cluster);
}

#[test]
fn a_missing_check_of_the_catalog_is_noticed() {
    missing_checks(Recipe::Ddl);
}

#[test]
fn a_missing_check_of_commits_is_noticed() {
    missing_checks(Recipe::Tables);
}

#[test]
fn a_missing_check_of_joint_commits_is_noticed() {
    missing_checks(Recipe::Joint);
}

#[test]
fn a_missing_check_of_claims_is_noticed() {
    missing_checks(Recipe::Claims);
}
