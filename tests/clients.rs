//! Clients that people use, as they are: psql, pgbench and postgres_fdw, the drivers of Python,
//! Java, Node and Rust, what makes Arrow of rows, DuckDB, dbt, and what other tools ask a server about
//! itself. Their scripts are in `tests/clients`; each gets host and port and fails by itself.
//! `tests/run` installs what they need.

mod common;
#[path = "clients/programs.rs"]
mod programs;
#[path = "clients/python.rs"]
mod python;
#[path = "clients/tools.rs"]
mod tools;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::daemon::{Handle, Options, Shared, explain};
use programs::psql;
use python::{python, python_of, run};

/// The driver from Debian's libpostgresql-jdbc-java; `ORIBI_TEST_JDBC` names another jar.
const JDBC: &str = "/usr/share/java/postgresql.jar";

static DAEMON: Shared = Shared::new(Options::new);

const PEOPLE: &str = "id,name,born,height,member\n\
                      1,Ann,1990-05-17,1.72,true\n\
                      2,Bob,1985-12-01,1.80,false\n\
                      3,\"Zoë, Dr.\",,,\n";

/// Lists that the meta commands of psql print: each line must hold these words.
const META_COMMANDS: &[(&str, &[&str])] = &[
    (r"\l", &["oribi", "UTF8"]),
    (r"\dn", &["public", "oribi"]),
    (r"\dt", &["public", "people", "table"]),
    (r"\dt+", &["people"]),
    (r"\dv", &["public", "tall", "view"]),
    (r"\d", &["people", "tall"]),
    (r"\d people", &["id", "integer", "height", "numeric(4,2)", "member", "boolean"]),
    (r"\d+ people", &["born", "date", "the day"]),
    (r"\d tall", &["View", "name", "text"]),
    (r"\d+ tall", &["View definition", "people"]),
    (r"\dt no*", &["Did not find any relation named"]),
    (r"\du", &["oribi"]),
    (r"\df+ upper", &["upper"]),
    (r"\df array_*", &["array_length"]),
    (r"\dT", &["List of data types"]),
    (r"\di", &[]),
    (r"\ds", &[]),
    (r"\dm", &[]),
    (r"\dE", &[]),
    (r"\dx", &["List of installed extensions"]),
    (r"\dd", &[]),
    (r"\dp", &["people"]),
    (r"\db", &["pg_default"]),
    (r"\dC", &[]),
    (r"\do", &[]),
    (r"\dp people", &["people"]),
    (r"\dconfig statement_timeout", &["statement_timeout"]),
    (r"\sv tall", &["CREATE OR REPLACE VIEW public.tall", "people"]),
    (r"\conninfo", &["database \"oribi\"", "user \"oribi\""]),
    (r"\encoding", &["UTF8"]),
    (r"SELECT 1 AS one, 'x' AS two \gdesc", &["one", "two", "text"]),
    (r"SELECT id FROM people ORDER BY id \gx", &["-[ RECORD 1 ]", "id | 1"]),
    (r"SELECT 'SELECT ' || id FROM people ORDER BY id \gexec", &["1", "2", "3"]),
    (r"SELECT 'a', id, 1 FROM people \crosstabview", &["a"]),
    (r"\dT+ text", &["text"]),
    (r"\dn+", &["public"]),
    (r"\l+", &["oribi"]),
    (r"\d+", &["people", "tall"]),
    (r"\dtv public.*", &["people", "tall"]),
    (r"\z", &["people"]),
    (r"\da", &["aggregate"]),
    (r"\dF", &[]),
    (r"\dl", &[]),
    (r"\dRp", &[]),
    (r"\drds", &[]),
    (r"\dc", &[]),
    (r"\det", &[]),
    (r"\des", &[]),
    (r"\dS pg_cl*", &["pg_class"]),
    (r"\sf upper", &[]),
];

