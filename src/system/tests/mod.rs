//! What PostgreSQL's clients really ask, planned and run against a small catalog.
//!
//! The `.sql` files hold statements as the clients sent them to PostgreSQL 15: each begins with a
//! line `-- @ client | parameters`; `{items}` and `{cheap}` stand for a table's and a view's
//! identifier.

mod meaning;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::{
    Backends, Cluster, DaemonRow, HistoryRow, LookRow, MaintenanceRow, PoolRow, ProfileRow,
    QueryRow, SessionRow, SettingAppliedRow, SettingChangeRow, SettingRow, Signal, System, Trouble,
};
use crate::catalog::{
    Catalog, Column, CreateMode, DEFAULT_DATABASE, Definition, External, FIRST_ROLE, FileFormat,
    RoleRecord, TableName,
};
use crate::config::Config;
use crate::coordination::counted::Counted;
use crate::coordination::embedded::{EmbeddedStore, Options};
use crate::coordination::whole::Whole;
use crate::engine::settings::Settings;
use crate::engine::system::SessionInfo;
use crate::engine::{Engine, Error, Session, memory, parse};
use crate::query::submitted::Submissions;
use crate::storage::Roots;

#[derive(Debug)]
struct One;

#[async_trait]
impl Cluster for One {
    fn daemons(&self) -> Vec<DaemonRow> {
        vec![DaemonRow {
            id: "a".into(),
            state: "ready".into(),
            postgres: Some("127.0.0.1:5439".into()),
            peer: None,
            web: None,
            incarnation: "i".into(),
            version: "0.1.0".into(),
            build: "b".into(),
            cores: 2,
            memory: 1 << 30,
            since: SystemTime::UNIX_EPOCH,
            local: true,
            leader: true,
            error: Some(Trouble { full: "no room in /d".into(), outline: "no room".into() }),
        }]
    }

    async fn history(&self) -> Vec<HistoryRow> {
        vec![HistoryRow {
            id: "h".into(),
            state: "finished",
            daemon: "a".into(),
            pid: Some(7),
            user: "oribi".into(),
            owner: None,
            database: "oribi".into(),
            pool: None,
            client: None,
            application_name: String::new(),
            sql: "SELECT 1".into(),
            tag: Some("SELECT 1".into()),
            started: Some(SystemTime::UNIX_EPOCH),
            ended: Some(SystemTime::UNIX_EPOCH),
            duration: Some(Duration::from_micros(1500)),
            queued: None,
            planning: None,
            execution: None,
            rows: 1,
            scanned: 0,
            rows_scanned: 0,
            spilled: 0,
            peak: 0,
            retries: 0,
            workers: Vec::new(),
            silent: Vec::new(),
            profile: false,
            sqlstate: None,
            error: None,
            settings: vec![("TimeZone".into(), "UTC+1".into())],
        }]
    }

    fn looks(&self) -> Vec<LookRow> {
        vec![LookRow {
            id: "q".into(),
            attempt: None,
            phase: "executing".into(),
            progress: Some(0.5),
            rows: 3,
            scanned: 100,
            workers: vec!["a".into()],
        }]
    }

    async fn profile(&self, _: &str) -> Option<ProfileRow> {
        None
    }

    async fn queries(&self, _: bool) -> (Vec<QueryRow>, bool) {
        let query = QueryRow {
            id: "q".into(),
            kind: "interactive".into(),
            state: "running".into(),
            daemon: "a".into(),
            pid: Some(7),
            attempt: None,
            user: "oribi".into(),
            owner: None,
            database: "oribi".into(),
            pool: None,
            sql: "SELECT 1".into(),
            progress: None,
            submitted: SystemTime::UNIX_EPOCH,
            started: None,
            sqlstate: None,
            error: None,
            phase: None,
            rows: None,
            scanned: None,
            workers: Vec::new(),
        };
        (vec![query], true)
    }

