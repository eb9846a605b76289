//! What goes along with the parts of a statement: the build that understands them, and the settings
//! under which they mean what they meant here, and the memory that they may use.

use std::collections::BTreeMap;

use datafusion::common::{config_datafusion_err, config_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::memory::Bound;
use crate::engine::settings::Settings;

/// The header with the build.
pub(super) const BUILD: HeaderName = HeaderName::from_static("oribi-build");

/// The header with the rest: JSON, percent-encoded.
const SETTINGS: HeaderName = HeaderName::from_static("oribi-settings");

/// What all parts of a statement have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Travel {
    /// The engine's settings that differ from the daemons' own, by name.
    pub settings: BTreeMap<String, String>,
    /// Of this attempt at it.
    pub statement: Uuid,
    /// What the statement is called where its client is.
    pub query: Uuid,
    /// The memory that it is held to on each daemon.
    pub bound: Option<Bound>,
}

impl Travel {
    /// With the settings of a session.
    pub fn of(settings: &Settings) -> Self {
        let options = settings.engine_options();
        let mut all: BTreeMap<_, _> =
            options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let zone = "datafusion.execution.time_zone".to_owned();
        all.insert(zone, settings.time_zone().to_owned());
        Self { settings: all, ..Self::default() }
    }

    pub fn headers(&self, build: &str) -> Result<HeaderMap> {
        let unfit = |error| config_datafusion_err!("settings cannot travel: {error}");
        let text = serde_json::to_vec(self)
            .map_err(|error| config_datafusion_err!("settings cannot travel: {error}"))?;
        let text = String::from_utf8_lossy(&text);
        let text = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(BUILD, HeaderValue::from_str(build).map_err(unfit)?);
        headers.insert(SETTINGS, HeaderValue::from_str(&text).map_err(unfit)?);
        Ok(headers)
    }

    pub fn read(headers: &HeaderMap) -> Result<Self> {
        let Some(value) = headers.get(SETTINGS) else {
            return config_err!("there are no settings with a part of a statement");
        };
        let text: Vec<u8> = percent_decode(value.as_bytes()).collect();
        serde_json::from_slice(&text)
            .map_err(|error| config_datafusion_err!("settings are not readable: {error}"))
    }

    pub fn apply(&self, options: &mut ConfigOptions) -> Result<()> {
        self.settings.iter().try_for_each(|(name, value)| options.set(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_arrive_as_they_left() {
        let settings = BTreeMap::from([
            ("datafusion.execution.time_zone".to_owned(), "Europe/Zürich, \"x\"\n".to_owned()),
            ("datafusion.execution.batch_size".to_owned(), "17".to_owned()),
        ]);
        let (statement, bound) = (Uuid::from_u128(7), Some(Bound::of_pool(1 << 20, "Größe 1")));
        let sent = Travel { settings, statement, query: Uuid::from_u128(8), bound };
        let headers = sent.headers("abc").expect("headers");
        assert_eq!(headers.get(BUILD).map(|value| value.as_bytes()), Some(&b"abc"[..]));
        let arrived = Travel::read(&headers).expect("settings");
        assert_eq!(arrived, sent);
        let mut options = ConfigOptions::new();
        arrived.apply(&mut options).expect("valid");
        assert_eq!(options.execution.batch_size.get(), 17);
        assert!(Travel::read(&HeaderMap::new()).is_err());
    }
}
