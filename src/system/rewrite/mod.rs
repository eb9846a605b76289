//! What PostgreSQL's clients say and the engine does not understand, said in its own words.
//!
//! - [`dialect`]: PostgreSQL's syntax, in any statement: the meaning stays what it is.
//! - [`calls`], [`operators`]: functions and operators that the engine lacks, by others.
//! - [`conditions`]: what joins ask for that WHERE can ask for as well.
//! - [`factors`]: functions in FROM; [`frames`]: how far windows reach.
//! - [`json`], [`tuples`], [`grouping`]: what is made JSON of; rows of values; what rows are grouped by.
//! - [`system`]: only in statements that read system tables, what follows from what these never
//!   hold.
//! - [`membership`]: values compared with those of a subquery or an array.
//! - [`moments`]: literals of dates and timestamps that have one text.
//! - [`names`]: result columns get the names that PostgreSQL gives them.
//! - [`patterns`]: SIMILAR TO's patterns in the engine's notation.
//! - [`precision`]: types that say how exact their values are.
//! - [`shadowed`]: names that WITH gives twice.
//! - [`type_names`]: types by PostgreSQL's names.
//! - [`values`]: texts beside values of a type in VALUES.
//!
//! The crate `datafusion-pg-catalog` has rules of this kind as well; they are not used, since they
//! change what ordinary statements mean (correlated subqueries become NULL, any function loses its
//! schema).

mod build;
mod calls;
mod conditions;
mod dialect;
mod factors;
mod frames;
mod grouping;
mod json;
mod membership;
mod moments;
mod names;
mod operators;
mod ordered;
mod patterns;
mod precision;
mod shadowed;
mod system;
mod tuples;
mod type_names;
mod values;

use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Statement, Visitor};

use super::relations::{self, Relation};
use crate::engine::visit::{visit, visit_mut};

pub use type_names::TypeNames;

pub fn rewrite(mut statement: Statement) -> Statement {
    // First of all: a column is called after what the client wrote.
    names::rewrite(&mut statement);
    shadowed::rewrite(&mut statement);
    let reads_system = reads_system(&statement);
    if reads_system {
        let _ = visit_mut(&mut statement, &mut system::Before);
    }
    dialect::rewrite(&mut statement);
    if reads_system {
        let _ = visit_mut(&mut statement, &mut system::After);
    }
    moments::rewrite(&mut statement);
    statement
}

/// The system relation of PostgreSQL's that a name stands for. A bare name that is one of theirs
/// is theirs: `pg_catalog` is searched first.
fn system_relation(name: &ObjectName) -> Option<&'static Relation> {
    let parts: Vec<&str> =
        name.0.iter().filter_map(|part| part.as_ident()).map(|part| part.value.as_str()).collect();
    match parts.as_slice() {
        [table] if table.starts_with("pg_") => relations::find("pg_catalog", table),
        [schema @ ("pg_catalog" | "information_schema"), table]
        | [_, schema @ ("pg_catalog" | "information_schema"), table] => {
            relations::find(schema, table)
        }
        _ => None,
    }
}

fn reads_system(statement: &Statement) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            match system_relation(name) {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        }
    }
    visit(statement, &mut Find).is_break()
}
