//! What PostgreSQL's clients do with arrays and the engine has no function for.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::super::rows::Value;
use super::Kind::{Array, Int};
use super::{Given, Spec, plain};

pub const FUNCTIONS: &[Spec] = &[
    plain("array_subscripts", &[&[Array, Int]], "_int4", subscripts),
    plain("array_dims", &[&[Array]], "text", dimensions),
];

/// The subscripts of an array's first dimension: what `generate_subscripts` unnests.
fn subscripts(call: &Given<'_>) -> Result<Value> {
    let count = match &call.args[0] {
        Value::List(items) if call.int(1) == 1 => items.len(),
        _ => 0,
    };
    Ok(Value::List((1..).take(count).map(Value::Int).collect()))
}

/// The bounds of an array, such as `[1:2][1:3]`; NULL for one without elements.
fn dimensions(call: &Given<'_>) -> Result<Value> {
    let mut text = String::new();
    let mut level = &call.args[0];
    while let Value::List(items) = level
        && let Some(first) = items.first()
    {
        text.push_str(&format!("[1:{}]", items.len()));
        level = first;
    }
    Ok(if text.is_empty() { Value::Null } else { Value::Text(text) })
}

pub fn structures() -> Vec<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    vec![ScalarUDF::new_from_impl(ExpandArray { signature })]
}

/// `information_schema._pg_expandarray`: an array's elements with their numbers.
///
/// Clients call it for the columns of keys and indexes alone, of which there are none: it gives
/// the right type and no elements.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExpandArray {
    signature: Signature,
}

impl ScalarUDFImpl for ExpandArray {
    fn name(&self) -> &str {
        "_pg_expandarray"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let element = match given.first() {
            Some(DataType::List(field)) => field.data_type().clone(),
            _ => DataType::Int16,
        };
        Ok(DataType::Struct(Fields::from(vec![
            Arc::new(Field::new("x", element, true)),
            Arc::new(Field::new("n", DataType::Int32, true)),
        ])))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?))
    }
}
