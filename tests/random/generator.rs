//! Statements from a seed.

use crate::expressions::Maker;
use crate::tables::{KEY, Kind};

/// A statement, and what of its rows counts.
#[derive(Clone, Debug)]
pub struct Statement {
    pub sql: String,
    /// What it is about, for the figures.
    pub about: &'static str,
    /// Whether its ORDER BY leaves no two rows that differ in any order.
    pub ordered: bool,
}

/// A query and a condition: the rows where it holds, those where it does not and those where it is NULL
/// are all rows.
#[derive(Clone, Debug)]
pub struct Partition {
    pub whole: String,
    pub parts: String,
}

const DEPTH: usize = 3;

/// The sizes of windows.
const FRAMES: &[&str] = &[
    "",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING",
    " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
    " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
];

pub fn statement(maker: &mut Maker) -> Statement {
    maker.clear();
    match maker.random.below(20) {
        0..=2 => constants(maker),
        3..=5 => plain(maker),
        6..=8 => joined(maker),
        9..=11 => with_subqueries(maker),
        12..=14 => aggregated(maker),
        15 | 16 => windows(maker),
        17 => operation(maker),
        18 => derived(maker),
        _ => failing(maker),
    }
}

/// A condition for ternary logic partitioning, with the queries that it makes.
pub fn partition(maker: &mut Maker) -> Partition {
    maker.clear();
    let from = from(maker);
    let condition = match maker.random.chance(25) {
        true => subquery_condition(maker),
        false => maker.expression(Kind::Bool, DEPTH),
    };
    let list = list(maker, 3);
    let query = |condition: &str| format!("SELECT {list} FROM {from} WHERE {condition}");
    let parts = [
        query(&condition),
        query(&format!("NOT ({condition})")),
        query(&format!("({condition}) IS NULL")),
    ];
    Partition { whole: format!("SELECT {list} FROM {from}"), parts: parts.join(" UNION ALL ") }
}

fn list(maker: &mut Maker, most: usize) -> String {
    let items = 1 + maker.random.below(most);
    (0..items).map(|at| item(maker, at)).collect::<Vec<_>>().join(", ")
}

fn item(maker: &mut Maker, at: usize) -> String {
    let kind = maker.kind();
    format!("{} AS c{}", maker.expression(kind, DEPTH), at + 1)
}

/// ORDER BY all columns of a list, so that rows that tie are the same; and perhaps a LIMIT.
fn ordered(maker: &mut Maker, columns: usize) -> String {
    let mut keys = Vec::new();
    for at in 1..=columns {
        let direction = maker.random.pick(&["", " ASC", " DESC"]);
        let nulls = maker.random.pick(&["", "", " NULLS FIRST", " NULLS LAST"]);
        keys.push(format!("{at}{direction}{nulls}"));
    }
    let mut clause = format!(" ORDER BY {}", keys.join(", "));
    if maker.random.chance(40) {
        clause.push_str(&format!(" LIMIT {}", maker.random.below(8)));
    }
    if maker.random.chance(20) {
        clause.push_str(&format!(" OFFSET {}", maker.random.below(5)));
    }
    clause
}

fn constants(maker: &mut Maker) -> Statement {
    maker.risky = maker.random.chance(30);
    let mut items = list(maker, 3);
    if maker.risky {
        items.push_str(&format!(", {}", maker.expression(Kind::Int, 2)));
    }
    let sql = format!("SELECT {items}");
    Statement { sql, about: "constants", ordered: true }
}

fn plain(maker: &mut Maker) -> Statement {
    let (table, alias) = maker.table();
    let mut sql = format!("SELECT {alias}.{KEY}, {}", item(maker, 0));
    let mut columns = 2;
    if maker.random.chance(50) {
        sql.push_str(&format!(", {}", item(maker, 1)));
        columns += 1;
    }
    sql.push_str(&format!(" FROM {table}"));
    if maker.random.chance(75) {
        sql.push_str(&format!(" WHERE {}", maker.expression(Kind::Bool, DEPTH)));
    }
    let total = maker.random.chance(50);
    if total {
        sql.push_str(&ordered(maker, columns));
    }
    Statement { sql, about: "one table", ordered: total }
}

/// Tables in a row, joined in any way.
fn from(maker: &mut Maker) -> String {
    let (mut from, mut last) = maker.table();
    for _ in 0..maker.random.below(3) {
        let (table, alias) = maker.table();
        from = match maker.random.below(8) {
            0 => format!("{from} CROSS JOIN {table}"),
            1 => format!("{from} FULL JOIN {table} ON {}", equality(maker, &last, &alias)),
            2 => {
                let condition = maker.expression(Kind::Bool, 1);
                format!("{from} JOIN {table} ON {condition}")
            }
            other => {
                let join = maker.random.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
                let mut condition = equality(maker, &last, &alias);
                if other < 5 {
                    let more = maker.expression(Kind::Bool, 1);
                    condition = format!("{condition} AND {more}");
                }
                format!("{from} {join} {table} ON {condition}")
            }
        };
        last = alias;
    }
    from
}

