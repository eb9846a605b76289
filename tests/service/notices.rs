//! What a daemon tells systemd (sd_notify), received in its place.

use std::cell::Cell;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::daemon::PATIENCE;

pub struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
    /// Of the message that was looked at last.
    rest: Cell<Option<String>>,
}

impl Notices {
    /// Listens in a directory; what is the daemon's `NOTIFY_SOCKET` is [`Self::path`].
    pub fn listen(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, path, rest: Cell::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message within a time, if there is one.
    pub fn next(&self, patience: Duration) -> Option<String> {
        if let Some(rest) = self.rest.take() {
            return Some(rest);
        }
        self.socket.set_read_timeout(Some(patience)).expect("a time-out");
        let mut message = [0; 8192];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Waits for a message in which a line contains a text, and returns that line. Its others are a message
    /// that comes next: what is told at once is told in any order.
    pub fn wait(&self, text: &str) -> String {
        let mut before = Vec::new();
        while let Some(message) = self.next(PATIENCE) {
            let mut lines: Vec<&str> = message.lines().collect();
            if let Some(found) = lines.iter().position(|line| line.contains(text)) {
                let line = lines.remove(found).to_owned();
                self.rest.replace((!lines.is_empty()).then(|| lines.join("\n")));
                return line;
            }
            before.push(message);
        }
        panic!("{text} was not told, only {before:?}");
    }

    /// What was told and not looked at yet.
    pub fn so_far(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(Duration::from_millis(1))).collect()
    }
}
