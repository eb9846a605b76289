//! The coordination store: its members, what may be done there, its clock, and the daemons in it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::Check;
use crate::cluster::{self, Record};
use crate::config::Config;
use crate::coordination::members::Member;
use crate::coordination::paths::{self, Path};
use crate::coordination::{self, Coordination, Mode, zookeeper};
use crate::server::{self, Tool};
use crate::{id, telemetry};

/// Difference of clocks that is no more than the network's.
const SAME: i64 = 2_000;

/// A difference by which times of snapshots and schedules are wrong for people.
const FAR: i64 = 60_000;

/// Milliseconds in which an ensemble that is well answers.
const QUICK: u128 = 200;

pub async fn checks(config: &Config) -> Vec<Check> {
    let options = match server::ensemble(config) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let seen = "the embedded store: this daemon is alone";
            return vec![Check::ok("coordination", seen)];
        }
        Err(error) => {
            let mend = "mend the key that is named";
            return vec![Check::fail("coordination", error, mend)];
        }
    };
    // What the store's client has to say is said here.
    let _ = telemetry::start("off", false);
    let mut checks = members(&options).await;
    checks.extend(inside(config).await);
    checks
}

/// Each member of the ensemble by itself.
async fn members(options: &zookeeper::Options) -> Vec<Check> {
    const NAME: &str = "ensemble";
    let since = Instant::now();
    let members = match options.members(&[]).await {
        Ok(members) => members,
        Err(error) => {
            return vec![Check::fail(NAME, error, "mend zookeeper: host:port,host:port/chroot")];
        }
    };
    let taken = since.elapsed();
    let mut checks: Vec<Check> = members.iter().map(|found| member(found, taken)).collect();
    let up = members.iter().filter(|member| member.source.is_some()).count();
    let versions: BTreeSet<&str> = members.iter().filter_map(version).collect();
    if versions.len() > 1 {
        let seen =
            format!("members of different versions: {}", Vec::from_iter(versions).join(", "));
        checks.push(Check::warn(NAME, seen, "bring all of them to the same version"));
    }
    let leaders = members
        .iter()
        .filter(|member| matches!(member.fact("server_state"), Some("leader" | "standalone")));
    if up > 0 && up == members.len() && leaders.count() == 0 {
        let seen = "no member that is named leads";
        checks.push(Check::warn(
            NAME,
            seen,
            "name all members in zookeeper, so that none is missed",
        ));
    }
    match members.len() {
        1 => checks.push(Check::warn(
            NAME,
            "one member: when it stops, nothing that is shared can be changed",
            "three members, on three machines, outlive the loss of one",
        )),
        count if count % 2 == 0 => checks.push(Check::warn(
            NAME,
            format!("{count} members outlive the loss of no more than {} do", count - 1),
            "an odd number: three or five",
        )),
        _ => {}
    }
    checks
}

fn version(member: &Member) -> Option<&str> {
    member.fact("version").and_then(|version| version.split([',', '-']).next())
}

fn member(member: &Member, taken: Duration) -> Check {
    let name = format!("member {}", member.address);
    let Some(source) = member.source else {
        let reason = member.error.clone().unwrap_or_default();
        // It answers, and only keeps such questions to itself.
        if reason.contains("whitelist") || reason.contains("without an answer") {
            let mend = "4lw.commands.whitelist=mntr,srvr,ruok in zoo.cfg, for more";
            return Check::warn(name, format!("it listens, and tells nothing: {reason}"), mend);
        }
        let mend =
            "start it, or open the way to its client port; mend zookeeper if it is no member";
        return Check::fail(name, reason, mend);
    };
    let fact = |name: &str| member.fact(name).unwrap_or("?");
    let seen = format!(
        "{} {}, latency {} ms on average and {} at most, {} connections, {} znodes (by {source}, in \
         {} ms)",
        fact("server_state"),
        version(member).unwrap_or("?"),
        fact("avg_latency"),
        fact("max_latency"),
        fact("num_alive_connections"),
        fact("znode_count"),
        taken.as_millis()
    );
    let outstanding = member.fact("outstanding_requests").and_then(|text| text.parse::<u64>().ok());
    match outstanding {
        Some(waiting) if waiting > 100 => Check::warn(
            name,
            format!("{seen}; {waiting} requests wait"),
            "a faster disk for its log (dataLogDir), or less load from others",
        ),
        _ => Check::ok(name, seen),
    }
}