/// Two columns of one kind, or of two that can be compared.
fn equality(maker: &mut Maker, left: &str, right: &str) -> String {
    let pairs = [
        ("k", "k"),
        ("m", "m"),
        ("m", "k"),
        ("i4", "i8"),
        ("i8", "i8"),
        ("n", "n"),
        ("s", "s"),
        ("d", "d"),
        ("ts", "ts"),
        ("d", "ts"),
        ("b", "b"),
        ("y", "y"),
        ("u", "u"),
        ("f8", "f8"),
        ("g8", "g8"),
        ("m", "g8"),
        ("n", "m"),
        ("f4", "f8"),
        ("n", "g8"),
        ("tz", "tz"),
    ];
    let (one, other) = maker.random.pick(&pairs);
    format!("{left}.{one} = {right}.{other}")
}

fn joined(maker: &mut Maker) -> Statement {
    if maker.random.chance(15) {
        let (left, right) = (maker.table(), maker.table());
        let column = maker.random.pick(&["k", "m", "b", "d"]);
        let join = maker.random.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let sql = format!(
            "SELECT {column}, {}.i4, {}.n FROM {} {join} {} USING ({column})",
            left.1, right.1, left.0, right.0
        );
        return Statement { sql, about: "joins", ordered: false };
    }
    let from = from(maker);
    let columns = 1 + maker.random.below(3);
    let items: Vec<_> = (0..columns).map(|at| item(maker, at)).collect();
    let mut sql = format!("SELECT {} FROM {from}", items.join(", "));
    if maker.random.chance(50) {
        sql.push_str(&format!(" WHERE {}", maker.expression(Kind::Bool, 2)));
    }
    let total = maker.random.chance(30);
    if total {
        sql.push_str(&ordered(maker, columns));
    }
    Statement { sql, about: "joins", ordered: total }
}

/// What a subquery is asked with.
fn subquery_condition(maker: &mut Maker) -> String {
    let kind = maker.plain_kind();
    let member = maker.expression(kind, 1);
    match maker.random.below(9) {
        0 | 1 => {
            let query = maker.within(|maker| column_of(maker, kind));
            format!("({member} {}IN ({query}))", maker.random.pick(&["", "NOT "]))
        }
        2..=4 => {
            let query = maker.within(|maker| {
                let (table, alias) = maker.table();
                let mut conditions = Vec::new();
                if let Some(outer) = maker.outer_column(Kind::Small) {
                    conditions.push(format!("{alias}.m = {outer}"));
                }
                if maker.random.chance(50) {
                    conditions.push(maker.expression(Kind::Bool, 1));
                }
                let filter = match conditions.is_empty() {
                    true => String::new(),
                    false => format!(" WHERE {}", conditions.join(" AND ")),
                };
                format!("SELECT 1 FROM {table}{filter}")
            });
            format!("({}EXISTS ({query}))", maker.random.pick(&["", "NOT "]))
        }
        5 | 6 => {
            let query = maker.within(|maker| column_of(maker, kind));
            let op = maker.random.pick(&["=", "<>", "<", "<=", ">", ">="]);
            format!("({member} {op} {} ({query}))", maker.random.pick(&["ANY", "ALL"]))
        }
        _ => {
            let (query, kind) = maker.within(scalar);
            let member = maker.expression(kind, 1);
            format!("({member} {} ({query}))", maker.random.pick(&["=", "<", ">=", "<>"]))
        }
    }
}

/// A query of one column.
fn column_of(maker: &mut Maker, kind: Kind) -> String {
    let (table, _) = maker.table();
    let column = maker.expression(kind, 1);
    let mut sql = format!("SELECT {column} FROM {table}");
    if maker.random.chance(50) {
        sql.push_str(&format!(" WHERE {}", maker.expression(Kind::Bool, 1)));
    }
    sql
}

