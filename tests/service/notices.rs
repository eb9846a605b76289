//! What a daemon tells systemd (sd_notify), received in its place.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::daemon::PATIENCE;

pub struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notices {
    /// Listens in a directory; what is the daemon's `NOTIFY_SOCKET` is [`Self::path`].
    pub fn listen(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message within a time, if there is one.
    pub fn next(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).expect("a time-out");
        let mut message = [0; 8192];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Waits for a message in which a line contains a text, and returns that line.
    pub fn wait(&self, text: &str) -> String {
        let mut before = Vec::new();
        while let Some(message) = self.next(PATIENCE) {
            if let Some(line) = message.lines().find(|line| line.contains(text)) {
                return line.to_owned();
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
