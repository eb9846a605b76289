//! JSON made of values: `to_json`, `json_build_object` and their kin. The aggregates are `array_agg` of
//! JSON texts, which one of these functions puts together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions::core::named_struct::NamedStructFunc;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use postgres_types::Type;

use super::bounded::LARGEST_VALUE;
use super::{TooLarge, session_zone};
use crate::values::encode::{self, TextStyle};
use crate::values::jsonb;
use crate::values::types::{dimensions, json_type, of_json_type};

/// What is wrong with arguments of which JSON is to be made, or with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("argument list must have even number of elements")]
    Odd,
    #[error("argument {0}: key must not be null")]
    NullKey(usize),
    #[error("field name must not be null")]
    NullName,
    #[error("key value must be scalar, not array, composite, or json")]
    NestedKey,
    #[error("cannot get array length of a non-array")]
    NoArray,
    #[error("cannot get array length of a scalar")]
    Scalar,
    #[error("cannot extract elements from {0}")]
    NoElements(&'static str),
    #[error("cannot call {0} on a non-object")]
    NoObject(&'static str),
    #[error("operator does not exist: {0}")]
    NoOperator(String),
    #[error("cannot cast type {from} to {to}")]
    NoCast { from: String, to: String },
}

impl JsonError {
    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::NoOperator(_) => "42883",
            Self::NoCast { .. } => "42846",
            _ => "22023",
        }
    }
}

/// What a function makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Making {
    /// A value; nothing of NULL.
    Value,
    /// One of the values that `Array` puts together: `null` of NULL.
    Item,
    /// One of the members that `Object` puts together.
    Member,
    Array,
    Object,
    BuiltArray,
    BuiltObject,
    /// `json` or `jsonb` as it is, of what is not known to be so.
    Known,
    KnownNormal,
    /// A text that has to be JSON.
    Checked,
    /// The same in `jsonb`'s form.
    Normal,
    /// The two of what may only be called JSON.
    Read,
    ReadNormal,
    /// The same text of all JSON that is equal as `jsonb`.
    Comparable,
    /// A text that is less than another's where the JSON is, as `jsonb`.
    Order,
}

const FUNCTIONS: &[(&str, Making)] = &[
    ("to_json", Making::Value),
    ("row_to_json", Making::Value),
    ("array_to_json", Making::Value),
    ("json_item", Making::Item),
    ("json_member", Making::Member),
    ("json_array_of", Making::Array),
    ("json_object_of", Making::Object),
    ("as_json", Making::Known),
    ("as_jsonb", Making::KnownNormal),
    ("json_build_array", Making::BuiltArray),
    ("json_build_object", Making::BuiltObject),
];

pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let function = |(name, making): &(&'static str, Making)| {
        let signature = match making {
            Making::BuiltArray | Making::BuiltObject => Signature::one_of(
                vec![
                    datafusion::logical_expr::TypeSignature::VariadicAny,
                    datafusion::logical_expr::TypeSignature::Nullary,
                ],
                Volatility::Stable,
            ),
            Making::Member => Signature::any(2, Volatility::Stable),
            _ => Signature::any(1, Volatility::Stable),
        };
        Arc::new(ScalarUDF::new_from_impl(Json { name, making: *making, signature }))
    };
    let row = Arc::new(ScalarUDF::new_from_impl(Row::default()));
    FUNCTIONS
        .iter()
        .map(function)
        .chain([normal(), checked(), comparable(), order(), row])
        .chain([anew(&Type::JSON), anew(&Type::JSONB)])
}

/// The function that reads a text as `jsonb`.
pub(super) fn normal() -> Arc<ScalarUDF> {
    one_form("jsonb_form", Making::Normal)
}

/// The function that reads a text as `json`.
pub(super) fn checked() -> Arc<ScalarUDF> {
    one_form("json_checked", Making::Checked)
}

/// The function that reads as `json` or `jsonb` what a file may only call so.
pub(super) fn anew(pg: &Type) -> Arc<ScalarUDF> {
    match *pg {
        Type::JSONB => one_form("jsonb_read", Making::ReadNormal),
        _ => one_form("json_read", Making::Read),
    }
}

/// `to_json`
pub(super) fn of_value() -> Arc<ScalarUDF> {
    let (name, making) = ("to_json", Making::Value);
    let signature = Signature::any(1, Volatility::Stable);
    Arc::new(ScalarUDF::new_from_impl(Json { name, making, signature }))
}

/// The function by whose texts JSON is compared.
pub(super) fn comparable() -> Arc<ScalarUDF> {
    one_form("jsonb_comparable", Making::Comparable)
}

