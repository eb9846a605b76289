//! Functions of text that PostgreSQL has for `bytea` as well, and `to_hex` of integers of 32 bits.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, StringArray};
use arrow::compute::{cast, kernels::length};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::values::types::is_text;

/// How long something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    /// In characters; of bytes, how many there are.
    Characters,
    Bytes,
    Bits,
}

const MEASURES: &[(&str, Measure)] = &[
    ("character_length", Measure::Characters),
    ("octet_length", Measure::Bytes),
    ("bit_length", Measure::Bits),
];

/// `length`, `octet_length` and `bit_length`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    inner: Arc<ScalarUDF>,
    measure: Measure,
    signature: Signature,
}

/// PostgreSQL's forms of those functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let measured = |(name, measure): &(&str, Measure)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let function = Length { inner: known(name)?, measure: *measure, signature };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    let mut functions: Vec<_> = MEASURES.iter().filter_map(measured).collect();
    functions.push(Arc::new(ScalarUDF::new_from_impl(ToHex::default())));
    functions
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

impl ScalarUDFImpl for Length {
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
        match types {
            [kind] if is_text(kind) => Ok(vec![kind.clone()]),
            [kind] if is_binary(kind) => Ok(vec![DataType::Binary]),
            // As the engine has it: numbers are written for it.
            [kind] if kind.is_numeric() || kind.is_null() => Ok(vec![DataType::Utf8]),
            [DataType::Dictionary(_, kind)] => self.coerce_types(&[kind.as_ref().clone()]),
            _ => plan_err!(
                "function {} does not exist for these types. No function matches the given name \
                 and argument types: it takes a text or bytea",
                self.name()
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let measure = self.measure;
        if args.args.first().is_some_and(|arg| is_binary(&arg.data_type())) {
            return make_scalar_function(move |args| of_bytes(args, measure), Vec::new())(
                &args.args,
            );
        }
        self.inner.invoke_with_args(args)?.cast_to(&DataType::Int32, None)
    }
}

fn of_bytes(args: &[ArrayRef], measure: Measure) -> Result<ArrayRef> {
    Ok(match measure {
        Measure::Bits => cast(&length::bit_length(&args[0])?, &DataType::Int32)?,
        _ => cast(&length::length(&args[0])?, &DataType::Int32)?,
    })
}

/// `to_hex(integer)` and `to_hex(bigint)`: of as many bits as they have.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToHex {
    signature: Signature,
}

impl Default for ToHex {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToHex {
    fn name(&self) -> &str {
        "to_hex"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt16};
        match types {
            [Int8 | Int16 | Int32 | UInt8 | UInt16] => Ok(vec![Int32]),
            [kind] if kind.is_integer() || kind.is_null() => Ok(vec![Int64]),
            _ => plan_err!(
                "function to_hex does not exist for these types. No function matches the given \
                 name and argument types: it takes an integer"
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(hexadecimal, Vec::new())(&args.args)
    }
}

fn hexadecimal(args: &[ArrayRef]) -> Result<ArrayRef> {
    let texts: StringArray = match args[0].as_primitive_opt::<Int32Type>() {
        Some(numbers) => {
            let numbers: &Int32Array = numbers;
            numbers.iter().map(|number| Some(format!("{:x}", number?))).collect()
        }
        None => {
            let numbers = cast(&args[0], &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            numbers.iter().map(|number| Some(format!("{:x}", number?))).collect()
        }
    };
    Ok(Arc::new(texts))
}
