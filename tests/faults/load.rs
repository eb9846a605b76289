//! Clients that work all the time, each in its own way, on whichever daemon answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::history::{Entry, History, Op, Outcome, Table};
use crate::mutate::Random;
use crate::world::World;

/// How long a client waits for an answer before it gives up its connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Statements on one connection before the next one is taken.
const EXCHANGES: u64 = 40;

/// What accounts and vault hold together: half of it each to begin with, and the purses as much as a half.
pub const TOTAL: i64 = 2000;

/// What both hold, and the vault without what the ledger knows of.
pub const ACROSS: &str = "SELECT (SELECT sum(balance) FROM accounts) + (SELECT sum(balance) FROM vault), \
     (SELECT sum(balance) FROM vault) - (SELECT coalesce(sum(amount), 0) FROM ledger)";

/// Rows of the table that nobody changes, and its groups.
pub const FACTS: i64 = 20_000;
const GROUPS: i64 = 7;

/// How long names of tables are in use before others are: what happens under one name stays short enough
/// to be checked.
const EPOCH: Duration = Duration::from_secs(15);

/// Values of the setting that is set: in milliseconds, and never a whole second.
pub const FIRST_SETTING: i64 = 1_000_001;

/// What names of roles begin with that come and go.
pub const ROLE: &str = "role_";

pub struct Reply {
    pub rows: Vec<Vec<String>>,
    pub count: u64,
}

#[derive(Clone, Debug)]
pub enum Failure {
    /// By the daemon: the code, and the message.
    Refused(String, String),
    /// Nobody knows.
    Lost(String),
}

/// A connection to a daemon.
pub struct Session {
    client: Client,
    pub daemon: usize,
    pub number: u64,
    pub strong: bool,
}

impl Session {
    pub async fn connect(world: &World, daemon: usize, strong: bool) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let address = world.slots[daemon].postgres;
        let mut config = tokio_postgres::Config::new();
        config.host(address.ip().to_string()).port(address.port()).user("oribi").dbname("oribi");
        let connected = timeout(PATIENCE / 4, config.connect(NoTls)).await;
        let connected = connected.map_err(|_| "no answer".to_owned())?;
        let (client, connection) = connected.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let session = Self { client, daemon, number, strong };
        if strong {
            let set = session.run("SET oribi.consistency = 'strong'").await;
            set.map_err(|failure| format!("{failure:?}"))?;
        }
        Ok(session)
    }

    pub async fn run(&self, sql: &str) -> Result<Reply, Failure> {
        let answer = timeout(PATIENCE, self.client.simple_query(sql)).await;
        let Ok(answer) = answer else { return Err(Failure::Lost("no answer".to_owned())) };
        let messages = answer.map_err(|error| match error.as_db_error() {
            // The daemon itself does not know.
            Some(told) if told.code().code() == "08007" => Failure::Lost(told.message().to_owned()),
            Some(told) => {
                Failure::Refused(told.code().code().to_owned(), told.message().to_owned())
            }
            None => Failure::Lost(error.to_string()),
        })?;
        let mut reply = Reply { rows: Vec::new(), count: 0 };
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let value = |at| row.get(at).unwrap_or_default().to_owned();
                    reply.rows.push((0..row.len()).map(value).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => reply.count = count,
                _ => {}
            }
        }
        Ok(reply)
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Reply {
    fn number(&self, column: usize) -> Option<i64> {
        self.rows.first()?.get(column)?.parse().ok()
    }
}

/// What the clients share.
pub struct Load {
    world: Arc<World>,
    history: Arc<History>,
    over: AtomicBool,
    next_key: AtomicI64,
    next_transfer: AtomicI64,
    next_submitted: AtomicI64,
    next_value: AtomicI64,
    next_setting: AtomicI64,
    /// The latest round of names of roles.
    roles: AtomicU64,
}

/// Ways to work, and how many clients work so.
const CLIENTS: &[(Work, usize)] = &[
    (Work::Insert, 3),
    (Work::Delete, 1),
    (Work::Read, 2),
    (Work::Transfer, 1),
    (Work::Shift, 2),
    (Work::Sum, 2),
    (Work::Ddl, 3),
    (Work::Submit, 1),
    (Work::Set, 1),
    (Work::Facts, 2),
];

