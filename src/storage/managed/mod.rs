//! Managed tables: Apache Iceberg, format version 2, over plain Parquet.
//!
//! - [`types`]: which column types a table stores, in Arrow's and in Iceberg's terms.
//! - [`write`](mod@write): rows become data files, whose form [`properties`] says.
//! - [`transforms`]: what a column's values become as those of a partition.

mod parquet_schema;
mod partitioning;
pub mod properties;
mod statistics;
pub mod transforms;
pub mod types;
mod upload;
pub mod write;
