//! EXPLAIN's answer in PostgreSQL's form: one column of text, a line a row.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Error, Result};

/// The kinds of plan shown unless VERBOSE asks for every step.
const SHOWN: [&str; 3] = ["physical_plan", "Plan with Metrics", "plan"];

pub fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}

/// Turns the engine's rows (kind of plan, plan) into lines.
pub fn explain_lines(batch: &RecordBatch) -> Result<RecordBatch> {
    let (kinds, plans) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
    let verbose = kinds.len() > 3;
    let single = kinds.len() == 1;
    let mut lines = Vec::new();
    for (kind, plan) in kinds.iter().zip(plans) {
        let (kind, plan) = (kind.unwrap_or_default(), plan.unwrap_or_default());
        if verbose {
            lines.push(format!("{kind}:"));
        } else if !single && !SHOWN.contains(&kind) {
            continue;
        }
        lines.extend(plan.lines().map(str::to_owned));
    }
    let column = Arc::new(StringArray::from(lines));
    RecordBatch::try_new(explain_schema(), vec![column])
        .map_err(|error| Error::Execution(error.into()))
}
