//! What a session has for itself: settings, cursors, prepared statements.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::View;
use super::super::relations::Relation;
use super::super::rows::{Rows, Value};
use super::super::types::types;
use crate::engine::settings::{self, Context, Setting};

pub fn settings(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "name",
            "setting",
            "unit",
            "category",
            "short_desc",
            "context",
            "vartype",
            "source",
            "min_val",
            "max_val",
            "enumvals",
            "boot_val",
            "reset_val",
            "pending_restart",
        ],
    );
    let present = view.session.present_settings();
    for (name, value) in present.all() {
        let known = settings::find(name);
        let shown = |value: &str| match known {
            Some(setting) => settings::in_unit(setting, value),
            None => value.to_owned(),
        };
        let bounds = known.and_then(Setting::bounds);
        let choices = known.and_then(Setting::choices);
        let choices = choices.map(|all| all.iter().map(|&choice| choice.into()).collect());
        rows.push([
            name.into(),
            shown(value).into(),
            known.and_then(Setting::unit).into(),
            known.map_or("Customized Options", |setting| setting.category).into(),
            known.map(|setting| setting.description).into(),
            known.map_or(Context::User, |setting| setting.context).name().into(),
            known.map_or("string", Setting::value_type).into(),
            present.source(name).name().into(),
            bounds.map(|(least, _)| least.to_string()).into(),
            bounds.map(|(_, greatest)| greatest.to_string()).into(),
            choices.map_or(Value::Null, Value::List),
            known.map(|setting| shown(setting.default)).into(),
            present.reset_value(name).map(shown).into(),
            false.into(),
        ]);
    }
    rows.finish()
}

pub fn cursors(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let columns =
        ["name", "statement", "is_holdable", "is_binary", "is_scrollable", "creation_time"];
    let mut rows = Rows::new(relation, &columns);
    for (name, cursor) in view.session.objects.cursors.items() {
        rows.push([
            name.into(),
            (&cursor.statement).into(),
            cursor.is_holdable.into(),
            cursor.is_binary.into(),
            cursor.is_scrollable.into(),
            cursor.created.into(),
        ]);
    }
    rows.finish()
}

pub fn prepared_statements(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let columns = ["name", "statement", "prepare_time", "parameter_types", "from_sql"];
    let mut rows = Rows::new(relation, &columns);
    for (name, statement) in view.session.objects.statements.items() {
        let kinds =
            statement.parameters.iter().map(|oid| types().format(*oid, None).into()).collect();
        rows.push([
            name.into(),
            (&statement.statement).into(),
            statement.prepared.into(),
            Value::List(kinds),
            statement.from_sql.into(),
        ]);
    }
    rows.finish()
}
