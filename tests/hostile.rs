//! Hostile files: Parquet files and the files of managed tables, damaged by a seed or made to do harm. Whatever
//! a file holds, a statement on it ends within a bound, with the right answer or with an error that names the
//! file; the daemon goes on, with bounded memory, and serves others meanwhile.
//!
//! A run is short by default. `ORIBI_HOSTILE_FILES` makes it longer, another `ORIBI_HOSTILE_SEED`
//! damages other bytes.

mod common;

#[path = "hostile/bombs.rs"]
mod bombs;
#[path = "hostile/crafted.rs"]
mod crafted;
#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/judge.rs"]
mod judge;
#[path = "fuzz/mutate.rs"]
#[allow(dead_code)]
mod mutate;
#[path = "hostile/tables.rs"]
mod tables;

use std::fs;
use std::path::Path;

use bombs::Fate;
use common::daemon::{Daemon, Options, explain};
use judge::{Judge, Refusal, Rows, setting};
use mutate::Random;
use tables::Template;

/// Damaged files of a short run.
const FILES: u64 = 300;

/// Columns that not even a damaged page index may have rows left out by.
const FILTERED: &str = "SELECT count(*), min(u), max(u) FROM t \
                        WHERE n BETWEEN 2000000 AND 9000000 AND s = 'word 7'";

fn seed() -> u64 {
    setting("ORIBI_HOSTILE_SEED").unwrap_or(101)
}