#[derive(Clone, Copy, Debug)]
enum Work {
    Insert,
    Delete,
    Read,
    Transfer,
    Shift,
    Sum,
    Ddl,
    Submit,
    Set,
    Facts,
}

/// Snapshots of tables that are written all the time go soon.
const SHORT: &str = "WITH (\"history.expire.max-snapshot-age-ms\" = '60000', \
                     \"history.expire.max-snapshots-to-keep\" = '20')";

/// Makes what the clients work on.
pub async fn set_up(session: &Session) {
    let half = TOTAL / 10;
    for statement in [
        &*format!("CREATE TABLE events (id bigint) {SHORT}"),
        &format!("CREATE TABLE ledger (id bigint, amount bigint) {SHORT}"),
        &format!("CREATE TABLE done (id bigint) {SHORT}"),
        &format!("CREATE TABLE probe (n bigint) {SHORT}"),
        "INSERT INTO probe VALUES (0)",
        &format!(
            "CREATE TABLE accounts {SHORT} AS SELECT x AS id, {half}::bigint AS balance FROM generate_series(1, 5) s(x)"
        ),
        &format!(
            "CREATE TABLE vault {SHORT} AS SELECT x AS id, {half}::bigint AS balance FROM generate_series(1, 5) s(x)"
        ),
        &format!("CREATE TABLE purses {SHORT} AS SELECT * FROM accounts"),
        "CREATE TABLE facts (k bigint, v bigint)",
    ] {
        done(session, statement).await;
    }
    for part in 0..4 {
        let (from, to) = (part * FACTS / 4, (part + 1) * FACTS / 4 - 1);
        let statement = format!(
            "INSERT INTO facts SELECT x % {GROUPS}, x FROM generate_series({from}, {to}) s(x)"
        );
        done(session, &statement).await;
    }
}

async fn done(session: &Session, statement: &str) {
    if let Err(failure) = session.run(statement).await {
        panic!("{statement}: {failure:?}");
    }
}

/// Queries over what nobody changes, with their answers.
pub fn facts() -> Vec<(String, Vec<Vec<String>>)> {
    let sum = |k: i64| (0..FACTS).filter(|x| x % GROUPS == k).sum::<i64>();
    let count = |k: i64| (0..FACTS).filter(|x| x % GROUPS == k).count();
    let group = |k: i64| vec![k.to_string(), count(k).to_string(), sum(k).to_string()];
    let text = |values: &[i64]| vec![values.iter().map(i64::to_string).collect::<Vec<_>>()];
    vec![
        (
            "SELECT k, count(*), sum(v) FROM facts GROUP BY k ORDER BY k".to_owned(),
            (0..GROUPS).map(group).collect(),
        ),
        (
            "SELECT count(*), sum(a.v) FROM facts a JOIN facts b ON a.v = b.v".to_owned(),
            text(&[FACTS, FACTS * (FACTS - 1) / 2]),
        ),
        ("SELECT v FROM facts ORDER BY v DESC LIMIT 1".to_owned(), text(&[FACTS - 1])),
        ("SELECT k FROM facts WHERE v = 12345".to_owned(), text(&[12345 % GROUPS])),
    ]
}

impl Load {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        let history = world.history.clone();
        let (next_key, next_transfer, next_submitted, next_value) = Default::default();
        let next_setting = AtomicI64::new(FIRST_SETTING);
        let (over, roles) = (AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self {
            world,
            history,
            over,
            next_key,
            next_transfer,
            next_submitted,
            next_value,
            next_setting,
            roles,
        })
    }

    /// Sets all clients to work.
    pub fn begin(self: &Arc<Self>, seed: u64) -> JoinSet<()> {
        let (mut clients, mut number) = (JoinSet::new(), 0);
        for (work, count) in CLIENTS {
            for which in 0..*count {
                number += 1;
                let random = Random::new(seed ^ (number << 32));
                let mut client = Worker { load: self.clone(), random, strong: which % 2 == 0 };
                clients.spawn(async move { client.work(*work).await });
            }
        }
        clients
    }

    /// Has all clients end with what they are at.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

