//! `floor`, `ceil` and `trunc` of exact numbers, which have no digits behind the point and may have one more
//! before it: the engine keeps precision and scale, for which `ceil(9.9)` is too large.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::Field;
use arrow::datatypes::{DataType, Decimal128Type, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Digits in all of an exact number.
const MAX_PRECISION: u8 = 38;

/// Which whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Towards {
    Below,
    Above,
    Zero,
}

const FUNCTIONS: &[(&str, Towards)] =
    &[("floor", Towards::Below), ("ceil", Towards::Above), ("trunc", Towards::Zero)];

/// One of the engine's functions, with its own result for exact numbers.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Whole {
    inner: Arc<ScalarUDF>,
    towards: Towards,
    signature: Signature,
}

/// PostgreSQL's forms of those functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let whole = |(name, towards): &(&str, Towards)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let function = Whole { inner: known(name)?, towards: *towards, signature };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    FUNCTIONS.iter().filter_map(whole).collect()
}

/// The type of the whole number, and by what it is divided; `None` for what the engine is to look at.
fn result(types: &[DataType]) -> Option<(DataType, i128)> {
    let [DataType::Decimal128(precision, scale @ 1..)] = types else { return None };
    let digits = precision.saturating_sub(scale.unsigned_abs()) + 1;
    let kind = DataType::Decimal128(digits.min(MAX_PRECISION), 0);
    Some((kind, 10_i128.checked_pow(u32::from(scale.unsigned_abs()))?))
}

impl ScalarUDFImpl for Whole {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if result(types).is_some() {
            return Ok(types.to_vec());
        }
        let fields = types.iter().map(|kind| Arc::new(Field::new("value", kind.clone(), true)));
        let coerced = fields_with_udf(&fields.collect::<Vec<_>>(), self.inner.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match result(types) {
            Some((kind, _)) => Ok(kind),
            None => self.inner.return_type(types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        match result(&types) {
            Some((kind, _)) => Ok(Arc::new(Field::new(self.name(), kind, true))),
            None => self.inner.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<_> = args.args.iter().map(ColumnarValue::data_type).collect();
        let Some((kind, divisor)) = result(&types) else {
            return self.inner.invoke_with_args(args);
        };
        let towards = self.towards;
        let each = |array: &ArrayRef| -> ArrayRef {
            let numbers = array.as_primitive::<Decimal128Type>();
            let whole: Decimal128Array = numbers.unary(|number| match towards {
                Towards::Below => number.div_euclid(divisor),
                Towards::Above => -(-number).div_euclid(divisor),
                Towards::Zero => number / divisor,
            });
            Arc::new(whole.with_data_type(kind.clone()))
        };
        Ok(match &args.args[0] {
            ColumnarValue::Array(array) => ColumnarValue::Array(each(array)),
            ColumnarValue::Scalar(value) => {
                let array = each(&value.to_array()?);
                ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
            }
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }
}
