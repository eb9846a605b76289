//! Operators that the engine lacks, by others that it has.

use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, DataType, Expr, Subscript, UnaryOperator,
};

use super::build::{as_text, boolean, call, normal, number, take, text};
use super::tuples::row;

pub fn prefix(expr: &mut Expr) {
    let Expr::UnaryOp { op, expr: operand } = expr else { return };
    let name = match op {
        UnaryOperator::PGSquareRoot => "sqrt",
        UnaryOperator::PGCubeRoot => "cbrt",
        UnaryOperator::PGAbs => "abs",
        UnaryOperator::BitwiseNot => {
            let ones =
                Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number(1)) });
            let op = BinaryOperator::PGBitwiseXor;
            *expr = nested(Expr::BinaryOp { left: Box::new(take(operand)), op, right: ones });
            return;
        }
        _ => return,
    };
    *expr = call(name, vec![take(operand)]);
}

/// Rows of values are compared one value after the other.
pub fn binary(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else { return };
    let (Some(left), Some(right)) = (row(left), row(right)) else { return };
    if left.len() != right.len() || left.is_empty() {
        return;
    }
    let compared = match op {
        BinaryOperator::Eq => equal(&left, &right),
        BinaryOperator::NotEq => {
            let op = UnaryOperator::Not;
            Expr::UnaryOp { op, expr: Box::new(nested(equal(&left, &right))) }
        }
        BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
            ordered(&left, op, &right)
        }
        BinaryOperator::Overlaps => match (left.as_slice(), right.as_slice()) {
            ([a, b], [c, d]) => overlaps((a, b), (c, d)),
            _ => return,
        },
        _ => return,
    };
    *expr = nested(compared);
}

/// `(a, b) IN ((1, 2), (3, 4))`
pub fn row_in_list(expr: &mut Expr) {
    let Expr::InList { expr: member, list, negated } = expr else { return };
    let Some(member) = row(member) else { return };
    let mut any = boolean(false);
    for item in list.iter() {
        match row(item) {
            Some(item) if item.len() == member.len() => {
                any = join(any, BinaryOperator::Or, nested(equal(&member, &item)));
            }
            _ => return,
        }
    }
    *expr = match negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(any)) },
        false => nested(any),
    };
}

/// `a[:2]` and `a[2:]`: from the first element, or up to the last.
pub fn slice(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else { return };
    for access in access_chain {
        if let AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) = access {
            lower_bound.get_or_insert_with(|| number(1));
            upper_bound.get_or_insert_with(|| number(i32::MAX));
        }
    }
}

/// A cast to `varchar(n)` or `char(n)` cuts the text off. Blanks at the end of a `char(n)` do not count
/// when it is compared, and so none are kept.
pub fn cut(expr: &mut Expr) {
    let Expr::Cast { data_type, .. } = &*expr else { return };
    let blank = is_blank_padded(data_type);
    let length = match data_type {
        DataType::Char(None) | DataType::Character(None) => {
            *expr = call("rtrim", vec![call("left", vec![take(expr), number(1)])]);
            return;
        }
        DataType::Custom(..) if blank => {
            *expr = call("rtrim", vec![take(expr)]);
            return;
        }
        DataType::Varchar(Some(length))
        | DataType::CharacterVarying(Some(length))
        | DataType::CharVarying(Some(length))
        | DataType::Char(Some(length))
        | DataType::Character(Some(length)) => length,
        DataType::Array(ArrayElemTypeDef::SquareBracket(..)) => return,
        _ => return,
    };
    let sqlparser::ast::CharacterLength::IntegerLength { length, .. } = length else { return };
    let length = number(length);
    *expr = call("left", vec![take(expr), length]);
    if blank {
        *expr = call("rtrim", vec![take(expr)]);
    }
}

/// Beside a value that is cast to `char(n)`, a text in quotes is one as well: its blanks at the end do not
/// count. To be asked before the casts are rewritten.
pub fn blank_padded(expr: &mut Expr) {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let Expr::BinaryOp { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right } = expr else {
        return;
    };
    let is =
        |side: &Expr| matches!(side, Expr::Cast { data_type, .. } if is_blank_padded(data_type));
    let sides = match (is(left), is(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return,
    };
    if let Some(literal) = as_text(sides) {
        **sides = text(literal.trim_end_matches(' '));
    }
}

fn is_blank_padded(data_type: &DataType) -> bool {
    match data_type {
        DataType::Char(_) | DataType::Character(_) => true,
        DataType::Custom(name, arguments) if arguments.is_empty() => {
            let name = name.0.last().and_then(|part| part.as_ident());
            name.is_some_and(|name| normal(name) == "bpchar")
        }
        _ => false,
    }
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn join(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    match left {
        Expr::Value(_) => right,
        left => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
    }
}

fn compare(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    let (left, right) = (nested(left.clone()), nested(right.clone()));
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn equal(left: &[Expr], right: &[Expr]) -> Expr {
    let pairs = left.iter().zip(right);
    let equal = pairs.map(|(left, right)| compare(left, BinaryOperator::Eq, right));
    equal.reduce(|all, one| join(all, BinaryOperator::And, one)).unwrap_or_else(|| boolean(true))
}

/// `(a, b) < (c, d)` is `a < c OR (a = c AND b < d)`.
fn ordered(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Expr {
    let strict = match op {
        BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::Gt,
        op => op.clone(),
    };
    match (left, right) {
        ([a], [c]) => compare(a, op.clone(), c),
        ([a, left @ ..], [c, right @ ..]) => {
            let same = compare(a, BinaryOperator::Eq, c);
            let rest = join(same, BinaryOperator::And, nested(ordered(left, op, right)));
            join(compare(a, strict, c), BinaryOperator::Or, nested(rest))
        }
        _ => boolean(false),
    }
}

/// Two periods, each with its ends in any order, have a moment in common; that at which one ends
/// and the other begins is none.
fn overlaps((a, b): (&Expr, &Expr), (c, d): (&Expr, &Expr)) -> Expr {
    let first = |x: &Expr, y: &Expr| call("least", vec![x.clone(), y.clone()]);
    let last = |x: &Expr, y: &Expr| call("greatest", vec![x.clone(), y.clone()]);
    let same_start = compare(&first(a, b), BinaryOperator::Eq, &first(c, d));
    let one = compare(&first(a, b), BinaryOperator::Lt, &last(c, d));
    let other = compare(&first(c, d), BinaryOperator::Lt, &last(a, b));
    join(same_start, BinaryOperator::Or, nested(join(one, BinaryOperator::And, other)))
}