    fn pools(&self) -> Vec<PoolRow> {
        vec![PoolRow {
            name: "p".into(),
            roles: vec!["public".into()],
            concurrency: Some(4),
            queue: 10,
            queue_timeout: Some(Duration::from_secs(90)),
            memory: None,
            daemon: "a".into(),
            share: Some(2),
            queue_share: 5,
            running: 2,
            queued: 1,
            admitted: 3,
            waited: 1,
            refused: 0,
            timed_out: 0,
            cancelled: 0,
        }]
    }

    async fn maintenance(&self) -> datafusion::error::Result<Vec<MaintenanceRow>> {
        Ok(Vec::new())
    }

    fn store(&self) -> &Whole {
        static STORE: LazyLock<Arc<Whole>> = LazyLock::new(|| {
            let store = EmbeddedStore::in_memory().expect("a store");
            Whole::of_embedded(store, Options::default())
        });
        &STORE
    }

    fn own_session(&self) -> Option<&Arc<Counted>> {
        None
    }

    fn settings(&self) -> (u64, Vec<SettingRow>) {
        let setting = SettingRow {
            key: "engine.batch_size".into(),
            value: "1".into(),
            default: "8192".into(),
            origin: "--engine-batch-size".into(),
            live: false,
            error: None,
        };
        (3, vec![setting])
    }

    async fn settings_applied(&self) -> datafusion::error::Result<Vec<SettingAppliedRow>> {
        Ok(vec![SettingAppliedRow {
            daemon: "a".into(),
            version: Some(3),
            current: true,
            applied: None,
            error: None,
        }])
    }

    fn settings_history(&self) -> Vec<SettingChangeRow> {
        vec![SettingChangeRow {
            version: 3,
            changed: SystemTime::UNIX_EPOCH,
            by: "oribi".into(),
            name: "timezone".into(),
            before: None,
            value: Some("UTC".into()),
        }]
    }
}

#[async_trait]
impl Backends for One {
    fn sessions(&self) -> Vec<SessionRow> {
        vec![SessionRow {
            pid: 7,
            user: "oribi".into(),
            owner: None,
            database: "oribi".into(),
            application_name: Some("psql".into()),
            client: Some(([127, 0, 0, 1], 4000).into()),
            tls: None,
            connected: Some(SystemTime::UNIX_EPOCH),
            transaction_started: None,
            query_started: Some(SystemTime::UNIX_EPOCH),
            state_changed: None,
            state: Some("active"),
            queued: false,
            query: "SELECT 1".into(),
        }]
    }

    fn addresses(&self, pid: i32) -> (Option<SocketAddr>, Option<SocketAddr>) {
        assert_eq!(pid, 7);
        (Some(([127, 0, 0, 1], 4000).into()), Some(([127, 0, 0, 1], 5439).into()))
    }

    async fn signal(
        &self,
        asker: &SessionInfo,
        pid: i32,
        _: Signal,
    ) -> datafusion::error::Result<bool> {
        assert_eq!(asker.pid, 7);
        Ok(pid == 7)
    }

    fn warn(&self, _: i32, message: String) {
        panic!("{message}");
    }
}

