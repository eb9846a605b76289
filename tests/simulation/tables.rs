//! Daemons whose clients append to one managed table.
//!
//! The table's files are in memory, and its data files are names only. What must hold:
//!
//! - Every new state of the table was made from the last one.
//! - A commit that succeeded is in the table once; one that failed and left nothing is not; one whose
//!   outcome is told to be uncertain, once or not at all.
//! - Who commits is registered at that moment.
//! - A commit that its client has given up has left nothing, or is told to be what it is.
//! - Nobody's place in the table's queue outlives what it was taken for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use futures::FutureExt;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, Manifest,
    ManifestList,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use oribi::catalog::{
    Catalog, Consistency, CreateMode, DEFAULT_DATABASE, Definition, FIRST_ROLE, Managed, PUBLIC,
    TableName,
};
use oribi::cluster::{Membership, State};
use oribi::coordination::Op;
use oribi::coordination::embedded::EmbeddedSession;
use oribi::storage::Error;
use oribi::storage::managed::{
    Change, Commit, Commits, NewFiles, NewTable, TableFiles, columns_of, create, table_location,
};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::cluster::options;
use crate::link::Link;
use crate::processes::{Processes, RECOVERY};
use crate::sim::{Event, Sim, Write, at_once, lock};

const PROCESSES: usize = 3;
const WAREHOUSE: &str = "memory://warehouse";
const TABLE: &str = "/catalog/oribi/t";

/// What became of a commit, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Done,
    Failed,
}

/// What all processes of a schedule share.
struct Shared {
    stores: Arc<dyn ObjectStoreRegistry>,
    /// To look at the files from the outside.
    reader: TableFiles,
    schema: OnceLock<i32>,
    /// The data files of each manifest that was looked at: they never change, and to parse them is what would
    /// take the most time of all.
    manifests: Mutex<HashMap<String, Arc<Vec<String>>>>,
    /// Commits by the file that each brings.
    commits: Mutex<BTreeMap<String, Told>>,
}

impl Shared {
    fn new() -> Self {
        let stores = DefaultObjectStoreRegistry::new();
        let url = Url::parse(WAREHOUSE).expect("a URL");
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        stores.register_store(&url, memory);
        let stores: Arc<dyn ObjectStoreRegistry> = Arc::new(stores);
        let reader = files(&stores);
        let (schema, manifests, commits) = Default::default();
        Self { stores, reader, schema, manifests, commits }
    }

    /// Bytes of a file, from memory.
    fn read(&self, url: &str) -> Result<bytes::Bytes, Error> {
        at_once(self.reader.read(url))
    }

    /// How often each data file is in the table.
    fn content(&self, metadata: &str) -> Result<BTreeMap<String, usize>, Error> {
        let metadata = at_once(self.reader.metadata(metadata))?;
        let mut content = BTreeMap::new();
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(content) };
        let list = self.read(snapshot.manifest_list())?;
        let list = ManifestList::parse_with_version(&list, FormatVersion::V2).expect("a list");
        for manifest in list.entries() {
            for file in self.manifest(&manifest.manifest_path)?.iter() {
                *content.entry(file.clone()).or_default() += 1;
            }
        }
        Ok(content)
    }

    /// The data files that a manifest has.
    fn manifest(&self, url: &str) -> Result<Arc<Vec<String>>, Error> {
        if let Some(known) = lock(&self.manifests).get(url) {
            return Ok(known.clone());
        }
        let manifest = Manifest::parse_avro(&self.read(url)?).expect("a manifest");
        let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
        let files: Arc<Vec<String>> =
            Arc::new(alive.map(|entry| entry.file_path().to_owned()).collect());
        lock(&self.manifests).insert(url.to_owned(), files.clone());
        Ok(files)
    }
}

/// A daemon's own way to the files.
fn files(stores: &Arc<dyn ObjectStoreRegistry>) -> TableFiles {
    TableFiles::new(stores.clone(), Arc::new(UnboundedMemoryPool::default()), 1 << 20)
}

fn name() -> TableName {
    TableName::new(DEFAULT_DATABASE, PUBLIC, "t")
}

