//! Places where a test may have the daemon die or stop: between any two steps of a write.
//!
//! `ORIBI_FAULT=<point>` in the environment makes the process abort when it comes to that point, as
//! suddenly as `kill -9` would; `ORIBI_FAULT_AFTER=<n>` lets it pass n times first. With
//! `ORIBI_FAULT_BY=stop` it stops as by SIGSTOP, until a SIGCONT; with `=panic` the thread panics, with
//! `=stall` it does nothing any more, and all others go on. `ORIBI_FAULT_WHEN=<file>` lets it pass for as
//! long as there is no such file.
//! Without a fault a point costs one look at a constant.
//!
//! `ORIBI_FAULT_STORAGE=<file>` makes storage of local files one that may fail: as long as there is such a
//! file, what it says becomes of reads, and of writes ([`Trouble`]); each that it strikes adds a byte to
//! `<file>.struck`. Without the variable nothing of it is there.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// More than enough for a signal to stop all threads.
const TAKEN: Duration = Duration::from_millis(200);

enum By {
    Abort,
    Stop,
    Panic,
    Stall,
}

struct Fault {
    point: String,
    when: Option<PathBuf>,
    left: AtomicU64,
    by: By,
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

/// A step is over, and the next has not begun.
pub fn point(name: &str) {
    let fault = FAULT.get_or_init(|| {
        let point = std::env::var("ORIBI_FAULT").ok()?;
        let left = std::env::var("ORIBI_FAULT_AFTER").ok();
        let left = left.and_then(|left| left.parse().ok()).unwrap_or(0);
        let by = match std::env::var("ORIBI_FAULT_BY").as_deref() {
            Ok("stop") => By::Stop,
            Ok("panic") => By::Panic,
            Ok("stall") => By::Stall,
            _ => By::Abort,
        };
        let when = std::env::var_os("ORIBI_FAULT_WHEN").map(PathBuf::from);
        Some(Fault { point, when, left: AtomicU64::new(left), by })
    });
    let Some(fault) = fault else { return };
    if fault.point != name || fault.when.as_ref().is_some_and(|file| !file.exists()) {
        return;
    }
    if fault.left.fetch_sub(1, Ordering::Relaxed) != 0 {
        return;
    }
    match fault.by {
        By::Abort => std::process::abort(),
        By::Panic => panic!("{name}, and a test wants a panic"),
        By::Stall => loop {
            std::thread::park();
        },
        By::Stop => {
            if kill_process(getpid(), Signal::STOP).is_err() {
                std::process::abort();
            }
            // Another thread may be the one that the signal comes to: this one must not go on before
            // that has stopped them all.
            std::thread::sleep(TAKEN);
        }
    }
}

/// How often what is stuck looks whether it still is.
const LOOK: Duration = Duration::from_millis(10);

/// What a disk says that has failed.
const FAILED: i32 = 5;

/// Storage that a test may have fail.
#[derive(Debug)]
pub struct Storage {
    rule: PathBuf,
    /// What was asked of it so far.
    asked: AtomicU64,
}

/// What becomes of what is asked of storage: `<what> <percent> <milliseconds> <seed>`, such as
/// `fail 30 0 7`. What is not struck goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    what: What,
    percent: u64,
    delay: Duration,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A read fails.
    Fail,
    /// A read fails after a part of it.
    Cut,
    /// It takes so long; a write as well.
    Slow,
    /// It does not end before the trouble does; a write as well.
    Stick,
}

/// How a read goes on that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    Well,
    /// After a part of it it is to fail, with [`failed`].
    Partly,
}

/// The storage that a test may have fail, if one does.
pub fn storage() -> Option<&'static Storage> {
    static STORAGE: OnceLock<Option<Storage>> = OnceLock::new();
    let storage = STORAGE.get_or_init(|| {
        let rule = PathBuf::from(std::env::var_os("ORIBI_FAULT_STORAGE")?);
        Some(Storage::new(rule))
    });
    storage.as_ref()
}

/// What a read says that fails.
pub fn failed() -> io::Error {
    io::Error::from_raw_os_error(FAILED)
}

