//! A stretch of network on loopback that a test can cut.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Whole,
    /// Nothing arrives, and nobody is told.
    Silent,
    /// Connections end, and new ones are refused.
    Refusing,
}

/// Listens at one address and passes on to another.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<io::Result<()>>,
}

impl Link {
    /// A port of 0 stands for a free one.
    pub async fn start(from: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(from).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (state, seen) = watch::channel(State::Whole);
        Self { address, state, task: tokio::spawn(serve(listener, to, seen)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut listener: TcpListener,
    to: SocketAddr,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    loop {
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                let (client, _) = listener.accept().await?;
                connections.spawn(forward(client, to, state.clone()));
            }
        };
        let mut seen = state.clone();
        tokio::select! {
            ended = accepting => return ended,
            _ = seen.wait_for(|state| *state == State::Refusing) => {}
        }
        drop((connections, listener));
        if state.wait_for(|state| *state != State::Refusing).await.is_err() {
            return Ok(());
        }
        listener = TcpListener::bind(address).await?;
    }
}

async fn forward(
    client: TcpStream,
    to: SocketAddr,
    state: watch::Receiver<State>,
) -> io::Result<()> {
    let server = TcpStream::connect(to).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = pass(from_client, to_server, state.clone()) => ended,
        ended = pass(from_server, to_client, state.clone()) => ended,
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 || state.wait_for(|state| *state == State::Whole).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}
