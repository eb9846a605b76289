//! Storage that fails, is slow or does not answer: answers are right or refused and come in time, nothing
//! wrong is kept, statements can be stopped, and all is well as soon as it is over.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::common::daemon::Options;
use crate::support::{Client, Daemon, PATIENCE, bounded, until};

/// Of statements while there is trouble.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a busy machine may need besides.
const SLACK: Duration = Duration::from_secs(20);

/// Rows of each of the files that others have made.
const ROWS: i64 = 1000;

/// How often each statement is asked while there is trouble.
const TIMES: usize = 3;

/// What storage may be asked for that has failed, or could not be waited for.
const REFUSED: [&str; 2] = ["58030", "57014"];

/// Storage that can be had fail.
pub trait Storage {
    type Trouble: Copy + std::fmt::Debug;

    /// For a daemon with an empty warehouse in it, always on the same data.
    fn options(&self) -> Options;
    /// Where files of others lie, with a slash at the end.
    fn place(&self) -> String;
    /// Puts a file there.
    fn put(&self, name: &str, content: &str);
    fn begin(&self, trouble: Self::Trouble);
    fn end(&self);
    /// All kinds.
    fn troubles(&self) -> Vec<Self::Trouble>;
    /// Whether it strikes whatever is asked, and lets nothing go well.
    fn is_total(&self, trouble: Self::Trouble) -> bool;
    /// Nothing is answered while it lasts.
    fn silence(&self) -> Self::Trouble;
    /// How much of what was asked has had trouble so far.
    fn struck(&self) -> u64;
}

/// Statements, and their answers.
type Known = Vec<(String, Vec<Vec<String>>)>;

async fn set_up(storage: &impl Storage, client: &Client) -> Known {
    let line = |x: i64| (format!("{x},{}\n", x % 7), format!("{{\"x\":{x},\"k\":{}}}\n", x % 7));
    for file in 0..3 {
        let lines = (file * ROWS..(file + 1) * ROWS).map(line);
        let (csv, json): (String, String) = lines.unzip();
        storage.put(&format!("csv/{file}.csv"), &csv);
        storage.put(&format!("json/{file}.json"), &json);
    }
    let (place, range) = (storage.place(), format!("generate_series(0, {}) s(x)", 3 * ROWS - 1));
    for sql in [
        "CREATE TABLE managed (x bigint, k bigint) PARTITIONED BY (k)",
        &format!("INSERT INTO managed SELECT x, x % 7 FROM {range} WHERE x % 2 = 0"),
        &format!("INSERT INTO managed SELECT x, x % 7 FROM {range} WHERE x % 2 = 1"),
        "INSERT INTO managed VALUES (-1, 0), (-2, 1)",
        "DELETE FROM managed WHERE x < 0",
        &format!(
            "CREATE EXTERNAL TABLE csv (x bigint, k bigint) STORED AS CSV LOCATION '{place}csv/' \
             OPTIONS ('format.has_header' 'false')"
        ),
        &format!(
            "CREATE EXTERNAL TABLE json (x bigint, k bigint) STORED AS JSON LOCATION '{place}json/'"
        ),
    ] {
        client.rows(sql).await;
    }
    let id = client.value("SELECT oribi.submit('SELECT x, k FROM managed')").await;
    let state = client.value(&format!("SELECT oribi.wait('{id}', interval '1 minute')")).await;
    assert_eq!(state, "succeeded");
    known(&id)
}

fn known(id: &str) -> Known {
    let all = || 0..3 * ROWS;
    let one = |values: &[i64]| vec![values.iter().map(i64::to_string).collect::<Vec<_>>()];
    let sum = one(&[3 * ROWS, all().sum()]);
    let group = |k: i64| {
        let of = all().filter(|x| x % 7 == k);
        [k, of.clone().count() as i64, of.sum()].map(|value| value.to_string()).to_vec()
    };
    let mut known: Known = ["managed", "csv", "json"]
        .map(|table| (format!("SELECT count(*), sum(x) FROM {table}"), sum.clone()))
        .to_vec();
    known.extend([
        (format!("SELECT count(*), sum(x) FROM oribi.result('{id}')"), sum),
        (
            "SELECT k, count(*), sum(x) FROM managed GROUP BY k ORDER BY k".to_owned(),
            (0..7).map(group).collect(),
        ),
        ("SELECT k FROM managed WHERE x = 1234".to_owned(), one(&[1234 % 7])),
        ("SELECT count(*) FROM csv c JOIN managed m USING (x)".to_owned(), one(&[3 * ROWS])),
        (
            "SELECT max(x) FROM managed WHERE k = 3".to_owned(),
            one(&[all().filter(|x| x % 7 == 3).max().expect("some")]),
        ),
    ]);
    known
}

