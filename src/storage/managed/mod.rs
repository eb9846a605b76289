//! Managed tables: Apache Iceberg, format version 2, over plain Parquet.
//!
//! - [`types`]: which column types a table stores, in Arrow's and in Iceberg's terms.

pub mod types;
