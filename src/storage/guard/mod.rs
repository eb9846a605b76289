//! Parquet files are looked at before the reader underneath believes them.
//!
//! That reader reserves memory for what a file says that it has: a list of two thousand million elements, a
//! page that has a gigabyte without its compression. What it cannot reserve ends the process, and what it can
//! is not counted. So nothing of a file is handed to it that was not checked here: all reads go through
//! [`Footers`], for metadata, and [`CheckedFactory`], for all the rest. What is wrong is an error that names
//! the file; what is merely large takes its room from the memory of statements while it is read.
//!
//! - [`thrift`] and [`shapes`]: structures as they are written, walked.
//! - [`metadata`]: what must be true of a file's metadata.
//! - [`pages`]: what must be true of pages, and [`unpacked`] of what is in them.
//! - [`footers`]: reads and keeps metadata.
//! - [`reader`]: reads the rest.

mod footers;
mod metadata;
mod pages;
mod reader;
mod schema;
mod shapes;
mod thrift;
mod unpacked;

#[cfg(test)]
mod tests;

pub use footers::{Footers, check_file};
pub use pages::{Allowance, check_chunk};
pub use reader::{CheckedFactory, Seen};
pub use schema::schema;
