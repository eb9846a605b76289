//! Queries that WITH names within others, by a name that is one of theirs: it hides the outer one. The engine
//! has one such name once, so that the inner one gets a name of its own.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Ident, ObjectName, Query, Statement, TableAlias, TableFactor, VisitorMut, With,
};

use super::build::normal;
use crate::engine::system::NAME_MARK;
use crate::engine::visit::visit_mut;

pub fn rewrite(statement: &mut Statement) {
    let _ = visit_mut(statement, &mut Names::default());
}

/// The names that queries have given around the present one, each level's.
#[derive(Default)]
struct Names {
    around: Vec<Vec<String>>,
    /// Names made so far.
    made: usize,
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.around.push(names(query.with.as_ref()));
        ControlFlow::Continue(())
    }

    // From the inside out: what is named anew is out of the way of the names around.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let own = self.around.pop().unwrap_or_default();
        for (at, name) in own.iter().enumerate() {
            if self.around.iter().flatten().any(|around| around == name) {
                let new = format!("{name}{NAME_MARK}{}", self.made);
                self.made += 1;
                rename(query, at, name, &new);
            }
        }
        ControlFlow::Continue(())
    }
}

fn names(with: Option<&With>) -> Vec<String> {
    let named = with.into_iter().flat_map(|with| &with.cte_tables);
    named.map(|named| normal(&named.alias.name)).collect()
}

/// Gives a named query another name, and those who read it. Without RECURSIVE those before it, and itself,
/// read what has the name outside.
fn rename(query: &mut Query, at: usize, name: &str, new: &str) {
    let mut readers = Readers { name, new };
    let with = query.with.take().map(|mut with| {
        let first = if with.recursive { 0 } else { at + 1 };
        for named in with.cte_tables.iter_mut().skip(first) {
            let _ = visit_mut(named.query.as_mut(), &mut readers);
        }
        if let Some(named) = with.cte_tables.get_mut(at) {
            named.alias.name = Ident::with_quote('"', new);
        }
        with
    });
    let _ = visit_mut(query, &mut readers);
    query.with = with;
}

struct Readers<'a> {
    name: &'a str,
    new: &'a str,
}

impl VisitorMut for Readers<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let bare = match name.0.as_slice() {
            [only] => only.as_ident().map(normal),
            _ => None,
        };
        if bare.as_deref() == Some(self.name) {
            // Its columns are asked for under the name that it had.
            alias.get_or_insert_with(|| TableAlias {
                explicit: true,
                name: Ident::with_quote('"', self.name),
                columns: Vec::new(),
                at: None,
            });
            *name = ObjectName::from(vec![Ident::with_quote('"', self.new)]);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_names_hide_outer_ones() {
        for (text, seen) in [
            (
                "WITH t AS (SELECT 1) SELECT * FROM (WITH t AS (SELECT * FROM t) SELECT t.a FROM t) AS s, t",
                "WITH t AS (SELECT 1) SELECT * FROM (WITH \"t#0\" AS (SELECT * FROM t) \
                 SELECT t.a FROM \"t#0\" AS \"t\") AS s, t",
            ),
            (
                "WITH t AS (SELECT 1) SELECT (WITH t AS (SELECT 2) SELECT (WITH t AS (SELECT 3) \
                 SELECT * FROM t AS u) FROM t)",
                "WITH t AS (SELECT 1) SELECT (WITH \"t#1\" AS (SELECT 2) SELECT (WITH \"t#0\" AS \
                 (SELECT 3) SELECT * FROM \"t#0\" AS u) FROM \"t#1\" AS \"t\")",
            ),
            (
                "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) AS a, (WITH t AS (SELECT 2) \
                 SELECT * FROM s.t) AS b",
                "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) AS a, (WITH t AS (SELECT 2) \
                 SELECT * FROM s.t) AS b",
            ),
        ] {
            let parsed = crate::engine::parse_one(text).expect(text);
            let mut statement = parsed.sql().expect(text).clone();
            rewrite(&mut statement);
            assert_eq!(statement.to_string().replace(NAME_MARK, "#"), seen);
        }
    }
}
