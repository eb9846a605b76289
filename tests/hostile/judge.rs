//! What becomes of statements on files that are not what they should be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::common::daemon::{Daemon, Options, explain};

/// The memory that statements may take together.
pub const MEMORY: u64 = 256 << 20;

/// Memory that the daemon may take besides: for what is not counted, such as pages that are not large.
const BESIDES: u64 = 768 << 20;

/// The longest that a statement may take, on a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// Pause between two looks at the daemon's memory.
const PAUSE: Duration = Duration::from_millis(20);

pub type Rows = Vec<Vec<Option<String>>>;

/// A statement that has failed.
#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// A daemon, a client, and what was seen of both.
pub struct Judge {
    pub daemon: Daemon,
    client: Client,
    watch: Option<Watch>,
    /// By what was damaged: right answers, other answers, and refusals.
    counts: BTreeMap<String, [u64; 3]>,
    codes: BTreeMap<String, u64>,
    /// Errors that are not what they should be.
    unfit: Vec<String>,
}

impl Judge {
    pub async fn new(options: &Options) -> Self {
        let options = options.clone().env("ORIBI_ENGINE_MEMORY_LIMIT", MEMORY.to_string());
        let daemon = Daemon::start(&options);
        let client = daemon.connect().await;
        let watch = Some(Watch::start(&daemon).await);
        let (counts, codes, unfit) = Default::default();
        Self { daemon, client, watch, counts, codes, unfit }
    }

    /// The rows of a statement, within the bound. The daemon must not go away over it.
    pub async fn ask(&self, sql: &str) -> Result<Rows, Refusal> {
        let asked = tokio::time::timeout(BOUND, self.client.simple_query(sql)).await;
        let asked = asked.unwrap_or_else(|_| panic!("no answer within {BOUND:?}: {sql}"));
        match asked {
            Ok(messages) => Ok(messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
                .collect()),
            Err(error) => {
                // Of some errors the file is their context.
                let refused = error.as_db_error().map(|error| Refusal {
                    code: error.code().code().to_owned(),
                    message: [error.message(), error.where_().unwrap_or_default()].join(" "),
                });
                refused.unwrap_or_else(|| panic!("{sql}: {}", explain(&error))).into_err()
            }
        }
    }

    /// The rows of a statement that must not fail.
    pub async fn rows(&self, sql: &str) -> Rows {
        self.ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Judges one answer about a damaged file: the right one, or an error that names one of these. Flipped
    /// bits of values, with nothing in the file that would tell, are other values.
    pub fn judge(
        &mut self,
        damage: &str,
        names: &[&str],
        answer: &Result<Rows, Refusal>,
        right: &Rows,
    ) {
        let which = match answer {
            Ok(rows) if rows == right => 0,
            Ok(_) => 1,
            Err(refusal) => {
                *self.codes.entry(refusal.code.clone()).or_default() += 1;
                if !is_fit(refusal, names) {
                    self.unfit.push(format!("{damage} of {names:?}: {refusal:?}"));
                }
                2
            }
        };
        self.counts.entry(damage.to_owned()).or_default()[which] += 1;
    }

    /// What all answers were, and that the daemon is still the same, without more memory than it may have.
    pub async fn end(mut self) {
        for (damage, [right, other, refused]) in &self.counts {
            println!("  {damage}: {right} right, {other} with other values, {refused} refused");
        }
        println!("  refused with {:?}", self.codes);
        let watch = self.watch.take().expect("it ends once");
        let (peak, asked, longest) = watch.end();
        println!(
            "  memory up to {} MiB; another client was answered {asked} times, within {longest:.1?}",
            peak >> 20
        );
        assert!(self.unfit.is_empty(), "{:#?}", self.unfit);
        assert!(self.daemon.ended().is_none(), "the daemon has ended");
        assert!(peak < MEMORY + BESIDES, "it took {peak} bytes of memory");
        assert!(longest < BOUND, "another client waited for {longest:?}");
        assert!(asked > 0, "another client was never answered");
    }
}

impl Refusal {
    fn into_err<T>(self) -> Result<T, Self> {
        Err(self)
    }
}

/// Whether an error is one that says what is wrong with which file.
fn is_fit(refusal: &Refusal, names: &[&str]) -> bool {
    let named = names.iter().any(|name| refusal.message.contains(name));
    match refusal.code.as_str() {
        // Damaged data; too large for the memory; not supported; not there, or not readable.
        "XX001" | "53200" | "0A000" | "58P01" | "58030" => named,
        // A value that is another one now, and none that can be written or computed with.
        code if code.starts_with("22") => true,
        // A table whose columns are none, or a file of others.
        code => code.starts_with("42") && named,
    }
}

/// Looks at the daemon's memory all the time, and asks it something as another client.
struct Watch {
    over: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    looking: JoinHandle<()>,
    asking: JoinHandle<(u64, Duration)>,
}

impl Watch {
    async fn start(daemon: &Daemon) -> Self {
        let (over, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let looking = {
            let (over, peak, pid) = (over.clone(), peak.clone(), daemon.pid());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    peak.fetch_max(resident(pid).unwrap_or(0), Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            })
        };
        let config = daemon.client_config();
        let asking = {
            let over = over.clone();
            thread::spawn(move || ask_all_the_time(&config, &over))
        };
        Self { over, peak, looking, asking }
    }

    /// The most bytes of memory; how often the other client was answered, and how late at worst.
    fn end(self) -> (u64, u64, Duration) {
        self.over.store(true, Ordering::Relaxed);
        self.looking.join().expect("looking does not panic");
        let (asked, longest) = self.asking.join().expect("another client is served");
        (self.peak.load(Ordering::Relaxed), asked, longest)
    }
}

fn ask_all_the_time(config: &tokio_postgres::Config, over: &AtomicBool) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (client, connection) =
            config.connect(tokio_postgres::NoTls).await.expect("another client connects");
        tokio::spawn(connection);
        let (mut asked, mut longest) = (0, Duration::ZERO);
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let sql = "SELECT sum(n) FROM generate_series(1, 1000) AS s (n)";
            let answer = client.query_one(sql, &[]).await;
            // Cut off while the daemon is being stopped by a failed test.
            let Ok(answer) = answer else { break };
            assert_eq!(answer.get::<_, i64>(0), 500_500);
            longest = longest.max(began.elapsed());
            asked += 1;
            tokio::time::sleep(PAUSE).await;
        }
        (asked, longest)
    })
}

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A number in the environment.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The name of a file, by which errors name it.
pub fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}
