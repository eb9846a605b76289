//! This daemon among its peers: its own record, who else lives, and how sure it may be of itself.
//!
//! - [`record`]: what a daemon tells of itself in `/daemons/<id>`.
//! - [`membership`]: registers it, follows the others, and registers anew after a lost session.
//! - [`lease`]: how long this daemon may take itself for registered, on its own clock.
//! - [`election`]: which of the daemons leads.
//! - [`live`]: settings that all daemons share and that change while they run.
//! - [`warehouses`]: whether all make their tables in one place.
//! - [`workers`]: which of the daemons can take a part of a statement.
//! - [`identity`]: the cluster's UUID, by which a store that lost its data is recognised, and its key.
//!
//! Rooms above read [`Membership::members`] and [`Membership::state`] from memory; nothing on the
//! way of a statement waits for the store.

mod election;
mod error;
mod identity;
mod lease;
pub mod live;
mod membership;
mod record;
mod warehouses;
mod workers;

pub use election::{Election, Leadership};
pub use error::{Error, Result};
pub use identity::{FORMAT, restored_at};
pub use membership::{Membership, Options};
pub use record::{Lack, Lacking, Member, Record, State, Trouble};
pub use warehouses::{NONE as NO_WAREHOUSE, astray};
pub use workers::{Worker, Workers};
