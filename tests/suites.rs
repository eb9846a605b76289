//! TPC-DS's 99 queries and ClickBench's 43, on one daemon and on three, against an independent
//! engine's answers on the same files (`tests/suites/README.md` has the rules).

mod common;

#[path = "tpch/answers.rs"]
#[allow(dead_code)]
mod answers;
#[path = "clients/python.rs"]
#[allow(dead_code)]
mod python;
#[path = "cluster/support.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use answers::{Answer, texts};
use support::*;

/// The daemons that a statement runs on, and in how many partitions each: plans differ.
const WAYS: [(&str, u32); 4] = [("off", 1), ("off", 8), ("always", 1), ("always", 8)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_99_queries_of_tpcds() {
    check("tpcds", "0.05", 99, 80).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_43_queries_of_clickbench() {
    check("clickbench", "150000", 43, 38).await;
}

/// Runs a suite of so many queries, of which at least `spread` must have run on all three daemons.
async fn check(suite: &str, size: &str, queries: usize, spread: usize) {
    let cluster = Cluster::on_shared_zookeeper();
    let directory = cluster.path(suite);
    generate(suite, size, &directory);
    let daemons = cluster.start_all(["a", "b", "c"]);
    let seen = Client::connect(&daemons[0]).await;
    all_ready(&seen, &["a", "b", "c"]).await;
    let client = daemons[0].connect().await;
    client.batch_execute(&tables(&directory)).await.expect("tables");
    let (mut failures, mut together) = (Vec::new(), 0);
    for number in 1..=queries {
        let read = |kind| fs::read_to_string(directory.join(format!("q{number:02}.{kind}")));
        let (sql, answer) = (read("sql").expect("a query"), read("tsv").expect("an answer"));
        let answer = Answer::parse(&answer);
        for (distribution, partitions) in WAYS {
            let set = format!(
                "SET oribi.distribution = '{distribution}'; \
                 SET datafusion.execution.target_partitions = {partitions}"
            );
            client.batch_execute(&set).await.expect("settings");
            let compared = match texts(&client, &sql).await {
                Ok(rows) => answer.compare(rows),
                Err(error) => Err(error),
            };
            if let Err(difference) = compared {
                failures.push(format!("Q{number} ({distribution}, {partitions}): {difference}"));
            }
        }
        // As the last of them had it.
        let explained = texts(&client, &format!("EXPLAIN {sql}")).await.unwrap_or_default();
        let first = explained.into_iter().flatten().flatten().next().unwrap_or_default();
        together += usize::from(first.starts_with("Workers: a, b, c "));
    }
    assert!(failures.is_empty(), "{suite}:\n{}", failures.join("\n"));
    assert!(together >= spread, "only {together} queries ran on three daemons");
}

/// Makes a suite's tables, queries and answers.
fn generate(suite: &str, size: &str, directory: &Path) {
    let python = python::python_of(
        "ORIBI_TEST_DUCKDB",
        &["duckdb", "duckdb_extension_tpcds"],
        "duckdb==1.5.5 duckdb-extension-tpcds==1.5.5",
    );
    fs::create_dir(directory).expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/suites/{suite}.py"));
    python::run(Command::new(python).arg(script).arg(size).arg(directory));
}

/// The statements that make a table of each file.
fn tables(directory: &Path) -> String {
    let mut setup = String::new();
    for file in fs::read_dir(directory).expect("a directory") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|kind| kind == "parquet") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            setup += &format!(
                "CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}';",
                path.display()
            );
        }
    }
    setup
}
