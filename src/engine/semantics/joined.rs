//! `||` between texts, bounded as functions are ([`super::bounded`]).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, StringArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::bounded::{Numbers, check_sizes, large_constants};

const NAME: &str = "joined";

/// `joined(a, b, c)` is `a || b || c`, between texts of one type. A row of operators is one call,
/// which copies each text once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Joined {
    signature: Signature,
}

impl Default for Joined {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

/// The call that takes the operator's place.
pub(super) fn call(joined: &Arc<ScalarUDF>, left: Expr, right: Expr) -> Expr {
    let mut args = match left {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == NAME => args,
        left => vec![left],
    };
    args.push(right);
    joined.call(args)
}

fn check(args: &[ColumnarValue], rows: usize) -> Result<()> {
    let lengths: Vec<_> = args.iter().map(Numbers::lengths).collect::<Result<_>>()?;
    check_sizes("||", rows, |row| lengths.iter().map(|lengths| lengths.at(row)).sum())
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &str {
        NAME
    }

    /// Columns are called as if the operators stood there.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names: Vec<_> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(names.join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().ok_or_else(|| exec_datafusion_err!("{NAME} takes texts"))
    }

    /// As [`super::bounded`] has it.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if let Some(constants) = large_constants(&args) {
            check(&constants, 1)?;
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        check(&args.args, rows)?;
        let texts = (args.args.iter())
            .map(|arg| {
                let array = match arg {
                    ColumnarValue::Array(array) => array.clone(),
                    ColumnarValue::Scalar(value) => value.to_array()?,
                };
                Ok(cast(&array, &DataType::Utf8View)?)
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let texts: Vec<&StringViewArray> =
            texts.iter().map(|array| array.as_string_view()).collect();
        let joined = (0..rows).map(|row| {
            let mut joined = String::new();
            for (texts, arg) in texts.iter().zip(&args.args) {
                let row = if matches!(arg, ColumnarValue::Scalar(_)) { 0 } else { row };
                if texts.is_null(row) {
                    return None;
                }
                joined.push_str(texts.value(row));
            }
            Some(joined)
        });
        let array: ArrayRef = match args.return_field.data_type() {
            DataType::Utf8 => Arc::new(joined.collect::<StringArray>()),
            DataType::LargeUtf8 => Arc::new(joined.collect::<LargeStringArray>()),
            _ => Arc::new(joined.collect::<StringViewArray>()),
        };
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
            false => ColumnarValue::Array(array),
        })
    }
}
