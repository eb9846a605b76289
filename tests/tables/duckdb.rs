//! Tables that Oribi wrote, opened by DuckDB's iceberg extension.

use std::path::Path;
use std::process::Command;

use crate::common::daemon::{Daemon, Options};
use crate::python::{python_of, run};

#[test]
fn duckdb_reads_the_same_rows() {
    let python = python_of(
        "ORIBI_TEST_DUCKDB",
        &["duckdb", "duckdb_extension_avro", "duckdb_extension_iceberg"],
        "duckdb==1.5.5 duckdb-extension-avro==1.5.5 duckdb-extension-iceberg==1.5.5",
    );
    let daemon = Daemon::start(&Options::new());
    let address = daemon.postgres();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/duckdb.py");
    let report = run(Command::new(python)
        .arg(script)
        .args([address.ip().to_string(), address.port().to_string()]));
    assert!(report.ends_with("41 states agree\n"), "{report}");
}
