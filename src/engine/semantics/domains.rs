//! Functions of what they have no value for: PostgreSQL refuses that, where the engine gives infinity, NaN, or a
//! character that no text has.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// What the function is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Logarithm,
    Power,
    Character,
}

const FUNCTIONS: &[(&str, Kind)] = &[
    ("ln", Kind::Logarithm),
    ("log", Kind::Logarithm),
    ("log2", Kind::Logarithm),
    ("log10", Kind::Logarithm),
    ("power", Kind::Power),
    ("chr", Kind::Character),
];

/// The forms of those functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let looked_after = |(name, kind): &(&str, Kind)| {
        let function = LookedAfter { inner: known(name)?, kind: *kind };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    FUNCTIONS.iter().filter_map(looked_after).collect()
}

/// One of the engine's functions, whose arguments are looked at first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LookedAfter {
    inner: Arc<ScalarUDF>,
    kind: Kind,
}

impl ScalarUDFImpl for LookedAfter {
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

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.kind {
            Kind::Logarithm => args.args.iter().try_for_each(refuse_logarithm)?,
            Kind::Power => refuse_power(&args)?,
            Kind::Character => args.args.iter().try_for_each(refuse_zero)?,
        }
        self.inner.invoke_with_args(args)
    }
}

/// An argument as an array, of one row if it is the same for all.
fn array(value: &ColumnarValue, kind: &DataType) -> Result<ArrayRef> {
    let array = match value {
        ColumnarValue::Array(array) => array.clone(),
        ColumnarValue::Scalar(value) => value.to_array()?,
    };
    Ok(if array.data_type() == kind { array } else { cast(&array, kind)? })
}

fn refuse_logarithm(value: &ColumnarValue) -> Result<()> {
    let array = array(value, &DataType::Float64)?;
    for number in array.as_primitive::<Float64Type>().iter().flatten() {
        if number == 0.0 {
            return exec_err!("cannot take logarithm of zero");
        }
        if number < 0.0 {
            return exec_err!("cannot take logarithm of a negative number");
        }
    }
    Ok(())
}

fn refuse_power(args: &ScalarFunctionArgs) -> Result<()> {
    let [base, exponent] = args.args.as_slice() else { return Ok(()) };
    let (base, exponent) = (array(base, &DataType::Float64)?, array(exponent, &DataType::Float64)?);
    let (bases, exponents) =
        (base.as_primitive::<Float64Type>(), exponent.as_primitive::<Float64Type>());
    // Most are not negative: nothing of the exponents is to be known then.
    for row in 0..bases.len() {
        if bases.is_null(row) || bases.value(row) >= 0.0 {
            continue;
        }
        let rows = if bases.len() == 1 { 0..exponents.len() } else { row..row + 1 };
        for row in rows {
            let row = if exponents.len() == 1 { 0 } else { row };
            let exponent = exponents.value(row);
            if exponents.is_valid(row) && exponent.is_finite() && exponent.fract() != 0.0 {
                return exec_err!(
                    "a negative number raised to a non-integer power yields a complex result"
                );
            }
        }
    }
    Ok(())
}

fn refuse_zero(value: &ColumnarValue) -> Result<()> {
    let array = array(value, &DataType::Int64)?;
    match array.as_primitive::<Int64Type>().iter().flatten().any(|code| code == 0) {
        true => exec_err!("null character not permitted"),
        false => Ok(()),
    }
}
