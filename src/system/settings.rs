//! `system.settings`: the daemons' configuration, one row a key. It tells of paths and addresses, so
//! it is not for everybody.

use super::Shared;
use super::relations::Relation;
use super::rows::Rows;

pub fn own(shared: &Shared, relation: &'static Relation) -> Rows {
    let daemon = shared.own_id();
    let mut rows = Rows::new(relation, &["key", "value", "default", "origin", "daemon"]);
    for setting in &shared.settings {
        let texts = [&setting.key, &setting.value, &setting.default, &setting.origin, &daemon];
        rows.push(texts.map(Into::into));
    }
    rows
}