/// A session with a few tables and views.
struct Fixture {
    session: Session,
    engine: Arc<Engine>,
    items: u32,
    cheap: u32,
    _directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let store = EmbeddedStore::in_memory().expect("a store");
        let coordination = store.connect(Options::default());
        let catalog = Catalog::open(coordination.clone()).await.expect("a catalog");
        let directory = TempDir::new().expect("a directory");
        fill(&catalog, directory.path()).await;
        let config = Config::load(None, [], []).expect("defaults");
        let spill = directory.path().join("spill");
        let places = memory::Places { spill, roots: Roots::default() };
        let one = Arc::new(One);
        let submissions = Submissions::open(coordination, config.submitted.clone()).await;
        let submissions = submissions.expect("a queue");
        let system = Arc::new(System::new(one.clone(), one, submissions));
        let engine = Engine::new(&config.engine, &places, system).expect("an engine");
        let oid = |name: &str| {
            let name = TableName::new(DEFAULT_DATABASE, "public", name);
            catalog.snapshot().table(&name).expect("made above").record.oid
        };
        let (items, cheap) = (oid("items"), oid("cheap"));
        let info = SessionInfo {
            staged: Arc::default(),
            database: DEFAULT_DATABASE.into(),
            user: FIRST_ROLE.into(),
            login: FIRST_ROLE.into(),
            pid: 7,
            settings: Arc::new(Settings::default()),
            catalog,
            objects: Arc::default(),
            files: engine.files().clone(),
            warehouse: None,
        };
        let mut session = Session::new(engine.clone(), info);
        session.mark_start();
        Self { session, engine, items, cheap, _directory: directory }
    }

    async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        self.run_with(sql, &[]).await
    }

    /// Runs one statement; parameters are given as text and become what the plan says they are.
    async fn run_with(&self, sql: &str, values: &[&str]) -> Result<Vec<RecordBatch>, Error> {
        let parsed = parse(sql)?.pop().expect("a statement");
        let plan = self.session.plan(&parsed.statement, &[]).await?;
        let values =
            values.iter().zip(&plan.parameters).map(|(text, field)| match field.data_type() {
                DataType::List(element) => {
                    let items =
                        text.trim_matches(['{', '}']).split(',').filter(|item| !item.is_empty());
                    let items: Vec<ScalarValue> =
                        items.map(|item| scalar(item, element.data_type())).collect();
                    ScalarValue::List(ScalarValue::new_list(&items, element.data_type(), true))
                }
                kind => scalar(text, kind),
            });
        let physical = self.session.prepare(&plan, values.collect()).await?;
        let mut rows = self.session.run(physical, Ok);
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    /// The result as lines, values separated by `|`.
    async fn lines(&self, sql: &str) -> Vec<String> {
        let batches = self.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let options = FormatOptions::default().with_null("NULL");
        let mut lines = Vec::new();
        for batch in &batches {
            let columns: Vec<_> = (batch.columns().iter())
                .map(|column| ArrayFormatter::try_new(column, &options).expect("printable"))
                .collect();
            for row in 0..batch.num_rows() {
                let values: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
                lines.push(values.join("|"));
            }
        }
        lines
    }

    /// Runs all statements of a file and tells which fail.
    async fn check(&self, file: &str) {
        let mut failed = Vec::new();
        for statement in file.split("-- @ ").filter(|text| !text.is_empty()) {
            let (title, sql) = statement.split_once('\n').expect("a title and a statement");
            let sql = sql.replace("{items}", &self.items.to_string());
            let sql = sql.replace("{cheap}", &self.cheap.to_string());
            let parameters = title.split_once(" | ").map(|(_, list)| list).unwrap_or_default();
            let parameters = parameters.replace("{items}", &self.items.to_string());
            let parameters = parameters.replace("{cheap}", &self.cheap.to_string());
            let values: Vec<&str> = parameters.split('\'').skip(1).step_by(2).collect();
            if let Err(error) = self.run_with(&sql, &values).await {
                failed.push(format!("{title}\n  {error}\n{}", sql.trim()));
            }
        }
        assert!(failed.is_empty(), "{} failed:\n\n{}", failed.len(), failed.join("\n\n"));
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.engine.stop(std::time::Duration::ZERO);
    }
}

fn scalar(text: &str, kind: &DataType) -> ScalarValue {
    let text = match (kind, text) {
        (DataType::Boolean, "t") => "true",
        (DataType::Boolean, "f") => "false",
        (_, text) => text,
    };
    ScalarValue::try_from_string(text.to_owned(), kind).expect("a value of the type")
}

