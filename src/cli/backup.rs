//! `oribi backup` and `oribi restore`: all that the coordination store keeps, as one file that people
//! can read, and back again: into the same store, or from the embedded one into ZooKeeper.
//!
//! What belongs to one run is left out: daemons, leader, claims, running statements, and the key with
//! which daemons know each other, which the first daemon makes anew. The data of tables is where it
//! was: the file says where, and holds none of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path as FilePath, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::{Error, Result};
use super::{runtime, serve, start_logging, tour};
use crate::cluster::FORMAT;
use crate::config::Config;
use crate::coordination::paths::Path;
use crate::coordination::{self, Coordination, Mode, Op};
use crate::server::{self, Tool};
use crate::wording::counted;

/// The version of the file's form. One that is newer is refused.
const FILE_FORMAT: u32 = 1;

/// Attempts to read everything without a change in between.
const ATTEMPTS: usize = 5;

/// Steps and bytes of one transaction: well below what ZooKeeper takes.
const STEPS: usize = 100;
const BYTES: usize = 256 << 10;

#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write, readable for its owner alone: it holds what passwords are checked against.
    file: PathBuf,
    /// Put it in place of a file that is there, once it is whole.
    #[arg(long)]
    force: bool,
    /// Say what was done as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: serve::Place,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// A file of `oribi backup`.
    file: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Put it in place of what the store holds.
    #[arg(long)]
    force: bool,
    /// Also submitted queries that wait or had not ended: they run, even if they have ended since. For
    /// a move from one store to another.
    #[arg(long)]
    with_queue: bool,
    /// The file was changed on purpose: take it although it does not match its checksum, or has none.
    #[arg(long)]
    edited: bool,
    /// Say what was done as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: serve::Place,
}

/// The file, its nodes aside.
#[derive(Debug, Deserialize, Serialize)]
struct Saved {
    /// [`FILE_FORMAT`].
    format: u32,
    /// The version of the znodes' forms.
    znodes: u32,
    /// The program's version.
    oribi: String,
    /// When it was taken, as RFC 3339.
    taken: String,
    /// Of which store.
    store: String,
    nodes: Vec<Entry>,
    /// Of all bytes before [`CHECKSUM`]. Each back-up has it; one whose end somebody took away does not.
    #[serde(default, skip_serializing)]
    sha256: Option<String>,
}

/// What stands before the checksum, which comes last.
const CHECKSUM: &str = "\n\"sha256\": ";

/// A znode. Its data is in one of three forms: JSON as such, text, or bytes.
#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// What was done, for scripts.
#[derive(Debug, Serialize)]
struct Done<'a> {
    file: &'a FilePath,
    store: String,
    znodes: usize,
    /// By the first name of their paths.
    by_kind: BTreeMap<String, usize>,
    /// Left out: see `--with-queue`.
    left_out: usize,
    /// What was there before and is not any more.
    removed: usize,
    dry_run: bool,
}

/// Persistent nodes by path, with their data and the transaction that changed them last.
type Nodes = BTreeMap<String, (Bytes, i64)>;

pub fn backup(options: Backup) -> Result<()> {
    // The last good back-up is not lost by a mistake.
    if !options.force && fs::symlink_metadata(&options.file).is_ok() {
        return Err(Error::Usage(format!(
            "{} is there already: give another name, or --force to put the new back-up in its place",
            options.file.display()
        )));
    }
    let config = settings(options.place)?;
    runtime()?.block_on(async {
        let store = describe(&config);
        let opened = Tool::open(&config, false).await.map_err(of_server)?;
        let nothing = || {
            Error::Unreachable(format!(
                "there is nothing to back up: no daemon has ever started with {store}"
            ))
        };
        let tool = opened.ok_or_else(nothing)?;
        let read = read_all(tool.coordination.as_ref()).await;
        tool.close().await;
        let nodes = read?;
        if !nodes.contains_key(&Path::Cluster.to_string()) {
            return Err(nothing());
        }
        write(&options.file, &store, &nodes)?;
        let (znodes, by_kind) = (nodes.len(), by_kind(nodes.keys()));
        let (left_out, removed, dry_run) = (0, 0, false);
        let file = &options.file;
        let done = Done { file, store, znodes, by_kind, left_out, removed, dry_run };
        done.say(options.json, "backed up")
    })
}

