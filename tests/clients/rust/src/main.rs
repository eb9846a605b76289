//! tokio-postgres and sqlx as programs use them: oribi-clients HOST PORT

use std::collections::BTreeSet;
use std::error::Error;
use std::pin::pin;

use chrono::{NaiveDate, NaiveDateTime};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use uuid::Uuid;

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (host, port) = (arguments.next().ok_or("no host")?, arguments.next().ok_or("no port")?);
    tokio_postgres_works(&host, port.parse()?).await?;
    sqlx_works(&host, port.parse()?).await
}

async fn tokio_postgres_works(host: &str, port: u16) -> Outcome {
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port).user("oribi").dbname("oribi");
    let (mut client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let rows = client.query("SELECT * FROM people ORDER BY id", &[]).await?;
    assert_eq!(rows[0].get::<_, &str>("name"), "Ann");
    assert_eq!(rows[0].get::<_, Option<NaiveDate>>("born"), NaiveDate::from_ymd_opt(1990, 5, 17));
    assert_eq!(rows[2].get::<_, Option<bool>>("member"), None);
    let names = "SELECT name FROM people WHERE id = ANY ($1) ORDER BY id";
    let rows = client.query(names, &[&vec![1_i32, 2]]).await?;
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["Ann", "Bob"]);

    macro_rules! round_trips {
        ($($kind:literal: $value:expr;)*) => {$(
            let (sent, mut got) = ($value, $value);
            let sql = concat!("SELECT $1::", $kind);
            let row = client.query_one(sql, &[&sent]).await.map_err(|e| format!("{sql}: {e:?}"))?;
            got = { let _ = got; row.try_get(0).map_err(|e| format!("{sql}: {e:?}"))? };
            assert_eq!(sent, got, "{sql}");
        )*};
    }
    round_trips! {
        "int2": 7_i16; "int4": -7_i32; "int8": i64::MIN; "float4": 1.5_f32; "float8": f64::MAX;
        "bool": true; "text": "it's ☃".to_owned(); "bytea": vec![0_u8, 255];
        "date": NaiveDate::from_ymd_opt(2024, 2, 29);
        "timestamp": NaiveDate::from_ymd_opt(2024, 2, 29).and_then(|d| d.and_hms_micro_opt(1, 2, 3, 4));
        "timestamptz": chrono::DateTime::from_timestamp(1_700_000_000, 1000);
        "time": chrono::NaiveTime::from_hms_opt(1, 2, 3);
        "uuid": Uuid::from_u128(7); "json": serde_json::json!({"a": [1, null]});
        "int4[]": vec![Some(1), None]; "text[]": vec!["a".to_owned(), "b c".to_owned()];
        "jsonb": serde_json::json!({"a": 1}); "int4": None::<i32>;
    }

    // Ten statements at once on one connection.
    let statement = client.prepare("SELECT $1::int4 + 1::int4").await?;
    let many = (0..10_i32).map(async |number| {
        client.query_one(&statement, &[&number]).await.map(|row| row.get::<_, i32>(0))
    });
    let sums = futures_util::future::try_join_all(many).await?;
    assert_eq!(sums, (1..=10).collect::<Vec<_>>());
    let series = "SELECT i::int4 FROM generate_series(1, 10000) t (i)";
    let mut stream = pin!(client.query_raw(series, &[] as &[i32]).await?);
    let mut total = 0_i64;
    while let Some(row) = stream.try_next().await? {
        total += i64::from(row.get::<_, i32>(0));
    }
    assert_eq!(total, 50_005_000);
    let copied =
        client.copy_out("COPY (SELECT id, name FROM people ORDER BY id) TO STDOUT").await?;
    let lines: Vec<_> = copied.try_collect().await?;
    assert_eq!(lines.concat(), "1\tAnn\n2\tBob\n3\tZoë, Dr.\n".as_bytes());

    // A portal, some rows at a time.
    let block = client.build_transaction().read_only(true).start().await?;
    let portal = block.bind(series, &[]).await?;
    assert_eq!(block.query_portal(&portal, 3).await?.len(), 3);
    assert_eq!(block.query_portal(&portal, 0).await?.len(), 9997);
    block.commit().await?;
    let messages = client.simple_query("SELECT 1 AS a; SELECT 'x' AS b").await?;
    let rows = messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 2);
    let failed = client.query("SELECT nothing FROM people", &[]).await.err();
    let state = failed.as_ref().and_then(|error| error.code()).map(|code| code.code());
    assert_eq!(state, Some("42703"));
    let cancel = client.cancel_token();
    let long = client.query("SELECT count(*) FROM generate_series(1, 1000000000000)", &[]);
    let mut long = pin!(long);
    // Cancelled until it is: a request may come before the statement does.
    let outcome = loop {
        tokio::select! {
            outcome = &mut long => break outcome,
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                cancel.cancel_query(NoTls).await?;
            }
        }
    };
    let state = outcome.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
    assert_eq!(state.as_deref(), Some("57014"));
    Ok(())
}

