//! dbt as it is, and the queries that other tools send.

use std::fs;
use std::process::Command;

use crate::common::daemon::explain;
use crate::python::{python, run};

/// Asked through the simple protocol, as most of these tools' drivers do.
#[tokio::test]
async fn what_tools_ask() {
    let daemon = crate::prepare().await;
    let client = daemon.connect().await;
    let text = fs::read_to_string(crate::script("tools.sql")).expect("tools.sql");
    let mut wrong = Vec::new();
    // The first paragraph says how to read the others.
    for paragraph in text.split("\n\n").skip(1) {
        let (title, sql) = paragraph.trim().split_once('\n').expect("a title and a query");
        let (what, fails) = match title.split_once("; fails: ") {
            Some((what, reason)) => (what, Some(reason)),
            None => (title, None),
        };
        let least: usize = what.rsplit(", ").next().and_then(|n| n.parse().ok()).expect("a number");
        match (client.query(sql, &[]).await, fails) {
            (Ok(rows), None) if rows.len() >= least => {}
            (Ok(rows), None) => wrong.push(format!("{what}: {} rows", rows.len())),
            (Err(error), None) => wrong.push(format!("{what}: {}", explain(&error))),
            (Ok(_), Some(_)) => wrong.push(format!("{what}: fails no longer: say so")),
            (Err(_), Some(_)) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const PROJECT: &str = "name: oribi\nversion: '1.0'\nprofile: oribi\nmodel-paths: [models]\n\
                       models: {oribi: {+materialized: view}}\n";
const SOURCES: &str = "sources:\n- name: files\n  schema: public\n  tables:\n  - name: people\n    \
                       columns: [{name: id, data_tests: [not_null, unique]}]\n";
const MODEL: &str = "select id, name from {{ source('files', 'people') }} where id > 1\n";

/// Not `dbt run`: it makes its views inside of a transaction block, where DDL is refused.
#[tokio::test]
async fn dbt() {
    let python = python(&["dbt.adapters.postgres"], "dbt-core dbt-postgres");
    let daemon = crate::prepare().await;
    let project = daemon.options().directory().join("dbt");
    fs::create_dir_all(project.join("models")).expect("a directory");
    let profile = format!(
        "oribi:\n  target: dev\n  outputs:\n    dev: {{type: postgres, host: 127.0.0.1, port: {}, \
         user: oribi, password: none, dbname: oribi, schema: public, threads: 2}}\n",
        daemon.postgres().port()
    );
    for (name, text) in [
        ("dbt_project.yml", PROJECT),
        ("profiles.yml", &profile),
        ("models/sources.yml", SOURCES),
        ("models/later.sql", MODEL),
    ] {
        fs::write(project.join(name), text).expect("a file of the project");
    }
    for (command, expected) in [
        ("debug", "All checks passed"),
        ("test", "PASS=2 WARN=0 ERROR=0"),
        ("docs generate", "Catalog written"),
    ] {
        let mut dbt = Command::new(&python);
        dbt.args(["-c", "from dbt.cli.main import cli; cli()", "--no-use-colors"]);
        dbt.args(command.split(' ')).args(["--project-dir", ".", "--profiles-dir", "."]);
        dbt.current_dir(&project).env("DBT_SEND_ANONYMOUS_USAGE_STATS", "false");
        let printed = run(&mut dbt);
        assert!(printed.contains(expected), "dbt {command}:\n{printed}");
    }
}
