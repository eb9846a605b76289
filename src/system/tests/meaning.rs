//! That system tables and functions say what is so, and that ordinary statements keep their
//! meaning.

use super::super::relations;
use super::Fixture;
use crate::engine::parse;
use crate::engine::system::shown_name;
use crate::values::types::pg_type_name;

#[tokio::test]
async fn every_relation_can_be_read() {
    let fixture = Fixture::new().await;
    let mut failed = Vec::new();
    for relation in relations::all() {
        let sql = format!("SELECT * FROM {}.{}", relation.schema, relation.name);
        if let Err(error) = fixture.run(&sql).await {
            failed.push(format!("{sql}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
async fn results_are_named_as_in_postgresql() {
    let fixture = Fixture::new().await;
    let mut failed = Vec::new();
    let text = include_str!("ordinary.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for pair in lines.chunks(2) {
        let [sql, expected] = pair else { panic!("a statement without an answer") };
        let parsed = parse(sql).expect("valid").pop().expect("one");
        let answer = match fixture.session.plan(&parsed.statement, &[]).await {
            Err(error) => error.to_string(),
            Ok(plan) => {
                let names = plan.schema.fields().iter().map(|field| shown_name(field.name()));
                let names = names.collect::<Vec<_>>().join("|");
                match fixture.run(sql).await {
                    Err(error) => error.to_string(),
                    Ok(rows) => {
                        let count: usize = rows.iter().map(|batch| batch.num_rows()).sum();
                        format!("{count} {names}")
                    }
                }
            }
        };
        if answer != expected.trim() {
            failed.push(format!("{sql}\n  expected {}\n  found    {answer}", expected.trim()));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Statements with what they answer.
const ANSWERS: &[(&str, &[&str])] = &[
    // What differs in a cast only is another expression.
    (
        "SELECT x, x::text, count(x / 2), count(DISTINCT x::float8 / 2) FROM (VALUES (3)) v (x) GROUP BY x, x::text",
        &["3|3|1|1"],
    ),
    (
        "SELECT x FROM (VALUES (1), (2)) v (x) WHERE EXISTS (SELECT 7 FROM (VALUES (2, 5)) u (g, h) WHERE u.g = v.x \
         ORDER BY u.h LIMIT 1)",
        &["2"],
    ),
    (
        "SELECT a, b, sum(c) FROM (VALUES (1, 1, 1), (1, 2, 2)) v (a, b, c) GROUP BY GROUPING SETS (ROLLUP (a, b)) \
         ORDER BY 1, 2",
        &["1|1|1", "1|2|2", "1|NULL|3", "NULL|NULL|3"],
    ),
    (
        "SELECT a, b, sum(c) FROM (VALUES (1, 2, 3)) v (a, b, c) GROUP BY GROUPING SETS (CUBE (a, b), (b)) ORDER BY 1, 2",
        &["1|2|3", "1|NULL|3", "NULL|2|3", "NULL|2|3", "NULL|NULL|3"],
    ),
    ("SELECT mode() WITHIN GROUP (ORDER BY x) FROM (VALUES (1), (2), (2), (3)) v (x)", &["2"]),
    (
        "SELECT percentile_disc(ARRAY[0.25, 0.5]) WITHIN GROUP (ORDER BY x) FROM (VALUES (1), (2), (2), (3)) v (x)",
        &["[1, 2]"],
    ),
    ("SELECT upper('straße'), lower('ΑΣ'), initcap('ßa É')", &["STRAßE|ασ|ßa É"]),
    (
        "SELECT ARRAY[1, NULL] && ARRAY[NULL, 1], ARRAY[1, NULL] && ARRAY[NULL]::bigint[]",
        &["true|false"],
    ),
    (
        "SELECT a && b, array_remove(a, NULL), array_remove(a, 1) FROM (VALUES (ARRAY[1, NULL], ARRAY[NULL, 1]), \
         (ARRAY[1, 2], ARRAY[2])) v (a, b)",
        &["true|[1]|[NULL]", "true|[1, 2]|[2]"],
    ),
    // Objects carry the catalog's identifiers, system objects PostgreSQL's.
    ("SELECT datname FROM pg_database ORDER BY oid", &["oribi", "shop"]),
    (
        "SELECT oid, nspname FROM pg_namespace WHERE oid < 16384 ORDER BY oid",
        &[
            "11|pg_catalog",
            "2200|public",
            "13207|information_schema",
            "15050|oribi",
            "15100|system",
            "15200|zk",
        ],
    ),
    (
        "SELECT n.nspname, relname, relkind, relnatts FROM pg_class c
         JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid >= 16384 ORDER BY 1, 2",
        &[
            "more|items|r|1",
            "more|other|r|1",
            "public|cheap|v|2",
            "public|items|r|5",
            "public|t|r|4",
        ],
    ),
    ("SELECT 'pg_class'::regclass::oid, 'pg_catalog.pg_type'::regclass::oid", &["1259|1247"]),
    ("SELECT c.tableoid::regclass::text FROM pg_class c WHERE relname = 't'", &["pg_class"]),
    // What the first schema hides has to be named with its own.
    (
        "SELECT c.oid::regclass::text, pg_table_is_visible(c.oid) FROM pg_class c
         WHERE relname IN ('items', 'daemons') ORDER BY 1",
        &["items|true", "more.items|false", "system.daemons|false"],
    ),
    (
        "SELECT 'items'::regclass, '\"items\"'::regclass, 'MORE.Items'::regclass",
        &["items|items|more.items"],
    ),
    (
        "SELECT attnum, attname, format_type(atttypid, atttypmod), attnotnull,
         col_description(attrelid, attnum) FROM pg_attribute
         WHERE attrelid = 'items'::regclass ORDER BY attnum",
        &[
            "1|id|bigint|true|the key",
            "2|name|text|false|NULL",
            "3|price|numeric(15,2)|false|NULL",
            "4|Added At|timestamp without time zone|false|NULL",
            "5|tags|text[]|false|NULL",
        ],
    ),
    (
        "SELECT column_name, data_type, udt_name, is_nullable, numeric_precision, numeric_scale
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'items'
         ORDER BY ordinal_position",
        &[
            "id|bigint|int8|NO|64|0",
            "name|text|text|YES|NULL|NULL",
            "price|numeric|numeric|YES|15|2",
            "Added At|timestamp without time zone|timestamp|YES|NULL|NULL",
            "tags|ARRAY|_text|YES|NULL|NULL",
        ],
    ),
    (
        "SELECT obj_description('items'::regclass, 'pg_class'), obj_description('items'::regclass),
         shobj_description(5, 'pg_database'), obj_description(2200, 'pg_namespace')",
        &["what we sell|what we sell|the first|NULL"],
    ),
    (
        "SELECT viewname, viewowner, definition FROM pg_views WHERE schemaname = 'public'",
        &["cheap|bob| SELECT id, name FROM items WHERE price < 10;"],
    ),
    (
        "SELECT pg_get_viewdef('cheap') = pg_get_viewdef('cheap'::regclass, true),
         pg_get_viewdef('items'::regclass)",
        &["true|NULL"],
    ),
    (
        "SELECT rolname, rolsuper FROM pg_roles WHERE rolname NOT LIKE 'pg~_%' ESCAPE '~' ORDER BY 1",
        &["ann|false", "bob|false", "oribi|true", "oribi_read_coordination|false"],
    ),
    (
        "SELECT pg_get_userbyid(10), 'oribi'::regrole::text, pg_get_userbyid(1)",
        &["oribi|oribi|unknown (OID=1)"],
    ),
    // The session.
    (
        "SELECT current_schema(), current_schemas(true), current_user, current_database(),
         pg_backend_pid(), current_setting('server_version'), current_setting('no.such', true)",
        &["public|[pg_catalog, public]|oribi|oribi|7|15.18|NULL"],
    ),
    ("SELECT current_setting('jit'), set_config('jit', 'off', false)", &["off|off"]),
    ("SELECT setting, vartype FROM pg_settings WHERE name = 'TimeZone'", &["UTC|string"]),
    ("SELECT pid, usename, state, query FROM pg_stat_activity", &["7|oribi|active|SELECT 1"]),
    (
        "SELECT pg_cancel_backend(7), pg_cancel_backend(8), pg_terminate_backend(8)",
        &["true|false|false"],
    ),
    ("SELECT id, state, cores, memory, local FROM system.daemons", &["a|ready|2|1073741824|true"]),
    ("SELECT error FROM system.daemons", &["no room in /d"]),
    (
        "SELECT id, kind, pid, \"user\", sql, phase, progress, rows FROM system.queries",
        &["q|interactive|7|oribi|SELECT 1|executing|0.5|3"],
    ),
    (
        "SELECT id, state, duration_ms, profile, array_to_string(settings, ',')
      FROM system.query_history",
        &["h|finished|1.5|false|TimeZone=UTC+1"],
    ),
    (
        "SELECT key, value, \"default\", origin, live, version, error FROM system.settings",
        &["engine.batch_size|1|8192|--engine-batch-size|false|3|NULL"],
    ),
    ("SELECT * FROM system.settings_applied", &["a|3|true|NULL|NULL"]),
    ("SELECT version, name, before, value FROM system.settings_history", &["3|timezone|NULL|UTC"]),
    // Types and functions.
    (
        "SELECT to_regclass('nothing'), to_regtype('bigint'), 23::regtype::text,
         'int4[]'::regtype::oid, 'hstore'::regtype::oid IS NULL FROM (SELECT 1) s WHERE false",
        &[],
    ),
    (
        "SELECT to_regtype('hstore'), to_regclass('nothing'), 'int4[]'::regtype, 23::regtype",
        &["NULL|NULL|integer[]|integer"],
    ),
    (
        "SELECT typinput::regproc::text, typreceive = 'int4recv'::regproc FROM pg_type
      WHERE typname = 'int4'",
        &["int4in|true"],
    ),
    (
        "SELECT pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc
      WHERE proname = 'array_in'",
        &["cstring, oid, integer|anyarray"],
    ),
    ("SELECT count(*) FROM pg_proc WHERE proname IN ('pg_advisory_lock', 'txid_current')", &["0"]),
    (
        "SELECT pg_typeof(1::int), pg_typeof(ARRAY['a']), pg_typeof('t'::regclass)",
        &["integer|text[]|regclass"],
    ),
    (
        "SELECT format('%I.%s=%L %1$s', 'A b', 1, NULL), quote_nullable(NULL)",
        &["\"A b\".1=NULL A b|NULL"],
    ),
    // Ordinary statements.
    ("SELECT 'a_b' LIKE 'a/_b' ESCAPE '/', 'axb' LIKE 'a/_b' ESCAPE '/'", &["true|false"]),
    (
        "SELECT ARRAY(SELECT a FROM t ORDER BY a DESC), ARRAY(SELECT max(a) FROM t)",
        &["[2, 2, 1]|[2]"],
    ),
    ("SELECT ARRAY(SELECT DISTINCT a FROM t ORDER BY a LIMIT 1)", &["[1]"]),
    (
        "SELECT a, EXISTS (SELECT 1 FROM items i WHERE i.id = t.a + 1) FROM t ORDER BY a",
        &["1|true", "2|false", "2|false"],
    ),
    (
        "SELECT EXISTS (SELECT max(id) FROM items WHERE id > 5), NOT EXISTS (SELECT 1 FROM t)",
        &["true|false"],
    ),
    ("SELECT * FROM unnest(ARRAY['x', 'y']) WITH ORDINALITY AS u(item, n)", &["x|1", "y|2"]),
    ("SELECT '{a,\"b c\",NULL}'::text[], 2 = ANY('{1,2}'::int[])", &["[a, b c, NULL]|true"]),
    ("SELECT 'X' OPERATOR(pg_catalog.~*) 'x', 1 OPERATOR(pg_catalog.+) 2", &["true|3"]),
    ("SELECT DISTINCT upper(b) FROM t ORDER BY upper(b) DESC", &["Y", "X"]),
    ("SELECT b AS a, a AS b FROM t ORDER BY a, b", &["x|1", "y|2", "y|2"]),
    ("SELECT (s).x FROM (SELECT named_struct('x', a) AS s FROM t WHERE a = 1) q", &["1"]),
];

#[tokio::test]
async fn answers_are_true() {
    let fixture = Fixture::new().await;
    let mut failed = Vec::new();
    for (sql, expected) in ANSWERS {
        let found = fixture.lines(sql).await;
        if found != *expected {
            failed.push(format!("{sql}\n  expected {expected:?}\n  found    {found:?}"));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let fixture = Fixture::new().await;
    for (sql, message) in [
        ("SELECT 'nothing'::regclass", "relation \"nothing\" does not exist"),
        ("SELECT 'nothing'::regtype", "type \"nothing\" does not exist"),
        ("SELECT 'nothing'::regnamespace", "schema \"nothing\" does not exist"),
        ("SELECT current_setting('nothing')", "unrecognized configuration parameter \"nothing\""),
        ("SELECT 'nobody'::regrole", "role \"nobody\" does not exist"),
        ("SELECT * FROM pg_catalog.pg_nothing", "relation \"pg_catalog.pg_nothing\""),
        ("SELECT nothing(1)", "function nothing(...) does not exist"),
    ] {
        let error = fixture.run(sql).await.expect_err(sql).to_string();
        assert!(error.contains(message), "{sql}: {error}");
    }
}

/// What clients are told of columns whose type is more than Arrow knows.
#[tokio::test]
async fn columns_keep_their_postgres_types() {
    let fixture = Fixture::new().await;
    let sql = "SELECT oid, relname, relkind, relowner::int8, relacl, 'x'::name, 1::oid AS o,
               oid::text AS t, relnatts FROM pg_class";
    let parsed = parse(sql).expect("valid").pop().expect("one");
    let plan = fixture.session.plan(&parsed.statement, &[]).await.expect("planned");
    let found: Vec<_> = plan.schema.fields().iter().map(|field| pg_type_name(field)).collect();
    let expected = [
        Some("oid"),
        Some("name"),
        Some("char"),
        None,
        Some("_aclitem"),
        Some("name"),
        Some("oid"),
        None,
        None,
    ];
    assert_eq!(found, expected);
}
