//! `x = ANY (array)`, which is NULL where no element is equal and one is NULL: the engine says false.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

pub(super) const NAME: &str = "array_has";

/// The engine's function, with NULL for what is not known.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ArrayHas {
    inner: Arc<ScalarUDF>,
}

impl ArrayHas {
    pub(super) fn new(inner: Arc<ScalarUDF>) -> Self {
        Self { inner }
    }
}

impl ScalarUDFImpl for ArrayHas {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.first().cloned();
        let (rows, found) = (args.number_rows, self.inner.invoke_with_args(args)?);
        let Some(arrays) = arrays else { return Ok(found) };
        Ok(match (arrays, found) {
            (ColumnarValue::Scalar(array), ColumnarValue::Scalar(found)) => {
                let found = known(&array.to_array()?, &found.to_array()?);
                ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)
            }
            (arrays, found) => {
                ColumnarValue::Array(known(&arrays.to_array(rows)?, &found.to_array(rows)?))
            }
        })
    }
}

/// What was found, without those that are false where an element is NULL.
fn known(arrays: &ArrayRef, found: &ArrayRef) -> ArrayRef {
    let (Some(lists), Some(truths)) = (arrays.as_list_opt::<i32>(), found.as_boolean_opt()) else {
        return found.clone();
    };
    if lists.values().null_count() == 0 {
        return found.clone();
    }
    let has_null = |row: usize| {
        let elements = lists.value(row);
        elements.null_count() > 0
    };
    let rows = truths.iter().enumerate().map(|(row, truth)| match truth {
        Some(false) if has_null(row) => None,
        truth => truth,
    });
    Arc::new(rows.collect::<BooleanArray>())
}