/// A query of one value.
fn scalar(maker: &mut Maker) -> (String, Kind) {
    let (table, alias) = maker.table();
    let kind = maker.random.pick(&[Kind::Int, Kind::Numeric, Kind::Text, Kind::Date]);
    let value = match maker.random.below(3) {
        0 => return (format!("SELECT count(*) FROM {table}"), Kind::Int),
        1 => format!("max({})", maker.expression(kind, 1)),
        _ => format!("min({})", maker.expression(kind, 1)),
    };
    let filter = match maker.outer_column(Kind::Small).filter(|_| maker.random.chance(50)) {
        Some(outer) => format!(" WHERE {alias}.m = {outer}"),
        None => String::new(),
    };
    (format!("SELECT {value} FROM {table}{filter}"), kind)
}

fn with_subqueries(maker: &mut Maker) -> Statement {
    let (table, alias) = maker.table();
    let mut sql = format!("SELECT {alias}.{KEY}");
    if maker.random.chance(50) {
        let (query, _) = maker.within(scalar);
        sql.push_str(&format!(", ({query}) AS c1"));
    }
    if maker.random.chance(20) {
        sql.push_str(&format!(", {} AS c2", subquery_condition(maker)));
    }
    sql.push_str(&format!(" FROM {table} WHERE {}", subquery_condition(maker)));
    if maker.random.chance(30) {
        let op = maker.random.pick(&["AND", "OR"]);
        sql.push_str(&format!(" {op} {}", subquery_condition(maker)));
    }
    Statement { sql, about: "subqueries", ordered: false }
}

fn aggregate(maker: &mut Maker) -> String {
    let kind = maker.plain_kind();
    let distinct = if maker.random.chance(25) { "DISTINCT " } else { "" };
    let mut call = match maker.random.below(15) {
        12 => {
            let name = maker.random.pick(&["bit_and", "bit_or", "bit_xor"]);
            format!("{name}({})", maker.leaf(Kind::Int))
        }
        13 => {
            let value = maker.expression(Kind::Small, 1);
            format!("percentile_disc(0.5) WITHIN GROUP (ORDER BY {value})")
        }
        14 => format!("every({})", maker.expression(Kind::Bool, 1)),
        0 => "count(*)".to_owned(),
        1 | 2 => format!("count({distinct}{})", maker.expression(kind, 1)),
        3 => format!("sum({distinct}{})", maker.expression(Kind::Small, 1)),
        4 => format!("sum({distinct}{})", maker.expression(Kind::Numeric, 1)),
        5 => format!("avg({distinct}{})", maker.expression(Kind::Small, 1)),
        6 => format!("sum({})", maker.expression(Kind::Moderate, 1)),
        7 | 8 => {
            let kind = maker.random.pick(&[
                Kind::Int,
                Kind::Numeric,
                Kind::Float,
                Kind::Text,
                Kind::Date,
                Kind::Timestamp,
            ]);
            let name = maker.random.pick(&["min", "max"]);
            let value = maker.expression(kind, 1);
            match distinct {
                "" => format!("{name}({value}{})", meaningless_order(maker)),
                _ => format!("{name}({distinct}{value})"),
            }
        }
        9 => {
            let name = maker.random.pick(&["bool_and", "bool_or"]);
            let value = maker.expression(Kind::Bool, 1);
            format!("{name}({value}{})", meaningless_order(maker))
        }
        10 => {
            let text = maker.expression(Kind::Text, 1);
            let direction = maker.random.pick(&["", " DESC"]);
            format!("string_agg({text}, ',' ORDER BY {text}{direction})")
        }
        _ => {
            let number = maker.expression(Kind::Small, 1);
            let order = maker.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            format!("array_agg({distinct}{number} ORDER BY {number}{order})")
        }
    };
    if maker.random.chance(25) {
        call.push_str(&format!(" FILTER (WHERE {})", maker.expression(Kind::Bool, 1)));
    }
    call
}

/// Perhaps an ORDER BY for an aggregate that does not depend on it.
fn meaningless_order(maker: &mut Maker) -> String {
    let kind = maker.plain_kind();
    let key = maker.expression(kind, 1);
    // PostgreSQL takes a constant of some aggregates for the number of a column.
    match maker.random.chance(15) && names_column(&key) {
        true => format!(" ORDER BY {key}"),
        false => String::new(),
    }
}

/// Whether an expression names a column, such as `t1.k`.
fn names_column(expr: &str) -> bool {
    let words = expr.split(|c: char| !c.is_alphanumeric() && c != '.');
    let mut columns = words.filter_map(|word| word.strip_prefix('t')?.split_once('.'));
    columns.any(|(number, _)| number.parse::<u32>().is_ok())
}

