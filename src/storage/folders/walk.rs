//! Directories of local files, listed with as little as that takes: one look at each file, by its name in a
//! directory that is open.

use std::ffi::{CStr, CString};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use chrono::DateTime;
use object_store::ObjectMeta;
use object_store::path::Path;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat, statfs};
use rustix::io::Errno;

/// Directories within one another.
const MAX_DEPTH: usize = 32;

/// Files together; what lists more gives them out while it goes on.
const MAX_FILES: usize = 200_000;

/// Files of one directory that are worth a thread.
const FILES_OF_THREAD: usize = 1000;

const MAX_THREADS: usize = 4;

/// The numbers of file systems on disks and in memory, from Linux' `magic.h`: btrfs, ext, f2fs, overlayfs,
/// tmpfs, XFS, and ZFS'.
const LOCAL: [u32; 7] =
    [0x9123_683e, 0xef53, 0xf2f5_2010, 0x794c_7630, 0x0102_1994, 0x5846_5342, 0x2fc1_2fc1];

/// Something is there that another has to look at: a link, a name that is no plain text, a failure.
#[derive(Debug)]
pub struct Unusual;

/// The files in a directory and in those below, in any order, as [`LocalFileSystem`] would describe them.
/// No link is followed below the directory itself.
///
/// [`LocalFileSystem`]: object_store::local::LocalFileSystem
pub fn files_below(directory: &Path) -> Result<Vec<ObjectMeta>, Unusual> {
    files(directory, MAX_DEPTH, MAX_FILES)
}

/// The files in a directory that has no directories, for which another file system may be mounted, and not
/// more files than these.
pub fn few_files_in(directory: &Path, most: usize) -> Result<Vec<ObjectMeta>, Unusual> {
    files(directory, 0, most)
}

fn files(directory: &Path, depth: usize, most: usize) -> Result<Vec<ObjectMeta>, Unusual> {
    if directory.as_ref().is_empty() {
        return Err(Unusual);
    }
    let path = format!("/{directory}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, path.as_str(), flags, Mode::empty()).map_err(|_| Unusual)?;
    let mut found = Vec::new();
    gather(opened.as_fd(), directory.as_ref(), (depth, most), &mut found)?;
    Ok(found)
}

/// A single file.
pub fn file(place: &Path) -> Result<ObjectMeta, Unusual> {
    let file = statat(CWD, format!("/{place}"), AtFlags::SYMLINK_NOFOLLOW).map_err(|_| Unusual)?;
    let is_staged = place.as_ref().contains(['#', '\\']);
    if is_staged || FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
        return Err(Unusual);
    }
    meta(&file, place.to_string())
}

/// Whether a place is in a file system of this machine, which answers at once.
pub fn is_nearby(place: &Path) -> bool {
    statfs(format!("/{place}")).is_ok_and(|system| LOCAL.contains(&(system.f_type as u32)))
}

fn gather(
    directory: BorrowedFd,
    path: &str,
    (depth, most): (usize, usize),
    found: &mut Vec<ObjectMeta>,
) -> Result<(), Unusual> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for entry in Dir::read_from(directory).map_err(|_| Unusual)? {
        let entry = entry.map_err(|_| Unusual)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match entry.file_type() {
            FileType::RegularFile => files.push(name.to_owned()),
            FileType::Directory => directories.push(name.to_owned()),
            FileType::Symlink | FileType::Unknown => return Err(Unusual),
            _ => {}
        }
        if found.len() + files.len() > most {
            return Err(Unusual);
        }
    }
    describe_all(directory, path, &files, found)?;
    for name in directories {
        let depth = depth.checked_sub(1).ok_or(Unusual)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = match openat(directory, &name, flags, Mode::empty()) {
            Ok(below) => below,
            Err(Errno::NOENT) => continue,
            Err(_) => return Err(Unusual),
        };
        gather(below.as_fd(), &format!("{path}/{}", plain(&name)?), (depth, most), found)?;
    }
    Ok(())
}

/// Looks at files of one directory, on several threads if they are many: nearly all of the time goes into
/// the calls for their size and time of change.
fn describe_all(
    directory: BorrowedFd,
    path: &str,
    names: &[CString],
    found: &mut Vec<ObjectMeta>,
) -> Result<(), Unusual> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = (names.len() / FILES_OF_THREAD).clamp(1, cores.min(MAX_THREADS));
    let describe = |names: &[CString]| -> Result<Vec<ObjectMeta>, Unusual> {
        names.iter().filter_map(|name| describe(directory, path, name).transpose()).collect()
    };
    let (own, others) = names.split_at(names.len().div_ceil(threads));
    let parts = thread::scope(|scope| {
        let others: Vec<_> = (others.chunks(own.len().max(1)))
            .map(|names| scope.spawn(move || describe(names)))
            .collect();
        let own = describe(own);
        let others = others.into_iter().map(|part| part.join().unwrap_or(Err(Unusual)));
        std::iter::once(own).chain(others).collect::<Vec<_>>()
    });
    for part in parts {
        found.extend(part?);
    }
    Ok(())
}

