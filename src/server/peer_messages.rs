//! What other daemons tell this one beside statements, by the room that it is for.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::engine::Messages;
use crate::query::notify::{self, Notifications};

/// Passes messages on.
#[derive(Debug)]
pub struct PeerMessages {
    notifications: Arc<Notifications>,
}

impl PeerMessages {
    pub fn new(notifications: Arc<Notifications>) -> Self {
        Self { notifications }
    }
}

#[async_trait]
impl Messages for PeerMessages {
    async fn receive(&self, kind: &str, body: Bytes) -> Option<Bytes> {
        match kind {
            notify::KIND => self.notifications.receive(&body),
            _ => None,
        }
    }
}
