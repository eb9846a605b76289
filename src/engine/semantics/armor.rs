//! `encode` and `decode` with PostgreSQL's forms, where the engine has others.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::types::{NativeType, logical_string};
use datafusion::common::{DataFusionError, Result};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignatureClass,
    Volatility,
};

use crate::values::armor::{Armor, Error};

/// `encode(bytea, text)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Encode {
    signature: Signature,
}

/// `decode(text, text)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Decode {
    signature: Signature,
}

fn text() -> Coercion {
    Coercion::new_exact(TypeSignatureClass::Native(logical_string()))
}

impl Default for Encode {
    fn default() -> Self {
        let strings = vec![TypeSignatureClass::Native(logical_string())];
        let bytes = Coercion::new_implicit(TypeSignatureClass::Binary, strings, NativeType::Binary);
        Self { signature: Signature::coercible(vec![bytes, text()], Volatility::Immutable) }
    }
}

impl Default for Decode {
    fn default() -> Self {
        Self { signature: Signature::coercible(vec![text(), text()], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Encode {
    fn name(&self) -> &str {
        "encode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(encode, Vec::new())(&args.args)
    }
}

impl ScalarUDFImpl for Decode {
    fn name(&self) -> &str {
        "decode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(decode, Vec::new())(&args.args)
    }
}

fn encode(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (values, forms) = (cast(&args[0], &DataType::Binary)?, cast(&args[1], &DataType::Utf8)?);
    let rows = values.as_binary::<i32>().iter().zip(forms.as_string::<i32>());
    let texts = rows.map(|row| match row {
        (Some(bytes), Some(form)) => Ok(Some(Armor::named(form).map_err(wrong)?.encode(bytes))),
        _ => Ok(None),
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

fn decode(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (values, forms) = (cast(&args[0], &DataType::Utf8)?, cast(&args[1], &DataType::Utf8)?);
    let rows = values.as_string::<i32>().iter().zip(forms.as_string::<i32>());
    let bytes = rows.map(|row| match row {
        (Some(text), Some(form)) => {
            let decoded = Armor::named(form).and_then(|form| form.decode(text));
            decoded.map(Some).map_err(wrong)
        }
        _ => Ok(None),
    });
    Ok(Arc::new(bytes.collect::<Result<BinaryArray>>()?))
}

fn wrong(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
