//! What Tab offers: keywords, names of the catalog, and commands.

use std::collections::BTreeSet;

use super::scan;

/// Commands, without their backslash.
pub const COMMANDS: &[&str] = &[
    "?",
    "a",
    "bind",
    "c",
    "cd",
    "conninfo",
    "copy",
    "d",
    "dE",
    "dconfig",
    "df",
    "dg",
    "dn",
    "dp",
    "dt",
    "du",
    "dv",
    "e",
    "echo",
    "elif",
    "else",
    "endif",
    "errverbose",
    "f",
    "g",
    "gdesc",
    "getenv",
    "gexec",
    "gset",
    "gx",
    "h",
    "i",
    "if",
    "ir",
    "l",
    "o",
    "p",
    "password",
    "prompt",
    "pset",
    "q",
    "r",
    "set",
    "sv",
    "t",
    "timing",
    "unset",
    "w",
    "warn",
    "watch",
    "x",
    "z",
];

/// Words of statements.
const KEYWORDS: &[&str] = &[
    "ALTER",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COMMIT",
    "COPY",
    "CREATE",
    "CROSS",
    "DATABASE",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FETCH",
    "FILTER",
    "FROM",
    "FULL",
    "GRANT",
    "GROUP",
    "HAVING",
    "IF",
    "ILIKE",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LISTEN",
    "LOCATION",
    "MERGE",
    "NOT",
    "NOTIFY",
    "NULL",
    "OFFSET",
    "ON",
    "OPTIMIZE",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "POOL",
    "PREPARE",
    "RENAME",
    "REPLACE",
    "RESET",
    "RETURNING",
    "REVOKE",
    "RIGHT",
    "ROLE",
    "ROLLBACK",
    "SCHEMA",
    "SELECT",
    "SET",
    "SHOW",
    "STORED",
    "SYSTEM",
    "TABLE",
    "THEN",
    "TO",
    "TRUE",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Words after which a relation's name stands.
const BEFORE_RELATION: &[&str] =
    &["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "VIEW", "COPY", "ANALYZE", "DESCRIBE", "OPTIMIZE"];

/// Names of the catalog.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Schema, relation, column.
    pub columns: Vec<(String, String, String)>,
    pub functions: Vec<String>,
    pub settings: Vec<String>,
}

/// What gives them.
pub const COLUMNS: &str =
    "SELECT table_schema, table_name, column_name FROM information_schema.columns";
pub const FUNCTIONS: &str = "SELECT DISTINCT CASE WHEN n.nspname = 'oribi' THEN 'oribi.' || p.proname \
     ELSE p.proname END FROM pg_catalog.pg_proc p \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace";
pub const SETTINGS: &str = "SELECT name FROM pg_catalog.pg_settings";

/// Where what is completed begins, in bytes, and what may stand there in place of what is before the
/// cursor. What follows the cursor tells aliases as well.
pub fn candidates(text: &str, cursor: usize, names: &Names) -> (usize, Vec<String>) {
    let before = &text[..cursor];
    let start = before
        .rfind(|character: char| !(character.is_alphanumeric() || "_.\\\"".contains(character)))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let begun = &before[start..];
    if let Some(command) = begun.strip_prefix('\\') {
        let fitting = COMMANDS.iter().filter(|known| known.starts_with(command));
        return (start, fitting.map(|known| format!("\\{known} ")).collect());
    }
    let words = scan::words(&before[..start]);
    let last = words.last().map(String::as_str).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
    let described = line.starts_with("\\d") || line.starts_with("\\sv");
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut offer = |name: &str, end: &str| {
        if name.to_lowercase().starts_with(&begun.to_lowercase()) {
            found.insert(format!("{name}{end}"));
        }
    };
    if let Some((qualifier, _)) = begun.rsplit_once('.') {
        qualified(qualifier, text, names, &mut offer);
        names.functions.iter().filter(|name| name.contains('.')).for_each(|name| offer(name, "("));
    } else if described || BEFORE_RELATION.contains(&last) {
        for (schema, relation, _) in &names.columns {
            match is_near(schema) {
                true => offer(&quoted(relation), " "),
                false => offer(&quoted(schema), "."),
            }
        }
    } else if matches!(last, "SET" | "SHOW" | "RESET") {
        names.settings.iter().for_each(|name| offer(name, " "));
    } else if !begun.is_empty() {
        KEYWORDS.iter().for_each(|word| offer(word, " "));
        let all = scan::words(text);
        for (schema, relation, column) in &names.columns {
            if is_near(schema) || all.iter().any(|word| is_named(word, relation)) {
                offer(&quoted(column), "");
            }
            if is_near(schema) {
                offer(&quoted(relation), "");
            }
        }
        names.functions.iter().for_each(|name| offer(name, "("));
    }
    // As keywords are typed.
    let small = begun.chars().all(|letter| !letter.is_uppercase());
    let case = |candidate: String| match small && KEYWORDS.contains(&candidate.trim_end()) {
        true => candidate.to_lowercase(),
        false => candidate,
    };
    (start, found.into_iter().map(case).collect())
}

/// What follows a dot: the relations of a schema, the columns of a relation or of its alias.
fn qualified(qualifier: &str, text: &str, names: &Names, offer: &mut impl FnMut(&str, &str)) {
    let plain = qualifier.rsplit('.').next().unwrap_or_default().trim_matches('"').to_lowercase();
    let words = scan::words(text);
    // `FROM relation alias` and `FROM relation AS alias`.
    let alias = words.iter().rposition(|word| word.to_lowercase() == plain).and_then(|at| {
        let relation = match words.get(at.checked_sub(1)?)?.as_str() {
            "AS" => words.get(at.checked_sub(2)?)?.as_str(),
            other => other,
        };
        Some(relation.to_lowercase())
    });
    for (schema, relation, column) in &names.columns {
        if schema.to_lowercase() == plain {
            offer(&format!("{qualifier}.{}", quoted(relation)), " ");
        }
        let same = |name: &str| {
            name.rsplit('.').next().is_some_and(|name| name == relation.to_lowercase())
        };
        if relation.to_lowercase() == plain || alias.as_deref().is_some_and(same) {
            offer(&format!("{qualifier}.{}", quoted(column)), "");
        }
    }
}

fn is_named(word: &str, relation: &str) -> bool {
    word.rsplit('.').next().is_some_and(|word| word.eq_ignore_ascii_case(relation))
}

/// Whether relations of a schema are offered without it.
fn is_near(schema: &str) -> bool {
    schema == "public"
}

/// In quotes where it would not be read as it is.
fn quoted(name: &str) -> String {
    let plain = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
    };
    match name.chars().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let column = |schema: &str, relation: &str, column: &str| {
            (schema.to_owned(), relation.to_owned(), column.to_owned())
        };
        Names {
            columns: vec![
                column("public", "orders", "o_orderkey"),
                column("public", "orders", "o_total"),
                column("public", "Odd", "x"),
                column("system", "queries", "pid"),
            ],
            functions: vec!["oribi.submit".to_owned(), "octet_length".to_owned()],
            settings: vec!["oribi.consistency".to_owned()],
        }
    }

    fn offered(before: &str) -> Vec<String> {
        candidates(before, before.len(), &names()).1
    }

    #[test]
    fn what_fits_is_offered() {
        assert_eq!(offered("sel"), ["select "]);
        assert_eq!(offered("SEL"), ["SELECT "]);
        assert_eq!(offered("SELECT * FROM ord"), ["orders "]);
        assert_eq!(offered("SELECT * FROM "), ["\"Odd\" ", "orders ", "system."]);
        assert_eq!(offered("SELECT * FROM system.q"), ["system.queries "]);
        assert_eq!(offered("SELECT * FROM orders o WHERE o.o_t"), ["o.o_total"]);
        assert_eq!(offered("SELECT o_o"), ["o_orderkey"]);
        assert_eq!(offered("SELECT octet"), ["octet_length("]);
        assert_eq!(offered("SELECT oribi.s"), ["oribi.submit("]);
        assert_eq!(offered("SET ori"), ["oribi.consistency "]);
        assert_eq!(offered("\\tim"), ["\\timing "]);
        assert_eq!(offered("\\d ord"), ["orders "]);
        assert_eq!(candidates("SELECT ö, oct", 14, &names()).0, 11);
        let text = "SELECT o.o_t FROM orders o";
        assert_eq!(candidates(text, 12, &names()).1, ["o.o_total"]);
    }
}
