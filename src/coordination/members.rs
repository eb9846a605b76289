//! The members of an ensemble, asked one by one how they are: by four-letter words, or through the
//! admin server, whichever answers. A member that does neither costs a bounded time and has an error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::zookeeper::{Options, Tls};
use super::{Error, Result};

/// How long a member may take to answer one question; there are three at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of the longest answer that is read.
const LONGEST: u64 = 256 << 10;

/// Where ZooKeeper's admin server listens, and where the client port is, if nobody says otherwise.
const ADMIN_PORT: u16 = 8080;
const CLIENT_PORT: u16 = 2181;

/// A member and what it says of itself, under the names of `mntr` without `zk_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    pub facts: BTreeMap<String, String>,
    /// What has answered: `mntr`, `admin`, `srvr` or `embedded`.
    pub source: Option<&'static str>,
    /// Why nothing has.
    pub error: Option<String>,
}

impl Member {
    /// The store within a daemon.
    pub fn embedded(daemon: String) -> Self {
        let facts = [("server_state", "embedded"), ("version", env!("CARGO_PKG_VERSION"))];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let source = Some("embedded");
        Self { address: daemon, facts: facts.into(), source, error: None }
    }

    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }
}

impl Options {
    /// All members: those that are configured, and others that the ensemble's own configuration (the
    /// data of `/zookeeper/config`) has addresses of.
    pub async fn members(&self, config: &[u8]) -> Result<Vec<Member>> {
        let mut addresses = self.addresses()?;
        let config = String::from_utf8_lossy(config);
        let mut known: Vec<SocketAddr> = Vec::new();
        for address in &addresses {
            known.extend(resolved(address).await);
        }
        for address in config.lines().filter_map(configured) {
            let found = resolved(&address).await;
            if !found.iter().any(|found| known.contains(found)) {
                known.extend(found);
                addresses.push(address);
            }
        }
        let asked = addresses.into_iter().map(|address| ask(address, self.tls.as_ref()));
        Ok(join_all(asked).await)
    }
}

async fn resolved(address: &str) -> Vec<SocketAddr> {
    match timeout(PATIENCE, lookup_host(address)).await {
        Ok(Ok(found)) => found.collect(),
        _ => Vec::new(),
    }
}

/// The client's address in a line such as `server.1=zk1:2888:3888:participant;0.0.0.0:2181`.
fn configured(line: &str) -> Option<String> {
    let (server, client) = line.strip_prefix("server.")?.split_once('=')?.1.split_once(';')?;
    let (host, port) = client.rsplit_once(':').unwrap_or(("0.0.0.0", client));
    let port: u16 = port.trim().parse().ok()?;
    let anywhere = matches!(host, "0.0.0.0" | "[::]" | "[0:0:0:0:0:0:0:0]" | "::");
    let own = match server.strip_prefix('[') {
        Some(rest) => format!("[{}]", rest.split_once(']')?.0),
        None => server.split_once(':')?.0.to_owned(),
    };
    Some(format!("{}:{port}", if anywhere { own.as_str() } else { host }))
}

async fn ask(address: String, tls: Option<&Tls>) -> Member {
    let mut member = Member { address, ..Member::default() };
    let address = member.address.as_str();
    let word = async |word: &'static str| match timeout(PATIENCE, four_letters(address, tls, word))
        .await
    {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer to {word} within {} s", PATIENCE.as_secs())),
    };
    let failure = match word("mntr").await.and_then(|text| of_mntr(&text)) {
        Ok(facts) => return Member { facts, source: Some("mntr"), ..member },
        Err(failure) => failure,
    };
    let (admin, srvr) = tokio::join!(timeout(PATIENCE, admin(address)), word("srvr"));
    match (admin, srvr.and_then(|text| of_srvr(&text))) {
        (Ok(Ok(facts)), _) => (member.facts, member.source) = (facts, Some("admin")),
        (_, Ok(facts)) => (member.facts, member.source) = (facts, Some("srvr")),
        (_, Err(_)) => member.error = Some(failure),
    }
    member
}

type Facts = BTreeMap<String, String>;