/// The URL of the table's metadata.
fn metadata(data: &[u8]) -> String {
    let record: Value = serde_json::from_slice(data).expect("a record");
    record["metadata"].as_str().expect("a managed table").to_owned()
}

pub async fn run(sim: Arc<Sim>) {
    let shared = Arc::new(Shared::new());
    at_once(make_table(sim.connect(), &shared));
    let judged = shared.clone();
    sim.add_judge(move |sim, event| {
        if let Event::Write(write) = event
            && write.done.is_ok()
        {
            judge(sim, &judged, write);
        }
    });
    let (own, known) = (sim.clone(), shared.clone());
    let program =
        move |number, link, leave| daemon(own.clone(), known.clone(), number, link, leave).boxed();
    let processes = Processes::start(&sim, PROCESSES, Arc::new(program));
    let time = sim.between(2_000, 10_000);
    processes.suffer(time).await;
    sim.wait(RECOVERY).await;
    if !sim.is_over() {
        account(&sim, &shared);
    }
}

async fn make_table(store: Arc<EmbeddedSession>, shared: &Shared) {
    let catalog = Catalog::open(store).await.expect("a catalog");
    let fields = vec![arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true)];
    let table = NewTable {
        fields,
        partitioning: Vec::new(),
        sort: Vec::new(),
        properties: Default::default(),
        cluster: uuid::Uuid::nil(),
    };
    let location = table_location(WAREHOUSE, &self::name());
    let (url, metadata) = create(&shared.reader, &location, table).await.expect("a table");
    shared.schema.set(metadata.current_schema_id()).expect("one table");
    let columns = columns_of(&metadata, &[]).expect("columns");
    let managed = Managed::new(metadata.uuid(), url, None);
    let (definition, mode) = (Definition::Managed(managed), CreateMode::Fail);
    let name = self::name();
    let made = catalog.create_table(&name, FIRST_ROLE, columns, definition, mode, Vec::new());
    assert!(made.await.expect("a table"));
}

async fn daemon(
    sim: Arc<Sim>,
    shared: Arc<Shared>,
    number: usize,
    link: Arc<Link>,
    leave: CancellationToken,
) {
    let options = options(&sim, number, &format!("d{number}"));
    let Ok(membership) = Membership::join(link.clone(), options).await else { return };
    let Ok(catalog) = Catalog::open(link.clone()).await else { return };
    membership.set_state(State::Ready).await;
    let memory = Arc::new(UnboundedMemoryPool::default());
    let commits = Commits::new(
        Arc::new(files(&shared.stores)),
        catalog.clone(),
        membership.clone(),
        (Handle::current(), memory),
    );
    let client = || client(&sim, &shared, &catalog, &commits, &link);
    let clients =
        async { futures::join!(client(), client(), wavering_client(&sim, &catalog, &link.name)) };
    let end = CancellationToken::new();
    tokio::select! {
        biased;
        () = leave.cancelled() => {}
        () = membership.evicted().cancelled() => {}
        () = membership.clone().follow(end.clone()) => {}
        () = catalog.clone().follow(end.clone()) => {}
        _ = clients => {}
    }
}