struct Worker {
    load: Arc<Load>,
    random: Random,
    strong: bool,
}

impl Worker {
    async fn work(&mut self, work: Work) {
        let mut keep = Vec::new();
        while !self.load.over() {
            // Changes are made where all that was acknowledged is known.
            let strong = self.strong || !matches!(work, Work::Read | Work::Sum | Work::Insert);
            let daemon = self.random.below(3);
            let Ok(session) = Session::connect(&self.load.world, daemon, strong).await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            if matches!(work, Work::Facts) && !self.prepare_facts(&session).await {
                continue;
            }
            for _ in 0..EXCHANGES {
                if self.load.over() || session.is_closed() {
                    break;
                }
                let lost = match work {
                    Work::Insert => self.insert(&session).await,
                    Work::Delete => self.delete(&session).await,
                    Work::Read => self.read(&session).await,
                    Work::Transfer => self.transfer(&session).await,
                    Work::Shift => self.shift(&session).await,
                    Work::Sum => self.sum(&session).await,
                    Work::Ddl => self.ddl(&session).await,
                    Work::Submit => self.submit(&session, &mut keep).await,
                    Work::Set => self.set(&session).await,
                    Work::Facts => self.fact(&session).await,
                };
                if lost {
                    break;
                }
                sleep(Duration::from_millis(self.random.next() % 60)).await;
            }
        }
    }

    /// Runs a statement and writes down what came of it; whether the connection is of no use any more.
    async fn record(
        &self,
        session: &Session,
        op: Op,
        sql: &str,
        outcome: impl FnOnce(&Reply) -> Outcome,
    ) -> bool {
        let start = self.load.history.now();
        let answer = session.run(sql).await;
        let (outcome, lost) = match answer {
            Ok(reply) => (outcome(&reply), false),
            Err(failure) => self.failed(&failure, sql),
        };
        self.note(session, op, start, outcome);
        lost
    }

    fn failed(&self, failure: &Failure, sql: &str) -> (Outcome, bool) {
        match failure {
            Failure::Refused(code, message) => {
                // A defect, by its own words.
                if code == "XX000" {
                    self.load.history.violation(format!("{sql}: {code} {message}"));
                }
                (Outcome::Refused(code.clone()), code.starts_with("57P"))
            }
            Failure::Lost(why) => (Outcome::Unknown(why.clone()), true),
        }
    }

    fn note(&self, session: &Session, op: Op, start: u64, outcome: Outcome) {
        let (number, daemon, strong) = (session.number, session.daemon, session.strong);
        let end = self.load.history.now();
        self.load.history.add(Entry { session: number, daemon, strong, op, start, end, outcome });
    }

    async fn insert(&mut self, session: &Session) -> bool {
        let count = [1, 1, 2, 5][self.random.below(4)];
        let first = self.load.next_key.fetch_add(count, Ordering::Relaxed);
        let keys: Vec<i64> = (first..first + count).collect();
        let rows: Vec<_> = keys.iter().map(|key| format!("({key})")).collect();
        let sql = format!("INSERT INTO events VALUES {}", rows.join(", "));
        let op = Op::Insert(Table::Events, keys);
        let lost = self.record(session, op, &sql, |reply| Outcome::Done(reply.count)).await;
        if lost || !self.random.chance(20) {
            return lost;
        }
        // What a session has written it sees, also where it does not ask the store first.
        self.read_from(session, first).await
    }

    /// A key of the last ones.
    fn recent(&mut self) -> i64 {
        let newest = self.load.next_key.load(Ordering::Relaxed);
        newest - i64::try_from(self.random.below(200)).expect("small")
    }

    async fn delete(&mut self, session: &Session) -> bool {
        let key = self.recent();
        if key < 0 {
            return false;
        }
        let sql = format!("DELETE FROM events WHERE id = {key}");
        let op = Op::Delete(Table::Events, key);
        self.record(session, op, &sql, |reply| Outcome::Done(reply.count)).await
    }

    async fn read(&mut self, session: &Session) -> bool {
        let from = self.recent().max(0);
        self.read_from(session, from).await
    }

