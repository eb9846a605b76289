//! A bound on the threads of a process, by a control group of its own: limits of users (`RLIMIT_NPROC`) do
//! not count for root.

use std::fs;
use std::path::{Path, PathBuf};

/// Where groups that bound threads are: the first version's, or the second's.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

fn root() -> Option<PathBuf> {
    let bounds = |root: &str| {
        let kinds = fs::read_to_string(format!("{root}/cgroup.controllers"));
        Path::new(root).join("cgroup.procs").exists()
            && kinds.map_or(root.ends_with("pids"), |kinds| kinds.contains("pids"))
    };
    ROOTS.into_iter().find(|root| bounds(root)).map(PathBuf::from)
}

/// The group of a daemon by its number.
fn group(root: &Path, daemon: usize) -> PathBuf {
    root.join(format!("oribi-faults-{}-{daemon}", std::process::id()))
}

/// Lets a daemon have so many threads more than it has; false if that cannot be done here.
pub fn bound(daemon: usize, pid: u32, more: usize) -> bool {
    let Some(root) = root() else { return false };
    let group = group(&root, daemon);
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let set = || {
        fs::create_dir(&group)?;
        fs::write(group.join("pids.max"), (threads + more).to_string())?;
        fs::write(group.join("cgroup.procs"), pid.to_string())
    };
    let set = set().is_ok();
    if !set {
        free(daemon);
    }
    set
}

/// Takes the bound away, from whatever is left of that daemon.
pub fn free(daemon: usize) {
    let Some(root) = root() else { return };
    let group = group(&root, daemon);
    let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines() {
        let _ = fs::write(root.join("cgroup.procs"), pid);
    }
    let _ = fs::remove_dir(&group);
}
