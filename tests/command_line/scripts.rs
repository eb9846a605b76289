//! What scripts for psql are made of beside statements: variables, conditions, results that become
//! statements.

use super::shell::{sql, with_input, without_terminal};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_for_psql_do_here_what_they_do_there() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        for (input, expected) in [
            ("SELECT 1 AS a, 'it''s' AS b, NULL AS c \\gset p_\nSELECT :p_a + 1, :'p_b', :{?p_c};", "2|it's|f\n"),
            ("\\set c 5\nSELECT NULL AS c \\gset\n\\echo :{?c} :c", "FALSE :c\n"),
            ("SELECT 7 AS a \\gset \\echo :a 'b :a' :'a'", "7 b :a '7'\n"),
            ("SELECT 'SELECT ' || x FROM generate_series(1, 3) s(x) ORDER BY x \\gexec", "1\n2\n3\n"),
            ("SELECT $1::int \\bind 9 \\g", "9\n"),
            ("SELECT 1\\; SELECT '\\;'\n\\; SELECT 3;\nSELECT 4\\; SELECT 5", "1\n\\;\n3\n4\n5\n"),
            ("SELECT 1 \\p\n+ 1;\nSELECT 2 \\p \\g", "SELECT 1\n2\nSELECT 2\n2\n"),
            ("SELECT 1 AS a\\; SELECT 2 AS a \\gset\n\\echo :a", "1\n2\n"),
            ("SELECT $1::int + $2 \\bind 40 2 \\g\nSELECT $1 \\bind 'a b'\n;", "42\na b\n"),
            ("SELECT 1::int2 AS a, 'x'::text AS \"B c\" \\gdesc", "a|smallint\nB c|text\n"),
            ("\\if on\nSELECT 1;\n\\else\nSELECT 2;\n\\endif\nSELECT 3;", "1\n3\n"),
            ("\\set n 2\nSELECT :n = 1 AS one, :n = 2 AS two \\gset\n\\if :one\nSELECT 'one';\n\\elif :two\n\
              SELECT 'two';\n\\else\nSELECT 'nothing'\n\\endif", "two\n"),
            ("\\if 0\n\\if 1\nSELECT nothing;\n\\endif\n\\q\n\\endif\nSELECT 'to here';", "to here\n"),
            ("SELECT * FROM generate_series(1, 3) s(x);\n\\echo :ROW_COUNT :ERROR :SQLSTATE", "1\n2\n3\n3 false 00000\n"),
            ("\\pset footer off\n\\pset format aligned\n\\t off\nSELECT 1 AS a;", " a\n---\n 1\n\n"),
            ("\\pset pager off\n\\pset border 1\nSELECT 1;", "1\n"),
            ("\\echo :DBNAME :USER :ENCODING", "oribi oribi UTF8\n"),
            ("\\getenv home HOME\n\\if :{?home}\nSELECT 'home';\n\\endif", "home\n"),
        ] {
            let (code, out, err) = with_input(sql(&cluster, &daemon, &["-Atq"]), input);
            assert_eq!((code, out.as_str(), err.as_str()), (Some(0), expected, ""), "{input}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_done_is_refused_with_a_reason() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let file = cluster.path("script.sql");
        for (input, code, out, told) in [
            ("SELECT 1 WHERE false \\gset", 0, "", "gave no row"),
            ("SELECT generate_series(1, 2) \\gset", 0, "", "more than one row"),
            ("\\gset", 0, "", "there is no statement to run"),
            ("SELECT 1 \\watch often", 0, "", "\\watch [SECONDS] [c=TIMES]"),
            ("SELECT 1 AS a, 2 AS b \\crosstabview", 0, "", "run it with psql"),
            ("\\set AUTOCOMMIT off\nSELECT 1;", 0, "1\n", "write BEGIN"),
            ("\\pset border 2\n\\pset pager always\nSELECT 1;", 0, "1\n", "there is no pager"),
            ("\\errverbose", 0, "There is no previous error.\n", ""),
            ("\\set VERBOSITY terse\nSELECT nothing;\n\\errverbose", 0, "", "at character 8\nERROR:  column \"nothing\" does not exist (SQLSTATE 42703)\nLINE 1: SELECT nothing\n               ^\n"),
            ("SELECT nothing;\n\\echo :ERROR :SQLSTATE :LAST_ERROR_SQLSTATE\nSELECT 1;\n\\echo :ERROR :LAST_ERROR_SQLSTATE", 0, "true 42703 42703\n1\nfalse 42703\n", ""),
            ("\\set VERBOSITY sqlstate\nSELECT nothing;", 0, "", "ERROR:  42703\n"),
            ("\\set ON_ERROR_STOP\nSELECT 'SELECT nothing' UNION ALL SELECT 'SELECT 2' ORDER BY 1 DESC \\gexec\nSELECT 3;", 3, "", "42703"),
            ("SELECT 1;\n\\if maybe\nSELECT 2;\n\\endif", 0, "1\n", "neither true nor false"),
            ("SELECT 1;\n\\else", 0, "1\n", "no \\if is open"),
            ("\\set ON_ERROR_STOP 1\nSELECT 1;\n\\if 1\nSELECT 2;", 3, "1\n2\n", "no \\endif"),
        ] {
            std::fs::write(&file, input).expect("a file");
            let file = file.display().to_string();
            let (ended, shown, said) = finish(sql(&cluster, &daemon, &["-Atq", "-f", &file]));
            assert_eq!((ended, shown.as_str()), (Some(code), out), "{input}: {said}");
            assert!(said.contains(told), "{input}: {said}");
        }
        // Values are values, whatever is in them.
        let input = "SELECT 'a; SELECT 2' AS v \\gset\nSELECT :'v';";
        let (code, out, _) = with_input(sql(&cluster, &daemon, &["-Atq"]), input);
        assert_eq!((code, out.as_str()), (Some(0), "a; SELECT 2\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_tell_as_much_as_those_of_psql() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let run = |input: &str| {
            let (code, out, err) = with_input(sql(&cluster, &daemon, &[]), input);
            assert_eq!(code, Some(0), "{input}: {err}");
            assert_eq!(err, "", "{input}");
            out
        };
        run("CREATE TABLE t (a int DEFAULT 3, b text NOT NULL DEFAULT 'x y', d date) PARTITIONED BY (day(d));\n\
             CREATE ROLE grp; CREATE ROLE ann LOGIN CONNECTION LIMIT 3 VALID UNTIL '2036-01-01'; GRANT grp TO ann;");
        let table = run("\\d t");
        for part in [
            " a      | integer |          | 3",
            " b      | text    | not null | 'x y'",
            "Partitioned by: (day(\"d\"))",
            "Location: file://",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
        assert!(!table.contains("Metadata: "), "{table}");
        let more = run("\\d+ t");
        assert!(more.contains("Owner: oribi") && more.contains("Metadata: file://"), "{more}");
        let roles = run("\\du");
        for part in [
            "3 connections, Password valid until 2036-01-01",
            "| {grp}",
            "Superuser, Create role, Create DB, Bypass RLS",
            " grp       | Cannot login",
        ] {
            assert!(roles.contains(part), "{part}: {roles}");
        }
    })
    .await;
}

/// The script itself is what stands on standard input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_on_standard_input_waits_for_nobody() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (a int, b text)").await;
        let count = "SELECT count(*), count(b) FROM t;\n";
        let own = format!("\\copy t FROM STDIN\n1\tone\n2\t\\N\n\\.\n{count}");
        let whole = format!("\\copy t FROM pstdin csv\n3,three\n\\.\n{count}");
        let cases = [
            ("\\prompt 'Name: ' x\nSELECT 1;\n", "1\n", "no terminal to ask at"),
            ("\\password\nSELECT 1;\n", "1\n", "no terminal to ask at"),
            (own.as_str(), "2|1\n", ""),
            (whole.as_str(), "3|2\n", ""),
            ("COPY t FROM STDIN \\gset\nSELECT 1;\n", "1\n", "COPY gives no rows"),
            ("COPY t FROM STDIN \\gexec\nSELECT 1;\n", "1\n", "COPY gives no rows"),
            ("COPY t FROM STDIN \\bind \\gset\nSELECT 1;\n", "1\n", "COPY gives no rows"),
        ];
        for (input, out, told) in cases {
            for arguments in [&["-Atq"][..], &["-Atq", "-f", "-"]] {
                if out.contains('|') && arguments.len() > 1 {
                    continue;
                }
                let command = without_terminal(&sql(&cluster, &daemon, arguments));
                let (code, shown, said) = with_input(command, input);
                assert_eq!((code, shown.as_str()), (Some(0), out), "{input}: {said}");
                assert!(said.contains(told) && said.is_empty() == told.is_empty(), "{said}");
            }
        }
        // One in a file leaves it to answers, and brings its own rows.
        let file = cluster.path("asks.sql");
        let script = "\\prompt 'Name: ' x\n\\copy t FROM STDIN csv\n4,:x\n\\.\nSELECT :'x', max(a) FROM t;\n";
        std::fs::write(&file, script).expect("a file");
        let file = file.display().to_string();
        let asked = with_input(sql(&cluster, &daemon, &["-Atq", "-f", &file]), "ann\n");
        assert_eq!(asked, (Some(0), "ann|4\n".to_owned(), "Name: ".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_set_no_variable_that_has_a_meaning() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let input = "SELECT 'on' AS \"ON_ERROR_STOP\", 'terse' AS \"VERBOSITY\", 'h' AS \"HOST\", \
                     NULL AS \"USER\", 7 AS a \\gset\nSELECT 'x' AS \"IET\" \\gset QU\n\
                     SELECT nothing;\n\\echo :a :USER :{?ON_ERROR_STOP} :{?QUIET}\n";
        let (code, out, err) = with_input(sql(&cluster, &daemon, &["-At"]), input);
        assert_eq!((code, out.as_str()), (Some(0), "7 oribi FALSE FALSE\n"), "{err}");
        for name in ["ON_ERROR_STOP", "VERBOSITY", "HOST", "USER", "QUIET"] {
            assert!(err.contains(&format!("the variable {name} has a meaning")), "{err}");
        }
        assert!(err.contains("LINE 1: SELECT nothing"), "{err}");
        // What is unset has its default again.
        let input = "\\set VERBOSITY sqlstate\n\\unset VERBOSITY\nSELECT nothing;\n\\set QUIET on\n\
                     \\unset QUIET\n\\timing on\n";
        let (_, out, err) = with_input(sql(&cluster, &daemon, &["-At"]), input);
        assert!(err.contains("does not exist") && out.contains("Timing is on."), "{out}{err}");
    })
    .await;
}
