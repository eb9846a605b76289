//! `SELECT .. FOR UPDATE` and its like, and LOCK TABLE.
//!
//! Nobody waits for anybody here, so a lock keeps nobody out: it makes the block's COMMIT fail with 40001
//! if the table has been changed by then, whichever of its rows were read. Whoever takes one therefore
//! never overwrites what it has not seen, and runs its transaction again where PostgreSQL would have had
//! it wait. NOWAIT and SKIP LOCKED change nothing about that. Outside of a block a lock would end with
//! its statement.
//!
//! What may be locked is what PostgreSQL's `analyze.c` (`CheckSelectLocking`, `transformLockingClause`) says,
//! and by whom what its `execMain.c` and `lockcmds.c` do.

use std::ops::ControlFlow;

use sqlparser::ast::{
    GroupByExpr, Ident, Join, JoinOperator, LockType, ObjectName, Query, Select, SetExpr,
    TableFactor, TableWithJoins, Visit, Visitor,
};

use super::ddl::ident;
use super::life::Session;
use super::running::Registered;
use super::{Error, Result, TransactionState};
use crate::catalog::Privilege;
use crate::engine::Calls;
use crate::engine::visit::visit;

/// The relations that a statement locks, in all of its queries. `calls` tells which kinds of functions a
/// SELECT calls for what it gives.
pub(super) fn locked(
    text: &str,
    statement: &impl Visit,
    calls: &dyn Fn(&Select) -> Calls,
) -> Result<Vec<ObjectName>> {
    // Few statements do.
    let has = |word: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    if !has("for") || !(has("update") || has("share")) {
        return Ok(Vec::new());
    }
    let mut take =
        Take { calls, names: Vec::new(), named: Vec::new(), clause: "FOR UPDATE", wrong: None };
    let _ = visit(statement, &mut take);
    take.wrong.map_or(Ok(take.names), Err)
}

struct Take<'a> {
    calls: &'a dyn Fn(&Select) -> Calls,
    names: Vec<ObjectName>,
    /// What WITH calls a query, of each query that this one is in: that is not a table.
    named: Vec<Vec<String>>,
    clause: &'static str,
    /// The first thing that cannot be locked, or that is not there.
    wrong: Option<Error>,
}

impl Visitor for Take<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.named.push(named(query));
        for lock in &query.locks {
            self.clause = match lock.lock_type {
                LockType::Share => "FOR SHARE",
                LockType::Update => "FOR UPDATE",
            };
            self.check(&query.body);
            let of = lock.of.as_ref().map(last);
            let found = self.take(&query.body, of.as_deref());
            if let (Some(of), false) = (of, found) {
                self.wrong.get_or_insert(Error::NotInFrom(of));
            }
        }
        match self.wrong {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.named.pop();
        ControlFlow::Continue(())
    }
}

