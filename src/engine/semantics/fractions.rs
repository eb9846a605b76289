//! `percentile_disc`: the value of a sorted list by which a part of all has come.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, exec_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::moments::no_function;

/// `array_at_fraction(values, fraction)` (`percentile_disc_final` of PostgreSQL's `orderedsetaggs.c`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AtFraction {
    signature: Signature,
}

impl Default for AtFraction {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AtFraction {
    fn name(&self) -> &str {
        "array_at_fraction"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [list @ DataType::List(_), fraction] if fraction.is_numeric() || fraction.is_null() => {
                Ok(vec![list.clone(), DataType::Float64])
            }
            _ => no_function("percentile_disc", types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::List(element), _] => Ok(element.data_type().clone()),
            _ => no_function("percentile_disc", types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|arg| arg.data_type().clone()).collect();
        let field = Field::new(self.name(), self.return_type(&types)?, true);
        Ok(Arc::new(match &types[0] {
            DataType::List(element) => field.with_metadata(element.metadata().clone()),
            _ => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(chosen, Vec::new())(&args.args)
    }
}

fn chosen(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (lists, fractions) = (args[0].as_list::<i32>(), args[1].as_primitive::<Float64Type>());
    let offsets = lists.value_offsets();
    let place = |row: usize| -> Result<Option<u32>> {
        if fractions.is_null(row) {
            return Ok(None);
        }
        let fraction = fractions.value(row);
        if !(0.0..=1.0).contains(&fraction) {
            return exec_err!("percentile value {fraction} is not between 0 and 1");
        }
        let count = offsets[row + 1] - offsets[row];
        if lists.is_null(row) || count == 0 {
            return Ok(None);
        }
        let number = (fraction * f64::from(count)).ceil() as i32;
        Ok(u32::try_from(offsets[row] + (number - 1).clamp(0, count - 1)).ok())
    };
    let places = (0..lists.len()).map(place).collect::<Result<UInt32Array>>()?;
    Ok(take(lists.values(), &places, None)?)
}
