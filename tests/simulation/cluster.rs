//! Daemons that register, follow each other and elect a leader.
//!
//! Four processes go by three names: two of them want to be the same daemon. Whoever leads acts now
//! and then. What must hold:
//!
//! - Never do two daemons take themselves for the leader at one moment, and only who stands first in
//!   the election acts.
//! - No daemon trusts its lease when the store ends its session.
//! - Who stands in the election is registered. A record is written by whose it is alone, and removed
//!   by it or by its successor in the same data directory.
//! - Once faults have ended, all know exactly those who live, and one leads.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use oribi::cluster::{Election, Membership, Options, State};
use oribi::coordination::{Coordination, Mode, Node, Op};
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::processes::{Processes, RECOVERY};
use crate::sim::{Event, Sim, Write, lock};

/// What each process wants to be called.
const NAMES: [&str; 4] = ["a", "b", "c", "a"];

const ACTS: &str = "/acts";

/// A daemon that has joined.
struct Running {
    link: Arc<Link>,
    membership: Arc<Membership>,
    election: Arc<Election>,
}

type Daemons = [Mutex<Option<Running>>; NAMES.len()];

pub async fn run(sim: Arc<Sim>) {
    sim.make(ACTS);
    let daemons: Arc<Daemons> = Arc::default();
    let judged = daemons.clone();
    sim.add_judge(move |sim, event| judge(sim, &judged, event));
    let (own, known) = (sim.clone(), daemons.clone());
    let program =
        move |number, link, leave| daemon(own.clone(), known.clone(), number, link, leave).boxed();
    let processes = Processes::start(&sim, NAMES.len(), Arc::new(program));
    let time = sim.between(5_000, 25_000);
    processes.suffer(time).await;
    sim.wait_until(RECOVERY, || unsettled(&sim, &daemons)).await;
}

/// What a daemon tells of itself in all schedules.
pub fn options(sim: &Sim, number: usize, id: &str) -> Options {
    Options {
        id: id.to_owned(),
        data_dir: sim.directory.join(number.to_string()),
        protected: true,
        store: "simulated".to_owned(),
        postgres: format!("process-{number}:5439"),
        peer: format!("process-{number}:7439"),
        web: format!("process-{number}:8439"),
        version: "1",
        build: "simulated",
        warehouse: None,
        cores: 1,
        memory: 1,
    }
}

async fn daemon(
    sim: Arc<Sim>,
    daemons: Arc<Daemons>,
    number: usize,
    link: Arc<Link>,
    leave: CancellationToken,
) {
    let _gone = Gone(daemons.clone(), number);
    let joined = Membership::join(link.clone(), options(&sim, number, NAMES[number])).await;
    let membership = match joined {
        Ok(membership) => membership,
        Err(error) => return sim.tell(|| format!("{} cannot join: {error}", link.name)),
    };
    let Ok(election) = Election::open(link.clone(), membership.clone()).await else { return };
    membership.set_state(State::Ready).await;
    let running =
        Running { link: link.clone(), membership: membership.clone(), election: election.clone() };
    *lock(&daemons[number]) = Some(running);
    let (draining, end) = (CancellationToken::new(), CancellationToken::new());
    let living = async {
        let stopping = async {
            tokio::select! {
                biased;
                () = membership.evicted().cancelled() => {}
                () = leave.cancelled() => {}
            }
            membership.set_state(State::Draining).await;
            draining.cancel();
        };
        futures::join!(election.clone().follow(draining.clone()), stopping);
        end.cancel();
    };
    let following = async { futures::join!(membership.clone().follow(end.clone()), living) };
    let working =
        async { futures::join!(lead(&sim, &link, &election), waver(&sim, &membership, &leave)) };
    tokio::select! {
        biased;
        _ = following => {}
        _ = working => {}
    }
}

/// Takes a daemon off the list when it has ended, however it did.
struct Gone(Arc<Daemons>, usize);

impl Drop for Gone {
    fn drop(&mut self) {
        *lock(&self.0[self.1]) = None;
    }
}

/// What the leader does.
async fn lead(sim: &Sim, link: &Link, election: &Election) {
    loop {
        sleep(sim.between(50, 700)).await;
        let Some(fence) = election.fence() else { continue };
        // What is to be written takes its time.
        sleep(if sim.happens(70) { sim.between(0, 20) } else { sim.between(20, 6000) }).await;
        let data = fence.path().to_owned().into();
        let path = format!("{ACTS}/");
        let act = Op::Create { path, data, mode: Mode::PersistentSequential };
        let _ = link.transact(vec![fence, act]).await;
    }
}

