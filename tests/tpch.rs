//! The 22 TPC-H queries over the daemon's own demo data, against answers of an independent engine
//! (`tests/tpch/README.md` has the rules): as texts of the simple protocol, and as binary values
//! of the extended one.

mod common;

#[path = "tpch/answers.rs"]
mod answers;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use answers::{Answer, QUERIES, Row, texts};
use common::daemon::{Handle, Options, Shared, explain};
use postgres_types::{FromSql, Type};
use tempfile::TempDir;
use tokio_postgres::Client;

static DAEMON: Shared = Shared::new(Options::new);

#[tokio::test]
async fn texts_at_scale_0_01() {
    Bench::new("0.01").await.check_all(texts).await;
}

#[tokio::test]
async fn texts_at_scale_0_1() {
    Bench::new("0.1").await.check_all(texts).await;
}

#[tokio::test]
async fn binary_values_at_scale_0_01() {
    Bench::new("0.01").await.check_all(values).await;
}

/// A client whose search path holds the tables of one scale.
struct Bench {
    scale: &'static str,
    client: Client,
    _data: Arc<TempDir>,
    _daemon: Handle,
}

impl Bench {
    async fn new(scale: &'static str) -> Self {
        let data = data();
        let daemon = DAEMON.get();
        let client = daemon.connect().await;
        let schema = format!("sf{}", scale.replace('.', "_"));
        let setup = answers::tables(&schema, &data.path().join(format!("tpch/sf{scale}")));
        let made = client.batch_execute(&setup).await;
        made.unwrap_or_else(|error| panic!("{setup}: {}", explain(&error)));
        Self { scale, client, _data: data, _daemon: daemon }
    }

    async fn check_all(&self, fetch: impl AsyncFn(&Client, &str) -> Result<Vec<Row>, String>) {
        let mut failures = Vec::new();
        for number in 1..=QUERIES {
            let (sql, expected) = (answers::query(number), Answer::to(number, self.scale));
            let compared = match fetch(&self.client, &sql).await {
                Ok(rows) => expected.compare(rows),
                Err(error) => Err(error),
            };
            if let Err(difference) = compared {
                failures.push(format!("Q{number}: {difference}"));
            }
        }
        assert!(failures.is_empty(), "scale {}:\n{}", self.scale, failures.join("\n"));
    }
}

/// The data at both scales, made once for all tests that run at the same time.
fn data() -> Arc<TempDir> {
    static MADE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(data) = made.upgrade() {
        return data;
    }
    let data = Arc::new(TempDir::with_prefix("oribi-tpch-").expect("a temporary directory"));
    for scale in ["0.01", "0.1"] {
        answers::generate(scale, data.path());
    }
    *made = Arc::downgrade(&data);
    data
}

/// The rows from binary values, brought into the same form.
async fn values(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let rows = client.query(sql, &[]).await.map_err(|error| explain(&error))?;
    let shown = |row: &tokio_postgres::Row| {
        let value = |column| row.try_get::<_, Option<Shown>>(column);
        let values = (0..row.len()).map(|column| Ok(value(column)?.map(|shown| shown.0)));
        values.collect::<Result<Row, tokio_postgres::Error>>().map_err(|error| explain(&error))
    };
    rows.iter().map(shown).collect()
}

/// A binary value as text.
struct Shown(String);

impl<'a> FromSql<'a> for Shown {
    fn from_sql(
        kind: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match *kind {
            Type::INT4 => i32::from_sql(kind, raw)?.to_string(),
            Type::INT8 => i64::from_sql(kind, raw)?.to_string(),
            Type::FLOAT8 => f64::from_sql(kind, raw)?.to_string(),
            Type::NUMERIC => numeric(raw).ok_or("a numeric value is too short")?,
            Type::DATE => {
                let days = i32::from_be_bytes(raw.try_into()?);
                let epoch = chrono::NaiveDate::from_ymd_opt(2000, 1, 1).ok_or("no such day")?;
                (epoch + chrono::Duration::days(days.into())).to_string()
            }
            _ => String::from_sql(kind, raw)?,
        }))
    }

    fn accepts(kind: &Type) -> bool {
        let known = [Type::INT4, Type::INT8, Type::FLOAT8, Type::NUMERIC, Type::DATE];
        known.contains(kind) || <String as FromSql>::accepts(kind)
    }
}

/// PostgreSQL's binary numeric (`numeric_send`): a header of four 16-bit numbers, then digits to
/// the base of 10000, the first of which stands for 10000 to the `weight`.
fn numeric(raw: &[u8]) -> Option<String> {
    let words: Vec<i16> =
        raw.chunks_exact(2).map(|two| i16::from_be_bytes([two[0], two[1]])).collect();
    let [count, weight, sign, scale, digits @ ..] = words.as_slice() else { return None };
    (digits.len() == usize::try_from(*count).ok()?).then_some(())?;
    let digit = |power: i32| {
        let at = usize::try_from(i32::from(*weight) - power).ok();
        at.and_then(|at| digits.get(at)).copied().unwrap_or_default()
    };
    let whole: String = (0..=i32::from((*weight).max(0)))
        .rev()
        .map(|power| format!("{:04}", digit(power)))
        .collect();
    let scale = usize::try_from(*scale).ok()?;
    let fraction: String =
        (1..=scale.div_ceil(4) as i32).map(|place| format!("{:04}", digit(-place))).collect();
    let sign = if *sign == 0 { "" } else { "-" };
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{}", &fraction[..scale]))
}

#[test]
fn binary_numerics_are_read() {
    let words =
        |words: &[i16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    for (raw, expected) in [
        (words(&[0, 0, 0, 2]), "0.00"),
        (words(&[2, 1, 0, 0, 1, 2]), "10002"),
        (words(&[1, 1, 0, 0, 5]), "50000"),
        (words(&[2, 0, 0x4000, 3, 12, 3400]), "-12.340"),
        (words(&[1, -2, 0, 8, 7]), "0.00000007"),
    ] {
        assert_eq!(numeric(&raw).as_deref(), Some(expected));
    }
}
