//! A bucket that fails, is slow or does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::checker;
use crate::common::daemon::{Daemon, Options};
use crate::common::proxy::{Proxy, Rule, Trouble, Which};
use crate::common::s3::S3;
use crate::history::{Entry, History, Op, Outcome, Table};
use crate::mutate::Random;
use crate::support::{Client, bounded};
use crate::trouble::{Storage, answers_are_right_or_refused, what_waits_can_be_stopped};

struct Bucket {
    s3: S3,
    proxy: Proxy,
    options: Options,
}

impl Bucket {
    async fn new() -> Self {
        let s3 = tokio::task::block_in_place(super::server);
        let proxy = Proxy::start(s3.address()).await;
        let options = super::options(&s3).env("AWS_ENDPOINT_URL", endpoint(proxy.address));
        Self { s3, proxy, options }
    }
}

fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}")
}

impl Storage for Bucket {
    type Trouble = Rule;

    fn options(&self) -> Options {
        self.options.clone()
    }

    fn place(&self) -> String {
        "s3://lake/others/".to_owned()
    }

    fn put(&self, name: &str, content: &str) {
        let key = format!("others/{name}");
        self.s3.call("put_object", &json!({"Bucket": "lake", "Key": key, "Body": content}));
    }

    fn begin(&self, trouble: Rule) {
        self.proxy.set(Some(trouble));
    }

    fn end(&self) {
        self.proxy.set(None);
        println!("{:?} requests and those with trouble so far", self.proxy.counts());
    }

    fn troubles(&self) -> Vec<Rule> {
        let delay = Duration::from_millis(200);
        let rule = |trouble, percent| Rule { trouble, which: Which::All, percent, seed: percent };
        vec![
            rule(Trouble::Slow(delay), 50),
            rule(Trouble::Status(500), 100),
            rule(Trouble::Status(500), 30),
            rule(Trouble::Status(503), 30),
            rule(Trouble::Unanswered, 30),
            rule(Trouble::Cut, 100),
            rule(Trouble::Cut, 30),
            rule(Trouble::Short, 50),
            rule(Trouble::Silent, 20),
        ]
    }

    fn is_total(&self, rule: Rule) -> bool {
        rule.percent == 100 && !matches!(rule.trouble, Trouble::Slow(_))
    }

    fn silence(&self) -> Rule {
        Rule { trouble: Trouble::Silent, which: Which::All, percent: 100, seed: 1 }
    }

