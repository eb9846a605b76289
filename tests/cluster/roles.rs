//! Roles and grants: given on one daemon, they count on the next.

use std::time::Duration;

use crate::common::daemon::explain;
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_granted_on_one_daemon_counts_on_the_next_at_once() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows(&cluster.table("t", 1)).await;
        for round in 0..30 {
            let role = format!("ann{round}");
            a.rows(&format!("CREATE ROLE {role} LOGIN")).await;
            let ann = Client::connect_as(&daemons[1], &role).await;
            assert_eq!(ann.refused("SELECT x FROM t").await.code().code(), "42501");
            a.rows(&format!("GRANT SELECT ON t TO {role}")).await;
            assert_eq!(ann.value("SELECT x FROM t").await, "1");
            // Through a group, too.
            a.rows(&format!("REVOKE SELECT ON t FROM {role}")).await;
            let denied = async || ann.outcome("SELECT x FROM t").await == "42501";
            until("the right is gone", denied).await;
            b.rows(&format!("CREATE ROLE readers{round}")).await;
            b.rows(&format!("GRANT SELECT ON t TO readers{round}")).await;
            a.rows(&format!("GRANT readers{round} TO {role}")).await;
            assert_eq!(ann.value("SELECT x FROM t").await, "1");
        }
        let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ann%'";
        until("all roles", async || b.value(roles).await == "30").await;
    })
    .await;
}

/// Two daemons at a time: what a role was granted while it was dropped must not be left behind for
/// the next role of that name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_role_leaves_no_rights_behind() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows(&cluster.table("t", 1)).await;
        for _ in 0..30 {
            a.rows("CREATE ROLE ann").await;
            let (granted, dropped) =
                tokio::join!(a.outcome("GRANT SELECT ON t TO ann"), b.outcome("DROP ROLE ann"));
            let acl = "SELECT coalesce(relacl::text, '') FROM pg_class WHERE relname = 't'";
            let there = "SELECT count(*) FROM pg_roles WHERE rolname = 'ann'";
            match (granted.as_str(), dropped.as_str()) {
                ("", "2BP01" | "40001") | ("40001" | "42704", "") => {}
                other => panic!("{other:?}"),
            }
            let left = if granted.is_empty() { "1" } else { "0" };
            until("both see it", async || b.value(there).await == left).await;
            let granted = granted.is_empty();
            let named = async || a.value(acl).await.contains("ann") == granted;
            until("rights only where there is a role", named).await;
            if granted {
                a.rows("DROP OWNED BY ann").await;
                a.rows("DROP ROLE ann").await;
            }
        }
    })
    .await;
}

/// Two daemons at a time: what a role makes while it is dropped is made, and then the role stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_role_owns_nothing() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        // Not to herself, which would keep her.
        a.rows("CREATE ROLE makers; GRANT CREATE ON SCHEMA public TO makers").await;
        a.rows("GRANT CREATE ON DATABASE oribi TO makers").await;
        // Milliseconds by which the drop comes first, or after: about where either may win.
        let mut first: i64 = 0;
        let after = async |millis: i64| {
            tokio::time::sleep(Duration::from_millis(millis.max(0).unsigned_abs())).await;
        };
        let (mut made, mut dropped) = (0, 0);
        for round in 0..60 {
            a.rows("CREATE ROLE ann LOGIN IN ROLE makers").await;
            let ann = Client::connect_as(&daemons[0], "ann").await;
            let name = format!("made{round}");
            let sql = match round % 2 {
                0 => format!("CREATE VIEW {name} AS SELECT 1 AS x"),
                _ => format!("CREATE SCHEMA {name}"),
            };
            let create = async {
                after(first).await;
                ann.outcome(&sql).await
            };
            let drop = async {
                after(-first).await;
                b.outcome("DROP ROLE ann").await
            };
            let (created, gone) = tokio::join!(create, drop);
            let owners = "SELECT count(*) FROM (SELECT relowner AS o FROM pg_class \
                          WHERE relname LIKE 'made%' UNION ALL SELECT nspowner FROM pg_namespace \
                          WHERE nspname LIKE 'made%') t WHERE o NOT IN (SELECT oid FROM pg_roles)";
            match (created.as_str(), gone.as_str()) {
                ("", "2BP01" | "40001") => {
                    made += 1;
                    first += 5;
                    assert_eq!(b.value(owners).await, "0", "{sql}");
                    a.rows("REASSIGN OWNED BY ann TO oribi").await;
                    a.rows("DROP ROLE ann").await;
                }
                (refused, "") if !refused.is_empty() => {
                    dropped += 1;
                    first -= 3;
                    let left = format!(
                        "SELECT (SELECT count(*) FROM pg_class WHERE relname = '{name}') + \
                         (SELECT count(*) FROM pg_namespace WHERE nspname = '{name}')"
                    );
                    assert_eq!(b.value(&left).await, "0", "{sql}: {refused}");
                }
                outcomes => panic!("{sql}: {outcomes:?}"),
            }
        }
        assert!(made > 0 && dropped > 0, "{made} made, {dropped} dropped");
    })
    .await;
}