impl Take<'_> {
    fn refuse(&mut self, what: &str) {
        self.wrong.get_or_insert(Error::NotLockable { clause: self.clause, what: what.to_owned() });
    }

    /// Refuses queries whose rows are not those of tables.
    fn check(&mut self, body: &SetExpr) {
        let select = match body {
            SetExpr::Select(select) => select,
            SetExpr::Query(query) => return self.check(&query.body),
            SetExpr::SetOperation { .. } => {
                return self.refuse("is not allowed with UNION/INTERSECT/EXCEPT");
            }
            SetExpr::Values(_) => return self.refuse("cannot be applied to VALUES"),
            _ => return,
        };
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(grouped, modifiers) => {
                !grouped.is_empty() || !modifiers.is_empty()
            }
        };
        let calls = (self.calls)(select);
        for (wrong, what) in [
            (select.distinct.is_some(), "DISTINCT clause"),
            (grouped, "GROUP BY clause"),
            (select.having.is_some(), "HAVING clause"),
            (calls.aggregate, "aggregate functions"),
            (calls.window, "window functions"),
            (calls.rows, "set-returning functions in the target list"),
        ] {
            if wrong {
                return self.refuse(&format!("is not allowed with {what}"));
            }
        }
    }

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
        self.check(&query.body);
        let found = self.take(&query.body, of);
        self.named.pop();
        found
    }

    fn take_from(&mut self, from: &[TableWithJoins], of: Option<&str>) -> bool {
        let mut found = false;
        for table in from {
            for (factor, nullable) in factors(table) {
                let taken = self.names.len();
                found |= self.take_factor(factor, of);
                if nullable && self.names.len() > taken {
                    self.refuse("cannot be applied to the nullable side of an outer join");
                }
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
                match (meant, self.is_named_query(name)) {
                    (true, false) => self.names.push(name.clone()),
                    (true, true) if of.is_some() => {
                        self.refuse("cannot be applied to a WITH query");
                    }
                    _ => {}
                }
                meant
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let meant = is_meant(alias.as_ref().map(|alias| &alias.name));
                // Rows that are written out are none of a table, and let be where nobody means them.
                let values = matches!(*subquery.body, SetExpr::Values(_));
                if meant && (of.is_some() || !values) {
                    self.take_query(subquery, None);
                }
                meant
            }
            TableFactor::Table { name, alias, args: Some(_), .. } if of.is_some() => {
                let meant = match alias {
                    Some(alias) => is_meant(Some(&alias.name)),
                    None => of.is_some_and(|of| last(name) == of),
                };
                if meant {
                    self.refuse("cannot be applied to a function");
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

/// What is joined, each with whether the join may have no row of it.
fn factors(table: &TableWithJoins) -> Vec<(&TableFactor, bool)> {
    let mut factors = vec![(&table.relation, false)];
    for Join { relation, join_operator, .. } in &table.joins {
        use JoinOperator::{FullOuter, Left, LeftOuter, Right, RightOuter};
        let before = matches!(join_operator, Right(_) | RightOuter(_) | FullOuter(_));
        factors.iter_mut().for_each(|(_, nullable)| *nullable |= before);
        let own = matches!(join_operator, Left(_) | LeftOuter(_) | FullOuter(_));
        factors.push((relation, own));
    }
    factors
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
        for name in names {
            self.may_lock(name, FOR_CLAUSE).await?;
        }
        if names.is_empty() || self.transaction.state() != TransactionState::InBlock {
            return Ok(());
        }
        Ok(self.engine_session().lock(names).await?)
    }

    /// LOCK TABLE.
    pub(super) async fn lock_tables(
        &self,
        registered: &Registered,
        names: &[ObjectName],
        mode: Mode,
    ) -> Result<()> {
        for name in names {
            self.may_lock(name, mode.needs()).await?;
        }
        registered.until_stopped(self.engine_session().lock(names)).await?.map_err(Error::from)
    }
}

/// What the clauses need, on the table or on one of its columns.
const FOR_CLAUSE: &[Privilege] = &[Privilege::Update];

/// The modes of LOCK TABLE, as far as they differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// ACCESS SHARE.
    Read,
    /// ROW EXCLUSIVE.
    Write,
    /// Those that others may hold at once: ROW SHARE, SHARE UPDATE EXCLUSIVE.
    Shared,
    /// Those that let nobody else change rows.
    Exclusive,
}

impl Mode {
    /// Any of these privileges is enough.
    pub fn needs(self) -> &'static [Privilege] {
        use Privilege::{Delete, Insert, Select, Truncate, Update};
        match self {
            Self::Read => &[Select],
            Self::Write => &[Insert, Update, Delete, Truncate],
            Self::Shared | Self::Exclusive => &[Update, Delete, Truncate],
        }
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
        let calls = |select: &Select| Calls {
            aggregate: select.projection[0].to_string().starts_with("count("),
            ..Calls::default()
        };
        let names = locked(text, parsed.sql().expect("SQL"), &calls)?;
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
            ("SELECT * FROM a WHERE x IN (SELECT count(*) FROM b GROUP BY y) FOR UPDATE", "a"),
            ("SELECT DISTINCT x FROM (SELECT * FROM a FOR UPDATE) AS d", "a"),
        ] {
            assert_eq!(names(text).expect(text).join(" "), expected, "{text}");
        }
        for text in ["SELECT * FROM a AS b FOR UPDATE OF a", "SELECT * FROM a FOR SHARE OF \"A\""] {
            assert!(matches!(names(text), Err(Error::NotInFrom(_))), "{text}");
        }
    }

    #[test]
    fn rows_of_no_table_are_not_locked() {
        for (text, expected) in [
            ("SELECT DISTINCT x FROM a FOR UPDATE", "is not allowed with DISTINCT clause"),
            ("SELECT x FROM a GROUP BY x FOR UPDATE", "is not allowed with GROUP BY clause"),
            ("SELECT 1 FROM a HAVING true FOR UPDATE", "is not allowed with HAVING clause"),
            ("SELECT count(*) FROM a FOR UPDATE", "is not allowed with aggregate functions"),
            (
                "SELECT x FROM (SELECT count(*) AS x FROM a) AS d FOR UPDATE",
                "is not allowed with aggregate functions",
            ),
            (
                "(SELECT x FROM a UNION SELECT x FROM b) FOR UPDATE",
                "is not allowed with UNION/INTERSECT/EXCEPT",
            ),
            ("VALUES (1) FOR UPDATE", "cannot be applied to VALUES"),
            ("SELECT * FROM (VALUES (1)) AS v FOR UPDATE OF v", "cannot be applied to VALUES"),
            (
                "SELECT * FROM generate_series(1, 2) AS g FOR UPDATE OF g",
                "cannot be applied to a function",
            ),
            (
                "WITH w AS (SELECT * FROM a) SELECT * FROM w FOR UPDATE OF w",
                "cannot be applied to a WITH query",
            ),
        ] {
            let error = names(text).expect_err(text).to_string();
            assert_eq!(error, format!("FOR UPDATE {expected}"), "{text}");
        }
        let error = names("SELECT x, 1 FROM a GROUP BY x FOR SHARE").expect_err("grouped");
        assert!(error.to_string().starts_with("FOR SHARE is"), "{error}");
    }
}
