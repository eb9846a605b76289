//! Tells the binary what it was built from: daemons work together only with their like.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The commit, where there is a repository.
fn commit() -> Option<String> {
    // The branch's log changes with each commit, whatever else does.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    println!("cargo:rerun-if-changed={log}");
    Some(commit)
}

/// A hash of all sources, for a build from an archive or in a container.
fn sources() -> io::Result<String> {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let mut files = vec![PathBuf::from("Cargo.lock")];
    collect(Path::new("src"), &mut files)?;
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        (&file, fs::read(&file)?).hash(&mut hash);
    }
    Ok(format!("src-{:012x}", hash.finish() >> 16))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=src/build.rs");
    let build = match commit() {
        Some(commit) => commit,
        None => sources()?,
    };
    println!("cargo:rustc-env=ORIBI_BUILD={build}");
    Ok(())
}
