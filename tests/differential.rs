//! The same messages to a real PostgreSQL and to a daemon: what comes back must be the same.
//!
//! Scripts are text files in `tests/differential`; [`script`] says how to read them. A difference
//! that is meant, or not repaired yet, is marked in the script with its reason and a digest of what
//! Oribi says; a mark that hides nothing, or another difference, fails as well. `ORIBI_TEST_CASE` names
//! one case to run alone, by a part of its name; `ORIBI_TEST_UNMARK=1` takes the marks away that hide
//! nothing, `ORIBI_TEST_RECORD=1` writes the digests of what is said now.

mod common;
#[path = "differential/script.rs"]
mod script;
#[path = "differential/session.rs"]
mod session;
#[path = "differential/tables.rs"]
mod tables;
#[path = "differential/transcript.rs"]
mod transcript;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::daemon::{Daemon, Options};
use common::postgres::Server;
use script::{Case, Complaint, Step};
use session::Session;
use transcript::Transcript;

/// Both servers, with the same tables.
struct Pair {
    postgres: Server,
    oribi: Daemon,
}

/// Started by the first test, stopped by the last of those that run at the same time.
static PAIR: Mutex<Weak<Pair>> = Mutex::new(Weak::new());

fn pair() -> Arc<Pair> {
    let mut running = PAIR.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pair) = running.upgrade() {
        return pair;
    }
    let pair = Arc::new(Pair { postgres: Server::start(), oribi: Daemon::start(&Options::new()) });
    tables::make(&pair);
    *running = Arc::downgrade(&pair);
    pair
}

macro_rules! scripts {
    ($($topic:ident)*) => {
        $(#[test]
        fn $topic() {
            run(stringify!($topic));
        })*

        #[test]
        fn every_script_is_run() {
            let known = [$(stringify!($topic)),*];
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
            for entry in directory.read_dir().expect("tests/differential").flatten() {
                let path = entry.path();
                let topic = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                assert!(
                    path.extension().is_none_or(|kind| kind != "txt") || known.contains(&topic),
                    "{} is not in the list", path.display()
                );
            }
        }
    };
}

scripts! {
    blocks copy cursors errors expressions extended functions json malformed parameters portals
    prepared settings simple startup tables_read templates types zones
}

/// Runs every case of a script against both servers and tells all that went wrong.
fn run(topic: &str) {
    let only = std::env::var("ORIBI_TEST_CASE").unwrap_or_default();
    let cases = script::load(topic);
    let pair = pair();
    let mut report = String::new();
    let (mut needless, mut anew) = (Vec::new(), Vec::new());
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        let theirs = talk(pair.postgres.address(), case);
        let ours = talk(pair.oribi.postgres(), case);
        for wrong in transcript::wrong_places(&theirs, &ours) {
            writeln!(report, "\n{topic}.txt:{} {}: the place is {wrong}", case.line, case.name)
                .ok();
        }
        let Some(complaint) = case.judge(&theirs, &ours) else { continue };
        writeln!(report, "\n{topic}.txt:{} {}: {complaint:?}", case.line, case.name).ok();
        match complaint {
            Complaint::Differs => report.push_str(&transcript::compared(&theirs, &ours)),
            Complaint::DiffersAnew => {
                report.push_str(&transcript::compared(&theirs, &ours));
                anew.push((case, ours));
            }
            Complaint::Needless => needless.push(case),
        }
    }
    if std::env::var_os("ORIBI_TEST_UNMARK").is_some() {
        script::unmark(topic, &needless);
    } else if std::env::var_os("ORIBI_TEST_RECORD").is_some() {
        script::record(topic, &anew);
    }
    assert!(report.is_empty(), "of {} cases (- PostgreSQL, + Oribi)\n{report}", cases.len());
}

/// What a server says to a case.
fn talk(address: SocketAddr, case: &Case) -> Transcript {
    let mut said = Transcript::new();
    let mut session = Session::open(address);
    let own_start = matches!(case.steps.first(), Some(Step::Start { .. }));
    if !own_start {
        session.say(&Step::usual_start());
        session.hear('Z');
    }
    for step in &case.steps {
        session.say(step);
        let heard = step.awaits().map(|kind| session.hear(kind)).unwrap_or_default();
        said.push((step.text(), heard));
        if session.closed() {
            break;
        }
    }
    said
}
