//! Local files that fail, are slow or do not answer (see `src/faults.rs`).

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::common::daemon::Options;
use crate::trouble::{Storage, answers_are_right_or_refused, what_waits_can_be_stopped};

struct Files {
    options: Options,
    folder: TempDir,
    rule: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::with_prefix("oribi-files-").expect("a directory");
        let rule = folder.path().join("rule");
        let options = Options::new()
            .env("ORIBI_WAREHOUSE", folder.path().join("warehouse"))
            .env("ORIBI_MAINTENANCE_INTERVAL", "none")
            .env("ORIBI_FAULT_STORAGE", &rule);
        Self { options, folder, rule }
    }
}

impl Storage for Files {
    type Trouble = &'static str;

    fn options(&self) -> Options {
        self.options.clone()
    }

    fn place(&self) -> String {
        format!("{}/", self.folder.path().join("others").display())
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.folder.path().join("others").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    fn begin(&self, trouble: &'static str) {
        // Whole from the moment that it is there.
        let new = self.folder.path().join("new");
        fs::write(&new, trouble).expect("a file");
        fs::rename(new, &self.rule).expect("it gets its name");
    }

    fn end(&self) {
        fs::remove_file(&self.rule).expect("there is a rule");
    }

    fn troubles(&self) -> Vec<&'static str> {
        vec![
            "fail 100 0 1",
            "fail 30 0 2",
            "cut 100 0 3",
            "cut 30 0 4",
            "slow 100 30 5",
            "slow 30 400 6",
            "stick 100 0 7",
            "stick 10 0 8",
        ]
    }

    fn is_total(&self, trouble: &'static str) -> bool {
        trouble.contains(" 100 ") && !trouble.starts_with("slow")
    }

    fn silence(&self) -> &'static str {
        "stick 100 0 9"
    }

    fn struck(&self) -> u64 {
        fs::metadata(self.rule.with_extension("struck")).map_or(0, |struck| struck.len())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_fail_are_never_answered_wrongly() {
    answers_are_right_or_refused(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_files_can_be_stopped() {
    what_waits_can_be_stopped(&Files::new()).await;
}
