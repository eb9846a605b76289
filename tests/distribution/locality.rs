//! The same files go to the same daemons, which know them already.

use super::*;

const FILES: u64 = 48;

/// A daemon's numbers of files whose metadata it knows, and of times that it knew one.
async fn known(daemon: &Daemon) -> (u64, u64) {
    let told = metrics(daemon).await;
    let number = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}: {told}")).parse().expect("a number")
    };
    let of = |name: &str| number(&format!("{name}{{cache=\"parquet_footers\"}}"));
    (of("oribi_cache_entries"), of("oribi_cache_entry_hits"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_reads_what_is_known() {
    bounded(async {
        let three = Three::start().await;
        let [_, b, c] = &three.daemons;
        let client = three.client(0).await;
        let folder = three.cluster.path("many");
        std::fs::create_dir(&folder).expect("a directory");
        let source = three.cluster.path(&format!("tpch/sf{SCALE}/orders.parquet"));
        for file in 0..FILES {
            std::fs::copy(&source, folder.join(format!("{file}.parquet"))).expect("a copy");
        }
        let create = "CREATE EXTERNAL TABLE many STORED AS PARQUET LOCATION";
        client.rows(&format!("{create} '{}'", folder.display())).await;
        let sql =
            "SELECT o_orderstatus, count(*), sum(o_totalprice) FROM many GROUP BY 1 ORDER BY 1";
        client.rows("SET oribi.distribution = 'off'").await;
        let expected = client.rows(sql).await;
        client.rows("SET oribi.distribution = 'always'").await;
        assert!(runs_on(&client, sql, "a, b, c").await);
        let before = [known(b).await, known(c).await];
        assert_eq!(before, [(0, 0); 2], "they have not been asked for anything");
        // Who asks reads what it plans with; the others what is theirs.
        assert_eq!(client.rows(sql).await, expected);
        let first = [known(b).await, known(c).await];
        for (files, _) in first {
            assert!((FILES / 4..=FILES / 2).contains(&files), "about a third: {first:?}");
        }
        // Nobody reads what another has read, nor anything twice.
        assert_eq!(client.rows(sql).await, expected);
        let second = [known(b).await, known(c).await];
        for ((files, hits), (files_before, hits_before)) in second.into_iter().zip(first) {
            assert_eq!(files, files_before, "{first:?}, {second:?}");
            assert!(hits - hits_before >= files, "{first:?}, {second:?}");
        }
        // Without one of them, only its files move.
        c.terminate();
        until("it is gone", async || runs_on(&client, sql, "a, b").await).await;
        assert_eq!(client.rows(sql).await, expected);
        let third = known(b).await;
        let (new, stayed) = (third.0 - second[0].0, third.1 - second[0].1);
        assert!(new > 0 && new <= second[1].0 * 3 / 4, "{first:?}, {second:?}, {third:?}");
        // A daemon takes its share and no more: some of its files make room for others.
        assert!(stayed * 4 >= second[0].0 * 3, "{first:?}, {second:?}, {third:?}");
    })
    .await;
}
