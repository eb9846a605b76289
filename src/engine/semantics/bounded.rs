//! Functions whose result can be far larger than their arguments, kept within bounds.
//!
//! What a function makes is not counted against the memory limit, and its kernel cannot be stopped.
//! So the size of the result is worked out first, and a result that is too large is refused before
//! it takes memory. PostgreSQL's own limit is 1 GB for a value.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::{cast, kernels::length::length};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// Bytes of one value.
pub(super) const LARGEST_VALUE: u64 = 64 << 20;
/// Bytes that a function makes in one step, for a batch of rows.
pub(super) const LARGEST_STEP: u64 = 512 << 20;
/// Bytes of a value that may stand in each row of a batch.
pub(super) const SMALL_VALUE: u64 = LARGEST_STEP / 8192;
/// About what an element of an array takes besides its text.
pub(super) const ELEMENT: u64 = 16;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{function} would make {bytes} bytes, which is more than {limit}")]
pub struct TooLarge {
    pub(super) function: String,
    pub(super) bytes: u64,
    pub(super) limit: u64,
}

/// How large a function's result gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// `repeat(text, times)`
    Repeated,
    /// `lpad(text, characters, fill)`
    Padded,
    /// `replace(text, from, to)`
    Replaced,
    /// `concat(...)`, and with a separator first
    Joined,
    JoinedWith,
    /// `array_repeat(element, times)`
    Elements,
    /// `array_resize(array, elements, filler)`
    Resized,
    /// `generate_series(first, last, step)` of integers
    Series,
}

const BOUNDED: &[(&str, Growth)] = &[
    ("repeat", Growth::Repeated),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("replace", Growth::Replaced),
    ("concat", Growth::Joined),
    ("concat_ws", Growth::JoinedWith),
    ("array_repeat", Growth::Elements),
    ("array_resize", Growth::Resized),
    ("generate_series", Growth::Series),
    ("range", Growth::Series),
];

/// One of the engine's functions, with its result bounded.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

/// The bounded forms of those functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let bounded = |(name, growth): &(&str, Growth)| {
        let function = Bounded { inner: known(name)?, growth: *growth };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    BOUNDED.iter().filter_map(bounded).collect()
}

impl ScalarUDFImpl for Bounded {
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

    /// Refuses a call of large constants at once: it would stay in the plan with them, and take seconds to
    /// be looked at again and again.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if let Some(constants) = large_constants(&args) {
            self.check(&constants)?;
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args.args)?;
        self.inner.invoke_with_args(args)
    }
}

/// The values of a call that has only constants, if one of them is large.
pub(super) fn large_constants(args: &[Expr]) -> Option<Vec<ColumnarValue>> {
    let is_large = |arg: &Expr| match arg {
        Expr::Literal(value, _) => {
            value.try_as_str().flatten().is_some_and(|text| text.len() as u64 > SMALL_VALUE)
        }
        _ => false,
    };
    let constant = |arg: &Expr| match arg {
        Expr::Literal(value, _) => Some(ColumnarValue::Scalar(value.clone())),
        _ => None,
    };
    match args.iter().any(is_large) {
        true => args.iter().map(constant).collect(),
        false => None,
    }
}

impl Bounded {
    fn check(&self, args: &[ColumnarValue]) -> Result<()> {
        let rows = args.iter().map(count).max().unwrap_or(1);
        let sizes = self.growth.sizes(args)?;
        check_sizes(self.inner.name(), rows, |row| match sizes(row) {
            bytes if bytes > LARGEST_VALUE && self.growth == Growth::Replaced => {
                replaced(args, row)
            }
            bytes => bytes,
        })
    }
}

/// Refuses a result of which a row, or all rows together, would have too many bytes.
pub(super) fn check_sizes(name: &str, rows: usize, size: impl Fn(usize) -> u64) -> Result<()> {
    let refused = |bytes, limit| {
        let function = name.to_owned();
        Err(DataFusionError::External(Box::new(TooLarge { function, bytes, limit })))
    };
    let mut all: u64 = 0;
    for row in 0..rows {
        let bytes = size(row);
        if bytes > LARGEST_VALUE {
            return refused(bytes, LARGEST_VALUE);
        }
        all = all.saturating_add(bytes);
        if all > LARGEST_STEP {
            return refused(all, LARGEST_STEP);
        }
    }
    Ok(())
}

