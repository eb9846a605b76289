//! Elements of arrays where some are NULL: `x = ANY (array)` is NULL where no element is equal and one is NULL,
//! for which the engine says false; no NULL is equal to another in `&&`, where the engine says it is; and
//! `array_remove(a, NULL)` takes NULLs away.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{concat, filter, is_not_null, is_null};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_nested::array_has::array_has_any_udf;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
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

/// What is done with the elements of two arrays, or of one and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Among {
    /// Whether any is.
    Any,
    /// The first without a value.
    Removed,
}

/// The engine's functions for that.
const AMONG: &[(&str, Among)] =
    &[("array_has_any", Among::Any), ("array_remove_all", Among::Removed)];

/// Those forms of them that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let elements = |(name, among): &(&str, Among)| {
        let function = Elements { inner: known(name)?, among: *among };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    AMONG.iter().filter_map(elements).collect()
}

/// `a && b`
pub(super) fn has_any() -> Arc<ScalarUDF> {
    let among = Among::Any;
    Arc::new(ScalarUDF::new_from_impl(Elements { inner: array_has_any_udf(), among }))
}

/// One of the engine's functions, in which NULL is equal to what PostgreSQL says.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Elements {
    inner: Arc<ScalarUDF>,
    among: Among,
}

impl ScalarUDFImpl for Elements {
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

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [first, second] = args.args.as_slice() else {
            return self.inner.invoke_with_args(args);
        };
        match self.among {
            Among::Any => {
                let known = match second {
                    ColumnarValue::Scalar(sought) => known_of(&sought.to_array()?)?
                        .map(|known| ScalarValue::try_from_array(&known, 0))
                        .transpose()?
                        .map(ColumnarValue::Scalar),
                    ColumnarValue::Array(sought) => known_of(sought)?.map(ColumnarValue::Array),
                };
                if let Some(known) = known {
                    args.args[1] = known;
                }
                self.inner.invoke_with_args(args)
            }
            Among::Removed => {
                let never_null = match second {
                    ColumnarValue::Scalar(value) => !value.is_null(),
                    ColumnarValue::Array(values) => values.null_count() == 0,
                };
                if never_null {
                    return self.inner.invoke_with_args(args);
                }
                let (lists, value) = (first.to_array(rows)?, second.to_array(rows)?);
                let removed = self.inner.invoke_with_args(args)?;
                let Some(lists) = lists.as_list_opt::<i32>() else { return Ok(removed) };
                let nulls = is_null(&value)?;
                let (of_null, others) = (without_nulls(lists)?, removed.to_array(rows)?);
                let of_null = arrow::compute::cast(&of_null, others.data_type())?;
                Ok(ColumnarValue::Array(zip(&nulls, &of_null, &others)?))
            }
        }
    }
}

/// Lists of which some have NULLs.
fn with_nulls(lists: &ArrayRef) -> Option<&ListArray> {
    lists.as_list_opt::<i32>().filter(|lists| lists.values().null_count() > 0)
}

/// The same lists without them, if there are any.
fn known_of(lists: &ArrayRef) -> Result<Option<ArrayRef>> {
    let known = with_nulls(lists).map(without_nulls).transpose()?;
    Ok(known.map(|known| Arc::new(known) as ArrayRef))
}

fn without_nulls(lists: &ListArray) -> Result<ListArray> {
    let DataType::List(item) = lists.data_type() else { return Ok(lists.clone()) };
    let (mut parts, mut lengths) = (Vec::new(), Vec::new());
    for row in 0..lists.len() {
        let known = match lists.is_null(row) {
            true => lists.values().slice(0, 0),
            false => {
                let values = lists.value(row);
                filter(&values, &is_not_null(&values)?)?
            }
        };
        lengths.push(known.len());
        parts.push(known);
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = match parts.as_slice() {
        [] => lists.values().slice(0, 0),
        parts => concat(parts)?,
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(ListArray::try_new(item.clone(), offsets, values, lists.nulls().cloned())?)
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