/// The function by whose texts JSON is sorted.
pub(super) fn order() -> Arc<ScalarUDF> {
    one_form("jsonb_order", Making::Order)
}

/// The function that has JSON be known as such.
pub(super) fn known(pg: &Type) -> Arc<ScalarUDF> {
    let (name, making) = match *pg {
        Type::JSONB => ("as_jsonb", Making::KnownNormal),
        _ => ("as_json", Making::Known),
    };
    let signature = Signature::any(1, Volatility::Stable);
    Arc::new(ScalarUDF::new_from_impl(Json { name, making, signature }))
}

fn one_form(name: &'static str, making: Making) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Json { name, making, signature }))
}

/// `named_struct`, which does not forget what its members are: JSON is nested as it is.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Row(NamedStructFunc);

impl ScalarUDFImpl for Row {
    fn name(&self) -> &str {
        "json_row"
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let values = args.arg_fields;
        let row = self.0.return_field_from_args(args)?;
        let DataType::Struct(members) = row.data_type() else { return Ok(row) };
        let values = values.iter().skip(1).step_by(2);
        let members = members
            .iter()
            .zip(values)
            .map(|(member, value)| member.as_ref().clone().with_metadata(value.metadata().clone()));
        let kind = DataType::Struct(members.collect());
        Ok(Arc::new(Field::new(self.name(), kind, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.0.invoke_with_args(args)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    name: &'static str,
    making: Making,
    signature: Signature,
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.field()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let style =
            TextStyle { time_zone: session_zone(&args.config_options), ..TextStyle::default() };
        let made = self.made(&args.arg_fields, &arrays, rows, &style)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(Arc::new(made)),
        })
    }
}

impl Json {
    fn field(&self) -> Field {
        let field = Field::new(self.name, DataType::Utf8View, true);
        match self.making {
            // They are gathered as texts, whose arrays the engine has aggregates for.
            Making::Item | Making::Member | Making::Comparable | Making::Order => field,
            Making::Normal | Making::ReadNormal | Making::KnownNormal => {
                of_json_type(field, &Type::JSONB)
            }
            _ => of_json_type(field, &Type::JSON),
        }
    }

    fn made(
        &self,
        fields: &[FieldRef],
        arrays: &[ArrayRef],
        rows: usize,
        style: &TextStyle,
    ) -> Result<StringViewArray> {
        let json = |at: usize| encode::json(&fields[at], &arrays[at], style).map_err(failed);
        let all = || (0..arrays.len()).map(json).collect::<Result<Vec<_>>>();
        match self.making {
            Making::Value => json(0),
            Making::Item => {
                // As PostgreSQL has them, rows and arrays begin a line.
                let kind = fields[0].data_type();
                let structured = dimensions(kind) > 0 || matches!(kind, DataType::Struct(_));
                let lead = if structured { "\n " } else { "" };
                self.texts(
                    rows,
                    |row, items| {
                        Ok(Some(match items[0].is_null(row) {
                            true => "null".to_owned(),
                            false => format!("{lead}{}", items[0].value(row)),
                        }))
                    },
                    &all()?,
                )
            }
            Making::Member => {
                let keys = keys(&fields[0], &arrays[0], style)?;
                self.texts(
                    rows,
                    |row, values| {
                        if keys.is_null(row) {
                            return Err(failed(JsonError::NullName));
                        }
                        Ok(Some(member(keys.value(row), &values[0], row)))
                    },
                    &[json(1)?],
                )
            }
            Making::Array => self.gathered(&arrays[0], "[", "]"),
            Making::Object => self.gathered(&arrays[0], "{ ", " }"),
            Making::BuiltArray => self.texts(
                rows,
                |row, values| {
                    let items: Vec<&str> = values.iter().map(|value| shown(value, row)).collect();
                    Ok(Some(format!("[{}]", items.join(", "))))
                },
                &all()?,
            ),
            Making::BuiltObject => self.object(fields, arrays, rows, style),
            // What is in that form already stays so.
            Making::Normal | Making::Checked
                if json_type(&fields[0]) == json_type(&self.field()) =>
            {
                let texts = cast(&arrays[0], &DataType::Utf8View)?;
                Ok(texts.as_string_view().clone())
            }
            Making::Known | Making::KnownNormal => {
                let texts = cast(&arrays[0], &DataType::Utf8View)?;
                Ok(texts.as_string_view().clone())
            }
            Making::Normal
            | Making::Checked
            | Making::Read
            | Making::ReadNormal
            | Making::Comparable
            | Making::Order => {
                let form = match self.making {
                    Making::Normal | Making::ReadNormal => jsonb::normal,
                    Making::Checked | Making::Read => jsonb::checked,
                    Making::Order => jsonb::order,
                    _ => jsonb::comparable,
                };
                let texts = cast(&arrays[0], &DataType::Utf8View)?;
                let texts = texts.as_string_view();
                self.texts(
                    rows,
                    |row, texts| match texts[0].is_null(row) {
                        true => Ok(None),
                        false => form(texts[0].value(row)).map(Some).map_err(failed),
                    },
                    std::slice::from_ref(texts),
                )
            }
        }
    }

