//! Files that hold secrets: keys, passwords.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The mode bits that let everybody in.
const OTHERS: u32 = 0o007;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is open to all users of this machine: take their rights away (chmod o= {0})")]
    Open(PathBuf),
}

/// Whether everybody may read a file, or change it.
pub fn is_open(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & OTHERS != 0)
}

/// Reads a file, unless everybody may: then what it holds is no secret any more.
pub fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(Error::Open(path.to_owned()));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn what_everybody_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        write(&path, "s3cret").expect("written");
        for (mode, good) in [(0o600, true), (0o440, true), (0o644, false), (0o601, false)] {
            set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
            assert_eq!(is_open(&path).expect("there"), !good, "{mode:o}");
            match read(&path) {
                Ok(text) => assert!(good && text == "s3cret", "{mode:o}"),
                Err(error) => assert!(!good && error.to_string().contains("chmod"), "{mode:o}"),
            }
        }
        assert!(matches!(read(Path::new("/nowhere")), Err(Error::Read { .. })));
    }
}
