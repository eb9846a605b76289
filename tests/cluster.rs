//! Several daemons on a real ZooKeeper: how they see each other, share one catalog, and live
//! through the faults of the ensemble and of each other.

mod common;

#[path = "cluster/catalog.rs"]
mod catalog;
#[path = "cluster/credentials.rs"]
mod credentials;
#[path = "cluster/election.rs"]
mod election;
#[path = "cluster/housekeeping.rs"]
mod housekeeping;
#[path = "cluster/loss.rs"]
mod loss;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/outages.rs"]
mod outages;
#[path = "cluster/psql.rs"]
mod psql;
#[path = "cluster/queries.rs"]
mod queries;
#[path = "cluster/races.rs"]
mod races;
#[path = "cluster/roles.rs"]
mod roles;
#[path = "cluster/signals.rs"]
mod signals;
#[path = "cluster/support.rs"]
mod support;
#[allow(dead_code)]
#[path = "protocol/wire.rs"]
mod wire;
