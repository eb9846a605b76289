//! What several test files share. Each file uses a part of it.
#![allow(dead_code)]

pub mod certificates;
pub mod daemon;
pub mod link;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod zookeeper;

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Returns once all threads of a process have stopped (SIGSTOP), which a busy machine does not do at once.
pub fn await_stop(pid: u32) {
    let threads = format!("/proc/{pid}/task");
    let stopped = |thread: io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(thread.expect("a thread").path().join("stat"));
        // The state stands behind the name, which is in brackets.
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    };
    let began = Instant::now();
    while !fs::read_dir(&threads).expect("its threads").all(stopped) {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not stop");
        sleep(Duration::from_millis(1));
    }
}
