//! The settings that exist for every session: data.

/// The version of PostgreSQL whose behaviour clients may expect.
pub const SERVER_VERSION: &str = "15.18";

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// With the least and the greatest value.
    Integer(i64, i64),
    Text,
    OneOf(&'static [&'static str]),
    TimeZone,
    DateStyle,
    Encoding,
    /// Milliseconds, or a number with PostgreSQL's units (`us ms s min h d`); 0 switches it off.
    Duration,
}

/// Who changes a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Any session, for itself.
    User,
    /// A superuser, for itself or with ALTER ROLE ... SET for others.
    Superuser,
    /// Nobody: it says what is.
    Internal,
    /// The daemon's configuration, at its start.
    Postmaster,
}

/// A setting that exists for every session.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    pub context: Context,
    /// Whether clients are told of each change (PostgreSQL's `GUC_REPORT`).
    pub report: bool,
    /// PostgreSQL's name of the group it belongs to.
    pub category: &'static str,
    pub description: &'static str,
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    context: Context,
    report: bool,
    category: &'static str,
    description: &'static str,
) -> Setting {
    Setting { name, default, kind, context, report, category, description }
}

use Context::{Internal, Postmaster, Superuser, User};
use Kind::{Bool, DateStyle, Duration as Millis, Encoding, Integer, OneOf, Text, TimeZone};

/// Groups of settings, as PostgreSQL names them.
mod category {
    pub const AUTHENTICATION: &str = "Connections and Authentication / Authentication";
    pub const COMPATIBILITY: &str =
        "Version and Platform Compatibility / Previous PostgreSQL Versions";
    pub const CONNECTIONS: &str = "Connections and Authentication / Connection Settings";
    pub const CUSTOM: &str = "Customized Options";
    pub const LOCALE: &str = "Client Connection Defaults / Locale and Formatting";
    pub const LOGGING: &str = "Reporting and Logging / What to Log";
    pub const MEMORY: &str = "Resource Usage / Memory";
    pub const PLANNER: &str = "Query Tuning / Other Planner Options";
    pub const PRESET: &str = "Preset Options";
    pub const SSL: &str = "Connections and Authentication / SSL";
    pub const STATEMENTS: &str = "Client Connection Defaults / Statement Behavior";
    pub const STATISTICS: &str = "Statistics / Cumulative Query and Index Statistics";
    pub const VACUUM: &str = "Resource Usage / Cost-Based Vacuum Delay";
}
use category::*;

