//! The way to a daemon, for commands that ask one.
//!
//! - [`places`]: where daemons are.
//! - [`login`]: who asks.
//! - [`client`]: a connection to one of them, or to the next.

pub mod client;
pub mod login;
pub mod places;

use clap::Args;

use self::client::Client;
use self::login::Login;
use self::places::Places;
use super::error::Result;

/// Whom to ask, and who asks.
#[derive(Debug, Args)]
pub struct Link {
    #[command(flatten)]
    pub places: places::Options,
    #[command(flatten)]
    pub login: login::Options,
}

impl Link {
    /// `application` is how daemons list the connection.
    pub async fn open(self, application: &'static str) -> Result<Client> {
        let login = Login::new(self.login, application)?;
        Ok(Client::new(Places::open(self.places).await?, login))
    }
}
