//! Queries that are submitted again and again.

use std::time::SystemTime;

use datafusion::common::DataFusionError;
use datafusion::error::Result;
use futures::FutureExt;

use super::super::rows::Value;
use super::Kind::Text;
use super::submitted::may_write;
use super::{Asked, Spec, asking};
use crate::engine::system::SessionInfo;
use crate::query::schedules::{Error, Options, Record, Wish};
use crate::query::submitted::check_settings;

pub const FUNCTIONS: &[Spec] = &[
    asking(
        "oribi.schedule",
        &[&[Text, Text, Text], &[Text, Text, Text, Text]],
        "timestamptz",
        |asked| schedule(asked).boxed(),
    )
    .named(&["name", "cron", "sql", "options"]),
    asking("oribi.unschedule", &[&[Text]], "bool", |asked| unschedule(asked).boxed())
        .named(&["name"]),
];

fn schedule_error(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// When the schedule comes next.
async fn schedule(asked: Asked<'_>) -> Result<Value> {
    may_write(&asked, "oribi.schedule()")?;
    let options = match asked.args.get(3) {
        Some(Value::Text(json)) => json.parse::<Options>().map_err(schedule_error)?,
        _ => Options::default(),
    };
    let SessionInfo { user, database, settings, .. } = asked.session;
    check_settings(&options.settings, settings).map_err(|error| schedule_error(error.into()))?;
    let (name, cron, sql) = (asked.text(0), asked.text(1), asked.text(2));
    let view = asked.view();
    let wish = Wish { name, cron, sql, user, owner: view.own_oid(), database };
    let may = |record: &Record| view.has_role_of(&record.user, record.owner);
    let next = view.schedules().schedule(wish, options, may).await;
    Ok(next.map_err(schedule_error)?.map(SystemTime::from).into())
}

async fn unschedule(asked: Asked<'_>) -> Result<Value> {
    may_write(&asked, "oribi.unschedule()")?;
    let view = asked.view();
    let may = |record: &Record| view.has_role_of(&record.user, record.owner);
    view.schedules().unschedule(asked.text(0), may).await.map_err(schedule_error)?;
    Ok(true.into())
}
