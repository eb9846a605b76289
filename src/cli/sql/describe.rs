//! What `\d` and its like ask for, in the catalog's own tables.

/// A listing: its title and the statement that gives its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub title: String,
    pub sql: String,
}

/// Schemas of the system, listed only where `S` or a pattern asks for them.
const SYSTEM: &str = "('pg_catalog', 'information_schema', 'system', 'zk', 'oribi')";

/// The listing of a command such as `dt+`, without its backslash; `None` if it is no listing. A `\d`
/// of one relation is [`relation`]'s.
pub fn listing(command: &str, pattern: Option<&str>) -> Option<Listing> {
    let plus = command.contains('+');
    let system = command.contains('S');
    let kind: String = command.chars().filter(|letter| !matches!(letter, '+' | 'S')).collect();
    let (title, sql) = match kind.as_str() {
        "d" | "dt" | "dv" | "dE" => ("List of relations", relations(&kind, pattern, system, plus)),
        "dn" => ("List of schemas", schemas(pattern, system)),
        "l" => ("List of databases", databases(pattern)),
        "du" | "dg" => ("List of roles", roles(pattern, system)),
        "df" => ("List of functions", functions(pattern, system)),
        "dp" | "z" => ("Access privileges", privileges(pattern)),
        "dconfig" => ("List of settings", settings(pattern)),
        _ => return None,
    };
    Some(Listing { title: title.to_owned(), sql })
}

fn relations(kind: &str, pattern: Option<&str>, system: bool, plus: bool) -> String {
    let kinds = match kind {
        "dt" => "'r', 'p'",
        "dv" => "'v', 'm'",
        "dE" => "'f'",
        _ => "'r', 'p', 'v', 'm', 'f'",
    };
    let more = match plus {
        true => {
            ", t.kind AS \"Kind\", t.rows AS \"Rows\", t.bytes AS \"Bytes\", t.location AS \"Location\""
        }
        false => "",
    };
    let facts = match plus {
        true => {
            "LEFT JOIN (SELECT * FROM system.tables WHERE database = current_database()) t \
             ON t.schema = n.nspname AND t.name = c.relname "
        }
        false => "",
    };
    let condition = named("n.nspname", "c.relname", pattern, system);
    format!(
        "SELECT n.nspname AS \"Schema\", c.relname AS \"Name\", \
         CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' \
         WHEN 'f' THEN 'foreign table' ELSE 'table' END AS \"Type\", \
         pg_catalog.pg_get_userbyid(c.relowner) AS \"Owner\"{more} \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         {facts}WHERE c.relkind IN ({kinds}) AND {condition} ORDER BY 1, 2"
    )
}

fn schemas(pattern: Option<&str>, system: bool) -> String {
    let condition = match pattern {
        Some(pattern) => matches("n.nspname", pattern),
        None if system => "true".to_owned(),
        None => format!("n.nspname NOT IN {SYSTEM}"),
    };
    format!(
        "SELECT n.nspname AS \"Name\", pg_catalog.pg_get_userbyid(n.nspowner) AS \"Owner\" \
         FROM pg_catalog.pg_namespace n WHERE {condition} ORDER BY 1"
    )
}

fn databases(pattern: Option<&str>) -> String {
    let condition = pattern.map_or("true".to_owned(), |pattern| matches("d.datname", pattern));
    format!(
        "SELECT d.datname AS \"Name\", pg_catalog.pg_get_userbyid(d.datdba) AS \"Owner\", \
         pg_catalog.pg_encoding_to_char(d.encoding) AS \"Encoding\" \
         FROM pg_catalog.pg_database d WHERE {condition} ORDER BY 1"
    )
}