impl Storage {
    pub(crate) fn new(rule: PathBuf) -> Self {
        Self { rule, asked: AtomicU64::new(0) }
    }

    /// Whether there is trouble now.
    pub fn is_in_trouble(&self) -> bool {
        self.rule.exists()
    }

    /// Before a read. Blocks its thread as a disk would.
    ///
    /// # Errors
    /// That of a disk that has failed.
    pub fn reads(&self) -> io::Result<Goes> {
        match self.strikes() {
            Some(Trouble { what: What::Fail, .. }) => Err(failed()),
            Some(Trouble { what: What::Cut, .. }) => Ok(Goes::Partly),
            trouble => {
                self.takes(trouble);
                Ok(Goes::Well)
            }
        }
    }

    /// Before a write. Blocks its thread as a disk would.
    pub fn writes(&self) {
        let trouble = self.strikes();
        self.takes(trouble);
    }

    fn takes(&self, trouble: Option<Trouble>) {
        match trouble {
            Some(Trouble { what: What::Slow, delay, .. }) => std::thread::sleep(delay),
            Some(Trouble { what: What::Stick, .. }) => {
                while self.trouble() == trouble {
                    std::thread::sleep(LOOK);
                }
            }
            _ => {}
        }
    }

    /// The trouble that what is asked now has.
    fn strikes(&self) -> Option<Trouble> {
        let trouble = self.trouble()?;
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let strikes = scattered(trouble.seed ^ number) % 100 < trouble.percent;
        if strikes {
            let struck = self.rule.with_added_extension("struck");
            let struck = OpenOptions::new().create(true).append(true).open(struck);
            // Where there are no descriptors left, the test does not count.
            drop(struck.and_then(|mut struck| struck.write_all(b".")));
        }
        strikes.then_some(trouble)
    }

    fn trouble(&self) -> Option<Trouble> {
        Trouble::parse(&std::fs::read_to_string(&self.rule).ok()?)
    }
}

impl Trouble {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let what = match words.next()? {
            "fail" => What::Fail,
            "cut" => What::Cut,
            "slow" => What::Slow,
            "stick" => What::Stick,
            _ => return None,
        };
        let mut number = || words.next()?.parse::<u64>().ok();
        let (percent, delay, seed) = (number()?, number()?, number()?);
        Some(Self { what, percent, delay: Duration::from_millis(delay), seed })
    }
}

/// A number that looks like any other: the finalizer of splitmix64, by Steele, Lea and Flood.
fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_what_a_file_says_and_ends_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let rule = directory.path().join("rule");
        let storage = Storage::new(rule.clone());
        let struck =
            || std::fs::metadata(directory.path().join("rule.struck")).map_or(0, |file| file.len());
        assert_eq!(storage.reads().expect("no trouble"), Goes::Well);
        assert!(!storage.is_in_trouble());
        std::fs::write(&rule, "fail 100 0 1").expect("a file");
        assert!(storage.is_in_trouble());
        assert_eq!(struck(), 0);
        assert_eq!(storage.reads().expect_err("it fails").raw_os_error(), Some(FAILED));
        storage.writes();
        assert_eq!(struck(), 2);
        std::fs::write(&rule, "cut 100 0 1").expect("a file");
        assert_eq!(storage.reads().expect("it begins"), Goes::Partly);
        std::fs::write(&rule, "fail 30 0 7").expect("a file");
        let failed = (0..1000).filter(|_| storage.reads().is_err()).count();
        assert!((200..400).contains(&failed), "{failed}");
        std::fs::write(&rule, "nonsense").expect("a file");
        assert_eq!(storage.reads().expect("no trouble"), Goes::Well);
        std::fs::write(&rule, "stick 100 0 1").expect("a file");
        let before = struck();
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| storage.reads().expect("it ends"));
            while struck() == before && !stuck.is_finished() {
                std::thread::yield_now();
            }
            // Time enough for what does not wait to end.
            std::thread::sleep(5 * LOOK);
            assert!(!stuck.is_finished());
            std::fs::remove_file(&rule).expect("the file");
            assert_eq!(stuck.join().expect("no panic"), Goes::Well);
        });
    }
}