/// Two daemons at a time: each takes one of the last two superusers, in view of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_superuser_is_left_whoever_goes() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows("CREATE ROLE boss SUPERUSER LOGIN").await;
        let (mut both, left) = (0, "SELECT count(*) FROM pg_roles WHERE rolsuper AND rolcanlogin");
        for round in 0..30 {
            let other =
                ["ALTER ROLE boss NOLOGIN", "ALTER ROLE boss NOSUPERUSER", "DROP ROLE boss"];
            let (own, other) =
                tokio::join!(a.outcome("ALTER ROLE oribi NOLOGIN"), b.outcome(other[round % 3]));
            match (own.as_str(), other.as_str()) {
                ("", "55006" | "40001") | ("55006" | "40001", "") => {}
                ("40001", "40001") => both += 1,
                outcomes => panic!("{outcomes:?}"),
            }
            until("all see one", async || {
                let expected = if both_failed(&own, &other) { "2" } else { "1" };
                a.value(left).await == expected && b.value(left).await == expected
            })
            .await;
            // As it was: sessions that are open are still superusers'.
            a.rows("ALTER ROLE oribi LOGIN").await;
            match other.is_empty() && round % 3 == 2 {
                true => a.rows("CREATE ROLE boss SUPERUSER LOGIN").await,
                false => a.rows("ALTER ROLE boss SUPERUSER LOGIN").await,
            };
        }
        assert!(both < 30, "one of them succeeds, as a rule");
    })
    .await;
}

fn both_failed(own: &str, other: &str) -> bool {
    !own.is_empty() && !other.is_empty()
}

/// Two daemons at a time: what a role gets while it is renamed is the renamed role's, or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_role_leaves_nothing_under_its_old_name() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows(&cluster.table("t", 1)).await;
        a.rows("CREATE ROLE ann0 LOGIN").await;
        a.rows("GRANT CREATE ON DATABASE oribi TO ann0").await;
        let mut refused = 0;
        for round in 0..20 {
            let (old, new) = (format!("ann{round}"), format!("ann{}", round + 1));
            let ann = Client::connect_as(&daemons[1], &old).await;
            let (grant, rename) =
                (format!("GRANT SELECT ON t TO {old}"), format!("ALTER ROLE {old} RENAME TO {new}"));
            let create = format!("CREATE SCHEMA s{round}");
            let (granted, renamed, created) =
                tokio::join!(b.outcome(&grant), a.outcome(&rename), ann.outcome(&create));
            assert_eq!(renamed, "", "round {round}");
            assert!(["", "40001", "42704"].contains(&granted.as_str()), "{granted}");
            assert!(["", "40001", "42501"].contains(&created.as_str()), "{created}");
            refused += usize::from(!created.is_empty());
            let old_name = format!(
                "SELECT (SELECT count(*) FROM pg_namespace WHERE pg_get_userbyid(nspowner) = '{old}') + \
                 (SELECT count(*) FROM pg_class WHERE relname = 't' AND relacl::text LIKE '%{old}=%') + \
                 (SELECT count(*) FROM pg_roles WHERE rolname = '{old}')"
            );
            until("nothing has the old name", async || b.value(&old_name).await == "0").await;
            let owned = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 's_' OR nspname LIKE 's__'";
            let expected = (round + 1 - refused).to_string();
            until("what was made is there", async || b.value(owned).await == expected).await;
        }
        // Who is connected under the old name has no rights under it.
        let ann = Client::connect_as(&daemons[1], "ann20").await;
        b.rows("GRANT SELECT ON t TO ann20").await;
        assert_eq!(ann.value("SELECT x FROM t").await, "1");
        a.rows("ALTER ROLE ann20 RENAME TO bob").await;
        let nothing_left = async || ["42501", "42P01"].contains(&&*ann.outcome("SELECT x FROM t").await);
        until("no rights", nothing_left).await;
        let bob = Client::connect_as(&daemons[1], "bob").await;
        assert_eq!(bob.value("SELECT x FROM t").await, "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_counts_on_the_next_daemon_at_once() {
    bounded(async {
        let rules = "host all oribi 127.0.0.1 trust; host all all 127.0.0.1 scram-sha-256";
        let cluster = Cluster::on_shared_zookeeper()
            .with("CONNECTIONS_RULES", rules)
            // All of them fail on purpose, and none is to wait for its answer.
            .with("CONNECTIONS_LOGIN_FAILURES", "1000");
        let daemons = [cluster.start("a"), cluster.start("b")];
        let a = Client::connect(&daemons[0]).await;
        let log_in = async |round: u32| {
            let mut config = daemons[1].client_config();
            config.user("ann").password(format!("password {round}"));
            daemons[1].try_connect(&config).await.map(drop).map_err(|error| explain(&error))
        };
        a.rows("CREATE ROLE ann LOGIN PASSWORD 'password 0'").await;
        for round in 0..20 {
            assert_eq!(log_in(round).await, Ok(()), "round {round}");
            a.rows(&format!("ALTER ROLE ann PASSWORD 'password {}'", round + 1)).await;
            let refused = log_in(round).await.expect_err("the old one");
            assert!(refused.contains("28P01"), "{refused}");
        }
    })
    .await;
}
