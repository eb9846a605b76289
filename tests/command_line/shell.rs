//! `oribi sql` from scripts: formats, commands, exit codes.

use super::*;

/// With a daemon by its address, in a home of its own.
pub fn sql(cluster: &Cluster, daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = oribi("sql", arguments);
    command.args(["--host", &daemon.postgres().to_string()]);
    command.env("XDG_STATE_HOME", cluster.path("state")).env("HOME", cluster.path("home"));
    command
}

/// In a session of its own, where there is no terminal to ask anybody at.
pub fn without_terminal(command: &Command) -> Command {
    let mut alone = Command::new("setsid");
    alone.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    alone.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    alone
}

pub fn with_input(mut command: Command, input: &str) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    ended(&child.wait_with_output().expect("it ends"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_have_the_form_that_is_asked_for() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let query = "SELECT 1 AS n, 'a,b' AS t, NULL::text AS nothing, true AS b";
        let table =
            " n |  t  | nothing | b\n---+-----+---------+---\n 1 | a,b |         | t\n(1 row)\n\n";
        for (arguments, expected) in [
            (&[] as &[&str], table),
            (&["-At"], "1|a,b||t\n"),
            (&["-A", "-F", ";"], "n;t;nothing;b\n1;a,b;;t\n(1 row)\n"),
            (&["--csv"], "n,t,nothing,b\n1,\"a,b\",,t\n"),
            (&["--json"], "[{\"n\":1,\"t\":\"a,b\",\"nothing\":null,\"b\":true}]\n"),
            (&["--format", "jsonl"], "{\"n\":1,\"t\":\"a,b\",\"nothing\":null,\"b\":true}\n"),
            (&["--format", "tsv"], "n\tt\tnothing\tb\n1\ta,b\t\\N\tt\n"),
            (&["-tx", "--null", "-"], "n       | 1\nt       | a,b\nnothing | -\nb       | t\n\n"),
        ] {
            let arguments = [arguments, &["-c", query]].concat();
            let (code, out, err) = finish(sql(&cluster, &daemon, &arguments));
            assert_eq!((code, out.as_str()), (Some(0), expected), "{arguments:?}: {err}");
        }
        // Rows to a file, tags where no program reads.
        let file = cluster.path("rows.json").display().to_string();
        let arguments = [
            "--json",
            "-o",
            &file,
            "-c",
            "CREATE TABLE t AS SELECT 1 AS x",
            "-c",
            "SELECT * FROM t",
        ];
        let (code, out, err) = finish(sql(&cluster, &daemon, &arguments));
        assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
        assert!(err.contains("SELECT 1"), "{err}");
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), "[{\"x\":1}]\n");
        // Knowing nothing but the ensemble.
        let mut command = oribi("sql", &["-Atc", "SELECT 42"]);
        command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
        assert_eq!(finish(command).1, "42\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_are_those_of_psql() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let file = cluster.path("script.sql");
        std::fs::write(&file, "SELECT 1;\n\nSELECT\n  nothing;\nSELECT 2;\n").expect("a file");
        let file = file.display().to_string();
        let condition = cluster.path("condition.sql");
        std::fs::write(&condition, "SELECT 0\n\\if false\nSELECT 1;\n\\endif\n").expect("a file");
        let condition = condition.display().to_string();
        for (arguments, code, out, err) in [
            (&["-At", "-c", "SELECT 1"][..], 0, "1\n", ""),
            (&["-At", "-c", "SELECT nothing"], 1, "", "SQLSTATE 42703"),
            (&["-At", "-c", "SELECT nothing", "-c", "SELECT 2"], 0, "2\n", "42703"),
            (
                &["-At", "-v", "ON_ERROR_STOP=1", "-c", "SELECT nothing", "-c", "SELECT 2"],
                1,
                "",
                "42703",
            ),
            (&["-At", "-f", &file], 0, "1\n2\n", "script.sql:3: ERROR"),
            (&["-At", "-v", "ON_ERROR_STOP=1", "-f", &file], 3, "1\n", "script.sql:3: ERROR"),
            (&["-At", "-f", &condition], 3, "", "a condition stands between statements"),
            (&["-f", "/nowhere.sql"], 1, "", "/nowhere.sql"),
            (&["--nothing"], 2, "", "--nothing"),
            (&["-d", "nowhere", "-c", "SELECT 1"], 2, "", "3D000"),
        ] {
            let (ended, shown, told) = finish(sql(&cluster, &daemon, arguments));
            assert_eq!((ended, shown.as_str()), (Some(code), out), "{arguments:?}: {told}");
            assert!(told.contains(err), "{arguments:?}: {told}");
        }
        let nobody = finish(oribi("sql", &["--host", "127.0.0.1:1", "-c", "SELECT 1"]));
        assert_eq!(nobody.0, Some(2), "{nobody:?}");
        assert!(nobody.2.contains("127.0.0.1:1") && nobody.2.contains("--zookeeper"), "{nobody:?}");
        // Standard input, also where it ends without a semicolon.
        let input = "\\set name 'it''s'\nSELECT :'name', ';';\nSELECT 3";
        let ended = with_input(sql(&cluster, &daemon, &["-At"]), input);
        assert_eq!((ended.0, ended.1.as_str()), (Some(0), "it's|;\n3\n"), "{ended:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_those_that_users_of_psql_know() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let run = |input: &str| {
            let (code, out, err) = with_input(sql(&cluster, &daemon, &[]), input);
            assert_eq!(code, Some(0), "{input}: {err}");
            (out, err)
        };
        run("CREATE TABLE t (a int NOT NULL, b text);\nCREATE VIEW v AS SELECT a FROM t;\n\
             CREATE SCHEMA s; CREATE TABLE s.u (x int); CREATE ROLE ann LOGIN;");
        let shown = |input: &str, parts: &[&str]| {
            let (out, err) = run(input);
            for part in parts {
                assert!(out.contains(part), "{input}: {part}: {out}{err}");
            }
        };
        shown("\\dt", &["List of relations", " public | t    | table | oribi", " s      | u"]);
        shown("\\dv", &[" public | v    | view | oribi", "(1 row)"]);
        shown("\\dt s.*", &[" s      | u    | table", "(1 row)"]);
        shown("\\dt+ t", &["managed", "Location"]);
        shown("\\d t", &["Table \"public.t\"", " a      | integer | not null", "Kind: managed"]);
        shown("\\d v", &["View \"public.v\"", "View definition:", "SELECT a FROM t"]);
        shown("\\dn", &[" public", " s "]);
        shown("\\l", &[" oribi | oribi | UTF8"]);
        shown("\\du", &[" ann", " oribi     | Superuser"]);
        shown("\\df oribi.submit", &["sql text, options text"]);
        shown("\\dp t", &["Access privileges"]);
        shown("\\sv v", &["SELECT a FROM t"]);
        shown("\\x\nSELECT 1 AS a;", &["Expanded display is on.", "-[ RECORD 1 ]", "a | 1"]);
        shown("SELECT 1 AS a, 2 AS b \\gx\nSELECT 3;", &["-[ RECORD 1 ]\na | 1\nb | 2\n", " 3\n"]);
        shown("\\timing on\nSELECT 1;", &["Timing is on.", "Time: "]);
        shown("\\conninfo", &["database \"oribi\" as user \"oribi\""]);
        shown("\\c - ann\nSELECT current_user;", &["as user \"ann\"", " ann"]);
        shown("\\pset format csv\nSELECT 1 AS x;", &["x\n1\n"]);
        shown("SELECT 7 \\watch i=0.01 c=2", &["every 0.01s"]);
        shown("\\?", &["\\watch", "\\copy"]);
        shown("\\h errors", &["40001"]);
        shown("\\h", &["system-tables", "\\h MERGE"]);
        shown("\\h create Table", &["## Tables", "PARTITIONED BY"]);
        shown("\\h select;", &["## Queries", "EXPLAIN [ANALYZE]"]);
        shown("\\! echo from the shell", &["from the shell"]);
        let (_, err) = run("\\nothing\n\\d nothing");
        assert!(
            err.contains("\\? lists them") && err.contains("Did not find any relation"),
            "{err}"
        );
        // Scripts, files, COPY.
        let path = |name: &str| cluster.path(name).display().to_string();
        std::fs::write(path("inner.sql"), "SELECT 'inner';\n").expect("a file");
        std::fs::write(path("outer.sql"), "\\ir inner.sql\n").expect("a file");
        shown(&format!("\\i {}", path("outer.sql")), &[" inner"]);
        let input = "COPY t FROM STDIN;\n1\tone\n2\t\\N\n\\.\nSELECT count(*), count(b) FROM t;\n";
        shown(input, &["     2 |     1"]);
        let file = path("t.csv");
        run(&format!("\\copy t to '{file}' csv header\n\\copy (SELECT 1) to '{file}.2'"));
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), "a,b\n1,one\n2,\n");
        shown(&format!("\\copy t from '{file}' csv header\nSELECT count(*) FROM t;"), &["     4"]);
        std::fs::write(&file, "1,one\nx,two\n").expect("a file");
        let (_, err) = run(&format!("\\copy t from '{file}' csv"));
        assert!(err.contains("CONTEXT:  COPY t, line 2, column a: \"x\""), "{err}");
        // Programs, as in psql; of one that fails nothing is kept.
        let (piped, counted) = (path("piped"), "SELECT count(*) FROM t;");
        run(&format!("\\copy (SELECT 'it''s' AS x) to program 'cat > {piped}; echo ''done'' >> {piped}' csv"));
        assert_eq!(std::fs::read_to_string(&piped).expect("a file"), "it's\ndone\n");
        let from = "\\copy t FROM PROGRAM 'printf ''8,eight\\n9,nine\\n''' csv";
        shown(&format!("{from}\n{counted}"), &["     6"]);
        let (out, err) = run(&format!("\\copy t from program 'echo 10,ten; exit 3' csv\n{counted}"));
        assert!(err.contains("the program has failed (exit status: 3)"), "{err}");
        assert!(out.contains("     6"), "{out}");
        let (_, err) = run("\\copy t to program 'cat > /dev/null; exit 4'");
        assert!(err.contains("the program has failed (exit status: 4)"), "{err}");
        let (_, err) = run("\\copy t to program cat");
        assert!(err.contains("PROGRAM 'COMMAND'"), "{err}");
        let file = path("out");
        run(&format!("\\o {file}\nSELECT 'in the file';\n\\o\nSELECT 'here' \\g {file}.g"));
        assert!(std::fs::read_to_string(&file).expect("a file").contains("in the file"));
        assert!(std::fs::read_to_string(file + ".g").expect("a file").contains("here"));
        // Variables stand for their values there, and what they hold is never run.
        let (file, trap) = (path("var"), path("trap"));
        run(&format!(
            "\\set f {file}\n\\o :f.o\nSELECT 'to o';\n\\o\nSELECT 'to g' \\g :f.g\nSELECT 'to w' \\w :f.w"
        ));
        for name in ["o", "g", "w"] {
            let written = std::fs::read_to_string(format!("{file}.{name}")).expect("a file");
            assert!(written.contains(&format!("to {name}")), "{written}");
        }
        let (_, err) = run(&format!("\\set f '|touch {trap}'\nSELECT 1 \\g :f"));
        assert!(err.contains("write to |touch"), "{err}");
        assert!(!std::path::Path::new(&trap).exists());
        let (_, err) = run("SELECT 1 \\g two names");
        assert!(err.contains("quote a name with spaces"), "{err}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_goes_on_in_no_other_database_than_it_asks_for() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let script = "SELECT 'begun';\n\\c nowhere\nSELECT 'not run';\n";
        let file = cluster.path("script.sql");
        std::fs::write(&file, script).expect("a file");
        let read = sql(&cluster, &daemon, &["-At", "-f", &file.display().to_string()]);
        for (code, out, err) in [finish(read), with_input(sql(&cluster, &daemon, &["-At"]), script)]
        {
            assert_eq!((code, out.as_str()), (Some(2), "begun\n"), "{err}");
            assert!(err.contains("\"nowhere\" does not exist (SQLSTATE 3D000)"), "{err}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_ends_when_its_connection_does() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let [a, b] = cluster.start_together(["a", "b"]).await;
        let hosts = format!("{},{}", a.postgres(), b.postgres());
        let script = format!("SELECT 'begun';\n{ENDLESS};\nSELECT 'not run';\n");
        let file = cluster.path("script.sql");
        std::fs::write(&file, script).expect("a file");
        let file = file.display().to_string();
        let arguments = ["-At", "--host", &hosts, "-f", &file];
        let mut command = oribi("sql", &arguments);
        let child = command.spawn().expect("the program runs");
        let client = Client::connect(&a).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'oribi sql' \
                       AND query LIKE '%10000000000000%'";
        until("the statement runs", async || client.value(running).await == "1").await;
        a.kill();
        let (code, out, err) = ended(&child.wait_with_output().expect("it ends"));
        assert_eq!((code, out.as_str()), (Some(2), "begun\n"), "{err}");
        assert!(err.contains("the connection was lost") && err.contains("only reads"), "{err}");
        drop(b);
    })
    .await;
}