async fn fill(catalog: &Catalog, directory: &Path) {
    let column =
        |name: &str, kind: DataType, nullable| Column::from(&Field::new(name, kind, nullable));
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let list = |kind| DataType::List(Field::new_list_field(kind, true).into());
    let mut items = vec![
        column("id", DataType::Int64, false),
        column("name", DataType::Utf8, true),
        column("price", DataType::Decimal128(15, 2), true),
        column("Added At", timestamp.clone(), true),
        column("tags", list(DataType::Utf8), true),
    ];
    items[0].comment = Some("the key".into());
    let t = vec![
        column("a", DataType::Int32, true),
        column("b", DataType::Utf8, true),
        column("arr", list(DataType::Int32), true),
        column("ts", timestamp, true),
    ];
    let external = |name: &str, columns: &[Column]| {
        Definition::External(External {
            location: write(directory, name, columns),
            format: FileFormat::Parquet,
            partition_columns: vec![],
            options: Default::default(),
        })
    };
    let view = Definition::View {
        sql: "SELECT id, name FROM items WHERE price < 10".into(),
        search_path: vec!["public".into()],
        security_barrier: false,
    };
    let other = vec![column("a", DataType::Int32, true)];
    let database = DEFAULT_DATABASE;
    let fail = CreateMode::Fail;
    for owner in ["ann", "bob"] {
        catalog.create_role(owner, RoleRecord::default()).await.expect("new");
    }
    catalog.create_schema(database, "more", "bob", fail).await.expect("new");
    catalog.create_database("shop", "ann", fail).await.expect("new");
    for (database, schema, name, columns, definition) in [
        (database, "public", "items", items.clone(), external("items", &items)),
        (database, "public", "cheap", items[..2].to_vec(), view),
        (database, "public", "t", t.clone(), external("t", &t)),
        (database, "more", "other", other.clone(), external("other", &other)),
        (database, "more", "items", other.clone(), external("more_items", &other)),
        ("shop", "public", "hidden", other.clone(), external("hidden", &other)),
    ] {
        let name = TableName::new(database, schema, name);
        catalog
            .create_table(&name, "bob", columns, definition, fail, Vec::new())
            .await
            .expect("new");
    }
    let name = TableName::new(database, "public", "items");
    let comment = |record: &mut crate::catalog::TableRecord| {
        record.comment = Some("what we sell".into());
        Ok(())
    };
    catalog.alter_table(&name, &[], comment).await.expect("there");
    let comment = |record: &mut crate::catalog::DatabaseRecord| {
        record.comment = Some("the first".into());
        Ok(())
    };
    catalog.alter_database(database, &[], comment).await.expect("there");
}

/// Three rows in a file of Parquet, the same as in `ordinary.txt`; returns its URL.
fn write(directory: &Path, name: &str, columns: &[Column]) -> String {
    let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    let arrays = schema.fields().iter().map(|field| {
        let texts = ["1", "2", "2"].map(|text| match (field.name().as_str(), field.data_type()) {
            ("b", _) if text == "1" => "x",
            ("b", _) => "y",
            (_, DataType::Timestamp(..)) if text == "1" => "2020-02-03 04:05:06",
            (_, DataType::Timestamp(..)) => "2021-01-01",
            _ => text,
        });
        let values = texts.into_iter().map(|text| match field.data_type() {
            DataType::List(element) => {
                let item = scalar(text, element.data_type());
                ScalarValue::List(ScalarValue::new_list(&[item], element.data_type(), true))
            }
            kind => scalar(text, kind),
        });
        ScalarValue::iter_to_array(values).expect("values of one type")
    });
    let batch = RecordBatch::try_new(schema.clone(), arrays.collect()).expect("a batch");
    let path = directory.join(format!("{name}.parquet"));
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, schema, None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    format!("file://{}", path.display())
}

#[tokio::test]
async fn psql() {
    Fixture::new().await.check(include_str!("psql.sql")).await;
}

#[tokio::test]
async fn completion() {
    Fixture::new().await.check(include_str!("completion.sql")).await;
}

#[tokio::test]
async fn jdbc() {
    Fixture::new().await.check(include_str!("jdbc.sql")).await;
}

#[tokio::test]
async fn python() {
    Fixture::new().await.check(include_str!("python.sql")).await;
}

#[tokio::test]
async fn sqlalchemy() {
    Fixture::new().await.check(include_str!("sqlalchemy.sql")).await;
}

#[tokio::test]
async fn tools() {
    Fixture::new().await.check(include_str!("tools.sql")).await;
}
