//! Memory and disk as a statement takes them, counted.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;

use crate::storage;

/// What one statement has taken on this daemon, in bytes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    used: AtomicUsize,
    peak: AtomicUsize,
    spilled: AtomicU64,
}

impl Usage {
    /// Memory that it has held at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed) as u64
    }

    /// What did not fit into memory.
    pub fn spilled(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    /// What a statement runs with so that it is counted here. Whatever is shared stays so.
    pub fn of(self: &Arc<Self>, environment: &RuntimeEnv) -> Arc<RuntimeEnv> {
        let memory_pool =
            Arc::new(Memory { inner: environment.memory_pool.clone(), usage: self.clone() });
        let disk_manager = self.disk(&environment.disk_manager);
        let disk_manager = disk_manager.unwrap_or(environment.disk_manager.clone());
        Arc::new(RuntimeEnv { memory_pool, disk_manager, ..environment.clone() })
    }

    fn disk(self: &Arc<Self>, shared: &Arc<DiskManager>) -> Option<Arc<DiskManager>> {
        let files = Files { shared: shared.clone(), usage: self.clone() };
        let counted = DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(files))
            .with_max_spill_merge_fan_in(shared.max_spill_merge_fan_in());
        // It opens nothing, and so has nothing to fail with.
        counted.build().ok().map(Arc::new)
    }
}

#[derive(Debug)]
struct Memory {
    inner: Arc<dyn MemoryPool>,
    usage: Arc<Usage>,
}

impl Memory {
    fn add(&self, bytes: usize) {
        let Usage { used, peak, .. } = self.usage.as_ref();
        let now = used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        peak.fetch_max(now, Ordering::Relaxed);
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl MemoryPool for Memory {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
        self.usage.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> EngineResult<()> {
        self.inner.try_grow(reservation, additional)?;
        self.add(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

/// Makes files where all make them, within what all may have.
struct Files {
    shared: Arc<DiskManager>,
    usage: Arc<Usage>,
}

impl TempFileFactory for Files {
    fn create_temp_file(&self, description: &str) -> EngineResult<Arc<dyn SpillFile>> {
        let inner = self.shared.create_tmp_file(description).map_err(|error| {
            let places = self.shared.temp_dir_paths();
            not_written(places.first().map(PathBuf::as_path), error)
        })?;
        Ok(Arc::new(File { inner, usage: self.usage.clone() }))
    }
}

struct File {
    inner: Arc<dyn SpillFile>,
    usage: Arc<Usage>,
}

impl SpillFile for File {
    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }

    fn size(&self) -> Option<u64> {
        self.inner.size()
    }

    fn read_stream(&self) -> EngineResult<Pin<Box<dyn Stream<Item = EngineResult<Bytes>> + Send>>> {
        self.inner.read_stream()
    }

    fn open_writer(&self) -> EngineResult<Box<dyn SpillWriter>> {
        let opened = self.inner.open_writer();
        let inner = opened.map_err(|error| not_written(self.inner.path(), error))?;
        Ok(Box::new(Writer { inner, usage: self.usage.clone() }))
    }
}

/// What has kept a file from being written, with its place: the system's own words may name that, too, and it
/// is not everybody's business.
fn not_written(place: Option<&Path>, error: DataFusionError) -> DataFusionError {
    match (place, error) {
        (Some(place), DataFusionError::IoError(error)) => {
            let error = storage::Error::not_written(place.display().to_string(), error);
            DataFusionError::External(Box::new(error))
        }
        (_, error) => error,
    }
}

struct Writer {
    inner: Box<dyn SpillWriter>,
    usage: Arc<Usage>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.usage.spilled.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> EngineResult<()> {
        self.inner.finish()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    #[test]
    fn what_is_taken_is_counted_and_stays_everybodys() {
        let shared = RuntimeEnvBuilder::new().build_arc().expect("an environment");
        let usage = Arc::<Usage>::default();
        let counted = usage.of(&shared);
        let memory = MemoryConsumer::new("test").register(&counted.memory_pool);
        memory.try_grow(100).expect("memory");
        memory.shrink(70);
        memory.try_grow(20).expect("memory");
        assert_eq!((usage.peak(), shared.memory_pool.reserved()), (100, 50));

        let file = counted.disk_manager.create_tmp_file("test").expect("a file");
        let mut writer = file.open_writer().expect("a writer");
        writer.write_all(b"spilled").expect("written");
        writer.finish().expect("written");
        assert_eq!((usage.spilled(), file.size()), (7, Some(7)));
        assert_eq!(shared.disk_manager.used_disk_space(), 7);
        let path = file.path().expect("a file of this system").to_owned();
        assert_eq!(std::fs::read(path).expect("the file"), b"spilled");
        drop((file, writer));
        // What has been written was written.
        assert_eq!((usage.spilled(), shared.disk_manager.used_disk_space()), (7, 0));
        // What all may have bounds what one has.
        shared.disk_manager.set_max_temp_directory_size(3).expect("a limit");
        let file = counted.disk_manager.create_tmp_file("test").expect("a file");
        let mut writer = file.open_writer().expect("a writer");
        writer.write_all(b"spilled").expect_err("too much");
        assert_eq!(usage.spilled(), 7);
        // What cannot be made is told of with its place.
        let place = shared.disk_manager.temp_dir_paths().remove(0);
        std::fs::remove_dir_all(&place).expect("nothing is in it");
        let error = counted.disk_manager.create_tmp_file("test").err().expect("no directory");
        let DataFusionError::External(error) = error else { panic!("{error}") };
        let error = error.downcast::<storage::Error>().expect("one of files");
        assert_eq!(error.file(), place.to_str());
    }
}
