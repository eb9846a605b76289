//! A way to an HTTP server that a test can have fail: slow, busy, silent, cut off, with wrong lengths. What
//! passes is passed on byte for byte, so that signatures stay right.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It takes so long until it is answered.
    Slow(Duration),
    /// It is not carried out, and answered with this status.
    Status(u16),
    /// It is carried out, and the connection ends before the answer.
    Unanswered,
    /// The connection ends in the middle of the answer's body.
    Cut,
    /// The answer has half of the bytes that were asked for, and says so.
    Short,
    /// Nothing is passed on, and nothing answered, as long as the trouble lasts; then the connection ends.
    Silent,
}

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Reads,
    Writes,
    All,
}

/// How many of a hundred requests, and by which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub trouble: Trouble,
    pub which: Which,
    pub percent: u64,
    pub seed: u64,
}

/// Passes on to a server.
pub struct Proxy {
    pub address: SocketAddr,
    rule: watch::Sender<Option<Rule>>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    struck: AtomicUsize,
    numbers: Mutex<u64>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (rule, seen) = watch::channel(None);
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(serve(listener, to, seen, shared.clone()));
        Self { address, rule, shared, task }
    }

    /// From now on; `None` for no trouble.
    pub fn set(&self, rule: Option<Rule>) {
        self.rule.send_replace(rule);
    }

    /// Requests so far, and those that had trouble.
    pub fn counts(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (count(&self.shared.requests), count(&self.shared.struck))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    to: SocketAddr,
    rule: watch::Receiver<Option<Rule>>,
    shared: Arc<Shared>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(client, to, rule.clone(), shared.clone()));
    }
}

async fn connection(
    mut client: TcpStream,
    to: SocketAddr,
    mut rule: watch::Receiver<Option<Rule>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut left = Vec::new();
    while let Some(request) = message(&mut client, &mut left, false).await? {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let trouble = shared.strikes(*rule.borrow_and_update(), request.is_read());
        match trouble {
            Some(Trouble::Slow(delay)) => tokio::time::sleep(delay).await,
            Some(Trouble::Status(code)) => {
                let answer = refusal(code, request.is("HEAD"));
                client.write_all(answer.as_bytes()).await?;
                continue;
            }
            Some(Trouble::Silent) => {
                let _ = rule.changed().await;
                return Ok(());
            }
            _ => {}
        }
        let mut server = TcpStream::connect(to).await?;
        server.write_all(&request.head).await?;
        server.write_all(&request.body).await?;
        let answer = message(&mut server, &mut Vec::new(), request.is("HEAD")).await?;
        let mut answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        match trouble {
            Some(Trouble::Unanswered) => return Ok(()),
            Some(Trouble::Cut) if !answer.body.is_empty() => {
                client.write_all(&answer.head).await?;
                client.write_all(&answer.body[..answer.body.len() / 2]).await?;
                return Ok(());
            }
            // Of what is a whole object nobody could tell.
            Some(Trouble::Short) if answer.field("content-range").is_some() => answer.shorten(),
            _ => {}
        }
        client.write_all(&answer.head).await?;
        client.write_all(&answer.body).await?;
        if answer.ends_connection() {
            return Ok(());
        }
    }
    Ok(())
}

impl Shared {
    fn strikes(&self, rule: Option<Rule>, is_read: bool) -> Option<Trouble> {
        let rule = rule?;
        let which = match rule.which {
            Which::All => true,
            Which::Reads => is_read,
            Which::Writes => !is_read,
        };
        if !which {
            return None;
        }
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        *numbers += 1;
        // splitmix64's finalizer, by Steele, Lea and Flood.
        let mut mixed = (*numbers ^ (rule.seed << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let strikes = (mixed ^ (mixed >> 31)) % 100 < rule.percent;
        if strikes {
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
        strikes.then_some(rule.trouble)
    }
}

/// As S3 says it.
fn refusal(code: u16, is_head: bool) -> String {
    let name = match code {
        503 => "SlowDown",
        _ => "InternalError",
    };
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{name}</Code><Message>a test wants it</Message></Error>"
    );
    let shown = if is_head { "" } else { body.as_str() };
    let length = body.len();
    format!(
        "HTTP/1.1 {code} {name}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{shown}"
    )
}

/// A request or an answer.
struct Message {
    /// With the empty line at its end.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn is(&self, method: &str) -> bool {
        self.head.starts_with(method.as_bytes())
    }

    fn is_read(&self) -> bool {
        self.is("GET") || self.is("HEAD")
    }

    fn field(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    fn ends_connection(&self) -> bool {
        let ends =
            self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        ends || self.head.starts_with(b"HTTP/1.0")
    }

    fn shorten(&mut self) {
        self.body.truncate(self.body.len() / 2);
        let head = String::from_utf8_lossy(&self.head).into_owned();
        let lines = head.trim_end().lines().map(|line| match line.split_once(':') {
            Some((field, _)) if field.eq_ignore_ascii_case("content-length") => {
                format!("Content-Length: {}", self.body.len())
            }
            _ => line.to_owned(),
        });
        let lines: Vec<String> = lines.collect();
        self.head = format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes();
    }
}

/// The next one on a connection; none if it has ended. `left` is what came behind the last.
async fn message(
    stream: &mut TcpStream,
    left: &mut Vec<u8>,
    is_bodiless: bool,
) -> io::Result<Option<Message>> {
    let mut bytes = std::mem::take(left);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let mut message = Message { body: bytes.split_off(end), head: bytes };
    let is_answer = message.is("HTTP/");
    let length = message.field("content-length").and_then(|length| length.parse::<usize>().ok());
    if is_bodiless {
        return Ok(Some(message));
    }
    match length {
        Some(length) => {
            while message.body.len() < length {
                if stream.read_buf(&mut message.body).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            *left = message.body.split_off(length);
        }
        None if message.field("transfer-encoding").is_some() => {
            return Err(Error::other("chunks are not known here"));
        }
        None if is_answer && !message.head[9..].starts_with(b"204") => {
            while stream.read_buf(&mut message.body).await? > 0 {}
        }
        None => {}
    }
    Ok(Some(message))
}
