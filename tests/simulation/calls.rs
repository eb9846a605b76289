//! Calls of the store, as they are under way.

use bytes::Bytes;
use oribi::coordination::{Node, Op, Outcome, Stat};

#[derive(Debug)]
pub enum Call {
    Get(String),
    Stat(String),
    Children(String),
    Sync,
    Write { ops: Vec<Op>, alone: bool, operation: Option<u64> },
}

pub enum Answer {
    Node(Option<Node>),
    Stat(Option<Stat>),
    Children(Vec<String>),
    Synced,
    Written(Vec<Outcome>),
}

impl Call {
    /// For the trace.
    pub fn text(&self) -> String {
        let data = |data: &Bytes| {
            let text = String::from_utf8_lossy(data);
            text.chars().take(100).collect::<String>()
        };
        match self {
            Self::Get(path) => format!("get {path}"),
            Self::Stat(path) => format!("stat {path}"),
            Self::Children(path) => format!("children {path}"),
            Self::Sync => "sync".to_owned(),
            Self::Write { ops, .. } => {
                let ops = ops.iter().map(|op| match op {
                    Op::Check { path, version } => format!("check {path} {version:?}"),
                    Op::Create { path, data: value, mode } => {
                        format!("create {path} {mode:?} {}", data(value))
                    }
                    Op::Set { path, data: value, version } => {
                        format!("set {path} {version:?} {}", data(value))
                    }
                    Op::Delete { path, version } => format!("delete {path} {version:?}"),
                });
                ops.collect::<Vec<_>>().join(" + ")
            }
        }
    }
}
