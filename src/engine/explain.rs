//! EXPLAIN's answer in PostgreSQL's form: one column of text, a line a row.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::parser::Statement;
use sqlparser::ast::Statement as SqlStatement;

use super::{Error, Result, Session};

/// The kinds of plan shown unless VERBOSE asks for every step.
const SHOWN: [&str; 3] = ["physical_plan", "Plan with Metrics", "plan"];

pub fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}

/// Turns the engine's rows (kind of plan, plan) into lines, below that of a statement that does
/// something with the plan's rows.
pub fn explain_lines(batch: &RecordBatch, heading: Option<&str>) -> Result<RecordBatch> {
    let (kinds, plans) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
    let verbose = kinds.len() > 3;
    let single = kinds.len() == 1;
    let mut lines: Vec<String> = heading.map(str::to_owned).into_iter().collect();
    let indent = if heading.is_some() { "  " } else { "" };
    for (kind, plan) in kinds.iter().zip(plans) {
        let (kind, plan) = (kind.unwrap_or_default(), plan.unwrap_or_default());
        if verbose {
            lines.push(format!("{indent}{kind}:"));
        } else if !single && !SHOWN.contains(&kind) {
            continue;
        }
        // Columns that only the engine knows, such as `_file` and `_pos`.
        lines.extend(plan.lines().map(|line| format!("{indent}{}", line.replace('\u{2}', "_"))));
    }
    let column = Arc::new(StringArray::from(lines));
    RecordBatch::try_new(explain_schema(), vec![column])
        .map_err(|error| Error::Execution(error.into()))
}

impl Session {
    /// EXPLAIN without VERBOSE for all but superusers: the statistics that VERBOSE shows are those of
    /// whole files, rows and columns included that a role may not see.
    pub(super) fn without_details(&self, statement: &Statement) -> Option<Statement> {
        let is_explain = match statement {
            Statement::Explain(_) => true,
            Statement::Statement(inner) => matches!(inner.as_ref(), SqlStatement::Explain { .. }),
            _ => false,
        };
        let info = self.info();
        if !is_explain || info.catalog.snapshot().access(&info.user).is_superuser() {
            return None;
        }
        let mut plain = statement.clone();
        match &mut plain {
            Statement::Explain(explain) => {
                explain.options.verbose = false;
                explain.options.show_statistics = None;
            }
            Statement::Statement(inner) => {
                if let SqlStatement::Explain { verbose, .. } = inner.as_mut() {
                    *verbose = false;
                }
            }
            _ => {}
        }
        Some(plain)
    }
}
