//! The units, by systemd's own tool.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::daemon::binary;

/// Keys that only newer versions of systemd know; older ones say so, and pass over them.
const NEWER: &[&str] =
    &["RestartSteps", "RestartMaxDelaySec", "PollLimitIntervalSec", "PollLimitBurst"];

/// What README.md says of `systemd-analyze security`, in tenths.
const EXPOSURE: u32 = 14;

fn config(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The units as they would be installed, with the binary where it is.
fn installed() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let service =
        config("oribi.service").replace("/usr/bin/oribi", &binary().display().to_string());
    fs::write(at("oribi.service"), service).expect("written");
    fs::write(at("oribi.socket"), config("oribi.socket")).expect("written");
    fs::create_dir(at("oribi.service.d")).expect("made");
    fs::write(at("oribi.service.d/credentials.conf"), config("credentials.conf")).expect("written");
    directory
}

fn analyze(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    let run = command.args(arguments).current_dir(directory).env("LC_ALL", "C").output();
    run.unwrap_or_else(|error| panic!("systemd-analyze ({error}): install the package systemd"))
}

#[test]
fn systemd_understands_them() {
    let units = ["verify", "--man=no", "./oribi.service", "./oribi.socket"];
    let verified = analyze(&installed(), &units);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "{said}");
    let newer = |line: &str| NEWER.iter().any(|key| line.contains(&format!("'{key}'")));
    // Older versions tell of lines that they did not get, too.
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("oribi") && !(line.contains("Unknown key") && newer(line)))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_service_is_as_closed_as_the_readme_says() {
    let directory = installed();
    let threshold = format!("--threshold={EXPOSURE}");
    let unit = "./oribi.service";
    let looked = analyze(&directory, &["security", "--offline=true", &threshold, unit]);
    let table = String::from_utf8_lossy(&looked.stdout).into_owned();
    assert!(looked.status.success(), "{table}{}", String::from_utf8_lossy(&looked.stderr));
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let said = format!("exposure {}.{}", EXPOSURE / 10, EXPOSURE % 10);
    assert!(readme.expect("README.md").contains(&said), "README.md does not say \"{said}\"");
}
