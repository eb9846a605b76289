//! PostgreSQL's types and values, and what they are in Arrow.
//!
//! - [`types`]: which PostgreSQL type an Arrow column has, and which Arrow type holds a PostgreSQL
//!   type.
//! - [`encode`]: Arrow's values as PostgreSQL writes them, in text and binary.
//! - [`decode`]: values in text or binary, as PostgreSQL reads them, to Arrow.
//! - [`armor`]: bytes as text, in the forms that users choose.
//! - [`jsonb`]: the one form of equal JSON values.
//! - [`template`]: values as text and back, by templates.

pub mod armor;
pub mod decode;
pub mod encode;
pub mod jsonb;
pub mod template;
pub mod types;

pub(crate) use encode::calendar::{Day, TIMESTAMP_MIN, day, days};
