//! Watches whether there is room where this daemon writes: what cannot be written fails by itself, with
//! 53100; this is for those who look at the daemon and not at its statements.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::{Lack, Membership};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

/// Bytes with which a disk counts as full: a small INSERT may need as much.
const LEAST: u64 = 1 << 20;

/// What lies somewhere, and where that is.
type Place = (&'static str, PathBuf);

/// The directories on disks of this machine that a daemon writes to.
pub(super) fn places(data_dir: &Path, warehouse: Option<&str>, spill: PathBuf) -> Vec<Place> {
    let warehouse = warehouse.and_then(|url| url.strip_prefix("file://")).map(PathBuf::from);
    let own = [("data directory", data_dir.to_owned()), ("temporary files", spill)];
    warehouse.map(|path| ("warehouse", path)).into_iter().chain(own).collect()
}

/// Tells the daemon's membership what there is no room for, until `end`.
pub(super) async fn watch(membership: Arc<Membership>, places: Vec<Place>, end: CancellationToken) {
    loop {
        let looked_at = places.clone();
        // A file system of the network may let one wait.
        let looked = tokio::task::spawn_blocking(move || looked_at.into_iter().find(is_full));
        let found = tokio::select! {
            () = end.cancelled() => return,
            found = looked => found.unwrap_or_default(),
        };
        let lack = found.map(|(what, place)| Lack { what, place });
        let known = membership.lack();
        match (&known, &lack) {
            (None, Some(lack)) => warn!("{lack}"),
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

/// One that cannot be looked at is not known to be.
fn is_full((_, place): &Place) -> bool {
    let existing = place.ancestors().find(|place| place.is_dir());
    let found = existing.and_then(|place| statvfs(place).ok());
    // Some file systems do not say how large they are.
    found.is_some_and(|disk| {
        disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST
    })
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
        assert!(!is_full(&("nothing", PathBuf::from("/proc"))));
    }
}
