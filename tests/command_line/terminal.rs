//! `oribi sql` at a terminal: typing, history, completion, cancelling, another daemon.

use std::path::PathBuf;
use std::process::ChildStdin;

use super::*;

/// A program at a terminal that `script` (util-linux) gives it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    log: PathBuf,
}

impl Terminal {
    fn open(cluster: &Cluster, name: &str, hosts: &str) -> Self {
        let program = common::daemon::binary();
        // A shell that stays above it would be interrupted as well, and tell so in its exit code.
        Self::run(cluster, name, &format!("exec {} sql --host {hosts}", program.display()))
    }

    fn run(cluster: &Cluster, name: &str, line: &str) -> Self {
        let log = cluster.path(name);
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", line]).arg(&log);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("ORIBI_") || name.starts_with("PG") {
                command.env_remove(name.as_ref());
            }
        }
        command.env("TERM", "xterm").env("XDG_STATE_HOME", cluster.path("state"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("script runs");
        let keys = child.stdin.take().expect("a pipe");
        Self { child, keys, log }
    }

    fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("typed");
        self.keys.flush().expect("typed");
    }

    /// All that was shown so far.
    fn shown(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until something is shown behind what was shown before.
    async fn shows(&self, from: usize, part: &str) -> usize {
        let mut end = 0;
        until(&format!("\"{part}\" is shown"), async || {
            let shown = self.shown();
            end = shown.len();
            shown.get(from..).is_some_and(|shown| shown.contains(part))
        })
        .await;
        end
    }

    /// Types, and waits until something is shown.
    async fn answer(&mut self, keys: &str, part: &str) {
        let from = self.shown().len();
        self.keys(keys);
        self.shows(from, part).await;
    }

    fn end(mut self) -> Option<i32> {
        self.keys("\x04");
        self.child.wait().expect("it ends").code()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_typed_completed_and_remembered() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE weather (temperature int, town text)").await;
        client.rows("INSERT INTO weather VALUES (17, 'Graz')").await;
        let hosts = daemon.postgres().to_string();
        let mut terminal = Terminal::open(&cluster, "first", &hosts);
        terminal.shows(0, "oribi=> ").await;
        // Several lines, and one key too many.
        terminal.answer("SELECT 40 +\r", "oribi-> ").await;
        terminal.answer("3\x7f2 AS answer;\r", "     42\r\n(1 row)").await;
        // Tab: a keyword, a table, a column behind an alias.
        terminal.answer("sel\t", "select ").await;
        terminal.answer("w.tem\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D", "w.tem").await;
        terminal.answer("\x05 from weat\t", "weather ").await;
        terminal.answer("w;\x01\x1b[1;5C\x1b[1;5C\x1b[1;5C", "weather w;").await;
        terminal.answer("\t", "temperature").await;
        terminal.answer("\r", " 17\r\n(1 row)").await;
        // An error, then the transaction's mark in the prompt.
        terminal.answer("begin;\r", "oribi=*> ").await;
        terminal.answer("nothing;\r", "oribi=!> ").await;
        terminal.answer("rollback;\r", "oribi=> ").await;
        // Ctrl-C leaves what is typed, and cancels what runs.
        terminal.answer("SELECT wrong\x03", "oribi=> ").await;
        terminal.answer(&format!("{ENDLESS};\r"), "running").await;
        terminal.answer("\x03", "57014").await;
        terminal.answer("\\x\r", "Expanded display is on.").await;
        assert_eq!(terminal.end(), Some(0));
        // Another one remembers: up, and a search.
        let mut terminal = Terminal::open(&cluster, "second", &hosts);
        terminal.shows(0, "oribi=> ").await;
        terminal.answer("\x1b[A", "\\x").await;
        terminal.answer("\x15\x12ans", "AS answer;").await;
        terminal.answer("\r", "     42\r\n(1 row)").await;
        assert_eq!(terminal.end(), Some(0));
        let history = cluster.path("state").join("oribi/sql_history");
        let history = std::fs::read_to_string(history).expect("a history");
        assert!(history.starts_with("SELECT 40 +\\n2 AS answer;\n"), "{history}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_daemon_takes_over_and_what_only_reads_is_offered_again() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let [a, b] = cluster.start_together(["a", "b"]).await;
        let hosts = format!("{},{}", a.postgres(), b.postgres());
        let mut terminal = Terminal::open(&cluster, "terminal", &hosts);
        terminal.shows(0, "oribi=> ").await;
        terminal.answer(&format!("{ENDLESS};\r"), "running").await;
        let from = terminal.shown().len();
        a.kill();
        terminal.shows(from, "Run it again? [Y/n] ").await;
        assert!(terminal.shown()[from..].contains(&format!("connected to {}", b.postgres())));
        terminal.answer("n\n", "oribi=> ").await;
        terminal.answer("SELECT 6 * 7;\r", "      42\r\n(1 row)").await;
        assert_eq!(terminal.end(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piped_script_asks_at_the_terminal() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let script = cluster.path("asks.sql");
        let text = "\\prompt 'Who? ' x\nSELECT 'it is ' || :'x';\n\\password\nSELECT 'the end';\n";
        std::fs::write(&script, text).expect("a file");
        let (program, host) = (common::daemon::binary(), daemon.postgres());
        let line = format!("{} sql --host {host} < {}", program.display(), script.display());
        let mut terminal = Terminal::run(&cluster, "piped", &line);
        terminal.shows(0, "Who? ").await;
        terminal.answer("ann\r", "it is ann").await;
        terminal.shows(0, "Enter new password").await;
        terminal.answer("not seen\r", "Enter it again").await;
        terminal.answer("not seen\r", "the end").await;
        assert!(!terminal.shown().contains("not seen"), "{}", terminal.shown());
        assert_eq!(terminal.child.wait().expect("it ends").code(), Some(0));
    })
    .await;
}
