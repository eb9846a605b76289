//! What Oribi has in place of what PostgreSQL has and Oribi has not.

use sqlparser::ast::{ColumnOption, DataType, Statement, TableConstraint};

use super::{Error, Result};

const KEY: &str = "Leave it out: nothing enforces keys. MERGE INTO ... ON t.key = s.key adds only rows that are \
                   missing, and SELECT DISTINCT ON (key) leaves repeated ones away.";

const REFERENCE: &str = "Leave it out: nothing enforces references. A MERGE or INSERT ... SELECT that joins the \
                         other table takes only rows that have a counterpart there.";

const CHECK: &str = "Leave it out: only NOT NULL and types are enforced. A WHERE in what writes the table keeps \
                     rows out, and a view over it hides them.";

const NOT_NULL: &str = "Rows that are there are not looked at again. Make a table that has the constraint, CREATE \
                        TABLE new (column type NOT NULL, ...), INSERT INTO new SELECT ... FROM the old one, and \
                        ALTER TABLE ... RENAME TO puts it in its place.";

const DIGITS: &str = "Leave it out: the files have what they have. A view may show less of it: SELECT \
                      column::timestamp(0).";

const NUMBERS: &str = "There are no sequences. For keys take uuid with DEFAULT gen_random_uuid(), or number rows \
                       as they are inserted: row_number() OVER () + (SELECT coalesce(max(id), 0) FROM t).";

const INDEX: &str = "None is needed: files and pages that cannot hold a wanted value are skipped by what is known \
                     of each. PARTITIONED BY and SORTED BY of CREATE TABLE put rows together that are read \
                     together.";

const TEMPORARY: &str = "WITH names the rows of one statement. For several, CREATE TABLE ... AS, in a schema of \
                         your own, and DROP TABLE ... PURGE afterwards.";

const MATERIALIZED: &str = "CREATE TABLE ... AS query keeps its rows, and INSERT OVERWRITE TABLE ... query makes \
                            them anew: oribi.schedule does so again and again.";

const FUNCTION: &str =
    "Put the expression into a view, or the statement into oribi.schedule or PREPARE.";

const EXTENSION: &str = "Nothing can be added: oribi help functions lists what is there.";

const TRIGGER: &str =
    "LISTEN catalog tells of changes, and oribi.schedule runs a statement again and again.";

const TYPE: &str = "Take one of the types that are there. NOT NULL, and a WHERE in what writes the table, keep \
                    unwanted values out.";

const BLOCK: &str = "There is no procedural language. Send the statements one by one, in BEGIN and COMMIT if they \
                     belong together; EXECUTE of what PREPARE has prepared takes values.";

const RULE: &str = "A view stands for a query, and CREATE POLICY keeps rows from roles. What writes goes to the table itself.";

const ORDER: &str = "SORTED BY of CREATE TABLE puts rows in order as they are written, and OPTIMIZE TABLE writes \
                     them anew.";

const PEERS: &str = "All daemons of a cluster share the tables' files. Elsewhere, COPY ... TO and COPY ... FROM \
                     move rows, and other engines read tables as Apache Iceberg's.";

const FOREIGN: &str = "CREATE EXTERNAL TABLE ... STORED AS PARQUET, CSV or JSON LOCATION '...' reads files of others.";

const PLACE: &str = "A table's place is where its schema's and database's are: the setting warehouse, or LOCATION of \
                     CREATE TABLE.";

const ANALYZE: &str = "ANALYZE TABLE gathers what is known of a table's columns.";

/// Statements that the SQL parser does not know, by their first words.
const UNKNOWN: &[(&str, &str)] = &[
    ("DO", BLOCK),
    ("REINDEX", INDEX),
    ("CLUSTER", ORDER),
    ("REFRESH MATERIALIZED VIEW", MATERIALIZED),
    ("SECURITY LABEL", ""),
    ("IMPORT FOREIGN SCHEMA", FOREIGN),
    ("CREATE RULE", RULE),
    ("ALTER RULE", RULE),
    ("DROP RULE", RULE),
    ("CREATE AGGREGATE", FUNCTION),
    ("CREATE CAST", FUNCTION),
    ("DROP CAST", FUNCTION),
    ("CREATE CONVERSION", ""),
    ("CREATE EVENT TRIGGER", TRIGGER),
    ("DROP EVENT TRIGGER", TRIGGER),
    ("CREATE FOREIGN DATA WRAPPER", FOREIGN),
    ("CREATE FOREIGN TABLE", FOREIGN),
    ("DROP FOREIGN TABLE", FOREIGN),
    ("CREATE LANGUAGE", BLOCK),
    ("CREATE PUBLICATION", PEERS),
    ("ALTER PUBLICATION", PEERS),
    ("DROP PUBLICATION", PEERS),
    ("CREATE SUBSCRIPTION", PEERS),
    ("ALTER SUBSCRIPTION", PEERS),
    ("DROP SUBSCRIPTION", PEERS),
    ("CREATE STATISTICS", ANALYZE),
    ("DROP STATISTICS", ANALYZE),
    ("CREATE TABLESPACE", PLACE),
    ("DROP TABLESPACE", PLACE),
    ("CREATE TEXT SEARCH", ""),
    ("CREATE TRANSFORM", ""),
    ("CREATE ACCESS METHOD", ""),
    ("ALTER SEQUENCE", NUMBERS),
    ("ALTER DOMAIN", TYPE),
    ("ALTER EXTENSION", EXTENSION),
    ("ALTER TRIGGER", TRIGGER),
    ("ALTER MATERIALIZED VIEW", MATERIALIZED),
];

