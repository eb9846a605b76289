//! What EXPLAIN and SHOW CREATE tell of a table, and to whom.

use crate::common::daemon::{Daemon, Options};
use crate::support::{Client, bounded};

/// A plan that has run knows values: those that lie in the names of directories, those that its parts
/// have found out, those of subqueries.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_has_run_keeps_values_to_itself() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        client
            .rows("CREATE TABLE parts (id int, region text, pay int) PARTITIONED BY (region)")
            .await;
        client.rows("INSERT INTO parts VALUES (1, 'atlantis', 77001), (2, 'utopia', 77002)").await;
        let view = "SELECT a.id FROM parts a JOIN parts b ON a.pay = b.pay \
                    WHERE a.pay > (SELECT min(pay) FROM parts) ORDER BY a.pay LIMIT 1";
        client.rows(&format!("CREATE VIEW ids AS {view}")).await;
        client.rows("CREATE ROLE reader").await;
        client.rows("GRANT SELECT (id) ON parts TO reader").await;
        client.rows("GRANT SELECT ON ids TO reader").await;
        let plan = async |query: &str| {
            let lines = client.rows(&format!("EXPLAIN ANALYZE {query}")).await;
            lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
        };
        // What there is to hide.
        let all = plan("SELECT * FROM ids").await;
        assert!(all.contains("region=utopia") && all.contains("77001"), "{all}");
        client.rows("SET ROLE reader").await;
        for query in ["SELECT id FROM parts", "SELECT * FROM ids"] {
            let plan = plan(query).await;
            assert!(plan.contains("files=2") && plan.contains("output_rows="), "{plan}");
            for hidden in ["atlantis", "utopia", "77001", "77002", ".parquet"] {
                assert!(!plan.contains(hidden), "{hidden} in {plan}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_elsewhere_says_where_it_lies() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = directory.path().join("it's here").display().to_string().replace('\'', "''");
        let made = format!("CREATE TABLE t (a int, b text) PARTITIONED BY (b) LOCATION '{place}'");
        client.rows(&made).await;
        let shown = client.value("SHOW CREATE TABLE t").await;
        let location = format!("\nLOCATION 'file://{place}'");
        assert!(shown.ends_with(&location), "{shown} does not end with {location}");
        client.rows("DROP TABLE t").await;
        client.rows(&shown).await;
        assert_eq!(client.value("SHOW CREATE TABLE t").await, shown);
        client.rows("CREATE TABLE u (a int)").await;
        assert!(!client.value("SHOW CREATE TABLE u").await.contains("LOCATION"));
    })
    .await;
}
