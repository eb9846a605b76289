//! Table functions.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::Expr;

use super::super::pg_catalog::statics;

pub fn functions() -> Vec<(String, Arc<dyn TableFunctionImpl>)> {
    let keywords: Arc<dyn TableFunctionImpl> = statics::crate_tables().pg_get_keywords.clone();
    let series = (SessionStateDefaults::default_table_functions().into_iter())
        .filter(|function| function.name() == "generate_series")
        .map(|function| {
            let series: Arc<dyn TableFunctionImpl> = Arc::new(Series(function.function().clone()));
            ("generate_series".to_owned(), series)
        });
    series.chain([("pg_get_keywords".to_owned(), keywords)]).collect()
}

/// `generate_series` that takes integers of any width: the engine's own takes `bigint` alone, and
/// many functions of PostgreSQL give `integer`.
#[derive(Debug)]
struct Series(Arc<dyn TableFunctionImpl>);

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let widened: Vec<Expr> = args.exprs().iter().map(widen).collect();
        self.0.call_with_args(TableFunctionArgs::new(&widened, args.session()))
    }
}

fn widen(expr: &Expr) -> Expr {
    let value = match expr {
        Expr::Literal(ScalarValue::Int16(value), _) => value.map(i64::from),
        Expr::Literal(ScalarValue::Int32(value), _) => value.map(i64::from),
        other => return other.clone(),
    };
    Expr::Literal(ScalarValue::Int64(value), None)
}
