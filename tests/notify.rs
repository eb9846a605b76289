//! LISTEN and NOTIFY on whole daemons: what arrives where, when, in which order, and that nothing is
//! lost without a word.

mod common;

#[path = "clients/python.rs"]
mod python;
#[path = "cluster/support.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use common::link::{Link, State};
use serde_json::Value;
use support::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, NoTls, Notification};

/// A client that hears.
struct Listener {
    client: tokio_postgres::Client,
    heard: UnboundedReceiver<Notification>,
    warnings: UnboundedReceiver<String>,
    connection: JoinHandle<Option<tokio_postgres::Error>>,
}

impl Listener {
    async fn on(daemon: &Daemon, statements: &str) -> Self {
        Self::of_role(daemon, "oribi", statements).await
    }

    async fn of_role(daemon: &Daemon, role: &str, statements: &str) -> Self {
        let mut config = daemon.client_config();
        let (client, mut connection) = config.user(role).connect(NoTls).await.expect("a client");
        let (hear, heard) = unbounded_channel();
        let (warn, warnings) = unbounded_channel();
        let connection = tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        let _ = hear.send(notification);
                    }
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        let _ = warn.send(notice.message().to_owned());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Some(error),
                    None => return None,
                }
            }
        });
        let listener = Self { client, heard, warnings, connection };
        listener.run(statements).await;
        listener
    }

    async fn run(&self, statements: &str) {
        let done = self.client.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    async fn refused(&self, statements: &str) -> String {
        let error = self.client.batch_execute(statements).await.expect_err(statements);
        db_error(&error).code().code().to_owned()
    }

    /// The next that comes, as `channel payload`, with nothing asked of the daemon.
    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("one in time");
        let next = next.expect("the connection lives");
        format!("{} {}", next.channel(), next.payload())
    }

    /// The payload of the next.
    async fn json(&mut self) -> Value {
        let next = self.next().await;
        let (_, payload) = next.split_once(' ').expect("a payload");
        serde_json::from_str(payload).unwrap_or_else(|error| panic!("{payload}: {error}"))
    }

    /// The payload of the next that tells of such an event.
    async fn event(&mut self, event: &str, key: &str, value: &str) -> Value {
        loop {
            let payload = self.json().await;
            if payload["event"] == event && payload[key] == value {
                return payload;
            }
        }
    }

    /// What has come by now: all that was there before a question was answered.
    async fn all(&mut self) -> Vec<String> {
        self.run("SELECT 1").await;
        let mut all = Vec::new();
        while let Ok(next) = self.heard.try_recv() {
            all.push(format!("{} {}", next.channel(), next.payload()));
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_counts_with_the_commit() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let mut hears = Listener::on(&daemon, "LISTEN c; LISTEN \"D\"; LISTEN c").await;
    let says = Listener::on(&daemon, "").await;

    // To a client that does nothing.
    says.run("NOTIFY c, 'at once'").await;
    assert_eq!(hears.next().await, "c at once");
    says.run("NOTIFY \"D\"; NOTIFY other, 'unheard'").await;
    assert_eq!(hears.next().await, "D ");

    says.run("BEGIN; NOTIFY c, '1'; SELECT pg_notify('c', '2'); NOTIFY c, '1'").await;
    assert!(hears.all().await.is_empty());
    says.run("SAVEPOINT s; NOTIFY c, 'taken back'; ROLLBACK TO s; NOTIFY c, '3'; COMMIT").await;
    assert_eq!([hears.next().await, hears.next().await, hears.next().await], ["c 1", "c 2", "c 3"]);
    says.run("BEGIN; NOTIFY c, 'never'; ROLLBACK").await;
    says.refused("BEGIN; NOTIFY c, 'never'; SELECT 1 / 0").await;
    says.run("COMMIT").await;
    assert!(hears.all().await.is_empty());

    // Within a transaction nothing comes; at its end all does.
    hears.run("BEGIN; SELECT 1").await;
    says.run("NOTIFY c, 'later'").await;
    assert!(hears.all().await.is_empty());
    hears.run("COMMIT").await;
    assert_eq!(hears.all().await, ["c later"]);

    // A transaction that begins to listen, and says something itself.
    let mut own = Listener::on(&daemon, "BEGIN; LISTEN own; NOTIFY own, 'me'; COMMIT").await;
    assert_eq!(own.all().await, ["own me"]);
    own.run("BEGIN; LISTEN never; ROLLBACK; NOTIFY never; BEGIN; UNLISTEN own; ROLLBACK").await;
    own.run("NOTIFY own, 'still'").await;
    assert_eq!(own.all().await, ["own still"]);
    let says = Client::connect(&daemon).await;
    for (sql, code) in [
        ("SELECT pg_notify('', 'x')", "22023"),
        ("SELECT pg_notify(NULL, 'x')", "22023"),
        ("SELECT pg_notify('c', repeat('x', 8000))", "22023"),
        ("NOTIFY members, 'x'", "42939"),
        ("NOTIFY c, 1", "42601"),
        ("LISTEN", "42601"),
    ] {
        assert_eq!(says.outcome(sql).await, code, "{sql}");
    }
    says.rows("SELECT pg_notify('c', repeat('x', 7999))").await;
    assert_eq!(hears.next().await.len(), 8001);
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_listed_and_left() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let listed = async || {
        let rows = client.rows("SELECT * FROM pg_listening_channels() ORDER BY 1").await;
        let same = client.rows("SELECT pg_listening_channels()").await;
        assert_eq!(rows.len(), same.len());
        rows.into_iter().flatten().collect::<Vec<_>>()
    };
    assert!(listed().await.is_empty());
    client.rows("LISTEN b; LISTEN a; LISTEN members").await;
    assert_eq!(listed().await, ["a", "b", "members"]);
    client.rows("UNLISTEN a; UNLISTEN nothing").await;
    assert_eq!(listed().await, ["b", "members"]);
    client.rows("DISCARD ALL").await;
    assert!(listed().await.is_empty());
    client.rows("LISTEN b").await;
    client.rows("UNLISTEN *").await;
    assert!(listed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_hear_all_daemons_while_one_is_killed() {
    let python = python::python(&["psycopg", "asyncpg"], "psycopg[binary] asyncpg");
    let cluster = Cluster::on_shared_zookeeper();
    let [a, b, c] = cluster.start_all(["a", "b", "c"]);
    for daemon in [&a, &b, &c] {
        all_ready(&Client::connect(daemon).await, &["a", "b", "c"]).await;
    }
    let (arriving, killed) = (cluster.path("arriving"), cluster.path("killed"));
    let mut script = Command::new(python);
    script.arg("tests/notify/drivers.py");
    script.args([&a, &b, &c].map(|daemon| daemon.postgres().to_string()));
    script.args([&arriving, &killed]);
    let running = tokio::task::spawn_blocking(move || python::run(&mut script));
    until("notifications arrive", async || arriving.exists() || running.is_finished()).await;
    c.kill();
    std::fs::write(&killed, "").expect("a file");
    let printed = running.await.expect("the script ends well");
    assert_eq!(printed.trim(), "all heard, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_is_named_and_hears_later() {
    let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "60s");
    let [a, b] = cluster.start_all(["a", "b"]);
    let mut says = Listener::on(&a, "").await;
    all_ready(&Client::connect(&a).await, &["a", "b"]).await;
    all_ready(&Client::connect(&b).await, &["a", "b"]).await;
    let mut hears = Listener::on(&b, "LISTEN c").await;
    says.run("NOTIFY c, '1'").await;
    assert_eq!(hears.next().await, "c 1");
    assert!(says.warnings.try_recv().is_err());

    b.pause();
    let began = Instant::now();
    says.run("NOTIFY c, '2'").await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let warning = says.warnings.recv().await.expect("a warning");
    assert!(warning.contains("\"b\""), "{warning}");
    says.run("NOTIFY c, '3'").await;
    b.resume();
    assert_eq!([hears.next().await, hears.next().await], ["c 2", "c 3"]);
    says.run("NOTIFY c, '4'").await;
    assert_eq!(hears.next().await, "c 4");
    assert!(hears.all().await.is_empty(), "nothing is doubled");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_out_of_the_cluster_is_told() {
    let cluster = Cluster::on_shared_zookeeper();
    let [a, b] = cluster.start_all(["a", "b"]);
    let on_a = Client::connect(&a).await;
    all_ready(&on_a, &["a", "b"]).await;
    let hears = Listener::on(&b, "LISTEN c").await;
    let other = Listener::on(&b, "LISTEN members").await;
    b.pause();
    all_ready(&on_a, &["a"]).await;
    on_a.rows("NOTIFY c, 'missed'").await;
    b.resume();
    let ended = tokio::time::timeout(PATIENCE, hears.connection).await.expect("an end");
    let error = ended.expect("the task ends").expect("a reason");
    let error = db_error(&error);
    assert!(error.message().contains("out of the cluster"), "{error:?}");
    // Nobody sends what the daemon sees for itself.
    other.run("SELECT 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_see_others_join_is_warned() {
    let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "60s");
    let (hosts, _) = cluster.zookeeper().split_once('/').expect("a chroot");
    let any = "127.0.0.1:0".parse().expect("an address");
    let link = Link::start(any, hosts.parse().expect("an address")).await;
    let a = cluster.start_through("a", &link.address().to_string());
    let mut says = Listener::on(&a, "NOTIFY c").await;
    assert!(says.warnings.try_recv().is_err());
    link.set(State::Refusing);
    until("the daemon knows that it is alone", async || {
        says.run("NOTIFY c").await;
        says.warnings.try_recv().is_ok_and(|warning| warning.contains("out of touch"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_query_notifies() {
    let cluster = Cluster::with_warehouse();
    let a = cluster.start("a");
    let mut hears = Listener::on(&a, "LISTEN c").await;
    let client = Client::connect(&a).await;
    let sql = "SELECT pg_notify('c', 'row ' || x) FROM generate_series(1, 2) s(x)";
    client.rows(&format!("SELECT oribi.submit($${sql}$$)")).await;
    assert_eq!([hears.next().await, hears.next().await], ["c row 1", "c row 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_query_is_told_of_under_its_own_id_alone() {
    // A tick that nobody's submitting outlasts; other statements here, of another role, may.
    let cluster = Cluster::with_warehouse().with("QUERY_REGISTER_INTERVAL", "2s");
    let a = cluster.start("a");
    let mut hears = Listener::on(&a, "LISTEN queries").await;
    let client = Client::connect(&a).await;
    client.rows("CREATE ROLE asks LOGIN").await;
    let asks = Client::connect_as(&a, "asks").await;
    let id = asks.value(&format!("SELECT oribi.submit($${ENDLESS}$$)")).await;
    let known = "SELECT count(*) FROM zk.nodes WHERE path LIKE '%/queries/%'";
    until("its statement is in the store as well", async || {
        client.value(known).await.parse::<u32>().is_ok_and(|nodes| nodes >= 2)
    })
    .await;
    client.value(&format!("SELECT oribi.cancel('{id}')")).await;
    loop {
        let heard = hears.json().await;
        if heard["user"] != "asks" {
            continue;
        }
        assert_eq!((&heard["id"], &heard["kind"]), (&id.as_str().into(), &"submitted".into()));
        if heard["event"] == "ended" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_does_not_keep_a_session_from_its_idle_end() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let says = Listener::on(&daemon, "").await;
    let hears = Listener::on(&daemon, "SET idle_session_timeout = '2s'; LISTEN c").await;
    let ended = tokio::time::timeout(PATIENCE, async {
        while !hears.connection.is_finished() {
            says.run("NOTIFY c").await;
        }
        hears.connection.await
    });
    let error = ended.await.expect("an end in time").expect("the task ends").expect("a reason");
    assert_eq!(db_error(&error).code().code(), "57P05");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_tells_of_itself() {
    let cluster = Cluster::on_shared_zookeeper();
    let a = cluster.start("a");
    let mut members = Listener::on(&a, "LISTEN members").await;
    let b = cluster.start("b");
    members.event("joined", "daemon", "b").await;
    let on_b = Client::connect(&b).await;
    all_ready(&on_b, &["a", "b"]).await;

    let mut catalog = Listener::on(&a, "LISTEN catalog").await;
    on_b.rows(&cluster.table("t", 1)).await;
    let made = catalog.event("created", "name", "t").await;
    let names = [&made["kind"], &made["database"], &made["schema"]];
    assert_eq!(names, ["table", "oribi", "public"]);
    on_b.rows("COMMENT ON TABLE t IS 'x'").await;
    catalog.event("changed", "name", "t").await;
    on_b.rows("DROP TABLE t").await;
    catalog.event("dropped", "name", "t").await;
    on_b.rows("CREATE ROLE ann LOGIN").await;
    assert_eq!(catalog.event("created", "name", "ann").await["kind"], "role");

    // To each what it may see.
    let mut hers = Listener::of_role(&a, "ann", "LISTEN catalog").await;
    for table in ["hidden", "shown"] {
        on_b.rows(&cluster.table(table, 1)).await;
    }
    on_b.rows("GRANT SELECT ON shown TO ann; COMMENT ON TABLE hidden IS 'x'").await;
    on_b.rows("DROP TABLE hidden; DROP TABLE shown").await;
    loop {
        let told = hers.json().await;
        assert_ne!(told["name"], "hidden", "{told}");
        if (&told["event"], &told["name"]) == (&"dropped".into(), &"shown".into()) {
            break;
        }
    }
    catalog.event("dropped", "name", "hidden").await;

    let ann = Client::connect_as(&b, "ann").await;
    assert_eq!(ann.outcome("LISTEN settings").await, "42501");
    on_b.rows("GRANT pg_read_all_settings TO ann").await;
    until("the right is there", async || ann.outcome("LISTEN settings").await.is_empty()).await;
    let mut settings = Listener::on(&a, "LISTEN settings").await;
    on_b.rows("ALTER SYSTEM SET statement_timeout = '99s'").await;
    let change = settings.json().await;
    assert_eq!((&change["name"], &change["value"]), (&"statement_timeout".into(), &"99s".into()));
    assert_eq!((&change["version"], &change["by"]), (&1.into(), &"oribi".into()));

    let mut queries = Listener::on(&a, "LISTEN queries").await;
    let endless = on_b.cancel_token();
    let running = tokio::spawn(async move { on_b.outcome(ENDLESS).await });
    let started = queries.event("started", "daemon", "b").await;
    endless.cancel_query(NoTls).await.expect("a cancel request");
    assert_eq!(running.await.expect("it ends"), "57014");
    let id = started["id"].as_str().expect("an id");
    assert_eq!(queries.event("ended", "id", id).await["state"], "cancelled");
    let on_b = Client::connect(&b).await;
    let finished = "SELECT count(*) FROM generate_series(1, 30000000) AS t(n) WHERE n % 7 = 1";
    on_b.rows(finished).await;
    let started = queries.event("started", "daemon", "b").await;
    let id = started["id"].as_str().expect("an id");
    assert_eq!(queries.event("ended", "id", id).await["state"], "finished");
    let running = tokio::spawn(async move { on_b.try_rows(ENDLESS).await });
    let started = queries.event("started", "daemon", "b").await;
    let id = started["id"].as_str().expect("an id");
    b.kill();
    assert_eq!(queries.event("ended", "id", id).await["state"], "lost");
    running.await.expect("no panic").expect_err("its daemon is gone");
    members.event("left", "daemon", "b").await;
}