pub fn restore(options: Restore) -> Result<()> {
    let config = settings(options.place)?;
    let saved = read_file(&options.file, options.edited)?;
    runtime()?.block_on(async {
        let store = describe(&config);
        let opened = Tool::open(&config, !options.dry_run).await.map_err(of_server)?;
        let all = saved.nodes.len();
        let nodes = wanted(saved.nodes, options.with_queue)?;
        let left_out = all - nodes.len();
        let (znodes, by_kind) = (nodes.len(), by_kind(nodes.iter().map(|(path, _)| path)));
        let removed = match opened {
            Some(tool) => {
                let put =
                    put(tool.coordination.as_ref(), nodes, options.force, options.dry_run).await;
                tool.close().await;
                put?
            }
            // A dry run where nothing is yet.
            None => 0,
        };
        let (file, dry_run) = (options.file.as_path(), options.dry_run);
        let done = Done { file, store, znodes, by_kind, left_out, removed, dry_run };
        done.say(options.json, if dry_run { "would be restored" } else { "restored" })
    })
}

fn settings(place: serve::Place) -> Result<Config> {
    let config = place.settings_of_store()?;
    // Standard error is for what went wrong.
    let mut quiet = config.clone();
    quiet.log.filter = "error".to_owned();
    start_logging(&quiet)?;
    Ok(config)
}

/// Which store it is, for people.
fn describe(config: &Config) -> String {
    match (&config.zookeeper, &config.data_dir) {
        (Some(hosts), _) => format!("ZooKeeper at {hosts}"),
        (None, Some(directory)) => format!("the embedded store in {}", directory.display()),
        (None, None) => "no store".to_owned(),
    }
}

fn of_server(error: server::Error) -> Error {
    match error {
        server::Error::StoreInUse(error) => Error::Usage(format!(
            "{error}: stop the daemon first, since nobody else can read its embedded store"
        )),
        server::Error::Coordination(error) => of_store(error),
        error => error.into(),
    }
}

fn of_store(error: coordination::Error) -> Error {
    match error.root() {
        coordination::Error::Unwritable { .. } => server::Error::Coordination(error).into(),
        root if root.is_unavailable() => Error::Unreachable(error.to_string()),
        _ => server::Error::Coordination(error).into(),
    }
}

