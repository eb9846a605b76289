//! What has ended and is not written yet, bounded: the oldest is forgotten and counted.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::sessions::SessionEntry;
use super::Record;
use super::batch::Ended;
use super::facts::Facts;

/// Statements that may wait to be written.
const WAITING: usize = 16 * 1024;

/// Pieces of [`Ended::room`]'s size that may wait likewise, full of lines.
const ROOMS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub notes: VecDeque<Note>,
    /// Statements of which all is known.
    pub lines: VecDeque<Ended>,
    pub forgotten: u64,
    /// Of these, statements whose beginning was written down. They have ended all the same.
    pub closed: Vec<Uuid>,
}

#[derive(Debug)]
pub(super) enum Note {
    /// It runs for longer than a moment.
    Begun(Box<Record>),
    Ended {
        facts: Arc<Facts>,
        session: Arc<SessionEntry>,
        at: Instant,
    },
    /// Another daemon's.
    Lost(Box<Record>),
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.lines.is_empty()
    }

    /// Returns a statement that had to be forgotten for it.
    pub fn push(&mut self, note: Note) -> Option<Arc<Facts>> {
        let first = (self.notes.len() >= WAITING).then(|| self.notes.pop_front()).flatten();
        self.notes.push_back(note);
        self.forgotten += u64::from(first.is_some());
        let Some(Note::Ended { facts, .. }) = first else { return None };
        if facts.is_journaled() {
            self.closed.push(facts.id);
        }
        Some(facts)
    }

    /// `room`: the bytes of lines that are kept together.
    pub fn push_line(&mut self, line: &[u8], room: usize) {
        if self.lines.back_mut().is_some_and(|last| last.add(line)) {
            return;
        }
        if self.lines.len() >= ROOMS
            && let Some(first) = self.lines.pop_front()
        {
            self.forgotten += first.statements();
        }
        let mut room = Ended::room(room.max(line.len()));
        room.add(line);
        self.lines.push_back(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_are_forgotten() {
        let mut queue = Queue::default();
        // Four fill a room.
        let line = vec![b' '; 16 << 10];
        for _ in 0..4 * ROOMS {
            queue.push_line(&line, 64 << 10);
        }
        assert_eq!((queue.lines.len(), queue.forgotten), (ROOMS, 0));
        queue.push_line(&line, 64 << 10);
        assert_eq!((queue.lines.len(), queue.forgotten), (ROOMS, 4));
        let kept: u64 = queue.lines.iter().map(Ended::statements).sum();
        assert_eq!(kept, 4 * ROOMS as u64 - 3);
    }
}
