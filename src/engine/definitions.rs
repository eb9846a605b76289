//! The statements that make tables and views again, as SHOW CREATE gives them. Names are always in
//! quotes, so that whatever they are, they mean the same.

use iceberg::spec::{NullOrder, SortDirection, SortField, TableMetadata, Transform};

use super::system::SessionInfo;
use crate::catalog::{Column, Definition, External, FileFormat, Managed, Table};
use crate::storage::FILE_EXTENSION;
use crate::storage::managed::{DELETE_AFTER_COMMIT, is_for_users, written_location};
use crate::values::types::written_type;

/// The statement for a table or view, as a session of its database, or of another one, makes it
/// again; `metadata` is that of a managed table.
pub(super) fn statement(
    table: &Table,
    metadata: Option<&TableMetadata>,
    session: &SessionInfo,
) -> String {
    let mut name = format!("{}.{}", quoted(&table.name.schema), quoted(&table.name.table));
    if *table.name.database != *session.database {
        name = format!("{}.{name}", quoted(&table.name.database));
    }
    match (&table.record.definition, metadata) {
        (Definition::View { sql, security_barrier, .. }, _) => {
            let options = if *security_barrier { " WITH (security_barrier = true)" } else { "" };
            format!("CREATE VIEW {name}{options} AS\n{sql}")
        }
        (Definition::External(external), _) => {
            external_statement(&name, &table.record.columns, external)
        }
        (Definition::Managed(managed), metadata) => {
            let mut lines =
                vec![format!("CREATE TABLE {name} (\n{}\n)", columns(&table.record.columns))];
            if let Some(metadata) = metadata {
                lines.extend(clauses(metadata, location(managed, metadata, session)));
            }
            lines.join("\n")
        }
    }
}

fn external_statement(name: &str, all: &[Column], external: &External) -> String {
    let External { location, format, partition_columns, options } = external;
    // Where a type has no name, the columns are those that the files have.
    let listed = match all.iter().all(|column| written_type(&column.field()).is_some()) {
        true => format!(" (\n{}\n)", columns(all)),
        false => String::new(),
    };
    let format = match format {
        FileFormat::Parquet => "PARQUET",
        FileFormat::Csv => "CSV",
        FileFormat::Json => "JSON",
    };
    let mut lines =
        vec![format!("CREATE EXTERNAL TABLE {name}{listed}"), format!("STORED AS {format}")];
    if !partition_columns.is_empty() {
        let names: Vec<_> = partition_columns.iter().map(|name| quoted(name)).collect();
        lines.push(format!("PARTITIONED BY ({})", names.join(", ")));
    }
    lines.push(format!("LOCATION {}", literal(location)));
    // A single file's name is the table's whatever it ends with, which is noted beside what was said.
    let noted = |key: &str, value: &str| {
        key == FILE_EXTENSION && value.is_empty() && !location.ends_with('/')
    };
    let options: Vec<String> = (options.iter())
        .filter(|(key, value)| !noted(key, value))
        .map(|(key, value)| format!("{} {}", literal(key), literal(value)))
        .collect();
    if !options.is_empty() {
        lines.push(format!("OPTIONS ({})", options.join(", ")));
    }
    lines.join("\n")
}

fn columns(columns: &[Column]) -> String {
    let line = |column: &Column| {
        let field = column.field();
        // Types that have no name come of queries and of other writers only.
        let kind = written_type(&field).unwrap_or_else(|| field.data_type().to_string());
        let kind = match kind.as_str() {
            "bool" => "boolean",
            "int2" => "smallint",
            "int4" => "integer",
            "int8" => "bigint",
            "float4" => "real",
            "float8" => "double precision",
            other => other,
        };
        let mut line = format!("    {} {kind}", quoted(&column.name));
        if !column.nullable {
            line.push_str(" NOT NULL");
        }
        if let Some(default) = &column.default {
            line.push_str(&format!(" DEFAULT {default}"));
        }
        if let Some(comment) = &column.comment {
            line.push_str(&format!(" COMMENT {}", literal(comment)));
        }
        line
    };
    columns.iter().map(line).collect::<Vec<_>>().join(",\n")
}

