//! psql on two daemons: what is made with one is there with the other.

use std::process::{Command, Output};

use crate::support::*;

/// Runs commands, one after the other, and stops at the first that fails.
fn psql(daemon: &Daemon, role: &str, commands: &[&str]) -> Output {
    let address = daemon.postgres();
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "oribi", "-U", role])
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .env("LC_ALL", "C.UTF-8");
    for command in commands {
        psql.args(["-c", command]);
    }
    psql.output().expect("psql starts")
}

#[track_caller]
fn prints(daemon: &Daemon, role: &str, commands: &[&str]) -> String {
    let output = psql(daemon, role, commands);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{role}: {commands:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fails(daemon: &Daemon, role: &str, commands: &[&str]) -> String {
    let output = psql(daemon, role, commands);
    assert!(!output.status.success(), "{role}: {commands:?} went through");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn two() -> (Cluster, [Daemon; 2]) {
    let cluster = Cluster::on_shared_zookeeper();
    let warehouse = cluster.path("warehouse").display().to_string();
    let cluster = cluster.with("WAREHOUSE", &warehouse);
    let daemons = cluster.start_all(["a", "b"]);
    (cluster, daemons)
}

#[test]
fn psql_shows_where_an_error_is() {
    let (_cluster, [a, _]) = two();
    for (text, line) in [
        ("SELECT 1 FRM t x", "LINE 1: SELECT 1 FRM t x"),
        ("SELECT 'ü', 1;\n SELECT 'ö' x yy;", "LINE 2:  SELECT 'ö' x yy;"),
        ("SELECT (1", "LINE 1: SELECT (1"),
        ("SELECT 'a", "LINE 1: SELECT 'a"),
        ("BEGIN ISOLATION LEVEL foo", "LINE 1: BEGIN ISOLATION LEVEL foo"),
        ("SELECT 1; DECLARE c CURSOR FOR SELECT 1 x y", "LINE 1: SELECT 1; DECLARE c"),
    ] {
        let said = fails(&a, "oribi", &[text]);
        let mut shown = said.lines().skip_while(|shown| !shown.starts_with(line));
        assert_eq!(shown.nth(1).map(str::trim), Some("^"), "{text}: {said}");
    }
    let said = fails(&a, "oribi", &["SELECT 'ü', 1;\n SELECT 'ö' x yy;"]);
    assert!(said.contains("\n                      ^"), "{said}");
    // What is wrong with a view's text, or a submitted one, has no place in this one.
    let said = fails(&a, "oribi", &["SELECT oribi.submit('SELECT 1 x y')"]);
    assert!(said.contains("syntax error") && !said.contains("LINE"), "{said}");
}

#[test]
fn what_one_psql_writes_another_reads() {
    let (_cluster, [a, b]) = two();
    let printed = prints(
        &a,
        "oribi",
        &[
            "create database test",
            "create table test.t1 (id INT, name STRING)",
            "insert into test.t1 values (1, 'one'), (2, 'two')",
            "select * from test.t1 order by id",
        ],
    );
    assert_eq!(printed, "1|one\n2|two\n");
    assert_eq!(prints(&b, "oribi", &["select * from test.t1 order by id"]), "1|one\n2|two\n");
    assert!(prints(&b, "oribi", &[r"\l"]).contains("test|oribi|UTF8"));
    assert_eq!(prints(&b, "oribi", &[r"\c test", r"\dt"]).trim(), "public|t1|table|oribi");
    prints(&b, "oribi", &["insert into test.t1 values (3, 'three')"]);
    assert_eq!(
        prints(&a, "oribi", &["set oribi.consistency = 'strong'", "select max(id) from test.t1"]),
        "3\n"
    );
    prints(&b, "oribi", &["drop table test.t1"]);
    let errors = fails(&a, "oribi", &["set oribi.consistency = 'strong'", "select * from test.t1"]);
    assert!(errors.contains("ERROR:  relation \"test.t1\" does not exist"), "{errors}");
}

#[test]
fn what_one_psql_grants_counts_in_another_at_once() {
    let (_cluster, [a, b]) = two();
    prints(&a, "oribi", &["create table people (id int, name text, pay int)"]);
    prints(&a, "oribi", &["insert into people values (1, 'Ann', 10), (2, 'Bob', 20)"]);
    prints(&a, "oribi", &["create role ann login", "create role readers"]);
    assert!(prints(&b, "oribi", &[r"\du"]).contains("ann|"));
    for (command, refusal) in [
        ("select * from people", "permission denied for table people"),
        ("insert into people values (3, 'Cid', 30)", "permission denied for table people"),
        ("delete from people", "permission denied for table people"),
        ("copy people to stdout", "permission denied for table people"),
        (r"\copy people from '/dev/null'", "permission denied for table people"),
        ("truncate people", "permission denied for table people"),
        ("drop table people", "must be owner of table people"),
        ("alter table people add column x int", "must be owner of table people"),
        ("create table mine (id int)", "permission denied for schema public"),
        ("create database mine", "permission denied to create database"),
        ("create role mine", "permission denied to create role"),
        ("grant select on people to ann", "permission denied for table people"),
    ] {
        let errors = fails(&b, "ann", &[command]);
        assert!(errors.contains(&format!("ERROR:  {refusal}")), "{command}: {errors}");
    }
    prints(&a, "oribi", &["grant select (id, name) on people to readers", "grant readers to ann"]);
    assert_eq!(prints(&b, "ann", &["select id, name from people order by id"]), "1|Ann\n2|Bob\n");
    assert_eq!(prints(&b, "ann", &["copy people (name) to stdout"]), "Ann\nBob\n");
    let errors = fails(&b, "ann", &["select pay from people"]);
    assert!(errors.contains("permission denied for table people"), "{errors}");
    assert!(prints(&b, "oribi", &[r"\dp people"]).contains("readers=r/oribi"));
    // What is revoked is gone at once for who asks the store.
    prints(&a, "oribi", &["revoke readers from ann"]);
    let strong = "set oribi.consistency = 'strong'";
    let errors = fails(&b, "ann", &[strong, "select id from people"]);
    assert!(errors.contains("permission denied for table people"), "{errors}");
}