async fn sqlx_works(host: &str, port: u16) -> Outcome {
    let options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .username("oribi")
        .database("oribi")
        .ssl_mode(sqlx::postgres::PgSslMode::Disable);
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await?;
    let rows = sqlx::query("SELECT id, name, born, height, member FROM people ORDER BY id");
    let rows = rows.fetch_all(&pool).await?;
    assert_eq!(rows[1].try_get::<i32, _>("id")?, 2);
    assert_eq!(rows[0].try_get::<rust_decimal::Decimal, _>("height")?.to_string(), "1.72");
    assert_eq!(rows[2].try_get::<Option<NaiveDate>, _>("born")?, None);
    let epoch = chrono::DateTime::UNIX_EPOCH.naive_utc();
    let (word, when): (String, NaiveDateTime) = sqlx::query_as("SELECT $1::text, $2::timestamp")
        .bind("it's")
        .bind(epoch)
        .fetch_one(&pool)
        .await?;
    assert_eq!((word.as_str(), when), ("it's", epoch));
    let (numbers, words): (Vec<i32>, Vec<String>) = sqlx::query_as("SELECT $1::int4[], $2::text[]")
        .bind(vec![1, 2, 3])
        .bind(vec!["a", "b"])
        .fetch_one(&pool)
        .await?;
    assert_eq!((numbers, words), (vec![1, 2, 3], vec!["a".to_owned(), "b".to_owned()]));
    let key: Uuid =
        sqlx::query_scalar("SELECT $1::uuid").bind(Uuid::nil()).fetch_one(&pool).await?;
    assert_eq!(key, Uuid::nil());
    let answers = (0..20_i32).map(|number| {
        sqlx::query_scalar::<_, i32>("SELECT $1::int4").bind(number).fetch_one(&pool)
    });
    let answers: BTreeSet<i32> =
        futures_util::future::try_join_all(answers).await?.into_iter().collect();
    assert_eq!(answers, (0..20).collect());
    let mut stream = sqlx::query("SELECT i::int4 FROM generate_series(1, 1000) t (i)").fetch(&pool);
    let mut count = 0;
    while let Some(row) = stream.next().await {
        count += i32::from(row?.try_get::<i32, _>(0)? > 0);
    }
    drop(stream);
    assert_eq!(count, 1000);
    let mut block = pool.begin().await?;
    let failed = sqlx::query("SELECT nothing FROM people").execute(&mut *block).await.err();
    let failed = failed.and_then(|error| error.into_database_error());
    assert_eq!(
        failed.and_then(|error| error.code().map(|c| c.into_owned())).as_deref(),
        Some("42703")
    );
    block.rollback().await?;
    // Known to fail: for nullability, `sqlx prepare` asks for EXPLAIN (FORMAT JSON).
    use sqlx::Executor as _;
    let described = pool.describe("SELECT id, name FROM people WHERE id = $1").await.err();
    let refused = described.and_then(|error| error.into_database_error());
    assert_eq!(
        refused.and_then(|error| error.code().map(|c| c.into_owned())).as_deref(),
        Some("0A000")
    );
    pool.close().await;
    Ok(())
}
