//! The conformance suite of the coordination store: each case runs against both backends, a real
//! ZooKeeper (with nodes that are open, and that belong to one user) and the embedded store, since
//! nothing above them may know which one runs.

mod common;

#[path = "coordination/backend.rs"]
mod backend;
#[path = "coordination/cases.rs"]
mod cases;
#[path = "coordination/embedded.rs"]
mod embedded_store;
#[path = "coordination/faults.rs"]
mod faults;
#[path = "coordination/proxy.rs"]
mod proxy;
#[path = "coordination/security.rs"]
mod security;
#[path = "coordination/zookeeper.rs"]
mod zookeeper_client;

macro_rules! conformance {
    ($($room:ident::$case:ident,)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let backend = crate::backend::Embedded::start();
                    crate::backend::bounded(crate::$room::$case(&backend)).await;
                }
            )*
        }

        mod zookeeper {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let backend = crate::backend::RealZooKeeper::start();
                    crate::backend::bounded(crate::$room::$case(&backend)).await;
                }
            )*
        }

        mod zookeeper_with_credentials {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let backend = crate::backend::RealZooKeeper::start_with_credentials();
                    crate::backend::bounded(crate::$room::$case(&backend)).await;
                }
            )*
        }
    };
}

conformance! {
    cases::creation_in_every_mode,
    cases::sequential_numbers_never_repeat,
    cases::versioned_set_and_delete,
    cases::children_are_sorted,
    cases::parents_must_exist,
    cases::ephemerals_have_no_children,
    cases::nodes_with_children_stay,
    cases::data_is_limited,
    cases::paths_are_validated,
    cases::the_root_is_fixed,
    cases::metadata_counts_as_zookeeper_does,
    cases::transactions_do_all_or_nothing,
    cases::transactions_see_their_own_steps,
    cases::claims_are_fenced_by_path,
    cases::watches_see_changes_by_another_client,
    cases::watches_of_one_path_are_independent,
    cases::a_thousand_concurrent_writes,
    faults::a_watch_survives_a_cut,
    faults::watches_asked_for_during_a_reconnect_are_armed,
    faults::calls_are_refused_while_cut_off,
    faults::a_pulse_is_felt_in_touch_or_not,
    faults::a_short_cut_keeps_the_session,
    faults::a_lost_session_is_replaced,
    faults::a_lost_reply_is_recognised,
    faults::a_dropped_caller_harms_nobody,
    faults::closing_removes_ephemerals_at_once,
    faults::dropping_the_client_closes_it,
}
