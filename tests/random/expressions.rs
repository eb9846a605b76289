//! Expressions of each kind, from a seed. None of them fails, whatever the values are, but where a
//! statement may: see [`Maker::risky`].

use crate::mutate::Random;
use crate::tables::{self, COLUMNS, KEY, Kind, TABLES};

/// What expressions are made with.
pub struct Maker {
    pub random: Random,
    /// The names by which tables are known, the innermost query's last.
    scope: Vec<String>,
    /// Where the present query's own tables begin in it.
    own: usize,
    /// Tables that have been named in the statement.
    named: usize,
    /// Whether an expression may fail: only where all rows are certain to be computed.
    pub risky: bool,
}

const COMPARISONS: &[&str] = &["=", "<>", "<", "<=", ">", ">="];
const ANY_KIND: &[Kind] = &[
    Kind::Bool,
    Kind::Int,
    Kind::Small,
    Kind::Numeric,
    Kind::Float,
    Kind::Moderate,
    Kind::Text,
    Kind::Date,
    Kind::Timestamp,
    Kind::Timestamptz,
    Kind::Interval,
    Kind::Bytea,
    Kind::Uuid,
];
const NUMBERS: &[Kind] = &[Kind::Int, Kind::Small, Kind::Numeric, Kind::Float, Kind::Moderate];
const FIELDS: &[&str] = &["year", "month", "day", "quarter", "dow", "isodow", "doy", "week"];
const INTERVAL_FIELDS: &[&str] = &["year", "month", "day", "hour", "minute", "decade"];
const TIME_FIELDS: &[&str] = &["year", "month", "day", "hour", "minute", "dow", "century"];
const ZONES: &[&str] =
    &["'UTC'", "'Europe/Berlin'", "'America/New_York'", "interval '-03:30'", "'+02'"];
const STRIDES: &[&str] = &["1 day", "90 minutes", "7 days"];
const UNITS: &[&str] = &["year", "quarter", "month", "week", "day"];

