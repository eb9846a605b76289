//! What is chosen among values of several types is of PostgreSQL's, known before types are settled: UNION takes it for
//! that of its column. Bytes are of one type, however they are held; the engine takes a column's and a constant's for
//! two.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::mixed::{chosen_type, common, taken_as};

/// Functions whose result is one of their arguments.
const NAMES: &[&str] = &["coalesce", "greatest", "least"];

/// The rule of ARRAY, whose elements the engine's own would look at next.
#[derive(Debug)]
pub(in crate::engine) struct Arrays;

impl ExprPlanner for Arrays {
    fn plan_array_literal(
        &self,
        exprs: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Original(match common(&exprs, schema) {
            Some(bytes @ DataType::LargeBinary) => {
                exprs.into_iter().map(|expr| taken_as(expr, &bytes, schema)).collect()
            }
            _ => exprs,
        }))
    }
}

/// The forms of those functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let alike = |inner| Arc::new(ScalarUDF::new_from_impl(Alike { inner }));
    NAMES.iter().filter_map(|name| known(name)).map(alike).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Alike {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Alike {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match chosen_type(types.iter()) {
            Some(kind) => self.inner.coerce_types(&vec![kind; types.len()]),
            None => self.inner.coerce_types(types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, context)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }
}
