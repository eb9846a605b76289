//! What files' statistics leave unsaid about NaN.
//!
//! Here NaN is above all other numbers and equal to itself, as in PostgreSQL. The least and the greatest
//! value that a Parquet file tells of a column leave NaN out (the format's `ColumnOrder`), and nothing in
//! the file tells whether there is one. So of floating-point numbers the least value holds, since NaN is not
//! below it, and the greatest one is unknown. The engine knows nothing of that: conditions on such columns
//! are put before it in a form of which it believes no more than what is true.

use std::fmt::{self, Display, Formatter};
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;

/// Forgets what a file's footer cannot know: the greatest of a column's floating-point numbers.
pub(super) fn forget_greatest(statistics: &mut Statistics, schema: &Schema) {
    for (column, field) in statistics.column_statistics.iter_mut().zip(schema.fields()) {
        if field.data_type().is_floating() {
            column.max_value = Precision::Absent;
        }
    }
}

/// Which of a scan's columns may have NaN: floating-point numbers, unless all files tell their greatest one.
/// (Manifests count NaN; see [`forget_greatest`] for the others.)
pub(super) fn may_be_there(config: &FileScanConfig) -> Vec<bool> {
    let files = || config.file_groups.iter().flat_map(|group| group.iter());
    let known = |at: usize| {
        files().all(|file| {
            let columns = file.statistics.as_ref().map(|statistics| &statistics.column_statistics);
            let column = columns.and_then(|columns| columns.get(at));
            column.is_some_and(|column| column.max_value.get_value().is_some_and(is_number))
        })
    };
    let fields = config.file_source().table_schema().table_schema().fields();
    (fields.iter().enumerate())
        .map(|(at, field)| field.data_type().is_floating() && !known(at))
        .collect()
}

/// A condition by which files, and parts of them, can be left out, and only where no row fulfils it. It is
/// true of the same rows. `nan`: see [`may_be_there`].
pub(super) fn guarded(condition: &Arc<dyn PhysicalExpr>, nan: &[bool]) -> Arc<dyn PhysicalExpr> {
    let is_concerned = |column: &Column| nan.get(column.index()).copied().unwrap_or(true);
    if !collect_columns(condition).iter().any(is_concerned) {
        return condition.clone();
    }
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>()
        && let op @ (Operator::And | Operator::Or) = binary.op()
    {
        let (left, right) = (guarded(binary.left(), nan), guarded(binary.right(), nan));
        return Arc::new(BinaryExpr::new(left, *op, right));
    }
    if is_about_null(condition) {
        return condition.clone();
    }
    let opaque = Arc::new(Opaque { inner: condition.clone() });
    match is_of_numbers(condition) {
        // The second part keeps the engine from taking all rows for wanted, for the same reason.
        true => Arc::new(BinaryExpr::new(condition.clone(), Operator::And, opaque)),
        false => opaque,
    }
}

fn is_about_null(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let of_null = condition.downcast_ref::<IsNullExpr>().map(|null| null.arg());
    let of_value = condition.downcast_ref::<IsNotNullExpr>().map(|value| value.arg());
    of_null.or(of_value).is_some_and(|column| column.is::<Column>())
}

/// Whether a comparison of a column with constants is never true of NaN.
fn is_of_numbers(condition: &Arc<dyn PhysicalExpr>) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        return !list.negated()
            && list.expr().is::<Column>()
            && list.list().iter().all(is_constant);
    }
    let Some(binary) = condition.downcast_ref::<BinaryExpr>() else { return false };
    let (left, right) = (binary.left(), binary.right());
    match binary.op() {
        Eq => {
            left.is::<Column>() && is_constant(right) || is_constant(left) && right.is::<Column>()
        }
        Lt | LtEq => left.is::<Column>() && is_constant(right),
        Gt | GtEq => is_constant(left) && right.is::<Column>(),
        _ => false,
    }
}

fn is_constant(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| is_number(literal.value()))
}

fn is_number(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float16(Some(value)) => !value.is_nan(),
        ScalarValue::Float32(Some(value)) => !value.is_nan(),
        ScalarValue::Float64(Some(value)) => !value.is_nan(),
        _ => false,
    }
}

/// A condition that statistics say nothing about.
#[derive(Debug, Eq)]
struct Opaque {
    inner: Arc<dyn PhysicalExpr>,
}

// Derived, they would compare the pointers' types.
impl PartialEq for Opaque {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Hash for Opaque {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Display for Opaque {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Opaque {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.into_iter().next().unwrap_or_else(|| self.inner.clone());
        Ok(Arc::new(Self { inner }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions::lit;

    use super::*;

    /// `f` is a floating-point number, `i` is not.
    fn compare(
        column: &str,
        op: Operator,
        value: impl datafusion::logical_expr::Literal,
    ) -> Arc<dyn PhysicalExpr> {
        let at = if column == "f" { 0 } else { 1 };
        Arc::new(BinaryExpr::new(Arc::new(Column::new(column, at)), op, lit(value)))
    }

    fn shown(condition: &Arc<dyn PhysicalExpr>) -> String {
        let mut conditions = Vec::new();
        for part in
            datafusion::physical_expr::split_conjunction(&guarded(condition, &[true, false]))
        {
            conditions.push(if part.is::<Opaque>() {
                format!("opaque({part})")
            } else {
                part.to_string()
            });
        }
        conditions.join(" & ")
    }

    #[test]
    fn only_what_is_never_true_of_nan_leaves_files_out() {
        let less = compare("f", Operator::Lt, 3.0);
        assert_eq!(shown(&less), "f@0 < 3 & opaque(f@0 < 3)");
        assert_eq!(shown(&compare("f", Operator::Eq, 3.0)), "f@0 = 3 & opaque(f@0 = 3)");
        assert_eq!(shown(&compare("f", Operator::Eq, f64::NAN)), "opaque(f@0 = NaN)");
        assert_eq!(shown(&compare("f", Operator::Gt, 3.0)), "opaque(f@0 > 3)");
        assert_eq!(shown(&compare("f", Operator::NotEq, 3.0)), "opaque(f@0 != 3)");
        let whole = compare("i", Operator::Gt, 3i64);
        assert_eq!(shown(&whole), "i@1 > 3");
        let both: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(whole, Operator::And, less));
        assert_eq!(shown(&both), "i@1 > 3 & f@0 < 3 & opaque(f@0 < 3)");
    }

    #[test]
    fn null_is_counted_whatever_the_numbers_are() {
        let null: Arc<dyn PhysicalExpr> = Arc::new(IsNullExpr::new(Arc::new(Column::new("f", 0))));
        assert_eq!(shown(&null), "f@0 IS NULL");
    }
}