/// A file; `None` if it is gone.
fn describe(directory: BorrowedFd, path: &str, name: &CStr) -> Result<Option<ObjectMeta>, Unusual> {
    let file = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(_) => return Err(Unusual),
    };
    if FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
        return Err(Unusual);
    }
    meta(&file, format!("{path}/{}", plain(name)?)).map(Some)
}

fn meta(file: &Stat, path: String) -> Result<ObjectMeta, Unusual> {
    let size = u64::try_from(file.st_size).map_err(|_| Unusual)?;
    let nanoseconds = u32::try_from(file.st_mtime_nsec).map_err(|_| Unusual)?;
    let last_modified = DateTime::from_timestamp(file.st_mtime, nanoseconds).ok_or(Unusual)?;
    let microseconds = last_modified.timestamp_micros().max(0);
    Ok(ObjectMeta {
        location: Path::parse(path).map_err(|_| Unusual)?,
        last_modified,
        size,
        e_tag: Some(format!("{:x}-{microseconds:x}-{size:x}", file.st_ino)),
        version: None,
    })
}

/// A name that stands in a path as it is. With `#` and digits at their end are files that are being written.
fn plain(name: &CStr) -> Result<&str, Unusual> {
    let name = name.to_str().map_err(|_| Unusual)?;
    match name.contains(['#', '\\']) {
        true => Err(Unusual),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use futures::TryStreamExt;
    use object_store::ObjectStore;
    use object_store::local::LocalFileSystem;

    use super::*;

    fn sorted(mut files: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
        files.sort_by(|a, b| a.location.cmp(&b.location));
        files
    }

    #[tokio::test]
    async fn files_are_described_as_the_store_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Path::from_absolute_path(directory.path()).expect("a path");
        let listed = async || {
            let listed = LocalFileSystem::new().list(Some(&place)).try_collect().await;
            sorted(listed.expect("a listing"))
        };
        let write = |name: &str, bytes: usize| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, vec![b'x'; bytes]).expect("a file");
        };
        assert_eq!(files_below(&place).expect("plain"), []);
        for name in
            ["a.parquet", "b c.parquet", "ä.parquet", "x%20y", "_SUCCESS", "k=1/k=2%2F/z", ".h/i"]
        {
            write(name, name.len());
        }
        // Enough of them for several threads.
        (0..2500).for_each(|n| write(&format!("many/{n}"), n % 7));
        for (name, time) in [
            ("a.parquet", SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_891)),
            ("_SUCCESS", SystemTime::UNIX_EPOCH - Duration::from_millis(1500)),
        ] {
            let file = File::options().write(true).open(directory.path().join(name));
            file.expect("a file").set_modified(time).expect("its time");
        }
        fs::create_dir(directory.path().join("empty")).expect("a directory");
        let found = sorted(files_below(&place).expect("plain"));
        assert_eq!(found.len(), 2507);
        assert_eq!(found, listed().await);
        for known in found {
            assert_eq!(file(&known.location).expect("plain"), known);
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_store() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Path::from_absolute_path(directory.path()).expect("a path");
        fs::create_dir(directory.path().join("below")).expect("a directory");
        let link = directory.path().join("below/link");
        for target in ["/etc/passwd", "/etc", "/nowhere"] {
            std::os::unix::fs::symlink(target, &link).expect("a link");
            assert!(files_below(&place).is_err(), "{target}");
            fs::remove_file(&link).expect("removed");
            assert!(files_below(&place).is_ok());
        }
        let staged = directory.path().join("below/a.parquet#1");
        fs::write(&staged, "x").expect("a file");
        assert!(files_below(&place).is_err());
        assert!(files_below(&place.clone().join("nowhere")).is_err());
        assert!(file(&place.clone().join("below/a.parquet#1")).is_err());
        assert!(file(&place.clone().join("nowhere")).is_err());
        assert!(file(&place.clone().join("below")).is_err());
        std::os::unix::fs::symlink(&staged, &link).expect("a link");
        assert!(file(&place.clone().join("below/link")).is_err());
    }
}