fn roles(pattern: Option<&str>, system: bool) -> String {
    let condition = match pattern {
        Some(pattern) => matches("r.rolname", pattern),
        None if system => "true".to_owned(),
        None => "r.rolname NOT LIKE 'pg\\_%' AND r.rolname NOT LIKE 'oribi\\_%'".to_owned(),
    };
    let flag =
        |column: &str, text: &str| format!("CASE WHEN r.{column} THEN '{text}, ' ELSE '' END");
    format!(
        "SELECT r.rolname AS \"Role name\", rtrim({} || \
         CASE WHEN r.rolinherit THEN '' ELSE 'No inheritance, ' END || {} || {} || \
         CASE WHEN r.rolcanlogin THEN '' ELSE 'Cannot login, ' END || {} || {} || \
         CASE WHEN r.rolconnlimit = 0 THEN 'No connections, ' \
         WHEN r.rolconnlimit = 1 THEN '1 connection, ' \
         WHEN r.rolconnlimit > 1 THEN r.rolconnlimit || ' connections, ' ELSE '' END || \
         coalesce('Password valid until ' || r.rolvaliduntil::text, ''), ', ') AS \"Attributes\", \
         '{{' || coalesce(m.roles, '') || '}}' AS \"Member of\" \
         FROM pg_catalog.pg_roles r LEFT JOIN \
         (SELECT a.member, string_agg(b.rolname, ',' ORDER BY b.rolname) AS roles \
         FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles b ON b.oid = a.roleid \
         GROUP BY a.member) m ON m.member = r.oid WHERE {condition} ORDER BY 1",
        flag("rolsuper", "Superuser"),
        flag("rolcreaterole", "Create role"),
        flag("rolcreatedb", "Create DB"),
        flag("rolreplication", "Replication"),
        flag("rolbypassrls", "Bypass RLS"),
    )
}

fn functions(pattern: Option<&str>, system: bool) -> String {
    let condition = match pattern {
        None if !system => "n.nspname = 'oribi'".to_owned(),
        pattern => named("n.nspname", "p.proname", pattern, true),
    };
    format!(
        "SELECT n.nspname AS \"Schema\", p.proname AS \"Name\", \
         pg_catalog.pg_get_function_result(p.oid) AS \"Result data type\", \
         pg_catalog.pg_get_function_arguments(p.oid) AS \"Argument data types\" \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE {condition} ORDER BY 1, 2, 4"
    )
}

fn privileges(pattern: Option<&str>) -> String {
    let condition = named("n.nspname", "c.relname", pattern, false);
    format!(
        "SELECT n.nspname AS \"Schema\", c.relname AS \"Name\", \
         pg_catalog.array_to_string(c.relacl, E'\\n') AS \"Access privileges\" \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {condition} ORDER BY 1, 2"
    )
}

fn settings(pattern: Option<&str>) -> String {
    let condition = match pattern {
        Some(pattern) => matches("lower(s.name)", pattern),
        None => "s.source <> 'default'".to_owned(),
    };
    format!(
        "SELECT s.name AS \"Parameter\", pg_catalog.current_setting(s.name) AS \"Value\" \
         FROM pg_catalog.pg_settings s WHERE {condition} ORDER BY 1"
    )
}

/// The relations that a pattern means: identifier, schema, name and kind.
pub fn found(pattern: &str) -> String {
    let condition = match split(pattern).0 {
        Some(_) => named("n.nspname", "c.relname", Some(pattern), true),
        None => {
            format!("{} AND pg_catalog.pg_table_is_visible(c.oid)", matches("c.relname", pattern))
        }
    };
    format!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {condition} ORDER BY 2, 3"
    )
}

