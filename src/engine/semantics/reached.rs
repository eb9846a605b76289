//! What is within JSON: the operators `->`, `->>`, `#>`, `#>>`, `@>`, `<@`, `?`, `?|` and `?&`, and the functions
//! that look into a value. `jsonb` is text as `json` is, so that one function does for both.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, ListBuilder, StringArray,
    StringViewArray, StringViewBuilder,
};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast,
};
use postgres_types::Type;
use sqlparser::ast::BinaryOperator;

use super::json::JsonError;
use super::json_types::no_operator;
use super::moments::no_function;
use crate::values::jsonb::{self, Error, within};
use crate::values::types::{is_json, is_text, json_type, of_json_type};

/// What is asked of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asked {
    /// A member by its name, or an element by its number.
    At,
    /// What a path leads to, which is an array of texts.
    AtPath,
    /// The same, with each step as an argument.
    AtSteps,
    Kind,
    Length,
    Contains,
    HasAny,
    HasAll,
    /// The elements of an array, as a list.
    Elements,
    /// The names of an object's members, as a list.
    Keys,
    /// Their values.
    Members,
}

/// Functions, what they ask, and whether they give a text.
const FUNCTIONS: &[(&str, Asked, bool)] = &[
    ("json_at", Asked::At, false),
    ("json_text_at", Asked::At, true),
    ("json_at_path", Asked::AtPath, false),
    ("json_text_at_path", Asked::AtPath, true),
    ("json_extract_path", Asked::AtSteps, false),
    ("json_extract_path_text", Asked::AtSteps, true),
    ("jsonb_extract_path", Asked::AtSteps, false),
    ("jsonb_extract_path_text", Asked::AtSteps, true),
    ("json_typeof", Asked::Kind, true),
    ("jsonb_typeof", Asked::Kind, true),
    ("json_array_length", Asked::Length, false),
    ("jsonb_array_length", Asked::Length, false),
    ("json_contains", Asked::Contains, false),
    ("json_has_any", Asked::HasAny, false),
    ("json_has_all", Asked::HasAll, false),
    ("json_array_elements", Asked::Elements, false),
    ("json_array_elements_text", Asked::Elements, true),
    ("jsonb_array_elements", Asked::Elements, false),
    ("jsonb_array_elements_text", Asked::Elements, true),
    ("json_object_keys", Asked::Keys, true),
    ("jsonb_object_keys", Asked::Keys, true),
    ("json_object_values", Asked::Members, false),
    ("json_object_values_text", Asked::Members, true),
];

pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    FUNCTIONS.iter().map(|(name, asked, text)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Reached { name, asked: *asked, text: *text, signature }))
    })
}

fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    functions().find(|function| function.name() == name)
}

