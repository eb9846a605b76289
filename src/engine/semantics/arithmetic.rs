//! Arithmetic of whole numbers and decimals that fails where the result does not fit, as in PostgreSQL
//! (22003).

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::{Interval, apply_operator};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use super::decimals;

const NAME: &str = "checked";

/// The most calls within calls where one would do.
const MAX_CALLS: usize = 8;

/// `checked('+-', a, b, c)` is `a + b - c`, from left to right, between integers of one type or decimals.
///
/// A row of operators is one call and not a call within a call: the engine asks each for its name,
/// which holds those of its arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Checked {
    signature: Signature,
}

impl Default for Checked {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

/// Whether an operator between integers of one type can overflow.
pub(super) fn can_overflow(op: Operator, left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
    if !matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) {
        return false;
    }
    let fits = || {
        let result = apply_operator(&op, &bounds(left, schema)?, &bounds(right, schema)?).ok()?;
        // What overflows has no bound; unsigned types are bounded by zero where it does.
        Some(
            result.data_type().is_signed_integer()
                && !result.lower().is_null()
                && !result.upper().is_null(),
        )
    };
    !fits().unwrap_or(false)
}

/// What an operand can be: a constant, or what its type was before it became a wider one.
fn bounds(operand: &Expr, schema: &DFSchema) -> Option<Interval> {
    let (lower, upper) = match operand {
        Expr::Literal(value, _) if !value.is_null() => (value.clone(), value.clone()),
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(schema).ok().filter(DataType::is_signed_integer)?;
            let to = cast.field.data_type();
            let widened = |value: ScalarValue| value.cast_to(to).ok();
            (widened(ScalarValue::min(&from)?)?, widened(ScalarValue::max(&from)?)?)
        }
        _ => return None,
    };
    Interval::try_new(lower, upper).ok()
}

/// The call that takes the place of an operator between decimals. What stands to its left stays a call of its
/// own, as `price * (1 - discount)` may stand elsewhere in the statement, and is computed once then; but not
/// in rows of operators without end.
pub(super) fn call_of_decimals(
    checked: &Arc<ScalarUDF>,
    op: Operator,
    left: Expr,
    right: Expr,
) -> Expr {
    if calls(&left) >= MAX_CALLS {
        return call(checked, op, left, right);
    }
    let operators = Expr::Literal(ScalarValue::from(op.to_string()), None);
    checked.call(vec![operators, left, right])
}

/// How many calls stand in the place of each other's first operand.
fn calls(expr: &Expr) -> usize {
    let operands = std::iter::successors(Some(expr), |expr| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == NAME => args.get(1),
        _ => None,
    });
    operands.take(MAX_CALLS + 1).count() - 1
}

/// The call that takes an operator's place, or the result where the operands are constants.
pub(super) fn call(checked: &Arc<ScalarUDF>, op: Operator, left: Expr, right: Expr) -> Expr {
    if let (Expr::Literal(left, None), Expr::Literal(right, None)) = (&left, &right) {
        let result = match op {
            Operator::Plus => left.add_checked(right),
            Operator::Minus => left.sub_checked(right),
            _ => left.mul_checked(right),
        };
        // What does not fit fails when it is evaluated, if ever it is.
        if let Ok(value) = result {
            return Expr::Literal(value, None);
        }
    }
    let (mut operators, mut args) = match left {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == NAME => {
            match operators(args.first()) {
                Some(operators) => (operators.to_owned(), args),
                None => (String::new(), vec![Expr::ScalarFunction(ScalarFunction { func, args })]),
            }
        }
        left => (String::new(), vec![left]),
    };
    if operators.is_empty() {
        args.insert(0, Expr::Literal(ScalarValue::Null, None));
    }
    operators.push_str(&op.to_string());
    args[0] = Expr::Literal(ScalarValue::from(operators), None);
    args.push(right);
    checked.call(args)
}

fn operators(first: Option<&Expr>) -> Option<&str> {
    match first {
        Some(Expr::Literal(ScalarValue::Utf8(Some(operators)), _)) => Some(operators),
        _ => None,
    }
}

fn wrong_call() -> datafusion::error::DataFusionError {
    exec_datafusion_err!("{NAME} takes operators and the integers between which they stand")
}

fn operator(symbol: char) -> Result<Operator> {
    match symbol {
        '+' => Ok(Operator::Plus),
        '-' => Ok(Operator::Minus),
        '*' => Ok(Operator::Multiply),
        _ => Err(wrong_call()),
    }
}

pub(super) type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>;

