//! ALTER SYSTEM, ALTER DATABASE ... SET, ALTER ROLE ... SET: what sessions begin with.

use std::collections::BTreeMap;

use super::{SettingChange, SystemChange, forbidden};
use crate::catalog::ObjectKind;
use crate::cluster::live::Wish;
use crate::engine;
use crate::engine::settings::Settings;
use crate::query::life::Session;
use crate::query::{Error, Notice, Result, live};

impl Session {
    pub(super) async fn alter_system(&mut self, change: &SystemChange) -> Result<Vec<Notice>> {
        self.require(|_, access| match access.is_superuser() {
            true => Ok(()),
            false => Err(forbidden("permission denied: must be superuser to alter the system")),
        })
        .await?;
        let wish = match change {
            SystemChange::Setting(SettingChange::Set { setting, value: Some(value) }) => {
                let value = live::check(setting, value)?;
                Wish::Set(BTreeMap::from([(setting.to_lowercase(), Some(value))]))
            }
            SystemChange::Setting(
                SettingChange::Set { setting, value: None } | SettingChange::Reset(Some(setting)),
            ) => {
                live::check_reset(&self.queries().live.current(), setting)?;
                Wish::Set(BTreeMap::from([(setting.to_lowercase(), None)]))
            }
            SystemChange::Setting(SettingChange::Reset(None)) => Wish::ResetAll,
            SystemChange::Rollback(version) => Wish::Rollback(*version),
        };
        let by = self.user().to_owned();
        let version = self.queries().live.change(&wish, &by).await.map_err(Error::from)?;
        let message = format!("the settings are at version {version}");
        // The session that asks sees what it has done.
        self.take_live();
        Ok(vec![Notice { code: "00000", message }])
    }

    pub(super) async fn alter_database_settings(
        &mut self,
        name: &str,
        change: &SettingChange,
    ) -> Result<Vec<Notice>> {
        let database = self.catalog().database(name).await?;
        self.must_own(&database.record.owner, ObjectKind::Database, name).await?;
        self.may_change(change)?;
        let settings = self.settings().clone();
        let alter = |record: &mut crate::catalog::DatabaseRecord| {
            change.apply(&mut record.settings, &settings);
            Ok(())
        };
        self.catalog().alter_database(name, &[], alter).await?;
        Ok(Vec::new())
    }

    /// Whether the session may change a setting for others; refused now, rather than at each log-in.
    pub(super) fn may_change(&self, change: &SettingChange) -> Result<()> {
        let checked = match change {
            SettingChange::Set { setting, value: Some(value) } => {
                Settings::clone(self.settings()).set(setting, value).map(drop)
            }
            SettingChange::Set { setting, value: None } | SettingChange::Reset(Some(setting)) => {
                self.settings().may_change(setting)
            }
            SettingChange::Reset(None) => Ok(()),
        };
        Ok(checked.map_err(engine::Error::from)?)
    }
}

impl SettingChange {
    /// Changes what a role or a database has set. `present`: of the session that does so.
    pub(super) fn apply(&self, settings: &mut BTreeMap<String, String>, present: &Settings) {
        match self {
            Self::Set { setting, value: Some(value) } => {
                settings.insert(setting.to_lowercase(), value.clone());
            }
            Self::Set { setting, value: None } | Self::Reset(Some(setting)) => {
                settings.remove(&setting.to_lowercase());
            }
            // What is for superusers stays, as in PostgreSQL.
            Self::Reset(None) => settings.retain(|key, _| present.may_change(key).is_err()),
        }
    }
}
