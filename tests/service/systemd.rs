//! The units under a real systemd, as process 1 of a machine of its own (`machine.sh`), where a test may
//! make one: as root, with namespaces, overlayfs and cgroup v2.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::common::certificates::Authority;
use crate::common::daemon::binary;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service");

/// What `machine.sh` ends with where there can be no such machine.
const NONE: i32 = 77;

const SETTINGS: &str = r#"
[tls]
certificate = "/etc/oribi/server.pem"
[connections]
rules = "host all all samehost scram-sha-256"
[log]
filter = "info"
"#;

/// `credentials.conf` for a daemon without ZooKeeper.
fn drop_in() -> String {
    let text = include_str!("../../config/credentials.conf");
    let others = |line: &&str| !line.contains("zookeeper");
    let lines: Vec<&str> = text.lines().filter(others).collect();
    assert!(lines.len() + 2 <= text.lines().count(), "{text}");
    lines.join("\n") + "\n"
}

fn prepare(machine: &Path) {
    let at = |name: &str| machine.join(name);
    for directory in ["units", "secrets"] {
        fs::create_dir(at(directory)).expect("made");
    }
    for unit in ["oribi.service", "oribi.socket"] {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(unit);
        fs::copy(config, at("units").join(unit)).expect("copied");
    }
    fs::write(at("units/credentials.conf"), drop_in()).expect("written");
    fs::write(at("oribi.toml"), SETTINGS).expect("written");
    let certified = Authority::new(machine, "authority").server("server");
    fs::copy(&certified.certificate, at("server.pem")).expect("copied");
    fs::copy(&certified.key, at("secrets/tls-key")).expect("copied");
    fs::write(at("secrets/superuser-password"), "first and secret\n").expect("written");
    fs::copy(format!("{HERE}/driver.sh"), at("driver.sh")).expect("copied");
}

#[test]
fn the_units_do_what_they_say() {
    let directory = TempDir::new().expect("a directory");
    prepare(directory.path());
    let script = format!("{HERE}/machine.sh");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", "sh", &script]).arg(directory.path()).arg(binary());
    let run = command.output().expect("a shell");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    if run.status.code() == Some(NONE) {
        println!("not tested: there can be no machine with systemd here");
        return;
    }
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
    let (told, errors, log) = (read("told"), read("errors"), read("log"));
    assert!(run.status.success(), "{said}\n{told}\n{errors}\n{log}");
    println!("{told}");
    let lines = told.lines().filter_map(|line| line.split_once(':'));
    let mut found: BTreeMap<&str, &str> = lines.map(|(name, what)| (name, what.trim())).collect();
    let served: u32 = found
        .remove("served over a restart")
        .and_then(|count| count.parse().ok())
        .unwrap_or_default();
    assert!(served > 0, "{told}\n{errors}\n{log}");
    let expected = BTreeMap::from([
        ("before anybody came", "inactive"),
        ("the first client", "served"),
        ("then", "active"),
        (
            "status",
            "Ready, alone: PostgreSQL on 127.0.0.1:5439, peers on 127.0.0.1:7439, web on 127.0.0.1:8439",
        ),
        ("of root", "0"),
        ("credentials", "superuser-password 400 tls-key 400"),
        ("encrypted", "t"),
        ("another password", "password authentication failed"),
        ("in its environment", "0"),
        ("for others", "Permission denied"),
        ("not served", ""),
        ("another process", "yes"),
        ("reload", "0"),
        ("after a crash", "served"),
        ("its signs of life", "come"),
        ("after it was stuck", "served"),
        ("a wrong setting", "1 exit-code 2"),
        ("and is left alone", "failed 0"),
        ("stop", "success 0"),
        ("credentials after it", ""),
    ]);
    assert_eq!(found, expected, "{errors}\n{log}");
}