    async fn read_from(&self, session: &Session, from: i64) -> bool {
        let to = from + 60;
        let sql = format!("SELECT id FROM events WHERE id BETWEEN {from} AND {to}");
        self.record(session, Op::Read(Table::Events, from, to), &sql, keys).await
    }

    /// From an account into the vault, or back; in a transaction with a line in the ledger.
    async fn transfer(&mut self, session: &Session) -> bool {
        let key = self.load.next_transfer.fetch_add(1, Ordering::Relaxed);
        let amount = i64::try_from(self.random.below(9)).expect("small") - 4;
        let (from, to) = (1 + self.random.below(5), 1 + self.random.below(5));
        let op = Op::Insert(Table::Ledger, vec![key]);
        let start = self.load.history.now();
        for sql in [
            "BEGIN",
            &format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {from}"),
            &format!("UPDATE vault SET balance = balance + {amount} WHERE id = {to}"),
            &format!("INSERT INTO ledger VALUES ({key}, {amount})"),
        ] {
            let Err(failure) = session.run(sql).await else { continue };
            // Nothing was committed: no word of it was said.
            let (outcome, lost) = match self.failed(&failure, sql) {
                (Outcome::Unknown(_), lost) => (Outcome::Refused("08006".to_owned()), lost),
                refused => refused,
            };
            self.note(session, op, start, outcome);
            return lost || session.run("ROLLBACK").await.is_err();
        }
        let answer = session.run("COMMIT").await;
        let (outcome, lost) = match answer {
            Ok(_) => (Outcome::Done(1), false),
            Err(failure) => self.failed(&failure, "COMMIT"),
        };
        self.note(session, op, start, outcome);
        lost
    }

    async fn sum(&mut self, session: &Session) -> bool {
        if self.random.chance(30) {
            return self.record(session, Op::Across, ACROSS, sums).await;
        }
        self.record(session, Op::Sum, "SELECT sum(balance) FROM purses", sums).await
    }

    /// From one to another of the accounts in one table, by one statement or two in a block.
    async fn shift(&mut self, session: &Session) -> bool {
        let amount = 1 + self.random.below(9);
        let from = 1 + self.random.below(5);
        let to = 1 + (from + self.random.below(4)) % 5;
        let at_once = format!(
            "UPDATE purses SET balance = balance + CASE id WHEN {from} THEN -{amount} ELSE {amount} END \
             WHERE id IN ({from}, {to})"
        );
        let take = format!("UPDATE purses SET balance = balance - {amount} WHERE id = {from}");
        let give = format!("UPDATE purses SET balance = balance + {amount} WHERE id = {to}");
        let statements: &[&str] =
            if self.random.chance(50) { &[&at_once] } else { &["BEGIN", &take, &give, "COMMIT"] };
        let start = self.load.history.now();
        for sql in statements {
            let Err(failure) = session.run(sql).await else { continue };
            let (outcome, lost) = self.failed(&failure, sql);
            self.note(session, Op::Shift, start, outcome);
            return lost || session.run("ROLLBACK").await.is_err();
        }
        self.note(session, Op::Shift, start, Outcome::Done(2));
        false
    }