/// Whether a path is of one run. What is below is as well.
fn is_of_one_run(path: &str) -> bool {
    let of_one_run = [
        Path::PeerKey,
        Path::Daemons,
        Path::Incarnations,
        Path::Leader,
        Path::Claims,
        Path::SettingsApplied,
        Path::Signals,
    ];
    of_one_run.iter().any(|parent| {
        path.strip_prefix(&parent.to_string())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// All that is kept, as it was at one moment.
async fn read_all(store: &dyn Coordination) -> Result<Nodes> {
    let mut before = read_once(store).await?;
    for _ in 0..ATTEMPTS {
        let after = read_once(store).await?;
        let same = before.len() == after.len()
            && before.iter().zip(&after).all(|((a, (_, x)), (b, (_, y)))| (a, x) == (b, y));
        if same {
            return Ok(after);
        }
        before = after;
    }
    Err(Error::NotInForce(
        "the store changes faster than it can be read: try again when less is submitted or changed"
            .to_owned(),
    ))
}

async fn read_once(store: &dyn Coordination) -> Result<Nodes> {
    store.sync().await.map_err(of_store)?;
    let (mut nodes, mut open) = (Nodes::new(), vec![String::new()]);
    while let Some(parent) = open.pop() {
        let path = if parent.is_empty() { "/" } else { &parent };
        let children = match store.children(path).await {
            Ok(children) => children,
            // Gone meanwhile.
            Err(coordination::Error::NoNode { .. }) => continue,
            Err(error) => return Err(of_store(error)),
        };
        for child in children {
            let path = format!("{parent}/{child}");
            if is_of_one_run(&path) || path == "/zookeeper" {
                continue;
            }
            let Some(node) = store.get(&path).await.map_err(of_store)? else { continue };
            if node.stat.ephemeral_owner != 0 {
                continue;
            }
            nodes.insert(path.clone(), (node.data, node.stat.mzxid));
            if node.stat.num_children > 0 {
                open.push(path);
            }
        }
    }
    Ok(nodes)
}

/// The present moment, as all of Oribi's JSON has it.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// One node a line, under another name until it is whole.
fn write(path: &FilePath, store: &str, nodes: &Nodes) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |error| Error::io("write", path)(error);
    // An old one may be open to others.
    let _ = fs::remove_file(&part);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&part);
    let written = file.and_then(|file| {
        let mut out = Summed { out: BufWriter::new(&file), sum: Sha256::new() };
        let taken = now();
        let text = |text: &str| Value::from(text).to_string();
        writeln!(out, "{{\"format\": {FILE_FORMAT}, \"znodes\": {FORMAT},")?;
        writeln!(out, "\"oribi\": {},", text(env!("CARGO_PKG_VERSION")))?;
        writeln!(out, "\"taken\": {}, \"store\": {},\n\"nodes\": [", text(&taken), text(store))?;
        let mut comma = "";
        for (path, (data, _)) in nodes {
            let entry = serde_json::to_string(&Entry::of(path, data))?;
            write!(out, "{comma}{entry}")?;
            comma = ",\n";
        }
        write!(out, "\n],")?;
        let sum = hex(out.sum.finalize_reset());
        writeln!(out, "{CHECKSUM}\"{sum}\"}}")?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.map_err(failed)
}

/// Keeps a checksum of what is written.
struct Summed<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.sum.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn hex(sum: impl AsRef<[u8]>) -> String {
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file is as it was written, by the checksum that it has.
fn is_whole(text: &[u8], sum: &str) -> bool {
    let at = text.windows(CHECKSUM.len()).rposition(|part| part == CHECKSUM.as_bytes());
    at.is_some_and(|at| hex(Sha256::digest(&text[..at])) == sum)
}

impl Entry {
    fn of(path: &str, data: &[u8]) -> Self {
        let mut entry = Self { path: path.to_owned(), json: None, text: None, base64: None };
        let json = serde_json::from_slice::<Value>(data).ok();
        match (json.filter(|json| json.is_object() || json.is_array()), std::str::from_utf8(data)) {
            (Some(json), _) => entry.json = Some(json),
            (None, Ok("")) => {}
            (None, Ok(text)) => entry.text = Some(text.to_owned()),
            (None, Err(_)) => entry.base64 = Some(STANDARD.encode(data)),
        }
        entry
    }

    fn data(&self) -> Result<Bytes> {
        match (&self.json, &self.text, &self.base64) {
            (Some(json), None, None) => Ok(json.to_string().into()),
            (None, Some(text), None) => Ok(text.clone().into()),
            (None, None, Some(base64)) => {
                let wrong = |error| Error::Usage(format!("{}: base64: {error}", self.path));
                Ok(STANDARD.decode(base64).map_err(wrong)?.into())
            }
            (None, None, None) => Ok(Bytes::new()),
            _ => Err(Error::Usage(format!("{}: its data is there in two forms", self.path))),
        }
    }
}

fn read_file(path: &FilePath, edited: bool) -> Result<Saved> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let wrong = |reason: String| {
        Error::Usage(format!("{} is no file of oribi backup: {reason}", path.display()))
    };
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if saved.format > FILE_FORMAT || saved.znodes > FORMAT {
        return Err(Error::Usage(format!(
            "{} was written by Oribi {}, whose format is newer than this one's: restore it with that \
             version",
            path.display(),
            saved.oribi
        )));
    }
    let wrong_sum = match &saved.sha256 {
        Some(sum) => (!is_whole(&text, sum)).then_some("does not match its checksum"),
        // Whatever took it away may have taken more.
        None => Some("has no checksum, and each back-up is written with one"),
    };
    if let Some(wrong_sum) = wrong_sum.filter(|_| !edited) {
        return Err(Error::Usage(format!(
            "{} {wrong_sum}: it was changed since it was written. Take another back-up, or give --edited if \
             it was changed on purpose",
            path.display()
        )));
    }
    if !saved.nodes.iter().any(|node| node.path == Path::Cluster.to_string()) {
        return Err(wrong("it names no cluster".to_owned()));
    }
    Ok(saved)
}

/// The cluster's record, which says from now on that the store was taken from a back-up: housekeeping then
/// leaves alone what was made before and is not in the catalog.
fn restored(record: Bytes) -> Result<Bytes> {
    let wrong = |error| Error::Usage(format!("{}: {error}", Path::Cluster));
    let mut record: Value = serde_json::from_slice(&record).map_err(wrong)?;
    if let Some(record) = record.as_object_mut() {
        record.insert("restored_at".to_owned(), now().into());
    }
    Ok(record.to_string().into())
}

/// The nodes to make, parents first, the cluster's last: without it the store is not taken for whole.
fn wanted(nodes: Vec<Entry>, with_queue: bool) -> Result<Vec<(String, Bytes)>> {
    let below = |path: &str, parent: &Path<'_>| path.starts_with(&format!("{parent}/"));
    let mut wanted = Vec::new();
    for node in nodes {
        let waits = below(&node.path, &Path::Queue) || below(&node.path, &Path::Inbox);
        let state = node.json.as_ref().and_then(|json| json.get("state")).and_then(Value::as_str);
        let open = below(&node.path, &Path::Queries) && matches!(state, Some("queued" | "running"));
        if is_of_one_run(&node.path) || (!with_queue && (waits || open)) {
            continue;
        }
        let data = match node.path == Path::Cluster.to_string() {
            true => restored(node.data()?)?,
            false => node.data()?,
        };
        wanted.push((node.path, data));
    }
    let cluster = Path::Cluster.to_string();
    wanted.sort_by(|(a, _), (b, _)| (*a == cluster, a).cmp(&(*b == cluster, b)));
    Ok(wanted)
}

/// Makes the nodes; the number of those that were there before.
async fn put(
    store: &dyn Coordination,
    nodes: Vec<(String, Bytes)>,
    force: bool,
    dry_run: bool,
) -> Result<usize> {
    let daemons = match store.children(&Path::Daemons.to_string()).await {
        Ok(daemons) => daemons,
        Err(coordination::Error::NoNode { .. }) => Vec::new(),
        Err(error) => return Err(of_store(error)),
    };
    if !daemons.is_empty() {
        return Err(Error::Usage(format!(
            "daemons run with this store: {}; stop them first (oribi cluster drain NAME)",
            daemons.join(", ")
        )));
    }
    let present = read_once(store).await?;
    // What daemons make at their start and leave empty is nothing yet.
    let held: Vec<&String> =
        present.iter().filter(|(_, (data, _))| !data.is_empty()).map(|(path, _)| path).collect();
    if !held.is_empty() && !force {
        return Err(Error::Usage(format!(
            "the store is not empty: it holds {}, {} among them; back it up, then restore with \
             --force, which removes them",
            counted(held.len() as u64, "znode"),
            held[0]
        )));
    }
    if dry_run {
        return Ok(present.len());
    }
    let cluster = Path::Cluster.to_string();
    let mut ops = Vec::new();
    // The cluster's goes first: what is not whole is not taken for it.
    if present.contains_key(&cluster) {
        ops.push(Op::Delete { path: cluster.clone(), version: None });
    }
    ops.extend(
        present
            .keys()
            .rev()
            .filter(|path| **path != cluster)
            .map(|path| Op::Delete { path: path.clone(), version: None }),
    );
    ops.extend(nodes.into_iter().map(|(path, data)| Op::Create {
        path,
        data,
        mode: Mode::Persistent,
    }));
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for op in ops {
        let size = match &op {
            Op::Create { path, data, .. } => path.len() + data.len(),
            other => other.path().len(),
        };
        if batch.len() == STEPS || (bytes + size > BYTES && !batch.is_empty()) {
            store.transact(std::mem::take(&mut batch)).await.map_err(of_store)?;
            bytes = 0;
        }
        bytes += size;
        batch.push(op);
    }
    if !batch.is_empty() {
        store.transact(batch).await.map_err(of_store)?;
    }
    Ok(present.len())
}

fn by_kind<'a>(paths: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for path in paths {
        let kind = path.split('/').nth(1).unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

impl Done<'_> {
    fn say(&self, json: bool, what: &str) -> Result<()> {
        if json {
            let text =
                serde_json::to_string(self).map_err(|error| Error::Rows(error.to_string()))?;
            return tour::print(&text);
        }
        let kinds = self.by_kind.iter().map(|(kind, count)| format!("{kind} {count}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "{} {what} ({kinds}): {}, {}",
            counted(self.znodes as u64, "znode"),
            self.file.display(),
            self.store
        );
        if self.left_out > 0 {
            let were = if self.left_out == 1 { "was" } else { "were" };
            text += &format!(
                "\n{} {were} left out: queries that had not ended, which --with-queue takes along",
                self.left_out
            );
        }
        if self.removed > 0 {
            let (were, are) = if self.removed == 1 { ("was", "is") } else { ("were", "are") };
            text += &format!("\n{} that {were} there before {are} gone", self.removed);
        }
        tour::print(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_back_in_whatever_form() {
        for data in [&b"{\"a\":1}"[..], b"SELECT 1", b"", b"\xff\x00", b"17"] {
            let entry = Entry::of("/x", data);
            let text = serde_json::to_string(&entry).expect("JSON");
            let again: Entry = serde_json::from_str(&text).expect("an entry");
            assert_eq!(again.data().expect("data"), data, "{text}");
        }
    }

    #[test]
    fn what_waits_is_left_out_unless_it_is_wanted() {
        let node = |path: &str, data: &str| Entry::of(path, data.as_bytes());
        let nodes = || {
            vec![
                node("/cluster", "{\"uuid\":\"x\"}"),
                node("/queries", ""),
                node("/queries/a", "{\"state\":\"succeeded\"}"),
                node("/queries/b", "{\"state\":\"running\"}"),
                node("/queue/1-b", ""),
                node("/daemons/d", "{}"),
            ]
        };
        let paths = |with_queue| -> Vec<String> {
            let wanted = wanted(nodes(), with_queue).expect("good nodes");
            wanted.into_iter().map(|(path, _)| path).collect()
        };
        assert_eq!(paths(false), ["/queries", "/queries/a", "/cluster"]);
        assert_eq!(paths(true), ["/queries", "/queries/a", "/queries/b", "/queue/1-b", "/cluster"]);
    }
}
