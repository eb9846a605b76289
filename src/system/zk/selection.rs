//! Which nodes a statement wants, as its conditions tell: so that no others are read.

use std::collections::{BTreeSet, VecDeque};

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, Like, Operator, TableProviderFilterPushDown,
};

use super::{below, depth, split};

/// Conditions that all hold for the nodes that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// One of these; `None`: any.
    paths: Option<BTreeSet<String>>,
    /// Right below one of these.
    parents: Option<BTreeSet<String>>,
    /// Paths begin with all of these.
    prefixes: Vec<String>,
    /// The least and the greatest.
    depth: (i64, i64),
}

/// A path to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub path: String,
    /// Whether the node is wanted.
    pub show: bool,
    /// Whether some below it may be.
    pub descend: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self { paths: None, parents: None, prefixes: Vec::new(), depth: (0, i64::MAX) }
    }
}

impl Selection {
    /// Takes a condition in, as far as it tells something.
    pub fn narrow(&mut self, condition: &Expr) -> TableProviderFilterPushDown {
        self.understand(condition).unwrap_or(TableProviderFilterPushDown::Unsupported)
    }

    fn understand(&mut self, condition: &Expr) -> Option<TableProviderFilterPushDown> {
        use TableProviderFilterPushDown::Exact;
        match condition {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                let mut texts = BTreeSet::new();
                let name = alternatives(condition, &mut texts)?;
                self.one_of(name, texts)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (column(left), op) {
                (Some(name), op) => self.compare(name, *op, literal(right)?),
                (None, op) => self.compare(column(right)?, op.swap()?, literal(left)?),
            },
            Expr::InList(InList { expr, list, negated: false }) => {
                let name = column(expr)?;
                let texts = list.iter().map(|item| literal(item).and_then(text));
                let texts: BTreeSet<String> = texts.collect::<Option<_>>()?;
                self.one_of(name, texts)
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let (low, high) = (whole(literal(low)?)?, whole(literal(high)?)?);
                (column(expr)? == "depth").then(|| self.bound(low, high))?;
                Some(Exact)
            }
            Expr::Like(like) => self.like(like),
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "starts_with" => {
                let [path, prefix] = args.as_slice() else { return None };
                (column(path)? == "path").then_some(())?;
                self.prefixes.push(text(literal(prefix)?)?);
                Some(Exact)
            }
            Expr::IsNotNull(inner) if column(inner)? == "path" => Some(Exact),
            _ => None,
        }
    }

    fn compare(
        &mut self,
        name: &str,
        op: Operator,
        value: &ScalarValue,
    ) -> Option<TableProviderFilterPushDown> {
        if name != "depth" {
            return (op == Operator::Eq).then(|| self.one_of(name, [text(value)?].into()))?;
        }
        let value = whole(value)?;
        match op {
            Operator::Eq => self.bound(value, value),
            Operator::Lt => self.bound(0, value.saturating_sub(1)),
            Operator::LtEq => self.bound(0, value),
            Operator::Gt => self.bound(value.saturating_add(1), i64::MAX),
            Operator::GtEq => self.bound(value, i64::MAX),
            _ => return None,
        }
        Some(TableProviderFilterPushDown::Exact)
    }

    fn one_of(
        &mut self,
        name: &str,
        texts: BTreeSet<String>,
    ) -> Option<TableProviderFilterPushDown> {
        let known = match name {
            "path" => &mut self.paths,
            "parent" => &mut self.parents,
            _ => return None,
        };
        *known = Some(match known.take() {
            Some(before) => before.intersection(&texts).cloned().collect(),
            None => texts,
        });
        Some(TableProviderFilterPushDown::Exact)
    }

    fn bound(&mut self, least: i64, greatest: i64) {
        self.depth = (self.depth.0.max(least), self.depth.1.min(greatest));
    }

    /// What stands before the first wildcard, and all of it if nothing but `%` follows.
    fn like(&mut self, like: &Like) -> Option<TableProviderFilterPushDown> {
        let Like { negated: false, expr, pattern, escape_char, case_insensitive: false } = like
        else {
            return None;
        };
        (column(expr)? == "path").then_some(())?;
        let pattern = text(literal(pattern)?)?;
        let escape = escape_char.unwrap_or('\\');
        let mut prefix = String::new();
        let mut rest = pattern.chars();
        let exact = loop {
            match rest.next() {
                Some(next) if next == escape => prefix.push(rest.next()?),
                Some('%') => break rest.as_str().chars().all(|next| next == '%'),
                Some('_') => break false,
                Some(next) => prefix.push(next),
                None => {
                    self.one_of("path", [prefix].into());
                    return Some(TableProviderFilterPushDown::Exact);
                }
            }
        };
        if prefix.is_empty() && !exact {
            return None;
        }
        self.prefixes.push(prefix);
        Some(match exact {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        })
    }

    /// Whether a node is wanted.
    fn wants(&self, path: &str) -> bool {
        let parent = split(path).0;
        let depth = depth(path);
        (self.depth.0..=self.depth.1).contains(&depth)
            && self.paths.as_ref().is_none_or(|paths| paths.contains(path))
            && (self.parents.as_ref())
                .is_none_or(|parents| parent.is_some_and(|parent| parents.contains(parent)))
            && self.prefixes.iter().all(|prefix| path.starts_with(prefix.as_str()))
    }

    /// Whether a node below this one may be wanted.
    fn leads_on(&self, path: &str) -> bool {
        let inside = below(path, "");
        depth(path) < self.depth.1
            && (self.prefixes.iter())
                .all(|prefix| prefix.starts_with(&inside) || inside.starts_with(prefix.as_str()))
    }

