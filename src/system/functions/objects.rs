//! Names, comments and definitions of what the catalog holds.

use datafusion::error::Result;

use super::super::pg_catalog::objects::{PG_CLASS, PG_DATABASE, PG_NAMESPACE, with_semicolon};
use super::super::pg_catalog::{procedures, roles};
use super::super::relations;
use super::super::rows::Value;
use super::super::types::types;
use super::Kind::{Any, Bool, Int, Text};
use super::names::{relation_exists, resolve_relation};
use super::{Call, Kind, Spec, spec};

const OID: &[&[Kind]] = &[&[Int]];
const OID_PRETTY: &[&[Kind]] = &[&[Int], &[Int, Bool]];

const VIEW: &[&[Kind]] = &[&[Int], &[Int, Bool], &[Int, Int], &[Text], &[Text, Bool]];

pub const FUNCTIONS: &[Spec] = &[
    spec("pg_get_userbyid", OID, "name", user_name),
    spec("pg_table_is_visible", OID, "bool", table_is_visible),
    spec("pg_type_is_visible", OID, "bool", type_is_visible),
    // What is the same everywhere lies in pg_catalog, which is always searched.
    spec("pg_collation_is_visible", OID, "bool", yes),
    spec("pg_conversion_is_visible", OID, "bool", yes),
    spec("pg_function_is_visible", OID, "bool", yes),
    spec("pg_opclass_is_visible", OID, "bool", yes),
    spec("pg_operator_is_visible", OID, "bool", yes),
    spec("pg_opfamily_is_visible", OID, "bool", yes),
    spec("pg_statistics_obj_is_visible", OID, "bool", yes),
    spec("pg_ts_config_is_visible", OID, "bool", yes),
    spec("pg_ts_dict_is_visible", OID, "bool", yes),
    spec("pg_ts_parser_is_visible", OID, "bool", yes),
    spec("pg_ts_template_is_visible", OID, "bool", yes),
    spec("obj_description", &[&[Int], &[Int, Text]], "text", object_comment),
    spec("col_description", &[&[Int, Int]], "text", column_comment),
    spec("shobj_description", &[&[Int, Text]], "text", shared_comment),
    spec("format_type", &[&[Int, Int]], "text", format_type).nullable(),
    spec("pg_get_viewdef", VIEW, "text", view_definition),
    spec("pg_get_function_arguments", OID, "text", function_arguments),
    spec("pg_get_function_identity_arguments", OID, "text", function_arguments),
    spec("pg_get_function_result", OID, "text", function_result),
    // An expression stands in the catalog as its text.
    spec("pg_get_expr", &[&[Text, Int], &[Text, Int, Bool]], "text", expression),
    spec("pg_relation_is_publishable", OID, "bool", no),
    spec("pg_relation_is_updatable", &[&[Int, Bool]], "int4", zero),
    spec("pg_column_is_updatable", &[&[Int, Int, Bool]], "bool", no),
    // Definitions of what does not exist here.
    spec("pg_get_constraintdef", OID_PRETTY, "text", nothing),
    spec("pg_get_function_arg_default", &[&[Int, Int]], "text", nothing),
    spec("pg_get_function_sqlbody", OID, "text", nothing),
    spec("pg_get_functiondef", OID, "text", nothing),
    spec("pg_get_indexdef", &[&[Int], &[Int, Int, Bool]], "text", nothing),
    spec("pg_get_partition_constraintdef", OID, "text", nothing),
    spec("pg_get_partkeydef", OID, "text", nothing),
    spec("pg_get_ruledef", OID_PRETTY, "text", nothing),
    spec("pg_get_serial_sequence", &[&[Any, Text]], "text", nothing),
    spec("pg_get_statisticsobjdef", OID, "text", nothing),
    spec("pg_get_statisticsobjdef_columns", OID, "text", nothing),
    spec("pg_get_triggerdef", OID_PRETTY, "text", nothing),
];

fn yes(_: &Call<'_, '_>) -> Result<Value> {
    Ok(true.into())
}

fn no(_: &Call<'_, '_>) -> Result<Value> {
    Ok(false.into())
}

