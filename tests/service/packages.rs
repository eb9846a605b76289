//! The Debian package, made as `config/debian/package` makes it, and taken apart: where cargo-deb is
//! installed, which takes minutes to build.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// What it must bring.
const FILES: &[&str] = &[
    "etc/oribi/oribi.toml",
    "usr/bin/oribi",
    "usr/lib/systemd/system/oribi.service",
    "usr/lib/systemd/system/oribi.socket",
    "usr/share/bash-completion/completions/oribi",
    "usr/share/doc/oribi/examples/credentials.conf",
    "usr/share/doc/oribi/oribi.toml",
    "usr/share/fish/vendor_completions.d/oribi.fish",
    "usr/share/man/man1/oribi.1",
    "usr/share/man/man1/oribi-serve.1",
    "usr/share/zsh/vendor-completions/_oribi",
];

fn output(command: &mut Command) -> String {
    let run = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

#[test]
fn the_package_has_what_a_machine_needs() {
    let directory = TempDir::new().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let built = Path::new(env!("CARGO_BIN_EXE_oribi"));
    let target = built.parent().and_then(Path::parent).expect("a target directory");
    let cargo = Path::new(env!("CARGO")).parent().expect("a directory").to_owned();
    let path = env::var_os("PATH").expect("a path");
    let path = env::join_paths([cargo].into_iter().chain(env::split_paths(&path)));
    let path = path.expect("a path");
    if !env::split_paths(&path).any(|directory| directory.join("cargo-deb").exists()) {
        println!("not tested: cargo-deb is not installed (cargo install cargo-deb)");
        return;
    }
    let package = at("oribi.deb");
    output(
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/debian/package"))
            .args(["--fast", "--output"])
            .arg(&package)
            .env("PATH", path)
            .env("CARGO_TARGET_DIR", target),
    );
    output(Command::new("dpkg-deb").arg("-R").arg(&package).arg(at("all")));
    for file in FILES {
        let size =
            fs::metadata(at("all").join(file)).unwrap_or_else(|_| panic!("{file} is missing"));
        assert!(size.len() > 0, "{file} is empty");
    }
    let control = fs::read_to_string(at("all/DEBIAN/control")).expect("control");
    assert!(control.contains("\nDepends: ") && control.contains("libc6"), "{control}");
    let kept = fs::read_to_string(at("all/DEBIAN/conffiles")).expect("conffiles");
    assert_eq!(kept.trim(), "/etc/oribi/oribi.toml");
    for script in ["postinst", "prerm", "postrm"] {
        let path = at("all/DEBIAN").join(script);
        output(Command::new("sh").arg("-n").arg(&path));
        let text = fs::read_to_string(&path).expect("a script");
        // A daemon that nobody has configured is not started; one that runs is restarted.
        let starts = text.lines().any(|line| line.contains("deb-systemd-invoke start"));
        assert!(!starts && !text.contains("#DEBHELPER#"), "{script}: {text}");
    }
    let binary = at("all/usr/bin/oribi");
    assert!(output(Command::new(&binary).arg("--version")).starts_with("oribi "));
    // The settings that it brings are some.
    let settings = format!("--config={}", at("all/etc/oribi/oribi.toml").display());
    let data = format!("--data-dir={}", at("data").display());
    output(
        Command::new(&binary)
            .args(["doctor", &settings, &data])
            .env("ORIBI_POSTGRES", "127.0.0.1:0")
            .env("ORIBI_PEER", "127.0.0.1:0")
            .env("ORIBI_WEB", "127.0.0.1:0"),
    );
}