/// The columns of the relation of an identifier.
pub fn columns(oid: &str) -> String {
    format!(
        "SELECT a.attname AS \"Column\", \
         pg_catalog.format_type(a.atttypid, a.atttypmod) AS \"Type\", \
         CASE WHEN a.attnotnull THEN 'not null' ELSE '' END AS \"Nullable\", \
         coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') AS \"Default\" \
         FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d \
         ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    )
}

/// What is known of a table beyond its columns, as [`FACTS`] calls it.
pub fn facts(schema: &str, name: &str) -> String {
    format!(
        "SELECT kind, format, location, rows, bytes, files, error, owner, metadata_location, snapshot_id, \
         committed_at FROM system.tables \
         WHERE database = current_database() AND schema = {} AND name = {}",
        literal(schema),
        literal(name)
    )
}

/// What [`facts`] gives, in this order: first what `\d` shows, then what `\d+` does as well.
pub const FACTS: ([&str; 7], [&str; 4]) = (
    ["Kind", "Format", "Location", "Rows", "Bytes", "Files", "Error"],
    ["Owner", "Metadata", "Snapshot", "Committed"],
);

/// The statement that would make a table.
pub fn created(schema: &str, name: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("SHOW CREATE TABLE {}.{}", quoted(schema), quoted(name))
}

/// How a table is partitioned, of the statement that would make it.
pub fn partitioning(created: &str) -> Option<&str> {
    created.lines().find_map(|line| line.strip_prefix("PARTITIONED BY "))
}

pub fn definition(oid: &str) -> String {
    format!("SELECT pg_catalog.pg_get_viewdef({oid})")
}

/// The condition that a relation or function has a name like the pattern, and is no system's unless
/// that is asked for.
fn named(schema: &str, name: &str, pattern: Option<&str>, system: bool) -> String {
    let Some(pattern) = pattern else {
        return if system { "true".to_owned() } else { format!("{schema} NOT IN {SYSTEM}") };
    };
    match split(pattern) {
        (Some(before), after) => {
            format!("{} AND {}", matches(schema, before), matches(name, after))
        }
        (None, _) if system => matches(name, pattern),
        (None, _) => format!("{} AND {schema} NOT IN {SYSTEM}", matches(name, pattern)),
    }
}

/// Schema and name of a pattern.
fn split(pattern: &str) -> (Option<&str>, &str) {
    let mut quoted = false;
    for (at, character) in pattern.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '.' if !quoted => return (Some(&pattern[..at]), &pattern[at + 1..]),
            _ => {}
        }
    }
    (None, pattern)
}

/// The condition that a column is like a pattern, as psql reads it: `*` and `?` stand for anything,
/// what is in double quotes for itself, all else is in small letters.
fn matches(column: &str, pattern: &str) -> String {
    let (mut expression, mut quoted, mut wild) = (String::from("^("), false, false);
    let mut plain = String::new();
    for character in pattern.chars() {
        match character {
            '"' => quoted = !quoted,
            '*' if !quoted => {
                wild = true;
                expression.push_str(".*");
            }
            '?' if !quoted => {
                wild = true;
                expression.push('.');
            }
            character => {
                let character: String = match quoted {
                    true => character.to_string(),
                    false => character.to_lowercase().collect(),
                };
                plain.push_str(&character);
                if character.chars().all(|letter| letter.is_alphanumeric() || letter == '_') {
                    expression.push_str(&character);
                } else {
                    expression.push('\\');
                    expression.push_str(&character);
                }
            }
        }
    }
    match wild {
        true => format!("{column} ~ {}", literal(&(expression + ")$"))),
        false => format!("{column} = {}", literal(&plain)),
    }
}

/// A text as SQL has it.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_psql_reads_them() {
        assert_eq!(matches("n", "Tab"), "n = 'tab'");
        assert_eq!(matches("n", "\"Tab\""), "n = 'Tab'");
        assert_eq!(matches("n", "t*b?$"), "n ~ E'^(t.*b.\\\\$)$'");
        assert_eq!(split("a.b"), (Some("a"), "b"));
        assert_eq!(split("\"a.b\""), (None, "\"a.b\""));
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn partitioning_is_found_in_the_statement() {
        let created =
            "CREATE TABLE \"s\".\"t\" (\n    \"a\" integer\n)\nPARTITIONED BY (day(\"a\"))";
        assert_eq!(partitioning(created), Some("(day(\"a\"))"));
        assert_eq!(partitioning("CREATE TABLE \"t\" (\n    \"a\" integer\n)"), None);
    }

    #[test]
    fn listings_know_their_letters() {
        for command in ["d", "dt", "dt+", "dS", "dv", "dn", "l", "l+", "du", "df", "dp"] {
            assert!(listing(command, None).is_some(), "{command}");
        }
        assert_eq!(listing("dx", None), None);
    }
}