/// What LOCATION says: where another table would have its files beside this one's, unless that is in
/// the warehouse anyway.
fn location<'a>(
    managed: &Managed,
    metadata: &'a TableMetadata,
    session: &SessionInfo,
) -> Option<&'a str> {
    let location = metadata.location().trim_end_matches('/');
    match managed.adopted {
        None => written_location(location, session.warehouse.as_deref()),
        Some(_) => location.rsplit_once('/').map(|(place, _)| place),
    }
}

/// What a managed table has beside its columns.
fn clauses(metadata: &TableMetadata, location: Option<&str>) -> Vec<String> {
    let name = |id: i32| quoted(metadata.current_schema().name_by_field_id(id).unwrap_or_default());
    let mut clauses = Vec::new();
    let partitioning: Vec<String> = (metadata.default_partition_spec().fields().iter())
        .filter(|field| field.transform != Transform::Void)
        .map(|field| transformed(field.transform, &name(field.source_id)))
        .collect();
    if !partitioning.is_empty() {
        clauses.push(format!("PARTITIONED BY ({})", partitioning.join(", ")));
    }
    let sort: Vec<String> = (metadata.default_sort_order().fields.iter())
        .map(|field| sorted(field, &name(field.source_id)))
        .collect();
    if !sort.is_empty() {
        clauses.push(format!("SORTED BY ({})", sort.join(", ")));
    }
    clauses.extend(location.map(|location| format!("LOCATION {}", literal(location))));
    let mut properties: Vec<(&str, &str)> = (metadata.properties().iter())
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, value)| {
            is_for_users(name) && (*name, *value) != (DELETE_AFTER_COMMIT, "true")
        })
        .collect();
    // New tables have it unless they are told otherwise.
    if !metadata.properties().contains_key(DELETE_AFTER_COMMIT) {
        properties.push((DELETE_AFTER_COMMIT, "false"));
    }
    properties.sort_unstable();
    if !properties.is_empty() {
        let list =
            properties.iter().map(|(name, value)| format!("{} = {}", quoted(name), literal(value)));
        clauses.push(format!("WITH ({})", list.collect::<Vec<_>>().join(", ")));
    }
    clauses
}

fn transformed(transform: Transform, column: &str) -> String {
    match transform {
        Transform::Identity => column.to_owned(),
        Transform::Bucket(count) => format!("bucket({count}, {column})"),
        Transform::Truncate(width) => format!("truncate({width}, {column})"),
        other => format!("{other}({column})"),
    }
}

fn sorted(field: &SortField, column: &str) -> String {
    let direction = if field.direction == SortDirection::Descending { " DESC" } else { "" };
    let nulls = if field.null_order == NullOrder::First { "FIRST" } else { "LAST" };
    format!("{}{direction} NULLS {nulls}", transformed(field.transform, column))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_said_of_a_file_is_not_said_again() {
        let statement = |location: &str, options: &[(&str, &str)]| {
            let options = options.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            let external = External {
                location: location.to_owned(),
                format: FileFormat::Csv,
                partition_columns: Vec::new(),
                options: options.collect(),
            };
            external_statement("t", &[], &external)
        };
        let header = ("format.has_header", "true");
        for (location, options, said) in [
            ("file:///x.csv", &[(FILE_EXTENSION, "")][..], "LOCATION 'file:///x.csv'"),
            (
                "file:///x.csv",
                &[(FILE_EXTENSION, ""), header],
                "LOCATION 'file:///x.csv'\nOPTIONS ('format.has_header' 'true')",
            ),
            (
                "file:///x/",
                &[(FILE_EXTENSION, "")],
                "LOCATION 'file:///x/'\nOPTIONS ('file_extension' '')",
            ),
        ] {
            assert!(statement(location, options).ends_with(said), "{location}");
        }
    }
}
