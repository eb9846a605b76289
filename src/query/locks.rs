//! `SELECT .. FOR UPDATE` and its like, and LOCK TABLE.
//!
//! Nobody waits for anybody here, so a lock keeps nobody out: it makes the block's COMMIT fail with 40001
//! if the table has been changed by then, whichever of its rows were read. Whoever takes one therefore
//! never overwrites what it has not seen, and runs its transaction again where PostgreSQL would have had
//! it wait. NOWAIT and SKIP LOCKED change nothing about that. Outside of a block a lock would end with
//! its statement.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Ident, ObjectName, Query, SetExpr, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::ddl::ident;
use super::life::Session;
use super::running::Registered;
use super::{Error, Result, TransactionState};
use crate::engine::visit::visit;

/// The relations that a statement locks, in all of its queries.
pub(super) fn locked(text: &str, statement: &impl Visit) -> Result<Vec<ObjectName>> {
    // Few statements do.
    let has = |word: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    if !has("for") || !(has("update") || has("share")) {
        return Ok(Vec::new());
    }
    let mut take = Take::default();
    let _ = visit(statement, &mut take);
    match take.missing {
        Some(name) => Err(Error::NotInFrom(name)),
        None => Ok(take.names),
    }
}

#[derive(Default)]
struct Take {
    names: Vec<ObjectName>,
    /// What WITH calls a query, of each query that this one is in: that is not a table.
    named: Vec<Vec<String>>,
    /// A name behind OF that is not there.
    missing: Option<String>,
}

impl Visitor for Take {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.named.push(named(query));
        for lock in &query.locks {
            let of = lock.of.as_ref().map(last);
            let found = self.take(&query.body, of.as_deref());
            if let (Some(of), false) = (of, found) {
                self.missing = Some(of);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.named.pop();
        ControlFlow::Continue(())
    }
}

impl Take {
    /// Takes what stands in FROM, or what is called `of` there; whether there is such a thing.
    fn take(&mut self, body: &SetExpr, of: Option<&str>) -> bool {
        match body {
            SetExpr::Select(select) => self.take_from(&select.from, of),
            SetExpr::Query(query) => self.take_query(query, of),
            SetExpr::SetOperation { left, right, .. } => {
                let left = self.take(left, of);
                self.take(right, of) || left
            }
            _ => false,
        }
    }

    fn take_query(&mut self, query: &Query, of: Option<&str>) -> bool {
        self.named.push(named(query));
        let found = self.take(&query.body, of);
        self.named.pop();
        found
    }

    fn take_from(&mut self, from: &[TableWithJoins], of: Option<&str>) -> bool {
        let mut found = false;
        for TableWithJoins { relation, joins } in from {
            let joined = joins.iter().map(|join| &join.relation);
            for factor in [relation].into_iter().chain(joined) {
                found |= self.take_factor(factor, of);
            }
        }
        found
    }

    fn take_factor(&mut self, factor: &TableFactor, of: Option<&str>) -> bool {
        let is_meant = |name: Option<&Ident>| match (of, name) {
            (None, _) => true,
            (Some(of), Some(name)) => ident(name) == of,
            (Some(_), None) => false,
        };
        match factor {
            // With arguments it is a function.
            TableFactor::Table { name, alias, args: None, .. } => {
                let alias = alias.as_ref().map(|alias| &alias.name);
                let meant = match alias {
                    Some(_) => is_meant(alias),
                    None => of.is_none_or(|of| last(name) == of),
                };
                if meant && !self.is_named_query(name) {
                    self.names.push(name.clone());
                }
                meant
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let meant = is_meant(alias.as_ref().map(|alias| &alias.name));
                if meant {
                    self.take_query(subquery, None);
                }
                meant
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let meant = alias.is_some() && is_meant(alias.as_ref().map(|alias| &alias.name));
                let of = if meant { None } else { of };
                self.take_from(std::slice::from_ref(table_with_joins.as_ref()), of) || meant
            }
            _ => false,
        }
    }

    fn is_named_query(&self, name: &ObjectName) -> bool {
        let named = || self.named.iter().flatten();
        name.0.len() == 1 && named().any(|named| *named == last(name))
    }
}

/// What WITH calls queries.
fn named(query: &Query) -> Vec<String> {
    let with = query.with.iter().flat_map(|with| &with.cte_tables);
    with.map(|named| ident(&named.alias.name)).collect()
}

/// A name's last part, as it is looked up.
fn last(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(ident).unwrap_or_default()
}

impl Session {
    /// Locks what a statement names, if there is a block that it could last for.
    pub(super) async fn take_locks(
        &self,
        registered: &Registered,
        names: &[ObjectName],
    ) -> Result<()> {
        match names.is_empty() {
            true => Ok(()),
            false => registered.until_stopped(self.lock(names)).await?,
        }
    }

    /// The same of a statement that is planned: what it reads is what is locked.
    pub(super) async fn lock(&self, names: &[ObjectName]) -> Result<()> {
        if names.is_empty() || self.transaction.state() != TransactionState::InBlock {
            return Ok(());
        }
        Ok(self.engine_session().lock(names).await?)
    }
}

/// What a clause is called where it is refused.
pub(super) const CLAUSE: &str = "SELECT FOR UPDATE";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse_one;

    fn names(text: &str) -> Result<Vec<String>> {
        let parsed = parse_one(text).expect(text);
        let names = locked(text, parsed.sql().expect("SQL"))?;
        Ok(names.iter().map(ObjectName::to_string).collect())
    }

    #[test]
    fn what_stands_in_from_is_locked() {
        for (text, expected) in [
            ("SELECT * FROM a WHERE x IN (SELECT x FROM b) FOR UPDATE", "a"),
            ("SELECT * FROM a, s.b JOIN (c CROSS JOIN d) ON true for no key update", "a s.b c d"),
            ("SELECT * FROM a AS b JOIN c ON true FOR SHARE OF b NOWAIT", "a"),
            ("SELECT * FROM a, b, c FOR UPDATE OF a, \"c\" SKIP LOCKED", "a c"),
            ("SELECT * FROM a, b, c FOR KEY SHARE OF a FOR UPDATE OF b", "a b"),
            ("SELECT * FROM (SELECT * FROM a JOIN b ON true) AS d FOR UPDATE OF d", "a b"),
            ("UPDATE a SET n = 1 WHERE x = (SELECT x FROM a LIMIT 1 FOR UPDATE)", "a"),
            ("WITH w AS (SELECT 1) SELECT * FROM w, a FOR UPDATE", "a"),
            ("SELECT * FROM (WITH w AS (SELECT 1) SELECT * FROM w, a) AS d, b FOR UPDATE", "a b"),
            ("SELECT * FROM generate_series(1, 2), a FOR UPDATE", "a"),
            ("SELECT 'for update' FROM a", ""),
            ("SELECT * FROM (VALUES (1)) AS v FOR UPDATE", ""),
        ] {
            assert_eq!(names(text).expect(text).join(" "), expected, "{text}");
        }
        for text in ["SELECT * FROM a AS b FOR UPDATE OF a", "SELECT * FROM a FOR SHARE OF \"A\""] {
            assert!(matches!(names(text), Err(Error::NotInFrom(_))), "{text}");
        }
    }
}
