//! Tables that Oribi wrote, opened by pyiceberg.

use std::path::Path;
use std::process::Command;

use crate::common::daemon::{Daemon, Options};
use crate::python::{python, run};

#[test]
fn pyiceberg_reads_the_same_rows() {
    let python =
        python(&["pyiceberg", "pyarrow", "psycopg"], "pyiceberg pyarrow 'psycopg[binary]'");
    let daemon = Daemon::start(&Options::new());
    let address = daemon.postgres();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/read.py");
    let report = run(Command::new(python)
        .arg(script)
        .args([address.ip().to_string(), address.port().to_string()]));
    assert!(report.ends_with("14 states agree\n"), "{report}");
}