/// Asks for what is known while there is trouble: how often it was answered, and refused.
async fn ask(daemon: &Daemon, known: &Known, what: &str) -> [usize; 2] {
    let mut clients = JoinSet::new();
    for (sql, right) in known.clone() {
        let (client, what) = (Client::connect(daemon).await, what.to_owned());
        clients.spawn(async move {
            let timeout = format!("SET statement_timeout = '{}ms'", TIMEOUT.as_millis());
            client.rows(&timeout).await;
            let mut counts = [0, 0];
            for time in 0..TIMES {
                let cache = if time % 2 == 0 { "on" } else { "off" };
                client.rows(&format!("SET oribi.result_cache = {cache}")).await;
                let began = Instant::now();
                let answer = client.try_rows(&sql).await;
                let took = began.elapsed();
                assert!(took < TIMEOUT + SLACK, "{what}: {sql}: {took:?}");
                match answer {
                    Ok(rows) => {
                        assert_eq!(rows, right, "{what}: {sql}");
                        counts[0] += 1;
                    }
                    Err(error) => {
                        let error = crate::support::db_error(&error);
                        let code = error.code().code();
                        assert!(
                            REFUSED.contains(&code),
                            "{what}: {sql}: {code} {}",
                            error.message()
                        );
                        counts[1] += 1;
                    }
                }
            }
            counts
        });
    }
    let counts = clients.join_all().await;
    [0, 1].map(|which| counts.iter().map(|counts| counts[which]).sum())
}

/// Each is answered the first time that it is asked.
async fn all_is_well(daemon: &Daemon, known: &Known, what: &str) {
    let client = Client::connect(daemon).await;
    for (sql, right) in known {
        for cache in ["on", "off"] {
            client.rows(&format!("SET oribi.result_cache = {cache}")).await;
            let rows = client.try_rows(sql).await;
            let rows = rows.unwrap_or_else(|error| panic!("after {what}: {sql}: {error:?}"));
            assert_eq!(rows, *right, "after {what}: {sql}");
        }
    }
}

pub async fn answers_are_right_or_refused(storage: &impl Storage) {
    let daemon = Daemon::start(&storage.options());
    let known = set_up(storage, &Client::connect(&daemon).await).await;
    all_is_well(&daemon, &known, "nothing").await;
    drop(daemon);
    let mut answered = 0;
    for trouble in storage.troubles() {
        bounded(async {
            let what = format!("{trouble:?}");
            // It has read nothing yet.
            let daemon = Daemon::start(&storage.options());
            let before = storage.struck();
            storage.begin(trouble);
            let [right, refused] = ask(&daemon, &known, &what).await;
            storage.end();
            let struck = storage.struck() - before;
            let began = Instant::now();
            all_is_well(&daemon, &known, &what).await;
            let whole = began.elapsed();
            println!(
                "{what}: {right} right, {refused} refused, {struck} times struck; all asked again in \
                 {whole:.1?}"
            );
            assert!(struck > 0, "{what} strikes nothing");
            assert!(refused > 0 || !storage.is_total(trouble), "{what} is not noticed");
            answered += right;
            let log = daemon.log();
            assert!(!log.contains("panicked"), "{what}: {log}");
        })
        .await;
    }
    assert!(answered > 0, "what has no trouble is answered");
}

/// Whether a statement is at work here that begins like this.
async fn runs(client: &Client, begin: &str) -> bool {
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE";
    client.value(&format!("{running} '{begin}%'")).await == "1"
}

/// Until a statement waits for silent storage: it is at work, and storage was asked.
async fn waits(storage: &impl Storage, before: u64, beside: &Client, sql: &str) {
    until(&format!("{sql} waits for storage"), async || {
        storage.struck() > before && runs(beside, sql).await
    })
    .await;
}

pub async fn what_waits_can_be_stopped(storage: &impl Storage) {
    bounded(async {
        let options = storage.options().env("ORIBI_SHUTDOWN_DRAIN_TIMEOUT", "1s");
        let daemon = Daemon::start(&options);
        let known = set_up(storage, &Client::connect(&daemon).await).await;
        drop(daemon);
        let daemon = Daemon::start(&options);
        let beside = Client::connect(&daemon).await;
        storage.begin(storage.silence());
        for sql in [
            "SELECT sum(x) FROM csv",
            "SELECT sum(x) FROM managed",
            "INSERT INTO managed VALUES (1, 1)",
            "DELETE FROM managed WHERE x = 7",
        ] {
            let (client, before) = (Client::connect(&daemon).await, storage.struck());
            let cancel = client.cancel_token();
            let stuck = tokio::spawn(async move { client.outcome(sql).await });
            waits(storage, before, &beside, sql).await;
            let began = Instant::now();
            cancel.cancel_query(NoTls).await.expect("a request to cancel");
            assert_eq!(stuck.await.expect("a client"), "57014", "{sql}");
            assert!(began.elapsed() < SLACK, "{sql}: {:?}", began.elapsed());
        }
        storage.end();
        all_is_well(&daemon, &known, "statements that were stopped").await;
        drop(daemon);
        // The daemon itself as well, while statements wait for storage.
        let daemon = Daemon::start(&options);
        let (one, beside) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
        storage.begin(storage.silence());
        let before = storage.struck();
        let stuck = tokio::spawn(async move { one.try_rows("SELECT sum(x) FROM csv").await });
        waits(storage, before, &beside, "SELECT sum(x) FROM csv").await;
        let began = Instant::now();
        daemon.terminate();
        daemon.wait(PATIENCE);
        println!("a daemon whose storage is silent ends in {:.1?}", began.elapsed());
        assert!(stuck.await.expect("a client").is_err());
        storage.end();
        let daemon = Daemon::start(&options);
        all_is_well(&daemon, &known, "an end without storage").await;
    })
    .await;
}
