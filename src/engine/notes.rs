//! What a session's statements say to listeners, and to which channels it listens.
//!
//! `pg_notify` runs on the engine's threads, where the session is out of reach: what it says is noted
//! here, and taken by the session when the statement is complete.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of a payload, and a zero byte at its end: PostgreSQL's `NOTIFY_PAYLOAD_MAX_LENGTH`.
const MAX_PAYLOAD: usize = 8000;

/// Bytes of a channel's name, as of any other (`max_identifier_length`).
const MAX_NAME: usize = 255;

/// The channels that tell of the cluster itself: only the daemons notify there.
pub const FED: &[&str] = &["catalog", "members", "queries", "settings"];

/// Why something cannot be said, in PostgreSQL's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("channel name cannot be empty")]
    NoName,
    #[error("channel name too long")]
    LongName,
    #[error("payload string too long")]
    LongPayload,
    #[error("the channel \"{0}\" tells of the cluster itself: nobody else can notify there")]
    Reserved(String),
    #[error("too many notifications in the NOTIFY queue: daemon \"{0}\" does not take them")]
    Full(String),
}

/// Checks a channel's name.
pub fn check_channel(channel: &str) -> Result<(), Error> {
    match channel.len() {
        0 => Err(Error::NoName),
        1..=MAX_NAME => Ok(()),
        _ => Err(Error::LongName),
    }
}

/// Checks what a session wants to say.
pub fn check(channel: &str, payload: &str) -> Result<(), Error> {
    check_channel(channel)?;
    match payload.len() < MAX_PAYLOAD {
        _ if FED.contains(&channel) => Err(Error::Reserved(channel.to_owned())),
        true => Ok(()),
        false => Err(Error::LongPayload),
    }
}

/// One session's.
#[derive(Debug, Default)]
pub struct Notes {
    said: Mutex<Vec<(String, String)>>,
    /// Whether there are any, told without the lock.
    any: AtomicBool,
    channels: Mutex<BTreeSet<String>>,
}

impl Notes {
    /// Notes a channel and what a statement says there.
    pub fn note(&self, channel: &str, payload: &str) -> Result<(), Error> {
        check(channel, payload)?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push((channel.to_owned(), payload.to_owned()));
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// What was noted, to be said or forgotten.
    pub fn take(&self) -> Vec<(String, String)> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// To which channels the session listens, by name.
    pub fn channels(&self) -> BTreeSet<String> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Listens to a channel; false if it does so already.
    pub fn add(&self, channel: &str) -> bool {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.insert(channel.to_owned())
    }

    /// Listens no more to a channel, or to none at all; returns to which it has listened.
    pub fn remove(&self, channel: Option<&str>) -> BTreeSet<String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        match channel {
            Some(channel) => channels.take(channel).into_iter().collect(),
            None => std::mem::take(&mut channels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_said_is_refused() {
        let (long, longest) = ("x".repeat(8000), "x".repeat(7999));
        for (channel, payload, expected) in [
            ("c", "", Ok(())),
            ("c", longest.as_str(), Ok(())),
            ("c", long.as_str(), Err(Error::LongPayload)),
            ("", "", Err(Error::NoName)),
            (&long[..256], "", Err(Error::LongName)),
            (&long[..255], "", Ok(())),
            ("members", "", Err(Error::Reserved("members".to_owned()))),
        ] {
            assert_eq!(Notes::default().note(channel, payload), expected);
        }
    }

    #[test]
    fn what_was_said_is_taken_once() {
        let notes = Notes::default();
        notes.note("a", "1").expect("valid");
        assert_eq!(notes.take(), [("a".to_owned(), "1".to_owned())]);
        assert!(notes.take().is_empty());
        assert!(notes.add("a") && !notes.add("a"));
        assert_eq!(notes.remove(Some("b")).len() + notes.remove(None).len(), 1);
        assert!(notes.channels().is_empty());
    }
}
