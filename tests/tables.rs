//! Managed tables as whole daemons write them: dead at any step of a write, many at once, without
//! the store's reply, and read by others.

mod common;

#[path = "tables/adopt.rs"]
mod adopt;
#[path = "tables/crashes.rs"]
mod crashes;
#[path = "tables/described.rs"]
mod described;
#[path = "tables/duckdb.rs"]
mod duckdb;
#[path = "tables/found.rs"]
mod found;
#[path = "tables/frozen.rs"]
mod frozen;
#[path = "tables/lost_replies.rs"]
mod lost_replies;
#[path = "coordination/proxy.rs"]
mod proxy;
#[path = "tables/pyiceberg.rs"]
mod pyiceberg;
#[path = "clients/python.rs"]
mod python;
#[path = "tables/races.rs"]
mod races;
#[path = "tables/statistics.rs"]
mod statistics;
#[path = "cluster/support.rs"]
mod support;
#[path = "tables/together.rs"]
mod together;
#[path = "tables/told.rs"]
mod told;
#[path = "tables/turns.rs"]
mod turns;
#[path = "tables/vanished.rs"]
mod vanished;
