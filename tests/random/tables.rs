//! The tables that statements are about: all main types, NULLs, duplicates, extremes, and none at all.

use crate::mutate::Random;

/// What an expression gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// Any integer, the least and the largest included.
    Int,
    /// Integers of a few digits: to compute with.
    Small,
    Numeric,
    /// Any float, those that are no numbers included.
    Float,
    /// Floats of a few digits.
    Moderate,
    Text,
    Date,
    Timestamp,
    Timestamptz,
    Interval,
    Bytea,
    Uuid,
}

/// A column, as all tables have them.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    written: &'static str,
    /// What its values are taken from, beside NULL.
    pool: &'static [&'static str],
}

/// The number of a row, beside which every column may be NULL.
pub const KEY: &str = "k";

const fn column(
    name: &'static str,
    kind: Kind,
    written: &'static str,
    pool: &'static [&'static str],
) -> Column {
    Column { name, kind, written, pool }
}

pub const COLUMNS: &[Column] = &[
    column("b", Kind::Bool, "boolean", &["true", "false"]),
    column("i4", Kind::Int, "integer", &["-2147483648", "-1", "0", "1", "7", "2147483647"]),
    column(
        "i8",
        Kind::Int,
        "bigint",
        &["-9223372036854775808", "-1", "0", "1", "7", "4294967296", "9223372036854775807"],
    ),
    column("m", Kind::Small, "integer", &["-20", "-3", "-1", "0", "1", "2", "3", "7", "19"]),
    column(
        "n",
        Kind::Numeric,
        "numeric(12,3)",
        &["-999999999.999", "-1.5", "-0.001", "0", "0.1", "1", "1.005", "2.5", "999999999.999"],
    ),
    column(
        "f4",
        Kind::Float,
        "real",
        &["'NaN'", "'-Infinity'", "-1.5", "-0.0", "0", "0.1", "1", "16777216", "'Infinity'"],
    ),
    column(
        "f8",
        Kind::Float,
        "double precision",
        &[
            "'NaN'",
            "'-Infinity'",
            "-1e308",
            "-1.5",
            "'-0'",
            "0",
            "1e-300",
            "0.1",
            "1",
            "9007199254740993",
            "'Infinity'",
        ],
    ),
    column(
        "g8",
        Kind::Moderate,
        "double precision",
        &["-100.25", "-1.5", "-0.1", "0", "0.1", "0.5", "1", "2.5", "3", "19"],
    ),
    column(
        "s",
        Kind::Text,
        "text",
        &[
            "''", "' '", "'a'", "'A'", "'ab'", "'abc '", "'b%'", "'_'", "'Zoë'", "'☃'", "'10'",
            "'it''s'", "'true'", "'a\\b'",
        ],
    ),
    column(
        "d",
        Kind::Date,
        "date",
        &["'0001-01-01'", "'1582-10-15'", "'1970-01-01'", "'2024-02-29'", "'9999-12-31'"],
    ),
    column(
        "ts",
        Kind::Timestamp,
        "timestamp",
        &[
            "'0001-01-01 00:00'",
            "'1677-01-01 00:00:01'",
            "'1969-12-31 23:59:59.999999'",
            "'2024-02-29 12:34:56.789'",
            "'2024-03-31 02:30'",
            "'2300-01-01 00:00'",
            "'9999-12-31 23:59:59.999999'",
        ],
    ),
    column(
        "tz",
        Kind::Timestamptz,
        "timestamptz",
        &["'1700-01-01 00:00+00'", "'2024-02-29 12:34:56+02'", "'2024-10-27 01:30+00'"],
    ),
    column("y", Kind::Bytea, "bytea", &["'\\x'", "'\\x00'", "'\\x61'", "'\\x6162'", "'\\xff00'"]),
    column(
        "u",
        Kind::Uuid,
        "uuid",
        &[
            "'00000000-0000-0000-0000-000000000000'",
            "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        ],
    ),
];

/// Each with how many rows it has.
pub const TABLES: &[(&str, usize)] = &[("empty", 0), ("few", 5), ("several", 13), ("many", 29)];

/// A constant of the kind, as it is written where nothing else tells its type.
pub fn constant(random: &mut Random, kind: Kind) -> String {
    if kind == Kind::Interval {
        let pool = [
            "0",
            "1 day",
            "-1 day",
            "1 month",
            "30 days",
            "1 year 2 mons",
            "01:30:00",
            "-00:00:01",
            "1 mon 3 days 04:05:06.789",
            "24:00:00",
        ];
        return format!("interval '{}'", random.pick(&pool));
    }
    let columns: Vec<_> = COLUMNS.iter().filter(|column| column.kind == kind).collect();
    let column = columns[random.below(columns.len())];
    if random.chance(6) {
        return format!("NULL::{}", column.written);
    }
    let value = random.pick(column.pool);
    match kind {
        Kind::Bool => value.to_owned(),
        Kind::Text if random.chance(50) => value.to_owned(),
        Kind::Numeric if !value.starts_with('-') && random.chance(50) => value.to_owned(),
        // Behind a minus a cast would be of what follows.
        _ if value.starts_with('\'') => format!("{value}::{}", column.written),
        _ => format!("({value})::{}", column.written),
    }
}

/// The statements that make and fill the tables.
pub fn made(random: &mut Random) -> Vec<String> {
    let mut statements = Vec::new();
    for (table, rows) in TABLES {
        let columns = COLUMNS.iter().map(|column| format!(", {} {}", column.name, column.written));
        let columns = columns.collect::<String>();
        statements.push(format!("CREATE TABLE {table} ({KEY} integer{columns})"));
        let rows = (1..=*rows).map(|key| row(random, key)).collect::<Vec<_>>();
        if !rows.is_empty() {
            statements.push(format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
    }
    statements
}

fn row(random: &mut Random, key: usize) -> String {
    let mut row = format!("({key}");
    for column in COLUMNS {
        row.push_str(", ");
        match random.chance(18) {
            true => row.push_str("NULL"),
            false => row.push_str(random.pick(column.pool)),
        }
    }
    row + ")"
}
