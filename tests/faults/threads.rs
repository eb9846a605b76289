//! A bound on the threads of a process, by a control group of its own: limits of users (`RLIMIT_NPROC`) do
//! not count for root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where groups that bound threads are: the first version's, or the second's.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

/// How often it is tried to remove a group, which its last process may be about to leave.
const TRIES: usize = 100;

fn root() -> Option<PathBuf> {
    let bounds = |root: &str| {
        let kinds = fs::read_to_string(format!("{root}/cgroup.controllers"));
        Path::new(root).join("cgroup.procs").exists()
            && kinds.map_or(root.ends_with("pids"), |kinds| kinds.contains("pids"))
    };
    ROOTS.into_iter().find(|root| bounds(root)).map(PathBuf::from)
}

/// The group that a process is in.
fn group_of(root: &Path, pid: u32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let first = root.ends_with("pids");
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let kinds = fields.next()?;
        let is_it =
            if first { kinds.split(',').any(|kind| kind == "pids") } else { kinds.is_empty() };
        is_it.then(|| fields.next())?
    });
    Some(root.join(group?.trim_start_matches('/')))
}

/// As long as there is one, a process cannot have more threads.
pub struct Bound {
    group: PathBuf,
    /// Where the process was before.
    former: PathBuf,
}

impl Bound {
    /// Lets a process have so many threads more than it has; none if that cannot be done here.
    pub fn set(pid: u32, more: usize) -> Option<Self> {
        let root = root()?;
        let former = group_of(&root, pid)?;
        let group = root.join(format!("oribi-faults-{}-{pid}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let bound = Self { group, former };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        let limit = (threads + more).to_string();
        fs::write(bound.group.join("pids.max"), limit).ok()?;
        fs::write(bound.group.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(bound)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            let inside = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            for pid in inside.lines() {
                // It may have ended.
                drop(fs::write(self.former.join("cgroup.procs"), pid));
            }
            if fs::remove_dir(&self.group).is_ok() || !self.group.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left", self.group.display());
    }
}

#[test]
fn a_bound_goes_and_leaves_the_process_where_it_was() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts");
    let (pid, place) = (child.id(), || group_of(&root()?, child.id()));
    let before = place();
    match Bound::set(pid, 1) {
        Some(bound) => {
            let group = bound.group.clone();
            assert_eq!(place(), Some(group.clone()));
            assert_eq!(fs::read_to_string(group.join("pids.max")).expect("it").trim(), "2");
            drop(bound);
            assert!(!group.exists());
            assert_eq!(place(), before);
        }
        None => println!("no control groups for threads here"),
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
}