    fn object(
        &self,
        fields: &[FieldRef],
        arrays: &[ArrayRef],
        rows: usize,
        style: &TextStyle,
    ) -> Result<StringViewArray> {
        if !arrays.len().is_multiple_of(2) {
            return Err(failed(JsonError::Odd));
        }
        let pairs = (0..arrays.len()).step_by(2).map(|at| {
            let value = encode::json(&fields[at + 1], &arrays[at + 1], style).map_err(failed)?;
            Ok((keys(&fields[at], &arrays[at], style)?, value))
        });
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        self.texts(
            rows,
            |row, _| {
                let members =
                    pairs.iter().enumerate().map(|(at, (keys, values))| match keys.is_null(row) {
                        true => Err(failed(JsonError::NullKey(2 * at + 1))),
                        false => Ok(member(keys.value(row), values, row)),
                    });
                Ok(Some(format!("{{{}}}", members.collect::<Result<Vec<_>>>()?.join(", "))))
            },
            &[],
        )
    }

    /// Lists of texts, each as one text.
    fn gathered(&self, lists: &ArrayRef, open: &str, close: &str) -> Result<StringViewArray> {
        let Some(lists) = lists.as_list_opt::<i32>() else {
            return Ok(StringViewArray::new_null(lists.len()));
        };
        let items = cast(lists.values(), &DataType::Utf8View)?;
        let items = items.as_string_view();
        let offsets = lists.value_offsets();
        self.texts(
            lists.len(),
            |row, items| {
                if lists.is_null(row) {
                    return Ok(None);
                }
                let own = offsets[row] as usize..offsets[row + 1] as usize;
                let bytes: usize = own.clone().map(|at| items[0].value(at).len() + 2).sum();
                if bytes as u64 > LARGEST_VALUE {
                    let (function, bytes) = (self.name.to_owned(), bytes as u64);
                    return Err(failed(TooLarge { function, bytes, limit: LARGEST_VALUE }));
                }
                let mut text = String::with_capacity(bytes + 4);
                text.push_str(open);
                for at in own.clone() {
                    let item = items[0].value(at);
                    match at == own.start {
                        true => text.push_str(item.strip_prefix("\n ").unwrap_or(item)),
                        false => {
                            text.push_str(", ");
                            text.push_str(item);
                        }
                    }
                }
                text.push_str(close);
                Ok(Some(text))
            },
            std::slice::from_ref(items),
        )
    }

    /// A text of each row.
    fn texts(
        &self,
        rows: usize,
        text: impl Fn(usize, &[StringViewArray]) -> Result<Option<String>>,
        of: &[StringViewArray],
    ) -> Result<StringViewArray> {
        let mut texts = StringViewBuilder::with_capacity(rows);
        for row in 0..rows {
            texts.append_option(text(row, of)?);
        }
        Ok(texts.finish())
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Names of members, as texts.
fn keys(field: &FieldRef, array: &ArrayRef, style: &TextStyle) -> Result<StringViewArray> {
    let kind = field.data_type();
    if json_type(field).is_some()
        || dimensions(kind) > 0
        || matches!(kind, DataType::Struct(_) | DataType::Map(..))
    {
        return Err(failed(JsonError::NestedKey));
    }
    if kind.is_null() {
        return Ok(StringViewArray::new_null(array.len()));
    }
    // A truth is written out.
    if *kind == DataType::Boolean {
        let texts = cast(array, &DataType::Utf8)?;
        return Ok(cast(&texts, &DataType::Utf8View)?.as_string_view().clone());
    }
    encode::text(field, array, style).map_err(failed)
}

fn shown(values: &StringViewArray, row: usize) -> &str {
    if values.is_null(row) { "null" } else { values.value(row) }
}

fn member(key: &str, values: &StringViewArray, row: usize) -> String {
    format!("{} : {}", jsonb::quoted(key), shown(values, row))
}
