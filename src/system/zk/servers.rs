//! `zk.servers`: the ensemble's members, as each tells of itself.

use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::{READERS, failed};
use crate::coordination::members::Member;
use crate::coordination::{self, Coordination};
use crate::system::View;
use crate::system::relations::Relation;
use crate::system::rows::{Rows, Value};

/// How long the ensemble may take to tell who belongs to it.
const PATIENCE: Duration = Duration::from_secs(1);

const COLUMNS: &[&str] = &[
    "address",
    "role",
    "version",
    "min_latency",
    "avg_latency",
    "max_latency",
    "outstanding",
    "connections",
    "watches",
    "znodes",
    "ephemerals",
    "data_size",
    "packets_received",
    "packets_sent",
    "source",
    "error",
];

/// Their names for what the columns from `min_latency` to `packets_sent` hold.
const FIGURES: [&str; 11] = [
    "min_latency",
    "avg_latency",
    "max_latency",
    "outstanding_requests",
    "num_alive_connections",
    "watch_count",
    "znode_count",
    "ephemerals_count",
    "approximate_data_size",
    "packets_received",
    "packets_sent",
];

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    view.require(READERS, relation)?;
    let whole = view.shared.cluster.store();
    let found = match whole.ensemble() {
        // Its own word on itself.
        None => vec![Member::embedded(view.shared.own_id())],
        Some(ensemble) => {
            // Which members there are beside those that are configured, the store may know.
            let config = async { whole.client().await?.get("/zookeeper/config").await };
            let config = tokio::time::timeout(PATIENCE, config).await;
            let node = config.ok().and_then(coordination::Result::ok).flatten();
            let config = node.map(|node| node.data).unwrap_or_default();
            ensemble.members(&config).await.map_err(failed)?
        }
    };
    let mut rows = Rows::new(relation, COLUMNS);
    for member in found {
        let mut row = vec![
            member.address.as_str().into(),
            member.fact("server_state").map(str::to_owned).into(),
            member.fact("version").map(version).into(),
        ];
        row.extend(FIGURES.iter().map(|name| {
            let figure = member.fact(name).and_then(|text| text.parse::<f64>().ok());
            match name.ends_with("_latency") {
                true => figure.into(),
                false => figure.map_or(Value::Null, |figure| Value::Int(figure as i64)),
            }
        }));
        row.extend([member.source.map(str::to_owned).into(), member.error.into()]);
        rows.push_vec(row);
    }
    rows.finish()
}

/// The number alone, without the commit and the day of its build.
fn version(text: &str) -> String {
    text.split(['-', ',']).next().unwrap_or(text).to_owned()
}
