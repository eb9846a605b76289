//! A browser as far as the console's requests need one: a cookie, a token, and whatever headers.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::daemon::Daemon;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let answer = Self { status, head, body: bytes[end + 4..].to_vec() };
        match answer.header("transfer-encoding") {
            Some("chunked") => Self { body: whole(&answer.body), ..answer },
            _ => answer,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The SQLSTATE that the request was refused with.
    pub fn refused(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().expect("a code").to_owned())
    }

    /// Lines of JSON.
    pub fn lines(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Rows of a text of SQL.
    pub fn rows(&self) -> Vec<Value> {
        self.lines().into_iter().filter(Value::is_array).collect()
    }

    /// The SQLSTATE with which a text of SQL has failed.
    pub fn failure(&self) -> Option<String> {
        let lines = self.lines();
        let error = lines.iter().find_map(|line| line.get("error"))?;
        Some(error["code"].as_str().expect("a code").to_owned())
    }
}

/// A body that came in chunks; what was cut off is left out.
fn whole(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a length");
        if length == 0 || rest.len() < end + 2 + length {
            break;
        }
        body.extend(&rest[end + 2..end + 2 + length]);
        rest = &rest[(end + 4 + length).min(rest.len())..];
    }
    body
}

/// A browser that shows the console.
pub struct Browser {
    address: String,
    cookie: Option<String>,
    csrf: Option<String>,
}

impl Browser {
    pub fn new(daemon: &Daemon) -> Self {
        Self { address: daemon.web().to_string(), cookie: None, csrf: None }
    }

    /// One that is logged in; without a password where none is asked.
    pub async fn logged_in(daemon: &Daemon, user: &str, password: &str) -> Self {
        let mut browser = Self::new(daemon);
        let answer = browser.log_in(user, password).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        browser
    }

    pub async fn log_in(&mut self, user: &str, password: &str) -> Answer {
        let body = json!({ "user": user, "password": password });
        let answer = self.post("/api/login", &body).await;
        if let Some(cookie) = answer.header("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
            self.csrf = answer.json()["csrf"].as_str().map(str::to_owned);
        }
        answer
    }

    pub async fn sql(&self, sql: &str) -> Answer {
        self.post("/api/sql", &json!({ "sql": sql, "typed": true })).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    /// With headers of the test's own, which go before the usual ones; an empty one leaves that out.
    pub async fn send(&self, method: &str, path: &str, own: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = self.begin(method, path, own, body).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        Answer::parse(&bytes)
    }

    /// A request whose answer is not waited for.
    pub async fn begin(
        &self,
        method: &str,
        path: &str,
        own: &[(&str, &str)],
        body: &str,
    ) -> TcpStream {
        let length = body.len().to_string();
        let usual = [
            ("host", Some(self.address.as_str())),
            ("connection", Some("close")),
            ("content-length", Some(length.as_str())),
            ("cookie", self.cookie.as_deref()),
            ("x-oribi-csrf", self.csrf.as_deref()),
        ];
        let left = usual.into_iter().filter(|(name, _)| !own.iter().any(|(own, _)| own == name));
        let left = left.filter_map(|(name, value)| Some((name, value?)));
        let own = own.iter().copied().filter(|(_, value)| !value.is_empty());
        let headers: String = left.chain(own).map(|(k, v)| format!("{k}: {v}\r\n")).collect();
        let mut stream = TcpStream::connect(&self.address).await.expect("the web port");
        let request = format!("{method} {path} HTTP/1.1\r\n{headers}\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }
}
