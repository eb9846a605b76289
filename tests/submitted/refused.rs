//! What is refused when it is submitted, and how.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_submitted_is_refused_with_a_reason() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    client.rows("CREATE ROLE ann LOGIN").await;
    let deep = format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300));
    let submitted = |sql: &str| format!("oribi.submit($${sql}$$)");
    let with = |options: &str| format!("oribi.submit('SELECT 1', '{options}')");
    let scheduled =
        |options: &str| format!("oribi.schedule('s', '@daily', 'SELECT 1', '{options}')");
    let soon = r#"{"settings": {"statement_timeout": "soon"}}"#;
    let misspelt = r#"{"settings": {"oribi.distributon": "off"}}"#;
    for (call, code) in [
        (submitted("CREATE TABLE t (x INT)"), "0A000"),
        (submitted("INSERT INTO t VALUES (1) RETURNING x"), "0A000"),
        (submitted("BEGIN"), "0A000"),
        (submitted("SELEC 1"), "42601"),
        ("oribi.wait(oribi.submit('SELECT 1'))".to_owned(), "0A000"),
        ("oribi.record('')".to_owned(), "42704"),
        ("oribi.cancel('')".to_owned(), "42704"),
        ("oribi.unschedule('')".to_owned(), "42704"),
        (with(r#"{"key": ""}"#), "22023"),
        (with(soon), "22023"),
        (with(misspelt), "42602"),
        (with(r#"{"settings": {"nothing": "1"}}"#), "42704"),
        (with(r#"{"settings": {"server_version": "1"}}"#), "55P02"),
        (scheduled(soon), "22023"),
        (scheduled(misspelt), "42602"),
        ("oribi.schedule('s', '@daily', 'BEGIN')".to_owned(), "0A000"),
        (deep.replacen("SELECT ", "", 1), "54001"),
    ] {
        let refused = client.refused(&format!("SELECT {call}")).await;
        assert_eq!(refused.code().code(), code, "{call}: {refused}");
        assert!(code != "0A000" || says_what_to_do(&refused), "{call}: {refused:?}");
    }
    assert_eq!(client.value("SELECT count(*) FROM system.schedules").await, "0");
    assert_eq!(
        client.value("SELECT count(*) FROM system.queries WHERE kind = 'submitted'").await,
        "0"
    );
    // What is for superusers is no other's to ask for.
    let unlimited = with(r#"{"settings": {"oribi.statement_limit": "0"}}"#);
    let ann = Client::connect_as(&daemon, "ann").await;
    assert_eq!(ann.outcome(&format!("SELECT {unlimited}")).await, "42501");
    assert_eq!(client.outcome(&format!("SELECT {unlimited}")).await, "");
}

fn says_what_to_do(refused: &tokio_postgres::error::DbError) -> bool {
    refused.message().contains("in a second one") || refused.hint().is_some()
}