    fn struck(&self) -> u64 {
        self.proxy.counts().1 as u64
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_fails_is_never_answered_wrongly() {
    answers_are_right_or_refused(&Bucket::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_bucket_can_be_stopped() {
    what_waits_can_be_stopped(&Bucket::new().await).await;
}

/// Of a short run.
const SECONDS: u64 = 12;

/// How long a statement may take, retries of the store included.
const LONGEST: Duration = Duration::from_secs(8);

struct Work {
    daemon: Daemon,
    history: History,
    next: AtomicI64,
    over: AtomicBool,
}

impl Work {
    async fn go_on(self: Arc<Self>, number: u64, seed: u64) {
        let mut random = Random::new(seed ^ (number << 32));
        let client = Client::connect(&self.daemon).await;
        client.rows(&format!("SET statement_timeout = '{}s'", LONGEST.as_secs())).await;
        while !self.over.load(Ordering::Relaxed) {
            let newest = self.next.load(Ordering::Relaxed);
            let recent = newest - random.below(50) as i64;
            let (op, sql) = match random.below(10) {
                0..=4 => {
                    let count = [1, 2, 5][random.below(3)];
                    let first = self.next.fetch_add(count, Ordering::Relaxed);
                    let keys: Vec<i64> = (first..first + count).collect();
                    let rows: Vec<_> = keys.iter().map(|key| format!("({key})")).collect();
                    let sql = format!("INSERT INTO events VALUES {}", rows.join(", "));
                    (Op::Insert(Table::Events, keys), sql)
                }
                5 => {
                    let sql = format!("DELETE FROM events WHERE id = {recent}");
                    (Op::Delete(Table::Events, recent), sql)
                }
                _ => {
                    let (from, to) = (recent.max(0), recent.max(0) + 60);
                    let sql = format!("SELECT id FROM events WHERE id BETWEEN {from} AND {to}");
                    (Op::Read(Table::Events, from, to), sql)
                }
            };
            self.record(&client, number, op, &sql).await;
        }
    }

    async fn record(&self, client: &Client, session: u64, op: Op, sql: &str) {
        let start = self.history.now();
        let answer = client.run(sql).await;
        let end = self.history.now();
        let took = Duration::from_micros(end - start);
        assert!(took < 3 * LONGEST, "{sql}: {took:?}");
        let outcome = match answer {
            Ok((rows, count)) => match op {
                Op::Read(..) => {
                    let keys = rows.iter().flatten().map(|key| key.parse().expect("a number"));
                    Outcome::Keys(keys.collect())
                }
                _ => Outcome::Done(count),
            },
            Err(error) => {
                let error = crate::support::db_error(&error);
                let code = error.code().code().to_owned();
                assert!(
                    ["58030", "57014", "40001"].contains(&&*code),
                    "{sql}: {code} {}",
                    error.message()
                );
                Outcome::Refused(code)
            }
        };
        // One daemon knows all that was acknowledged.
        let (daemon, strong) = (0, true);
        self.history.add(Entry { session, daemon, strong, op, start, end, outcome });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failing_bucket_has_acknowledged_is_there_once() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seconds: u64 = setting("ORIBI_FAULTS_SECONDS").unwrap_or(SECONDS);
    let seed = setting("ORIBI_FAULTS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("ORIBI_FAULTS_SEED={seed} ORIBI_FAULTS_SECONDS={seconds}");
    let bucket = Bucket::new().await;
    let daemon = Daemon::start(&bucket.options().env("AWS_TIMEOUT", "3s"));
    Client::connect(&daemon).await.rows("CREATE TABLE events (id bigint)").await;
    let (history, next, over) = (History::new(), AtomicI64::new(0), AtomicBool::new(false));
    let work = Arc::new(Work { daemon, history, next, over });
    let mut clients = JoinSet::new();
    for number in 1..=6 {
        clients.spawn(work.clone().go_on(number, seed));
    }
    let mut random = Random::new(seed);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let slow = Trouble::Slow(Duration::from_millis(20 + random.next() % 400));
        let trouble = random.pick(&[
            slow,
            Trouble::Status(500),
            Trouble::Status(503),
            Trouble::Unanswered,
            Trouble::Cut,
            Trouble::Silent,
        ]);
        let which = random.pick(&[Which::Reads, Which::Writes, Which::All]);
        let percent = random.pick(&[10, 30, 60, 100]);
        bucket.proxy.set(Some(Rule { trouble, which, percent, seed: random.next() }));
        tokio::time::sleep(Duration::from_millis(300 + random.next() % 1500)).await;
        bucket.proxy.set(None);
        tokio::time::sleep(Duration::from_millis(random.next() % 500)).await;
    }
    work.over.store(true, Ordering::Relaxed);
    bounded(clients.join_all()).await;
    let client = Client::connect(&work.daemon).await;
    let all = Op::Read(Table::Events, i64::MIN, i64::MAX);
    work.record(&client, 0, all, "SELECT id FROM events").await;
    let entries = work.history.entries();
    let count = |which: fn(&Entry) -> bool| entries.iter().filter(|entry| which(entry)).count();
    let (done, refused) = (count(Entry::done), count(Entry::refused));
    let inserted = count(|entry| entry.done() && matches!(entry.op, Op::Insert(..)));
    println!(
        "{done} done, {inserted} of them insertions, {refused} refused; requests, with trouble: {:?}",
        bucket.proxy.counts()
    );
    assert!(inserted > 0 && bucket.proxy.counts().1 > 0);
    assert!(
        entries.last().is_some_and(Entry::done),
        "all is well in the end: {:?}",
        entries.last()
    );
    let violations = checker::rows(&entries, Table::Events);
    assert!(violations.is_empty(), "ORIBI_FAULTS_SEED={seed}: {violations:#?}");
    let log = work.daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    // Nothing is left of what was refused.
    client.rows("VACUUM events RETAIN '0s'").await;
    let named = client.value("SELECT count(*) FROM \"events$files\"").await;
    let found = bucket.s3.objects_like("warehouse/", ".parquet").len();
    assert_eq!(found.to_string(), named);
    assert_eq!(bucket.s3.uploads(), 0);
}
