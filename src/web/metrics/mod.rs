//! Metrics in Prometheus' text format, by its conventions for names and units.
//!
//! - [`families`]: every metric.
//!
//! Nothing is gathered in advance: a scrape looks at what rooms have, and counts nothing twice.

mod families;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use datafusion::execution::memory_pool::MemoryLimit;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{TEXT_FORMAT, TextEncoder};
use tokio::runtime::Handle;

use super::{Sources, health};
use crate::cluster::{Lack, Lacking, Member, State};
use crate::coordination::{Coordination, SessionState};
use crate::metrics::Times;
use crate::query::TransactionState;
use crate::query::history::tally::{PHASES, STATES};
use crate::system::UNREACHABLE;
use crate::telemetry;
use families::*;
pub use families::{FAMILIES, Family, Kind, PROCESS};

pub(super) fn router() -> Router<Arc<Sources>> {
    Router::new().route("/metrics", get(metrics))
}

type Answer = Result<([(HeaderName, &'static str); 1], String), (StatusCode, String)>;

async fn metrics(Shared(sources): Shared<Arc<Sources>>) -> Answer {
    let mut scrape = Scrape::default();
    scrape.daemon(&sources);
    scrape.queries(&sources);
    scrape.clients(&sources);
    scrape.pools(&sources);
    scrape.memory(&sources);
    scrape.store(&sources);
    scrape.together(&sources);
    scrape.runtimes(&sources);
    let families = scrape.finish();
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// The table of all metrics, in Markdown.
pub fn table() -> String {
    let mut text = "| metric | type | labels | what it is |\n|---|---|---|---|\n".to_owned();
    for Family { name, kind, labels, help } in FAMILIES {
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {help} |");
    }
    for (name, kind, help) in PROCESS {
        let _ = writeln!(text, "| `{name}` | {} | | {help} |", kind.as_str());
    }
    text
}

const DAEMON_STATES: [State; 4] = [State::Joining, State::Ready, State::Degraded, State::Draining];

/// SQLSTATEs that are there from the beginning, as 0: the first of what appears later is no increase, and
/// alert rules would not see it.
const REFUSALS: &[&str] = &["28000", "28P01", "53300"];
const DEFECTS: &[&str] = &["XX000"];

/// What one scrape finds.
#[derive(Debug, Default)]
struct Scrape(Vec<MetricFamily>);

impl Scrape {
    /// A value, with the values of the metric's labels.
    fn add(&mut self, family: Family, labels: &[&str], value: f64) {
        let mut metric = labelled(family, labels);
        match family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.put(family, metric);
    }

    fn count(&mut self, family: Family, labels: &[&str], value: u64) {
        self.add(family, labels, value as f64);
    }

    fn times(&mut self, family: Family, labels: &[&str], times: &Times) {
        let buckets = times.classes.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count);
        histogram.set_sample_sum(times.sum);
        let mut metric = labelled(family, labels);
        metric.set_histogram(histogram);
        self.put(family, metric);
    }

    fn put(&mut self, family: Family, metric: Metric) {
        // All of a family stand together.
        if let Some(known) = self.0.iter_mut().rfind(|known| known.name() == family.name) {
            return known.mut_metric().push(metric);
        }
        let mut found = MetricFamily::default();
        found.set_name(family.name.to_owned());
        found.set_help(family.help.to_owned());
        found.set_field_type(match family.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        found.set_metric(vec![metric]);
        self.0.push(found);
    }

    /// With what the process takes.
    fn finish(mut self) -> Vec<MetricFamily> {
        self.0.extend(ProcessCollector::for_self().collect());
        self.0
    }

    fn daemon(&mut self, sources: &Sources) {
        let queries = &sources.queries;
        let (membership, live) = (&queries.membership, queries.live.current());
        let (id, version) = (membership.id(), env!("CARGO_PKG_VERSION"));
        self.count(BUILD, &[id, version, membership.build()], 1);
        let state = membership.state();
        for one in DAEMON_STATES {
            self.count(STATE, &[&one.to_string()], u64::from(one == state));
        }
        let ready = health::is_ready(sources);
        self.count(READY, &[], ready.into());
        let leads = sources.election.leader().is_some_and(|leader| leader == id);
        self.count(LEADER, &[], leads.into());
        let members = membership.members();
        let seen = |member: &Member| match member.id == id {
            true => state.to_string(),
            false if sources.workers.is_silent(member.record.incarnation) => UNREACHABLE.to_owned(),
            false => member.record.state.to_string(),
        };
        let seen: Vec<String> = members.iter().map(seen).collect();
        let states = DAEMON_STATES.iter().map(State::to_string);
        for one in states.chain([UNREACHABLE.to_owned()]) {
            let count = seen.iter().filter(|state| **state == one).count();
            self.count(DAEMONS, &[&one], count as u64);
        }
        for (what, count) in queries.gate.inside() {
            self.count(RUNNING, &[what], count as u64);
        }
        self.count(SETTINGS_VERSION, &[], live.version);
        self.count(SETTINGS_REFUSED, &[], live.refused.len() as u64);
        for (level, count) in telemetry::logged() {
            self.count(LOGGED, &[&level.to_lowercase()], count);
        }
    }

    fn queries(&mut self, sources: &Sources) {
        let tally = sources.queries.history.tally();
        for (at, state) in STATES.iter().enumerate() {
            self.times(QUERY_DURATION, &[state.as_str()], &tally.durations[at].get());
            for (phase, timing) in PHASES.iter().zip(&tally.phases[at]) {
                self.times(QUERY_PHASE, &[state.as_str(), phase], &timing.get());
            }
        }
        for (sqlstate, count) in tally.errors.get() {
            self.count(QUERY_ERRORS, &[&sqlstate], count);
        }
        for (family, counter) in [
            (QUERY_RETRIES, &tally.retries),
            (QUERY_ROWS, &tally.rows),
            (QUERY_SCANNED, &tally.scanned),
            (QUERY_ROWS_SCANNED, &tally.rows_scanned),
            (QUERY_SPILLED, &tally.spilled),
            (HISTORY_FORGOTTEN, &tally.forgotten),
        ] {
            self.count(family, &[], counter.get());
        }
    }

    fn clients(&mut self, sources: &Sources) {
        let states = ["active", "idle", "idle in transaction", "idle in transaction (aborted)"];
        let (mut connections, [mut running, mut queued]) = ([0; 4], [0; 2]);
        for activity in sources.queries.sessions.activity() {
            match (activity.active, activity.waits) {
                (true, false) => running += 1,
                (true, true) => queued += 1,
                (false, _) => {}
            }
            // A submitted query has a session, and no client.
            if activity.session.attempt.get().is_some() {
                continue;
            }
            connections[match activity.transaction {
                _ if activity.active => 0,
                TransactionState::Idle => 1,
                TransactionState::InBlock => 2,
                TransactionState::Failed => 3,
            }] += 1;
        }
        self.count(QUERIES, &["running"], running);
        self.count(QUERIES, &["queued"], queued);
        for (state, count) in states.iter().zip(connections) {
            self.count(CONNECTIONS, &[state], count);
        }
        self.count(CONNECTIONS_LIMIT, &[], sources.max_connections as u64);
        let clients = &sources.queries.clients;
        self.count(CONNECTIONS_OPENED, &[], clients.opened.get());
        for (family, words, first) in [
            (CONNECTIONS_REFUSED, &clients.refused, REFUSALS),
            (CLIENT_ERRORS, &clients.errors, DEFECTS),
        ] {
            let none = first.iter().map(|sqlstate| ((*sqlstate).to_owned(), 0));
            let mut counts: BTreeMap<String, u64> = none.collect();
            counts.extend(words.get());
            for (sqlstate, count) in counts {
                self.count(family, &[&sqlstate], count);
            }
        }
        self.count(CLIENT_RECEIVED, &[], clients.received.get());
        self.count(CLIENT_SENT, &[], clients.sent.get());
    }

    fn pools(&mut self, sources: &Sources) {
        for pool in sources.queries.admission.shown() {
            let name = pool.name.as_str();
            self.count(POOL_RUNNING, &[name], pool.running as u64);
            self.count(POOL_QUEUED, &[name], pool.waiting as u64);
            if let Some(limit) = pool.limits.running {
                self.count(POOL_LIMIT, &[name], limit as u64);
            }
            self.count(POOL_ADMITTED, &[name], pool.counts.admitted);
            self.count(POOL_WAITED, &[name], pool.counts.waited);
            for (reason, count) in [
                ("queue_full", pool.counts.refused),
                ("timeout", pool.counts.timed_out),
                ("left", pool.counts.left),
            ] {
                self.count(POOL_REJECTED, &[name, reason], count);
            }
        }
    }

    fn memory(&mut self, sources: &Sources) {
        let engine = &sources.queries.engine;
        let pool = engine.memory_pool();
        self.count(MEMORY, &[], pool.reserved() as u64);
        if let MemoryLimit::Finite(limit) = pool.memory_limit() {
            self.count(MEMORY_LIMIT, &[], limit as u64);
        }
        self.count(SPILL, &[], engine.spilled_bytes());
        self.count(SPILL_LIMIT, &[], engine.spill_limit());
        for cache in engine.caches() {
            self.count(CACHE_ENTRIES, &[cache.name], cache.entries);
            self.count(CACHE_BYTES, &[cache.name], cache.bytes);
            self.count(CACHE_LIMIT, &[cache.name], cache.limit);
            if let Some(hits) = cache.hits {
                let family = if cache.hits_last { CACHE_HITS } else { CACHE_ENTRY_HITS };
                self.count(family, &[cache.name], hits);
            }
            if let Some(misses) = cache.misses {
                self.count(CACHE_MISSES, &[cache.name], misses);
            }
        }
    }

    fn store(&mut self, sources: &Sources) {
        let store = &sources.store;
        let session = *store.session().borrow();
        let connected = session.state == SessionState::Connected;
        self.count(STORE_CONNECTED, &[], connected.into());
        self.count(STORE_UNWRITABLE, &[], store.trouble().is_some().into());
        let lacks = sources.queries.membership.lacks();
        let is_full = |lack: &Lack| lack.of == Lacking::Room;
        self.count(DISK_FULL, &[], lacks.iter().any(is_full).into());
        let unwritable = lacks.iter().any(|lack| !is_full(lack));
        self.count(DISK_UNWRITABLE, &[], unwritable.into());
        self.count(STORE_SESSIONS, &[], session.epoch);
        let figures = store.figures();
        let requests = [("read", figures.reads), ("write", figures.writes)];
        for ((operation, count), times) in requests.into_iter().zip(store.times()) {
            self.count(STORE_REQUESTS, &[operation], count);
            self.times(STORE_DURATION, &[operation], &times);
        }
        self.count(STORE_FAILED, &[], figures.failed);
        let (sent, received) = store.bytes();
        self.count(STORE_SENT, &[], sent);
        self.count(STORE_RECEIVED, &[], received);
    }

    fn together(&mut self, sources: &Sources) {
        if let Some(together) = sources.queries.engine.together() {
            self.count(SPREAD, &[], together.spread);
            self.count(PARTS, &[], together.parts as u64);
            self.count(PARTS_LIMIT, &[], together.max_parts as u64);
            self.count(PARTS_ADMITTED, &[], together.admitted);
            self.count(PARTS_REFUSED, &[], together.refused);
            self.count(SUSPECTS, &[], together.suspects as u64);
            self.count(SUSPICIONS, &[], together.suspicions);
        }
        let races = &sources.queries.commits.races;
        self.count(RACES_LOST, &[], races.lost.get());
        self.times(TURNS, &[], &races.waited.get());
        let maintenance = &sources.queries.maintenance;
        self.count(MAINTENANCE, &["done"], maintenance.done.get());
        self.count(MAINTENANCE, &["failed"], maintenance.failed.get());
        let (sent, dropped) =
            sources.traces.as_ref().map(|traces| traces.counts()).unwrap_or_default();
        self.count(TRACES_SENT, &[], sent);
        self.count(TRACES_DROPPED, &[], dropped);
    }

    fn runtimes(&mut self, sources: &Sources) {
        let network = Handle::current();
        for (name, handle) in [("network", &network), ("engine", sources.queries.engine.handle())] {
            let runtime = handle.metrics();
            let threads = runtime.num_workers();
            self.count(RUNTIME_THREADS, &[name], threads as u64);
            self.count(RUNTIME_TASKS, &[name], runtime.num_alive_tasks() as u64);
            self.count(RUNTIME_QUEUE, &[name], runtime.global_queue_depth() as u64);
            let busy = (0..threads).map(|thread| runtime.worker_total_busy_duration(thread));
            self.add(RUNTIME_BUSY, &[name], busy.sum::<Duration>().as_secs_f64());
        }
    }
}

/// A metric's labels with these values.
fn labelled(family: Family, values: &[&str]) -> Metric {
    let pairs = family.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for Family { name, kind, labels, help } in FAMILIES {
            assert!(name.starts_with("oribi_") && help.ends_with('.'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!([*name].iter().chain(*labels).all(|name| name.chars().all(plain)), "{name}");
            assert_eq!(FAMILIES.iter().filter(|family| family.name == *name).count(), 1, "{name}");
        }
    }

    #[test]
    fn families_are_in_one_piece_whatever_the_order() {
        let mut scrape = Scrape::default();
        scrape.count(PARTS, &[], 1);
        scrape.count(QUERIES, &["a \"b\"\n"], 2);
        scrape.count(SPREAD, &[], 3);
        scrape.count(QUERIES, &["b"], 4);
        let text = TextEncoder::new().encode_to_string(&scrape.0).expect("text");
        assert_eq!(text.matches("# TYPE oribi_queries gauge").count(), 1, "{text}");
        assert!(text.contains("oribi_queries{state=\"a \\\"b\\\"\\n\"} 2\n"), "{text}");
        assert!(text.contains("oribi_distribution_queries_total 3\n"), "{text}");
    }
}
