//! Who asks, where, and with which settings.

use datafusion::error::{DataFusionError, Result};

use super::super::rows::Value;
use super::Kind::{Bool, Text};
use super::{Call, Spec, spec};
use crate::catalog;
use crate::engine::objects::Change;
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
    // Rows in PostgreSQL: `rewrite` makes some of it.
    spec("pg_listening_channels", &[&[]], "_text", listening).volatile(),
    spec("pg_notify", &[&[Text, Text]], "void", notify).volatile().nullable(),
    spec("set_config", &[&[Text, Text, Bool]], "text", set_config).volatile().nullable(),
    spec("pg_backend_pid", &[&[]], "int4", pid),
    spec("pg_client_encoding", &[&[]], "name", encoding),
    spec("getdatabaseencoding", &[&[]], "name", encoding),
    spec("pg_my_temp_schema", &[&[]], "oid", zero),
    spec("clock_timestamp", &[&[]], "timestamptz", now).volatile(),
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

fn now(_: &Call<'_, '_>) -> Result<Value> {
    Ok(Value::Time(chrono::Utc::now().timestamp_micros()))
}

fn version(_: &Call<'_, '_>) -> Result<Value> {
    let own = env!("CARGO_PKG_VERSION");
    let (machine, system) = (std::env::consts::ARCH, std::env::consts::OS);
    Ok(format!("PostgreSQL {SERVER_VERSION} (Oribi {own}) on {machine}-{system}, 64-bit").into())
}

/// The schemas of the search path that exist, without the implicit one.
fn existing(call: &Call<'_, '_>) -> Vec<String> {
    let session = call.session();
    let mut path = session.present_settings().search_path(&session.user);
    path.retain(|name| {
        let known =
            call.view.database().is_some_and(|database| database.schemas.contains_key(name));
        known || super::super::relations::is_schema(name)
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

/// A setting as SHOW prints it; `None` for a name nobody has set or defined.
fn present(call: &Call<'_, '_>, name: &str) -> Option<String> {
    let own = call.session().present_settings().get(name).map(str::to_owned);
    // What the session has not set is as the engine has it.
    let engine = || {
        let mut entries = name.starts_with("datafusion.").then(|| call.options.entries())?;
        entries.iter_mut().find(|entry| entry.key == name)?.value.take()
    };
    own.or_else(engine)
}

fn setting(call: &Call<'_, '_>) -> Result<Value> {
    match present(call, call.text(0)) {
        Some(value) => Ok(value.into()),
        None if call.args.get(1) == Some(&Value::Bool(true)) => Ok(Value::Null),
        None => refuse(settings::Error::Unknown(call.text(0).to_owned())),
    }
}

/// The session takes the change over when the statement is complete.
fn set_config(call: &Call<'_, '_>) -> Result<Value> {
    let [Value::Text(name), value, local] = call.args else {
        return refuse(settings::Error::NoName);
    };
    let change = Change {
        name: name.clone(),
        value: value.as_text().map(str::to_owned),
        local: *local == Value::Bool(true),
    };
    let session = call.session();
    let role = change.value.as_deref().filter(|role| name == "role" && *role != "none");
    if let Some(role) = role.filter(|role| !session.may_take(role)) {
        let message = format!("permission denied to set role \"{role}\"");
        return Err(DataFusionError::External(Box::new(catalog::Error::Forbidden(message))));
    }
    match session.objects.changes.note(&session.settings, change) {
        // As PostgreSQL has it, a custom setting that was taken back is an empty text.
        Ok(settings) => Ok(settings.get(name).unwrap_or_default().into()),
        Err(error) => refuse(error),
    }
}

fn listening(call: &Call<'_, '_>) -> Result<Value> {
    let channels = call.session().objects.notes.channels();
    Ok(Value::List(channels.into_iter().map(Value::Text).collect()))
}

/// The session says it when the statement is complete.
fn notify(call: &Call<'_, '_>) -> Result<Value> {
    match call.session().objects.notes.note(call.text(0), call.text(1)) {
        Ok(()) => Ok("".into()),
        Err(error) => Err(DataFusionError::External(Box::new(error))),
    }
}

fn refuse(error: settings::Error) -> Result<Value> {
    Err(DataFusionError::External(Box::new(error)))
}
