//! Relations whose rows each daemon has a part of: this one asks all others when it is read.
//!
//! To add one: a line in `relations.txt`, its rows of this daemon in [`own`], and
//! [`Source::Everywhere`](super::table::Source) for it. Nothing else has to be done on the way.
//!
//! - A daemon answers with all rows that it has, to other daemons only. What the session's role may
//!   not see, the one who asks leaves out or hides ([`everywhere`] gives the rows before they are a
//!   table).
//! - All are asked at once and have two seconds; the client is warned of those that did not answer,
//!   by name, and gets the rows of the others.
//! - Rows travel with their columns' names, so that daemons of two builds understand each other:
//!   columns that the other does not have are NULL.

use arrow::array::RecordBatch;
use datafusion::common::{exec_datafusion_err, plan_datafusion_err};
use datafusion::error::Result;

use super::relations::{self, Relation};
use super::rows::Rows;
use super::{Shared, View, coordination, figures, history, pools, queries, settings};

/// The rows of a relation that this daemon has by itself.
async fn own(shared: &Shared, relation: &'static Relation) -> Result<Rows> {
    match (relation.schema, relation.name) {
        ("system", "coordination") => Ok(coordination::own(shared, relation)),
        ("system", "caches") => Ok(figures::caches(shared, relation)),
        ("system", "metrics") => Ok(figures::metrics(shared, relation)),
        ("system", "query_history") => Ok(history::own(shared, relation).await),
        ("system", "pools") => Ok(pools::own(shared, relation)),
        ("system", "settings") => Ok(settings::own(shared, relation)),
        _ => Err(plan_datafusion_err!("{relation} is the same on all daemons")),
    }
}

/// The rows of all daemons, this one's first, as a table.
pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    everywhere(view, relation).await?.finish()
}

/// The rows of all daemons, this one's first. The client is warned of daemons that are silent.
pub async fn everywhere(view: &View<'_>, relation: &'static Relation) -> Result<Rows> {
    let question = relation.to_string();
    let (own, others) = tokio::join!(own(view.shared, relation), view.shared.ask(&question));
    let mut rows = own?;
    for (daemon, answer) in others {
        let taken = answer.and_then(|answer| rows.take(&answer).map_err(|error| error.to_string()));
        if let Err(reason) = taken {
            let warning = format!(
                "daemon \"{daemon}\" did not answer, its rows of {relation} are missing: {reason}"
            );
            view.shared.backends.warn(view.session.pid, warning);
        }
    }
    Ok(rows)
}

/// What another daemon is told that asks for this one's rows.
pub async fn answer(shared: &Shared, question: &str) -> Result<Vec<u8>> {
    if let Some(id) = question.strip_prefix(history::PROFILE) {
        return history::answer(shared, id).await;
    }
    if question == queries::LOOKS {
        return queries::answer(shared);
    }
    let relation =
        question.split_once('.').and_then(|(schema, name)| relations::find(schema, name));
    let relation =
        relation.ok_or_else(|| plan_datafusion_err!("there is no relation {question} here"))?;
    let rows = own(shared, relation).await?;
    rows.to_json().map_err(|error| exec_datafusion_err!("rows of {question}: {error}"))
}
