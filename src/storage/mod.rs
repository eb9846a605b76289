//! Tables to bytes: object stores and the files of external tables.
//!
//! - [`stores`]: which object store serves a URL.
//! - [`exact`]: object stores whose answers are as long as they say.
//! - [`failing`]: local files as a test wants them to fail.
//! - [`location`]: what users may write after LOCATION.
//! - [`external`]: CSV, JSON and Parquet files that somebody else writes, recognised as tables.
//! - [`scan`]: those tables read: which files, what is known of them, which can be left out.
//! - [`folders`]: what is known of their files, kept from one statement to the next.
//! - [`managed`]: tables of its own: Apache Iceberg.
//! - [`csv`]: how CSV is read.
//! - [`json`]: how JSON is read.
//! - [`text`]: files of both, unpacked.
//! - [`spelled`]: the values in them, to the last digit.
//! - [`lines`]: lines of text that are wrong, as people count them.
//! - [`roots`]: where files may lie.
//! - [`look_up`]: rows by the value of one column, without a plan.
//! - [`ready`]: what scans get just before they run: failures name the file they came from, and
//!   - [`guard`]: Parquet files are looked at before the reader underneath believes them,
//!   - [`pages`]: column chunks of files are kept in memory without compression,
//!   - [`prefilter`]: rows are left out that joins above have no use for,
//!   - [`pushdown`]: rows are found before the columns are decoded that no condition is on;
//!     [`conditions`] says what those cost.

mod batches;
mod conditions;
mod contents;
mod csv;
mod error;
mod exact;
mod external;
mod failing;
mod folders;
mod guard;
mod json;
mod lines;
mod location;
mod look_up;
pub mod managed;
mod nan;
mod pages;
mod prefilter;
mod pushdown;
mod ready;
pub mod results;
mod roots;
mod scan;
mod spelled;
mod stores;
mod text;
mod turns;

pub use conditions::cost;
pub use contents::{Contents, Listing, Version, contents, is_of_files, pinned};
pub use error::{Error, Result, failure};
pub use external::{Definition, Directory, FILE_EXTENSION, describe, open, partitions};
pub use folders::Folders;
pub use guard::check_file;
pub use location::Location;
pub use look_up::{Keyed, LookUps, can_be_key, own_bytes};
pub use pages::PageCache;
pub use ready::{ready_in_portions, ready_scans};
pub use roots::Roots;
pub use stores::Stores;