#[tokio::test]
async fn psql_meta_commands() {
    let daemon = prepare().await;
    let mut failures = Vec::new();
    for (command, words) in META_COMMANDS {
        // In a file, for -c does not take a statement with a meta command.
        let script = daemon.options().directory().join("meta.sql");
        fs::write(&script, format!("{command}\n")).expect("a script is written");
        let output = psql(&daemon, &["-f"]).arg(&script).output().expect("psql starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let all = format!("{printed}{errors}");
        let missing: Vec<_> = words.iter().filter(|word| !all.contains(**word)).collect();
        if !output.status.success() || errors.contains("ERROR") || !missing.is_empty() {
            failures.push(format!("{command} lacks {missing:?}:\n{all}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn psql_scripts() {
    let daemon = prepare().await;
    let script = daemon.options().directory().join("script.sql");
    let text = "\\set ON_ERROR_STOP on\n\\pset null (null)\n\\x on\n\
                SELECT * FROM people WHERE id = 3;\n\\x off\n\\timing on\n\
                BEGIN;\nSELECT count(*) FROM people;\nCOMMIT;\n\
                SELECT name FROM people WHERE id = :number;\n\
                SELECT 'loop ' || id FROM people ORDER BY id \\g (format=unaligned)\n\
                SELECT count(*) AS number FROM people \\gset\n\\echo :number people\n";
    fs::write(&script, text).expect("a script is written");
    let printed = run(psql(&daemon, &["-v", "number=2", "-f"]).arg(&script));
    for expected in ["name   | Zoë, Dr.", "born   | (null)", "Bob", "loop 2", "3 people", "Time:"]
    {
        assert!(printed.contains(expected), "{expected} is missing:\n{printed}");
    }
    // Several statements in one argument are one message: what came before the error is shown.
    let output = psql(&daemon, &["-c", "SELECT 41 + 1; SELECT nothing; SELECT 'never'"]).output();
    let output = output.expect("psql starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("42") && !printed.contains("never"), "{printed}");
    assert_eq!(output.status.code(), Some(1));
    let output = psql(&daemon, &["-c", "SELECT nothing", "-c", r"\errverbose"]).output();
    let errors = output.expect("psql starts").stderr;
    let errors = String::from_utf8_lossy(&errors);
    assert!(errors.contains("ERROR:  42703: "), "{errors}");
}

/// Rows through a cursor, some at a time, and a table to a file through COPY.
#[tokio::test]
async fn psql_takes_rows_by_parts_and_copies() {
    let daemon = prepare().await;
    let series = "SELECT i FROM generate_series(1, 1000) t (i)";
    let printed = run(&mut psql(&daemon, &["-At", "-v", "FETCH_COUNT=64", "-c", series]));
    assert_eq!(printed.lines().count(), 1000, "{printed}");
    assert!(printed.ends_with("1000\n"), "{printed}");
    let file = daemon.options().directory().join("copied.csv");
    let copy = format!(
        r"\copy (SELECT id, name FROM people ORDER BY id) TO '{}' CSV HEADER",
        file.display()
    );
    assert_eq!(run(&mut psql(&daemon, &["-c", &copy])), "COPY 3\n");
    let copied = fs::read_to_string(file).expect("a file");
    assert_eq!(copied, "id,name\n1,Ann\n2,Bob\n3,\"Zoë, Dr.\"\n");
}

#[tokio::test]
async fn psql_copies() {
    let daemon = prepare().await;
    let file = daemon.options().directory().join("copied.csv");
    let copy = format!(r"\copy people (name, id) to '{}' with csv header", file.display());
    assert_eq!(run(&mut psql(&daemon, &["-c", &copy])), "COPY 3\n");
    let copied = fs::read_to_string(&file).expect("psql wrote a file");
    assert_eq!(copied, "name,id\nAnn,1\nBob,2\n\"Zoë, Dr.\",3\n");
    let copy = r"\copy (select id, born from people order by id) to stdout delimiter '|' null '-'";
    let printed = run(&mut psql(&daemon, &["-c", copy]));
    assert_eq!(printed, "1|1990-05-17\n2|1985-12-01\n3|-\n");
    let copy = "COPY (SELECT name FROM people ORDER BY id DESC LIMIT 1) TO STDOUT; SELECT 'after'";
    let printed = run(&mut psql(&daemon, &["-At", "-c", copy]));
    assert_eq!(printed, "Zoë, Dr.\nafter\n");
    let output = psql(&daemon, &["-c", r"\copy people from stdin"]).output().expect("psql starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("COPY FROM on external tables, which are only read"), "{errors}");
}

#[tokio::test]
async fn psql_copies_into_a_table() {
    let daemon = prepare().await;
    let file = daemon.options().directory().join("to-copy.csv");
    fs::write(&file, "name;id\nAnn;1\n'Zoë; Dr.';3\n").expect("a file is written");
    let script = daemon.options().directory().join("copy.sql");
    let text = format!(
        "CREATE SCHEMA psql_copied;\nCREATE TABLE psql_copied.t (id int, name text);\n\
         \\copy psql_copied.t (name, id) from '{}' with csv header delimiter ';' quote ''''\n\
         COPY psql_copied.t FROM STDIN;\n4\t\\N\n5\tfive\n\\.\n\
         \\copy psql_copied.t from stdin csv\n6,six\n\\.\n\
         \\copy (select * from psql_copied.t order by id) to stdout csv\n\
         BEGIN;\nCOPY psql_copied.t FROM STDIN;\n7\tgone\n\\.\nROLLBACK;\n\
         COPY psql_copied.t FROM STDIN;\n8\tgood\nbad\tbad\n\\.\n\
         SELECT count(*) FROM psql_copied.t \\g (format=unaligned tuples_only=on)\n",
        file.display()
    );
    fs::write(&script, text).expect("a script is written");
    let output = psql(&daemon, &["-q", "-f"]).arg(&script).output().expect("psql starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed, "1,Ann\n3,Zoë; Dr.\n4,\n5,five\n6,six\n5\n", "{errors}");
    for expected in [
        "ERROR:  invalid input syntax for type integer: \"bad\"",
        "CONTEXT:  COPY t, line 2, column id: \"bad\"",
    ] {
        assert!(errors.contains(expected), "{expected} is missing:\n{errors}");
    }
    assert_eq!(errors.matches("ERROR").count(), 1, "{errors}");
}

/// `\watch` asks again and again, until it is interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn psql_watches() {
    let daemon = prepare().await;
    let client = daemon.connect().await;
    client
        .batch_execute("CREATE SCHEMA watching; CREATE TABLE watching.t (n int)")
        .await
        .expect("t");
    let script = daemon.options().directory().join("watch.sql");
    let text = "SELECT 'seen', count(*) FROM watching.t \\watch 0.05\n";
    fs::write(&script, text).expect("a script is written");
    let mut psql = psql(&daemon, &["-A", "-t", "-f"]);
    let mut psql = psql.arg(&script).stdout(Stdio::piped()).spawn().expect("psql starts");
    let mut lines = BufReader::new(psql.stdout.take().expect("a pipe")).lines();
    for rows in 0..3 {
        for _ in 0..2 {
            let seen = lines.find(|line| line.as_ref().is_ok_and(|l| *l == format!("seen|{rows}")));
            assert!(seen.is_some(), "{rows} rows are not seen");
        }
        client.batch_execute("INSERT INTO watching.t VALUES (1)").await.expect("a row");
    }
    psql.kill().expect("psql runs on");
    psql.wait().expect("it ends");
}

macro_rules! python_clients {
    ($($name:ident: $modules:expr, $packages:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let python = python(&$modules, $packages);
            let daemon = prepare().await;
            let script = script(concat!(stringify!($name), ".py"));
            run(with_address(Command::new(python).arg(script), &daemon));
        })*
    };
}

python_clients! {
    psycopg3: ["psycopg"], "psycopg[binary]";
    psycopg2: ["psycopg2"], "psycopg2-binary";
    asyncpg: ["asyncpg"], "asyncpg";
    pg8000: ["pg8000"], "pg8000";
    pandas: ["sqlalchemy", "pandas", "psycopg"], "sqlalchemy pandas psycopg[binary]";
    psycopg3_protocol: ["psycopg"], "psycopg[binary]";
    columnar: ["adbc_driver_postgresql", "connectorx", "polars", "pyarrow"],
        "adbc-driver-postgresql connectorx polars pyarrow";
    completion: ["pty"], "nothing: it is psql that is tested";
    values: ["psycopg", "psycopg2", "asyncpg", "pg8000"],
        "psycopg[binary] psycopg2-binary asyncpg pg8000";
}

/// An environment of its own: the reader's package is for one version of DuckDB.
#[tokio::test]
async fn duckdb() {
    let modules = ["duckdb", "duckdb_extension_postgres_scanner"];
    let packages = "duckdb==1.5.5 duckdb-extension-postgres-scanner==1.5.5";
    let python = python_of("ORIBI_TEST_DUCKDB", &modules, packages);
    let daemon = prepare().await;
    run(with_address(Command::new(python).arg(script("duckdb.py")), &daemon));
}

/// Two daemons that know nothing of each other: enough for the client's choice between them.
#[tokio::test]
async fn hosts() {
    let python = python(&["psycopg"], "psycopg[binary]");
    let (daemon, other) = (prepare().await, common::daemon::Daemon::start(&Options::new()));
    let mut command = Command::new(python);
    with_address(command.arg(script("hosts.py")), &daemon);
    let other = other.postgres();
    run(command.arg(other.ip().to_string()).arg(other.port().to_string()));
}

/// `ORIBI_TEST_NODE_MODULES` names the directory of the packages pg, pg-cursor, pg-query-stream.
#[tokio::test]
async fn node() {
    let modules = std::env::var_os("ORIBI_TEST_NODE_MODULES");
    let modules =
        modules.expect("ORIBI_TEST_NODE_MODULES: `npm install pg pg-cursor pg-query-stream`");
    let daemon = prepare().await;
    let mut node = Command::new("node");
    run(with_address(node.env("NODE_PATH", modules).arg(script("node.js")), &daemon));
}

/// tokio-postgres and sqlx, a package of its own, built below this one's target directory.
#[tokio::test]
async fn rust() {
    let target = Path::new(env!("CARGO_BIN_EXE_oribi"));
    let target = target.ancestors().nth(2).expect("a target directory").join("clients");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(script("rust/Cargo.toml"));
    run(cargo.env("CARGO_TARGET_DIR", &target));
    let daemon = prepare().await;
    run(with_address(&mut Command::new(target.join("debug/oribi-clients")), &daemon));
}

#[tokio::test]
async fn jdbc() {
    let jar = std::env::var_os("ORIBI_TEST_JDBC").unwrap_or_else(|| JDBC.into());
    assert!(
        Path::new(&jar).exists(),
        "{} is missing; on Debian, `apt-get install libpostgresql-jdbc-java default-jdk-headless`",
        Path::new(&jar).display()
    );
    let daemon = prepare().await;
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(jar).arg(script("Jdbc.java"));
    run(with_address(&mut java, &daemon));
}

/// Serialization failure, and a relation that exists.
const LOST: [&str; 2] = ["40001", "42P07"];

/// A daemon with a table, a view and comments.
async fn prepare() -> Handle {
    let daemon = DAEMON.get();
    // Other tests read it already.
    let file = daemon.options().shared_file("people.csv", PEOPLE);
    let setup = format!(
        "CREATE EXTERNAL TABLE IF NOT EXISTS people (id int, name text, born date, \
         height numeric(4,2), member boolean) STORED AS CSV LOCATION '{}'; \
         CREATE OR REPLACE VIEW tall AS SELECT name FROM people WHERE height > 1.75; \
         COMMENT ON COLUMN people.born IS 'the day';",
        file.display()
    );
    // Tests that run at the same time prepare the same.
    let client = daemon.connect().await;
    common::daemon::eventually("the tables are made", async || {
        match client.batch_execute(&setup).await {
            // The loser of a race: the view was made by another test meanwhile.
            Err(error) if error.code().is_some_and(|code| LOST.contains(&code.code())) => None,
            Err(error) => panic!("{setup}: {}", explain(&error)),
            Ok(()) => Some(()),
        }
    })
    .await;
    daemon
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn with_address<'a>(command: &'a mut Command, daemon: &Handle) -> &'a mut Command {
    let address = daemon.postgres();
    command.arg(address.ip().to_string()).arg(address.port().to_string())
}
