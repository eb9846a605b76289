//! What sessions see of each other, and of themselves.

use bytes::Buf;

use super::DAEMON;
use super::wire::{Message, Wire, bind, code, column, execute, first, parse, query, sync};

fn pid_of(wire: &Wire) -> i32 {
    (&wire.key[..4]).get_i32()
}

/// Columns of one session in `pg_stat_activity`, as another one sees them.
fn seen(other: &mut Wire, wire: &Wire, columns: &str) -> Vec<String> {
    let pid = pid_of(wire);
    let messages =
        other.query(&format!("SELECT {columns} FROM pg_stat_activity WHERE pid = {pid}"));
    row(&messages)
}

fn row(messages: &[Message]) -> Vec<String> {
    let texts = first(messages, 'D').texts().into_iter();
    texts.map(|text| text.unwrap_or_else(|| "NULL".to_owned())).collect()
}

#[test]
fn a_session_is_shown_as_it_is() {
    let daemon = DAEMON.get();
    let mut other = Wire::log_in(&daemon);
    let mut wire = Wire::log_in(&daemon);
    let columns = "state, query, wait_event_type, wait_event, xact_start IS NULL, \
                   query_start IS NULL";
    let shown = ["idle", "", "Client", "ClientRead", "t", "t"];
    assert_eq!(seen(&mut other, &wire, columns), shown);

    wire.query("SELECT 1 AS a");
    let columns = "state, query, xact_start IS NULL, query_start >= backend_start, \
                   state_change >= query_start";
    assert_eq!(seen(&mut other, &wire, columns), ["idle", "SELECT 1 AS a", "t", "t", "t"]);
    wire.query("BEGIN");
    wire.query("SELECT 2 AS b");
    let columns = "state, query, xact_start < query_start";
    assert_eq!(seen(&mut other, &wire, columns), ["idle in transaction", "SELECT 2 AS b", "t"]);
    wire.query("SELECT nothing");
    let shown = ["idle in transaction (aborted)", "SELECT nothing", "t"];
    assert_eq!(seen(&mut other, &wire, columns), shown);
    wire.query("ROLLBACK");
    let columns = "state, query, xact_start IS NULL";
    assert_eq!(seen(&mut other, &wire, columns), ["idle", "ROLLBACK", "t"]);

    // The extended protocol, with a portal left open.
    let series = "SELECT * FROM generate_series(1, 1000000000000)";
    wire.exchange([parse("", "BEGIN", &[]), bind("", "", &[]), execute("", 0)]);
    wire.exchange([parse("", series, &[]), bind("p", "", &[]), execute("p", 1)]);
    let columns = "state, query";
    assert_eq!(seen(&mut other, &wire, columns), ["idle in transaction", series]);
    wire.send([execute("p", 0), sync()]);
    wire.until('D');
    assert_eq!(seen(&mut other, &wire, columns), ["active", series]);
    drop(wire);
}

#[test]
fn a_session_sees_itself() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let sql = "SELECT state, query, wait_event IS NULL, pid = pg_backend_pid(), usename, datname, \
               usesysid = (SELECT oid FROM pg_roles WHERE rolname = 'oribi'), \
               datid = (SELECT oid FROM pg_database WHERE datname = 'oribi'), \
               leader_pid, client_hostname, query_id, client_addr = inet_client_addr(), \
               client_port = inet_client_port(), backend_type \
               FROM pg_stat_activity WHERE state = 'active' AND pid = pg_backend_pid()";
    let expected = [
        "active",
        sql,
        "t",
        "t",
        "oribi",
        "oribi",
        "t",
        "t",
        "NULL",
        "NULL",
        "NULL",
        "t",
        "t",
        "client backend",
    ];
    assert_eq!(row(&wire.query(sql)), expected);
    let messages = wire.query("SELECT inet_server_addr(), inet_server_port(), inet_client_addr()");
    let port = daemon.postgres().port().to_string();
    assert_eq!(row(&messages), ["127.0.0.1", &port, "127.0.0.1"]);
}

