//! Which daemon has opened a connection, so that two of them can be cut off from each other alone.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::link::{Link, State};
use crate::world::{IDS, lock};

/// The daemons' process ids, 0 where none runs.
#[derive(Default)]
pub struct Pids(Mutex<[u32; IDS.len()]>);

impl Pids {
    pub fn set(&self, daemon: usize, pid: u32) {
        lock(&self.0)[daemon] = pid;
    }

    /// The daemon that a connection comes from.
    pub fn of(&self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        let socket = format!("socket:[{}]", inode(from, to)?);
        let pids = *lock(&self.0);
        pids.iter().position(|pid| *pid != 0 && holds(*pid, &socket))
    }
}

/// The client's end of a connection, by the kernel's number for it.
fn inode(from: SocketAddr, to: SocketAddr) -> Option<String> {
    let (from, to) = (in_hex(from)?, in_hex(to)?);
    let connections = fs::read_to_string("/proc/net/tcp").ok()?;
    connections.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == from && fields.next()? == to).then(|| fields.nth(6))?.map(str::to_owned)
    })
}

/// As `/proc/net/tcp` has it: the bytes of the address as a number of this machine.
fn in_hex(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

fn holds(pid: u32, socket: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.into_iter()
        .any(|open| fs::read_link(open.path()).is_ok_and(|target| target == Path::new(socket)))
}

#[test]
fn a_connection_is_known_by_its_process() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address");
    let _client = std::net::TcpStream::connect(to).expect("a connection");
    let (_server, from) = listener.accept().expect("a connection");
    let pids = Pids::default();
    assert_eq!(pids.of(from, to), None);
    pids.set(2, std::process::id());
    assert_eq!(pids.of(from, to), Some(2));
}

#[tokio::test]
async fn one_that_is_refused_does_not_reach_the_other_end() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = server.local_addr().expect("an address");
    let any = "127.0.0.1:0".parse().expect("an address");
    let link = Link::start_for(any, to, 1, Arc::new(|_, _| Some(0))).await;
    let mut buffer = [0];
    for _ in 0..20 {
        link.set_for(0, State::Refusing);
        let mut refused = TcpStream::connect(link.address()).await.expect("a connection");
        assert_eq!(refused.read(&mut buffer).await.unwrap_or(0), 0);
        // The next that the server hears of is not the one before.
        link.set_for(0, State::Whole);
        let mut whole = TcpStream::connect(link.address()).await.expect("a connection");
        whole.write_all(b"x").await.expect("it passes");
        let (mut heard, _) = server.accept().await.expect("a connection");
        assert_eq!(heard.read(&mut buffer).await.expect("it passes"), 1);
    }
}