/// Appends now and then.
async fn client(
    sim: &Sim,
    shared: &Shared,
    catalog: &Catalog,
    commits: &Arc<Commits>,
    link: &Link,
) {
    loop {
        sleep(sim.between(20, 1500)).await;
        if sim.is_calm() {
            continue;
        }
        let file = format!("{WAREHOUSE}/{}-{}.parquet", link.name, sim.number());
        let Ok(table) = catalog.table(&name(), Consistency::Cached).await else { continue };
        let changes = vec![Change::Append(NewFiles { spec_id: 0, files: vec![data_file(&file)] })];
        let schema_id = *shared.schema.get().expect("made before");
        let commit = Commit { table, changes, schema_id, fences: Vec::new() };
        lock(&shared.commits).insert(file.clone(), Told::Nothing);
        let patience = sim.happens(30).then(|| sim.between(0, 300));
        let stop = async {
            match patience {
                Some(patience) => sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let told = match commits.commit(commit, stop).await {
            Ok(_) => {
                // Nobody who asks this daemon from now on misses it, in touch with the store or not.
                let seen = catalog.snapshot().table(&name()).map(|table| {
                    let record = serde_json::to_vec(&table.record).expect("a record");
                    shared.content(&metadata(&record))
                });
                match seen {
                    Some(Ok(content)) if content.contains_key(&file) => {}
                    Some(Err(error)) => {
                        sim.violated(format!("the table is damaged: {}", chain(&error)))
                    }
                    _ => sim.violated(format!("{file} is done, and its daemon does not see it")),
                }
                Told::Done
            }
            Err(error) if error.left_nothing() => {
                sim.tell(|| format!("{file} failed: {}", chain(&error)));
                Told::Failed
            }
            Err(error) => {
                sim.tell(|| format!("{file} is uncertain: {}", chain(&error)));
                Told::Nothing
            }
        };
        sim.tell(|| format!("{file}: {told:?}"));
        lock(&shared.commits).insert(file, told);
    }
}

/// Wants a turn at the table now and then, and gives it up, whether it has come or not.
async fn wavering_client(sim: &Sim, catalog: &Catalog, daemon: &str) {
    loop {
        sleep(sim.between(50, 3000)).await;
        if sim.is_calm() {
            continue;
        }
        let (name, stop) = (name(), CancellationToken::new());
        let mut turn = Box::pin(catalog.take_turn(&name, daemon, &stop));
        let taken = tokio::select! {
            biased;
            taken = &mut turn => taken,
            () = sleep(sim.between(0, 1000)) => match sim.happens(50) {
                true => {
                    stop.cancel();
                    turn.await
                }
                // As of a task that is aborted.
                false => None,
            },
        };
        if let Some(turn) = taken {
            sleep(sim.between(0, 50)).await;
            match sim.happens(80) {
                true => catalog.end_turn(turn).await,
                false => drop(turn),
            }
        }
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn data_file(url: &str) -> DataFile {
    let mut file = DataFileBuilder::default();
    file.content(DataContentType::Data)
        .file_path(url.to_owned())
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(100)
        .partition_spec_id(0);
    file.build().expect("a data file")
}

fn judge(sim: &Sim, shared: &Shared, write: &Write<'_>) {
    for (op, before) in write.ops.iter().zip(&write.before) {
        let (Op::Set { path, data, .. }, Some(before)) = (op, before) else { continue };
        if path != TABLE {
            continue;
        }
        let name = &write.link.name;
        let (was, is) = (metadata(&before.data), metadata(data));
        let state = match shared.read(&is) {
            Ok(state) => state,
            Err(error) => return sim.violated(format!("{name} has made {is}: {}", chain(&error))),
        };
        let state: Value = serde_json::from_slice(&state).expect("metadata");
        let log = state["metadata-log"].as_array().expect("a log");
        let from = log.last().and_then(|entry| entry["metadata-file"].as_str());
        if from != Some(&was) {
            sim.violated(format!("{name} has made {is} of {from:?}, but the table was {was}"));
        }
        let number = name.split('.').next().unwrap_or_default();
        let record = sim.node(&format!("/daemons/d{number}"));
        if record.is_none_or(|record| record.stat.ephemeral_owner != write.link.id()) {
            sim.violated(format!("{name} has made {is} and is not registered"));
        }
    }
}

/// Compares what clients were told with what there is.
fn account(sim: &Sim, shared: &Shared) {
    let places = sim.children(TABLE);
    if !places.is_empty() {
        sim.violated(format!("places in the queue are left: {places:?}"));
    }
    let node = sim.node(TABLE).expect("the table");
    let mut content = match shared.content(&metadata(&node.data)) {
        Ok(content) => content,
        Err(error) => return sim.violated(format!("the table is damaged: {}", chain(&error))),
    };
    for (file, told) in lock(&shared.commits).iter() {
        let times = content.remove(file).unwrap_or_default();
        let right = match told {
            Told::Done => times == 1,
            Told::Failed => times == 0,
            Told::Nothing => times <= 1,
        };
        if !right {
            sim.violated(format!("{file} was told to be {told:?} and is there {times} times"));
        }
    }
    if !content.is_empty() {
        sim.violated(format!("nobody has added {content:?}"));
    }
}
