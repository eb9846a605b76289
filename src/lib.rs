//! Oribi: a SQL query daemon over Parquet whose only coordinator is Apache ZooKeeper.
//!
//! # The rooms
//! Each room imports strictly lower floors only, and rooms on one floor do not know each other
//! (`tests/house.rs` holds them to it).
//!
//! | floor | room | what it does |
//! |---|---|---|
//! | 9 | [`cli`] | the command line: serve, demo, sql, query, cluster, doctor, back-up, reference |
//! | 8 | [`server`] | composition: builds upward, runs, drains downward |
//! | 7 | [`postgres`] | PostgreSQL's wire protocol: listener, sessions, portals, SQLSTATE |
//! |   | [`web`] | the web port: console, health, metrics |
//! | 6 | [`system`] | the cluster as SQL: `system.*`, `zk.*`, `pg_catalog`, `information_schema` |
//! | 5 | [`query`] | a statement's life: admission, registration, execution, cancellation |
//! | 4 | [`engine`] | DataFusion: parsing, planning, streams, memory, settings |
//! | 3 | [`storage`] | tables to bytes: object stores, external files, managed tables |
//! | 2 | [`catalog`] | databases, schemas, tables, views: the shared truth, cached and watched |
//! |   | [`cluster`] | this daemon's record, its lease, and its live peers |
//! | 1 | [`coordination`] | the one trait, ZooKeeper and embedded behind it, every path in one enum |
//! |   | [`values`] | PostgreSQL's types and values: their Arrow counterparts, read and written |
//! |   | [`traces`] | traces of statements, for a collector |
//! |   | [`tls`] | encryption for clients: certificates, handshakes |
//! | 0 | [`id`], [`config`], [`shutdown`], [`bursts`], [`slices`], [`wording`], [`background`], [`threads`], [`telemetry`], [`metrics`], [`data_dir`], [`secret`], [`password`], [`audit`], [`faults`] | what all rooms use |
//!
//! # The way of a statement
//! Bytes arrive in [`postgres`] → parse → authorise → admit → register → plan → distribute →
//! stream → complete → bytes leave. [`query::life`] reads in that order.

pub mod audit;
pub mod background;
pub mod bursts;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod coordination;
pub mod data_dir;
pub mod engine;
pub mod faults;
pub mod id;
pub mod metrics;
pub mod password;
pub mod postgres;
pub mod query;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod slices;
pub mod storage;
pub mod system;
pub mod telemetry;
pub mod threads;
pub mod tls;
pub mod traces;
pub mod values;
pub mod web;
pub mod wording;