async fn four_letters(address: &str, tls: Option<&Tls>, word: &str) -> Result<String, String> {
    let answer = match tls {
        Some(tls) => {
            let stream = tls.open(address).await.map_err(|error| error.to_string())?;
            exchange(stream, word).await
        }
        None => match TcpStream::connect(address).await {
            Ok(stream) => exchange(stream, word).await,
            Err(error) => Err(error),
        },
    };
    answer.map_err(|error| error.to_string())
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &str,
) -> std::io::Result<String> {
    stream.write_all(question.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // Servers close a connection with TLS without a word: what came counts.
    match stream.take(LONGEST).read_to_end(&mut answer).await {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// What the admin server says on the machine of a member, if it is that member's.
async fn admin(address: &str) -> Result<Facts, String> {
    let host = super::zookeeper::host_name(address);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let command = async |command: &'static str| -> Result<Facts, String> {
        let failed = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect(format!("{host}:{ADMIN_PORT}")).await.map_err(failed)?;
        let request = format!("GET /commands/{command} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        of_admin(&exchange(stream, &request).await.map_err(failed)?)
    };
    // Another server on the same machine may be behind that port.
    let configuration = command("configuration").await?;
    let port = address.rsplit_once(':').map(|(_, port)| port);
    let ports = ["client_port", "secure_client_port"];
    if !ports.iter().any(|name| configuration.get(*name).map(String::as_str) == port) {
        return Err("it is another server's".to_owned());
    }
    command("monitor").await
}

/// Lines of a name and a value; a sentence instead says why there are none.
fn of_mntr(text: &str) -> Result<Facts, String> {
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let facts: Facts = lines
        .filter_map(|(name, value)| Some((name.strip_prefix("zk_")?.to_owned(), value.to_owned())))
        .collect();
    if facts.is_empty() {
        return Err(match text.trim() {
            "" => "it closes the connection without an answer".to_owned(),
            text => text.lines().next().unwrap_or_default().to_owned(),
        });
    }
    Ok(facts)
}

fn of_admin(text: &str) -> Result<Facts, String> {
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    let parsed: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(body).map_err(|error| error.to_string())?;
    let fact = |(name, value)| match value {
        serde_json::Value::String(text) => Some((name, text)),
        serde_json::Value::Number(number) => Some((name, number.to_string())),
        _ => None,
    };
    Ok(parsed.into_iter().filter_map(fact).collect())
}

fn of_srvr(text: &str) -> Result<Facts, String> {
    let mut facts = Facts::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let known = match name {
            "Zookeeper version" => "version",
            "Received" => "packets_received",
            "Sent" => "packets_sent",
            "Connections" => "num_alive_connections",
            "Outstanding" => "outstanding_requests",
            "Mode" => "server_state",
            "Node count" => "znode_count",
            "Latency min/avg/max" => {
                let names = ["min_latency", "avg_latency", "max_latency"];
                let values = value.split('/').map(|value| value.trim().to_owned());
                facts.extend(names.map(str::to_owned).into_iter().zip(values));
                continue;
            }
            _ => continue,
        };
        facts.insert(known.to_owned(), value.trim().to_owned());
    }
    match facts.contains_key("server_state") {
        true => Ok(facts),
        false => Err(text.lines().next().unwrap_or_default().to_owned()),
    }
}

impl Options {
    /// `host:port` of those that are configured.
    fn addresses(&self) -> Result<Vec<String>, Error> {
        let with_port = |host: String| match host.ends_with(']') || !host.contains(':') {
            true => format!("{host}:{CLIENT_PORT}"),
            false => host,
        };
        Ok(self.servers()?.into_iter().map(with_port).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_members() {
        let address = |line| configured(line);
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(address("server.1=zk1:2888:3888:participant;0.0.0.0:2181"), is("zk1:2181"));
        assert_eq!(address("server.2=zk2:2888:3888:observer;2182"), is("zk2:2182"));
        assert_eq!(address("server.3=zk3:2888:3888;10.0.0.3:2181"), is("10.0.0.3:2181"));
        assert_eq!(address("server.4=zk4:2888:3888:participant"), None);
        assert_eq!(address("version=0"), None);
    }

    #[test]
    fn answers_are_understood() {
        let mntr = of_mntr("zk_version\t3.8.0-1, built on x\nzk_server_state\tleader\n");
        assert_eq!(mntr.expect("facts").get("server_state").map(String::as_str), Some("leader"));
        let refused = "mntr is not executed because it is not in the whitelist.\n";
        assert_eq!(of_mntr(refused), Err(refused.trim().to_owned()));
        let srvr = "Zookeeper version: 3.8.0-1, built on x\nLatency min/avg/max: 0/0.25/7\n\
                    Received: 4\nSent: 3\nConnections: 1\nOutstanding: 0\nZxid: 0x2\n\
                    Mode: standalone\nNode count: 5\n";
        let srvr = of_srvr(srvr).expect("facts");
        let fact = |name: &str| srvr.get(name).map(String::as_str);
        assert_eq!((fact("avg_latency"), fact("znode_count")), (Some("0.25"), Some("5")));
        assert!(of_srvr("This ZooKeeper instance is not currently serving requests").is_err());
        let admin = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n{\"server_state\": \"follower\", \
                     \"znode_count\": 5, \"error\": null}";
        let admin = of_admin(admin).expect("facts");
        assert_eq!(admin.get("znode_count").map(String::as_str), Some("5"));
        assert!(of_admin("HTTP/1.1 404 Not Found\r\n\r\n<html>").is_err());
    }
}
