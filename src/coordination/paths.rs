//! Every path in the coordination store, in one enum: its value, its lifetime and its writer.
//!
//! All paths are below the configured chroot (default `/oribi`). Every value is a small JSON object
//! (at most [`MAX_DATA`](super::MAX_DATA)) that people may read with `zkCli.sh get`.
//!
//! Names chosen by users (databases, schemas, tables) become node names by [`encode`], so that no
//! name can reach another node.

use std::fmt::{self, Display, Formatter};

use uuid::Uuid;

/// A node of the store. `Display` gives its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `{"uuid", "format"}`: the cluster's name for itself, and the version of the forms in which the
    /// znodes are written. Persistent; made once, by the first daemon. Missing or different later means
    /// that the store lost its data, and no daemon goes on by itself.
    Cluster,
    /// `{"key"}`: the private key (PEM) with which daemons sign the certificates that they show each
    /// other. Persistent; made once, by the first daemon. Who can read it belongs to the cluster.
    PeerKey,
    /// Parent of [`Daemon`](Self::Daemon).
    Daemons,
    /// `cluster::Record`. Ephemeral; written by the daemon of that id.
    Daemon(&'a str),
    /// Parent of [`Incarnation`](Self::Incarnation).
    Incarnations,
    /// `{"daemon"}`. Ephemeral; made with the daemon's record in one transaction, and new for each
    /// session: what fenced writes check.
    Incarnation(Uuid),
    /// Parent of the candidates `/leader/<n>`: `{"daemon", "incarnation"}`. Ephemeral and numbered by
    /// the store; written by the daemon of that id. The lowest leads: what a leader's writes check.
    Leader,
    /// Parent of [`Database`](Self::Database).
    Catalog,
    /// `catalog::DatabaseRecord`. Persistent; written by DDL on any daemon.
    Database(&'a str),
    /// `catalog::SchemaRecord`, at `/catalog/<database>/<schema>.`. Persistent; written by DDL.
    /// Every database has the schema `public`, with or without a node.
    Schema(&'a str, &'a str),
    /// `catalog::TableRecord` of a table or view, at `/catalog/<database>/<table>` for the schema
    /// `public` and `/catalog/<database>/<schema>.<table>` for others. Persistent; written by DDL.
    Table { database: &'a str, schema: &'a str, table: &'a str },
    /// `{"daemon"}`, below the path of a table's node: a daemon's place in the queue of those that
    /// change the table at the same time. Ephemeral and numbered by the store; made by a daemon that
    /// others were quicker than, removed when it has had its turn or has given it up, or somebody drops
    /// the table.
    Turn(&'a str, Uuid),
    /// Parent of [`Life`](Self::Life).
    Lives,
    /// Empty, at the object identifier of a database, schema, table, view or role: `/lives/<oid>`, and once
    /// that was renamed `/lives/<oid>.<number>`, any number, in hexadecimal digits, as its record has it.
    /// Persistent; made and removed with it by DDL, checked by each write of its record: the version alone may
    /// be that of another which has the name by now.
    Life(u32, u32),
    /// `{"next"}`: the next object identifier nobody has reserved. Persistent; daemons reserve
    /// blocks by versioned writes.
    Oids,
    /// Parent of [`Role`](Self::Role).
    Roles,
    /// `catalog::RoleRecord`: attributes, SCRAM verifier, memberships. Persistent; written by DDL.
    Role(&'a str),
    /// Parent of [`Pool`](Self::Pool).
    Pools,
    /// `catalog::PoolRecord`: how much the statements of some roles may do at once. Persistent;
    /// written by DDL.
    Pool(&'a str),
    /// Parent of [`Query`](Self::Query).
    Queries,
    /// `query::registry::Entry` of a running statement: ephemeral, written by the daemon that runs
    /// it. `query::submitted::Record` of a submitted one: persistent, written by whoever submits or
    /// cancels it and by the daemon that has its claim.
    Query(&'a str),
    /// Parent of `/inbox/<id>`: SQL, or JSON with it, that anybody leaves who may write here.
    /// Persistent; becomes a query of that id.
    Inbox,
    /// Parent of [`Queued`](Self::Queued).
    Queue,
    /// Empty, at the Unix time of the query's submission in milliseconds, so that names sort by it.
    /// Persistent; there from the submission of a query to its end.
    Queued(i64, &'a str),
    /// Parent of [`Claim`](Self::Claim).
    Claims,
    /// `query::submitted::Claim` of an attempt. Ephemeral; written by the daemon that works on it.
    Claim(&'a str, u32),
    /// Parent of [`Schedule`](Self::Schedule).
    Schedules,
    /// `query::schedules::Record`. Persistent; written by whoever changes it and by the daemon that
    /// leads.
    Schedule(&'a str),
    /// `query::maintenance::log::Record`: what was done lately to keep tables in good order.
    /// Persistent; written by the daemon that did it.
    Maintenance,
    /// `cluster::live::Record`: the live settings in force, their version, and the last changes.
    /// Persistent; written by whoever changes them, with a check of its version. Parent of
    /// [`Setting`](Self::Setting).
    Settings,
    /// A live setting as somebody wants it: its value as plain text, in the node of its name.
    /// Persistent; written by ALTER SYSTEM, by `oribi config`, or with zkCli.
    Setting(&'a str),
    /// Parent of [`SettingsAppliedBy`](Self::SettingsAppliedBy).
    SettingsApplied,
    /// `cluster::live::Applied`: which version a daemon runs. Ephemeral; written by the daemon of
    /// that id.
    SettingsAppliedBy(&'a str),
    /// Parent of [`SignalsTo`](Self::SignalsTo).
    Signals,
    /// Parent of [`Signal`](Self::Signal), watched by the daemon of that id. Persistent and empty;
    /// made by it when it starts and removed when it stops.
    SignalsTo(&'a str),
    /// `query::signals::Message`: what one daemon's client asks of another daemon's session.
    /// Ephemeral; written and removed by the daemon that asks, the answer put in by the one that is
    /// asked.
    Signal(&'a str, Uuid),
    /// Empty. Ephemeral; made and removed by `oribi doctor`, to see what it may do here and what time
    /// the store has.
    Probe(Uuid),
}

/// The schema every database has and whose tables need no prefix.
pub const PUBLIC: &str = "public";

impl Display for Path<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("/cluster"),
            Self::PeerKey => f.write_str("/peer-key"),
            Self::Daemons => f.write_str("/daemons"),
            Self::Daemon(id) => write!(f, "/daemons/{}", encode(id)),
            Self::Incarnations => f.write_str("/incarnations"),
            Self::Incarnation(uuid) => write!(f, "/incarnations/{uuid}"),
            Self::Leader => f.write_str("/leader"),
            Self::Catalog => f.write_str("/catalog"),
            Self::Database(database) => write!(f, "/catalog/{}", encode(database)),
            Self::Schema(database, schema) => {
                write!(f, "/catalog/{}/{}.", encode(database), encode(schema))
            }
            Self::Table { database, schema, table } => {
                write!(f, "/catalog/{}/", encode(database))?;
                if *schema != PUBLIC {
                    write!(f, "{}.", encode(schema))?;
                }
                f.write_str(&encode(table))
            }
            Self::Turn(table, id) => write!(f, "{table}/{id}-"),
            Self::Lives => f.write_str("/lives"),
            Self::Life(oid, 0) => write!(f, "/lives/{oid}"),
            Self::Life(oid, life) => write!(f, "/lives/{oid}.{life:08x}"),
            Self::Oids => f.write_str("/oids"),
            Self::Roles => f.write_str("/roles"),
            Self::Role(role) => write!(f, "/roles/{}", encode(role)),
            Self::Pools => f.write_str("/pools"),
            Self::Pool(pool) => write!(f, "/pools/{}", encode(pool)),
            Self::Queries => f.write_str("/queries"),
            Self::Query(id) => write!(f, "/queries/{}", encode(id)),
            Self::Inbox => f.write_str("/inbox"),
            Self::Queue => f.write_str("/queue"),
            Self::Queued(at, id) => write!(f, "/queue/{at:013}-{}", encode(id)),
            Self::Claims => f.write_str("/claims"),
            Self::Claim(id, attempt) => write!(f, "/claims/{}:{attempt}", encode(id)),
            Self::Schedules => f.write_str("/schedules"),
            Self::Schedule(name) => write!(f, "/schedules/{}", encode(name)),
            Self::Maintenance => f.write_str("/maintenance"),
            Self::Settings => f.write_str("/settings"),
            // Names of settings have dots, and are to be typed as they are.
            Self::Setting(name) => write!(f, "/settings/{name}"),
            Self::SettingsApplied => f.write_str("/settings-applied"),
            Self::SettingsAppliedBy(daemon) => write!(f, "/settings-applied/{}", encode(daemon)),
            Self::Signals => f.write_str("/signals"),
            Self::SignalsTo(daemon) => write!(f, "/signals/{}", encode(daemon)),
            Self::Probe(id) => write!(f, "/probe-{id}"),
            Self::Signal(daemon, id) => write!(f, "/signals/{}/{id}", encode(daemon)),
        }
    }
}

/// What a path below [`Path::Catalog`], [`Path::Roles`] or [`Path::Pools`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogName {
    Role(String),
    Pool(String),
    Database(String),
    Schema(String, String),
    Table { database: String, schema: String, table: String },
}

/// Reads a path below [`Path::Catalog`], [`Path::Roles`] or [`Path::Pools`] back; `None` for any
/// other path.
pub fn parse_catalog(path: &str) -> Option<CatalogName> {
    for (root, name) in
        [("/roles/", CatalogName::Role as fn(String) -> _), ("/pools/", CatalogName::Pool)]
    {
        if let Some(node) = path.strip_prefix(root) {
            return if node.contains('/') { None } else { decode(node).map(name) };
        }
    }
    let mut parts = path.strip_prefix("/catalog/")?.split('/');
    let database = decode(parts.next()?)?;
    let Some(node) = parts.next() else {
        return Some(CatalogName::Database(database));
    };
    if parts.next().is_some() {
        return None;
    }
    Some(match node.split_once('.') {
        None => CatalogName::Table { database, schema: PUBLIC.to_owned(), table: decode(node)? },
        Some((schema, "")) => CatalogName::Schema(database, decode(schema)?),
        Some((schema, table)) => {
            CatalogName::Table { database, schema: decode(schema)?, table: decode(table)? }
        }
    })
}

/// Whether a path is that of a table or view.
pub fn is_table(path: &str) -> bool {
    matches!(parse_catalog(path), Some(CatalogName::Table { .. }))
}

/// Whether a path lies below that of a table or view.
pub fn is_below_table(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(parent, _)| is_table(parent))
}

/// A user's name as a node name: `/`, `.`, `%` and control characters are percent-encoded, since
/// they separate names or are refused by ZooKeeper; all else stays readable.
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for character in name.chars() {
        // ZooKeeper refuses control characters, these blocks (its documentation, "The ZooKeeper
        // Data Model") and, counting in UTF-16, all beyond the basic plane.
        let refused = matches!(character, '/' | '.' | '%' | '\u{e000}'..='\u{f8ff}')
            || character >= '\u{fff0}'
            || character.is_control();
        if refused {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        } else {
            encoded.push(character);
        }
    }
    encoded
}

/// The inverse of [`encode`]; `None` for what it cannot have produced.
pub fn decode(node: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(node.len());
    let mut rest = node.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalog_paths_read_back() {
        for (database, schema, table) in
            [("oribi", "public", "t"), ("a/b", "s.x", "50%"), ("ö", "public", "..")]
        {
            let path = Path::Table { database, schema, table }.to_string();
            assert_eq!(path.matches('/').count(), 3, "{path}");
            assert_eq!(
                parse_catalog(&path),
                Some(CatalogName::Table {
                    database: database.into(),
                    schema: schema.into(),
                    table: table.into()
                })
            );
        }
        assert_eq!(
            parse_catalog(&Path::Schema("d", "s").to_string()),
            Some(CatalogName::Schema("d".into(), "s".into()))
        );
        let role = Path::Role("a/b").to_string();
        assert_eq!(parse_catalog(&role), Some(CatalogName::Role("a/b".into())));
        let pool = Path::Pool("a/b").to_string();
        assert_eq!(parse_catalog(&pool), Some(CatalogName::Pool("a/b".into())));
        assert_eq!(parse_catalog("/pools/a/b"), None);
        assert_eq!(parse_catalog("/catalog/d"), Some(CatalogName::Database("d".into())));
        assert_eq!(parse_catalog("/catalog/d/t/x"), None);
        assert_eq!(parse_catalog("/daemons/d"), None);
    }

    #[test]
    fn a_place_in_a_queue_lies_below_its_table() {
        let path = Path::Table { database: "d", schema: "s", table: "t" }.to_string();
        let place = Path::Turn(&path, Uuid::nil()).to_string();
        assert!(place.starts_with("/catalog/d/s.t/") && place.ends_with('-'), "{place}");
        assert_eq!(parse_catalog(&place), None);
        assert!(is_table(&path) && !is_table(&place));
        assert!(is_below_table(&place) && !is_below_table(&path));
        for other in ["/catalog/d", "/catalog/d/s./x", "/roles/r/x", "/daemons/d/x"] {
            assert!(!is_below_table(other), "{other}");
        }
    }

    #[test]
    fn readable_names_stay_readable() {
        assert_eq!(encode("Größe 1"), "Größe 1");
        assert_eq!(encode("a.b/c%\n"), "a%2Eb%2Fc%25%0A");
        assert_eq!(decode(&encode("😊")).as_deref(), Some("😊"));
    }
}