    fn step(&self, path: String, descend: bool) -> Option<Step> {
        let (show, descend) = (self.wants(&path), descend && self.leads_on(&path));
        (show || descend).then_some(Step { path, show, descend })
    }

    /// Whether all nodes that are wanted are found in lists of children.
    pub fn is_listed(&self) -> bool {
        self.paths.is_none()
    }

    /// Where to begin.
    pub fn start(&self) -> VecDeque<Step> {
        if let Some(paths) = &self.paths {
            return paths.iter().filter_map(|path| self.step(path.clone(), false)).collect();
        }
        if let Some(parents) = &self.parents {
            let steps = parents.iter().filter(|parent| self.leads_on(parent));
            let step = |path: &String| Step { path: path.clone(), show: false, descend: true };
            return steps.map(step).collect();
        }
        // The deepest node that is above all that is wanted.
        let longest = self.prefixes.iter().max_by_key(|prefix| prefix.len());
        let above = longest.and_then(|prefix| Some(prefix.rsplit_once('/')?.0)).unwrap_or_default();
        let root = if above.is_empty() { "/" } else { above };
        self.step(root.to_owned(), true).into_iter().collect()
    }

    /// Where to go on below a path.
    pub fn next(&self, parent: &str, names: Vec<String>) -> impl Iterator<Item = Step> {
        let descend = self.parents.is_none();
        names.into_iter().filter_map(move |name| self.step(below(parent, &name), descend))
    }
}

/// The one column of comparisons of which one has to hold, and what it is compared with: short lists
/// come so.
fn alternatives<'a>(condition: &'a Expr, texts: &mut BTreeSet<String>) -> Option<&'a str> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    match op {
        Operator::Or => {
            let name = alternatives(left, texts)?;
            (alternatives(right, texts)? == name).then_some(name)
        }
        Operator::Eq => {
            texts.insert(text(literal(right)?)?);
            column(left)
        }
        _ => None,
    }
}

fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(column.name.as_str()),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

fn whole(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int16(value) => value.map(i64::from),
        ScalarValue::Int32(value) => value.map(i64::from),
        ScalarValue::Int64(value) => *value,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn of(conditions: &[Expr]) -> Selection {
        let mut selection = Selection::default();
        for condition in conditions {
            selection.narrow(condition);
        }
        selection
    }

    fn begins(conditions: &[Expr]) -> Vec<(String, bool, bool)> {
        let steps = of(conditions).start();
        steps.into_iter().map(|step| (step.path, step.show, step.descend)).collect()
    }

    #[test]
    fn conditions_say_where_to_begin() {
        let at = |path: &str, show, descend| vec![(path.to_owned(), show, descend)];
        assert_eq!(begins(&[]), at("/", true, true));
        assert_eq!(begins(&[col("path").eq(lit("/a/b"))]), at("/a/b", true, false));
        assert_eq!(begins(&[lit("/a").eq(col("path"))]), at("/a", true, false));
        assert!(begins(&[col("path").eq(lit("/a")), col("path").eq(lit("/b"))]).is_empty());
        assert_eq!(begins(&[col("parent").eq(lit("/a"))]), at("/a", false, true));
        assert_eq!(begins(&[col("path").like(lit("/a/b%"))]), at("/a", false, true));
        assert_eq!(begins(&[col("path").like(lit("/a/b/%"))]), at("/a/b", false, true));
        assert_eq!(begins(&[col("path").like(lit("/a\\_b"))]), at("/a_b", true, false));
        assert_eq!(begins(&[col("depth").lt_eq(lit(0_i32))]), at("/", true, false));
        let deep = [col("depth").gt(lit(1_i32)), col("depth").lt(lit(3_i64))];
        assert_eq!(begins(&deep), at("/", false, true));
        let list = col("path").in_list(vec![lit("/a"), lit("/b")], false);
        assert_eq!(begins(&[list]).len(), 2);
        // Nothing is known of these.
        assert_eq!(begins(&[col("version").eq(lit(1_i32))]), at("/", true, true));
        assert_eq!(begins(&[col("path").like(lit("%x"))]), at("/", true, true));
    }

    #[test]
    fn what_is_not_wanted_is_not_gone_through() {
        let selection = of(&[col("path").like(lit("/a/b%")), col("depth").lt_eq(lit(3_i32))]);
        let next = |parent, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let steps = selection.next(parent, names);
            steps.map(|step| (step.path, step.show, step.descend)).collect::<Vec<_>>()
        };
        assert_eq!(next("/a", &["b", "c"]), [("/a/b".to_owned(), true, true)]);
        assert_eq!(next("/a/b", &["x"]), [("/a/b/x".to_owned(), true, false)]);
        assert!(next("/a/b/x", &["y"]).is_empty());
        let parents = of(&[col("parent").eq(lit("/a"))]);
        let steps: Vec<Step> = parents.next("/a", vec!["b".to_owned()]).collect();
        assert_eq!(steps, [Step { path: "/a/b".to_owned(), show: true, descend: false }]);
    }

    #[test]
    fn exactness() {
        use TableProviderFilterPushDown::{Exact, Inexact, Unsupported};
        let kind = |condition: Expr| Selection::default().narrow(&condition);
        assert_eq!(kind(col("path").like(lit("/a%"))), Exact);
        assert_eq!(kind(col("path").like(lit("/a%b"))), Inexact);
        assert_eq!(kind(col("path").like(lit("/a_"))), Inexact);
        assert_eq!(kind(col("path").not_eq(lit("/a"))), Unsupported);
        assert_eq!(kind(col("depth").between(lit(1_i32), lit(2_i32))), Exact);
    }
}
