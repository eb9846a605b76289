//! Queries that are submitted now and fetched later.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use tokio::runtime::Handle;

use super::super::rows::Value;
use super::super::{Shared, View};
use super::Kind::Text;
use super::{Call, Spec, fail, spec};
use crate::catalog::{External, FileFormat};
use crate::engine::system::SessionInfo;
use crate::query::submitted::{Error, Options, Outcome, Record, State};
use crate::storage;

pub const FUNCTIONS: &[Spec] = &[
    spec("oribi.submit", &[&[Text], &[Text, Text]], "text", submit).volatile(),
    spec("oribi.wait", &[&[Text], &[Text, Text]], "text", wait).volatile(),
    spec("oribi.status", &[&[Text]], "text", status).volatile(),
    spec("oribi.cancel", &[&[Text]], "bool", cancel).volatile(),
];

/// The table function that gives a query's rows.
pub const RESULT: &str = "oribi.result";

/// How long `oribi.wait` waits if it is not told.
const PATIENCE: Duration = Duration::from_secs(60);

/// The store has to be asked. The thread that waits is one of the engine's, which gets another in its
/// place meanwhile.
fn ask<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T> {
    let answer = tokio::task::block_in_place(|| Handle::current().block_on(answer));
    answer.map_err(|error| DataFusionError::External(Box::new(error)))
}

fn submit(call: &Call<'_, '_>) -> Result<Value> {
    let options = match call.args.get(1) {
        Some(Value::Text(text)) => match serde_json::from_str::<Options>(text) {
            Ok(options) => options,
            Err(error) => return refuse(Error::Options(error.to_string())),
        },
        _ => Options::default(),
    };
    let session = call.session();
    let submissions = &call.view.shared.submissions;
    let id = submissions.submit(&session.user, &session.database, call.text(0), options);
    Ok(ask(id)?.into())
}

fn refuse(error: Error) -> Result<Value> {
    Err(DataFusionError::External(Box::new(error)))
}

/// The query, if the role may know of it.
fn visible(view: &View<'_>, id: &str) -> Result<Record> {
    ask(view.shared.submissions.visible(id, |user| view.may_look_at(user)))
}

fn status(call: &Call<'_, '_>) -> Result<Value> {
    Ok(visible(call.view, call.text(0))?.state.as_str().into())
}

fn wait(call: &Call<'_, '_>) -> Result<Value> {
    let id = call.text(0);
    visible(call.view, id)?;
    let limit = match call.args.get(1) {
        Some(Value::Text(text)) => match humantime::parse_duration(text) {
            Ok(limit) => limit,
            Err(_) => return fail(format!("\"{text}\" is not a time such as \"10s\"")),
        },
        _ => PATIENCE,
    };
    let record = ask(call.view.shared.submissions.wait(id, limit))?;
    Ok(record.state.as_str().into())
}

fn cancel(call: &Call<'_, '_>) -> Result<Value> {
    let id = call.text(0);
    let record = visible(call.view, id)?;
    let access = call.view.access();
    if !access.has_role(&record.user) && !access.has_role("pg_signal_backend") {
        return refuse(Error::Denied(id.to_owned()));
    }
    Ok(ask(call.view.shared.submissions.cancel(id))?.into())
}

/// The rows of a query that has succeeded.
#[derive(Debug)]
pub struct QueryResult(pub Arc<Shared>);

impl TableFunctionImpl for QueryResult {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let id = match args.exprs() {
            [Expr::Literal(value, _)] => match value {
                ScalarValue::Utf8(Some(id))
                | ScalarValue::Utf8View(Some(id))
                | ScalarValue::LargeUtf8(Some(id)) => id,
                _ => return plan_err!("{RESULT} takes the id of a query"),
            },
            _ => return plan_err!("{RESULT} takes the id of a query, as a constant"),
        };
        let view = View::new(SessionInfo::of(args.session().config_options())?, &self.0);
        let record = visible(&view, id)?;
        let none = |what: String| {
            let error = Error::NoResult { id: id.clone(), what };
            Err(DataFusionError::External(Box::new(error)))
        };
        match (record.state, record.outcome, record.error) {
            (State::Succeeded, Some(Outcome { location: Some(location), columns, .. }), _) => {
                let external = External {
                    location,
                    format: FileFormat::Parquet,
                    partition_columns: Vec::new(),
                    options: Default::default(),
                };
                storage::open(args.session(), &columns, &external)
                    .map_err(|error| DataFusionError::External(Box::new(error)))
            }
            (State::Succeeded, Some(outcome), _) => {
                none(format!("has no rows: it came to {}", outcome.tag))
            }
            (_, _, Some(error)) => none(format!("has failed: {}", error.message)),
            (state, _, _) => none(format!("is {}", state.as_str())),
        }
    }
}