#[test]
fn a_clients_name_for_itself_is_shown() {
    let daemon = DAEMON.get();
    let mut other = Wire::log_in(&daemon);
    let mut wire = Wire::open(&daemon);
    wire.start(
        super::wire::PROTOCOL_3_0,
        &[("user", "oribi"), ("database", "oribi"), ("application_name", "first")],
    );
    wire.key = first(&wire.until('Z'), 'K').body.clone();
    assert_eq!(seen(&mut other, &wire, "application_name"), ["first"]);
    wire.query("SET application_name = 'second'");
    assert_eq!(seen(&mut other, &wire, "application_name"), ["second"]);
    wire.query("BEGIN; SET LOCAL application_name = 'third'");
    assert_eq!(seen(&mut other, &wire, "application_name"), ["third"]);
    wire.query("ROLLBACK");
    assert_eq!(seen(&mut other, &wire, "application_name"), ["second"]);
    wire.query("RESET application_name");
    assert_eq!(seen(&mut other, &wire, "application_name"), ["first"]);
}

#[test]
fn texts_are_bounded_and_without_passwords() {
    let daemon = DAEMON.get();
    let mut other = Wire::log_in(&daemon);
    let mut wire = Wire::log_in(&daemon);
    wire.query(&format!("SELECT '{}'", "ö".repeat(2000)));
    assert_eq!(seen(&mut other, &wire, "octet_length(query)"), ["1022"]);
    wire.query("CREATE ROLE activity_role PASSWORD 'sesame'");
    let shown = "CREATE ROLE activity_role PASSWORD '***'";
    assert_eq!(seen(&mut other, &wire, "query"), [shown]);
    for sql in [
        "/* x */ ALTER /**/ USER activity_role ENCRYPTED PASSWORD E'ses\\x61me'",
        "ALTER USER activity_role PASSWORD $$sesame$$",
        "CREATE ROLE activity_role PASSWORD 'sesame",
    ] {
        wire.query(sql);
        let shown = seen(&mut other, &wire, "query").remove(0);
        assert!(!shown.contains("ses"), "{shown}");
    }
    wire.query("DROP ROLE IF EXISTS activity_role");
    assert!(!daemon.log().contains("sesame"));
}

#[test]
fn the_end_of_a_session_can_be_waited_for() {
    let daemon = DAEMON.get();
    let mut asker = Wire::log_in(&daemon);
    let mut wire = Wire::log_in(&daemon);
    let pid = pid_of(&wire);
    let answer = asker.query(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
    assert_eq!(column(&answer), ["t"]);
    assert_eq!(code(&wire.until_closed()), "57P01");
    assert_eq!(
        column(&asker.query(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"))),
        ["0"]
    );
    // As PostgreSQL says it.
    let answer = asker.query(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(column(&answer), ["f"]);
    let notice = first(&answer, 'N');
    let fields = [b'S', b'C', b'M'].map(|kind| notice.field(kind).unwrap_or_default());
    let message = format!("PID {pid} is not a PostgreSQL backend process");
    assert_eq!(fields, ["WARNING", "01000", &message]);
    let answer = asker.query("SELECT pg_terminate_backend(1, -1)");
    let message = first(&answer, 'E').field(b'M').unwrap_or_default();
    assert!(message.contains("\"timeout\" must not be negative"), "{message}");
    // It may be the session itself.
    asker.query("SELECT pg_cancel_backend(pg_backend_pid())");
    asker.send([query("SELECT pg_terminate_backend(pg_backend_pid(), 60000)")]);
    assert_eq!(code(&asker.until_closed()), "57P01");
}

#[test]
fn a_session_left_idle_ends_when_its_time_is_up() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("SET idle_session_timeout = '50ms'");
    let messages = wire.until_closed();
    assert_eq!(code(&messages), "57P05");
    let message = first(&messages, 'E').field(b'M').unwrap_or_default();
    assert_eq!(message, "terminating connection due to idle-session timeout");
    // Within a transaction block, and while a statement runs, it does not count.
    let mut wire = Wire::log_in(&daemon);
    let sql = "SELECT count(*) FROM generate_series(1, 20000000) a(x) WHERE x % 7 = 3";
    let messages = wire.query(&format!("SET idle_session_timeout = '50ms'; BEGIN; {sql}"));
    assert_eq!(column(&messages), ["2857143"]);
    let mut other = Wire::log_in(&daemon);
    let idle = "now() > state_change + interval '200 milliseconds'";
    while seen(&mut other, &wire, idle) != ["t"] {}
    assert_eq!(column(&wire.query("SELECT 'alive'")), ["alive"]);
}