/// All settings, sorted by name without regard to case.
#[rustfmt::skip] // A table: one row a line.
pub const SETTINGS: &[Setting] = &[
    setting("application_name", "", Text, User, true, LOGGING, "The client's name for itself."),
    setting("backslash_quote", "safe_encoding", OneOf(&["safe_encoding", "on", "off"]), User, false, COMPATIBILITY, "Accepted for compatibility."),
    setting("block_size", "8192", Integer(8192, 8192), Internal, false, PRESET, "For clients that ask."),
    setting("bytea_output", "hex", OneOf(&["hex"]), User, false, STATEMENTS, "The text form of bytea."),
    setting("check_function_bodies", "on", Bool, User, false, STATEMENTS, "Accepted for compatibility: there are no functions with bodies to check."),
    setting("client_encoding", "UTF8", Encoding, User, true, LOCALE, "The client's encoding: always UTF8."),
    setting("client_min_messages", "notice", OneOf(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]), User, false, STATEMENTS, "The least severe message that is sent."),
    setting("DateStyle", "ISO, MDY", DateStyle, User, true, LOCALE, "The text form of dates: always ISO."),
    setting("default_table_access_method", "heap", OneOf(&["heap"]), User, false, STATEMENTS, "Accepted for compatibility."),
    setting("default_tablespace", "", OneOf(&[""]), User, false, STATEMENTS, "Accepted for compatibility."),
    setting("default_transaction_deferrable", "off", Bool, User, false, STATEMENTS, "Accepted for compatibility: nothing waits for a snapshot."),
    setting("default_transaction_isolation", "read committed", OneOf(&["serializable", "repeatable read", "read committed", "read uncommitted"]), User, false, STATEMENTS, "Repeatable read and serializable: a transaction block sees each table as it has first read it."),
    setting("default_transaction_read_only", "off", Bool, User, true, STATEMENTS, "Whether transactions only read unless they say otherwise."),
    setting("extra_float_digits", "1", Integer(-15, 3), User, false, LOCALE, "Accepted for compatibility: floats are always exact."),
    setting("idle_in_transaction_session_timeout", "0", Millis, User, false, STATEMENTS, "How long a session may idle within a transaction."),
    setting("idle_session_timeout", "0", Millis, User, false, STATEMENTS, "How long a session may idle outside of transactions."),
    setting("in_hot_standby", "off", Bool, Internal, true, PRESET, "Whether this daemon only reads."),
    setting("integer_datetimes", "on", Bool, Internal, true, PRESET, "Timestamps are integers on the wire."),
    setting("IntervalStyle", "postgres", OneOf(&["postgres"]), User, true, LOCALE, "The text form of intervals."),
    setting("is_superuser", "on", Bool, Internal, true, PRESET, "Whether the current role may do anything."),
    setting("jit", "off", OneOf(&["off"]), User, false, PLANNER, "Plans are not compiled."),
    setting("lc_collate", "C", Text, Internal, false, PRESET, "Strings sort by their bytes."),
    setting("lc_ctype", "C.UTF-8", Text, Internal, false, PRESET, "Character classes."),
    setting("lc_messages", "C", Text, User, false, LOCALE, "Accepted for compatibility."),
    setting("lc_monetary", "C", Text, User, false, LOCALE, "Accepted for compatibility."),
    setting("lc_numeric", "C", Text, User, false, LOCALE, "Accepted for compatibility."),
    setting("lc_time", "C", Text, User, false, LOCALE, "Accepted for compatibility."),
    setting("lock_timeout", "0", Millis, User, false, STATEMENTS, "Accepted for compatibility: nothing waits for locks."),
    setting("max_connections", "500", Integer(1, 262_143), Postmaster, false, CONNECTIONS, "Clients at once: connections.max of the configuration."),
    setting("max_identifier_length", "255", Integer(255, 255), Internal, false, PRESET, "The longest name, in bytes."),
    setting("max_index_keys", "32", Integer(32, 32), Internal, false, PRESET, "For clients that ask."),
    setting("oribi.consistency", "cached", OneOf(&["cached", "strong"]), User, false, CUSTOM, "strong: ask the coordination store for each table before planning."),
    setting("oribi.distribution", "auto", OneOf(&["auto", "off", "always"]), User, false, CUSTOM, "auto: statements that read much run on several daemons; off: on this one; always: on several, whatever they read."),
    setting("oribi.result_cache", "on", Bool, User, false, CUSTOM, "Gives a known result again as long as nothing has changed that it was made of."),
    setting("oribi.statement_limit", "0", Integer(0, 1_000_000), Superuser, false, STATEMENTS, "How many statements of the role run at once on a daemon; 0: no limit."),
    setting("oribi.zk_max_bytes", "67108864", Integer(0, 1 << 40), User, false, CUSTOM, "The most data that a statement reads from znodes, in bytes."),
    setting("oribi.zk_max_nodes", "100000", Integer(0, 100_000_000), User, false, CUSTOM, "The most znodes that a statement reads."),
    setting("password_encryption", "scram-sha-256", OneOf(&["scram-sha-256"]), User, false, AUTHENTICATION, "How passwords are kept."),
    setting("role", "none", Text, User, false, STATEMENTS, "The role whose rights count, if it is not the one that logged in."),
    setting("row_security", "on", Bool, User, false, STATEMENTS, "off: what policies would leave rows out of is refused."),
    setting("search_path", "\"$user\", public", Text, User, false, STATEMENTS, "Schemas that are searched for names without one."),
    setting("server_encoding", "UTF8", Text, Internal, true, PRESET, "The encoding of all text."),
    setting("server_version", SERVER_VERSION, Text, Internal, true, PRESET, "The PostgreSQL version whose behaviour clients may expect."),
    setting("server_version_num", "150018", Integer(150_018, 150_018), Internal, false, PRESET, "The same as a number."),
    setting("session_authorization", "oribi", Text, Internal, true, PRESET, "The role that logged in."),
    setting("ssl", "off", Bool, Postmaster, false, SSL, "Whether connections can be encrypted."),
    setting("standard_conforming_strings", "on", OneOf(&["on"]), User, true, COMPATIBILITY, "Backslashes in '...' are ordinary."),
    setting("statement_timeout", "0", Millis, User, false, STATEMENTS, "The longest a statement may run; 0: no limit."),
    setting("synchronize_seqscans", "on", Bool, User, false, COMPATIBILITY, "Accepted for compatibility."),
    setting("TimeZone", "UTC", TimeZone, User, true, LOCALE, "The time zone of timestamps with one."),
    setting("track_activity_query_size", "1024", Integer(1024, 1024), Internal, false, STATISTICS, "Bytes of a statement's text that pg_stat_activity shows, and one for its end. system.queries and the history keep query.register_text_limit of it."),
    setting("transaction_deferrable", "off", Bool, User, false, STATEMENTS, "Accepted for compatibility: nothing waits for a snapshot."),
    setting("transaction_isolation", "read committed", OneOf(&["serializable", "repeatable read", "read committed", "read uncommitted"]), User, false, STATEMENTS, "Repeatable read and serializable: a transaction block sees each table as it has first read it."),
    setting("transaction_read_only", "off", Bool, User, false, STATEMENTS, "Whether the current transaction only reads."),
    setting("vacuum_cost_delay", "0", Text, User, false, VACUUM, "Accepted for compatibility."),
    setting("work_mem", "4MB", Text, User, false, MEMORY, "Accepted for compatibility: see engine.memory_limit."),
    setting("xmloption", "content", OneOf(&["content", "document"]), User, false, STATEMENTS, "Accepted for compatibility."),
];

impl Setting {
    /// The type of its values, as `pg_settings` names it.
    pub fn value_type(&self) -> &'static str {
        match self.kind {
            Bool => "bool",
            Integer(..) | Millis => "integer",
            OneOf(_) => "enum",
            Text | TimeZone | DateStyle | Encoding => "string",
        }
    }

    /// The unit of a value that has none of its own.
    pub fn unit(&self) -> Option<&'static str> {
        (self.kind == Millis).then_some("ms")
    }

    /// The least and the greatest value of a number.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        match self.kind {
            Integer(least, greatest) => Some((least, greatest)),
            Millis => Some((0, i32::MAX.into())),
            _ => None,
        }
    }

    pub fn choices(&self) -> Option<&'static [&'static str]> {
        match self.kind {
            OneOf(choices) => Some(choices),
            _ => None,
        }
    }
}

impl Context {
    /// Its name in `pg_settings`.
    pub fn name(self) -> &'static str {
        match self {
            User => "user",
            Superuser => "superuser",
            Internal => "internal",
            Postmaster => "postmaster",
        }
    }
}
