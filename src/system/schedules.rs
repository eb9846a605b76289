//! `system.schedules`: queries that the cluster submits again and again. Each role sees its own.

use std::time::SystemTime;

use arrow::array::RecordBatch;
use chrono::Utc;
use datafusion::error::{DataFusionError, Result};

use super::View;
use super::relations::Relation;
use super::rows::Rows;
use crate::query::schedules::Error;

const COLUMNS: &[&str] = &[
    "name",
    "cron",
    "time_zone",
    "sql",
    "user",
    "database",
    "enabled",
    "missed",
    "overlap",
    "next_run",
    "last_run",
    "last_query",
    "last_state",
    "error",
];

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let failed = |error: Error| DataFusionError::External(Box::new(error));
    let schedules = view.schedules();
    let now = Utc::now();
    let mut rows = Rows::new(relation, COLUMNS);
    for (name, record) in schedules.all().await.map_err(failed)? {
        if !view.has_role_of(&record.user, record.owner) {
            continue;
        }
        let role = view.snapshot.role_of(&record.user, record.owner);
        let error = role.is_none().then(|| {
            format!(
                "role \"{}\", whose rights it has, does not exist any more: it runs nothing",
                record.user
            )
        });
        let state = schedules.last_state(&record).await.map_err(failed)?;
        let next = record.next(now).filter(|_| role.is_some()).map(SystemTime::from);
        let user = role.map_or(record.user, |role| role.name.clone());
        let (time, query) = record.last.map(|last| (last.time.into(), last.query)).unzip();
        let time: Option<SystemTime> = time;
        rows.push([
            name.into(),
            record.cron.into(),
            record.time_zone.into(),
            record.sql.into(),
            user.into(),
            record.database.into(),
            record.enabled.into(),
            record.missed.as_str().into(),
            record.overlap.as_str().into(),
            next.into(),
            time.into(),
            query.into(),
            state.map(|state| state.as_str().to_owned()).into(),
            error.into(),
        ]);
    }
    rows.finish()
}