/// Writes its own record now and then.
async fn waver(sim: &Sim, membership: &Membership, leave: &CancellationToken) {
    let mut state = State::Ready;
    loop {
        sleep(sim.between(500, 4000)).await;
        if leave.is_cancelled() || sim.is_calm() {
            continue;
        }
        state = if state == State::Ready { State::Joining } else { State::Ready };
        membership.set_state(state).await;
    }
}

fn judge(sim: &Sim, daemons: &Daemons, event: &Event<'_>) {
    let running: Vec<_> = daemons.iter().map(lock).collect();
    let running = || running.iter().filter_map(|daemon| daemon.as_ref());
    let leaders: Vec<&str> = running()
        .filter(|daemon| daemon.election.fence().is_some())
        .map(|daemon| daemon.link.name.as_str())
        .collect();
    if leaders.len() > 1 {
        sim.violated(format!("{leaders:?} lead at one moment"));
    }
    match event {
        Event::Expired(link) => {
            let found = running().find(|daemon| daemon.link.name == link.name);
            if found.is_some_and(|daemon| daemon.membership.may_act()) {
                sim.violated(format!("{} trusts its lease after its session", link.name));
            }
        }
        Event::Write(write) if write.done.is_ok() => {
            for (op, before) in write.ops.iter().zip(&write.before) {
                judge_step(sim, write, op, before.as_ref());
            }
        }
        Event::Write(_) | Event::Doubt(_) => {}
    }
}

fn judge_step(sim: &Sim, write: &Write<'_>, op: &Op, before: Option<&Node>) {
    let name = &write.link.name;
    match op {
        Op::Create { path, data, .. } if path.starts_with("/leader/") => {
            let candidate: Value = serde_json::from_slice(data).expect("a candidate");
            let incarnation = candidate["incarnation"].as_str().expect("an incarnation");
            if sim.node(&format!("/incarnations/{incarnation}")).is_none() {
                sim.violated(format!("{name} stands in the election and is not registered"));
            }
        }
        Op::Create { path, data, .. } if path.starts_with(ACTS) => {
            let first = sim.children("/leader").into_iter().min().unwrap_or_default();
            let own = String::from_utf8_lossy(data);
            if own != format!("/leader/{first}") {
                sim.violated(format!("{name} acts as {own}, and {first} leads"));
            }
        }
        Op::Set { path, .. } | Op::Delete { path, .. } if path.starts_with("/daemons/") => {
            let Some(before) = before else { return };
            let own = before.stat.ephemeral_owner == write.link.id();
            if !own && (matches!(op, Op::Set { .. }) || !is_successor(sim, write, before)) {
                sim.violated(format!("{name} changes {path}, the record of another"));
            }
        }
        _ => {}
    }
}

/// Whether a record was written by an earlier process in the same data directory.
fn is_successor(sim: &Sim, write: &Write<'_>, before: &Node) -> bool {
    let record: Value = serde_json::from_slice(&before.data).expect("a record");
    let number = write.link.name.split('.').next().unwrap_or_default();
    let instance = std::fs::read_to_string(sim.directory.join(number).join("instance"));
    instance.is_ok_and(|instance| record["instance"].as_str() == Some(instance.trim()))
}

/// What is not well yet.
fn unsettled(sim: &Sim, daemons: &Daemons) -> Option<String> {
    let names = sim.children("/daemons");
    if names != NAMES[..3] {
        return Some(format!("{names:?} are registered"));
    }
    let registered: Vec<(String, String)> = names
        .into_iter()
        .filter_map(|name| {
            let node = sim.node(&format!("/daemons/{name}"))?;
            let record: Value = serde_json::from_slice(&node.data).expect("a record");
            Some((name, record["incarnation"].as_str()?.to_owned()))
        })
        .collect();
    let running: Vec<_> = daemons.iter().map(lock).collect();
    let mut leaders = Vec::new();
    for daemon in running.iter().filter_map(|daemon| daemon.as_ref()) {
        let members = daemon.membership.members();
        let known: Vec<(String, String)> = members
            .iter()
            .map(|member| (member.id.clone(), member.record.incarnation.to_string()))
            .collect();
        if known != registered {
            let name = &daemon.link.name;
            return Some(format!("{name} knows of {known:?} instead of {registered:?}"));
        }
        leaders.extend(daemon.election.fence().map(|_| daemon.membership.id().to_owned()));
    }
    let agree = running
        .iter()
        .filter_map(|daemon| daemon.as_ref())
        .all(|daemon| daemon.election.leader().is_some_and(|leader| leaders == [leader]));
    (!agree).then(|| format!("{leaders:?} lead, and not all know"))
}
