//! A string in quotes that is compared with a `uuid` is one: the engine has no common type for them. And
//! what is chosen among uuids is one, which the engine forgets.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl,
    Signature, Volatility,
};
use postgres_types::Type;

use crate::values::types::{parameter, pg_type};

/// A comparison with a `uuid`, with what is compared with it read as one.
pub(super) fn with_uuids(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let (of_left, of_right) = (uuid(&left, schema), uuid(&right, schema));
            let (left, right) = (read(*left, of_right.as_ref()), read(*right, of_left.as_ref()));
            let changed = left.transformed || right.transformed;
            let (left, right) = (Box::new(left.data), Box::new(right.data));
            Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed)
        }
        Expr::InList(InList { expr, list, negated }) => {
            let field = uuid(&expr, schema);
            let list = list.into_iter().map(|item| read(item, field.as_ref()).data).collect();
            let list = Expr::InList(InList { expr, list, negated });
            Transformed::new_transformed(list, field.is_some())
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let field = uuid(&expr, schema);
            let bound = |bound: Box<Expr>| Box::new(read(*bound, field.as_ref()).data);
            let (low, high) = (bound(low), bound(high));
            let between = Expr::Between(Between { expr, negated, low, high });
            Transformed::new_transformed(between, field.is_some())
        }
        other => Transformed::no(other),
    }
}

/// `as_uuid(x)` is `x`, of sixteen bytes, as a `uuid`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AsUuid {
    signature: Signature,
}

impl Default for AsUuid {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AsUuid {
    fn name(&self) -> &str {
        "as_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeBinary(16))
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let plain = || Arc::new(Field::new("as_uuid", DataType::FixedSizeBinary(16), true));
        Ok(parameter(&Type::UUID).unwrap_or_else(plain))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => value.cast_to(&DataType::FixedSizeBinary(16), None),
            None => exec_err!("as_uuid takes a value"),
        }
    }
}

/// The field of an expression that is a `uuid`.
pub(super) fn uuid(expr: &Expr, schema: &DFSchema) -> Option<FieldRef> {
    let (_, field) = expr.to_field(schema).ok()?;
    (pg_type(&field) == Type::UUID).then_some(field)
}

/// A string in quotes as a `uuid`.
fn read(expr: Expr, field: Option<&FieldRef>) -> Transformed<Expr> {
    match (&expr, field) {
        (Expr::Literal(value, _), Some(field)) if value.try_as_str().is_some() => {
            let (expr, field) = (Box::new(expr), field.clone());
            Transformed::yes(Expr::Cast(Cast { expr, field }))
        }
        _ => Transformed::no(expr),
    }
}
