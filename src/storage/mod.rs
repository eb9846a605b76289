//! Tables to bytes: object stores and the files of external tables.
//!
//! - [`stores`]: which object store serves a URL.
//! - [`location`]: what users may write after LOCATION.
//! - [`external`]: CSV, JSON and Parquet files that somebody else writes, recognised as tables.
//! - [`scan`]: those tables read: which files, what is known of them, which can be left out.
//! - [`managed`]: tables of its own: Apache Iceberg.
//! - [`roots`]: where files may lie.
//! - [`naming`]: makes each failure of a scan name the file it came from.

mod error;
mod external;
mod location;
pub mod managed;
mod naming;
pub mod results;
mod roots;
mod scan;
mod stores;

pub use error::{Error, Result};
pub use external::{Definition, Directory, describe, open, partitions};
pub use location::Location;
pub use naming::name_files;
pub use roots::Roots;
pub use stores::Stores;
