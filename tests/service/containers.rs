//! `docker-compose.yml`, by its own tool: where that is installed.

use std::process::Command;

/// The tool's two names.
const TOOLS: [(&str, &[&str]); 2] = [("docker", &["compose"]), ("docker-compose", &[])];

#[test]
fn the_compose_file_is_one() {
    let there = |(program, first): &(&str, &[&str])| {
        let version = Command::new(program).args(*first).arg("version").output();
        version.is_ok_and(|version| version.status.success())
    };
    let Some((program, first)) = TOOLS.into_iter().find(there) else {
        println!("not tested: there is neither docker compose nor docker-compose");
        return;
    };
    let mut command = Command::new(program);
    command.args(first).args(["config", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let checked = command.output().expect("it runs");
    let (out, err) = (checked.stdout, checked.stderr);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&[out, err].concat()));
}
