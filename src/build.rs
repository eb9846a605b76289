//! Tells the binary what it was built from: daemons work together only with their like.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The commit, where there is a repository of these sources.
fn commit() -> Option<String> {
    // Another's may be around them.
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?) != env::current_dir().ok()? {
        return None;
    }
    // The branch's log changes with each commit, whatever else does.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    println!("cargo:rerun-if-changed={log}");
    Some(commit)
}

/// A hash of all sources, for a build from an archive or in a container.
fn sources() -> io::Result<String> {
    println!("cargo:rerun-if-changed=src");
    let mut files = vec![PathBuf::from("Cargo.lock"), PathBuf::from("Cargo.toml")];
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
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
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.is_file() {
            files.push(path);
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