fn zero(_: &Call<'_, '_>) -> Result<Value> {
    Ok(0.into())
}

fn nothing(_: &Call<'_, '_>) -> Result<Value> {
    Ok(Value::Null)
}

fn user_name(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    let name = roles::name(call.view, oid).map(str::to_owned);
    Ok(name.unwrap_or_else(|| format!("unknown (OID={oid})")).into())
}

fn table_is_visible(call: &Call<'_, '_>) -> Result<Value> {
    let Some(item) = call.relation(call.oid(0)) else { return Ok(Value::Null) };
    let path = call.session().search_path();
    let first = path.iter().find(|schema| relation_exists(call.view, schema, item.name()));
    Ok(first.is_some_and(|schema| schema == item.schema()).into())
}

fn type_is_visible(call: &Call<'_, '_>) -> Result<Value> {
    Ok(types().get(call.oid(0)).map(|_| true).into())
}

fn object_comment(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    let class = match call.args.get(1).and_then(Value::as_text) {
        Some(name) => relations::find("pg_catalog", name).map(|relation| relation.oid),
        None => Some(PG_CLASS),
    };
    Ok(match class {
        Some(PG_CLASS) => match call.relation(oid) {
            Some(super::RelationItem::User { table, .. }) => table.record.comment.as_deref().into(),
            _ => Value::Null,
        },
        Some(PG_NAMESPACE) => {
            call.index().schemas.get(&oid).and_then(|schema| schema.comment).into()
        }
        _ => Value::Null,
    })
}

fn column_comment(call: &Call<'_, '_>) -> Result<Value> {
    let Some(item) = call.relation(call.oid(0)) else { return Ok(Value::Null) };
    let column = usize::try_from(call.int(1) - 1).ok();
    let super::RelationItem::User { table, .. } = item else { return Ok(Value::Null) };
    let column = column.and_then(|column| table.record.columns.get(column));
    Ok(column.and_then(|column| column.comment.as_deref()).into())
}

fn shared_comment(call: &Call<'_, '_>) -> Result<Value> {
    let class = relations::find("pg_catalog", call.text(1)).map(|relation| relation.oid);
    if class != Some(PG_DATABASE) {
        return Ok(Value::Null);
    }
    let mut databases = call.view.snapshot.databases.values();
    let found = databases.find(|database| database.record.oid == call.oid(0));
    Ok(found.and_then(|database| database.record.comment.as_deref()).into())
}

fn format_type(call: &Call<'_, '_>) -> Result<Value> {
    let Some(oid) = call.args[0].as_oid() else { return Ok(Value::Null) };
    let modifier = call.args[1].as_int().and_then(|modifier| i32::try_from(modifier).ok());
    Ok(types().format(oid, modifier).into())
}

fn view_definition(call: &Call<'_, '_>) -> Result<Value> {
    let oid = match call.args[0].as_text() {
        Some(name) => resolve_relation(call.view, name),
        None => call.args[0].as_oid(),
    };
    let view = oid.and_then(|oid| call.relation(oid));
    Ok(view.and_then(|view| view.definition()).map(with_semicolon).into())
}

fn expression(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.text(0).into())
}

fn function_arguments(call: &Call<'_, '_>) -> Result<Value> {
    let Some(procedure) = procedures::get(call.oid(0)) else { return Ok(Value::Null) };
    let mut names: Vec<String> =
        procedure.arguments.iter().map(|oid| types().format(*oid, None)).collect();
    for (argument, name) in names.iter_mut().zip(&procedure.names) {
        argument.insert_str(0, &format!("{name} "));
    }
    if let Some(last) = names.last_mut().filter(|_| procedure.variadic) {
        last.insert_str(0, "VARIADIC ");
    }
    Ok(names.join(", ").into())
}

fn function_result(call: &Call<'_, '_>) -> Result<Value> {
    let Some(procedure) = procedures::get(call.oid(0)) else { return Ok(Value::Null) };
    let name = types().format(procedure.result, None);
    Ok(if procedure.returns_set { format!("SETOF {name}") } else { name }.into())
}
