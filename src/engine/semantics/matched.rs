//! `x LIKE ANY (array)`, and the other operators of patterns with ANY and ALL: the engine has them for
//! comparisons alone.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, StringArray, StringViewArray, UInt32Array,
};
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
        Ok(vec![DataType::Utf8View, patterns, DataType::Utf8, DataType::Boolean])
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
        // What is one for all rows is not made one for each of them.
        let array = |value: &ColumnarValue| match value {
            ColumnarValue::Array(array) => Ok(array.clone()),
            ColumnarValue::Scalar(value) => value.to_array(),
        };
        let found = matched(&array(values)?, &array(lists)?, rows, operator, all)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(Arc::new(found)),
        })
    }
}

/// What comes for each row of its text and the patterns of its list; a single text or list is that of all
/// rows.
///
/// The first patterns of all rows are looked at together, then the second ones, and so on: all at once they
/// would be as many texts as there are rows times patterns. Views of texts are taken without their bytes.
fn matched(
    values: &ArrayRef,
    lists: &ArrayRef,
    rows: usize,
    operator: &str,
    all: bool,
) -> Result<BooleanArray> {
    let values = cast(values, &DataType::Utf8View)?;
    let wanted = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)));
    let lists = cast(lists, &wanted)?;
    let lists = lists.as_list::<i32>();
    let offsets = lists.value_offsets();
    let text = |row: u32| if values.len() == 1 { 0 } else { row };
    let list = |row: u32| if lists.len() == 1 { 0 } else { row as usize };
    let mut found: Vec<Option<bool>> =
        (0..rows as u32).map(|row| lists.is_valid(list(row)).then_some(all)).collect();
    let mut open: Vec<u32> = (0..rows as u32).filter(|row| lists.is_valid(list(*row))).collect();
    for place in 0.. {
        // One pattern can decide for a row.
        open.retain(|row| {
            let length = offsets[list(*row) + 1] - offsets[list(*row)];
            place < length && found[*row as usize] != Some(!all)
        });
        if open.is_empty() {
            break;
        }
        let own: UInt32Array = open.iter().map(|row| text(*row)).collect();
        let which: UInt32Array =
            open.iter().map(|row| (offsets[list(*row)] + place) as u32).collect();
        let texts = take(&values, &own, None)?;
        let patterns = take(lists.values(), &which, None)?;
        let truths = compared(texts.as_string_view(), patterns.as_string_view(), operator)?;
        for (row, truth) in open.iter().zip(&truths) {
            // If none decides, all have to be known.
            if truth != Some(all) {
                found[*row as usize] = truth;
            }
        }
    }
    Ok(found.into())
}

fn compared(
    texts: &StringViewArray,
    patterns: &StringViewArray,
    operator: &str,
) -> Result<BooleanArray> {
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
