//! The files of the history, below the data directory.
//!
//! A segment `<n>.jsonl` holds statements, a line of JSON each, `<n>.profiles` the profiles of some of
//! them. The last segment is appended to; the oldest go when all together are larger or older than
//! they may be. `running` is a journal of statements that have begun and, later, ended: after a crash
//! it says which were lost. A line that is torn by a crash is passed over.
//!
//! What a disk does not take, as one that is full, waits in memory, bounded, and is written as soon as it
//! is taken. Of a write that failed nothing stays in the files.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use uuid::Uuid;

use super::Record;
use super::batch::{Batch, Ended, Kept, SEGMENTS, append, lines};

/// Bytes of the journal of running statements before it is written anew.
const MAX_JOURNAL: u64 = 1 << 20;

/// Bytes in memory of what the disk has not taken, about; the oldest is forgotten beyond that.
const MAX_UNWRITTEN: usize = 16 << 20;

/// Bytes that are written at once, about.
const WRITE: u64 = 256 << 10;

const STATEMENTS: &str = "jsonl";
const PROFILES: &str = "profiles";
const JOURNAL: &str = "running";

/// The same while it is written anew.
const NEW_JOURNAL: &str = "running.new";

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Begun(Box<Record>),
    Ended(Uuid),
}

/// The history's files.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Bytes of all files.
    limit: u64,
    keep: Duration,
    /// The segment that is appended to.
    present: Segment,
    /// Statements whose beginning is in the journal and whose end is not.
    running: HashMap<Uuid, Record>,
    journal: Option<File>,
    journal_bytes: u64,
    /// What the disk has not taken yet, oldest first.
    unwritten: VecDeque<Ended>,
    /// Of these, bytes in memory, about.
    unwritten_bytes: usize,
    failing: bool,
}

/// What is appended to a segment's files.
#[derive(Default)]
struct Lines {
    statements: Vec<u8>,
    profiles: Vec<u8>,
}

impl Lines {
    fn bytes(&self) -> u64 {
        (self.statements.len() + self.profiles.len()) as u64
    }
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    statements: Option<File>,
    profiles: Option<File>,
}

impl Store {
    /// Opens the files below a directory; also returns the statements that an earlier process had
    /// begun and not ended.
    pub fn open(directory: PathBuf, limit: u64, keep: Duration) -> (Self, Vec<Record>) {
        let last = numbers(&directory).last().copied().unwrap_or_default();
        let lost = read_journal(&directory);
        let number = last + 1;
        let present = Segment { number, bytes: 0, statements: None, profiles: None };
        let running = lost.iter().map(|record| (record.id, record.clone())).collect();
        let store = Self {
            directory,
            limit,
            keep,
            present,
            running,
            // Written anew at the first opportunity.
            journal: None,
            journal_bytes: MAX_JOURNAL,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            failing: false,
        };
        store.prune();
        (store, lost)
    }

    /// Has other bounds from now on.
    pub fn bound(&mut self, limit: u64, keep: Duration) {
        if (limit, keep) != (self.limit, self.keep) {
            (self.limit, self.keep) = (limit, keep);
            self.prune();
        }
    }

    /// Writes statements down, with what earlier ones the disk has not taken before. How many had to be
    /// forgotten since it still does not: the log says once that this may be.
    pub fn write(&mut self, batch: Batch) -> u64 {
        let Batch { begun, ended, mut closed } = batch;
        self.unwritten_bytes += ended.iter().map(Ended::bytes).sum::<usize>();
        self.unwritten.extend(ended);
        let written = self.write_ended(&mut closed);
        let journaled = self.journal(begun, &closed);
        match written.and(journaled) {
            Ok(()) => {
                if self.failing {
                    info!("the history of statements can be written again");
                }
                self.failing = false;
                0
            }
            Err(error) => {
                if !self.failing {
                    let directory = self.directory.display();
                    warn!(
                        %directory, %error,
                        "the history of statements cannot be written: the last statements are kept in \
                         memory until it can be"
                    );
                }
                self.failing = true;
                (self.present.statements, self.present.profiles, self.journal) = (None, None, None);
                self.journal_bytes = MAX_JOURNAL;
                self.forget()
            }
        }
    }

