//! `CALL oribi.adopt('schema.table', 'file:///.../v3.metadata.json')`: a table that another writer
//! has made, taken over by its metadata file.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Value,
};

use crate::catalog::{self, Consistency, CreateMode, Definition, ObjectKind, TableName};
use crate::engine::{self, parse_expressions};
use crate::query::ddl::Ddl;
use crate::query::life::Session;
use crate::query::{Error, Result};
use crate::storage::Location;
use crate::storage::managed::{Here, examine, managed};

/// The procedure that a CALL is about, of which there is one.
pub(in crate::query) fn call(call: &Function) -> Result<Ddl> {
    let name = call.name.to_string();
    if !name.eq_ignore_ascii_case("oribi.adopt") {
        return Err(engine::Error::NoFunction(format!("{name}(...)")).into());
    }
    let usage = || {
        let usage = "CALL oribi.adopt takes the name that the table is to have, such as \
                     'schema.table', and the location of its metadata file";
        Error::Invalid(usage.to_owned())
    };
    let FunctionArguments::List(list) = &call.args else { return Err(usage()) };
    let text = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let texts: Option<Vec<String>> = list.args.iter().map(text).collect();
    let Some([table, metadata]) = texts.as_deref() else { return Err(usage()) };
    let parts = match parse_expressions(table)?.as_slice() {
        [Expr::Identifier(name)] => vec![name.clone()],
        [Expr::CompoundIdentifier(parts)] => parts.clone(),
        _ => return Err(Error::Invalid(format!("\"{table}\" is not the name of a table"))),
    };
    Ok(Ddl::Adopt { name: ObjectName::from(parts), metadata: metadata.clone() })
}

impl Session {
    pub(in crate::query) async fn adopt(&mut self, name: &ObjectName, url: &str) -> Result<()> {
        let name = self.target(name).await?;
        self.may_create(&name, CreateMode::Fail).await?;
        if self.catalog().table(&name, Consistency::Strong).await.is_ok() {
            let (kind, name) = (ObjectKind::Table, name.table);
            return Err(catalog::Error::AlreadyExists { kind, name }.into());
        }
        let location = Location::parse(url).map_err(engine::Error::from)?;
        self.may_use_location(&location).await?;
        let files = self.queries().commits.files().clone();
        let here = Here {
            roots: self.roots(),
            warehouse: self.queries().warehouse.as_deref(),
            cluster: self.queries().membership.cluster(),
        };
        let found = examine(&files, &location.as_written(), here).await?;
        let (user, catalog) = (self.user().to_owned(), self.catalog().clone());
        let definition = Definition::Managed(found.definition.clone());
        let columns = found.columns.clone();
        let check = |snapshot: &_| found.check(snapshot);
        Ok(catalog.adopt_table(&name, &user, columns, definition, check).await?)
    }

    /// DROP ... PURGE removes all that is in a table's directory.
    pub(in crate::query) async fn may_purge(&self, name: &TableName, purge: bool) -> Result<()> {
        if !purge {
            return Ok(());
        }
        let Ok(table) = self.catalog().table(name, Consistency::Strong).await else {
            return Ok(());
        };
        match managed(&table).is_ok_and(|managed| managed.adopted.is_some()) {
            false => Ok(()),
            true => Err(Error::NotSupported(format!(
                "PURGE of the adopted table \"{}\", whose files may be another writer's too (DROP \
                 without PURGE leaves them where they are)",
                name.table
            ))),
        }
    }
}
