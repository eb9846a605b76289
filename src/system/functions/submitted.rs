//! Queries that are submitted now and fetched later.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use futures::FutureExt;
use tokio::runtime::Handle;

use super::super::rows::Value;
use super::super::{Shared, View};
use super::Kind::{Interval, Text};
use super::{Asked, Spec, asking};
use crate::engine::system::SessionInfo;
use crate::query::submitted::{Error, Options, Outcome, Record, State, check_settings};
use crate::storage::results::open_result;

pub const FUNCTIONS: &[Spec] = &[
    asking("oribi.submit", &[&[Text], &[Text, Text]], "text", |asked| submit(asked).boxed())
        .named(&["sql", "options"]),
    asking("oribi.wait", &[&[Text], &[Text, Text], &[Text, Interval]], "text", |asked| {
        wait(asked).boxed()
    })
    .named(&["id", "timeout"]),
    asking("oribi.status", &[&[Text]], "text", |asked| status(asked).boxed()).named(&["id"]),
    asking("oribi.record", &[&[Text]], "text", |asked| record(asked).boxed()).named(&["id"]),
    asking("oribi.cancel", &[&[Text]], "bool", |asked| cancel(asked).boxed()).named(&["id"]),
];

/// The table function that gives a query's rows.
pub const RESULT: &str = "oribi_result";

/// How long `oribi.wait` waits if it is not told.
const PATIENCE: Duration = Duration::from_secs(60);

/// Refuses what changes something to a transaction that only reads.
pub(super) fn may_write(asked: &Asked<'_>, function: &'static str) -> Result<()> {
    match asked.session.settings.read_only() {
        true => Err(submission_error(Error::ReadOnly(function))),
        false => Ok(()),
    }
}

fn submission_error(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

async fn submit(asked: Asked<'_>) -> Result<Value> {
    let options = match asked.args.get(1) {
        Some(Value::Text(json)) => json.parse::<Options>().map_err(submission_error)?,
        _ => Options::default(),
    };
    let SessionInfo { user, database, settings, .. } = asked.session;
    if settings.only_reads() {
        may_write(&asked, "oribi.submit()")?;
    }
    check_settings(&options.settings, settings).map_err(submission_error)?;
    let owner = asked.view().own_oid();
    let submissions = &asked.shared.submissions;
    let read_only = settings.read_only();
    let submitted = submissions.submit((user, owner), database, asked.text(0), options, read_only);
    Ok(submitted.await.map_err(submission_error)?.into())
}

/// The query, if the role may know of it.
async fn visible(view: View<'_>, id: &str) -> Result<Record> {
    let record = view
        .shared
        .submissions
        .visible(id, |record| view.may_look_at(&record.user, record.owner))
        .await;
    record.map_err(submission_error)
}

async fn status(asked: Asked<'_>) -> Result<Value> {
    Ok(visible(asked.view(), asked.text(0)).await?.state.as_str().into())
}

/// All that is known of a query, as JSON.
async fn record(asked: Asked<'_>) -> Result<Value> {
    let id = asked.text(0);
    let view = asked.view();
    let mut record = visible(asked.view(), id).await?;
    if !view.has_role_of(&record.user, record.owner) {
        record.outcome.iter_mut().for_each(|outcome| outcome.rows = None);
    }
    let json = serde_json::to_string(&record)
        .map_err(|source| submission_error(Error::Record { id: id.to_owned(), source }))?;
    Ok(json.into())
}

async fn wait(asked: Asked<'_>) -> Result<Value> {
    let id = asked.text(0);
    visible(asked.view(), id).await?;
    let limit = match asked.args.get(1) {
        Some(Value::Text(text)) => match humantime::parse_duration(text) {
            Ok(limit) => limit,
            Err(_) => {
                let reason = format!("\"{text}\" is not a time such as \"10s\"");
                return Err(submission_error(Error::Options(reason)));
            }
        },
        Some(Value::Int(micros)) => Duration::from_micros(u64::try_from(*micros).unwrap_or(0)),
        _ => PATIENCE,
    };
    let record = asked.shared.submissions.wait(id, limit).await.map_err(submission_error)?;
    Ok(record.state.as_str().into())
}

async fn cancel(asked: Asked<'_>) -> Result<Value> {
    if asked.session.settings.only_reads() {
        may_write(&asked, "oribi.cancel()")?;
    }
    let id = asked.text(0);
    let view = asked.view();
    let may = |record: &Record| {
        let access = view.access();
        let role = view.snapshot.role_of(&record.user, record.owner);
        let superuser = role.is_some_and(|role| role.record.superuser);
        view.has_role_of(&record.user, record.owner)
            || (access.has_role("pg_signal_backend") && !superuser)
    };
    let submissions = &asked.shared.submissions;
    submissions.visible(id, may).await.map_err(submission_error)?;
    Ok(submissions.cancel(id).await.map_err(submission_error)?.into())
}

/// The rows of a query that has succeeded.
#[derive(Debug)]
pub struct QueryResult(pub Arc<Shared>);

impl TableFunctionImpl for QueryResult {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        use ScalarValue::{LargeUtf8, Utf8, Utf8View};
        let [Expr::Literal(Utf8(Some(id)) | Utf8View(Some(id)) | LargeUtf8(Some(id)), _)] =
            args.exprs()
        else {
            return Err(submission_error(Error::NotConstant));
        };
        let view = View::new(SessionInfo::of(args.session().config_options())?, &self.0);
        // One short read, while the statement is planned. The thread is one of the engine's, which
        // gets another in its place meanwhile.
        let record = view
            .shared
            .submissions
            .visible(id, |record| view.has_role_of(&record.user, record.owner));
        let record = tokio::task::block_in_place(|| Handle::current().block_on(record));
        let record = record.map_err(submission_error)?;
        let none = |what| Err(submission_error(Error::NoResult { id: id.clone(), what }));
        match (record.state, record.outcome, record.error) {
            (State::Succeeded, Some(Outcome { location: Some(location), columns, .. }), _) => {
                open_result(args.session(), &columns, &location)
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
