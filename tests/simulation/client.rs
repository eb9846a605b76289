//! The store as the daemon's code sees it.

use async_trait::async_trait;
use bytes::Bytes;
use oribi::coordination::{
    Coordination, Mode, Node, Op, Outcome, Result, Scope, Session, Stat, Watch,
};
use tokio::sync::watch as latest;

use crate::calls::{Answer, Call};
use crate::link::Link;
use crate::sim::OPERATION;

impl Link {
    async fn write_one(&self, op: Op) -> Result<Outcome> {
        let operation = OPERATION.try_with(|operation| *operation).ok();
        match self.call(Call::Write { ops: vec![op], alone: true, operation }).await? {
            Answer::Written(mut outcomes) => Ok(outcomes.pop().expect("one outcome")),
            _ => unreachable!("another answer than asked for"),
        }
    }
}

#[async_trait]
impl Coordination for Link {
    async fn create(&self, path: &str, data: Bytes, mode: Mode) -> Result<String> {
        match self.write_one(Op::Create { path: path.to_owned(), data, mode }).await? {
            Outcome::Created(path) => Ok(path),
            other => unreachable!("{other:?}"),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Node>> {
        match self.call(Call::Get(path.to_owned())).await? {
            Answer::Node(node) => Ok(node),
            _ => unreachable!("another answer than asked for"),
        }
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        match self.call(Call::Stat(path.to_owned())).await? {
            Answer::Stat(stat) => Ok(stat),
            _ => unreachable!("another answer than asked for"),
        }
    }

    async fn set(&self, path: &str, data: Bytes, expected: Option<i32>) -> Result<Stat> {
        match self.write_one(Op::Set { path: path.to_owned(), data, version: expected }).await? {
            Outcome::Set(stat) => Ok(stat),
            other => unreachable!("{other:?}"),
        }
    }

    async fn delete(&self, path: &str, expected: Option<i32>) -> Result<()> {
        self.write_one(Op::Delete { path: path.to_owned(), version: expected }).await.map(drop)
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        match self.call(Call::Children(path.to_owned())).await? {
            Answer::Children(names) => Ok(names),
            _ => unreachable!("another answer than asked for"),
        }
    }

    async fn transact(&self, ops: Vec<Op>) -> Result<Vec<Outcome>> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let operation = OPERATION.try_with(|operation| *operation).ok();
        match self.call(Call::Write { ops, alone: false, operation }).await? {
            Answer::Written(outcomes) => Ok(outcomes),
            _ => unreachable!("another answer than asked for"),
        }
    }

    async fn sync(&self) -> Result<()> {
        self.call(Call::Sync).await.map(drop)
    }

    fn watch(&self, path: &str, scope: Scope) -> Watch {
        self.follow(path, scope)
    }

    fn server(&self) -> Option<String> {
        Some("simulated".to_owned())
    }

    async fn pulse(&self) -> Result<()> {
        // Nothing of a simulated client is ever stuck.
        Ok(())
    }

    fn session(&self) -> latest::Receiver<Session> {
        self.told()
    }

    async fn close(&self) {
        self.end();
    }
}
