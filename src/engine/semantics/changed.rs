//! What changes `jsonb`: the operators `||`, `-` and `#-`, and functions such as `jsonb_set`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringArray, StringViewArray,
    StringViewBuilder,
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

use super::TooLarge;
use super::bounded::LARGEST_STEP;
use super::json_types::{json_of, no_operator, parameter_as};
use super::moments::no_function;
use super::operators::is_constant_text;
use crate::values::jsonb::change::{self, Deed};
use crate::values::jsonb::{self, within};
use crate::values::types::{dimensions, is_text, of_json_type};

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Change {
    Concat,
    /// Without members of a name, or of several, or without an element.
    Delete,
    DeletePath,
    Set,
    Insert,
    StripNulls,
    /// The same of `json`.
    StripJson,
    Pretty,
}

const FUNCTIONS: &[(&str, Change)] = &[
    ("jsonb_concat", Change::Concat),
    ("jsonb_delete", Change::Delete),
    ("jsonb_delete_path", Change::DeletePath),
    ("jsonb_set", Change::Set),
    ("jsonb_insert", Change::Insert),
    ("jsonb_strip_nulls", Change::StripNulls),
    ("json_strip_nulls", Change::StripJson),
    ("jsonb_pretty", Change::Pretty),
];

pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    FUNCTIONS.iter().map(|(name, change)| function(name, *change))
}

fn function(name: &'static str, change: Change) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Changed { name, change, signature }))
}

/// An operator that changes `jsonb`, as a call; `None` for any other.
///
/// # Errors
/// There is no such operator of these types.
pub(super) fn operator(
    op: &BinaryOperator,
    left: &Expr,
    right: &Expr,
    schema: &DFSchema,
) -> Result<Option<Expr>> {
    match op {
        BinaryOperator::StringConcat => concat(left, right, schema),
        BinaryOperator::Minus => minus(left, right, schema),
        BinaryOperator::HashMinus => {
            let of_jsonb = json_of(left, schema) == Some(Type::JSONB);
            if !of_jsonb && !has_no_type(left, schema) {
                return no_operator(left, "#-", right, schema);
            }
            let texts = DataType::new_list(DataType::Utf8, true);
            let path = match right.get_type(schema) {
                Ok(kind) if kind == texts => right.clone(),
                _ => cast(right.clone(), texts),
            };
            let delete = function("jsonb_delete_path", Change::DeletePath);
            Ok(Some(delete.call(vec![left.clone(), path])))
        }
        _ => Ok(None),
    }
}

/// Whether it is a text in quotes, NULL or a parameter, whose type follows from what stands beside it.
fn has_no_type(expr: &Expr, schema: &DFSchema) -> bool {
    is_constant_text(expr) || expr.get_type(schema).map_or(true, |kind| kind.is_null())
}

/// `||` of which a side is JSON. What is `jsonb` beside a text is a text to PostgreSQL as well.
///
/// # Errors
/// There is no such operator of these types.
pub(super) fn concat(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (of_left, of_right) = (json_of(left, schema), json_of(right, schema));
    let other = match (&of_left, &of_right) {
        (None, None) => return Ok(None),
        (Some(Type::JSONB), Some(Type::JSONB)) => None,
        (Some(_), Some(_)) => return no_operator(left, "||", right, schema),
        (Some(_), None) => Some(right),
        (None, Some(_)) => Some(left),
    };
    let of_jsonb = [&of_left, &of_right].iter().any(|pg| **pg == Some(Type::JSONB));
    if let Some(other) = other {
        let untyped = has_no_type(other, schema);
        let text = other.get_type(schema).is_ok_and(|kind| is_text(&kind));
        if !untyped && !text {
            return no_operator(left, "||", right, schema);
        }
        if !untyped || !of_jsonb {
            return Ok(None);
        }
    }
    let concat = function("jsonb_concat", Change::Concat);
    let sides = [left, right].map(|side| parameter_as(side.clone(), &Type::JSONB));
    Ok(Some(concat.call(sides.into())))
}

fn minus(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let Some(pg) = json_of(left, schema) else { return Ok(None) };
    let kind = right.get_type(schema).unwrap_or(DataType::Null);
    let texts = DataType::new_list(DataType::Utf8, true);
    let what = match &kind {
        _ if pg != Type::JSONB => None,
        kind if kind.is_null() => Some(DataType::Utf8),
        kind if is_text(kind) => Some(kind.clone()),
        kind if kind.is_integer() => Some(DataType::Int64),
        DataType::List(item) if is_text(item.data_type()) => Some(texts),
        _ => None,
    };
    let Some(what) = what else { return no_operator(left, "-", right, schema) };
    let right = if kind == what { right.clone() } else { cast(right.clone(), what) };
    Ok(Some(function("jsonb_delete", Change::Delete).call(vec![left.clone(), right])))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Changed {
    name: &'static str,
    change: Change,
    signature: Signature,
}

impl ScalarUDFImpl for Changed {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let texts = || DataType::new_list(DataType::Utf8, true);
        // A text stays of its own type, with which it is known to be JSON.
        let text = |kind: &DataType| match kind.is_null() {
            true => DataType::Utf8,
            false => kind.clone(),
        };
        let may_be_text = |kind: &DataType| is_text(kind) || kind.is_null();
        let may_be_path = |kind: &DataType| may_be_text(kind) || dimensions(kind) == 1;
        Ok(match (self.change, types) {
            (Change::Concat, [left, right]) if may_be_text(left) && may_be_text(right) => {
                vec![text(left), text(right)]
            }
            (Change::Delete, [json, what]) if may_be_text(json) => match what {
                what if may_be_text(what) => vec![text(json), text(what)],
                what if what.is_integer() => vec![text(json), DataType::Int64],
                what if dimensions(what) == 1 => vec![text(json), texts()],
                _ => return no_function(self.name, types),
            },
            (Change::DeletePath, [json, path]) if may_be_text(json) && may_be_path(path) => {
                vec![text(json), texts()]
            }
            (Change::Set | Change::Insert, [json, path, new, rest @ ..])
                if may_be_text(json)
                    && may_be_path(path)
                    && may_be_text(new)
                    && rest.len() <= 1 =>
            {
                let mut wanted = vec![text(json), texts(), text(new)];
                wanted.extend(rest.iter().map(|_| DataType::Boolean));
                wanted
            }
            (Change::StripNulls | Change::StripJson | Change::Pretty, [json])
                if may_be_text(json) =>
            {
                vec![text(json)]
            }
            _ => return no_function(self.name, types),
        })
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        let field = Field::new(self.name, DataType::Utf8View, true);
        Ok(Arc::new(match self.change {
            Change::Pretty => field,
            Change::StripJson => of_json_type(field, &Type::JSON),
            _ => of_json_type(field, &Type::JSONB),
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let changed = self.changed(&arrays, rows)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&changed, 0)?),
            false => ColumnarValue::Array(Arc::new(changed)),
        })
    }
}