    /// Whether the disk has not taken all that it was to take.
    pub fn is_behind(&self) -> bool {
        self.failing
    }

    /// What the disk has not taken yet.
    pub fn unwritten(&self) -> impl Iterator<Item = &Ended> {
        self.unwritten.iter()
    }

    /// Leaves as much in memory as may be there.
    fn forget(&mut self) -> u64 {
        let mut forgotten = 0;
        while self.unwritten_bytes > MAX_UNWRITTEN
            && let Some(ended) = self.unwritten.pop_front()
        {
            self.unwritten_bytes -= ended.bytes();
            // The journal is written anew.
            self.running.remove(&ended.id);
            forgotten += ended.statements();
        }
        forgotten
    }

    /// Adds to `closed` what the disk has.
    fn write_ended(&mut self, closed: &mut Vec<Uuid>) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            let (mut lines, mut count) = (Lines::default(), 0);
            for ended in &self.unwritten {
                lines.statements.extend_from_slice(&ended.lines);
                lines.profiles.extend_from_slice(&ended.profile);
                count += 1;
                // A segment is a part of what is kept, and a disk that is nearly full takes a part of what waits.
                let bytes = lines.bytes();
                if bytes >= WRITE || self.present.bytes + bytes >= self.limit / SEGMENTS {
                    break;
                }
            }
            self.append(lines)?;
            for ended in self.unwritten.drain(..count) {
                self.unwritten_bytes -= ended.bytes();
                closed.push(ended.id);
            }
        }
        Ok(())
    }

    /// Appends to the present segment, and begins another when that is full. All of it or nothing.
    fn append(&mut self, lines: Lines) -> io::Result<()> {
        let present = &mut self.present;
        let bytes = lines.bytes();
        let mut before = Vec::new();
        for (kind, lines, file) in [
            (STATEMENTS, lines.statements, &mut present.statements),
            (PROFILES, lines.profiles, &mut present.profiles),
        ] {
            if lines.is_empty() {
                continue;
            }
            let path = segment(present.number, kind);
            let mut write = || -> io::Result<()> {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(open(&self.directory, &path, true)?),
                };
                before.push((path.clone(), file.metadata()?.len()));
                file.write_all(&lines)
            };
            if let Err(error) = write() {
                // What is torn would take the next line with it, and what is whole is written again.
                for (path, length) in before {
                    let file = OpenOptions::new().write(true).open(self.directory.join(path));
                    let _ = file.and_then(|file| file.set_len(length));
                }
                return Err(error);
            }
        }
        present.bytes += bytes;
        if present.bytes >= self.limit / SEGMENTS {
            let number = self.present.number + 1;
            self.present = Segment { number, bytes: 0, statements: None, profiles: None };
            self.prune();
        }
        Ok(())
    }

    /// Notes which statements run.
    fn journal(&mut self, begun: Vec<Record>, ended: &[Uuid]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in begun {
            append(&mut lines, &Step::Begun(Box::new(record.clone())));
            self.running.insert(record.id, record);
        }
        for id in ended {
            // Of most nothing was written when they began.
            if !self.running.is_empty() && self.running.remove(id).is_some() {
                append(&mut lines, &Step::Ended(*id));
            }
        }
        // What has failed before is not in it yet.
        if lines.is_empty() && !self.failing {
            return Ok(());
        }
        if self.journal_bytes >= MAX_JOURNAL {
            lines.clear();
            for record in self.running.values() {
                append(&mut lines, &Step::Begun(Box::new(record.clone())));
            }
            let mut file = open(&self.directory, NEW_JOURNAL, false)?;
            file.write_all(&lines)?;
            fs::rename(self.directory.join(NEW_JOURNAL), self.directory.join(JOURNAL))?;
            (self.journal, self.journal_bytes) = (Some(file), lines.len() as u64);
            return Ok(());
        }
        let journal = match &mut self.journal {
            Some(journal) => journal,
            journal => journal.insert(open(&self.directory, JOURNAL, true)?),
        };
        journal.write_all(&lines)?;
        self.journal_bytes += lines.len() as u64;
        Ok(())
    }

    /// Removes the oldest segments, as far as all together are too large or they are too old.
    pub fn prune(&self) {
        let numbers = numbers(&self.directory);
        let size = |number: &u64| {
            let bytes = |kind| fs::metadata(self.directory.join(segment(*number, kind)));
            [STATEMENTS, PROFILES].map(|kind| bytes(kind).map_or(0, |file| file.len()))
        };
        let mut total: u64 = numbers.iter().flat_map(size).sum();
        for number in numbers.iter().filter(|number| **number < self.present.number) {
            let path = self.directory.join(segment(*number, STATEMENTS));
            let changed = fs::metadata(&path).and_then(|file| file.modified());
            let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let old = age.is_some_and(|age| age > self.keep);
            // Room for the segment that is written.
            if !old && total + self.limit / SEGMENTS <= self.limit {
                break;
            }
            total = total.saturating_sub(size(number).iter().sum());
            for kind in [STATEMENTS, PROFILES] {
                let _ = fs::remove_file(self.directory.join(segment(*number, kind)));
            }
        }
    }
}