impl Maker {
    pub fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        Self { random, scope: Vec::new(), own: 0, named: 0, risky: false }
    }

    /// Begins a statement.
    pub fn clear(&mut self) {
        self.scope.clear();
        (self.own, self.named) = (0, 0);
        self.risky = false;
    }

    /// A table with a name of its own, which is in scope from now on.
    pub fn table(&mut self) -> (String, String) {
        match self.random.chance(8) {
            true => self.named(TABLES[0].0),
            false => self.filled(),
        }
    }

    /// A table that has rows.
    pub fn filled(&mut self) -> (String, String) {
        let table = TABLES[1 + self.random.below(TABLES.len() - 1)].0;
        self.named(table)
    }

    fn named(&mut self, table: &str) -> (String, String) {
        self.named += 1;
        let alias = format!("t{}", self.named);
        self.scope.push(alias.clone());
        (format!("{table} {alias}"), alias)
    }

    /// What a query within makes; its tables are out of scope afterwards.
    pub fn within<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        let (length, own) = (self.scope.len(), self.own);
        self.own = length;
        let made = make(self);
        self.own = own;
        self.scope.truncate(length);
        made
    }

    pub fn kind(&mut self) -> Kind {
        self.random.pick(ANY_KIND)
    }

    /// A kind that all functions and grouping take.
    pub fn plain_kind(&mut self) -> Kind {
        loop {
            let kind = self.kind();
            if kind != Kind::Interval {
                return kind;
            }
        }
    }

    /// A column of one of the query's own tables, or of those around it.
    pub fn column(&mut self, kind: Kind) -> Option<String> {
        let names = &self.scope[self.own..];
        if names.is_empty() {
            return None;
        }
        let name = &names[self.random.below(names.len())];
        let columns: Vec<_> = COLUMNS.iter().filter(|column| column.kind == kind).collect();
        if columns.is_empty() {
            return None;
        }
        Some(format!("{name}.{}", columns[self.random.below(columns.len())].name))
    }

    /// `outer.column` of the query around, if there is one.
    pub fn outer_column(&mut self, kind: Kind) -> Option<String> {
        let names = &self.scope[..self.own];
        let name = names.last()?;
        let column = COLUMNS.iter().find(|column| column.kind == kind)?;
        Some(format!("{name}.{}", column.name))
    }

    pub fn leaf(&mut self, kind: Kind) -> String {
        if kind == Kind::Small && self.random.chance(15) && self.own < self.scope.len() {
            let at = self.own + self.random.below(self.scope.len() - self.own);
            return format!("{}.{KEY}", self.scope[at]);
        }
        match self.random.chance(72) {
            true => self.column(kind),
            false => None,
        }
        .unwrap_or_else(|| tables::constant(&mut self.random, kind))
    }

    /// An expression of a kind.
    pub fn expression(&mut self, kind: Kind, depth: usize) -> String {
        if depth == 0 || self.random.chance(20) {
            return self.leaf(kind);
        }
        let deeper = depth - 1;
        if self.random.chance(18) {
            return self.choice(kind, deeper);
        }
        match kind {
            Kind::Bool => self.condition(deeper),
            Kind::Int => self.integer(deeper),
            Kind::Small => self.small(deeper),
            Kind::Numeric => self.numeric(deeper),
            Kind::Float => self.float(deeper),
            Kind::Moderate => self.moderate(deeper),
            Kind::Text => self.text(deeper),
            Kind::Date => self.date(deeper),
            Kind::Timestamp => self.timestamp(),
            Kind::Timestamptz => self.moment(),
            Kind::Interval => self.interval(deeper),
            Kind::Bytea => self.bytes(deeper),
            Kind::Uuid => self.leaf(kind),
        }
    }

    /// What chooses between values of one kind.
    fn choice(&mut self, kind: Kind, depth: usize) -> String {
        let risky = std::mem::take(&mut self.risky);
        let (one, other) = (self.expression(kind, depth), self.expression(kind, depth));
        let made = match self.random.below(6) {
            0 => format!("coalesce({one}, {other})"),
            1 => format!("nullif({one}, {other})"),
            2 if !matches!(kind, Kind::Interval | Kind::Bytea | Kind::Uuid) => {
                let name = self.random.pick(&["greatest", "least"]);
                format!("{name}({one}, {other})")
            }
            3 => {
                let compared = self.expression(Kind::Small, 0);
                let when = self.random.pick(&["1", "2", "-3", "NULL"]);
                format!("CASE {compared} WHEN {when} THEN {one} WHEN 7 THEN {other} END")
            }
            _ => {
                let condition = self.expression(Kind::Bool, depth);
                format!("CASE WHEN {condition} THEN {one} ELSE {other} END")
            }
        };
        self.risky = risky;
        made
    }

    /// Two expressions that can be compared.
    fn pair(&mut self, depth: usize) -> (String, String) {
        let kind = self.kind();
        let other = match NUMBERS.contains(&kind) && self.random.chance(45) {
            true => self.random.pick(NUMBERS),
            false => kind,
        };
        (self.expression(kind, depth), self.expression(other, depth))
    }

    fn condition(&mut self, depth: usize) -> String {
        match self.random.below(18) {
            0..=3 => {
                let (left, right) = self.pair(depth);
                format!("({left} {} {right})", self.random.pick(COMPARISONS))
            }
            16 => {
                let ((a, b), (c, d)) = (self.pair(0), self.pair(0));
                format!("(({a}, {c}) {} ({b}, {d}))", self.random.pick(COMPARISONS))
            }
            17 => {
                let text = self.expression(Kind::Text, depth);
                let pattern = self.random.pick(&["'(a|b)%'", "'_+'", "'%[0-9]'"]);
                match self.random.chance(50) {
                    true => format!("({text} SIMILAR TO {pattern})"),
                    false => format!("starts_with({text}, 'a')"),
                }
            }
            4 => {
                let kind = self.kind();
                let operand = self.expression(kind, depth);
                format!("({operand} IS {}NULL)", self.random.pick(&["", "NOT "]))
            }
            5 => {
                let (left, right) = self.pair(depth);
                format!("({left} IS {}DISTINCT FROM {right})", self.random.pick(&["", "NOT "]))
            }
            6 => {
                let (left, low) = self.pair(depth);
                let high = low.clone();
                let low = self.random.pick(&[low.as_str(), "NULL"]).to_owned();
                let not = self.random.pick(&["", "NOT "]);
                format!("({left} {not}BETWEEN {low} AND {high})")
            }
            7 | 8 => self.membership(depth),
            9 => self.pattern(depth),
            10 => {
                let operand = self.expression(Kind::Bool, depth);
                let what = self.random.pick(&["TRUE", "FALSE", "UNKNOWN"]);
                format!("({operand} IS {}{what})", self.random.pick(&["", "NOT "]))
            }
            11 => format!("(NOT {})", self.expression(Kind::Bool, depth)),
            _ => {
                let risky = std::mem::take(&mut self.risky);
                let (left, right) =
                    (self.expression(Kind::Bool, depth), self.expression(Kind::Bool, depth));
                self.risky = risky;
                format!("({left} {} {right})", self.random.pick(&["AND", "OR"]))
            }
        }
    }

    fn membership(&mut self, depth: usize) -> String {
        let kind = self.plain_kind();
        let member = self.expression(kind, depth);
        let mut items: Vec<String> = Vec::new();
        for _ in 0..=self.random.below(3) {
            items.push(match self.random.chance(12) {
                true => "NULL".to_owned(),
                false => tables::constant(&mut self.random, kind),
            });
        }
        if items.iter().all(|item| item == "NULL") {
            items.push(tables::constant(&mut self.random, kind));
        }
        let items = items.join(", ");
        match self.random.below(5) {
            0 | 1 => format!("({member} IN ({items}))"),
            2 => format!("({member} NOT IN ({items}))"),
            3 => format!("({member} = ANY (ARRAY[{items}]))"),
            _ => {
                let op = self.random.pick(COMPARISONS);
                let all = self.random.pick(&["ANY", "ALL"]);
                format!("({member} {op} {all} (ARRAY[{items}]))")
            }
        }
    }

    fn pattern(&mut self, depth: usize) -> String {
        let operand = self.expression(Kind::Text, depth);
        let op = self.random.pick(&["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE", "~", "!~", "~*"]);
        let pattern = match op.ends_with("LIKE") {
            true => self.random.pick(&["'%'", "'a%'", "'_b%'", "'%\\%'", "'\\_'", "''", "'%☃%'"]),
            false => self.random.pick(&["'^a'", "'b$'", "'[a-z]+'", "'o.'", "'^$'"]),
        };
        format!("({operand} {op} {pattern})")
    }

    fn integer(&mut self, depth: usize) -> String {
        if self.risky && self.random.chance(35) {
            return self.failing_integer(depth);
        }
        match self.random.below(8) {
            0 => format!("({} % {})", self.leaf(Kind::Int), self.random.pick(&["7", "-3", "1000"])),
            1 => format!("({} / {})", self.leaf(Kind::Int), self.random.pick(&["2", "-7", "1000"])),
            2 => {
                let (left, right) = (self.leaf(Kind::Int), self.expression(Kind::Small, depth));
                format!("({left}::int8 {} {right}::int8)", self.random.pick(&["&", "|", "#"]))
            }
            3 => format!("(~ {})", self.leaf(Kind::Int)),
            4 => format!("{}::int8", self.leaf(Kind::Int)),
            _ => self.expression(Kind::Small, depth),
        }
    }

    /// It fails where a value does not fit, or a divisor is zero.
    fn failing_integer(&mut self, depth: usize) -> String {
        let (left, right) = (self.leaf(Kind::Int), self.expression(Kind::Small, depth));
        match self.random.below(9) {
            0 => format!("({left} + {right})"),
            1 => format!("({left} - {right})"),
            2 => format!("({left} * {right})"),
            3 => format!("({left} / {right})"),
            4 => format!("({left} % {right})"),
            5 => format!("(- {left})"),
            6 => format!("abs({left})"),
            7 => format!("{}::int4", self.leaf(Kind::Float)),
            _ => format!("{}::int4", self.leaf(Kind::Text)),
        }
    }

    /// An integer of at most a few digits.
    fn small(&mut self, depth: usize) -> String {
        let (left, right) = (self.leaf(Kind::Small), self.leaf(Kind::Small));
        match self.random.below(24) {
            20 => {
                let field = self.random.pick(INTERVAL_FIELDS);
                format!("extract({field} FROM {})::int4", self.expression(Kind::Interval, depth))
            }
            21 => {
                let field = self.random.pick(TIME_FIELDS);
                format!("extract({field} FROM {})::int4", self.leaf(Kind::Timestamptz))
            }
            22 => format!("position('b' IN {})", self.expression(Kind::Text, depth)),
            23 => format!("(- {left}>=-3)::int4"),
            0..=2 => format!("({left} + {right})"),
            3 => format!("({left} - {right})"),
            4 => format!("({left} * {right})"),
            5 => format!("(- {left})"),
            6 => format!("abs({left})"),
            7 => format!("({left} % 5)"),
            8 => format!("sign({left})::int4"),
            9 => format!("length({})", self.expression(Kind::Text, depth)),
            10 => format!("octet_length({})", self.expression(Kind::Text, depth)),
            11 => format!("length({})", self.expression(Kind::Bytea, depth)),
            12 => format!("strpos({}, 'b')", self.expression(Kind::Text, depth)),
            13 => {
                let field = self.random.pick(FIELDS);
                let of = self.random.pick(&[Kind::Date, Kind::Timestamp]);
                format!("extract({field} FROM {})::int4", self.expression(of, depth))
            }
            14 => format!("{}::int4", self.expression(Kind::Bool, depth)),
            15 => format!("{}::int4", self.expression(Kind::Moderate, 0)),
            16 => format!("({} & 255)::int4", self.leaf(Kind::Int)),
            17 => format!("({left} << 2)"),
            18 => format!("array_length(ARRAY[{left}, {right}], 1)"),
            _ => format!("ascii({})", self.leaf(Kind::Text)),
        }
    }

    fn numeric(&mut self, depth: usize) -> String {
        let (left, right) = (self.leaf(Kind::Numeric), self.leaf(Kind::Numeric));
        match self.random.below(13) {
            0 => format!("({left} + {right})"),
            1 => format!("({left} - {right})"),
            2 => format!("({left} * {right})"),
            3 => format!("({left} / {})", self.random.pick(&["3", "2.5", "-7"])),
            4 => format!("(- {left})"),
            5 => format!("abs({left})"),
            6 => format!("round({left}, {})", self.random.pick(&["0", "1", "2"])),
            7 => format!("{}({left})", self.random.pick(&["floor", "ceil", "trunc", "round"])),
            8 => format!("({} + {left})", self.expression(Kind::Small, depth)),
            9 => format!("{}::numeric(12,2)", self.expression(Kind::Small, depth)),
            10 => format!("({left} % {})", self.random.pick(&["3", "2.5", "0.7"])),
            11 => format!("({} * 1.5)", self.expression(Kind::Small, depth)),
            _ => format!("{left}::numeric(12,1)"),
        }
    }

    fn float(&mut self, depth: usize) -> String {
        let leaf = self.leaf(Kind::Float);
        match self.random.below(8) {
            6 => {
                let value = self.expression(Kind::Interval, depth);
                format!("extract(epoch FROM {value})::float8")
            }
            7 => format!("date_part('epoch', {})", self.expression(Kind::Date, depth)),
            0 => format!("(- {leaf})"),
            1 => format!("abs({leaf})"),
            2 => format!("{leaf}::float8"),
            3 => format!("({} + {leaf})", self.expression(Kind::Small, depth)),
            4 => format!("{}::float8", self.leaf(Kind::Int)),
            _ => self.expression(Kind::Moderate, depth),
        }
    }

    fn moderate(&mut self, depth: usize) -> String {
        let (left, right) = (self.leaf(Kind::Moderate), self.leaf(Kind::Moderate));
        match self.random.below(11) {
            0 => format!("({left} + {right})"),
            1 => format!("({left} - {right})"),
            2 => format!("({left} * {right})"),
            3 => format!("({left} / 4::float8)"),
            4 => format!("(- {left})"),
            5 => format!("{}({left})", self.random.pick(&["floor", "ceil", "round", "trunc"])),
            6 => format!("sqrt(abs({left}))"),
            7 => format!("{}::float8", self.expression(Kind::Small, depth)),
            8 => format!("({} * {left})", self.expression(Kind::Small, depth)),
            9 => format!("{}::float8", self.leaf(Kind::Numeric)),
            _ => format!("({left} + {})", self.leaf(Kind::Numeric)),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        let (left, right) = (self.expression(Kind::Text, depth), self.leaf(Kind::Text));
        let (from, size) = (self.random.pick(&["1", "2", "3"]), self.random.pick(&["0", "1", "2"]));
        match self.random.below(26) {
            20 => format!("overlay({left} PLACING 'xy' FROM {from} FOR {size})"),
            21 => format!("regexp_replace({left}, '[ab]+', '<\\\\&>', 'g')"),
            22 => format!("repeat({left}, {size})"),
            23 => format!("btrim({left}, 'ab')"),
            24 => format!("quote_nullable({left})"),
            25 => {
                let value = self.leaf(Kind::Timestamp);
                format!("to_char({value}, 'YYYY-MM-DD HH24:MI:SS DDD IW')")
            }
            0 | 1 => format!("({left} || {right})"),
            2 => format!("upper({left})"),
            3 => format!("lower({left})"),
            4 => format!("substr({left}, {from}, {size})"),
            5 => format!("left({left}, {})", self.random.pick(&["1", "-1", "0"])),
            6 => format!("right({left}, {})", self.random.pick(&["2", "-1", "0"])),
            7 => format!("{}({left})", self.random.pick(&["trim", "ltrim", "rtrim", "initcap"])),
            8 => format!("replace({left}, 'a', {right})"),
            9 => format!("{}({left}, 4, 'xy')", self.random.pick(&["lpad", "rpad"])),
            10 => format!("reverse({left})"),
            11 => format!("concat({left}, NULL, {})", self.leaf(Kind::Small)),
            12 => format!("concat_ws('-', {left}, {right})"),
            13 => format!("split_part({left}, 'b', {from})"),
            14 => format!("{}::text", self.expression(Kind::Small, depth)),
            15 => {
                let kind = self.random.pick(&[Kind::Bool, Kind::Date, Kind::Timestamp, Kind::Int]);
                format!("{}::text", self.leaf(kind))
            }
            16 => format!("md5({left})"),
            17 => format!("translate({left}, 'ab', 'c')"),
            18 => format!("to_hex({})", self.leaf(Kind::Int)),
            _ => {
                let kind = self.random.pick(&[Kind::Uuid, Kind::Interval, Kind::Bytea]);
                format!("{}::text", self.leaf(kind))
            }
        }
    }

    fn date(&mut self, depth: usize) -> String {
        match self.random.below(4) {
            0 => {
                let moved = self.expression(Kind::Small, depth);
                format!("(date '2024-02-28' + {moved})")
            }
            1 => format!("(date '2020-01-01' - {})", self.leaf(Kind::Small)),
            2 => format!("{}::date", self.leaf(Kind::Timestamp)),
            _ => self.leaf(Kind::Date),
        }
    }

    fn timestamp(&mut self) -> String {
        match self.random.below(9) {
            6 => format!(
                "({} AT TIME ZONE {})",
                self.leaf(Kind::Timestamptz),
                self.random.pick(ZONES)
            ),
            7 => {
                let (stride, value) = (self.random.pick(STRIDES), self.leaf(Kind::Timestamp));
                format!("date_bin('{stride}', {value}, timestamp '2001-01-01')")
            }
            8 => format!("({} + interval '1 month 1 hour')", self.leaf(Kind::Date)),
            0 => {
                // A sum of differences of timestamps may be none.
                let interval = self.leaf(Kind::Interval);
                format!("(timestamp '2024-01-31 23:00' + {interval})")
            }
            1 => {
                format!("date_trunc('{}', {})", self.random.pick(UNITS), self.leaf(Kind::Timestamp))
            }
            2 => format!("{}::timestamp", self.leaf(Kind::Date)),
            3 => format!("({} AT TIME ZONE 'UTC')", self.leaf(Kind::Timestamptz)),
            4 => format!("({} - interval '1 day')", "timestamp '1970-01-01 00:00:00.5'"),
            _ => self.leaf(Kind::Timestamp),
        }
    }

    fn moment(&mut self) -> String {
        match self.random.below(5) {
            0 => {
                format!("({} AT TIME ZONE {})", self.leaf(Kind::Timestamp), self.random.pick(ZONES))
            }
            1 => {
                let unit = self.random.pick(UNITS);
                format!("date_trunc('{unit}', {})", self.leaf(Kind::Timestamptz))
            }
            _ => self.leaf(Kind::Timestamptz),
        }
    }

    fn interval(&mut self, depth: usize) -> String {
        let (left, right) = (self.leaf(Kind::Interval), self.leaf(Kind::Interval));
        match self.random.below(6) {
            0 => format!("({left} + {right})"),
            1 => format!("({left} - {right})"),
            2 => format!("({} * interval '1 day')", self.expression(Kind::Small, depth)),
            3 => format!("({left} * 2)"),
            4 => {
                let (left, right) = (self.leaf(Kind::Timestamp), self.leaf(Kind::Timestamp));
                format!("({left} - {right})")
            }
            _ => left,
        }
    }

    fn bytes(&mut self, depth: usize) -> String {
        let left = self.leaf(Kind::Bytea);
        match self.random.below(4) {
            0 => format!("({left} || {})", self.leaf(Kind::Bytea)),
            1 => format!("decode(md5({}), 'hex')", self.expression(Kind::Text, depth)),
            2 => format!("decode(encode({left}, 'base64'), 'base64')"),
            _ => left,
        }
    }
}
