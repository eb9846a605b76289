//! Bytes that have arrived and were not taken yet.

use super::error::Fault;

#[derive(Debug, Default)]
pub(super) struct Input {
    data: Vec<u8>,
    /// What was taken.
    at: usize,
    /// How far it is good: UTF-8 without zeros, where text is wanted.
    good: usize,
    /// What follows the good part is bad, whatever else arrives.
    bad: bool,
    is_text: bool,
    /// Nothing more comes.
    ended: bool,
    /// Nothing more is wanted.
    closed: bool,
}

impl Input {
    pub fn new(is_text: bool) -> Self {
        Self { is_text, ..Self::default() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.bad || self.closed {
            return;
        }
        if self.at > 0 {
            self.data.drain(..self.at);
            self.good -= self.at;
            self.at = 0;
        }
        self.data.extend_from_slice(bytes);
        self.check();
    }

    fn check(&mut self) {
        if !self.is_text {
            self.good = self.data.len();
            return;
        }
        let fresh = &self.data[self.good..];
        let (mut good, mut bad) = match std::str::from_utf8(fresh) {
            Ok(_) => (fresh.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_some()),
        };
        if let Some(zero) = memchr_zero(&fresh[..good]) {
            (good, bad) = (zero, true);
        }
        self.good += good;
        self.bad = bad;
    }

    /// No more bytes come.
    pub fn end(&mut self) {
        self.ended = true;
        self.bad |= self.good < self.data.len();
    }

    /// The bytes that can be read.
    pub fn rest(&self) -> &[u8] {
        &self.data[self.at..self.good]
    }

    /// What is wrong behind them.
    pub fn fault(&self) -> Option<Fault> {
        self.bad.then(|| Fault::encoding(&self.data[self.good..]))
    }

    /// Whether nothing follows them.
    pub fn is_last(&self) -> bool {
        self.ended && !self.bad
    }

    pub fn take(&mut self, length: usize) {
        self.at = (self.at + length).min(self.good);
    }

    /// Forgets what is there, and what comes.
    pub fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }
}

fn memchr_zero(bytes: &[u8]) -> Option<usize> {
    // Looking for whether there is one is far faster than for where.
    if !bytes.contains(&0) {
        return None;
    }
    bytes.iter().position(|byte| *byte == 0)
}
