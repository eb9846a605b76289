//! Which files a worker reads: as far as possible the same ones each time, whoever coordinates and
//! whoever else is there, so that their footers and pages are in its memory already.
//!
//! Files are cut into pieces, and each piece goes to the task of the worker that ranks highest for it
//! (rendezvous hashing: a worker that comes or goes moves only its own pieces), unless that one has
//! its share already: then to the next (bounded loads, Mirrokni et al. 2018).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DistributedLeafExec, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse,
};
use url::Url;

use super::codec::scan_of;
use super::stages::Pinned;

/// Pieces for each task from which on shares become even. With fewer, files are cut in as many parts of
/// the same size as there are partitions: a task without work costs more than a cold file.
const PIECES_FOR_TASK: usize = 8;

/// Bytes of a piece at most: larger than most files and row groups, so that few are cut.
const PIECE_BYTES: u64 = 256 << 20;

/// How much more than its share a worker takes of what it has seen before, in percent.
const SURPLUS: u64 = 10;

/// Cuts a scan into one for each task.
pub(super) fn assign(
    event: ScaleUpLeafNodeEvent<'_>,
) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
    let scan = scan_of(event.plan.as_ref())?;
    let pinned = event.session_config.get_extension::<Pinned>()?;
    // Rows in order stay in the files and ranges that they are in.
    let ordered = !scan.output_ordering.is_empty() || scan.output_partitioning.is_some();
    if ordered || event.task_count == 1 || pinned.urls.len() < event.task_count {
        return None;
    }
    let pieces = pieces(scan);
    if pieces.len() < PIECES_FOR_TASK * event.task_count {
        return None;
    }
    let workers = &pinned.urls[..event.task_count];
    let parts = shares(pieces, workers).into_iter().map(|pieces| {
        let mut part = scan.clone();
        part.file_groups = grouped(pieces, scan.file_groups.len());
        DataSourceExec::from_data_source(part) as Arc<dyn ExecutionPlan>
    });
    let leaf = DistributedLeafExec::try_new(event.plan.clone(), parts);
    Some(leaf.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
}

/// A scan's files in pieces. The cuts that the plan has made are undone: they depend on the number of
/// its partitions.
fn pieces(scan: &FileScanConfig) -> Vec<PartitionedFile> {
    let mut files: Vec<&PartitionedFile> =
        scan.file_groups.iter().flat_map(|group| group.files()).collect();
    files.sort_by(|a, b| place(a).cmp(&place(b)));
    let mut pieces: Vec<PartitionedFile> = Vec::with_capacity(files.len());
    for file in files {
        let (mut start, end) = file.range();
        if let Some(last) = pieces.last_mut()
            && last.object_meta.location == file.object_meta.location
            && last.range().1 == start
            && !start.is_multiple_of(PIECE_BYTES)
        {
            let (from, until) = (last.range().0, end.min(start.next_multiple_of(PIECE_BYTES)));
            last.range = range(from, until);
            start = until;
        }
        while start < end {
            let until = end.min((start + 1).next_multiple_of(PIECE_BYTES));
            let mut piece = file.clone();
            piece.range = range(start, until);
            pieces.push(piece);
            start = until;
        }
    }
    pieces
}

fn place(file: &PartitionedFile) -> (&str, (u64, u64)) {
    (file.object_meta.location.as_ref(), file.range())
}

fn range(start: u64, end: u64) -> Option<FileRange> {
    Some(FileRange { start: start.cast_signed(), end: end.cast_signed() })
}

