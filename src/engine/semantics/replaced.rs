//! `regexp_replace` with what PostgreSQL puts in place of a match: `\&` is the match, `\1` a group of one digit, `\\` a
//! backslash, and `$` nothing but itself. The engine has groups of several digits and what Rust's `regex` knows.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

const NAME: &str = "regexp_replace";

/// Which argument it is.
const REPLACEMENT: usize = 2;

/// A group that no pattern has.
const NOTHING: &str = "${nothing}";

/// The form of `regexp_replace`, if `known` has it.
pub(super) fn function(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Option<Arc<ScalarUDF>> {
    Some(Arc::new(ScalarUDF::new_from_impl(Replaced { inner: known(NAME)? })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Replaced {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Replaced {
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

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(replacement) = args.args.get_mut(REPLACEMENT) {
            match replacement {
                ColumnarValue::Scalar(value) => {
                    if let Some(Some(text)) = value.try_as_str() {
                        let text = ScalarValue::from(template(text).as_ref());
                        *value = text.cast_to(&value.data_type())?;
                    }
                }
                ColumnarValue::Array(texts) => *texts = templates(texts)?,
            }
        }
        self.inner.invoke_with_args(args)
    }
}

fn templates(texts: &ArrayRef) -> Result<ArrayRef> {
    let read = cast(texts, &DataType::Utf8)?;
    let read = read.as_string::<i32>().iter().map(|text| text.map(template));
    let made: ArrayRef = Arc::new(read.collect::<StringArray>());
    Ok(cast(&made, texts.data_type())?)
}

/// A replacement as the engine understands it (`appendStringInfoRegexpSubstr` of PostgreSQL's `varlena.c`).
fn template(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '$']) {
        return Cow::Borrowed(text);
    }
    let mut made = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, chars.peek()) {
            ('$', _) => made.push_str("$$"),
            ('\\', Some('&')) => {
                chars.next();
                made.push_str("${0}");
            }
            ('\\', Some(digit @ '1'..='9')) => {
                made.push_str(&format!("${{{digit}}}"));
                chars.next();
            }
            ('\\', Some('\\')) => {
                chars.next();
                made.push('\\');
                // The engine would take it for a group's.
                if chars.peek().is_some_and(char::is_ascii_digit) {
                    made.push_str(NOTHING);
                }
            }
            ('\\', Some('0')) => made.push_str(&format!("\\{NOTHING}")),
            (char, _) => made.push(char),
        }
    }
    Cow::Owned(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_read_as_by_postgresql() {
        for (text, expected) in [
            ("x", "x"),
            (r"<\&>", "<${0}>"),
            (r"\12", "${1}2"),
            (r"\\1 \\\\ \\", r"\${nothing}1 \\ \"),
            (r"$1\x\", r"$$1\x\"),
            (r"\0", r"\${nothing}0"),
        ] {
            assert_eq!(template(text), expected, "{text}");
        }
    }
}
