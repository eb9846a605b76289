//! That system tables and functions say what is so, and that ordinary statements keep their
//! meaning.

use super::super::relations;
use super::Fixture;
use crate::engine::parse;
use crate::engine::system::shown_name;

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

#[tokio::test]
async fn results_are_named_as_in_postgresql() {
    let fixture = Fixture::new().await;
    let mut failed = Vec::new();
    let text = include_str!("ordinary.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for pair in lines.chunks(2) {
        let [sql, expected] = pair else { panic!("a statement without an answer") };
        let parsed = parse(sql).expect("valid").pop().expect("one");
        let answer = match fixture.session.plan(&parsed.statement, &[]).await {
            Err(error) => error.to_string(),
            Ok(plan) => {
                let names = plan.schema.fields().iter().map(|field| shown_name(field.name()));
                let names = names.collect::<Vec<_>>().join("|");
                match fixture.run(sql).await {
                    Err(error) => error.to_string(),
                    Ok(rows) => {
                        let count: usize = rows.iter().map(|batch| batch.num_rows()).sum();
                        format!("{count} {names}")
                    }
                }
            }
        };
        if answer != expected.trim() {
            failed.push(format!("{sql}\n  expected {}\n  found    {answer}", expected.trim()));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
