//! Watches whether there is room where this daemon writes: what cannot be written fails by itself, with
//! 53100; this is for those who look at the daemon and not at its statements.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustix::fs::statvfs;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::{Lack, Membership};

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

/// Tells the daemon's membership what there is no room for, until `end`.
pub(super) async fn watch(membership: Arc<Membership>, places: Vec<Place>, end: CancellationToken) {
    let mut full: Vec<PathBuf> = Vec::new();
    loop {
        let (looked_at, were) = (places.clone(), full.clone());
        // A file system of the network may let one wait.
        let looked = tokio::task::spawn_blocking(move || {
            let is_full = |(_, place): &Place| {
                free(place).is_some_and(|free| is_too_little(free, were.contains(place)))
            };
            looked_at.into_iter().filter(is_full).collect::<Vec<_>>()
        });
        let found = tokio::select! {
            () = end.cancelled() => return,
            found = looked => found.unwrap_or_default(),
        };
        full = found.iter().map(|(_, place)| place.clone()).collect();
        let lack = found.into_iter().next().map(|(what, place)| Lack { what, place });
        match (membership.lack(), &lack) {
            (known, Some(lack)) if known.as_ref() != Some(lack) => warn!("{lack}"),
            (Some(known), None) => info!("there is room for the {} again", known.what),
            _ => {}
        }
        membership.note_lack(lack);
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// Bytes that are left where a place is. None is known of one that cannot be looked at.
fn free(place: &Path) -> Option<u64> {
    let existing = place.ancestors().find(|place| place.is_dir())?;
    let disk = statvfs(existing).ok()?;
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
    fn a_disk_that_was_full_needs_more_than_the_least() {
        let told = |free, was| is_too_little(free, was);
        assert!(told(LEAST - 1, false) && !told(LEAST, false));
        assert!(told(LEAST, true) && told(ENOUGH - 1, true) && !told(ENOUGH, true));
    }
}