/// Words that may stand behind CREATE without saying what is created.
const BESIDE: &[&str] = &["OR", "REPLACE", "TRUSTED", "PROCEDURAL"];

/// Refuses a statement of PostgreSQL's that the SQL parser would take for a mistake. `words` are its first
/// words, in upper case.
pub(super) fn refuse_unknown(words: &[String]) -> Result<()> {
    let known: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = known.iter().filter(|word| !BESIDE.contains(word));
    let said = said.copied().collect::<Vec<_>>().join(" ");
    let begins = |name: &str| {
        said.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    match UNKNOWN.iter().find(|(name, _)| begins(name)) {
        None => Ok(()),
        Some((name, "")) => Err(Error::NotSupported((*name).to_owned())),
        Some((name, instead)) => Err(Error::Instead { what: (*name).to_owned(), instead }),
    }
}

/// A constraint on a column that is there.
pub(super) fn of_not_null() -> Error {
    Error::Instead { what: "ALTER COLUMN SET NOT NULL".to_owned(), instead: NOT_NULL }
}

/// A number of digits of a second in a column of files that others write.
pub(super) fn of_digits(column: &str) -> Error {
    let what =
        format!("a number of digits of a second in column \"{column}\" of an external table");
    Error::Instead { what, instead: DIGITS }
}

/// A constraint of a whole table.
pub(super) fn of_table(constraint: &TableConstraint) -> Error {
    let (what, instead) = match constraint {
        TableConstraint::PrimaryKey(_) => ("a table's PRIMARY KEY", KEY),
        TableConstraint::Unique(_) => ("a table's UNIQUE", KEY),
        TableConstraint::ForeignKey(_) => ("a table's FOREIGN KEY", REFERENCE),
        TableConstraint::Check(_) => ("a table's CHECK", CHECK),
        _ => ("this constraint of a table", CHECK),
    };
    Error::Instead { what: what.to_owned(), instead }
}

/// What is said of one column, beside NOT NULL, DEFAULT and COMMENT.
pub(super) fn of_column(option: &ColumnOption) -> Error {
    let what = format!("the column constraint {option}");
    let instead = match option {
        ColumnOption::PrimaryKey(_) | ColumnOption::Unique(_) => KEY,
        ColumnOption::ForeignKey(_) => REFERENCE,
        ColumnOption::Check(_) => CHECK,
        ColumnOption::Identity(_) => NUMBERS,
        ColumnOption::Generated { generation_expr: None, .. } => NUMBERS,
        ColumnOption::Generated { .. } => FUNCTION,
        _ => return Error::NotSupported(what),
    };
    Error::Instead { what, instead }
}

/// Refuses PostgreSQL's types that are numbers out of a sequence.
pub(super) fn refuse_serial(data_type: &DataType) -> Result<()> {
    let name = data_type.to_string().to_lowercase();
    match name.as_str() {
        "serial" | "bigserial" | "smallserial" | "serial2" | "serial4" | "serial8" => {
            Err(Error::Instead { what: format!("the type {name}"), instead: NUMBERS })
        }
        _ => Ok(()),
    }
}

pub(super) fn of_temporary(what: &str) -> Error {
    Error::Instead { what: what.to_owned(), instead: TEMPORARY }
}

pub(super) fn of_materialized() -> Error {
    Error::Instead { what: "CREATE MATERIALIZED VIEW".to_owned(), instead: MATERIALIZED }
}

/// A statement that there is not, or what `name` calls it.
pub(super) fn of_statement(statement: &Statement, name: String) -> Error {
    let (what, instead) = match statement {
        Statement::CreateIndex(_) => ("CREATE INDEX", INDEX),
        Statement::CreateSequence { .. } => ("CREATE SEQUENCE", NUMBERS),
        Statement::CreateFunction(_) => ("CREATE FUNCTION", FUNCTION),
        Statement::CreateProcedure { .. } => ("CREATE PROCEDURE", FUNCTION),
        Statement::CreateExtension(_) => ("CREATE EXTENSION", EXTENSION),
        Statement::CreateTrigger(_) => ("CREATE TRIGGER", TRIGGER),
        Statement::CreateType { .. } => ("CREATE TYPE", TYPE),
        Statement::CreateDomain(_) => ("CREATE DOMAIN", TYPE),
        _ => return Error::NotSupported(name),
    };
    Error::Instead { what: what.to_owned(), instead }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::Statement as EngineStatement;

    use super::super::command::recognise;
    use super::*;
    use crate::engine::parse_one;

    fn refusal(sql: &str) -> Error {
        let parsed = parse_one(sql).expect(sql);
        match recognise(&parsed) {
            Err(error) => error,
            // Columns are looked at when they are made.
            Ok(_) => match &parsed.statement {
                EngineStatement::Statement(statement) => match statement.as_ref() {
                    Statement::CreateTable(create) => {
                        let column = &create.columns[0];
                        let refused = refuse_serial(&column.data_type).err();
                        refused.unwrap_or_else(|| of_column(&column.options[0].option))
                    }
                    other => panic!("{other} is taken"),
                },
                other => panic!("{other:?} is taken"),
            },
        }
    }

    #[test]
    fn what_the_parser_does_not_know_is_no_mistake() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (text, what, part) in [
            ("DO LANGUAGE plpgsql", "DO", "one by one"),
            ("REINDEX TABLE t", "REINDEX", "SORTED BY"),
            ("CREATE OR REPLACE RULE r AS", "CREATE RULE", "view"),
            ("CREATE TRUSTED LANGUAGE l", "CREATE LANGUAGE", "procedural"),
            ("CREATE FOREIGN TABLE t", "CREATE FOREIGN TABLE", "EXTERNAL"),
        ] {
            let error = refuse_unknown(&words(text)).expect_err(text);
            assert_eq!(error.to_string(), format!("{what} is not supported"), "{text}");
            assert!(error.hint().is_some_and(|hint| hint.contains(part)), "{text}");
        }
        let bare = refuse_unknown(&words("SECURITY LABEL ON TABLE")).expect_err("not there");
        assert!(matches!(bare, Error::NotSupported(_)), "{bare}");
        for text in
            ["CREATE OR REPLACE VIEW rule", "CREATE TABLE publication", "DOING", "DROP TABLE"]
        {
            refuse_unknown(&words(text)).expect(text);
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        for (sql, what, part) in [
            ("CREATE TABLE t (a int PRIMARY KEY)", "PRIMARY KEY", "MERGE"),
            ("CREATE TABLE t (a int UNIQUE)", "UNIQUE", "MERGE"),
            ("CREATE TABLE t (a int CHECK (a > 0))", "CHECK", "NOT NULL"),
            ("CREATE TABLE t (a int REFERENCES u (a))", "REFERENCES", "INSERT ... SELECT"),
            ("CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)", "IDENTITY", "gen_random_uuid"),
            ("CREATE TABLE t (a int GENERATED ALWAYS AS (1) STORED)", "GENERATED", "view"),
            ("CREATE TABLE t (a bigserial)", "bigserial", "gen_random_uuid"),
            ("CREATE TABLE t (a int, PRIMARY KEY (a))", "PRIMARY KEY", "MERGE"),
            ("CREATE TABLE t (a int, CONSTRAINT c UNIQUE (a))", "UNIQUE", "MERGE"),
            ("CREATE TABLE t (a int, CHECK (a > 0))", "CHECK", "NOT NULL"),
            ("CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES u (a))", "FOREIGN KEY", "joins"),
            ("ALTER TABLE t ADD PRIMARY KEY (a)", "PRIMARY KEY", "MERGE"),
            ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", "CHECK", "NOT NULL"),
            ("CREATE TEMP TABLE t (a int)", "TEMPORARY TABLE", "WITH"),
            ("CREATE TEMP VIEW v AS SELECT 1 AS a", "TEMPORARY VIEW", "WITH"),
            ("CREATE MATERIALIZED VIEW v AS SELECT 1 AS a", "MATERIALIZED", "INSERT OVERWRITE"),
            ("CREATE UNIQUE INDEX i ON t (a)", "CREATE INDEX", "SORTED BY"),
            ("CREATE SEQUENCE s", "CREATE SEQUENCE", "row_number()"),
            ("CREATE OR REPLACE FUNCTION f() RETURNS int AS $$SELECT 1$$", "FUNCTION", "view"),
            ("CREATE TYPE c AS ENUM ('a')", "CREATE TYPE", "WHERE"),
            ("CREATE EXTENSION pgcrypto", "CREATE EXTENSION", "oribi help functions"),
        ] {
            let error = refusal(sql);
            let (text, hint) = (error.to_string(), error.hint().unwrap_or_default());
            assert!(text.contains(what) && hint.contains(part), "{sql}: {text} {hint}");
        }
    }
}