/// The pieces for each of the workers.
fn shares(pieces: Vec<PartitionedFile>, workers: &[Url]) -> Vec<Vec<PartitionedFile>> {
    let total: u64 = pieces.iter().map(PartitionedFile::effective_size).sum();
    let limit = (total / workers.len() as u64).saturating_mul(100 + SURPLUS) / 100;
    let mut shares = vec![(0, Vec::new()); workers.len()];
    for piece in pieces {
        let bytes = piece.effective_size();
        let room = (0..workers.len()).filter(|at| shares[*at].0 + bytes <= limit);
        let best = room.max_by_key(|at| rank(&workers[*at], &piece));
        // The last pieces may fit nowhere: then whoever has least.
        let best = best.or_else(|| (0..workers.len()).min_by_key(|at| shares[*at].0));
        if let Some((load, share)) = best.and_then(|at| shares.get_mut(at)) {
            *load += bytes;
            share.push(piece);
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}

fn rank(worker: &Url, piece: &PartitionedFile) -> u64 {
    // With the same keys in every process.
    let mut hasher = DefaultHasher::new();
    let (path, (start, _)) = place(piece);
    (worker.as_str(), path, start / PIECE_BYTES).hash(&mut hasher);
    hasher.finish()
}

/// Pieces in groups of about the same size, one for each of a task's partitions.
fn grouped(pieces: Vec<PartitionedFile>, count: usize) -> Vec<FileGroup> {
    let mut groups = vec![(0, Vec::new()); count.max(1)];
    for piece in pieces {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += piece.effective_size();
            group.push(piece);
        }
    }
    groups.into_iter().map(|(_, group)| FileGroup::new(group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: usize, start: u64, end: u64) -> PartitionedFile {
        let mut file = PartitionedFile::new(format!("{name:03}.parquet"), end);
        file.range = range(start, end);
        file
    }

    fn workers(count: usize) -> Vec<Url> {
        (0..count).map(|at| Url::parse(&format!("https://10.0.0.{at}:7439")).unwrap()).collect()
    }

    /// Which worker has each file.
    fn owners(shares: &[Vec<PartitionedFile>]) -> Vec<(String, usize)> {
        let mut owners: Vec<_> = (shares.iter().enumerate())
            .flat_map(|(at, share)| share.iter().map(move |file| (place(file).0.to_owned(), at)))
            .collect();
        owners.sort();
        owners
    }

    #[test]
    fn a_worker_that_goes_moves_few_files_of_the_others() {
        let files: Vec<_> = (0..300).map(|name| file(name, 0, 10 << 20)).collect();
        let four = workers(4);
        let before = owners(&shares(files.clone(), &four));
        let after = owners(&shares(files, &four[..3]));
        let kept = before.iter().filter(|(_, at)| *at < 3).count();
        let stayed = before.iter().filter(|owner| owner.1 < 3 && after.contains(owner)).count();
        assert!(stayed * 10 >= kept * 8, "{stayed} of {kept}");
    }

    #[test]
    fn shares_are_even() {
        let files: Vec<_> =
            (0..300).map(|name| file(name, 0, (1 + name as u64 % 7) << 20)).collect();
        let total: u64 = files.iter().map(PartitionedFile::effective_size).sum();
        for share in shares(files, &workers(3)) {
            let bytes: u64 = share.iter().map(PartitionedFile::effective_size).sum();
            assert!(bytes * 100 <= total / 3 * 115, "{bytes} of {total}");
        }
    }

    #[test]
    fn pieces_do_not_depend_on_the_cuts_of_the_plan() {
        let cut = |cuts: &[(u64, u64)]| {
            let source = datafusion::datasource::physical_plan::ParquetSource::new(Arc::new(
                arrow::datatypes::Schema::empty(),
            ));
            let groups =
                cuts.iter().map(|(start, end)| FileGroup::new(vec![file(1, *start, *end)]));
            let store = datafusion::execution::object_store::ObjectStoreUrl::local_filesystem();
            let scan = datafusion::datasource::physical_plan::FileScanConfigBuilder::new(
                store,
                Arc::new(source),
            )
            .with_file_groups(groups.collect())
            .build();
            pieces(&scan).iter().map(PartitionedFile::range).collect::<Vec<_>>()
        };
        let end = 2 * PIECE_BYTES + 7;
        let whole = vec![(0, PIECE_BYTES), (PIECE_BYTES, 2 * PIECE_BYTES), (2 * PIECE_BYTES, end)];
        assert_eq!(cut(&[(0, end)]), whole);
        assert_eq!(cut(&[(PIECE_BYTES + 5, end), (0, 9), (9, PIECE_BYTES + 5)]), whole);
    }
}
