//! Functions and their parameters: what `pg_proc` lists, in the standard's words.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::View;
use super::super::pg_catalog::procedures::{self, Procedure};
use super::super::relations::Relation;
use super::super::rows::Rows;
use super::data_type;

/// Several functions have the same name.
fn specific_name(procedure: &Procedure) -> String {
    format!("{}_{}", procedure.name, procedure.oid)
}

pub fn routines(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "specific_catalog",
            "specific_schema",
            "specific_name",
            "routine_catalog",
            "routine_schema",
            "routine_name",
            "routine_type",
            "data_type",
            "type_udt_catalog",
            "type_udt_schema",
            "type_udt_name",
            "dtd_identifier",
            "routine_body",
            "external_language",
            "parameter_style",
            "is_deterministic",
            "sql_data_access",
            "is_null_call",
            "schema_level_routine",
            "max_dynamic_result_sets",
            "security_type",
            "as_locator",
            "is_udt_dependent",
        ],
    );
    let database = view.session.database.as_ref();
    for procedure in procedures::callable() {
        let (data_type, udt_name) = data_type(procedure.result);
        rows.push([
            database.into(),
            procedure.schema.into(),
            specific_name(procedure).into(),
            database.into(),
            procedure.schema.into(),
            procedure.name.as_str().into(),
            // Aggregates are no routines to the standard, and PostgreSQL lists them all the same.
            (procedure.kind == "f").then_some("FUNCTION").into(),
            data_type.into(),
            database.into(),
            "pg_catalog".into(),
            udt_name.into(),
            "0".into(),
            "EXTERNAL".into(),
            "INTERNAL".into(),
            "GENERAL".into(),
            if procedure.volatility == "i" { "YES" } else { "NO" }.into(),
            "MODIFIES".into(),
            if procedure.is_strict { "YES" } else { "NO" }.into(),
            "YES".into(),
            0.into(),
            "INVOKER".into(),
            "NO".into(),
            "NO".into(),
        ]);
    }
    rows.finish()
}

pub fn parameters(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "specific_catalog",
            "specific_schema",
            "specific_name",
            "ordinal_position",
            "parameter_mode",
            "is_result",
            "as_locator",
            "parameter_name",
            "data_type",
            "udt_catalog",
            "udt_schema",
            "udt_name",
            "dtd_identifier",
        ],
    );
    let database = view.session.database.as_ref();
    for procedure in procedures::callable() {
        let mut names = procedure.names.iter();
        for (argument, position) in procedure.arguments.iter().zip(1i64..) {
            let (data_type, udt_name) = data_type(*argument);
            rows.push([
                database.into(),
                procedure.schema.into(),
                specific_name(procedure).into(),
                position.into(),
                "IN".into(),
                "NO".into(),
                "NO".into(),
                names.next().copied().into(),
                data_type.into(),
                database.into(),
                "pg_catalog".into(),
                udt_name.into(),
                position.to_string().into(),
            ]);
        }
    }
    rows.finish()
}
