//! Rows that are few are looked for by the reader of their files; what is changed or deleted is found again
//! by its place in the file. Both together hit the right rows.

use std::collections::BTreeMap;

use crate::common::daemon::{Daemon, Options, eventually};
use crate::support::{Client, bounded};

const ROWS: i64 = 100_000;

/// What the table is to hold: `v` by `id`.
type Model = BTreeMap<i64, i64>;

/// A statement, and what it does; it returns the number of rows.
type Step = (&'static str, fn(&mut Model) -> usize);

fn change(model: &mut Model, ids: impl IntoIterator<Item = i64>, by: i64) -> usize {
    let mut changed = 0;
    for id in ids {
        if let Some(v) = model.get_mut(&id) {
            *v += by;
            changed += 1;
        }
    }
    changed
}

fn delete(model: &mut Model, ids: impl IntoIterator<Item = i64>) -> usize {
    ids.into_iter().filter_map(|id| model.remove(&id)).count()
}

/// The keys lie scattered over the files. From the second step on these were written by changes.
const STEPS: &[Step] = &[
    ("DELETE FROM t WHERE id = 77777", |model| delete(model, [77_777])),
    ("UPDATE t SET v = v + 500000 WHERE id = 77778", |model| change(model, [77_778], 500_000)),
    ("DELETE FROM t WHERE id = 0", |model| delete(model, [0])),
    ("DELETE FROM t WHERE id = 99999", |model| delete(model, [99_999])),
    ("UPDATE t SET v = v + 600000 WHERE id >= 500 AND id < 520", |model| {
        change(model, 500..520, 600_000)
    }),
    ("DELETE FROM t WHERE id > 504 AND id <= 515", |model| delete(model, 505..=515)),
    ("UPDATE t SET v = v + 1, s = s || '' WHERE id >= 495 AND id < 530", |model| {
        change(model, 495..530, 1)
    }),
    ("DELETE FROM t WHERE id = 77777", |model| delete(model, [77_777])),
    ("DELETE FROM t WHERE id = 77778 AND v >= 0", |model| delete(model, [77_778])),
    ("UPDATE t SET v = v - 7 WHERE id = 12345", |model| change(model, [12_345], -7)),
    ("DELETE FROM t WHERE id = 12345", |model| delete(model, [12_345])),
];

/// How many rows the reader itself found for a statement, as its profile says.
async fn found_by_reader(client: &Client, statement: &str) -> usize {
    let profile = format!(
        "SELECT oribi.profile(id) FROM system.query_history WHERE sql = '{}'",
        statement.replace('\'', "''")
    );
    let metric = "pushdown_rows_matched=";
    let profile = eventually("the profile of a statement", async || {
        let rows = client.rows(&profile).await;
        rows.into_iter().flatten().next().filter(|profile| profile.contains("files_opened="))
    })
    .await;
    let found = profile.split(metric).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<usize>().expect("a number")
    });
    assert!(profile.contains(metric), "the reader filters no rows: {profile}");
    found.sum()
}

async fn assert_holds(client: &Client, model: &Model, after: &str) {
    // Weights tell rows apart that have changed places.
    let sums = "SELECT count(*) || ' ' || sum(id) || ' ' || sum(v) || ' ' || sum(id * v) || ' ' || \
                count(*) FILTER (WHERE s <> 'row ' || id) FROM t";
    let expected = format!(
        "{} {} {} {} 0",
        model.len(),
        model.keys().sum::<i64>(),
        model.values().sum::<i64>(),
        model.iter().map(|(id, v)| id * v).sum::<i64>(),
    );
    assert_eq!(client.value(sums).await, expected, "after {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_rows_that_the_reader_finds_are_changed_where_they_lie() {
    bounded(async {
        let options = Options::new().env("ORIBI_MAINTENANCE_INTERVAL", "none");
        let daemon = Daemon::start(&options.env("ORIBI_HISTORY_PROFILE", "1us"));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (id bigint, v bigint, s text)").await;
        let filled = format!(
            "INSERT INTO t SELECT i * 7919 % {ROWS}, i * 2, 'row ' || i * 7919 % {ROWS} \
             FROM generate_series(0, {}) g (i)",
            ROWS - 1
        );
        client.rows(&filled).await;
        let mut model: Model = (0..ROWS).map(|i| (i * 7919 % ROWS, i * 2)).collect();
        assert_eq!(model.len() as i64, ROWS, "each key is there once");
        assert_holds(&client, &model, "INSERT").await;
        for (at, (statement, step)) in STEPS.iter().enumerate() {
            // Each has a text of its own, by which its profile is found.
            let statement = format!("/* {at} */ {statement}");
            client.rows(&statement).await;
            let rows = step(&mut model);
            assert_eq!(found_by_reader(&client, &statement).await, rows, "{statement}");
            assert_holds(&client, &model, &statement).await;
        }
        // Within a block a statement sees what those before it have written.
        client.rows("BEGIN").await;
        for (statement, step) in [
            ("/* block */ UPDATE t SET v = v + 9 WHERE id = 4711", {
                |model: &mut Model| change(model, [4711], 9)
            }),
            ("/* block */ DELETE FROM t WHERE id = 4712", |model| delete(model, [4712])),
            ("/* block again */ UPDATE t SET v = v + 9 WHERE id = 4711", |model| {
                change(model, [4711], 9)
            }),
        ] as [Step; 3]
        {
            client.rows(statement).await;
            step(&mut model);
            assert_holds(&client, &model, statement).await;
        }
        client.rows("COMMIT").await;
        assert_holds(&client, &model, "COMMIT").await;
        for id in [4711, 77_779, 12_346] {
            let row = client.value(&format!("SELECT v FROM t WHERE id = {id}")).await;
            assert_eq!(row, model[&id].to_string(), "{id}");
        }
        for id in [0, 4712, 12_345, 77_777, 99_999] {
            let rows = client.rows(&format!("SELECT v FROM t WHERE id = {id}")).await;
            assert!(rows.is_empty(), "{id}: {rows:?}");
        }
    })
    .await;
}
