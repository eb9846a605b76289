//! Sizes, addresses and other sessions.

use std::net::SocketAddr;
use std::time::Duration;

use datafusion::common::DataFusionError;
use datafusion::error::Result;
use futures::FutureExt;
use rustix::process::{Signal as ProcessSignal, getpid, kill_process};

use super::super::rows::Value;
use super::super::{Signal, history};
use super::Kind::{Any, Bool, Float, Int, Text};
use super::submitted::may_write;
use super::{Asked, Call, Given, Spec, asking, fail, plain, spec};
use crate::catalog;

pub const FUNCTIONS: &[Spec] = &[
    spec("pg_is_in_recovery", &[&[]], "bool", no),
    spec("pg_is_wal_replay_paused", &[&[]], "bool", no),
    spec("pg_jit_available", &[&[]], "bool", no),
    spec("pg_is_other_temp_schema", &[&[Int]], "bool", no),
    spec("pg_postmaster_start_time", &[&[]], "timestamptz", started),
    spec("pg_conf_load_time", &[&[]], "timestamptz", started),
    spec("inet_server_addr", &[&[]], "inet", server_address),
    spec("inet_server_port", &[&[]], "int4", server_port),
    spec("inet_client_addr", &[&[]], "inet", client_address),
    spec("inet_client_port", &[&[]], "int4", client_port),
    asking("pg_cancel_backend", &[&[Int]], "bool", |asked| cancel(asked).boxed()),
    asking("pg_terminate_backend", &[&[Int], &[Int, Int]], "bool", |asked| {
        terminate(asked).boxed()
    }),
    asking("oribi.profile", &[&[Text]], "text", |asked| profile(asked).boxed()).named(&["id"]),
    asking("oribi.drain", &[&[Text]], "bool", |asked| drain(asked).boxed()).named(&["daemon"]),
    asking("pg_sleep", &[&[Float]], "void", |asked| sleep(asked).boxed()),
    spec("pg_advisory_unlock_all", &[&[]], "void", nothing).volatile(),
    spec("pg_encoding_to_char", &[&[Int]], "name", encoding_name),
    spec("pg_char_to_encoding", &[&[Text]], "int4", encoding_number),
    // Files lie where others write them: nobody here knows their size without looking.
    spec("pg_table_size", &[&[Any]], "int8", null),
    spec("pg_relation_size", &[&[Any], &[Any, Text]], "int8", null),
    spec("pg_total_relation_size", &[&[Any]], "int8", null),
    spec("pg_indexes_size", &[&[Any]], "int8", null),
    spec("pg_database_size", &[&[Any]], "int8", null),
    spec("pg_tablespace_size", &[&[Any]], "int8", null),
    spec("pg_tablespace_location", &[&[Int]], "text", empty),
    plain("pg_size_pretty", &[&[Int], &[Float]], "text", pretty),
    spec("pg_stat_get_numscans", &[&[Int]], "int8", zero),
    spec("age", &[&[Int]], "int4", zero),
    spec("mxid_age", &[&[Int]], "int4", zero),
    spec("pg_stat_file", &[&[Text], &[Text, Bool]], "text", null),
];

/// The plan of a statement that has ended, with what each step has measured, if it is kept and the
/// role may look at it.
async fn profile(asked: Asked<'_>) -> Result<Value> {
    let found = history::profile(asked.shared, asked.text(0)).await;
    let view = asked.view();
    let visible = found.filter(|profile| view.may_look_at(&profile.user, profile.owner));
    let superuser = view.access().is_superuser();
    let text = visible.map(|profile| if superuser { profile.full } else { profile.plain });
    Ok(text.into())
}

/// Has this daemon do what SIGTERM has it do: finish what runs, take nothing new, and end. Its name has
/// to be given, so that nobody drains another one than is meant.
async fn drain(asked: Asked<'_>) -> Result<Value> {
    may_write(&asked, "oribi.drain")?;
    if !asked.view().access().is_superuser() {
        let message = "permission denied for function oribi.drain: superusers only".to_owned();
        return Err(DataFusionError::External(Box::new(catalog::Error::Forbidden(message))));
    }
    let (wanted, own) = (asked.text(0), asked.shared.own_id());
    if wanted == own {
        return match kill_process(getpid(), ProcessSignal::TERM) {
            Ok(()) => Ok(true.into()),
            Err(error) => fail(format!("the daemon cannot be signalled: {error}")),
        };
    }
    match asked.shared.cluster.daemons().into_iter().find(|daemon| daemon.id == wanted) {
        Some(other) => fail(format!(
            "this is daemon \"{own}\", and each drains only itself: connect to \"{wanted}\" at {}",
            other.postgres.unwrap_or_default()
        )),
        None => fail(format!("there is no daemon \"{wanted}\": system.daemons lists them")),
    }
}