impl Growth {
    /// How large the result of a row is at most.
    fn sizes(self, args: &[ColumnarValue]) -> Result<Box<dyn Fn(usize) -> u64>> {
        let lengths: Vec<Numbers> = args.iter().map(Numbers::lengths).collect::<Result<_>>()?;
        let number = |at: usize| args.get(at).map_or(Ok(Numbers::none()), Numbers::values);
        let length = move |at: usize, row| lengths.get(at).map_or(0, |lengths| lengths.at(row));
        Ok(match self {
            Self::Repeated => {
                let times = number(1)?;
                Box::new(move |row| length(0, row).saturating_mul(times.at(row)))
            }
            Self::Padded => {
                let (characters, filled) = (number(1)?, args.len() > 2);
                Box::new(move |row| {
                    // A character takes four bytes at most, and a blank one.
                    let fill = if filled { length(2, row).min(4) } else { 1 };
                    let kept = length(0, row).min(characters.at(row).saturating_mul(4));
                    kept.saturating_add(characters.at(row).saturating_mul(fill))
                })
            }
            Self::Replaced => Box::new(move |row| {
                let (text, from) = (length(0, row), length(1, row));
                let found = text.checked_div(from).unwrap_or(0);
                text.saturating_add(found.saturating_mul(length(2, row)))
            }),
            Self::Joined => {
                let texts = args.len();
                Box::new(move |row| (0..texts).map(|at| length(at, row)).sum())
            }
            Self::JoinedWith => {
                let texts = args.len() as u64;
                Box::new(move |row| {
                    let joined: u64 = (1..texts as usize).map(|at| length(at, row)).sum();
                    joined.saturating_add(texts.saturating_mul(length(0, row)))
                })
            }
            Self::Elements => {
                let times = number(1)?;
                Box::new(move |row| times.at(row).saturating_mul(ELEMENT + length(0, row)))
            }
            Self::Resized => {
                let elements = number(1)?;
                Box::new(move |row| elements.at(row).saturating_mul(ELEMENT + length(2, row)))
            }
            Self::Series => {
                let integers = args.iter().all(|arg| arg.data_type().is_integer());
                if !integers {
                    return Ok(Box::new(|_| 0));
                }
                let of = |at: usize| args.get(at).map(Numbers::values).transpose();
                let (first, second, step) = (of(0)?, of(1)?, of(2)?);
                Box::new(move |row| {
                    let at =
                        |of: &Option<Numbers>, other| of.as_ref().map_or(other, |n| n.get(row));
                    let (first, last) = match second {
                        Some(_) => (at(&first, 0), at(&second, 0)),
                        None => (0, at(&first, 0)),
                    };
                    let steps = last.abs_diff(first) / at(&step, 1).unsigned_abs().max(1);
                    steps.saturating_mul(ELEMENT / 2)
                })
            }
        })
    }
}

/// A number for each row, or one for all.
pub(super) struct Numbers(Option<Int64Array>);

impl Numbers {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The bytes of texts, the elements of lists. What has no length is short.
    pub(super) fn lengths(arg: &ColumnarValue) -> Result<Self> {
        let array = arg.to_array(count(arg))?;
        let scale = match array.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => ELEMENT,
            _ => 1,
        };
        let Ok(lengths) = length(&array) else { return Ok(Self::none()) };
        let lengths = cast(&lengths, &DataType::Int64)?;
        let lengths = lengths.as_primitive::<Int64Type>();
        Ok(Self(Some(lengths.unary(|length| length.saturating_mul(scale as i64)))))
    }

    fn values(arg: &ColumnarValue) -> Result<Self> {
        let numbers = cast(&arg.to_array(count(arg))?, &DataType::Int64)?;
        Ok(Self(Some(numbers.as_primitive::<Int64Type>().clone())))
    }

    fn get(&self, row: usize) -> i64 {
        let Some(numbers) = &self.0 else { return 0 };
        let row = if numbers.len() == 1 { 0 } else { row };
        if row < numbers.len() && numbers.is_valid(row) { numbers.value(row) } else { 0 }
    }

    /// Zero for what is negative.
    pub(super) fn at(&self, row: usize) -> u64 {
        self.get(row).try_into().unwrap_or(0)
    }
}

fn count(arg: &ColumnarValue) -> usize {
    match arg {
        ColumnarValue::Array(array) => array.len(),
        ColumnarValue::Scalar(_) => 1,
    }
}

/// How large the result of `replace` is, counted.
fn replaced(args: &[ColumnarValue], row: usize) -> u64 {
    let text = |at: usize| {
        let value = match args.get(at) {
            Some(ColumnarValue::Array(array)) => ScalarValue::try_from_array(array, row).ok(),
            Some(ColumnarValue::Scalar(value)) => Some(value.clone()),
            None => None,
        };
        value.and_then(|value| Some(value.try_as_str()??.to_owned())).unwrap_or_default()
    };
    let (text, from, to) = (text(0), text(1), text(2));
    if from.is_empty() {
        return text.len() as u64;
    }
    let found = text.matches(&from).count() as u64;
    let kept = text.len() as u64 - found.saturating_mul(from.len() as u64);
    kept.saturating_add(found.saturating_mul(to.len() as u64))
}

#[cfg(test)]
mod tests {
    use datafusion::functions::string::{concat, repeat};
    use datafusion::logical_expr::lit;

    use super::*;

    #[test]
    fn large_constants_are_refused_before_anything_runs() {
        let known = |name: &str| match name {
            "concat" => Some(concat()),
            "repeat" => Some(repeat()),
            _ => None,
        };
        let functions = functions(known);
        let simplified = |name: &str, args: Vec<Expr>| {
            let function = functions.iter().find(|function| function.name() == name);
            function.expect(name).simplify(args, &SimplifyContext::default())
        };
        let half = "x".repeat(40 << 20);
        let error = simplified("concat", vec![lit(half.as_str()), lit(half.as_str())]);
        assert!(error.is_err_and(|error| error.to_string().contains("concat would make")));
        // What is small itself may stand where nobody ever comes.
        assert!(simplified("repeat", vec![lit("x"), lit(i64::MAX)]).is_ok());
        assert!(simplified("concat", vec![lit(half.as_str()), lit("y")]).is_ok());
    }
}
