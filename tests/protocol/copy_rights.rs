//! COPY asks for the rights that the same rows would need in a SELECT or an INSERT.

use super::DAEMON;
use super::wire::{
    Message, PROTOCOL_3_0, Wire, bind, code, column, execute, first, kinds, message, parse, query,
};
use crate::common::daemon::Daemon;

/// What `oribi` sets up, without rights for the role.
const SETUP: &str = "\
    CREATE ROLE copier LOGIN; CREATE SCHEMA copy_rights; SET search_path = copy_rights; \
    CREATE TABLE t (a int, b text, c text); INSERT INTO t VALUES (1, 'x', 'secret'), (2, 'y', 'secret'); \
    CREATE VIEW v AS SELECT a FROM t; \
    CREATE TABLE p (a int, owner text); INSERT INTO p VALUES (1, 'copier'), (2, 'oribi'); \
    ALTER TABLE p ENABLE ROW LEVEL SECURITY; \
    CREATE POLICY own ON p USING (owner = current_user)";

fn log_in(daemon: &Daemon, user: &str) -> Wire {
    let mut wire = Wire::open(daemon);
    wire.start(PROTOCOL_3_0, &[("user", user), ("database", "oribi")]);
    assert_eq!(wire.until('Z').last().map(|message| message.kind), Some('Z'));
    wire
}

fn denied(messages: &[Message], what: &str) {
    assert_eq!(kinds(messages), "EZ", "{what}: {messages:?}");
    assert_eq!(code(messages), "42501", "{what}: {messages:?}");
}

/// The lines that a COPY ... TO STDOUT gives.
fn lines(wire: &mut Wire, sql: &str) -> String {
    let messages = wire.query(sql);
    assert!(!kinds(&messages).contains('E'), "{sql}: {messages:?}");
    let lines = messages.iter().filter(|message| message.kind == 'd');
    lines.map(|line| String::from_utf8_lossy(&line.body).into_owned()).collect()
}

/// Copies some lines into a table.
fn fill(wire: &mut Wire, sql: &str, lines: &[u8]) -> String {
    wire.send([query(sql)]);
    let started = wire.until('G');
    assert_eq!(kinds(&started), "G", "{sql}");
    wire.send([message(b'd', lines), message(b'c', b"")]);
    first(&wire.until('Z'), 'C').text()
}

#[test]
fn nothing_is_copied_without_the_right_to_it() {
    let daemon = DAEMON.get();
    let mut oribi = Wire::log_in(&daemon);
    let made = oribi.query(SETUP);
    assert!(!kinds(&made).contains('E'), "{made:?}");
    let mut copier = log_in(&daemon, "copier");
    let mut grant = |sql: &str| {
        let messages = oribi.query(sql);
        assert_eq!(kinds(&messages), "CZ", "{sql}: {messages:?}");
    };

    // Not even the schema may be used.
    for sql in ["COPY copy_rights.t TO STDOUT", "COPY copy_rights.t FROM STDIN"] {
        denied(&copier.query(sql), sql);
    }
    grant("GRANT USAGE ON SCHEMA copy_rights TO copier");
    copier.query("SET search_path = copy_rights");
    for sql in [
        "COPY t TO STDOUT",
        "COPY t (a) TO STDOUT",
        "COPY (SELECT a FROM t) TO STDOUT",
        "COPY (SELECT count(*) FROM t) TO STDOUT (FORMAT binary)",
        "COPY (SELECT a FROM v) TO STDOUT",
        "COPY (DELETE FROM t RETURNING a) TO STDOUT",
        "COPY t FROM STDIN",
        "COPY t (a) FROM STDIN (FORMAT csv)",
        "COPY t FROM '/etc/passwd'",
    ] {
        let messages = copier.query(sql);
        // What is written is refused as what it is.
        match sql.contains("DELETE") {
            true => assert!(["42501", "0A000"].contains(&&*code(&messages)), "{messages:?}"),
            false => denied(&messages, sql),
        }
        let messages = copier.exchange([parse("", sql, &[]), bind("", "", &[]), execute("", 0)]);
        assert!(!kinds(&messages).contains(['d', 'G', 'H']), "{sql}: {messages:?}");
    }

    // Single columns.
    grant("GRANT SELECT (a) ON t TO copier");
    assert_eq!(lines(&mut copier, "COPY t (a) TO STDOUT"), "1\n2\n");
    assert_eq!(lines(&mut copier, "COPY (SELECT sum(a) FROM t) TO STDOUT"), "3\n");
    for sql in [
        "COPY t TO STDOUT",
        "COPY t (a, b) TO STDOUT",
        "COPY (SELECT * FROM t) TO STDOUT",
        "COPY (SELECT a FROM t WHERE c = 'secret') TO STDOUT",
        "COPY t (a) FROM STDIN",
    ] {
        denied(&copier.query(sql), sql);
    }
    grant("GRANT INSERT (a, b) ON t TO copier");
    for sql in ["COPY t FROM STDIN", "COPY t (a, c) FROM STDIN", "COPY t (c) FROM STDIN"] {
        denied(&copier.query(sql), sql);
    }
    assert_eq!(fill(&mut copier, "COPY t (b, a) FROM STDIN", b"z\t3\n"), "COPY 1");
    assert_eq!(lines(&mut copier, "COPY (SELECT a FROM t ORDER BY a) TO STDOUT"), "1\n2\n3\n");
    grant("REVOKE SELECT (a) ON t FROM copier");
    denied(&copier.query("COPY t (a) TO STDOUT"), "what was revoked");
    grant("GRANT INSERT ON t TO copier");
    assert_eq!(fill(&mut copier, "COPY t FROM STDIN", b"4\tz\tz\n"), "COPY 1");
    // A view gives what its owner may see.
    grant("GRANT SELECT ON v TO copier");
    assert_eq!(lines(&mut copier, "COPY (SELECT count(*) FROM v) TO STDOUT"), "4\n");
}

#[test]
fn policies_hold_for_copies() {
    let daemon = DAEMON.get();
    let mut oribi = Wire::log_in(&daemon);
    let setup = SETUP.replace("copier", "reader").replace("copy_rights", "copy_policies");
    let made = oribi.query(&format!(
        "{setup}; GRANT USAGE ON SCHEMA copy_policies TO reader; GRANT SELECT, INSERT ON p TO reader"
    ));
    assert!(!kinds(&made).contains('E'), "{made:?}");
    let mut reader = log_in(&daemon, "reader");
    reader.query("SET search_path = copy_policies");
    for sql in ["COPY p TO STDOUT (FORMAT csv)", "COPY (SELECT * FROM p) TO STDOUT (FORMAT csv)"] {
        assert_eq!(lines(&mut reader, sql), "1,reader\n", "{sql}");
        assert_eq!(lines(&mut oribi, sql).lines().count(), 2, "{sql}");
    }
    let messages = reader.query("COPY p FROM STDIN");
    assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "0A000"));
    reader.query("SET row_security = off");
    denied(&reader.query("COPY p TO STDOUT"), "with row_security = off");
    assert_eq!(column(&oribi.query("SELECT count(*) FROM p")), ["2"]);
}