    async fn ddl(&mut self, session: &Session) -> bool {
        let epoch = self.load.history.now() / u64::try_from(EPOCH.as_micros()).expect("short");
        let which = self.random.below(2);
        let name = format!("ddl_{epoch}_{which}");
        // Once somebody may have dropped it, none is made of the same name: what belongs to a role that is
        // gone would belong to that one.
        let newest = self.load.roles.load(Ordering::SeqCst);
        let round = newest.saturating_sub(self.random.next() % 2);
        let role = |round| format!("{ROLE}{epoch}_{which}_{round}");
        match self.random.below(8) {
            0..=2 => {
                let value = self.load.next_value.fetch_add(1, Ordering::Relaxed);
                let sql = format!("CREATE TABLE {name} AS SELECT {value}::bigint AS v");
                let op = Op::Create(name, value);
                self.record(session, op, &sql, |_| Outcome::Done(1)).await
            }
            3 => {
                let sql = format!("DROP TABLE {name}");
                self.record(session, Op::Drop(name), &sql, |_| Outcome::Done(1)).await
            }
            4 => {
                let value = self.load.next_value.fetch_add(1, Ordering::Relaxed);
                let role = role(newest);
                let sql = format!("CREATE ROLE {role} CONNECTION LIMIT {value}");
                let op = Op::Create(role, value);
                self.record(session, op, &sql, |_| Outcome::Done(1)).await
            }
            5 if self.random.chance(50) => {
                self.load.roles.fetch_max(round + 1, Ordering::SeqCst);
                let role = role(round);
                let sql = format!("DROP ROLE {role}");
                self.record(session, Op::Drop(role), &sql, |_| Outcome::Done(1)).await
            }
            5 => {
                // Whoever owns a table in the end is there.
                let sql = format!("ALTER TABLE {name} OWNER TO {}", role(round));
                let answer = session.run(&sql).await;
                answer.is_err_and(|failure| self.failed(&failure, &sql).1)
            }
            _ => self.look(session, &name).await,
        }
    }

    async fn look(&self, session: &Session, name: &str) -> bool {
        let sql = format!("SELECT v FROM {name}");
        let start = self.load.history.now();
        let (outcome, lost) = match session.run(&sql).await {
            Ok(reply) if reply.rows.len() == 1 => (Outcome::Held(reply.number(0)), false),
            Ok(reply) => {
                self.load.history.violation(format!("{name} holds {:?}", reply.rows));
                return false;
            }
            Err(Failure::Refused(code, _)) if code == "42P01" => (Outcome::Held(None), false),
            Err(failure) => self.failed(&failure, &sql),
        };
        self.note(session, Op::Look(name.to_owned()), start, outcome);
        lost
    }

    /// Again with the same key as long as nobody knows.
    async fn submit(&mut self, session: &Session, open: &mut Vec<i64>) -> bool {
        let next = || self.load.next_submitted.fetch_add(1, Ordering::Relaxed);
        let key = open.pop().unwrap_or_else(next);
        let sql = format!(
            "SELECT oribi.submit('INSERT INTO done VALUES ({key})', '{{\"key\": \"key-{key}\"}}')"
        );
        let mut known = false;
        let lost = self.record(session, Op::Submit(key), &sql, |reply| {
            known = true;
            Outcome::Id(reply.rows.concat().concat())
        });
        let lost = lost.await;
        if !known && lost {
            open.push(key);
        }
        sleep(Duration::from_millis(100)).await;
        lost
    }

    async fn set(&mut self, session: &Session) -> bool {
        let value = self.load.next_setting.fetch_add(1000, Ordering::Relaxed);
        let sql = format!("ALTER SYSTEM SET statement_timeout = '{value}ms'");
        let lost = self.record(session, Op::Set(value), &sql, |_| Outcome::Done(1)).await;
        sleep(Duration::from_millis(500)).await;
        lost
    }

    async fn prepare_facts(&mut self, session: &Session) -> bool {
        let how = self.random.pick(&["always", "always", "off"]);
        let sql = format!("SET oribi.distribution = '{how}'");
        session.run(&sql).await.is_ok() && session.run("SET oribi.result_cache = off").await.is_ok()
    }

    async fn fact(&mut self, session: &Session) -> bool {
        let all = facts();
        let which = self.random.below(all.len());
        let (sql, right) = &all[which];
        let mut wrong = None;
        let lost = self.record(session, Op::Fact(which), sql, |reply| {
            if reply.rows != *right {
                wrong = Some(reply.rows.clone());
            }
            Outcome::Done(1)
        });
        let lost = lost.await;
        if let Some(wrong) = wrong {
            self.load.history.violation(format!("{sql}: {wrong:?} instead of {right:?}"));
        }
        lost
    }
}

fn sums(reply: &Reply) -> Outcome {
    let sums = reply.rows.iter().flatten().map(|sum| sum.parse().unwrap_or(i64::MIN));
    Outcome::Keys(sums.collect())
}

fn keys(reply: &Reply) -> Outcome {
    let keys = reply.rows.iter().flatten().map(|key| key.parse().expect("a number"));
    Outcome::Keys(keys.collect())
}
