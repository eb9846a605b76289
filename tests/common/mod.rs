//! What several test files share. Each file uses a part of it.
#![allow(dead_code)]

pub mod certificates;
pub mod daemon;
pub mod link;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod zookeeper;
