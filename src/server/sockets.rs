//! The three ports: sockets that the daemon was given, as systemd does (socket activation), or that it
//! binds itself.
//!
//! A socket that was given outlives the daemon: who connects while it restarts waits in the socket's
//! queue, and the next one serves them.

use std::collections::BTreeMap;
use std::io;
use std::net::{self, SocketAddr};

use listenfd::ListenFd;
use tokio::net::TcpListener;
use tracing::info;

use super::{Addresses, Error};
use crate::config::Config;

/// The ports by the keys of their settings, which are the names of sockets (`FileDescriptorName=`), too.
const PORTS: [&str; 3] = ["postgres", "peer", "web"];

/// What systemd calls the sockets, in their order.
const NAMES: &str = "LISTEN_FDNAMES";

/// Sockets that this process was given, by port.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<&'static str, net::TcpListener>);

impl Given {
    /// Takes the sockets of `LISTEN_FDS` and has the configuration know where they listen. A socket is the
    /// port that its name says, else the one whose setting has its address; any other is refused.
    ///
    /// To be called once, before the process has threads: it changes the environment.
    pub fn take(config: &mut Config) -> Result<Self, Error> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut given = BTreeMap::new();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let (socket, address) = match listening(&mut sockets, index) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    let reason = format!("\"{name}\" cannot be listened on: {error}");
                    return Err(Error::Given(reason));
                }
            };
            let port = port(config, name, address).ok_or_else(|| {
                Error::Given(format!(
                    "\"{name}\" on {address} is none of this daemon's ports: give it \
                     FileDescriptorName=postgres, peer or web in its unit, or have one of these \
                     settings be \"{address}\""
                ))
            })?;
            config.listen_on(port, address)?;
            if given.insert(port, socket).is_some() {
                return Err(Error::Given(format!(
                    "\"{name}\" on {address} is a second one for the port \"{port}\", which has room \
                     for one (an IPv6 socket takes IPv4 as well, with BindIPv6Only=both)"
                )));
            }
        }
        Ok(Self(given))
    }
}

/// A socket that was given, if it is one that takes TCP connections.
fn listening(
    sockets: &mut ListenFd,
    index: usize,
) -> io::Result<Option<(net::TcpListener, SocketAddr)>> {
    let Some(socket) = sockets.take_tcp_listener(index)? else { return Ok(None) };
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other(
            "it takes no connections (a unit with Accept=no has one that does)",
        ));
    }
    // As the runtime needs it.
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok(Some((socket, address)))
}

fn port(config: &Config, name: &str, address: SocketAddr) -> Option<&'static str> {
    let settings = [config.postgres, config.peer, config.web];
    let named = PORTS.into_iter().find(|port| *port == name);
    named.or_else(|| {
        let at = settings.iter().position(|setting| *setting == address)?;
        PORTS.get(at).copied()
    })
}

/// The three ports, there before anything else so that a taken one is known at once.
pub(super) struct Sockets {
    pub postgres: TcpListener,
    pub peer: TcpListener,
    pub web: TcpListener,
    /// Whether clients of the PostgreSQL port may wait for the next daemon.
    pub outlives: bool,
}

impl Sockets {
    pub async fn open(config: &Config, mut given: Given) -> Result<Self, Error> {
        let outlives = given.0.contains_key("postgres");
        let mut open = async |key: &'static str, address| {
            let failed = |source| Error::Listen { key, address, source };
            match given.0.remove(key) {
                Some(socket) => {
                    info!(port = key, %address, "listening on a socket that was given");
                    TcpListener::from_std(socket).map_err(failed)
                }
                None => TcpListener::bind(address).await.map_err(failed),
            }
        };
        Ok(Self {
            postgres: open("postgres", config.postgres).await?,
            peer: open("peer", config.peer).await?,
            web: open("web", config.web).await?,
            outlives,
        })
    }

    pub fn addresses(&self) -> Result<Addresses, Error> {
        let address = |key, socket: &TcpListener| {
            let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
            let failed = |source| Error::Listen { key, address: unknown, source };
            socket.local_addr().map_err(failed)
        };
        Ok(Addresses {
            postgres: address("postgres", &self.postgres)?,
            peer: address("peer", &self.peer)?,
            web: address("web", &self.web)?,
        })
    }
}
