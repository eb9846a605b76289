//! Statements that change the catalog, recognised: from the parser's, and from the text of those that
//! it does not know.

use datafusion::sql::parser::CreateExternalTable;
use sqlparser::ast::{
    AlterSchemaOperation, AlterTableOperation, CreateTableOptions, ObjectName, ObjectType,
    RenameTableNameKind, SchemaName, SqlOption, Statement, Value,
};

use super::names::{ident, single};
use super::{CreateExternal, Ddl, mode};
use crate::catalog::{DropMode, FileFormat};
use crate::engine::{parse, placed};
use crate::query::security;
use crate::query::tables::{self, AlterTable, CreateTable};
use crate::query::{Error, Result, instead};

impl Ddl {
    pub fn external(create: &CreateExternalTable) -> Result<Self> {
        let format = match create.file_type.to_ascii_uppercase().as_str() {
            "PARQUET" => FileFormat::Parquet,
            "CSV" => FileFormat::Csv,
            "JSON" | "NDJSON" => FileFormat::Json,
            other => {
                return Err(Error::Invalid(format!(
                    "the format {other} is not supported; use PARQUET, CSV or JSON"
                )));
            }
        };
        let [location] = create.locations.as_slice() else {
            return Err(Error::NotSupported("more than one LOCATION".to_owned()));
        };
        for (given, what) in [
            (create.temporary, "TEMPORARY"),
            (create.unbounded, "UNBOUNDED"),
            (!create.order_exprs.is_empty(), "WITH ORDER"),
            (!create.constraints.is_empty(), "a constraint on an external table"),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        Ok(Self::CreateExternal(Box::new(CreateExternal {
            name: create.name.clone(),
            columns: create.columns.clone(),
            format,
            location: location.clone(),
            partitions: create.table_partition_cols.iter().map(|name| unquoted(name)).collect(),
            options: (create.options.iter())
                .map(|(name, value)| (name.to_ascii_lowercase(), option_text(value)))
                .collect(),
            mode: mode(create.if_not_exists, create.or_replace),
        })))
    }

    /// Recognises a change of the catalog among standard statements.
    pub fn recognise(statement: &Statement) -> Result<Option<Self>> {
        Ok(Some(match statement {
            Statement::CreateDatabase { db_name, if_not_exists, .. } => {
                Self::CreateDatabase { name: single(db_name)?, mode: mode(*if_not_exists, false) }
            }
            Statement::CreateSchema { schema_name, if_not_exists, .. } => match schema_name {
                SchemaName::Simple(name) => {
                    let (name, mode) = (single(name)?, mode(*if_not_exists, false));
                    Self::CreateSchema { name, owner: None, mode }
                }
                SchemaName::NamedAuthorization(name, user) => {
                    let (name, mode) = (single(name)?, mode(*if_not_exists, false));
                    Self::CreateSchema { name, owner: Some(ident(user)), mode }
                }
                SchemaName::UnnamedAuthorization(user) => {
                    let (name, mode) = (ident(user), mode(*if_not_exists, false));
                    Self::CreateSchema { name: name.clone(), owner: Some(name), mode }
                }
            },
            Statement::CreateView(view) => {
                if view.materialized {
                    return Err(instead::of_materialized());
                }
                if view.temporary {
                    return Err(instead::of_temporary("CREATE TEMPORARY VIEW"));
                }
                Self::CreateView {
                    barrier: security_barrier(&view.options)?,
                    name: view.name.clone(),
                    columns: view.columns.iter().map(|column| column.name.clone()).collect(),
                    query: view.query.clone(),
                    mode: mode(view.if_not_exists, view.or_replace),
                }
            }
            Statement::Call(call) => tables::call(call)?,
            Statement::CreateTable(create) => {
                Self::CreateTable(Box::new(CreateTable::new(create)?))
            }
            Statement::Drop { object_type, if_exists, names, cascade, purge, .. } => {
                let mode = if *if_exists { DropMode::IfExists } else { DropMode::Fail };
                drop_object(*object_type, names, mode, (*cascade, *purge))?
            }
            Statement::AlterTable(alter) => match alter.operations.as_slice() {
                [AlterTableOperation::RenameTable { table_name }] => {
                    let (RenameTableNameKind::To(new) | RenameTableNameKind::As(new)) = table_name;
                    let mode = if alter.if_exists { DropMode::IfExists } else { DropMode::Fail };
                    let (name, new) = (alter.name.clone(), new.clone());
                    Self::RenameTable { name, new, view: false, mode }
                }
                steps => match AlterTable::new(&alter.name, alter.if_exists, steps) {
                    Some(alter) => Self::AlterTable(Box::new(alter)),
                    None => {
                        let added = alter.operations.iter().find_map(|step| match step {
                            AlterTableOperation::AddConstraint { constraint, .. } => {
                                Some(constraint)
                            }
                            _ => None,
                        });
                        return Err(match added {
                            Some(constraint) => instead::of_table(constraint),
                            None => Error::NotSupported(format!("{statement}")),
                        });
                    }
                },
            },
            Statement::AlterSchema(alter) => match alter.operations.as_slice() {
                [AlterSchemaOperation::Rename { .. }] => {
                    return Err(Error::NotSupported("ALTER SCHEMA RENAME".to_owned()));
                }
                _ => return Err(Error::NotSupported("ALTER SCHEMA".to_owned())),
            },
            Statement::Comment { object_type, object_name, comment, .. } => Self::Comment {
                on: *object_type,
                name: object_name.clone(),
                comment: comment.clone(),
            },
            _ => return Ok(None),
        }))
    }
}

/// A view's options, of which there is one. What is not understood is refused: a view that hides
/// less than it says is worse than none.
fn security_barrier(options: &CreateTableOptions) -> Result<bool> {
    let list = match options {
        CreateTableOptions::None => return Ok(false),
        CreateTableOptions::With(list) => list.as_slice(),
        _ => return Err(Error::NotSupported("this kind of options of a view".to_owned())),
    };
    let mut barrier = false;
    for option in list {
        let (name, value) = match option {
            SqlOption::Ident(name) => (ident(name), "true".to_owned()),
            SqlOption::KeyValue { key, value } => (ident(key), value.to_string()),
            other => return Err(Error::Invalid(format!("unrecognized parameter \"{other}\""))),
        };
        let value = value.trim_matches('\'').to_lowercase();
        match (name.as_str(), value.as_str()) {
            ("security_barrier", "true" | "on" | "yes" | "1") => barrier = true,
            ("security_barrier", "false" | "off" | "no" | "0") => barrier = false,
            ("security_invoker", "false" | "off" | "no" | "0") => {}
            ("security_invoker", _) => {
                let text = "security_invoker (a view reads with its owner's rights)";
                return Err(Error::NotSupported(text.to_owned()));
            }
            ("check_option", _) => {
                return Err(Error::NotSupported("check_option of a view".to_owned()));
            }
            _ => return Err(Error::Invalid(format!("unrecognized parameter \"{name}\""))),
        }
    }
    Ok(barrier)
}

fn drop_object(
    kind: ObjectType,
    names: &[ObjectName],
    mode: DropMode,
    (cascade, purge): (bool, bool),
) -> Result<Ddl> {
    Ok(match kind {
        ObjectType::Table => Ddl::DropTables { names: names.to_vec(), view: false, mode, purge },
        ObjectType::View => Ddl::DropTables { names: names.to_vec(), view: true, mode, purge },
        ObjectType::Schema => {
            let names = names.iter().map(single).collect::<Result<_>>()?;
            Ddl::DropSchema { names, mode, cascade }
        }
        ObjectType::Database => match names {
            [name] => Ddl::DropDatabase { name: single(name)?, mode },
            _ => return Err(Error::Invalid("DROP DATABASE takes one name".to_owned())),
        },
        other => return Err(Error::NotSupported(format!("DROP {other}"))),
    })
}

/// Recognises `ALTER {DATABASE | VIEW | SCHEMA} name RENAME TO name`, which the SQL parser does not
/// know.
fn rename(text: &str) -> Result<Option<Ddl>> {
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    let [alter, kind, _] = words.as_slice() else { return Ok(None) };
    if !alter.eq_ignore_ascii_case("alter") {
        return Ok(None);
    }
    let view = kind.eq_ignore_ascii_case("view");
    if !view && !kind.eq_ignore_ascii_case("database") {
        return Ok(None);
    }
    // The same words after ALTER TABLE are known.
    let after = text.trim_start()[alter.len()..].trim_start();
    let as_table = format!("ALTER TABLE {}", after[kind.len()..].trim_start());
    let Ok(parsed) = parse(&as_table) else { return Ok(None) };
    let [parsed] = parsed.as_slice() else { return Ok(None) };
    let Some(Ddl::RenameTable { name, new, mode, .. }) =
        parsed.sql().map(Ddl::recognise).transpose()?.flatten()
    else {
        return Ok(None);
    };
    Ok(Some(match view {
        true => Ddl::RenameTable { name, new, view: true, mode },
        false => Ddl::RenameDatabase { name: single(&name)?, new: single(&new)? },
    }))
}

/// Reads a statement that the parser does not know, or not well enough.
pub(in crate::query) fn beyond_the_parser(text: &str) -> Result<Option<Ddl>> {
    if let Some(create) = tables::with_clauses(text)? {
        return Ok(Some(Ddl::CreateTable(Box::new(create))));
    }
    let security = security::parse(text).map_err(|error| match error {
        Error::Engine(error) => Error::Engine(placed(error, text, text)),
        other => other,
    });
    if let Some(security) = security? {
        return Ok(Some(Ddl::Security(Box::new(security))));
    }
    rename(text.trim().trim_end_matches(';'))
}

/// A name that the parser has left in its quotes.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

fn option_text(value: &Value) -> String {
    match value {
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
        Value::EscapedStringLiteral(text) => text.clone(),
        other => other.to_string(),
    }
}
