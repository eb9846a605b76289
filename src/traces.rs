//! Traces of statements, for a collector of OpenTelemetry: OTLP over HTTP, as JSON.
//!
//! The standard environment variables say whether and where ([`Traces::of_environment`]). A trace is a
//! statement, by the id that all daemons know it by; its first span is what its own daemon has done, and
//! each daemon that works on a part adds one of its own. Nobody waits for a collector: what it does not
//! take in time is dropped, and counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// What spans wait at least and at most until they are sent, whatever the environment says.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Spans that wait at most, and go in one request: the defaults of OpenTelemetry's batches.
const WAITING: usize = 2048;
const TOGETHER: usize = 512;

/// How long the last ones may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What one daemon has done for a statement.
#[derive(Clone, Debug)]
pub struct Span {
    pub statement: Uuid,
    /// Whether it is the statement's own daemon.
    pub own: bool,
    pub name: String,
    pub started: DateTime<Utc>,
    pub ended: DateTime<Utc>,
    pub attributes: Vec<(&'static str, Value)>,
    /// What it has failed with.
    pub error: Option<String>,
}

/// Where spans go.
#[derive(Debug)]
pub struct Traces {
    queue: mpsc::Sender<Span>,
    /// Of [`Traces::run`], which takes it.
    waiting: Mutex<Option<mpsc::Receiver<Span>>>,
    endpoint: String,
    client: reqwest::Client,
    resource: Value,
    pause: Duration,
    /// Of 2^62 statements.
    sampled: u64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Traces {
    /// `None` unless the environment names a collector: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, to which `/v1/traces` is added. What is wrong is logged, and
    /// nothing is sent then.
    pub fn of_environment(
        daemon: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Option<Self> {
        let variables = Variables(environment.into_iter().collect());
        match variables.traces(daemon) {
            Ok(Some(traces)) => {
                info!("traces of statements are sent to a collector");
                Some(traces)
            }
            Ok(None) => None,
            Err((name, reason)) => {
                warn!(name, reason, "no traces are sent");
                None
            }
        }
    }

    /// Whether spans of a statement are wanted. All daemons agree.
    pub fn wants(&self, statement: Uuid) -> bool {
        (statement.as_u128() as u64 & (WHOLE - 1)) < self.sampled
    }

    /// Takes a span, unless too many wait already.
    pub fn add(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans that a collector has taken, and that it has not.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Sends spans until `end`, and then those that wait. Needed exactly once.
    pub async fn run(&self, end: CancellationToken) {
        let taken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = taken else { return };
        let mut spans = Vec::with_capacity(TOGETHER);
        let mut complains = true;
        while !end.is_cancelled() {
            let due = Instant::now() + self.pause;
            while spans.len() < TOGETHER {
                tokio::select! {
                    () = end.cancelled() => break,
                    () = sleep_until(due) => break,
                    span = waiting.recv() => spans.extend(span),
                }
            }
            let sent = self.send(std::mem::take(&mut spans)).await;
            // Once for each time that it stops working.
            if let Err(error) = &sent
                && complains
            {
                warn!(error, "traces cannot be sent, and are dropped");
            }
            complains = sent.is_ok();
        }
        while let Ok(span) = waiting.try_recv() {
            spans.push(span);
        }
        // A collector that does not answer holds up nobody.
        let _ = tokio::time::timeout(FAREWELL, self.send(spans)).await;
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), String> {
        if spans.is_empty() {
            return Ok(());
        }
        let count = spans.len() as u64;
        let scope = json!({ "name": "oribi", "version": env!("CARGO_PKG_VERSION") });
        let spans: Vec<Value> = spans.iter().map(Span::json).collect();
        let body = json!({ "resourceSpans": [{
            "resource": self.resource,
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }] });
        let answer = self.client.post(&self.endpoint).json(&body).send().await;
        let taken = answer.and_then(reqwest::Response::error_for_status);
        let counter = if taken.is_ok() { &self.sent } else { &self.dropped };
        counter.fetch_add(count, Ordering::Relaxed);
        // The endpoint may have a password in it.
        taken.map(drop).map_err(|error| error.without_url().to_string())
    }
}

impl Span {
    fn json(&self) -> Value {
        // Known to all: the first span of a statement.
        let first = format!("{:016x}", self.statement.as_u128() as u64);
        let (id, parent) = match self.own {
            true => (first, String::new()),
            false => (format!("{:016x}", crate::id::nonce().as_u128() as u64), first),
        };
        let nanos = |at: DateTime<Utc>| at.timestamp_nanos_opt().unwrap_or_default().to_string();
        let status = match &self.error {
            Some(message) => json!({ "code": 2, "message": message }),
            None => json!({}),
        };
        json!({
            "traceId": self.statement.simple().to_string(),
            "spanId": id,
            "parentSpanId": parent,
            "name": self.name,
            "kind": 2, // SPAN_KIND_SERVER
            "startTimeUnixNano": nanos(self.started),
            "endTimeUnixNano": nanos(self.ended),
            "attributes": attributes(self.attributes.iter().map(|(key, value)| (*key, value.clone()))),
            "status": status,
        })
    }
}

/// Attributes as OTLP has them in JSON: 64-bit numbers are texts there.
fn attributes<'a>(pairs: impl Iterator<Item = (&'a str, Value)>) -> Vec<Value> {
    let value = |value: Value| match value {
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Array(values) => {
            let texts = values.iter().filter_map(Value::as_str);
            let texts: Vec<Value> = texts.map(|text| json!({ "stringValue": text })).collect();
            json!({ "arrayValue": { "values": texts } })
        }
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    pairs.map(|(key, of)| json!({ "key": key, "value": value(of) })).collect()
}

/// The bits of a statement's id that decide whether it is sampled: the last ones, since those before count
/// what was made in the same millisecond.
const WHOLE: u64 = 1 << 32;

/// The environment.
struct Variables(HashMap<String, String>);

/// A variable, and what is wrong with it.
type Wrong = (String, String);

impl Variables {
    /// As OpenTelemetry has it, empty is unset.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Of those of OTLP, the one for traces comes first.
    fn otlp(&self, name: &str) -> Option<(String, &str)> {
        [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name.clone(), value)))
    }

