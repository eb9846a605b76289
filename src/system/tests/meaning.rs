//! That system tables and functions say what is so, and that ordinary statements keep their
//! meaning.

use super::super::relations;
use super::Fixture;

#[tokio::test]
async fn every_relation_can_be_read() {
    let fixture = Fixture::new().await;
    let mut failed = Vec::new();
    for relation in relations::all() {
        let sql = format!("SELECT * FROM {}.{}", relation.schema, relation.name);
        if let Err(error) = fixture.run(&sql).await {
            failed.push(format!("{sql}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
