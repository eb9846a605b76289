//! A real server of S3's protocol that checks signatures (moto, from PyPI), as a process.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// A server with one bucket, `lake`, and one user. Ends when dropped, or with the test process,
/// whose end closes its standard input.
pub struct S3 {
    server: Child,
    calls: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    pub endpoint: String,
    pub key: String,
    pub secret: String,
}

impl S3 {
    /// `python` is one with boto3 and moto.
    pub fn start(python: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3/server.py");
        let mut server = Command::new(python)
            .arg(script)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdin = server.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(server.stdout.take().expect("a pipe"));
        let ready = line(&mut stdout);
        let text = |name: &str| ready[name].as_str().expect("a text").to_owned();
        let (endpoint, key, secret) = (text("endpoint"), text("key"), text("secret"));
        Self { server, calls: Mutex::new((stdin, stdout)), endpoint, key, secret }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let address = self.endpoint.trim_start_matches("http://");
        address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// What a daemon's environment needs for it.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ACCESS_KEY_ID", self.key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// An operation of the user's, by boto3's names. A body that is no text is `{"base64": ..}`.
    pub fn call(&self, operation: &str, parameters: &Value) -> Value {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, stdout) = &mut *calls;
        writeln!(stdin, "{}", json!([operation, parameters])).expect("the server reads");
        line(stdout)
    }

    /// The keys of all objects below a prefix, at most a thousand.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let found = self.call("list_objects_v2", &json!({"Bucket": "lake", "Prefix": prefix}));
        let objects = found["Contents"].as_array().into_iter().flatten();
        objects.map(|object| object["Key"].as_str().expect("a key").to_owned()).collect()
    }

    /// The same for those whose names end like this.
    pub fn objects_like(&self, prefix: &str, end: &str) -> Vec<String> {
        self.objects(prefix).into_iter().filter(|key| key.ends_with(end)).collect()
    }

    /// How many objects are being sent in parts.
    pub fn uploads(&self) -> usize {
        let found = self.call("list_multipart_uploads", &json!({"Bucket": "lake"}));
        found["Uploads"].as_array().map_or(0, Vec::len)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn line(stdout: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the server answers");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("no answer ({error}): {line:?}"))
}
