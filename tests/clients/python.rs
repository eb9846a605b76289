//! The Python that runs the tests' scripts.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python that `ORIBI_TEST_PYTHON` names, or `python3`, if it has all of these modules.
/// `packages` is what pip calls them.
pub fn python(modules: &[&str], packages: &str) -> PathBuf {
    python_of("ORIBI_TEST_PYTHON", modules, packages)
}

/// The same for packages that need an environment of their own, which `variable` names.
pub fn python_of(variable: &str, modules: &[&str], packages: &str) -> PathBuf {
    let python = std::env::var_os(variable).unwrap_or_else(|| "python3".into());
    let imports = format!("import {}", modules.join(", "));
    let tried = Command::new(&python).args(["-c", &imports]).output();
    let missing = match tried {
        Ok(output) if output.status.success() => return python.into(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!(
        "{} cannot import what these tests need: make an environment with `pip install \
         {packages}` and name its Python with {variable}\n{missing}",
        Path::new(&python).display(),
    );
}

/// Runs a program to its end and returns what it prints. Its failure is the test's.
pub fn run(command: &mut Command) -> String {
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ({}):\n{printed}{errors}", output.status);
    printed
}
