//! Tables to bytes: object stores and the files of external tables.
//!
//! - [`stores`]: which object store serves a URL.
//! - [`location`]: what users may write after LOCATION.
//! - [`external`]: CSV, JSON and Parquet files that somebody else writes, recognised as tables.
//! - [`scan`]: those tables read: which files, what is known of them, which can be left out.
//! - [`managed`]: tables of its own: Apache Iceberg.
//! - [`roots`]: where files may lie.
//! - [`naming`]: makes each failure of a scan name the file it came from.
//! - [`prefilter`]: rows left out of a scan that joins above have no use for.
//! - [`pages`]: column chunks of files, kept in memory without compression.

mod contents;
mod error;
mod external;
mod location;
pub mod managed;
mod naming;
mod pages;
mod prefilter;
pub mod results;
mod roots;
mod scan;
mod stores;

pub use contents::{Contents, Listing, Version, contents, pinned};
pub use error::{Error, Result};
pub use external::{Definition, describe, open};
pub use location::Location;
pub use naming::ready_scans;
pub use pages::PageCache;
pub use roots::Roots;
pub use stores::Stores;
