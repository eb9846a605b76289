//! `x LIKE ANY (array)`, and the other operators of patterns with ANY and ALL: the engine has them for
//! comparisons alone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, UInt32Array};
use arrow::compute::{cast, ilike, like, nilike, nlike, not, regexp_is_match, take};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::values::types::is_text;

/// The name by which the rewriting of PostgreSQL's dialect calls it.
const NAME: &str = "matched";

/// `matched(text, patterns, operator, all)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Matched {
    signature: Signature,
}

impl Default for Matched {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Matched {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let patterns = DataType::new_list(DataType::Utf8, true);
        let fits = match types {
            [value, list, _, _] => {
                let texts = match list {
                    DataType::List(item) | DataType::LargeList(item) => {
                        is_text(item.data_type()) || item.data_type().is_null()
                    }
                    other => other.is_null(),
                };
                texts && (is_text(value) || value.is_null())
            }
            _ => false,
        };
        if !fits {
            return plan_err!(
                "operator does not exist. No function matches the given name and argument types: a \
                 text is matched with an array of patterns. You might need to add explicit type casts."
            );
        }
        Ok(vec![DataType::Utf8, patterns, DataType::Utf8, DataType::Boolean])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [values, lists, operator, all] = args.args.as_slice() else {
            return exec_err!("{NAME} takes four arguments");
        };
        let (ColumnarValue::Scalar(operator), ColumnarValue::Scalar(all)) = (operator, all) else {
            return exec_err!("{NAME} takes one operator for all rows");
        };
        let operator = operator.try_as_str().flatten().unwrap_or_default();
        let all = *all == ScalarValue::Boolean(Some(true));
        let constant =
            matches!((values, lists), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let found = matched(&values.to_array(rows)?, &lists.to_array(rows)?, operator, all)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(Arc::new(found)),
        })
    }
}

/// The text of each row with each pattern of its list, all in one array, and what comes of them for the row.
fn matched(values: &ArrayRef, lists: &ArrayRef, operator: &str, all: bool) -> Result<BooleanArray> {
    let values = cast(values, &DataType::Utf8)?;
    let wanted = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let lists = cast(lists, &wanted)?;
    let lists = lists.as_list::<i32>();
    let offsets = lists.value_offsets();
    let span = |row: usize| match lists.is_valid(row) {
        true => offsets[row] as usize..offsets[row + 1] as usize,
        false => 0..0,
    };
    let rows = || (0..lists.len()).flat_map(|row| span(row).map(move |at| (row as u32, at as u32)));
    let own: UInt32Array = rows().map(|(row, _)| row).collect();
    let which: UInt32Array = rows().map(|(_, at)| at).collect();
    let texts = take(&values, &own, None)?;
    let patterns = take(lists.values(), &which, None)?;
    let each = compared(texts.as_string(), patterns.as_string(), operator)?;
    let mut next = 0;
    let found = (0..lists.len()).map(|row| {
        let length = span(row).len();
        let own = next..next + length;
        next += length;
        if lists.is_null(row) {
            return None;
        }
        let truths = || own.clone().map(|at| each.is_valid(at).then(|| each.value(at)));
        // One that decides, or else whether all are known.
        match truths().any(|truth| truth == Some(!all)) {
            true => Some(!all),
            false if truths().any(|truth| truth.is_none()) => None,
            false => Some(all),
        }
    });
    Ok(found.collect())
}

fn compared(texts: &StringArray, patterns: &StringArray, operator: &str) -> Result<BooleanArray> {
    let regular = |flags: Option<&str>| {
        let flags = flags.map(|flags| StringArray::from_iter_values(vec![flags; texts.len()]));
        regexp_is_match(texts, patterns, flags.as_ref())
    };
    let found = match operator {
        "~~" => like(texts, patterns),
        "!~~" => nlike(texts, patterns),
        "~~*" => ilike(texts, patterns),
        "!~~*" => nilike(texts, patterns),
        "~" => regular(None),
        "~*" => regular(Some("i")),
        "!~" => regular(None).and_then(|found| not(&found)),
        "!~*" => regular(Some("i")).and_then(|found| not(&found)),
        other => return exec_err!("{NAME} does not know the operator {other}"),
    };
    found.map_err(DataFusionError::from)
}