fn create(path: &Path) -> String {
    format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_parquet_files_do_no_harm() {
    let (seed, count) = (seed(), setting("ORIBI_HOSTILE_FILES").unwrap_or(FILES));
    println!("ORIBI_HOSTILE_SEED={seed} ORIBI_HOSTILE_FILES={count}");
    let options = Options::new();
    let mut judge = Judge::new(&options).await;
    let seeds = files::seeds();
    let statements = ["SELECT * FROM t", FILTERED, "SELECT count(*) FROM t"];
    let mut right = Vec::new();
    for seed in &seeds {
        let path = options.directory().join(format!("{}.parquet", seed.name));
        fs::write(&path, &seed.bytes).expect("it can be written");
        judge.rows(&create(&path)).await;
        let mut answers = Vec::new();
        for sql in statements {
            answers.push(judge.rows(sql).await);
        }
        judge.rows("DROP TABLE t").await;
        assert_eq!(answers[0].len(), 2_000, "{}", seed.name);
        assert_eq!(answers[2][0][0].as_deref(), Some("2000"), "{}", seed.name);
        assert_ne!(answers[1][0][0].as_deref(), Some("0"), "{}", seed.name);
        right.push(answers);
    }
    let mut random = Random::new(seed);
    for number in 0..count {
        let which = random.below(seeds.len());
        let (damage, bytes) = seeds[which].damaged(&mut random);
        let path = options.directory().join(format!("{seed}-{number}.parquet"));
        fs::write(&path, bytes).expect("it can be written");
        let file = judge::name(&path);
        println!("{file}: {damage} of {}", seeds[which].name);
        match judge.ask(&create(&path)).await {
            Ok(_) => {
                for (sql, right) in statements.iter().zip(&right[which]) {
                    // Twice: the second time from what is kept.
                    for _ in 0..2 {
                        let answer = judge.ask(sql).await;
                        judge.judge(damage, &[&file], &answer, right);
                    }
                }
                judge.rows("DROP TABLE t").await;
            }
            refused => judge.judge(damage, &[&file], &refused, &Vec::new()),
        }
        fs::remove_file(&path).expect("it can be removed");
    }
    judge.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_made_to_do_harm_are_refused() {
    let options = Options::new();
    let judge = Judge::new(&options).await;
    for (name, bytes, fate) in bombs::all() {
        let path = options.directory().join(format!("{name}.parquet"));
        fs::write(&path, bytes).expect("it can be written");
        // With its columns told nothing is looked at before it is read.
        let told = format!(
            "CREATE EXTERNAL TABLE t (c int) STORED AS PARQUET LOCATION '{}'",
            path.display()
        );
        for create in [create(&path), told] {
            let mut answer = judge.ask(&create).await;
            if answer.is_ok() {
                answer = judge.ask("SELECT c FROM t").await;
                judge.rows("DROP TABLE t").await;
            }
            match (&fate, answer) {
                (Fate::Read(value), Ok(rows)) => {
                    assert_eq!(rows, [[Some((*value).to_owned())]], "{name}");
                }
                // The file's column may be of another type than the one that was told.
                (_, Err(error)) if create.contains("(c int)") && error.code.starts_with("22") => {
                    assert!(error.message.contains(&judge::name(&path)), "{name}: {error:?}");
                }
                (Fate::Refused(code, words), Err(error)) => {
                    assert_eq!(error.code, *code, "{name}: {error:?}");
                    assert!(error.message.contains(&judge::name(&path)), "{name}: {error:?}");
                    assert!(error.message.contains(words), "{name}: {error:?}");
                }
                (_, answer) => panic!("{name}: {answer:?}"),
            }
        }
    }
    judge.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_tables_do_no_harm() {
    let (seed, count) = (seed(), setting("ORIBI_HOSTILE_FILES").unwrap_or(FILES) / 2);
    println!("ORIBI_HOSTILE_SEED={seed} ORIBI_HOSTILE_FILES={}", count * 2);
    let options = Options::new();
    let mut judge = Judge::new(&options).await;
    judge.rows("CREATE TABLE base AS SELECT n, 'text ' || n AS s FROM generate_series(1, 100) AS g (n)").await;
    for n in 1..=3 {
        judge.rows(&format!("INSERT INTO base VALUES ({}, 'more')", n * 1000)).await;
        judge.rows(&format!("DELETE FROM base WHERE n = {n}")).await;
    }
    let statements =
        ["SELECT n, s FROM t ORDER BY n", "SELECT count(*), sum(n) FROM t WHERE n > 50"];
    let mut right = Vec::new();
    for sql in statements {
        right.push(judge.rows(&sql.replace("FROM t", "FROM base")).await);
    }
    let location = "SELECT metadata_location FROM system.tables WHERE name = 'base'";
    let location = judge.rows(location).await[0][0].clone().expect("a place");
    let template = Template::new(&location);
    // No table is in the catalog twice.
    judge.rows("DROP TABLE base").await;
    let mut random = Random::new(seed);
    for number in 0..count {
        let (damage, copy) = template.damaged(number, &mut random);
        println!("{}: {damage}, {}", copy.root.display(), copy.file);
        match judge.ask(&format!("CALL oribi.adopt('t', '{}')", copy.metadata)).await {
            Ok(_) => {
                for (sql, right) in statements.iter().zip(&right) {
                    let answer = judge.ask(sql).await;
                    judge_copy(&mut judge, damage, &copy, &answer, right);
                }
                let change = judge.ask("INSERT INTO t VALUES (5, 'new')").await;
                drop(change);
                judge.rows("DROP TABLE t").await;
            }
            refused => judge_copy(&mut judge, damage, &copy, &refused, &Vec::new()),
        }
        fs::remove_dir_all(&copy.root).expect("it can be removed");
    }
    assert_eq!(template.url(), location.trim_start_matches("file://"));
    judge.end().await;
}

/// Judges an answer about a damaged table. Another file may be the one that cannot be read, if the damage is in
/// where it should be.
fn judge_copy(
    judge: &mut Judge,
    damage: &str,
    copy: &tables::Copy,
    answer: &Result<Rows, Refusal>,
    right: &Rows,
) {
    let root = judge::name(&copy.root);
    let place = answer.as_ref().err().and_then(|refusal| copy.place(&refusal.message));
    let names = [root.as_str(), "/warehouse/"].into_iter().chain(tables::ELSEWHERE);
    let names: Vec<_> = names.chain(place.as_deref()).collect();
    judge.judge(damage, &names, answer, right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_statement_alone() {
    let options = Options::new();
    let now = options.directory().join("now");
    let options = options
        .env("ORIBI_FAULT", "a plan begins")
        .env("ORIBI_FAULT_BY", "panic")
        .env("ORIBI_FAULT_WHEN", &now);
    let daemon = Daemon::start(&options);
    let (client, other) = (daemon.connect().await, daemon.connect().await);
    let sql = "SELECT sum(n) FROM generate_series(1, 1000) AS s (n)";
    let sum = async |client: &tokio_postgres::Client| {
        client.query_one(sql, &[]).await.map(|row| row.get::<_, i64>(0))
    };
    assert_eq!(sum(&client).await.expect("nothing has failed yet"), 500_500);
    other.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT 7").await.expect("a cursor");
    fs::write(&now, "").expect("it can be written");
    let error = sum(&client).await.expect_err("it panics");
    fs::remove_file(&now).expect("it can be removed");
    let code = error.code().map(|code| code.code().to_owned());
    assert_eq!(code.as_deref(), Some("XX000"), "{}", explain(&error));
    // The same session goes on, and so do others in the middle of something.
    assert_eq!(sum(&client).await.expect("it was one statement"), 500_500);
    assert_eq!(other.query("FETCH c", &[]).await.expect("its cursor is there").len(), 1);
    assert!(daemon.ended().is_none());
    assert!(daemon.log().contains("and a test wants a panic"));
}
