//! A loopback proxy between a client and ZooKeeper that cuts connections and loses replies.
//! Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How a connection ends when a reply is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Closed in order.
    Close,
    /// Reset.
    Reset,
    /// It stays open, and nothing comes any more.
    Silence,
}

/// What a reply answers that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Any,
    /// A transaction that has this in a path.
    Transaction(&'static [u8]),
}

/// The type of a request that is a transaction (`ZooDefs.OpCode.multi`).
const MULTI: i32 = 14;

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: SocketAddr,
    gate: watch::Sender<Gate>,
    lose: Mutex<Option<(Request, Break)>>,
}

#[derive(Clone, Copy, Default)]
struct Gate {
    shut: bool,
    /// Connections of an earlier generation end.
    generation: u64,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let gate = watch::Sender::new(Gate::default());
        let shared = Arc::new(Shared { server, gate, lose: Mutex::new(None) });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and each new one at once.
    pub fn cut(&self) {
        self.shared.gate.send_modify(|gate| {
            gate.shut = true;
            gate.generation += 1;
        });
    }

    pub fn restore(&self) {
        self.shared.gate.send_modify(|gate| {
            gate.shut = false;
            gate.generation += 1;
        });
    }

    /// Returns once the gate is shut, as when a reply was lost.
    pub async fn shut(&self) {
        let mut gate = self.shared.gate.subscribe();
        gate.wait_for(|gate| gate.shut).await.expect("the proxy lives");
    }

    /// Passes the next request on to the server, but not its reply: the connection breaks instead,
    /// and new ones are refused until [`restore`](Self::restore).
    pub fn lose_next_reply(&self, how: Break) {
        *self.shared.lose.lock().unwrap() = Some((Request::Any, how));
    }

    /// The same with the reply to the next transaction that writes in the catalog.
    pub fn lose_next_commit(&self, how: Break) {
        self.lose_next_transaction(b"/catalog/", how);
    }

    /// The same with the reply to the next transaction that has this in a path.
    pub fn lose_next_transaction(&self, part: &'static [u8], how: Break) {
        *self.shared.lose.lock().unwrap() = Some((Request::Transaction(part), how));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if !shared.gate.borrow().shut => {
                    connections.spawn(serve(client, shared.clone()));
                }
                _ => (),
            },
            Some(_) = connections.join_next() => (),
        }
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut gate = shared.gate.subscribe();
    let generation = gate.borrow().generation;
    let server = TcpStream::connect(shared.server).await?;
    let (client_reader, mut client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    let chosen = Mutex::default();
    let lost = tokio::select! {
        _ = requests(client_reader, server_writer, &shared, &chosen) => return Ok(()),
        lost = replies(server_reader, &mut client_writer, &shared, &chosen) => lost?,
        _ = gate.wait_for(|gate| gate.generation != generation) => return Ok(()),
    };
    shared.gate.send_modify(|gate| gate.shut = true);
    match lost {
        Break::Close => client_writer.shutdown().await,
        Break::Reset => client_writer.as_ref().set_zero_linger(),
        Break::Silence => {
            let _ = gate.wait_for(|gate| gate.generation != generation).await;
            Ok(())
        }
    }
}

/// Forwards requests, frame by frame, and notes the ids of transactions whose reply is to be lost.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    chosen: &Mutex<HashSet<i32>>,
) -> io::Result<()> {
    let mut first = true;
    loop {
        let frame = frame(&mut from).await?;
        let number = |at: usize| {
            let bytes = frame.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| i32::from_be_bytes(*bytes))
        };
        // The first opens the session, and is made otherwise.
        let is_wanted = match *shared.lose.lock().unwrap() {
            Some((Request::Transaction(part), _)) => {
                frame.windows(part.len()).any(|window| window == part)
            }
            _ => false,
        };
        if !first && number(4) == MULTI && is_wanted {
            chosen.lock().unwrap().insert(number(0));
        }
        first = false;
        to.write_u32(frame.len() as u32).await?;
        to.write_all(&frame).await?;
    }
}

async fn frame(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Forwards replies, frame by frame, until one is to be lost. A reply to a request, unlike a ping
/// or a watch event, has a positive transaction id.
async fn replies(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    chosen: &Mutex<HashSet<i32>>,
) -> io::Result<Break> {
    loop {
        let frame = frame(&mut from).await?;
        let xid = frame.first_chunk().map_or(0, |xid| i32::from_be_bytes(*xid));
        let is_chosen = chosen.lock().unwrap().remove(&xid);
        let wanted = |(request, _): &mut (Request, Break)| *request == Request::Any || is_chosen;
        if xid > 0
            && let Some((_, how)) = shared.lose.lock().unwrap().take_if(wanted)
        {
            return Ok(how);
        }
        to.write_u32(frame.len() as u32).await?;
        to.write_all(&frame).await?;
    }
}
