//! Options as a JSON object, and what is wrong with them, by key.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::Value;

/// Reads options. An error tells of which key it is, or at which place the text is no JSON.
pub fn read<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let read = serde_json::from_str::<T>(json);
    // An array would be taken as well: the values in the order of their keys.
    let error = match read {
        Ok(options) if json.trim_start().starts_with('{') => return Ok(options),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let object = match serde_json::from_str(json) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(r#"they are a JSON object, such as {"database": "oribi"}"#.to_owned()),
        Err(error) => return Err(format!("they are no JSON object: {error}")),
    };
    for (key, value) in object {
        let alone = serde_json::Map::from_iter([(key.clone(), value)]);
        if let Err(error) = serde_json::from_value::<T>(Value::Object(alone)) {
            return Err(format!("\"{key}\": {error}"));
        }
    }
    Err(error.map(|error| error.to_string()).unwrap_or_default())
}

/// For `deserialize_with`: settings by name, whose values are text, or numbers and booleans as such.
pub fn settings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let text = |(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(_) | Value::Bool(_) => Ok((name, value.to_string())),
        _ => Err(D::Error::custom(format!("the value of \"{name}\" is neither text nor a number"))),
    };
    values.into_iter().map(text).collect()
}