fn no(_: &Call<'_, '_>) -> Result<Value> {
    Ok(false.into())
}

fn null(_: &Call<'_, '_>) -> Result<Value> {
    Ok(Value::Null)
}

fn zero(_: &Call<'_, '_>) -> Result<Value> {
    Ok(0.into())
}

fn empty(_: &Call<'_, '_>) -> Result<Value> {
    Ok("".into())
}

fn nothing(_: &Call<'_, '_>) -> Result<Value> {
    Ok("".into())
}

fn started(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.view.shared.started.into())
}

fn server_address(call: &Call<'_, '_>) -> Result<Value> {
    Ok(addresses(call).1.map(|server| server.ip().to_canonical().to_string()).into())
}

fn server_port(call: &Call<'_, '_>) -> Result<Value> {
    Ok(addresses(call).1.map(|server| i32::from(server.port())).into())
}

fn client_address(call: &Call<'_, '_>) -> Result<Value> {
    Ok(addresses(call).0.map(|client| client.ip().to_canonical().to_string()).into())
}

fn client_port(call: &Call<'_, '_>) -> Result<Value> {
    Ok(addresses(call).0.map(|client| i32::from(client.port())).into())
}

fn addresses(call: &Call<'_, '_>) -> (Option<SocketAddr>, Option<SocketAddr>) {
    call.view.shared.backends.addresses(call.session().pid)
}

async fn cancel(asked: Asked<'_>) -> Result<Value> {
    signal(asked, Signal::Cancel).await
}

async fn terminate(asked: Asked<'_>) -> Result<Value> {
    let timeout = match u64::try_from(asked.int(1)) {
        Ok(0) => None,
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => return fail("\"timeout\" must not be negative"),
    };
    signal(asked, Signal::Terminate(timeout)).await
}

/// For so many seconds, or until its statement is stopped.
async fn sleep(asked: Asked<'_>) -> Result<Value> {
    if let Some(Value::Float(seconds)) = asked.args.first()
        && *seconds > 0.0
    {
        let time = Duration::try_from_secs_f64(*seconds).unwrap_or(Duration::MAX);
        tokio::time::sleep(time).await;
    }
    Ok("".into())
}

/// Another daemon may have to be asked.
async fn signal(asked: Asked<'_>, signal: Signal) -> Result<Value> {
    if asked.session.settings.only_reads() {
        super::submitted::may_write(&asked, "pg_cancel_backend or pg_terminate_backend")?;
    }
    let Ok(pid) = i32::try_from(asked.int(0)) else {
        return fail("integer out of range");
    };
    Ok(asked.shared.backends.signal(asked.session, pid, signal).await?.into())
}

/// PostgreSQL's encodings that matter here.
const ENCODINGS: &[(i64, &str)] = &[(0, "SQL_ASCII"), (6, "UTF8")];

fn encoding_name(call: &Call<'_, '_>) -> Result<Value> {
    let found = ENCODINGS.iter().find(|(number, _)| *number == call.int(0));
    Ok(found.map_or("", |(_, name)| name).into())
}

fn encoding_number(call: &Call<'_, '_>) -> Result<Value> {
    let wanted = call.text(0).replace('-', "");
    let found = ENCODINGS.iter().find(|(_, name)| name.eq_ignore_ascii_case(&wanted));
    Ok(Value::Int(found.map_or(-1, |(number, _)| *number)))
}

fn pretty(call: &Given<'_>) -> Result<Value> {
    let size = match call.args[0] {
        Value::Int(size) => size,
        Value::Float(size) => size as i64,
        _ => return Ok(Value::Null),
    };
    Ok(pretty_size(size).into())
}

/// As PostgreSQL writes sizes: a unit changes to the next at ten times its size, rounded half up.
fn pretty_size(size: i64) -> String {
    const LIMIT: u64 = 10 * 1024;
    let sign = if size < 0 { "-" } else { "" };
    let size = size.unsigned_abs();
    if size < LIMIT {
        return format!("{sign}{size} bytes");
    }
    let mut halves = size >> 9;
    for unit in ["kB", "MB", "GB", "TB"] {
        if halves < LIMIT * 2 - 1 {
            return format!("{sign}{} {unit}", halves.div_ceil(2));
        }
        halves >>= 10;
    }
    format!("{sign}{} PB", halves.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::pretty_size;

    /// Against PostgreSQL 15's own answers.
    #[test]
    fn sizes_are_written_as_in_postgresql() {
        for (size, expected) in [
            (0, "0 bytes"),
            (10239, "10239 bytes"),
            (10240, "10 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1_000_000_000, "954 MB"),
            (-20_000, "-20 kB"),
            (i64::MAX, "8192 PB"),
        ] {
            assert_eq!(pretty_size(size), expected, "{size}");
        }
    }
}
