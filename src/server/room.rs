//! Watches whether this daemon can write where it is to, and has room there: what cannot be written fails by
//! itself, with 53100 or 42501; this is for those who look at the daemon and not at its statements.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::{Lack, Lacking, Membership};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

/// Bytes with which a disk counts as full: a small INSERT may need as much.
const LEAST: u64 = 1 << 20;

/// Bytes from which on one that was full is so no more: what comes and goes around the least is not to make
/// the daemon come and go with it.
const ENOUGH: u64 = 2 << 20;

/// What lies somewhere, and where that is.
type Place = (&'static str, PathBuf);

/// The directories on disks of this machine that a daemon writes to.
pub(super) fn places(data_dir: &Path, warehouse: Option<&str>, spill: PathBuf) -> Vec<Place> {
    let path = warehouse.and_then(|url| url.strip_prefix("file://"));
    let warehouse = path.map(|path| {
        let bytes: Vec<u8> = percent_decode_str(path).collect();
        PathBuf::from(OsString::from_vec(bytes))
    });
    let own = [("data directory", data_dir.to_owned()), ("temporary files", spill)];
    warehouse.map(|path| ("warehouse", path)).into_iter().chain(own).collect()
}

/// Tells the daemon's membership what cannot be written to, until `end`.
pub(super) async fn watch(membership: Arc<Membership>, places: Vec<Place>, end: CancellationToken) {
    let mut full: Vec<PathBuf> = Vec::new();
    loop {
        let (looked_at, were) = (places.clone(), full.clone());
        // A file system of the network may let one wait.
        let looked = tokio::task::spawn_blocking(move || {
            let lacks = |(what, place): Place| {
                let of = lacking(&place, were.contains(&place))?;
                Some(Lack { of, what, place })
            };
            apart(looked_at.into_iter().filter_map(lacks).collect())
        });
        let found = tokio::select! {
            () = end.cancelled() => return,
            found = looked => found.unwrap_or_default(),
        };
        let is_full = |lack: &&Lack| lack.of == Lacking::Room;
        full = found.iter().filter(is_full).map(|lack| lack.place.clone()).collect();
        let known = membership.lacks();
        for lack in found.iter().filter(|lack| !known.contains(lack)) {
            warn!("{lack}; until then tables can be read, and what has to be written there fails");
        }
        let still = |lack: &Lack| found.iter().any(|other| other.what == lack.what);
        for Lack { of, what, .. } in known.iter().filter(|lack| !still(lack)) {
            match of {
                Lacking::Room => info!("there is room for the {what} again"),
                Lacking::Writable | Lacking::Rights => info!("the {what} can be written to again"),
            }
        }
        membership.note_lacks(found);
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// Without those that lie within another that lacks the same.
fn apart(mut lacks: Vec<Lack>) -> Vec<Lack> {
    let all = lacks.clone();
    lacks.retain(|lack| {
        let around = |other: &Lack| {
            other.of == lack.of && other.place != lack.place && lack.place.starts_with(&other.place)
        };
        !all.iter().any(around)
    });
    lacks
}

/// What it takes to write to a place, and is not there. Of one that cannot be looked at nothing is known.
fn lacking(place: &Path, was_full: bool) -> Option<Lacking> {
    let existing = place.ancestors().find(|place| place.is_dir())?;
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Err(Errno::ROFS) => return Some(Lacking::Writable),
        Err(Errno::ACCESS | Errno::PERM) => return Some(Lacking::Rights),
        Ok(()) | Err(_) => {}
    }
    free(existing).filter(|free| is_too_little(*free, was_full)).map(|_| Lacking::Room)
}

/// Bytes that are left on a directory's disk.
fn free(directory: &Path) -> Option<u64> {
    let disk = statvfs(directory).ok()?;
    // Some file systems do not say how large they are.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn is_too_little(free: u64, was: bool) -> bool {
    free < if was { ENOUGH } else { LEAST }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_no_disks() {
        let of = |warehouse| places(Path::new("/d"), warehouse, PathBuf::from("/s"));
        let names =
            |places: Vec<Place>| places.into_iter().map(|(what, _)| what).collect::<Vec<_>>();
        assert_eq!(names(of(Some("s3://bucket/w"))), ["data directory", "temporary files"]);
        let with = of(Some("file:///w"));
        assert_eq!(with[0], ("warehouse", PathBuf::from("/w")));
        let escaped = of(Some("file:///a%20b/%C3%A4"));
        assert_eq!(escaped[0].1, PathBuf::from("/a b/ä"));
        assert_eq!(free(Path::new("/proc")), None);
    }

    #[test]
    fn what_lies_within_another_is_told_of_with_it() {
        let lack = |what, place: &str, of| Lack { of, what, place: PathBuf::from(place) };
        let data = lack("data directory", "/d", Lacking::Room);
        let found = vec![
            lack("warehouse", "/d/warehouse", Lacking::Room),
            data.clone(),
            lack("temporary files", "/d/spill", Lacking::Room),
        ];
        assert_eq!(apart(found), std::slice::from_ref(&data));
        for other in [
            lack("warehouse", "/d/warehouse", Lacking::Writable),
            lack("warehouse", "/w", Lacking::Room),
        ] {
            assert_eq!(apart(vec![other.clone(), data.clone()]), [other, data.clone()]);
        }
    }

    #[test]
    fn a_disk_that_was_full_needs_more_than_the_least() {
        let told = |free, was| is_too_little(free, was);
        assert!(told(LEAST - 1, false) && !told(LEAST, false));
        assert!(told(LEAST, true) && told(ENOUGH - 1, true) && !told(ENOUGH, true));
    }
}