/// A session of our own: what it may do, what time it is there, and who is there.
async fn inside(config: &Config) -> Vec<Check> {
    const NAME: &str = "chroot";
    let tool = match Tool::open(config, false).await {
        Ok(Some(tool)) => tool,
        Ok(None) => {
            return vec![Check::ok(NAME, "it is not there yet: the first daemon makes it")];
        }
        Err(error) => {
            let mend = "start the ensemble, or mend zookeeper and coordination.credentials";
            return vec![Check::fail(NAME, error, mend)];
        }
    };
    let store = tool.coordination.as_ref();
    let mut checks = probe(store).await;
    checks.extend(daemons(store).await);
    tool.close().await;
    checks
}

/// Makes, reads, changes and removes a node.
async fn probe(store: &dyn Coordination) -> Vec<Check> {
    const NAME: &str = "chroot";
    let path = Path::Probe(id::nonce()).to_string();
    let (since, before) = (Instant::now(), Utc::now());
    let tried = async {
        store.create(&path, Bytes::new(), Mode::Ephemeral).await?;
        let created = since.elapsed();
        let node = store.get(&path).await?;
        store.set(&path, Bytes::from_static(b"{}"), None).await?;
        store.delete(&path, None).await?;
        Ok::<_, coordination::Error>((created, node))
    };
    let (created, node) = match tried.await {
        Ok(done) => done,
        Err(error) => {
            let mend = "let this user make, read, write and delete below the chroot: \
                        coordination.credentials, or setAcl with zkCli.sh";
            return vec![Check::fail(NAME, error, mend)];
        }
    };
    let seen = format!("nodes can be made, read, changed and removed; a write takes {created:.1?}");
    let mut checks = vec![match created.as_millis() > QUICK {
        true => {
            let mend = "nearer members, or a faster disk for their log (dataLogDir)";
            Check::warn(NAME, seen, mend)
        }
        false => Check::ok(NAME, seen),
    }];
    let there = node.and_then(|node| DateTime::from_timestamp_millis(node.stat.ctime));
    if let Some(there) = there {
        // Made somewhere between the question and the answer.
        let middle = before + created / 2;
        let difference = (there - middle).num_milliseconds();
        let seen = format!("the ensemble's clock is {difference} ms from this machine's");
        let mend = "have both follow the same time servers: timedatectl, chronyc sources";
        let apart = difference.abs();
        checks.push(if apart <= SAME {
            Check::ok("clocks", seen)
        } else if apart <= FAR {
            Check::warn("clocks", seen, mend)
        } else {
            Check::fail("clocks", seen, mend)
        });
    }
    checks
}

/// The daemons that are there, and whether they are of one kind.
async fn daemons(store: &dyn Coordination) -> Vec<Check> {
    const NAME: &str = "daemons";
    let names = match store.children(&Path::Daemons.to_string()).await {
        Ok(names) => names,
        Err(coordination::Error::NoNode { .. }) => Vec::new(),
        Err(error) => return vec![Check::fail(NAME, error, "see the check of the chroot")],
    };
    let mut members = Vec::new();
    for name in names {
        let Some(id) = paths::decode(&name) else { continue };
        let node = store.get(&Path::Daemon(&id).to_string()).await.ok().flatten();
        let record = node.and_then(|node| serde_json::from_slice::<Record>(&node.data).ok());
        match record {
            Some(record) => members.push(cluster::Member { id, record }),
            None => {
                let seen = format!("the record of \"{id}\" cannot be read");
                return vec![Check::warn(NAME, seen, "another version wrote it: bring all to one")];
            }
        }
    }
    if members.is_empty() {
        return vec![Check::ok(NAME, "none runs")];
    }
    let list = members.iter().map(|cluster::Member { id, record }| {
        format!("{id} {} {} ({})", record.state, record.version, record.build)
    });
    let seen = list.collect::<Vec<_>>().join(", ");
    let builds = members.iter().map(|member| member.record.build.as_str());
    let builds: BTreeSet<&str> = builds.collect();
    let own = env!("ORIBI_BUILD");
    let build = match (builds.len(), builds.contains(own)) {
        (1, true) => Check::ok(NAME, seen),
        (1, false) => Check::warn(
            NAME,
            format!("{seen}; this program is build {own}"),
            "a daemon of this program takes no parts of their statements: the same build everywhere",
        ),
        _ => Check::warn(
            NAME,
            seen,
            "only daemons of one build share a statement: bring all of them to the same",
        ),
    };
    [build].into_iter().chain(warehouses(members)).collect()
}

/// Whether all of them make their tables in one place.
fn warehouses(mut members: Vec<cluster::Member>) -> Vec<Check> {
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let astray = cluster::astray(&members).into_iter();
    astray.map(|(id, trouble)| {
        let mend = "change the setting of this daemon, or that of the others, and start one after another anew";
        Check::warn("warehouses", format!("{id}: {}", trouble.full), mend)
    })
    .collect()
}