/// Leaves nothing in a directory.
pub fn clear(directory: &Path) -> io::Result<()> {
    // Statements are what a segment is found by, so that they go last.
    let of = |number| [PROFILES, STATEMENTS].map(|kind| segment(number, kind));
    let segments = numbers(directory).into_iter().flat_map(of);
    for file in segments.chain([JOURNAL, NEW_JOURNAL].map(str::to_owned)) {
        match fs::remove_file(directory.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// All statements in a directory, by the time of their end.
pub fn read(directory: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for number in numbers(directory) {
        let text = fs::read(directory.join(segment(number, STATEMENTS))).unwrap_or_default();
        records.extend(lines::<Record>(&text));
    }
    records
}

/// The profile of a statement.
pub fn find_profile(directory: &Path, id: Uuid) -> Option<Kept> {
    let start = format!("{{\"id\":\"{id}\"");
    numbers(directory).into_iter().rev().find_map(|number| {
        let text = fs::read(directory.join(segment(number, PROFILES))).ok()?;
        let mut lines = text.split(|byte| *byte == b'\n');
        let line = lines.find(|line| line.starts_with(start.as_bytes()))?;
        serde_json::from_slice(line).ok()
    })
}

/// The statements that the journal says ran when it was written last.
fn read_journal(directory: &Path) -> Vec<Record> {
    let text = fs::read(directory.join(JOURNAL)).unwrap_or_default();
    let mut running = HashMap::new();
    for step in lines::<Step>(&text) {
        match step {
            Step::Begun(record) => drop(running.insert(record.id, *record)),
            Step::Ended(id) => drop(running.remove(&id)),
        }
    }
    if running.is_empty() {
        return Vec::new();
    }
    // The end may have been written although the journal does not say so.
    let ended: HashSet<Uuid> = read(directory).into_iter().map(|record| record.id).collect();
    let mut lost: Vec<Record> =
        running.into_values().filter(|record| !ended.contains(&record.id)).collect();
    lost.sort_by_key(|record| record.id);
    lost
}

fn open(directory: &Path, name: &str, append: bool) -> io::Result<File> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    // Texts of statements are for their roles.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut options = OpenOptions::new();
    options.create(true).append(append).write(!append).truncate(!append).mode(0o600);
    options.open(directory.join(name))
}

fn segment(number: u64, kind: &str) -> String {
    format!("{number:010}.{kind}")
}

/// The segments that are there, oldest first.
fn numbers(directory: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let number = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        let (number, kind) = name.to_str()?.split_once('.')?;
        (kind == STATEMENTS).then(|| number.parse::<u64>().ok())?
    };
    let mut numbers: Vec<u64> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::batch::{ROOM, line};
    use super::*;
    use crate::engine::observe::Profile;

    fn record(number: u128, state: State) -> Record {
        let sql = format!("SELECT {number}");
        Record { id: Uuid::from_u128(number), state, sql, ..Record::default() }
    }

    fn ended(numbers: impl IntoIterator<Item = u128>) -> Batch {
        let mut batch = Batch::default();
        for number in numbers {
            batch.end(&mut record(number, State::Finished), None);
        }
        batch
    }

    fn ids(directory: &Path) -> Vec<u128> {
        read(directory).iter().map(|record| record.id.as_u128()).collect()
    }

    const KEEP: Duration = Duration::from_secs(3600);

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        let (mut store, _) = Store::open(path.clone(), 16 * 1024, KEEP);
        for number in 0..1000 {
            store.write(ended([number]));
        }
        let kept = ids(&path);
        assert!(kept.len() < 1000 && kept.len() > 20, "{}", kept.len());
        assert_eq!(kept.last(), Some(&999));
        assert!(kept.is_sorted());
        let bytes = || -> u64 {
            numbers(&path)
                .iter()
                .map(|n| fs::metadata(path.join(segment(*n, STATEMENTS))).map_or(0, |m| m.len()))
                .sum()
        };
        assert!((12 * 1024..=17 * 1024).contains(&bytes()), "{}", bytes());
        store.bound(8 * 1024, KEEP);
        assert!(bytes() <= 9 * 1024, "{}", bytes());
        assert_eq!(ids(&path).last(), Some(&999));
        // None but the segment that is appended to.
        store.bound(8 * 1024, Duration::ZERO);
        assert!(bytes() <= 1024, "{}", bytes());
    }

    #[test]
    fn a_torn_line_spoils_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let (mut store, _) = Store::open(path.clone(), 1 << 20, KEEP);
        store.write(ended([1, 2]));
        let file = path.join(segment(1, STATEMENTS));
        let text = fs::read(&file).expect("the segment");
        fs::write(&file, &text[..text.len() - 7]).expect("torn");
        let (mut store, lost) = Store::open(path.clone(), 1 << 20, KEEP);
        assert!(lost.is_empty());
        store.write(ended([3]));
        assert_eq!(ids(&path), [1, 3]);
    }

    /// A directory that is none takes nothing.
    #[test]
    fn what_the_disk_does_not_take_is_kept_and_written_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        let (mut store, _) = Store::open(path.clone(), 64 << 20, KEEP);
        let begun = vec![record(7, State::Running)];
        assert_eq!(store.write(Batch { begun, ..ended([1]) }), 0);
        let aside = directory.path().join("aside");
        fs::rename(&path, &aside).expect("moved");
        fs::write(&path, "in the way").expect("a file");
        (store.present.statements, store.present.profiles) = (None, None);
        let profile = Profile { full: "Full\n".to_owned(), plain: "Plain\n".to_owned() };
        assert_eq!(store.write(ended([2])), 0);
        let mut with_profile = Batch::default();
        with_profile.end(&mut record(3, State::Failed), Some(profile));
        assert_eq!(store.write(with_profile), 0);
        assert!(store.is_behind());
        let kept = store.unwritten().flat_map(Ended::records).map(|record| record.id.as_u128());
        assert_eq!(kept.collect::<Vec<_>>(), [2, 3]);
        let profiles = store.unwritten().filter_map(|ended| ended.profile_of(Uuid::from_u128(3)));
        assert_eq!(profiles.map(|kept| kept.full).collect::<Vec<_>>(), ["Full\n"]);
        fs::remove_file(&path).expect("out of the way");
        fs::rename(&aside, &path).expect("back");
        assert_eq!(store.write(ended([7])), 0);
        assert!(!store.is_behind());
        assert_eq!(ids(&path), [1, 2, 3, 7]);
        assert!(find_profile(&path, Uuid::from_u128(3)).is_some());
        assert!(Store::open(path, 64 << 20, KEEP).1.is_empty());
    }

    /// Nothing has to end, or to begin, for that.
    #[test]
    fn what_had_begun_while_the_disk_took_nothing_is_journaled_when_it_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        fs::write(&path, "in the way").expect("a file");
        let (mut store, _) = Store::open(path.clone(), 64 << 20, KEEP);
        let begun = vec![record(7, State::Running)];
        store.write(Batch { begun, ..Batch::default() });
        store.write(Batch::default());
        assert!(store.is_behind(), "it is not to be said that it can be written");
        fs::remove_file(&path).expect("out of the way");
        store.write(Batch::default());
        assert!(!store.is_behind());
        drop(store);
        let (_, lost) = Store::open(path, 64 << 20, KEEP);
        assert_eq!(lost.iter().map(|record| record.id.as_u128()).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn short_ones_are_kept_and_forgotten_together() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        let (mut store, _) = Store::open(path.clone(), 64 << 20, KEEP);
        let room = |numbers: &[u128]| {
            let mut room = Ended::room(ROOM);
            for &number in numbers {
                assert!(room.add(&line(&record(number, State::Finished))));
            }
            room
        };
        let mut full = room(&[1, 2, 3]);
        assert!(!full.add(&[b' '; ROOM]));
        assert_eq!(full.statements(), 3);
        assert_eq!(store.write(Batch::new([full, room(&[4])], Vec::new())), 0);
        assert_eq!(ids(&path), [1, 2, 3, 4]);
        fs::rename(&path, directory.path().join("aside")).expect("aside");
        fs::write(&path, "in the way").expect("a file");
        let (mut store, _) = Store::open(path.clone(), 64 << 20, KEEP);
        store.write(Batch::new([room(&[5, 6])], Vec::new()));
        let kept = store.unwritten().flat_map(Ended::records).map(|record| record.id.as_u128());
        assert_eq!(kept.collect::<Vec<_>>(), [5, 6]);
        let long = || Record { sql: "x".repeat(1 << 20), ..record(7, State::Finished) };
        let forgotten = (0..16).map(|_| {
            let mut batch = Batch::default();
            batch.end(&mut long(), None);
            store.write(batch)
        });
        assert_eq!(forgotten.sum::<u64>(), 3);
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        fs::write(&path, "in the way").expect("a file");
        let (mut store, _) = Store::open(path.clone(), 64 << 20, KEEP);
        let long = |number| Record { sql: "x".repeat(1 << 20), ..record(number, State::Finished) };
        let forgotten: u64 = (1..=20)
            .map(|number| {
                let mut batch = Batch::default();
                batch.end(&mut long(number), None);
                store.write(batch)
            })
            .sum();
        assert_eq!(forgotten, 5);
        fs::remove_file(&path).expect("out of the way");
        store.write(Batch::default());
        assert_eq!(ids(&path), (6..=20).collect::<Vec<_>>());
    }

    #[test]
    fn what_had_begun_and_not_ended_is_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let (mut store, _) = Store::open(path.clone(), 1 << 20, KEEP);
        let begun = [1, 2, 3, 4].map(|number| record(number, State::Running)).to_vec();
        store.write(Batch { begun, ..Batch::default() });
        store.write(ended([2]));
        store.write(Batch::new([], vec![Uuid::from_u128(4)]));
        let (mut store, lost) = Store::open(path.clone(), 1 << 20, KEEP);
        let found: Vec<u128> = lost.iter().map(|record| record.id.as_u128()).collect();
        assert_eq!(found, [1, 3]);
        store.write(ended(found));
        assert!(Store::open(path, 1 << 20, KEEP).1.is_empty());
    }

    #[test]
    fn a_profile_is_found_by_its_statement() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let (mut store, _) = Store::open(path.clone(), 1 << 20, KEEP);
        let profile = Profile { full: "Full\n".to_owned(), plain: "Plain\n".to_owned() };
        let mut batch = Batch::default();
        batch.end(&mut record(1, State::Finished), Some(profile));
        batch.end(&mut record(2, State::Failed), None);
        store.write(batch);
        let found = find_profile(&path, Uuid::from_u128(1)).expect("the profile");
        assert_eq!(found.full, "Full\n");
        assert!(find_profile(&path, Uuid::from_u128(2)).is_none());
        assert_eq!(read(&path).iter().map(|r| r.profile).collect::<Vec<_>>(), [true, false]);
    }
}
