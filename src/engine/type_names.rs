//! Types as statements write them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::not_impl_err;
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, TimezoneInfo};

use super::semantics::INTERVAL;
use super::session::Session;

/// The digits behind the second's point that a type is written with.
pub(super) fn digits_of(written: &SqlType) -> Option<u64> {
    match written {
        SqlType::Timestamp(digits, _) | SqlType::Time(digits, _) => *digits,
        SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => digits_of(element),
        _ => None,
    }
}

/// The system's types, and timestamps in microseconds as PostgreSQL has them: the engine's own are
/// in nanoseconds, which reach from 1677 to 2262 only.
#[derive(Debug)]
struct SessionTypes {
    system: Option<Arc<dyn TypePlanner>>,
    zone: Arc<str>,
}

pub(super) fn session_types(session: &Session) -> Option<Arc<dyn TypePlanner>> {
    let system = session.engine().system().type_planner();
    let zone = session.info().settings.time_zone().into();
    Some(Arc::new(SessionTypes { system, zone }))
}

impl TypePlanner for SessionTypes {
    fn plan_type_field(&self, written: &SqlType) -> Result<Option<FieldRef>> {
        let zone = match written {
            SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
                Some(self.zone.clone())
            }
            SqlType::Timestamp(..) => None,
            // Digits of the second are another's to see to: they are no part of the type.
            SqlType::Time(Some(_), zone) => {
                let bare = SqlType::Time(None, *zone);
                let same = matches!(zone, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone);
                let kind = DataType::Time64(TimeUnit::Nanosecond);
                return match same {
                    true => Ok(Some(Arc::new(Field::new("", kind, true)))),
                    false => not_impl_err!("Unsupported SQL type {bare}"),
                };
            }
            SqlType::Interval { .. } => {
                return Ok(Some(Arc::new(Field::new("", INTERVAL, true))));
            }
            other => {
                return self.system.as_ref().map_or(Ok(None), |types| types.plan_type_field(other));
            }
        };
        let kind = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Some(Arc::new(Field::new("", kind, true))))
    }
}
