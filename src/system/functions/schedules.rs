//! Queries that are submitted again and again.

use std::time::SystemTime;

use datafusion::common::DataFusionError;
use datafusion::error::Result;
use futures::FutureExt;

use super::super::rows::Value;
use super::Kind::Text;
use super::{Asked, Spec, asking};
use crate::engine::system::SessionInfo;
use crate::query::schedules::{Error, Options, Schedules, Wish};

pub const FUNCTIONS: &[Spec] = &[
    asking(
        "oribi.schedule",
        &[&[Text, Text, Text], &[Text, Text, Text, Text]],
        "timestamptz",
        |asked| schedule(asked).boxed(),
    ),
    asking("oribi.unschedule", &[&[Text]], "bool", |asked| unschedule(asked).boxed()),
];

fn schedule_error(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// When the schedule comes next.
async fn schedule(asked: Asked<'_>) -> Result<Value> {
    let options = match asked.args.get(3) {
        Some(Value::Text(json)) => json.parse::<Options>().map_err(schedule_error)?,
        _ => Options::default(),
    };
    let SessionInfo { user, database, .. } = asked.session;
    let (name, cron, sql) = (asked.text(0), asked.text(1), asked.text(2));
    let wish = Wish { name, cron, sql, user, database };
    let view = asked.view();
    let may = |owner: &str| view.access().has_role(owner);
    let next = Schedules::new(asked.shared.submissions.clone()).schedule(wish, options, may).await;
    Ok(next.map_err(schedule_error)?.map(SystemTime::from).into())
}

async fn unschedule(asked: Asked<'_>) -> Result<Value> {
    let view = asked.view();
    let may = |owner: &str| view.access().has_role(owner);
    let schedules = Schedules::new(asked.shared.submissions.clone());
    schedules.unschedule(asked.text(0), may).await.map_err(schedule_error)?;
    Ok(true.into())
}
