//! Table functions.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::Expr;

use super::super::pg_catalog::statics;
use super::super::{Shared, relations, table, zk};

pub fn functions(shared: &Arc<Shared>) -> Vec<(String, Arc<dyn TableFunctionImpl>)> {
    let keywords: Arc<dyn TableFunctionImpl> = statics::crate_tables().pg_get_keywords.clone();
    let zones: Arc<dyn TableFunctionImpl> = Arc::new(TimeZones(shared.clone()));
    let series = (SessionStateDefaults::default_table_functions().into_iter())
        .filter(|function| function.name() == "generate_series")
        .map(|function| {
            let series: Arc<dyn TableFunctionImpl> = Arc::new(Series(function.function().clone()));
            ("generate_series".to_owned(), series)
        });
    let watch: Arc<dyn TableFunctionImpl> = Arc::new(zk::Watching(shared.clone()));
    let named = [("pg_get_keywords", keywords), ("pg_timezone_names", zones), ("zk_watch", watch)];
    series.chain(named.map(|(name, function)| (name.to_owned(), function))).collect()
}

/// The same as the view of this name.
#[derive(Debug)]
struct TimeZones(Arc<Shared>);

impl TableFunctionImpl for TimeZones {
    fn call_with_args(&self, _: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        match relations::find("pg_catalog", "pg_timezone_names") {
            Some(relation) => table::provider(relation, self.0.clone()),
            None => internal_err!("pg_timezone_names is not among the system's relations"),
        }
    }
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
