//! Who may do what. Until there are roles, everybody may do everything.

use datafusion::error::Result;

use super::super::rows::Value;
use super::Kind::{Any, Int, Text};
use super::{Call, Kind, Spec, spec};

/// An object and a privilege, with the role in front or not.
const OBJECT: &[&[Kind]] = &[&[Any, Text], &[Any, Any, Text]];
/// The same for a column of an object.
const COLUMN: &[&[Kind]] = &[&[Any, Any, Text], &[Any, Any, Any, Text]];

pub const FUNCTIONS: &[Spec] = &[
    spec("has_any_column_privilege", OBJECT, "bool", yes),
    spec("has_column_privilege", COLUMN, "bool", yes),
    spec("has_database_privilege", OBJECT, "bool", yes),
    spec("has_foreign_data_wrapper_privilege", OBJECT, "bool", yes),
    spec("has_function_privilege", OBJECT, "bool", yes),
    spec("has_language_privilege", OBJECT, "bool", yes),
    spec("has_parameter_privilege", OBJECT, "bool", yes),
    spec("has_schema_privilege", OBJECT, "bool", yes),
    spec("has_sequence_privilege", OBJECT, "bool", yes),
    spec("has_server_privilege", OBJECT, "bool", yes),
    spec("has_table_privilege", OBJECT, "bool", yes),
    spec("has_tablespace_privilege", OBJECT, "bool", yes),
    spec("has_type_privilege", OBJECT, "bool", yes),
    spec("pg_has_role", OBJECT, "bool", yes),
    spec("row_security_active", &[&[Int], &[Text]], "bool", no),
];

fn yes(_: &Call<'_, '_>) -> Result<Value> {
    Ok(true.into())
}

fn no(_: &Call<'_, '_>) -> Result<Value> {
    Ok(false.into())
}
