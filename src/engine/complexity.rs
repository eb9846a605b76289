//! Refuses statements that would take more time, stack or memory to plan than any is worth, before
//! they do. What is refused gets 54001, as where PostgreSQL's stack depth is exceeded.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use sqlparser::ast::{
    Expr, ObjectName, Query, SetExpr, TableFactor, TableSampleKind, UnaryOperator, Value, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::visit::visit;
use super::{Error, Result, parse};

/// How many operators, UNIONs and the like may stand in a row, each one level deeper than the one
/// before: planning takes time with the square of it, and stack ([`super::STACK_SIZE`]).
const MAX_CHAIN: usize = 1_000;

/// Relations in one statement's text, each a level of its plan.
const MAX_RELATIONS: usize = 1_000;

/// Steps of a plan.
const MAX_STEPS: usize = 50_000;

/// What is chained is counted between commas and brackets, by its tokens.
pub(super) fn refuse_long_chains(text: &str) -> Result<()> {
    // Each link takes two characters at least.
    if text.len() < 2 * MAX_CHAIN {
        return Ok(());
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().map_err(parse::syntax)?;
    let mut open = vec![0];
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket => open.push(0),
            Token::RParen | Token::RBracket if open.len() > 1 => drop(open.pop()),
            Token::Comma | Token::SemiColon => {
                open.iter_mut().last().into_iter().for_each(|n| *n = 0)
            }
            token if links(token) => {
                let Some(chain) = open.last_mut() else { continue };
                *chain += 1;
                if *chain > MAX_CHAIN {
                    return Err(Error::TooComplex { what: "operators in a row", limit: MAX_CHAIN });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn links(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
        ),
        Token::Whitespace(_)
        | Token::Eq
        | Token::Neq
        | Token::Lt
        | Token::LtEq
        | Token::Gt
        | Token::GtEq
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::Period
        | Token::EOF => false,
        _ => true,
    }
}

/// Counts relations, those of a WITH query once for each place that refers to it: the planner makes
/// a copy there, so that a short text can stand for more than any machine holds.
#[derive(Default)]
struct Weigh {
    relations: usize,
    /// Steps of the queries that are open.
    open: Vec<usize>,
    /// WITH queries by name, as addresses.
    named: HashMap<String, usize>,
    weights: HashMap<usize, usize>,
    /// What the engine would ignore or do wrong.
    unsupported: Option<&'static str>,
    /// What has no meaning.
    wrong: Option<&'static str>,
}

impl Weigh {
    fn add(&mut self, steps: usize) -> ControlFlow<()> {
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_add(steps);
            if *open > MAX_STEPS {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Weigh {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = cte.alias.name.value.to_lowercase();
            self.named.insert(name, std::ptr::from_ref(cte.query.as_ref()).addr());
        }
        self.open.push(1);
        self.unsupported = self.unsupported.or_else(|| writes(&query.body));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let weight = self.open.pop().unwrap_or_default();
        self.weights.insert(std::ptr::from_ref(query).addr(), weight);
        self.add(weight)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { sample: Some(sample), .. } = factor {
            self.unsupported = Some("TABLESAMPLE in this form");
            self.wrong = wrong_sample(sample);
        }
        if let TableFactor::Table { with_ordinality: true, .. } = factor {
            self.unsupported = Some("WITH ORDINALITY, but for unnest,");
        }
        self.relations += 1;
        match self.relations > MAX_RELATIONS {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        // The other forms are rewritten.
        if let Expr::Function(function) = expr
            && !function.within_group.is_empty()
            && function.name.to_string().eq_ignore_ascii_case("percentile_disc")
        {
            self.unsupported = Some(
                "percentile_disc with DISTINCT, with OVER, or of a fraction that is aggregated",
            );
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let name = match name.0.as_slice() {
            [name] => name.as_ident().map(|name| name.value.to_lowercase()),
            _ => None,
        };
        let query = name.and_then(|name| self.named.get(&name));
        let weight = query.and_then(|query| self.weights.get(query)).copied().unwrap_or(1);
        self.add(weight)
    }
}

/// Also refuses what the engine would ignore.
pub(super) fn refuse_many_relations(statement: &Statement) -> Result<()> {
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let mut weigh = Weigh::default();
    let walk = visit(statement.as_ref(), &mut weigh);
    if let Some(wrong) = weigh.wrong {
        return Err(Error::Plan(DataFusionError::Plan(wrong.to_owned())));
    }
    if let Some(what) = weigh.unsupported {
        return Err(Error::not_supported(what));
    }
    if walk.is_continue() {
        return Ok(());
    }
    Err(match weigh.relations > MAX_RELATIONS {
        true => Error::TooComplex { what: "relations", limit: MAX_RELATIONS },
        false => Error::TooComplex { what: "steps", limit: MAX_STEPS },
    })
}

/// What is wrong with a part of a table's rows that is asked for, if it is no part.
fn wrong_sample(sample: &TableSampleKind) -> Option<&'static str> {
    let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
        sample;
    let number = |value: &Value| match value {
        Value::Number(number, _) => number.parse::<f64>().ok(),
        _ => None,
    };
    let percent = match &sample.quantity.as_ref()?.value {
        Expr::Value(value) if value.value == Value::Null => {
            return Some("TABLESAMPLE parameter cannot be null");
        }
        Expr::Value(value) => number(&value.value)?,
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => -number(&value.value)?,
            _ => return None,
        },
        _ => return None,
    };
    let possible = (0.0..=100.0).contains(&percent);
    (!possible).then_some("sample percentage must be between 0 and 100")
}

/// A statement that writes, where a query should be.
fn writes(body: &SetExpr) -> Option<&'static str> {
    let writes = matches!(
        body,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
    );
    writes.then_some("a statement that writes inside of another (run it by itself)")
}

/// The same for what only the plan tells, such as views of views.
pub(super) fn refuse_large_plans(plan: &LogicalPlan) -> Result<()> {
    let mut left = MAX_STEPS;
    let walk = plan.apply_with_subqueries(|_| {
        left -= 1;
        Ok(if left == 0 { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walk.map_err(Error::planning)?;
    match left {
        0 => Err(Error::TooComplex { what: "steps", limit: MAX_STEPS }),
        _ => Ok(()),
    }
}
