//! Which scans filter their rows while files are decoded, before the other columns are.
//!
//! It pays where a look at few columns spares many: where statistics say that few rows are found, and
//! where the conditions read a small part of what the scan reads. It costs where most columns are in the
//! conditions, and where a LIMIT is about to end the scan: a condition is looked at for a whole row group
//! before the first row leaves.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{AnalysisContext, analyze, split_conjunction};
use datafusion::physical_plan::PhysicalExpr;

use super::conditions::{cannot_fail, compares};

/// The part of the rows that is few.
const FEW: f64 = 0.001;

/// How many times as wide as the columns of conditions the others are, where it pays to decode them
/// later.
const WIDER: usize = 8;

/// Bytes that a value is taken for whose type does not tell.
const USUAL_WIDTH: usize = 24;

/// Whether a scan is to filter while it decodes. `hurried`: a LIMIT may end it soon.
pub(super) fn pays(config: &FileScanConfig, source: &ParquetSource, hurried: bool) -> bool {
    let Some(filter) = source.filter() else { return false };
    // What fails while a file is decoded would be taken for the file's failure.
    cannot_fail(&filter)
        && (finds_few(&filter, config) || (!hurried && spares_much(&filter, config, source)))
}

fn finds_few(filter: &Arc<dyn PhysicalExpr>, config: &FileScanConfig) -> bool {
    if !split_conjunction(filter).into_iter().all(compares) {
        return false;
    }
    // What columns of the files' own rows are known for; others are made of the files' names.
    let schema = config.file_schema();
    let statistics = config.statistics();
    let Some(columns) = statistics.column_statistics.get(..schema.fields().len()) else {
        return false;
    };
    let known = AnalysisContext::try_from_statistics(schema, columns);
    let found = known.and_then(|known| analyze(filter, known, schema));
    found.is_ok_and(|found| found.selectivity.is_some_and(|selectivity| selectivity <= FEW))
}

/// Whether what the conditions read is narrow beside what only found rows are read of.
fn spares_much(
    filter: &Arc<dyn PhysicalExpr>,
    config: &FileScanConfig,
    source: &ParquetSource,
) -> bool {
    let schema = config.file_schema();
    let looked_at = collect_columns(filter);
    let narrow: usize = looked_at.iter().map(|column| width(schema, column.index())).sum();
    let projected = match source.projection() {
        Some(projection) => projection.column_indices(),
        None => (0..schema.fields().len()).collect(),
    };
    let others =
        projected.iter().filter(|at| looked_at.iter().all(|column| column.index() != **at));
    let wide: usize = others.map(|at| width(schema, *at)).sum();
    narrow.saturating_mul(WIDER) <= wide
}

/// Bytes of a column's value, roughly; none of one that is not in the files.
fn width(schema: &Schema, at: usize) -> usize {
    match schema.fields().get(at).map(|field| field.data_type()) {
        None => 0,
        Some(DataType::Boolean) => 1,
        Some(kind) => kind.primitive_width().unwrap_or(USUAL_WIDTH),
    }
}