fn aggregated(maker: &mut Maker) -> Statement {
    let from = from(maker);
    let keys: Vec<String> = (0..maker.random.below(3))
        .map(|_| {
            let kind = maker.plain_kind();
            let key = maker.expression(kind, 1);
            // A constant would be the number of a column.
            maker.column(kind).filter(|_| !names_column(&key)).unwrap_or(key)
        })
        .collect();
    let mut items = keys.clone();
    for _ in 0..=maker.random.below(2) {
        items.push(aggregate(maker));
    }
    let mut sql = String::new();
    for (at, item) in items.iter().enumerate() {
        let comma = if at == 0 { "SELECT " } else { ", " };
        sql.push_str(&format!("{comma}{item} AS c{}", at + 1));
    }
    sql.push_str(&format!(" FROM {from}"));
    if maker.random.chance(35) {
        sql.push_str(&format!(" WHERE {}", maker.expression(Kind::Bool, 2)));
    }
    if let Some(first) = keys.first() {
        let keys = keys.join(", ");
        sql.push_str(&match maker.random.below(9) {
            8 => format!(" GROUP BY GROUPING SETS ((), ({keys}), ({first}))"),
            0 => format!(" GROUP BY ROLLUP ({keys})"),
            1 => format!(" GROUP BY CUBE ({keys})"),
            2 => format!(" GROUP BY GROUPING SETS (({keys}), ())"),
            _ => format!(" GROUP BY {keys}"),
        });
    }
    if maker.random.chance(25) {
        let count = maker.random.below(4);
        sql.push_str(&format!(" HAVING count(*) > {count}"));
    }
    Statement { sql, about: "aggregates", ordered: false }
}

/// The order of a window, and a frame that reaches so far from each row's value.
fn range(maker: &mut Maker, alias: &str) -> String {
    let (column, offsets): (&str, &[&str]) = maker.random.pick(&[
        ("k", &["1", "3", "100000"][..]),
        ("m", &["0", "2", "3000000000"]),
        ("i4", &["5", "2147483647"]),
        ("i8", &["10", "9223372036854775807"]),
        ("n", &["0.5", "10", "0.0001"]),
        ("g8", &["0.5", "3"]),
        ("d", &["interval '1 day'", "interval '1 month'"]),
        ("ts", &["interval '1 hour'", "interval '1 year'"]),
    ]);
    let direction = maker.random.pick(&["", " DESC"]);
    let (before, behind) = (maker.random.pick(offsets), maker.random.pick(offsets));
    let frame = match maker.random.below(4) {
        0 => format!("{before} PRECEDING AND {behind} FOLLOWING"),
        1 => format!("{before} PRECEDING AND CURRENT ROW"),
        2 => format!("UNBOUNDED PRECEDING AND {behind} FOLLOWING"),
        _ => format!("CURRENT ROW AND {behind} FOLLOWING"),
    };
    format!("ORDER BY {alias}.{column}{direction} RANGE BETWEEN {frame}")
}

fn windows(maker: &mut Maker) -> Statement {
    let (table, alias) = maker.table();
    let mut items = vec![format!("{alias}.{KEY}")];
    for at in 0..=maker.random.below(2) {
        let kind = maker.plain_kind();
        let partition = match maker.random.chance(50) {
            true => format!("PARTITION BY {} ", maker.expression(kind, 1)),
            false => String::new(),
        };
        let direction = maker.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let kind = maker.plain_kind();
        let key = maker.column(kind).unwrap_or_default();
        // All rows in one order, for what depends on it.
        let total = format!("{key}{direction}, {alias}.{KEY}");
        let frame = maker.random.pick(FRAMES);
        let value = maker.plain_kind();
        let value = maker.expression(value, 1);
        // The type of a constant in quotes is not known there.
        let value = match value.starts_with('\'') && !value.contains("::") {
            true => format!("{value}::text"),
            false => value,
        };
        let number = maker.expression(Kind::Small, 1);
        let range = range(maker, &alias);
        let call = match maker.random.below(16) {
            12 => format!("percent_rank() OVER ({partition}ORDER BY {key}{direction})"),
            13 => format!("cume_dist() OVER ({partition}ORDER BY {key}{direction})"),
            14 => format!("count(*) OVER ({partition}{range})"),
            15 => format!("sum({number}) FILTER (WHERE {alias}.b) OVER ({partition}{range})"),
            0 => format!("row_number() OVER ({partition}ORDER BY {total})"),
            1 => format!("rank() OVER ({partition}ORDER BY {key}{direction})"),
            2 => format!("dense_rank() OVER ({partition}ORDER BY {key}{direction})"),
            3 => format!("lag({value}) OVER ({partition}ORDER BY {total})"),
            4 => format!("lead({value}, 2) OVER ({partition}ORDER BY {total})"),
            5 => format!("first_value({value}) OVER ({partition}ORDER BY {total}{frame})"),
            6 => format!("last_value({value}) OVER ({partition}ORDER BY {total}{frame})"),
            7 => format!("nth_value({value}, 2) OVER ({partition}ORDER BY {total}{frame})"),
            8 => format!("ntile(3) OVER ({partition}ORDER BY {total})"),
            9 => format!("sum({number}) OVER ({partition}ORDER BY {total}{frame})"),
            10 => format!("count({value}) OVER ({partition}ORDER BY {total}{frame})"),
            _ => format!("max({number}) OVER ({partition}ORDER BY {key}{direction})"),
        };
        items.push(format!("{call} AS w{}", at + 1));
    }
    let mut sql = format!("SELECT {} FROM {table}", items.join(", "));
    if maker.random.chance(30) {
        sql.push_str(&format!(" WHERE {}", maker.expression(Kind::Bool, 2)));
    }
    Statement { sql, about: "windows", ordered: false }
}

