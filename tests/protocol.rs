//! The wire protocol, message by message: what drivers rely on, and what no driver would send.

#[path = "protocol/activity.rs"]
mod activity;
mod common;
#[path = "protocol/copy.rs"]
mod copy;
#[path = "protocol/copy_in.rs"]
mod copy_in;
#[path = "protocol/copy_rights.rs"]
mod copy_rights;
#[path = "protocol/cursors.rs"]
mod cursors;
#[path = "protocol/extended.rs"]
mod extended;
#[path = "protocol/malformed.rs"]
mod malformed;
#[path = "protocol/prepared.rs"]
mod prepared;
#[path = "protocol/returning.rs"]
mod returning;
#[path = "protocol/simple.rs"]
mod simple;
#[path = "protocol/sqlstates.rs"]
mod sqlstates;
#[path = "protocol/startup.rs"]
mod startup;
#[path = "protocol/stopping.rs"]
mod stopping;
#[path = "protocol/wire.rs"]
mod wire;

use common::daemon::{Options, Shared};

static DAEMON: Shared = Shared::new(Options::new);
