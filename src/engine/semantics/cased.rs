//! `upper`, `lower` and `initcap` character by character, as PostgreSQL has them with the C library: one that would
//! become several, as `ß` in capital letters, stays as it is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Case {
    Upper,
    Lower,
    /// Upper where a word begins.
    Initial,
}

const CASES: &[(&str, Case)] =
    &[("upper", Case::Upper), ("lower", Case::Lower), ("initcap", Case::Initial)];

/// Those forms of these functions that `known` has.
pub(super) fn functions(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let cased = |(name, case): &(&str, Case)| {
        let function = Cased { inner: known(name)?, case: *case };
        Some(Arc::new(ScalarUDF::new_from_impl(function)))
    };
    CASES.iter().filter_map(cased).collect()
}

/// One of the engine's functions, which does for texts of ASCII alone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Cased {
    inner: Arc<ScalarUDF>,
    case: Case,
}

impl ScalarUDFImpl for Cased {
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

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_field.data_type().clone();
        match args.args.first() {
            Some(ColumnarValue::Scalar(value))
                if value.try_as_str().flatten().is_some_and(|text| !text.is_ascii()) =>
            {
                let texts = self.case.of(&value.to_array()?, &kind)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?))
            }
            Some(ColumnarValue::Array(texts)) if !is_ascii(texts) => {
                self.case.of(texts, &kind).map(ColumnarValue::Array)
            }
            _ => self.inner.invoke_with_args(args),
        }
    }
}

fn is_ascii(texts: &ArrayRef) -> bool {
    match texts.data_type() {
        DataType::Utf8 => texts.as_string::<i32>().is_ascii(),
        DataType::LargeUtf8 => texts.as_string::<i64>().is_ascii(),
        DataType::Utf8View => texts.as_string_view().is_ascii(),
        _ => true,
    }
}

impl Case {
    fn of(self, texts: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
        let texts = cast(texts, &DataType::Utf8View)?;
        let texts = texts.as_string_view().iter().map(|text| text.map(|text| self.of_text(text)));
        Ok(match kind {
            DataType::Utf8View => Arc::new(texts.collect::<StringViewArray>()),
            DataType::Utf8 => Arc::new(texts.collect::<StringArray>()),
            other => cast(&texts.collect::<StringViewArray>(), other)?,
        })
    }

    fn of_text(self, text: &str) -> String {
        let mut begins = true;
        let cased = text.chars().map(|letter| {
            let first = std::mem::replace(&mut begins, !letter.is_alphanumeric());
            match self {
                Self::Upper => upper(letter),
                Self::Initial if first => upper(letter),
                // The first of several is the letter, the rest its marks.
                Self::Lower | Self::Initial => letter.to_lowercase().next().unwrap_or(letter),
            }
        });
        cased.collect()
    }
}

fn upper(letter: char) -> char {
    let mut upper = letter.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15 with a locale of UTF-8.
    #[test]
    fn each_character_stays_one() {
        for (case, text, expected) in [
            (Case::Upper, "straße ŉ ﬁ é", "STRAßE ŉ ﬁ É"),
            (Case::Lower, "ΑΣ İ É", "ασ i é"),
            (Case::Initial, "ßa ÉCOLE d'été", "ßa École D'Été"),
        ] {
            assert_eq!(case.of_text(text), expected);
        }
    }
}
