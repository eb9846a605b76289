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
        (submitted(&deep), "54001"),
        (submitted("COPY t TO '/tmp/x'"), "0A000"),
        (format!("oribi.schedule('s', '@daily', $${deep}$$)"), "54001"),
    ] {
        let refused = client.refused(&format!("SELECT {call}")).await;
        assert_eq!(refused.code().code(), code, "{call}: {refused}");
        assert!(code != "0A000" || says_what_to_do(&refused), "{call}: {refused:?}");
    }
    // It is said what is wrong, and where.
    for (options, parts) in [
        (r#"{"colour": 1}"#, ["\"colour\"", "`key`, `database`, `settings`"]),
        (r#"{"database": "oribi", "key": 5}"#, ["\"key\"", "expected a string"]),
        (r#"{"settings": {"a.b": [1]}}"#, ["\"settings\"", "\"a.b\""]),
        (r#"["a", "b", {}]"#, ["JSON object", "{"]),
        (r#"{"key": a}"#, ["no JSON", "column 9"]),
        (r#"{"key": "a", "key": "b"}"#, ["duplicate", "`key`"]),
    ] {
        let refused = client.refused(&format!("SELECT {}", with(options))).await;
        assert_eq!(refused.code().code(), "22023", "{options}: {refused}");
        assert!(parts.iter().all(|part| refused.message().contains(part)), "{options}: {refused}");
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

/// Its columns depend on it.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_result_is_no_parameter() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = daemon.connect().await;
    let id: String = client
        .query_one("SELECT oribi.submit($1)", &[&"SELECT 42 AS n"])
        .await
        .expect("an id")
        .get(0);
    let error = client.prepare("SELECT * FROM oribi.result($1)").await.expect_err("refused");
    let refused = error.as_db_error().expect("by the server");
    assert_eq!(refused.code().code(), "0A000", "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("literal")), "{refused:?}");
    let waited =
        client.query_one("SELECT oribi.wait($1, $2)", &[&id, &"60s"]).await.expect("a row");
    assert_eq!(waited.get::<_, &str>(0), "succeeded");
    let record = client.query_one("SELECT oribi.record($1)", &[&id]).await.expect("a row");
    assert!(record.get::<_, &str>(0).contains("[[42]]"), "{record:?}");
    let sql = format!("SELECT * FROM oribi.result('{id}')");
    let row = client.query_one(&sql, &[]).await.expect("a row");
    assert_eq!((row.columns()[0].name(), row.get::<_, i64>(0)), ("n", 42));
}

fn says_what_to_do(refused: &tokio_postgres::error::DbError) -> bool {
    refused.message().contains("in a second one") || refused.hint().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_submitted_queries_need_a_warehouse() {
    // On an ensemble no daemon has one of its own.
    let cluster = Cluster::on_shared_zookeeper();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let id = submit(&client, "SELECT 1 AS x").await;
    assert_eq!(wait(&client, &id).await, "failed");
    let why = client.value(&format!("SELECT oribi.record('{id}')")).await;
    assert!(why.contains("rows of submitted queries") && why.contains("warehouse"), "{why}");
}
