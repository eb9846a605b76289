//! Queries that the cluster submits by itself: when, with whose rights, and each time once, whoever
//! dies.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::collections::BTreeSet;

use chrono::{NaiveDateTime, TimeDelta, Timelike, Utc};
use support::*;

/// The queries that a schedule has submitted, and their states.
async fn runs(client: &Client, name: &str) -> Vec<(String, String)> {
    let sql = format!(
        "SELECT id, state FROM system.queries WHERE kind = 'submitted' \
         AND id LIKE 'schedule-{name}-%' ORDER BY id"
    );
    let rows = client.rows(&sql).await;
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// The time that a run was scheduled for.
fn time(id: &str) -> NaiveDateTime {
    let (_, time) = id.rsplit_once('-').expect("a time");
    NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_time_comes_once_whoever_leads() {
    bounded(async {
        let names = ["a", "b", "c"];
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_together(names).await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (n INT)").await;
        let sql = "SELECT oribi.schedule('each', '* * * * * *', 'INSERT INTO t VALUES (1)', \
                   '{\"missed\": \"run_all\", \"overlap\": \"allow\"}')";
        client.rows(sql).await;
        until("it has run twice", async || runs(&client, "each").await.len() >= 2).await;
        let leader = client.value("SELECT id FROM system.daemons WHERE leader").await;
        let at = names.iter().position(|name| *name == leader).expect("one of them");
        let before = runs(&client, "each").await.len();
        daemons[at].kill();
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        until("another leads", async || {
            let now = other.value("SELECT id FROM system.daemons WHERE leader").await;
            !now.is_empty() && now != leader
        })
        .await;
        until("it runs again", async || runs(&other, "each").await.len() >= before + 3).await;
        assert_eq!(other.value("SELECT oribi.unschedule('each')").await, "t");
        until("all is done", async || {
            runs(&other, "each").await.iter().all(|(_, state)| state == "succeeded")
        })
        .await;
        let ids: Vec<String> = runs(&other, "each").await.into_iter().map(|(id, _)| id).collect();
        let times: Vec<NaiveDateTime> = ids.iter().map(|id| time(id)).collect();
        for pair in times.windows(2) {
            assert_eq!(pair[1] - pair[0], TimeDelta::seconds(1), "{times:?}");
        }
        assert_eq!(other.value("SELECT count(*) FROM t").await, ids.len().to_string());
        assert_eq!(other.value("SELECT count(*) FROM system.schedules").await, "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_left_out_while_the_query_before_runs() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_together(["a", "b"]).await;
        let client = Client::connect(&daemons[1]).await;
        let sql = format!("SELECT oribi.schedule('slow', '* * * * * *', $${ENDLESS}$$)");
        client.rows(&sql).await;
        let store = Store::of(&cluster).await;
        until("times are left out", async || {
            let record = store.get("/schedules/slow").await.expect("a schedule");
            let seen = record["since"].as_str().map(str::to_owned);
            let last = record["last"]["time"].as_str().map(str::to_owned);
            last.is_some() && seen > last
        })
        .await;
        let ids = runs(&client, "slow").await;
        assert_eq!(ids.len(), 1, "{ids:?}");
        client.rows(&format!("SELECT oribi.cancel('{}')", ids[0].0)).await;
        until("it goes on", async || runs(&client, "slow").await.len() == 2).await;
        client.rows("SELECT oribi.unschedule('slow')").await;
        for (id, _) in runs(&client, "slow").await {
            client.rows(&format!("SELECT oribi.cancel('{id}')")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_came_to_in_time_is_made_up_for_as_declared() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_together(["a"]).await;
        let client = Client::connect(&daemons[0]).await;
        let store = Store::of(&cluster).await;
        let now = Utc::now();
        // Far from now, so that exactly three have come in three hours.
        let minute = (now.minute() + 30) % 60;
        for missed in ["skip", "run_once", "run_all"] {
            let record = serde_json::json!({
                "user": "oribi", "database": "oribi", "cron": format!("{minute} * * * *"),
                "time_zone": "UTC", "sql": "SELECT 1", "enabled": true, "missed": missed,
                "overlap": "skip", "since": now - TimeDelta::hours(3),
            });
            store.create(&format!("/schedules/{missed}"), record.to_string().as_bytes()).await;
        }
        until("all three", async || runs(&client, "run_all").await.len() == 3).await;
        until("one for all", async || runs(&client, "run_once").await.len() == 1).await;
        let all: BTreeSet<_> =
            runs(&client, "run_all").await.iter().map(|(id, _)| time(id)).collect();
        let one = time(&runs(&client, "run_once").await[0].0);
        assert_eq!(Some(&one), all.last());
        assert_eq!(runs(&client, "skip").await, []);
        let listed = "SELECT name, missed, last_run IS NULL, next_run > now() \
                      FROM system.schedules ORDER BY name";
        assert_eq!(
            client.rows(listed).await,
            [
                ["run_all", "run_all", "f", "t"],
                ["run_once", "run_once", "f", "t"],
                ["skip", "skip", "t", "t"]
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_its_owners() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_together(["a"]).await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN").await;
        let ann = Client::connect_as(&daemons[0], "ann").await;
        let bob = Client::connect_as(&daemons[0], "bob").await;
        let make = |name: &str, cron: &str, options: &str| {
            format!("SELECT oribi.schedule('{name}', '{cron}', 'SELECT current_user', '{options}')")
        };
        let next = "SELECT oribi.schedule('hers', '0 3 * * mon-fri', 'SELECT 1', \
                    '{\"time_zone\": \"Europe/Paris\"}') > now()";
        assert_eq!(ann.value(next).await, "t");
        let listed = "SELECT name, \"user\", cron, time_zone, enabled FROM system.schedules";
        let row = ["hers", "ann", "0 3 * * mon-fri", "Europe/Paris", "t"];
        assert_eq!(ann.rows(listed).await, [row]);
        assert_eq!(client.rows(listed).await, [row]);
        assert!(bob.rows(listed).await.is_empty());
        for sql in [make("hers", "@daily", "{}"), "SELECT oribi.unschedule('hers')".to_owned()] {
            assert_eq!(bob.outcome(&sql).await, "42501", "{sql}");
        }
        for (sql, code) in [
            (make("x", "61 * * * *", "{}"), "22023"),
            (make("x", "whenever", "{}"), "22023"),
            (make("x", "0 0 30 2 *", "{}"), "22023"),
            (make("", "@daily", "{}"), "22023"),
            (make("two\nlines", "@daily", "{}"), "22023"),
            (make(&"x".repeat(101), "@daily", "{}"), "22023"),
            (make("x", "@daily", "{\"time_zone\": \"Mars\"}"), "22023"),
            (make("x", "@daily", "{\"missed\": \"perhaps\"}"), "22023"),
            (make("x", "@daily", "{\"colour\": 1}"), "22023"),
            ("SELECT oribi.schedule('x', '@daily', 'SELEC 1')".to_owned(), "42601"),
            ("SELECT oribi.schedule('x', '@daily', 'BEGIN')".to_owned(), "0A000"),
            ("SELECT oribi.unschedule('x')".to_owned(), "42704"),
        ] {
            assert_eq!(ann.outcome(&sql).await, code, "{sql}");
        }
        for (options, parts) in [
            ("{\"missed\": \"perhaps\"}", ["\"missed\"", "`run_once`"]),
            ("{\"colour\": 1}", ["\"colour\"", "`time_zone`"]),
            ("[]", ["JSON object", "{"]),
            ("{\"missed\": skip}", ["no JSON", "column 12"]),
        ] {
            let refused = ann.refused(&make("x", "@daily", options)).await;
            assert!(parts.iter().all(|part| refused.message().contains(part)), "{refused}");
        }
        // Any other name will do, whatever a znode's may be.
        for name in ["a/b", "..", ".", "50%", "\u{f0}\u{1f600}"] {
            ann.rows(&make(name, "@daily", "{\"settings\": {\"statement_timeout\": 5000}}")).await;
            let found = format!("SELECT cron FROM system.schedules WHERE name = '{name}'");
            assert_eq!(ann.value(&found).await, "@daily", "{name}");
            assert_eq!(ann.value(&format!("SELECT oribi.unschedule('{name}')")).await, "t");
        }
        // Switched off by another who may, it stays hers.
        client.rows(&make("hers", "* * * * * *", "{\"enabled\": false}")).await;
        let off = "SELECT \"user\", cron, enabled, next_run IS NULL FROM system.schedules";
        assert_eq!(client.rows(off).await, [["ann", "* * * * * *", "f", "t"]]);
        client.rows(&make("hers", "* * * * * *", "{}")).await;
        ann.rows(&make("../a.b", "* * * * * *", "{\"overlap\": \"allow\"}")).await;
        until("it runs as well", async || runs(&ann, "../a.b").await.len() > 1).await;
        ann.rows("SELECT oribi.unschedule('../a.b')").await;
        let last = "SELECT last_query FROM system.schedules WHERE name = 'hers' AND last_state = 'succeeded'";
        let mut query = String::new();
        until("it has run", async || {
            query = ann.value(last).await;
            !query.is_empty()
        })
        .await;
        assert_eq!(ann.value(&format!("SELECT * FROM oribi.result('{query}')")).await, "ann");
        assert_eq!(ann.value("SELECT oribi.unschedule('hers')").await, "t");
    })
    .await;
}

/// The last query of a schedule that has succeeded since it was another one.
async fn next_run(client: &Client, name: &str, before: &str) -> String {
    let sql = format!(
        "SELECT last_query FROM system.schedules WHERE name = '{name}' \
         AND last_state = 'succeeded' AND last_query <> '{before}'"
    );
    let mut query = String::new();
    until("it has run again", async || {
        query = client.value(&sql).await;
        !query.is_empty()
    })
    .await;
    query
}

/// To a role, and not to a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_goes_with_its_role() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_together(["a"]).await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN").await;
        let ann = Client::connect_as(&daemons[0], "ann").await;
        ann.rows("SELECT oribi.schedule('hers', '* * * * * *', 'SELECT current_user')").await;
        let first = next_run(&ann, "hers", "").await;
        let refused = client.refused("DROP ROLE ann").await;
        assert_eq!(refused.code().code(), "2BP01");
        assert!(refused.message().contains("owner of schedule hers"), "{refused}");
        let hints = |refused: &str| refused.contains("oribi.unschedule");
        assert!(refused.hint().is_some_and(hints), "{refused:?}");
        client.rows("CREATE DATABASE bobs; ALTER DATABASE bobs OWNER TO bob").await;
        let refused = client.refused("DROP ROLE bob").await;
        assert!(!refused.hint().is_some_and(hints), "{refused:?}");
        client.rows("DROP DATABASE bobs").await;
        drop(ann);

        client.rows("ALTER ROLE ann RENAME TO zoe; CREATE ROLE ann LOGIN").await;
        let zoe = Client::connect_as(&daemons[0], "zoe").await;
        let result = |query: &str| format!("SELECT * FROM oribi.result('{query}')");
        assert_eq!(zoe.value(&result(&first)).await, "ann");
        let second = next_run(&zoe, "hers", &first).await;
        let second = next_run(&zoe, "hers", &second).await;
        assert_eq!(zoe.value(&result(&second)).await, "zoe");
        assert_eq!(zoe.value("SELECT \"user\" FROM system.schedules").await, "zoe");
        // Who has her old name has nothing of hers.
        let other = Client::connect_as(&daemons[0], "ann").await;
        assert!(other.rows("SELECT * FROM system.schedules").await.is_empty());
        assert_eq!(other.outcome("SELECT oribi.unschedule('hers')").await, "42501");
        for query in [&first, &second] {
            assert_eq!(other.outcome(&result(query)).await, "42501");
        }
        // She sees that others' queries are there, neither their ids nor their texts.
        let hidden = "SELECT DISTINCT sql FROM system.queries WHERE kind = 'submitted'";
        assert_eq!(other.rows(hidden).await, [["<insufficient privilege>"]]);
        let named = "SELECT count(*) FROM system.queries WHERE id LIKE 'schedule-%'";
        assert_eq!(other.value(named).await, "0");
        drop(zoe);

        assert_eq!(client.outcome("DROP ROLE zoe").await, "2BP01");
        client.rows("REASSIGN OWNED BY zoe TO bob; DROP ROLE zoe").await;
        let bob = Client::connect_as(&daemons[0], "bob").await;
        let third = next_run(&bob, "hers", &second).await;
        let third = next_run(&bob, "hers", &third).await;
        assert_eq!(bob.value(&result(&third)).await, "bob");
        assert_eq!(bob.value("SELECT oribi.unschedule('hers')").await, "t");
        drop(bob);
        client.rows("DROP ROLE bob").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_without_a_role_runs_nothing_and_says_so() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_together(["a"]).await;
        let client = Client::connect(&daemons[0]).await;
        // There is a role of that name, which is another.
        client.rows("CREATE ROLE ann LOGIN").await;
        let store = Store::of(&cluster).await;
        for (name, owner) in [("lost", 999_999), ("kept", 10)] {
            let record = serde_json::json!({
                "user": "ann", "owner": owner, "database": "oribi", "cron": "* * * * * *",
                "time_zone": "UTC", "sql": "SELECT current_user", "enabled": true,
                "missed": "skip", "overlap": "allow", "since": Utc::now(),
            });
            store.create(&format!("/schedules/{name}"), record.to_string().as_bytes()).await;
        }
        until("the other one has run", async || runs(&client, "kept").await.len() >= 3).await;
        assert_eq!(runs(&client, "lost").await, []);
        let listed = "SELECT name, \"user\", next_run IS NULL, error FROM system.schedules \
                      ORDER BY name";
        let error = "role \"ann\", whose rights it has, does not exist any more: it runs nothing";
        let rows = [["kept", "oribi", "f", ""], ["lost", "ann", "t", error]];
        assert_eq!(client.rows(listed).await, rows);
        let ann = Client::connect_as(&daemons[0], "ann").await;
        assert!(ann.rows("SELECT * FROM system.schedules").await.is_empty());
    })
    .await;
}
