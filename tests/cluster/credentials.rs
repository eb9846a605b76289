//! Daemons with credentials: who has none may do nothing with what they keep in ZooKeeper.

use crate::common::zookeeper::Server;
use crate::support::*;

/// Nodes that a daemon with a table, a role and a running statement has.
const KINDS: [&str; 9] = [
    "/cluster",
    "/daemons/a",
    "/incarnations/",
    "/catalog/oribi/t",
    "/roles/ann",
    "/queries/",
    "/leader/",
    "/signals",
    "/maintenance",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_neither_read_nor_write_any_node() {
    bounded(async {
        let server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let secret = cluster.path("secret");
        std::fs::write(&secret, "digest herd:s3cret\n").expect("a file");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, private).expect("permissions are set");
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster
            .with("WAREHOUSE", &warehouse)
            .with("COORDINATION_CREDENTIALS", &secret.display().to_string());
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE ROLE ann LOGIN PASSWORD 'secret'").await;
        client.rows("CREATE TABLE t AS SELECT 1 AS x").await;
        let busy = Client::connect(&daemon).await;
        let cancel = busy.cancel_token();
        let running = tokio::spawn(async move { busy.outcome(ENDLESS).await });
        let seen = "SELECT count(*) FROM system.queries WHERE sql LIKE '%generate_series%' \
                    AND sql NOT LIKE '%system.queries%'";
        until("the statement is seen", async || client.value(seen).await == "1").await;

        let (_, chroot) = cluster.zookeeper().split_once('/').expect("a chroot");
        let list = format!("ls -R /{chroot}");
        let listed = async || {
            let printed = server.cli(&["addauth digest herd:s3cret", &list]);
            let chroot = format!("/{chroot}");
            let paths = printed.lines().filter(|line| line.starts_with(&chroot));
            let paths: Vec<String> = paths.map(|line| line.trim().to_owned()).collect();
            let has =
                |kind: &&str| paths.iter().any(|path| path[chroot.len()..].starts_with(*kind));
            KINDS.iter().all(has).then_some(paths).ok_or(printed)
        };
        // What has become of the statements that looked for it is told for a second more.
        let mut nodes = Vec::new();
        until("one statement is left", async || {
            nodes = listed().await.unwrap_or_else(|printed| panic!("{printed}"));
            nodes.iter().filter(|node| node.contains("/queries/")).count() == 1
        })
        .await;
        let mut commands = Vec::new();
        for node in &nodes {
            commands.extend([
                format!("get {node}"),
                format!("ls {node}"),
                format!("set {node} x"),
                format!("create {node}/stranger x"),
                format!("setAcl {node} world:anyone:cdrwa"),
            ]);
            // The parent of the chroot is ZooKeeper's own, and everybody's.
            if node[1..].contains('/') {
                commands.push(format!("delete {node}"));
            }
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let printed = server.cli(&commands);
        let denied = printed.matches("Insufficient permission").count();
        assert_eq!(denied, commands.len(), "{} nodes: {printed}", nodes.len());
        assert!(!printed.contains("SCRAM"), "{printed}");
        // Neither with other credentials.
        let role = format!("get /{chroot}/roles/ann");
        let printed = server.cli(&["addauth digest herd:guessed", &role]);
        assert!(printed.contains("Insufficient permission"), "{printed}");
        // The daemon has not noticed anything.
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        assert_eq!(running.await.expect("it ends"), "57014");
        assert_eq!(client.value("SELECT x FROM t").await, "1");
        println!("{} nodes", nodes.len());
    })
    .await;
}