    fn millis(&self, name: &str, default: Duration) -> Result<Duration, Wrong> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let millis = text.parse().map(Duration::from_millis);
        millis.map_err(|_| (name.to_owned(), "is to be a number of milliseconds".to_owned()))
    }

    fn traces(&self, daemon: &str) -> Result<Option<Traces>, Wrong> {
        let off = self.get("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let Some((name, url)) = self.otlp("ENDPOINT").filter(|_| !off) else { return Ok(None) };
        match self.get("OTEL_TRACES_EXPORTER") {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => return Err(wrong("OTEL_TRACES_EXPORTER", "can be otlp or none")),
        }
        if let Some((name, _)) = self.otlp("PROTOCOL").filter(|(_, value)| *value != "http/json") {
            let reason =
                "is to be http/json: collectors take that on the port of http/protobuf, 4318";
            return Err(wrong(&name, reason));
        }
        let endpoint = match name.contains("TRACES") {
            true => url.to_owned(),
            false => format!("{}/v1/traces", url.trim_end_matches('/')),
        };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(wrong(&name, "is to begin with http:// or https://"));
        }
        let timeout = match self.otlp("TIMEOUT") {
            Some((name, _)) => self.millis(&name, Duration::ZERO)?,
            None => Duration::from_secs(10),
        };
        let client = reqwest::Client::builder().timeout(timeout).default_headers(self.headers()?);
        let client = client.build().map_err(|error| wrong(&name, &error.to_string()))?;
        let pause = self.millis("OTEL_BSP_SCHEDULE_DELAY", Duration::from_secs(5))?;
        let (queue, waiting) = mpsc::channel(WAITING);
        Ok(Some(Traces {
            queue,
            waiting: Mutex::new(Some(waiting)),
            endpoint,
            client,
            resource: self.resource(daemon),
            pause: pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
            sampled: self.sampled()?,
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    fn headers(&self) -> Result<HeaderMap, Wrong> {
        let mut headers = HeaderMap::new();
        let Some((name, text)) = self.otlp("HEADERS") else { return Ok(headers) };
        for (key, value) in pairs(text) {
            let header = key.parse::<HeaderName>().ok().zip(HeaderValue::from_str(&value).ok());
            let Some((key, mut value)) = header else {
                return Err(wrong(&name, "is to be name=value, separated by commas"));
            };
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(headers)
    }

    fn resource(&self, daemon: &str) -> Value {
        let mut known = vec![
            ("service.name".to_owned(), "oribi".to_owned()),
            ("service.instance.id".to_owned(), daemon.to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let given = self.get("OTEL_RESOURCE_ATTRIBUTES").map(pairs).unwrap_or_default();
        let name = self.get("OTEL_SERVICE_NAME");
        for (key, value) in
            given.into_iter().chain(name.map(|name| ("service.name".to_owned(), name.to_owned())))
        {
            known.retain(|(other, _)| *other != key);
            known.push((key, value));
        }
        let known = known.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str())));
        json!({ "attributes": attributes(known) })
    }

    fn sampled(&self) -> Result<u64, Wrong> {
        let name = "OTEL_TRACES_SAMPLER";
        let Some(sampler) = self.get(name) else { return Ok(WHOLE) };
        match sampler.trim_start_matches("parentbased_") {
            "always_on" => Ok(WHOLE),
            "always_off" => Ok(0),
            "traceidratio" => {
                let name = "OTEL_TRACES_SAMPLER_ARG";
                let ratio = self.get(name).unwrap_or("1").parse::<f64>();
                match ratio.ok().filter(|ratio| (0.0..=1.0).contains(ratio)) {
                    Some(ratio) => Ok((ratio * WHOLE as f64) as u64),
                    None => Err(wrong(name, "is to be a number from 0 to 1")),
                }
            }
            _ => Err(wrong(name, "can be always_on, always_off or traceidratio")),
        }
    }
}

fn wrong(name: &str, reason: &str) -> Wrong {
    (name.to_owned(), reason.to_owned())
}

/// A list such as `a=b,c=d%20e`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), decoded(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(variables: &[(&str, &str)]) -> Result<Option<Traces>, Wrong> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Variables(variables.iter().map(owned).collect()).traces("node-1")
    }

    #[test]
    fn the_environment_says_where_traces_go() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        let at = |variables: &[(&str, &str)]| {
            traces(variables).expect("valid").map(|traces| traces.endpoint)
        };
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[ENDPOINT]).as_deref(), Some("http://c:4318/v1/traces"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/x");
        assert_eq!(at(&[ENDPOINT, own]).as_deref(), Some("https://t/x"));
        assert_eq!(at(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(at(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert_eq!(at(&[(ENDPOINT.0, " ")]), None);
        for bad in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
        ] {
            assert_eq!(traces(&[ENDPOINT, bad]).expect_err("bad").0, bad.0);
        }
        let some = [
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let some = traces(&some).expect("valid").expect("on");
        let wanted = (0..1000).filter(|_| some.wants(crate::id::statement())).count();
        assert!((100..400).contains(&wanted), "{wanted}");
        let resource = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,zone=b%20c");
        let named = traces(&[ENDPOINT, resource, ("OTEL_SERVICE_NAME", "d")]);
        let resource = named.expect("valid").expect("on").resource.to_string();
        for part in ["\"b c\"", "\"d\"", "\"node-1\""] {
            assert!(resource.contains(part), "{resource}");
        }
        assert!(!resource.contains("\"a\""), "{resource}");
    }

    #[test]
    fn spans_of_one_statement_belong_together() {
        let statement = Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let (started, ended) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
        let attributes = vec![("rows", 7.into()), ("who", "ann".into())];
        let (name, error) = ("SELECT".to_owned(), None);
        let own = Span { statement, own: true, name, started, ended, attributes, error };
        let (first, other) = (own.json(), Span { own: false, ..own }.json());
        assert_eq!(first["traceId"], "0123456789abcdef0011223344556677");
        assert_eq!(other["traceId"], first["traceId"]);
        assert_eq!(
            (&first["spanId"], &first["parentSpanId"]),
            (&"0011223344556677".into(), &"".into())
        );
        assert_eq!(other["parentSpanId"], first["spanId"]);
        assert_ne!(other["spanId"], first["spanId"]);
        assert_eq!(first["attributes"][0]["value"]["intValue"], "7");
        assert_eq!(first["attributes"][1]["value"]["stringValue"], "ann");
    }
}
