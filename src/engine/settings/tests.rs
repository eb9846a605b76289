//! Values, defaults and who may change what.

use super::*;

#[test]
fn values_are_checked_and_normalised() {
    for (name, value, expected) in [
        ("statement_timeout", "1500", Ok("1500ms")),
        ("statement_timeout", "2 min", Ok("2min")),
        ("statement_timeout", "0", Ok("0")),
        ("STATEMENT_TIMEOUT", "90s", Ok("90s")),
        ("statement_timeout", "soon", Err(())),
        ("timezone", "europe/vienna", Err(())),
        ("timezone", "Europe/Vienna", Ok("Europe/Vienna")),
        ("timezone", "-5", Ok("Etc/GMT+5")),
        ("datestyle", "iso, dmy", Ok("ISO, DMY")),
        ("datestyle", "SQL", Err(())),
        ("client_encoding", "'utf-8'", Ok("UTF8")),
        ("client_encoding", "LATIN1", Err(())),
        ("extra_float_digits", "3", Ok("3")),
        ("extra_float_digits", "4", Err(())),
        ("my.own", "x", Ok("x")),
        ("nothing", "x", Err(())),
        ("Oribi.distributon", "off", Err(())),
        ("server_version", "16", Err(())),
        ("datafusion.execution.batch_size", "100", Ok("100")),
        ("datafusion.execution.batch_size", "many", Err(())),
        ("datafusion.nothing", "1", Err(())),
    ] {
        let mut settings = Settings::default();
        let result = settings.set(name, value).map(str::to_owned).map_err(drop);
        assert_eq!(result, expected.map(str::to_owned), "{name} = {value}");
    }
}

#[test]
fn reset_returns_to_the_session_default() {
    let mut settings = Settings::default();
    settings.set_default("application_name", "psql", Source::Client).expect("valid");
    settings.set("application_name", "other").expect("valid");
    settings.reset("application_name").expect("known");
    assert_eq!(settings.get("application_name"), Some("psql"));
    assert_eq!(settings.search_path("me"), ["me", "public"]);
    assert_eq!(settings.reset("nothing"), Err(Error::Unknown("nothing".into())));
}

#[test]
fn what_is_set_for_all_is_below_what_is_set_for_one() {
    let mut settings = Settings::default();
    let name = "statement_timeout";
    settings.set_default(name, "1s", Source::Configuration).expect("valid");
    let system = |value: &str| Arc::new(BTreeMap::from([(name.to_owned(), value.to_owned())]));
    assert!(settings.take_system(&system("2s")) && !settings.take_system(&system("2s")));
    assert_eq!((settings.get(name), settings.source(name)), (Some("2s"), Source::System));
    settings.set(name, "5s").expect("valid");
    settings.take_system(&system("3s"));
    assert_eq!(settings.get(name), Some("5s"));
    settings.reset(name).expect("valid");
    assert_eq!(settings.get(name), Some("3s"));
    settings.set_default(name, "4s", Source::Role).expect("valid");
    assert_eq!((settings.get(name), settings.source(name)), (Some("4s"), Source::Role));
    let mut alone = Settings::default();
    alone.set_default(name, "1s", Source::Configuration).expect("valid");
    alone.take_system(&Arc::default());
    assert_eq!(alone.get(name), Some("1s"));
    for (name, expected) in [
        ("role", Err(Error::OfSession("role"))),
        ("oribi.distributon", Err(Error::Unknown("oribi.distributon".to_owned()))),
        ("max_connections", Err(Error::NeedsRestart("max_connections"))),
        ("STATEMENT_TIMEOUT", Ok("10s".to_owned())),
    ] {
        assert_eq!(check_for_all(name, "10s"), expected);
    }
}

#[test]
fn some_settings_are_for_superusers() {
    let mut settings = Settings::default();
    settings.set_fact("is_superuser", "off", Source::Override);
    let denied = Err(Error::Denied("oribi.statement_limit"));
    assert_eq!(settings.set("oribi.Statement_Limit", "0").map(drop), denied);
    assert_eq!(settings.reset("oribi.statement_limit"), denied);
    assert_eq!(settings.set_default("oribi.statement_limit", "0", Source::Client), denied);
    settings.set_default("oribi.statement_limit", "3", Source::Role).expect("the role's own");
    assert_eq!(settings.statement_limit(), Some(3));
    settings.set_fact("is_superuser", "on", Source::Override);
    settings.set("oribi.statement_limit", "0").expect("a superuser");
    assert_eq!(settings.statement_limit(), None);
}

#[test]
fn the_table_is_sorted() {
    let names: Vec<_> = SETTINGS.iter().map(|s| s.name.to_ascii_lowercase()).collect();
    assert!(names.is_sorted());
}
