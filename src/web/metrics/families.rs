//! Every metric, with what it means. The names are an interface: dashboards and alert rules know them.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// A metric, with all its label values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            pub(super) const $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of this daemon's own, in the order in which they are explained.
        pub const FAMILIES: &[Family] = &[$($id),*];
    };
}

families! {
    BUILD: Gauge "oribi_build_info" ["daemon", "version", "build"] "1, with what this daemon is called and built from.";
    STATE: Gauge "oribi_daemon_state" ["state"] "1 for the state that this daemon is in (joining, ready, degraded, draining), 0 for the others.";
    READY: Gauge "oribi_ready" [] "1 if /readyz sends clients here, else 0.";
    LEADER: Gauge "oribi_leader" [] "1 if this daemon leads the cluster, else 0.";
    DAEMONS: Gauge "oribi_cluster_daemons" ["state"] "Daemons of the cluster by state, as this one sees them: unreachable are those that do not answer it.";
    RUNNING: Gauge "oribi_running" ["what"] "What this daemon would wait for before it ends: clients' messages, statements, parts of others' statements.";
    SETTINGS_VERSION: Gauge "oribi_settings_version" [] "Version of the live settings that this daemon runs.";
    SETTINGS_REFUSED: Gauge "oribi_settings_refused" [] "Live settings that somebody has written and that are not in force.";
    LOGGED: Counter "oribi_log_messages_total" ["level"] "Lines of the log by level: error, warn.";

    QUERIES: Gauge "oribi_queries" ["state"] "Statements of this daemon's clients now: running, or queued in their pool.";
    QUERY_DURATION: Histogram "oribi_query_duration_seconds" ["state"] "Time from a statement's start to its last row, by how it ended: finished, failed, cancelled.";
    QUERY_PHASE: Histogram "oribi_query_phase_seconds" ["state", "phase"] "Time in the phases of statements: queue (in the pool), plan, execute (all the rest).";
    QUERY_ERRORS: Counter "oribi_query_errors_total" ["sqlstate"] "Statements that failed or were cancelled, by SQLSTATE; those that do not parse are in oribi_client_errors_total only.";
    QUERY_RETRIES: Counter "oribi_query_retries_total" [] "How often a statement ran again because a worker was lost under it.";
    QUERY_ROWS: Counter "oribi_query_rows_total" [] "Rows that statements have given or changed.";
    QUERY_SCANNED: Counter "oribi_query_scanned_bytes_total" [] "Bytes of files that statements have read, on all daemons that worked on them.";
    QUERY_ROWS_SCANNED: Counter "oribi_query_scanned_rows_total" [] "Rows of files that statements have read, on all daemons that worked on them.";
    QUERY_SPILLED: Counter "oribi_query_spilled_bytes_total" [] "Bytes that statements have written to disk for want of memory, on all daemons that worked on them.";
    HISTORY_FORGOTTEN: Counter "oribi_history_forgotten_total" [] "Statements that are missing in system.query_history, since too many ended at once.";

    CONNECTIONS: Gauge "oribi_connections" ["state"] "Clients by state: active, idle, idle in transaction, idle in transaction (aborted).";
    CONNECTIONS_LIMIT: Gauge "oribi_connections_limit" [] "Clients that may be there at once (connections.max).";
    CONNECTIONS_OPENED: Counter "oribi_connections_opened_total" [] "Clients that have logged in.";
    CONNECTIONS_REFUSED: Counter "oribi_connections_refused_total" ["sqlstate"] "Log-ins that were refused, by SQLSTATE: 53300 for want of a place, 28P01 and 28000 for who they are not.";
    CLIENT_ERRORS: Counter "oribi_client_errors_total" ["sqlstate"] "Errors that clients were told of, by SQLSTATE.";
    CLIENT_RECEIVED: Counter "oribi_client_received_bytes_total" [] "Bytes from clients, without encryption.";
    CLIENT_SENT: Counter "oribi_client_sent_bytes_total" [] "Bytes to clients, without encryption.";

    POOL_RUNNING: Gauge "oribi_pool_running" ["pool"] "Statements of a pool that run here.";
    POOL_QUEUED: Gauge "oribi_pool_queued" ["pool"] "Statements of a pool that wait here.";
    POOL_LIMIT: Gauge "oribi_pool_running_limit" ["pool"] "Statements of a pool that may run here at once; absent for any number.";
    POOL_ADMITTED: Counter "oribi_pool_admitted_total" ["pool"] "Statements that a pool has let run here.";
    POOL_WAITED: Counter "oribi_pool_waited_total" ["pool"] "Of these, those that had to wait.";
    POOL_REJECTED: Counter "oribi_pool_rejected_total" ["pool", "reason"] "Statements that a pool has not let run here: queue_full, timeout, or left by their client.";

    MEMORY: Gauge "oribi_memory_reserved_bytes" [] "Memory that statements have reserved.";
    MEMORY_LIMIT: Gauge "oribi_memory_limit_bytes" [] "Memory that statements may reserve (engine.memory_limit).";
    SPILL: Gauge "oribi_spill_bytes" [] "Bytes in temporary files on this daemon's disk.";
    SPILL_LIMIT: Gauge "oribi_spill_limit_bytes" [] "Bytes that temporary files may have (engine.spill_limit).";
    CACHE_ENTRIES: Gauge "oribi_cache_entries" ["cache"] "What is kept in memory, by system.caches' names.";
    CACHE_BYTES: Gauge "oribi_cache_bytes" ["cache"] "What it takes.";
    CACHE_LIMIT: Gauge "oribi_cache_limit_bytes" ["cache"] "What it may take.";
    CACHE_HITS: Counter "oribi_cache_hits_total" ["cache"] "How often something was found there.";
    CACHE_MISSES: Counter "oribi_cache_misses_total" ["cache"] "How often nothing was found there that could have been.";
    CACHE_ENTRY_HITS: Gauge "oribi_cache_entry_hits" ["cache"] "For caches that forget the hits of what they forget: those of what is there now.";

    STORE_CONNECTED: Gauge "oribi_coordination_connected" [] "1 if this daemon is in touch with the coordination store, else 0.";
    STORE_UNWRITABLE: Gauge "oribi_coordination_unwritable" [] "1 while the embedded coordination store cannot write its file, as on a full disk, else 0.";
    DISK_FULL: Gauge "oribi_disk_full" [] "1 while there is hardly any room where this daemon writes (its data directory, a warehouse on a disk, temporary files), else 0.";
    DISK_UNWRITABLE: Gauge "oribi_disk_unwritable" [] "1 while a file system that this daemon is to write to is read-only, or its user has no right to write there, else 0.";
    STORE_SESSIONS: Counter "oribi_coordination_sessions_total" [] "Sessions with the store since the start: each after the first is one that was lost.";
    STORE_DURATION: Histogram "oribi_coordination_request_duration_seconds" ["operation"] "Time until the store answered, by operation: read, write.";
    STORE_REQUESTS: Counter "oribi_coordination_requests_total" ["operation"] "Requests to the store by operation.";
    STORE_FAILED: Counter "oribi_coordination_requests_failed_total" [] "Of these, those that were not answered.";
    STORE_SENT: Counter "oribi_coordination_sent_bytes_total" [] "Bytes of data that were written to the store.";
    STORE_RECEIVED: Counter "oribi_coordination_received_bytes_total" [] "Bytes of data that were read from the store.";

    SPREAD: Counter "oribi_distribution_queries_total" [] "Statements of this daemon's clients that ran on several daemons, each attempt.";
    PARTS: Gauge "oribi_distribution_parts" [] "Parts of other daemons' statements that run here.";
    PARTS_LIMIT: Gauge "oribi_distribution_parts_limit" [] "Parts that may run here at once (distribution.max_parts).";
    PARTS_ADMITTED: Counter "oribi_distribution_parts_admitted_total" [] "Parts that were let in.";
    PARTS_REFUSED: Counter "oribi_distribution_parts_refused_total" [] "Parts that were not, for their number or for want of memory.";
    SUSPECTS: Gauge "oribi_distribution_suspects" [] "Daemons that do not answer this one and get no work from it.";
    SUSPICIONS: Counter "oribi_distribution_suspicions_total" [] "How often a daemon was found not to answer.";
    RACES_LOST: Counter "oribi_commit_races_lost_total" [] "Attempts at commits to managed tables that began again since another daemon had changed the table first.";
    TURNS: Histogram "oribi_commit_turn_seconds" [] "Time that commits waited for their daemon's turn at a table that several daemons change at the same time; those that did not have to are not counted.";
    MAINTENANCE: Counter "oribi_maintenance_total" ["outcome"] "Pieces of work on managed tables that this daemon did as the leader: done, failed.";

    TRACES_SENT: Counter "oribi_traces_sent_total" [] "Spans that a collector of traces has taken.";
    TRACES_DROPPED: Counter "oribi_traces_dropped_total" [] "Spans that it has not taken in time.";

    RUNTIME_THREADS: Gauge "oribi_runtime_threads" ["runtime"] "Threads of a tokio runtime: network (clients, the store), engine (statements).";
    RUNTIME_TASKS: Gauge "oribi_runtime_tasks" ["runtime"] "Tasks that live in it.";
    RUNTIME_QUEUE: Gauge "oribi_runtime_queued_tasks" ["runtime"] "Tasks that wait for any of its threads.";
    RUNTIME_BUSY: Counter "oribi_runtime_busy_seconds_total" ["runtime"] "Time that its threads were busy, together.";
}

/// What the library for it tells of the process, in Prometheus' own names.
pub const PROCESS: &[(&str, Kind, &str)] = &[
    ("process_cpu_seconds_total", Kind::Counter, "Processor time."),
    ("process_open_fds", Kind::Gauge, "Open file descriptors."),
    ("process_max_fds", Kind::Gauge, "File descriptors that may be open."),
    ("process_resident_memory_bytes", Kind::Gauge, "Memory in use."),
    ("process_virtual_memory_bytes", Kind::Gauge, "Address space."),
    ("process_start_time_seconds", Kind::Gauge, "When the process began, since 1970."),
    ("process_threads", Kind::Gauge, "Threads."),
];
