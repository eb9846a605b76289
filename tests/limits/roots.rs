//! `storage.roots`: where files may lie, for superusers as for those who may read the server's files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tokio_postgres::Client;

use super::{Daemon, Options, explain, value};

fn create(name: &str, location: &str) -> String {
    format!("CREATE EXTERNAL TABLE {name} (x int) STORED AS CSV LOCATION '{location}'")
}

/// The error of a statement that must fail.
async fn refused(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => panic!("{sql} went through"),
        Err(error) => explain(&error),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_beyond_the_roots() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let text = |path: &Path| path.display().to_string();
    let (inside, outside, too) = (at("in"), at("out"), at("in-too"));
    for place in [&inside, &outside, &too] {
        fs::create_dir(place).expect("a directory");
        fs::write(place.join("a.csv"), "x\n1\n").expect("a file");
    }
    fs::create_dir(inside.join("later")).expect("a directory");
    fs::write(inside.join("later/a.csv"), "x\n2\n").expect("a file");
    symlink(&outside, inside.join("link")).expect("a link");
    symlink(outside.join("a.csv"), inside.join("link.csv")).expect("a link");
    let options = Options::new().env("ORIBI_STORAGE_ROOTS", &inside);
    let daemon = Daemon::start(&options);
    let oribi = daemon.connect().await;
    let setup = "CREATE ROLE reader LOGIN; GRANT CREATE ON SCHEMA public TO reader; \
                 CREATE ROLE nobody LOGIN; GRANT CREATE ON SCHEMA public TO nobody; \
                 GRANT pg_read_server_files TO reader";
    oribi.batch_execute(setup).await.expect("roles");
    let connect = async |user: &str| {
        let mut config = daemon.client_config();
        daemon.try_connect(config.user(user)).await.expect("a session")
    };
    let (reader, nobody) = (connect("reader").await, connect("nobody").await);
    let place = text(&inside);
    let refusal = refused(&nobody, &create("mine", &place)).await;
    assert!(refusal.starts_with("ERROR 42501: permission denied to use a location"), "{refusal}");

    for (who, client) in [("reader", &reader), ("oribi", &oribi)] {
        for (at, location) in [
            format!("{place}/a.csv"),
            format!("file://{place}/a.csv"),
            format!("{place}/later/../a.csv"),
        ]
        .iter()
        .enumerate()
        {
            let made = client.batch_execute(&create(&format!("{who}{at}"), location)).await;
            made.unwrap_or_else(|error| panic!("{who}: {location}: {}", explain(&error)));
            assert_eq!(value(client, &format!("SELECT sum(x) FROM {who}{at}")).await, "1");
        }
        let (outside, too) = (text(&outside), text(&too));
        for location in [
            format!("{outside}/a.csv"),
            format!("{outside}/"),
            format!("{too}/a.csv"),
            format!("{place}/../out/a.csv"),
            format!("{place}/../out/"),
            format!("file://{place}/%2e%2e/out/a.csv"),
            format!("file://{place}/%2E%2E%2Fout/a.csv"),
            format!("file://localhost{outside}/a.csv"),
            format!("{place}/link/a.csv"),
            format!("{place}/link/"),
            format!("{place}/link.csv"),
            format!("{place}/*.csv"),
            format!("{place}/*/../../out/a.csv"),
            "/etc/passwd".to_owned(),
            "/".to_owned(),
            "file:///".to_owned(),
            "s3://bucket/a.csv".to_owned(),
            "http://127.0.0.1:1/a.csv".to_owned(),
            "data:,x".to_owned(),
            "in/a.csv".to_owned(),
        ] {
            let refusal = refused(client, &create("never", &location)).await;
            let code = &refusal["ERROR ".len()..][..5];
            assert!(["42501", "22023", "0A000", "58P01"].contains(&code), "{location}: {refusal}");
            assert!(!refusal.contains("root:"), "{refusal}");
        }
    }
    // A link that is put there later leads nowhere.
    let later = create("later", &format!("{place}/later/"));
    reader.batch_execute(&later).await.expect("inside");
    assert_eq!(value(&reader, "SELECT sum(x) FROM later").await, "2");
    fs::remove_dir_all(inside.join("later")).expect("removed");
    symlink(&outside, inside.join("later")).expect("a link");
    let refusal = refused(&reader, "SELECT sum(x) FROM later").await;
    assert!(refusal.contains("42501"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_taken_over_from_beyond_the_roots() {
    let directory = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
    // Two tables of one cluster, which are in its catalog no more.
    let metadata = |place: &Path| {
        let found = super::files(place).into_iter();
        let found = found.filter(|file| file.to_string_lossy().ends_with(".metadata.json"));
        format!("file://{}", found.max().expect("metadata").display())
    };
    for place in [&inside, &outside] {
        fs::create_dir(place).expect("a directory");
    }
    let options = Options::new().env("ORIBI_WAREHOUSE", &inside);
    let daemon = Daemon::start(&options);
    let made = format!(
        "CREATE TABLE t AS SELECT 7 AS x; CREATE TABLE u (x int) LOCATION '{}'; \
         INSERT INTO u VALUES (8); DROP TABLE t; DROP TABLE u",
        outside.join("u").display()
    );
    daemon.connect().await.batch_execute(&made).await.expect("tables");
    daemon.kill();
    let daemon = Daemon::start(&options.env("ORIBI_STORAGE_ROOTS", &inside));
    let oribi = daemon.connect().await;
    let setup = "CREATE ROLE reader LOGIN; GRANT CREATE ON SCHEMA public TO reader; \
                 GRANT pg_read_server_files TO reader";
    oribi.batch_execute(setup).await.expect("a role");
    let mut config = daemon.client_config();
    let reader = daemon.try_connect(config.user("reader")).await.expect("a session");
    let adopt = |name: &str, url: &str| format!("CALL oribi.adopt('{name}', '{url}')");
    let taken = adopt("taken", &metadata(&inside));
    symlink(&outside, inside.join("link")).expect("a link");
    let linked = metadata(&outside).replace("/out/", "/in/link/");
    let climbing = metadata(&outside).replace("/out/", "/in/../out/");
    for client in [&reader, &oribi] {
        for url in [&metadata(&outside), &linked, &climbing] {
            let refusal = refused(client, &adopt("never", url)).await;
            assert!(refusal.contains("42501"), "{url}: {refusal}");
        }
    }
    // Metadata that lies inside and names files outside.
    let moved = inside.join("00009-moved.metadata.json");
    let outer = metadata(&outside);
    fs::copy(outer.trim_start_matches("file://"), &moved).expect("a copy");
    let url = format!("file://{}", moved.display());
    let refusal = match reader.batch_execute(&adopt("moved", &url)).await {
        Err(error) => explain(&error),
        Ok(()) => refused(&reader, "SELECT * FROM moved").await,
    };
    assert!(refusal.contains("42501") || refusal.contains("storage.roots"), "{refusal}");
    reader.batch_execute(&taken).await.expect("inside");
    assert_eq!(value(&reader, "SELECT x FROM taken").await, "7");
}
