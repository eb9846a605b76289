//! Functions whose results have another type in PostgreSQL than in the engine: what counts or
//! numbers something is unsigned there.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{SortOptions, cast, nullif};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    ColumnarValue, LimitEffect, PartitionEvaluator, ReturnFieldArgs, ReversedUDWF,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;

/// Functions that give an `integer`.
const INTEGERS: &[&str] = &[
    "array_length",
    "array_ndims",
    "array_position",
    "cardinality",
    "regexp_count",
    "regexp_instr",
];
/// Functions that give an `integer[]`.
const INTEGER_ARRAYS: &[&str] = &["array_positions"];
/// Of them those that give NULL for zero: an array without elements has no dimensions.
const NEVER_ZERO: &[&str] = &["array_length", "array_ndims"];
/// Window functions, and what they give.
const NUMBERS: &[(&str, DataType)] = &[
    ("row_number", DataType::Int64),
    ("rank", DataType::Int64),
    ("dense_rank", DataType::Int64),
    ("ntile", DataType::Int32),
];

/// One of the engine's functions, with PostgreSQL's type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    inner: Arc<ScalarUDF>,
    kind: DataType,
}

/// PostgreSQL's forms of those functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let list = DataType::List(Field::new_list_field(DataType::Int32, true).into());
    let integers = INTEGERS.iter().map(|name| (name, DataType::Int32));
    let arrays = INTEGER_ARRAYS.iter().map(|name| (name, list.clone()));
    let typed = |(name, kind): (&&str, DataType)| {
        let function = Typed { inner: known(name)?, kind };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    integers.chain(arrays).filter_map(typed).collect()
}

impl ScalarUDFImpl for Typed {
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
        self.inner.coerce_types(types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arg_fields = &args.arg_fields;
        let scalar_arguments = vec![None; arg_fields.len()];
        let asked = ReturnFieldArgs { arg_fields, scalar_arguments: &scalar_arguments };
        let return_field = self.inner.return_field_from_args(asked)?;
        let given = self.inner.invoke_with_args(ScalarFunctionArgs { return_field, ..args })?;
        let given = given.cast_to(&self.kind, None)?;
        match NEVER_ZERO.contains(&self.name()) {
            true => without_zeros(given),
            false => Ok(given),
        }
    }
}

fn without_zeros(numbers: ColumnarValue) -> Result<ColumnarValue> {
    Ok(match numbers {
        ColumnarValue::Scalar(ScalarValue::Int32(Some(0))) => {
            ColumnarValue::Scalar(ScalarValue::Int32(None))
        }
        ColumnarValue::Array(array) => {
            let zeros = eq(&array, &Int32Array::new_scalar(0))?;
            ColumnarValue::Array(nullif(&array, &zeros)?)
        }
        other => other,
    })
}

/// `row_number()`, as statements find it.
pub(in crate::engine) fn row_number() -> Arc<WindowUDF> {
    Numbered::around(row_number_udwf(), &DataType::Int64)
}

/// One of the engine's window functions, with a signed number as its result.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Numbered {
    inner: Arc<WindowUDF>,
    kind: DataType,
}

/// PostgreSQL's forms of those window functions that `known` has.
pub(super) fn window_functions(
    known: impl Fn(&str) -> Option<Arc<WindowUDF>>,
) -> Vec<Arc<WindowUDF>> {
    let numbered = |(name, kind): &(&str, DataType)| Some(Numbered::around(known(name)?, kind));
    NUMBERS.iter().filter_map(numbered).collect()
}

impl Numbered {
    fn around(inner: Arc<WindowUDF>, kind: &DataType) -> Arc<WindowUDF> {
        Arc::new(WindowUDF::new_from_impl(Self { inner, kind: kind.clone() }))
    }
}

impl WindowUDFImpl for Numbered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let inner = self.inner.partition_evaluator_factory(args)?;
        Ok(Box::new(Numbers { inner, kind: self.kind.clone() }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.inner.field(args)?;
        Ok(Arc::new(field.as_ref().clone().with_data_type(self.kind.clone())))
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.inner.sort_options()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.reverse_expr() {
            ReversedUDWF::Reversed(inner) => {
                ReversedUDWF::Reversed(Self::around(inner, &self.kind))
            }
            other => other,
        }
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(args)
    }
}

/// What numbers the rows of a partition.
#[derive(Debug)]
struct Numbers {
    inner: Box<dyn PartitionEvaluator>,
    kind: DataType,
}

impl PartitionEvaluator for Numbers {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(row, rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(cast(&self.inner.evaluate_all(values, rows)?, &self.kind)?)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.inner.evaluate(values, range)?.cast_to(&self.kind)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        Ok(cast(&self.inner.evaluate_all_with_rank(rows, ranks)?, &self.kind)?)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}
