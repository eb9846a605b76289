//! Who asks, where, and with which settings.

use datafusion::error::{DataFusionError, Result};

use super::super::pg_catalog::PRESETS;
use super::super::rows::Value;
use super::Kind::{Bool, Text};
use super::{Call, Spec, fail, spec};
use crate::engine::settings::{self, SERVER_VERSION};

pub const FUNCTIONS: &[Spec] = &[
    spec("current_database", &[&[]], "name", database),
    spec("current_catalog", &[&[]], "name", database),
    spec("current_schema", &[&[]], "name", schema),
    spec("current_schemas", &[&[Bool]], "_name", schemas),
    spec("current_user", &[&[]], "name", user),
    spec("current_role", &[&[]], "name", user),
    spec("session_user", &[&[]], "name", login),
    spec("user", &[&[]], "name", user),
    spec("version", &[&[]], "text", version),
    spec("current_setting", &[&[Text], &[Text, Bool]], "text", setting),
    spec("set_config", &[&[Text, Text, Bool]], "text", set_config).volatile(),
    spec("pg_backend_pid", &[&[]], "int4", pid),
    spec("pg_client_encoding", &[&[]], "name", encoding),
    spec("getdatabaseencoding", &[&[]], "name", encoding),
    spec("pg_my_temp_schema", &[&[]], "oid", zero),
];

fn database(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.session().database.as_ref().into())
}

fn user(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.session().user.as_ref().into())
}

fn login(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.session().login.as_ref().into())
}

fn pid(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.session().pid.into())
}

fn encoding(_: &Call<'_, '_>) -> Result<Value> {
    Ok("UTF8".into())
}

fn zero(_: &Call<'_, '_>) -> Result<Value> {
    Ok(0.into())
}

fn version(_: &Call<'_, '_>) -> Result<Value> {
    let own = env!("CARGO_PKG_VERSION");
    let (machine, system) = (std::env::consts::ARCH, std::env::consts::OS);
    Ok(format!("PostgreSQL {SERVER_VERSION} (Oribi {own}) on {machine}-{system}, 64-bit").into())
}

/// The schemas of the search path that exist, without the implicit one.
fn existing(call: &Call<'_, '_>) -> Vec<String> {
    let session = call.session();
    let mut path = session.settings.search_path(&session.user);
    path.retain(|name| {
        let known =
            call.view.database().is_some_and(|database| database.schemas.contains_key(name));
        known || super::super::relations::schema_oid(name).is_some()
    });
    path
}

fn schema(call: &Call<'_, '_>) -> Result<Value> {
    Ok(existing(call).into_iter().next().into())
}

fn schemas(call: &Call<'_, '_>) -> Result<Value> {
    let path = existing(call);
    let implicit = call.args[0] == Value::Bool(true) && !path.iter().any(|n| n == "pg_catalog");
    let first = implicit.then(|| "pg_catalog".to_owned());
    Ok(Value::List(first.into_iter().chain(path).map(Value::Text).collect()))
}

fn present(call: &Call<'_, '_>, name: &str) -> Option<String> {
    let preset = || PRESETS.iter().find(|(preset, _)| preset.eq_ignore_ascii_case(name));
    let own = call.session().settings.get(name).or_else(|| preset().map(|(_, value)| *value));
    // What the session has not set is as the engine has it.
    let engine = || {
        let mut entries = name.starts_with("datafusion.").then(|| call.options.entries())?;
        entries.iter_mut().find(|entry| entry.key == name)?.value.take()
    };
    own.map(str::to_owned).or_else(engine)
}

fn setting(call: &Call<'_, '_>) -> Result<Value> {
    match present(call, call.text(0)).as_deref() {
        Some(value) => Ok(value.into()),
        None if call.args.get(1) == Some(&Value::Bool(true)) => Ok(Value::Null),
        None => {
            let error = settings::Error::Unknown(call.text(0).to_owned());
            Err(DataFusionError::External(Box::new(error)))
        }
    }
}

/// An expression cannot change its session: that is for whoever runs the statement. What is asked
/// for may be so already, though, as when clients switch off what is never on.
fn set_config(call: &Call<'_, '_>) -> Result<Value> {
    let (name, wanted) = (call.text(0), call.text(1));
    match present(call, name) {
        Some(value) if value.eq_ignore_ascii_case(wanted) => Ok(value.into()),
        _ => fail(format_args!("set_config cannot change \"{name}\" here; use SET")),
    }
}
