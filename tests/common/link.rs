//! A stretch of network on loopback that a test can cut, slow down, and cut one way only.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of what is sent. The client is who has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Whole,
    /// Nothing arrives, and nobody is told. What was sent meanwhile arrives afterwards, as TCP has it.
    Silent,
    /// The same of what the client sends.
    Unheard,
    /// The same of what the server sends.
    Unanswered,
    /// Each piece takes so long.
    Slow(Duration),
    /// One piece in so many is lost, and comes again after so long.
    Lossy(u64, Duration),
    /// Connections have ended for the server; the client is not told, and nobody hears it.
    HalfOpen,
    /// Connections end, and new ones are refused.
    Refusing,
}

/// Tells who has connected, by the addresses of both ends; none if that cannot be told.
pub type Who = Arc<dyn Fn(SocketAddr, SocketAddr) -> Option<usize> + Send + Sync>;

/// Listens at one address and passes on to another.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    /// Of those who can be told apart.
    of: Vec<watch::Sender<State>>,
    task: JoinHandle<io::Result<()>>,
}

impl Link {
    /// A port of 0 stands for a free one.
    pub async fn start(from: SocketAddr, to: SocketAddr) -> Self {
        Self::start_for(from, to, 0, Arc::new(|_, _| None)).await
    }

    /// One that can be cut for one of several alone.
    pub async fn start_for(from: SocketAddr, to: SocketAddr, count: usize, who: Who) -> Self {
        let listener = TcpListener::bind(from).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State::Whole);
        let of: Vec<_> = (0..count).map(|_| watch::Sender::new(State::Whole)).collect();
        let seen = Seen {
            all: state.subscribe(),
            of: of.iter().map(watch::Sender::subscribe).collect(),
            who,
        };
        Self { address, state, of, task: tokio::spawn(serve(listener, to, seen)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, state: State) {
        self.state.send_replace(state);
        for of in &self.of {
            of.send_replace(state);
        }
    }

    /// For one of those who can be told apart.
    pub fn set_for(&self, who: usize, state: State) {
        self.of[who].send_replace(state);
    }
}

/// The state as it changes, for whoever it is.
#[derive(Clone)]
struct Seen {
    all: watch::Receiver<State>,
    of: Vec<watch::Receiver<State>>,
    who: Who,
}

impl Seen {
    async fn by(self, client: &TcpStream) -> watch::Receiver<State> {
        let (Ok(from), Ok(to), false) =
            (client.peer_addr(), client.local_addr(), self.of.is_empty())
        else {
            return self.all;
        };
        let who = self.who.clone();
        let who = tokio::task::spawn_blocking(move || who(from, to)).await;
        let of = who.ok().flatten().and_then(|who| self.of.get(who));
        of.unwrap_or(&self.all).clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut listener: TcpListener, to: SocketAddr, seen: Seen) -> io::Result<()> {
    let mut state = seen.all.clone();
    let address = listener.local_addr()?;
    loop {
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                // Without descriptors a moment later.
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let seen = seen.clone();
                connections.spawn(async move {
                    let state = seen.by(&client).await;
                    forward(client, to, state).await
                });
            }
        };
        let mut refusing = state.clone();
        tokio::select! {
            _ = accepting => {}
            _ = refusing.wait_for(|state| *state == State::Refusing) => {}
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
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let mut refusing = state.clone();
    let refusing = refusing.wait_for(|state| *state == State::Refusing);
    let now = *state.borrow();
    if now == State::Refusing {
        return Ok(());
    }
    if now != State::HalfOpen {
        let (mut from_server, mut to_server) = TcpStream::connect(to).await?.into_split();
        let mut seen = state.clone();
        tokio::select! {
            // Nothing passes once it is cut.
            biased;
            // Of this client alone: of all, the listener goes as well.
            _ = refusing => return Ok(()),
            _ = seen.wait_for(|state| *state == State::HalfOpen) => {}
            ended = pass(&mut from_client, &mut to_server, State::Unheard, state.clone()) => {
                return ended;
            }
            ended = pass(&mut from_server, &mut to_client, State::Unanswered, state.clone()) => {
                return ended;
            }
        }
    }
    // The next packet that gets through is answered with a reset.
    let _ = state.wait_for(|state| *state != State::HalfOpen).await;
    Ok(())
}

/// `cut` is what stops this way alone.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    cut: State,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    for piece in 1u64.. {
        // That a connection has ended does not arrive either.
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if !passes(piece, cut, &mut state).await || count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
    Ok(())
}

/// Waits until a piece may arrive; false if the link is gone.
async fn passes(piece: u64, cut: State, state: &mut watch::Receiver<State>) -> bool {
    loop {
        let now = *state.borrow_and_update();
        match now {
            State::Slow(delay) => tokio::time::sleep(delay).await,
            State::Lossy(one_in, delay) if piece.is_multiple_of(one_in) => {
                tokio::time::sleep(delay).await;
            }
            now if now == State::Silent || now == cut => {
                if state.changed().await.is_err() {
                    return false;
                }
                continue;
            }
            _ => {}
        }
        return true;
    }
}