fn operation(maker: &mut Maker) -> Statement {
    let kinds: Vec<Kind> = (0..=maker.random.below(2)).map(|_| maker.plain_kind()).collect();
    let mut side = || {
        maker.within(|maker| {
            let (table, _) = maker.table();
            let items: Vec<String> = kinds.iter().map(|kind| maker.expression(*kind, 1)).collect();
            let filter = match maker.random.chance(40) {
                true => format!(" WHERE {}", maker.expression(Kind::Bool, 1)),
                false => String::new(),
            };
            format!("SELECT {} FROM {table}{filter}", items.join(", "))
        })
    };
    let (left, right) = (side(), side());
    let op = maker.random.pick(&[
        "UNION",
        "UNION ALL",
        "INTERSECT",
        "INTERSECT ALL",
        "EXCEPT",
        "EXCEPT ALL",
    ]);
    let mut sql = format!("{left} {op} {right}");
    let total = maker.random.chance(40);
    if total {
        sql.push_str(&ordered(maker, kinds.len()));
    }
    Statement { sql, about: "set operations", ordered: total }
}

/// A query that reads another, in FROM or in WITH.
fn derived(maker: &mut Maker) -> Statement {
    let kind = maker.plain_kind();
    let inner = maker.within(|maker| {
        let (table, alias) = maker.table();
        let value = maker.expression(kind, 2);
        let distinct = maker.random.pick(&["", "DISTINCT "]);
        let mut sql = format!("SELECT {distinct}{value} AS v, {alias}.m AS w FROM {table}");
        if maker.random.chance(40) {
            sql.push_str(&format!(" WHERE {}", maker.expression(Kind::Bool, 2)));
        }
        sql
    });
    let outer = maker.random.pick(&[
        "SELECT count(DISTINCT v), count(*) FROM q",
        "SELECT DISTINCT ON (w) w, v FROM q ORDER BY w, v",
        "SELECT v, w FROM q WHERE (w, 1) IN (SELECT m, 1 FROM several)",
        "SELECT w, x FROM q, LATERAL (SELECT w + 1 AS x) l",
        "SELECT w, x FROM q JOIN (VALUES (1, 'a'), (2, NULL), (NULL, 'c')) t (x, y) ON w = x",
        "SELECT 'a' AS t, count(v), count(DISTINCT w) FROM q UNION ALL SELECT 'b', NULL, 1",
        "SELECT v, w FROM q EXCEPT SELECT v, 1 FROM q",
        "SELECT v, w FROM q WHERE v IS NOT NULL",
        "SELECT w, count(*), count(DISTINCT v) FROM q GROUP BY w",
        "SELECT a.v, b.w FROM q a JOIN q b ON a.w = b.w",
        "SELECT w, min(w) FROM q WHERE w > 0 GROUP BY w HAVING count(v) > 0",
        "SELECT DISTINCT w FROM q WHERE w IN (SELECT m FROM several)",
        "SELECT v FROM q UNION SELECT v FROM q WHERE w < 3",
    ]);
    let sql = match outer.matches(" q").count() == 1 && maker.random.chance(50) {
        true => outer.replace("FROM q", &format!("FROM ({inner}) q")),
        false => format!("WITH q AS ({inner}) {outer}"),
    };
    Statement { sql, about: "derived tables", ordered: false }
}

/// All rows are computed, in whatever order: what fails does on both sides. There are some: PostgreSQL
/// computes constants before it looks for rows.
fn failing(maker: &mut Maker) -> Statement {
    let (table, alias) = maker.filled();
    maker.risky = true;
    let items = [maker.expression(Kind::Int, 2), item(maker, 1)].join(", ");
    let sql = format!("SELECT {alias}.{KEY}, {items} FROM {table}");
    Statement { sql, about: "what may fail", ordered: false }
}