impl Changed {
    fn changed(&self, arrays: &[ArrayRef], rows: usize) -> Result<StringViewArray> {
        let args = Arguments::new(self.name, arrays)?;
        let (mut texts, mut made) = (StringViewBuilder::new(), 0);
        for row in 0..rows {
            if arrays.iter().any(|array| array.is_null(row)) {
                texts.append_null();
                continue;
            }
            let text = self.value(&args, row).map_err(failed)?;
            made += text.len() as u64;
            if made > LARGEST_STEP {
                let (function, bytes) = (self.name.to_owned(), made);
                return Err(failed(TooLarge { function, bytes, limit: LARGEST_STEP }));
            }
            texts.append_value(text);
        }
        Ok(texts.finish())
    }

    fn value(&self, args: &Arguments, row: usize) -> std::result::Result<String, jsonb::Error> {
        let text = args.text(0, row);
        match self.change {
            Change::Concat => change::concat(text, args.text(1, row)),
            Change::Delete => match (&args.number, &args.path) {
                (Some(numbers), _) => change::without_element(text, numbers.value(row)),
                (None, Some(lists)) => {
                    let names = items(lists, row);
                    let names: Vec<&str> = names.iter().flatten().collect();
                    change::without_names(text, &names)
                }
                (None, None) => change::without_names(text, &[args.text(1, row)]),
            },
            Change::DeletePath => self.at_path(args, row, Deed::Delete, ""),
            Change::Set => {
                let deed = if args.flag(row, true) { Deed::Set } else { Deed::Replace };
                self.at_path(args, row, deed, args.text(2, row))
            }
            Change::Insert => {
                let after = args.flag(row, false);
                let deed = if after { Deed::InsertAfter } else { Deed::InsertBefore };
                self.at_path(args, row, deed, args.text(2, row))
            }
            Change::StripNulls => change::without_nulls(text),
            Change::StripJson => {
                within::check(text).and_then(|()| change::json_without_nulls(text))
            }
            Change::Pretty => change::pretty(text),
        }
    }

    fn at_path(
        &self,
        args: &Arguments,
        row: usize,
        deed: Deed,
        new: &str,
    ) -> std::result::Result<String, jsonb::Error> {
        let path = args.path.as_ref().map(|lists| items(lists, row));
        let path: Vec<Option<&str>> = path.iter().flatten().collect();
        change::at_path(args.text(0, row), &path, deed, new)
    }
}

/// The arguments of a call, by their types.
struct Arguments {
    texts: Vec<Option<StringViewArray>>,
    path: Option<ListArray>,
    number: Option<Int64Array>,
    flag: Option<BooleanArray>,
}

impl Arguments {
    fn new(name: &str, arrays: &[ArrayRef]) -> Result<Self> {
        let mut args = Self { texts: Vec::new(), path: None, number: None, flag: None };
        for array in arrays {
            let mut text = None;
            match array.data_type() {
                kind if is_text(kind) => {
                    let array = cast_array(array, &DataType::Utf8View)?;
                    text = Some(array.as_string_view().clone());
                }
                DataType::List(_) => {
                    let texts = cast_array(array, &DataType::new_list(DataType::Utf8, true))?;
                    args.path = Some(texts.as_list::<i32>().clone());
                }
                DataType::Int64 => args.number = Some(array.as_primitive::<Int64Type>().clone()),
                DataType::Boolean => args.flag = Some(array.as_boolean().clone()),
                other => return exec_err!("{name} takes no {other}"),
            }
            args.texts.push(text);
        }
        Ok(args)
    }

    /// A value that is there.
    fn text(&self, at: usize, row: usize) -> &str {
        self.texts.get(at).and_then(Option::as_ref).map_or("", |texts| texts.value(row))
    }

    fn flag(&self, row: usize, otherwise: bool) -> bool {
        self.flag.as_ref().map_or(otherwise, |flags| flags.value(row))
    }
}

fn items(lists: &ListArray, row: usize) -> StringArray {
    lists.value(row).as_string::<i32>().clone()
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