/// An operator that looks into JSON, as a call; `None` for any other.
pub(super) fn operator(
    op: &BinaryOperator,
    left: &Expr,
    right: &Expr,
    schema: &DFSchema,
) -> Result<Option<Expr>> {
    use BinaryOperator as B;
    if !matches!(
        op,
        B::Arrow
            | B::LongArrow
            | B::HashArrow
            | B::HashLongArrow
            | B::AtArrow
            | B::ArrowAt
            | B::Question
            | B::QuestionPipe
            | B::QuestionAnd
    ) {
        return Ok(None);
    }
    let text = DataType::Utf8;
    let texts = || DataType::new_list(DataType::Utf8, true);
    // What a parameter is, or a text in quotes, follows from the operator.
    let of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    let may_be_json = |expr: &Expr| is_text(&of(expr)) || of(expr).is_null();
    // What files have as objects is shown as `json`.
    let made;
    let into = matches!(op, B::Arrow | B::LongArrow | B::HashArrow | B::HashLongArrow);
    let left = match into && is_json(&of(left)) {
        true => {
            made = super::json::of_value().call(vec![left.clone()]);
            &made
        }
        false => left,
    };
    let as_of = |expr: &Expr, kind: DataType| match of(expr) == kind {
        true => expr.clone(),
        false => cast(expr.clone(), kind),
    };
    let (name, left, right) = match op {
        // Two texts have no such operators in PostgreSQL.
        B::AtArrow | B::ArrowAt if may_be_json(left) && may_be_json(right) => {
            let (whole, part) = if *op == B::AtArrow { (left, right) } else { (right, left) };
            ("json_contains", whole.clone(), part.clone())
        }
        _ if !may_be_json(left) => return Ok(None),
        B::Arrow | B::LongArrow => {
            let name = if *op == B::Arrow { "json_at" } else { "json_text_at" };
            let key = match of(right) {
                kind if kind.is_integer() => as_of(right, DataType::Int64),
                kind if is_text(&kind) || kind.is_null() => as_of(right, text),
                _ => return no_operator(left, &op.to_string(), right, schema),
            };
            (name, left.clone(), key)
        }
        B::HashArrow | B::HashLongArrow => {
            let name = if *op == B::HashArrow { "json_at_path" } else { "json_text_at_path" };
            (name, left.clone(), as_of(right, texts()))
        }
        B::Question => {
            let keys = datafusion::functions_nested::expr_fn::make_array(vec![as_of(right, text)]);
            ("json_has_any", left.clone(), keys)
        }
        B::QuestionPipe => ("json_has_any", left.clone(), as_of(right, texts())),
        B::QuestionAnd => ("json_has_all", left.clone(), as_of(right, texts())),
        _ => return Ok(None),
    };
    Ok(function(name).map(|function| function.call(vec![left, right])))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Reached {
    name: &'static str,
    asked: Asked,
    text: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Reached {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let texts = DataType::new_list(DataType::Utf8, true);
        // A text stays of its own type, with which it is known to be JSON.
        let text = |kind: &DataType| match kind.is_null() {
            true => DataType::Utf8,
            false => kind.clone(),
        };
        let may_be_text = |kind: &DataType| is_text(kind) || kind.is_null();
        Ok(match (self.asked, types) {
            (Asked::At, [json, key]) if may_be_text(json) && key.is_integer() => {
                vec![text(json), DataType::Int64]
            }
            (Asked::At | Asked::Contains, [json, other])
                if may_be_text(json) && may_be_text(other) =>
            {
                vec![text(json), text(other)]
            }
            (Asked::AtPath | Asked::HasAny | Asked::HasAll, [json, _]) if may_be_text(json) => {
                vec![text(json), texts]
            }
            (Asked::AtSteps, [json, _, ..]) if types.iter().all(may_be_text) => {
                let steps = types[1..].iter().map(|_| DataType::Utf8);
                std::iter::once(text(json)).chain(steps).collect()
            }
            (
                Asked::Kind | Asked::Length | Asked::Elements | Asked::Keys | Asked::Members,
                [json],
            ) if may_be_text(json) => vec![text(json)],
            _ => return no_function(self.name, types),
        })
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.asked {
            Asked::Length => DataType::Int32,
            Asked::Contains | Asked::HasAny | Asked::HasAll => DataType::Boolean,
            Asked::At | Asked::AtPath | Asked::AtSteps | Asked::Kind => DataType::Utf8View,
            Asked::Elements | Asked::Keys | Asked::Members => {
                let item = Field::new_list_field(DataType::Utf8View, true);
                DataType::List(Arc::new(item))
            }
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let kind = self.return_type(&[])?;
        // A part of a value is of the value's type.
        let whole = args.arg_fields.first().and_then(|field| json_type(field));
        let pg = whole.unwrap_or(if self.normal() { Type::JSONB } else { Type::JSON });
        Ok(Arc::new(match kind {
            DataType::List(item) if !self.text => {
                let item = Arc::new(of_json_type(item.as_ref().clone(), &pg));
                Field::new(self.name, DataType::List(item), true)
            }
            kind if is_text(&kind) && !self.text => {
                of_json_type(Field::new(self.name, kind, true), &pg)
            }
            kind => Field::new(self.name, kind, true),
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let Some((json, others)) = arrays.split_first() else {
            return exec_err!("{} takes a value", self.name);
        };
        let json = Values::new(json, args.arg_fields.first(), self.normal())?;
        let given = self.given(&json, others, &args)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&given, 0)?),
            false => ColumnarValue::Array(given),
        })
    }
}

/// Texts that are to be JSON.
struct Values {
    texts: StringViewArray,
    /// Whether somebody has seen that they are.
    known: bool,
}

impl Values {
    /// `normal`: they are to be in `jsonb`'s form.
    fn new(array: &ArrayRef, field: Option<&FieldRef>, normal: bool) -> Result<Self> {
        let texts = cast_array(array, &DataType::Utf8View)?.as_string_view().clone();
        let pg = field.and_then(|field| json_type(field));
        if normal && pg != Some(Type::JSONB) {
            let forms = texts.iter().map(|text| text.map(jsonb::normal).transpose());
            let texts = forms.collect::<std::result::Result<_, _>>().map_err(failed)?;
            return Ok(Self { texts, known: true });
        }
        Ok(Self { texts, known: pg.is_some() })
    }

    fn get(&self, row: usize) -> Result<Option<&str>> {
        if self.texts.is_null(row) {
            return Ok(None);
        }
        let text = self.texts.value(row);
        if !self.known {
            within::check(text).map_err(failed)?;
        }
        Ok(Some(text))
    }

    /// What comes of each of them that there is.
    fn each<'a, T>(
        &'a self,
        mut of: impl FnMut(usize, &'a str) -> Result<Option<T>>,
    ) -> impl Iterator<Item = Result<Option<T>>> {
        (0..self.texts.len()).map(move |row| match self.get(row)? {
            Some(text) => of(row, text),
            None => Ok(None),
        })
    }
}

/// A part of a value, as far as there is one.
type Part<'a> = std::result::Result<Option<&'a str>, Error>;

impl Reached {
    /// Whether it looks into `jsonb` alone.
    fn normal(&self) -> bool {
        self.name.starts_with("jsonb_")
    }

    fn given(
        &self,
        json: &Values,
        others: &[ArrayRef],
        args: &ScalarFunctionArgs,
    ) -> Result<ArrayRef> {
        let second = || match others.first() {
            Some(array) => Ok(array),
            None => exec_err!("{} takes two values", self.name),
        };
        match self.asked {
            Asked::Kind => {
                texts_of(json.each(|_, text| Ok(Some(Cow::Borrowed(within::kind(text))))))
            }
            Asked::Length => {
                let lengths = json.each(|_, text| match within::length(text) {
                    Some(length) => Ok(i32::try_from(length).ok()),
                    None if within::kind(text) == "object" => Err(failed(JsonError::NoArray)),
                    None => Err(failed(JsonError::Scalar)),
                });
                Ok(Arc::new(lengths.collect::<Result<Int32Array>>()?))
            }
            Asked::At => match second()?.as_primitive_opt::<Int64Type>() {
                Some(numbers) => self.parts(json, |row, text| {
                    let number = numbers.is_valid(row).then(|| numbers.value(row));
                    Ok(number.and_then(|number| within::element(text, number)))
                }),
                None => {
                    let names = texts(second()?)?;
                    self.parts(json, |row, text| match names.is_valid(row) {
                        true => within::member(text, names.value(row)),
                        false => Ok(None),
                    })
                }
            },
            Asked::AtPath => {
                let paths = lists(second()?)?;
                self.parts(json, |row, text| {
                    let Some(path) = items(&paths, row) else { return Ok(None) };
                    let steps: Option<Vec<&str>> = path.iter().collect();
                    steps.map_or(Ok(None), |steps| within::at_path(text, &steps))
                })
            }
            Asked::AtSteps => {
                let paths = others.iter().map(texts).collect::<Result<Vec<_>>>()?;
                self.parts(json, |row, text| {
                    let steps =
                        paths.iter().map(|step| step.is_valid(row).then(|| step.value(row)));
                    let steps: Option<Vec<&str>> = steps.collect();
                    steps.map_or(Ok(None), |steps| within::at_path(text, &steps))
                })
            }
            Asked::Contains => {
                let parts = Values::new(second()?, args.arg_fields.get(1), false)?;
                let found = json.each(|row, text| match parts.get(row)? {
                    Some(part) => within::contains(text, part).map(Some).map_err(failed),
                    None => Ok(None),
                });
                Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
            }
            Asked::HasAny | Asked::HasAll => {
                let lists = lists(second()?)?;
                let any = self.asked == Asked::HasAny;
                let found = json.each(|row, text| {
                    let Some(keys) = items(&lists, row) else { return Ok(None) };
                    for key in keys.iter().flatten() {
                        if within::has_key(text, key).map_err(failed)? == any {
                            return Ok(Some(any));
                        }
                    }
                    Ok(Some(!any))
                });
                Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
            }
            Asked::Elements => self.lists(json, args, |text| match within::elements(text) {
                Some(elements) => Ok(elements.map(Cow::Borrowed).collect()),
                None if within::kind(text) == "object" => {
                    Err(failed(JsonError::NoElements("an object")))
                }
                None => Err(failed(JsonError::NoElements("a scalar"))),
            }),
            Asked::Keys | Asked::Members => self.lists(json, args, |text| {
                let members = within::members(text).map_err(failed)?;
                let members = members.ok_or_else(|| failed(JsonError::NoObject(self.name)))?;
                Ok(match self.asked {
                    Asked::Keys => members.into_iter().map(|(name, _)| name).collect(),
                    _ => members.into_iter().map(|(_, value)| Cow::Borrowed(value)).collect(),
                })
            }),
        }
    }

    /// Lists of parts, or of what these are as texts if that is asked for.
    fn lists<'a>(
        &self,
        json: &'a Values,
        args: &ScalarFunctionArgs,
        of: impl Fn(&'a str) -> Result<Vec<Cow<'a, str>>>,
    ) -> Result<ArrayRef> {
        let DataType::List(item) = args.return_field.data_type().clone() else {
            return exec_err!("{} gives lists", self.name);
        };
        let mut lists = ListBuilder::new(StringViewBuilder::new()).with_field(item);
        for list in json.each(|_, text| of(text).map(Some)) {
            let list = list?;
            for part in list.iter().flatten() {
                let text = match self.text && self.asked != Asked::Keys {
                    true => within::as_text(part).map_err(failed)?,
                    false => Some(Cow::Borrowed(part.as_ref())),
                };
                lists.values().append_option(text);
            }
            lists.append(list.is_some());
        }
        Ok(Arc::new(lists.finish()))
    }

    /// Parts of values, or what these are as texts if that is asked for.
    fn parts<'a>(
        &self,
        json: &'a Values,
        of: impl Fn(usize, &'a str) -> Part<'a>,
    ) -> Result<ArrayRef> {
        texts_of(json.each(|row, text| {
            let Some(part) = of(row, text).map_err(failed)? else { return Ok(None) };
            match self.text {
                true => within::as_text(part).map_err(failed),
                false => Ok(Some(Cow::Borrowed(part))),
            }
        }))
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn texts_of<'a>(texts: impl Iterator<Item = Result<Option<Cow<'a, str>>>>) -> Result<ArrayRef> {
    let mut array = StringViewBuilder::new();
    for text in texts {
        array.append_option(text?);
    }
    Ok(Arc::new(array.finish()))
}

fn texts(array: &ArrayRef) -> Result<StringViewArray> {
    Ok(cast_array(array, &DataType::Utf8View)?.as_string_view().clone())
}

fn lists(array: &ArrayRef) -> Result<ListArray> {
    let lists = cast_array(array, &DataType::new_list(DataType::Utf8, true))?;
    Ok(lists.as_list::<i32>().clone())
}

/// The texts of a list; `None` if there is no list.
fn items(lists: &ListArray, row: usize) -> Option<StringArray> {
    lists.is_valid(row).then(|| lists.value(row).as_string::<i32>().clone())
}
