//! Statements on their way into the history's files.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Record;
use crate::engine::observe::Profile;

/// Into how many segments the history is cut, about.
pub(super) const SEGMENTS: u64 = 16;

/// Bytes that a statement takes in memory beside its lines, about.
const STATEMENT: usize = 100;

/// Bytes of the lines of short statements that are kept together.
pub(super) const ROOM: usize = 64 << 10;

/// A profile as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: Uuid,
    pub user: String,
    #[serde(default)]
    pub owner: Option<u32>,
    pub full: String,
    pub plain: String,
}

/// What is written together.
#[derive(Debug, Default)]
pub struct Batch {
    pub begun: Vec<Record>,
    pub(super) ended: Vec<Ended>,
    /// Statements that have ended, of which nothing else is known.
    pub(super) closed: Vec<Uuid>,
}

impl Batch {
    pub fn new(ended: impl Into<Vec<Ended>>, closed: Vec<Uuid>) -> Self {
        let mut ended = ended.into();
        // It may wait for long in memory.
        ended.iter_mut().for_each(|ended: &mut Ended| ended.lines.shrink_to_fit());
        Self { begun: Vec::new(), ended, closed }
    }

    /// Adds a statement that has ended.
    pub fn end(&mut self, record: &mut Record, profile: Option<Profile>) {
        record.profile = profile.is_some();
        let kept = profile.map(|Profile { full, plain }| {
            let Record { id, ref user, owner, .. } = *record;
            Kept { id, user: user.clone(), owner, full, plain }
        });
        let profile = kept.map(|kept| line(&kept)).unwrap_or_default();
        self.ended.push(Ended { id: record.id, statements: 1, lines: line(record), profile });
    }
}

/// Statements that have ended, as they are written: one, or several that were short.
#[derive(Debug, Default)]
pub struct Ended {
    /// Of one whose beginning may have been written, or that has a profile.
    pub(super) id: Uuid,
    statements: u64,
    pub(super) lines: Vec<u8>,
    pub(super) profile: Vec<u8>,
}

impl Ended {
    /// A place for so many bytes of short ones.
    pub fn room(bytes: usize) -> Self {
        Self { lines: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Bytes of such a place in a history of a size: a small part of a segment. 0 if there is no history.
    pub fn room_in(size: u64) -> usize {
        let part = usize::try_from(size / SEGMENTS / 4).unwrap_or(usize::MAX);
        part.clamp(usize::from(size > 0), ROOM)
    }

    /// Adds one, if there is room for it.
    pub fn add(&mut self, line: &[u8]) -> bool {
        let fits = self.id.is_nil() && line.len() <= self.lines.capacity() - self.lines.len();
        if fits {
            self.lines.extend_from_slice(line);
            self.statements += 1;
        }
        fits
    }

    pub fn statements(&self) -> u64 {
        self.statements
    }

    pub fn records(&self) -> impl Iterator<Item = Record> {
        lines(&self.lines)
    }

    /// If this is the statement and its profile is kept.
    pub fn profile_of(&self, id: Uuid) -> Option<Kept> {
        (self.id == id).then(|| serde_json::from_slice(&self.profile).ok())?
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        STATEMENT + self.lines.capacity() + self.profile.len()
    }
}

pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::new();
    append(&mut line, value);
    line.shrink_to_fit();
    line
}

pub(super) fn lines<'a, T: Deserialize<'a>>(
    text: &'a [u8],
) -> impl Iterator<Item = T> + use<'a, T> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// A line more, unless it cannot be one.
pub(super) fn append(lines: &mut Vec<u8>, value: &impl Serialize) {
    let before = lines.len();
    match serde_json::to_writer(&mut *lines, value) {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(before),
    }
}