fn kernel(symbol: char) -> Result<Kernel> {
    match symbol {
        '+' => Ok(add),
        '-' => Ok(sub),
        '*' => Ok(mul),
        _ => Err(wrong_call()),
    }
}

fn step(symbol: char, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    let kernel = kernel(symbol)?;
    match decimals::short(symbol, kernel, left, right)? {
        Some(result) => Ok(ColumnarValue::Array(result)),
        None => apply(left, right, kernel).map_err(|error| of_type(error, &left.data_type())),
    }
}

/// What is out of range, in PostgreSQL's words: whole numbers of this type.
fn of_type(error: DataFusionError, kind: &DataType) -> DataFusionError {
    let name = match kind {
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        _ => return error,
    };
    match error {
        DataFusionError::ArrowError(inner, trace)
            if matches!(*inner, ArrowError::ArithmeticOverflow(_)) =>
        {
            let text = format!("{name} out of range");
            DataFusionError::ArrowError(Box::new(ArrowError::ArithmeticOverflow(text)), trace)
        }
        other => other,
    }
}

/// Whether an operator between decimals of these types is one of those here.
pub(super) fn is_of_decimals(op: Operator, left: &DataType, right: &DataType) -> bool {
    let types = matches!((left, right), (DataType::Decimal128(..), DataType::Decimal128(..)));
    let symbol = match op {
        Operator::Plus => '+',
        Operator::Minus => '-',
        Operator::Multiply => '*',
        _ => return false,
    };
    types && kernel(symbol).is_ok_and(|kernel| decimals::result_type(kernel, left, right).is_some())
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        NAME
    }

    /// Columns are called as if the operators stood there.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let operators = operators(args.first()).ok_or_else(wrong_call)?;
        let [_, first, rest @ ..] = args else { return Err(wrong_call()) };
        let mut name = first.schema_name().to_string();
        for (operator, operand) in operators.chars().zip(rest) {
            name.push_str(&format!(" {operator} {}", operand.schema_name()));
        }
        Ok(name)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let kind = types.get(1).cloned().ok_or_else(wrong_call)?;
        match kind {
            // It takes the operators to tell.
            DataType::Decimal128(..) => Err(wrong_call()),
            kind => Ok(kind),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let [_, first, rest @ ..] = args.arg_fields else { return Err(wrong_call()) };
        let mut kind = first.data_type().clone();
        if let DataType::Decimal128(..) = kind {
            let Some(Some(ScalarValue::Utf8(Some(operators)))) = args.scalar_arguments.first()
            else {
                return Err(wrong_call());
            };
            for (symbol, operand) in operators.chars().zip(rest) {
                kind = decimals::result_type(kernel(symbol)?, &kind, operand.data_type())
                    .ok_or_else(wrong_call)?;
            }
        }
        let nullable = args.arg_fields.iter().skip(1).any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), kind, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(ScalarValue::Utf8(Some(operators))), first, rest @ ..] =
            args.args.as_slice()
        else {
            return Err(wrong_call());
        };
        let mut steps = operators.chars().zip(rest);
        let Some((operator, operand)) = steps.next() else { return Err(wrong_call()) };
        let mut result = step(operator, first, operand)?;
        for (operator, operand) in steps {
            result = step(operator, &result, operand)?;
        }
        Ok(result)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        let [operators, first, rest @ ..] = inputs else {
            return Interval::make_unbounded(&DataType::Null);
        };
        let ScalarValue::Utf8(Some(operators)) = operators.lower() else {
            return Interval::make_unbounded(&first.data_type());
        };
        if first.data_type().is_decimal() {
            let types = rest.iter().map(|operand| operand.data_type());
            let kind = operators.chars().zip(types).try_fold(first.data_type(), |kind, step| {
                decimals::result_type(kernel(step.0)?, &kind, &step.1).ok_or_else(wrong_call)
            });
            return Interval::make_unbounded(&kind?);
        }
        (operators.chars().zip(rest)).try_fold((*first).clone(), |bounds, (symbol, operand)| {
            apply_operator(&operator(symbol)?, &bounds, operand)
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let [operators, first, rest @ ..] = inputs else { return Ok(SortProperties::Unordered) };
        let ScalarValue::Utf8(Some(operators)) = operators.range.lower() else {
            return Ok(SortProperties::Unordered);
        };
        let steps = operators.chars().zip(rest);
        Ok(steps.fold(first.sort_properties, |order, (symbol, operand)| match symbol {
            '+' => order.add(&operand.sort_properties),
            '-' => order.sub(&operand.sort_properties),
            _ => SortProperties::Unordered,
        }))
    }
}
