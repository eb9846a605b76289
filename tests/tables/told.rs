//! What errors about values tell of the files that these stand in, and whom.

use crate::common::daemon::{Daemon, Options};
use crate::support::{Client, bounded};

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_read_files_is_told_their_names() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let owner = Client::connect(&daemon).await;
        owner.rows("CREATE TABLE texts (s text, n int)").await;
        owner.rows("INSERT INTO texts VALUES ('1', 1), ('x', 0)").await;
        owner.rows("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN").await;
        owner.rows("GRANT SELECT ON texts TO ann, bob").await;
        owner.rows("GRANT pg_read_server_files TO bob").await;
        let ann = Client::connect_as(&daemon, "ann").await;
        let bob = Client::connect_as(&daemon, "bob").await;
        let mut told = 0;
        for (sql, code, message) in [
            (
                "SELECT n FROM texts WHERE s::int > 0",
                "22P02",
                "invalid input syntax for type integer: \"x\"",
            ),
            (
                "SELECT nullif(n, s) FROM texts",
                "22P02",
                "invalid input syntax for type integer: \"x\"",
            ),
            ("SELECT s FROM texts WHERE 1 / n > 0", "22012", "division by zero"),
            ("SELECT 1 / n FROM texts", "22012", "division by zero"),
            ("SELECT to_date(s, 'YYYY') FROM texts", "22007", "invalid value \"x\" for \"YYYY\""),
            ("SELECT to_char(n, 'S9S') FROM texts", "42601", "cannot use \"S\" twice"),
            (
                "SELECT json_build_object(NULL, n) FROM texts",
                "22023",
                "argument 1: key must not be null",
            ),
            ("SELECT (s || '{')::jsonb FROM texts", "22P02", "invalid input syntax for type json"),
        ] {
            let error = ann.refused(sql).await;
            assert_eq!((error.code().code(), error.message()), (code, message), "{sql}");
            let [seen, own] = [owner.refused(sql).await, bob.refused(sql).await];
            assert_eq!((seen.message(), own.message()), (message, message), "{sql}");
            assert_eq!(error.where_(), None, "{sql}");
            if let Some(file) = seen.where_() {
                assert!(file.starts_with("reading file:") && file.ends_with(".parquet"), "{file}");
                told += 1;
            }
        }
        assert!(told > 0, "no value was looked at where the file was read");
        let log = daemon.log();
        assert!(log.contains("a statement failed on a file") && log.contains(".parquet"), "{log}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_told_which_file_is_damaged_or_gone() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let owner = Client::connect(&daemon).await;
        owner.rows("CREATE TABLE broken (n int)").await;
        owner.rows("INSERT INTO broken VALUES (1)").await;
        owner.rows("CREATE ROLE ann LOGIN; GRANT SELECT ON broken TO ann").await;
        let ann = Client::connect_as(&daemon, "ann").await;
        let place = owner.value("SELECT file_path FROM \"broken$files\"").await;
        let file = std::path::PathBuf::from(place.trim_start_matches("file://"));
        let bytes = std::fs::read(&file).expect("a file");
        std::fs::write(&file, vec![0xab; bytes.len()]).expect("it can be written");
        for code in ["XX001", "XX001", "58P01"] {
            let hidden = ann.refused("SELECT n FROM broken").await;
            let seen = owner.refused("SELECT n FROM broken").await;
            assert_eq!((hidden.code().code(), seen.code().code()), (code, code), "{seen:?}");
            assert!(seen.message().contains(&file.display().to_string()), "{seen:?}");
            let hint = seen.hint().unwrap_or_default();
            // What is gone may be so with all the rest: nobody is to make the table anew for that.
            let advice = if code == "58P01" { "mounted" } else { "$snapshots" };
            assert!(hint.contains("back from a copy") && hint.contains(advice), "{seen:?}");
            assert_eq!(hidden.hint(), Some(hint), "{hidden:?}");
            assert!(hidden.message().contains("a file"), "{hidden:?}");
            assert!(!hidden.message().contains(".parquet"), "{hidden:?}");
            // The record of a submitted query is not for who has submitted it alone.
            let id = ann.value("SELECT oribi.submit('SELECT n FROM broken')").await;
            assert_eq!(ann.value(&format!("SELECT oribi.wait('{id}', '60s')")).await, "failed");
            let told = format!("SELECT error FROM system.queries WHERE id = '{id}'");
            let told = ann.value(&told).await;
            assert!(told.contains("a file") && !told.contains(".parquet"), "{told}");
            // Damaged, then cut to nothing, then gone.
            match std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
                true => std::fs::write(&file, []).expect("it can be written"),
                false => drop(std::fs::remove_file(&file)),
            }
        }
        assert!(daemon.log().contains("a submitted query failed on a file"), "{}", daemon.log());
    })
    .await;
}
