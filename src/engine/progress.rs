//! How far a running plan is: by the rows that its scans of files have given, against those that are
//! in the files. Rows, since bytes are read a group of rows at a time, long before they are worked on.

use std::ops::AddAssign;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use serde::{Deserialize, Serialize};

use super::distribution::{bytes_of_scan, scan_of};
use super::shared::SharedExec;

/// The scans of files in a plan, as far as they run.
pub(super) fn scans(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    let mut scans = Vec::new();
    // The closure never fails.
    let _ = plan.apply(|node| {
        scans.extend(scan_of(node.as_ref()).map(|_| node.clone()));
        let repeats = node.downcast_ref::<SharedExec>().is_some_and(SharedExec::repeats);
        Ok(if repeats { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    });
    scans
}

/// Bytes that scans have to read, and how many of these they are done with, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    all: f64,
    done: f64,
}

impl Progress {
    pub fn of<'a>(scans: impl IntoIterator<Item = &'a Arc<dyn ExecutionPlan>>) -> Self {
        let mut progress = Self::default();
        for node in scans {
            let Some(scan) = scan_of(node.as_ref()) else { continue };
            let bytes = bytes_of_scan(scan) as f64;
            progress += Self { all: bytes, done: bytes * Read::by(node).of(scan) };
        }
        progress
    }

    /// From 0 to 1. `None` if there is nothing to read.
    pub fn part(self) -> Option<f64> {
        (self.all > 0.0).then(|| self.done / self.all)
    }
}

impl AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.done += other.done;
    }
}

/// What a scan has measured so far.
struct Read {
    /// Rows that it is done with: those that it gave, and those that a filter in it took out.
    rows: usize,
    /// Files, or ranges of them.
    files: usize,
    /// The part of what it has looked at that it has to read: statistics told of the rest that nothing
    /// in it is wanted.
    wanted: f64,
}

impl Read {
    fn by(node: &Arc<dyn ExecutionPlan>) -> Self {
        let (mut rows, mut files, mut wanted) = (0, 0, 1.0);
        let metrics = node.metrics().unwrap_or_default().aggregate_by_name();
        for metric in metrics.iter() {
            match metric.value() {
                MetricValue::OutputRows(count) => rows += count.value(),
                MetricValue::Count { name, count } if name == "pushdown_rows_pruned" => {
                    rows += count.value();
                }
                MetricValue::Count { name, count } if name == "files_processed" => {
                    files += count.value();
                }
                MetricValue::PruningMetrics { name, pruning_metrics: seen } => {
                    match name.as_ref() {
                        "page_index_rows_pruned" => rows += seen.pruned(),
                        "files_ranges_pruned_statistics"
                        | "row_groups_pruned_statistics"
                        | "row_groups_pruned_bloom_filter" => {
                            let (matched, pruned) = (seen.matched() as f64, seen.pruned() as f64);
                            if matched > 0.0 {
                                wanted *= matched / (matched + pruned);
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Self { rows, files, wanted }
    }

    /// As a part of the whole scan.
    fn of(&self, scan: &FileScanConfig) -> f64 {
        let files = scan.file_groups.iter().map(|group| group.len()).sum::<usize>().max(1);
        let by_files = self.files as f64 / files as f64;
        let done = match rows_in(scan) {
            _ if by_files >= 1.0 => 1.0,
            Some(rows) => self.rows as f64 / (rows * self.wanted).max(1.0),
            None => by_files,
        };
        done.min(1.0)
    }
}

/// The rows that are in a scan's files, if all of these tell. Of a file that is read in part, as many
/// as that part has of its bytes.
fn rows_in(scan: &FileScanConfig) -> Option<f64> {
    let files = scan.file_groups.iter().flat_map(|group| group.files());
    let rows = files.map(|file| {
        let rows = *file.statistics.as_ref()?.num_rows.get_value()? as f64;
        Some(rows * file.effective_size() as f64 / file.object_meta.size.max(1) as f64)
    });
    rows.sum()
}
