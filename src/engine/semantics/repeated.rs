//! Large constants that are to stand in each row: a constant is one value, until a projection or an
//! aggregate writes it out once for each row of a batch, outside of what the memory limit counts.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{AggregateFunction, Alias, Case, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::bounded::{Numbers, SMALL_VALUE, check_sizes};

const NAME: &str = "in_rows";

/// `in_rows(constant)` is the constant, and refuses to be written out more often than there is
/// room for ([`check_sizes`]).
#[derive(Debug, PartialEq, Eq, Hash)]
struct InRows {
    signature: Signature,
}

impl ScalarUDFImpl for InRows {
    fn name(&self) -> &str {
        NAME
    }

    /// Columns are called as if the constant stood there alone.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|arg| arg.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(args.arg_fields[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.into_iter().next() else {
            return exec_err!("{NAME} takes a value");
        };
        let length = Numbers::lengths(&value)?;
        check_sizes("a constant in each row", args.number_rows, |_| length.at(0))?;
        Ok(value)
    }
}

/// The rule that puts the function around large constants. It comes once constants are computed.
#[derive(Debug)]
pub(in crate::engine) struct LargeConstants {
    in_rows: ScalarUDF,
}

impl Default for LargeConstants {
    fn default() -> Self {
        // Volatile, so that it is not computed in advance again.
        let signature = Signature::any(1, Volatility::Volatile);
        Self { in_rows: ScalarUDF::new_from_impl(InRows { signature }) }
    }
}

impl OptimizerRule for LargeConstants {
    fn name(&self) -> &str {
        "large_constants"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => {
                plan.map_expressions(|expr| Ok(self.guarded(expr)))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

impl LargeConstants {
    /// An expression whose value, or whose aggregate's argument, stands in each row.
    fn guarded(&self, expr: Expr) -> Transformed<Expr> {
        match expr {
            Expr::Literal(value, metadata) if is_large(&value) => {
                Transformed::yes(self.in_rows.call(vec![Expr::Literal(value, metadata)]))
            }
            Expr::Alias(Alias { expr, relation, name, metadata }) => {
                self.guarded(*expr).update_data(|expr| {
                    Expr::Alias(Alias { expr: Box::new(expr), relation, name, metadata })
                })
            }
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                let changed = self.all(params.args.iter_mut());
                let expr = Expr::AggregateFunction(AggregateFunction { func, params });
                Transformed::new_transformed(expr, changed)
            }
            Expr::WindowFunction(mut function) => {
                let changed = self.all(function.params.args.iter_mut());
                Transformed::new_transformed(Expr::WindowFunction(function), changed)
            }
            Expr::Case(Case { expr, mut when_then_expr, mut else_expr }) => {
                let results = when_then_expr.iter_mut().map(|(_, then)| then).chain(&mut else_expr);
                let changed = self.all(results.map(AsMut::as_mut));
                let case = Case { expr, when_then_expr, else_expr };
                Transformed::new_transformed(Expr::Case(case), changed)
            }
            Expr::ScalarFunction(ScalarFunction { func, mut args })
                if func.name() == "coalesce" =>
            {
                let changed = self.all(args.iter_mut());
                let call = Expr::ScalarFunction(ScalarFunction { func, args });
                Transformed::new_transformed(call, changed)
            }
            other => self.nested(other),
        }
    }

    /// What chooses between constants for each row, within other expressions.
    fn nested(&self, expr: Expr) -> Transformed<Expr> {
        let chooses = match &expr {
            Expr::Case(_) => true,
            Expr::ScalarFunction(call) => call.func.name() == "coalesce",
            _ => false,
        };
        if chooses {
            return self.guarded(expr);
        }
        // Nothing in it can fail.
        let unchanged = expr.clone();
        expr.map_children(|child| Ok(self.nested(child))).unwrap_or(Transformed::no(unchanged))
    }

    fn all<'a>(&self, exprs: impl Iterator<Item = &'a mut Expr>) -> bool {
        let mut changed = false;
        for expr in exprs {
            let guarded = self.guarded(std::mem::take(expr));
            changed |= guarded.transformed;
            *expr = guarded.data;
        }
        changed
    }
}

fn is_large(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => text.len() as u64 > SMALL_VALUE,
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => {
            bytes.len() as u64 > SMALL_VALUE
        }
        ScalarValue::List(_) => value.size() as u64 > SMALL_VALUE,
        _ => false,
    }
}
