//! What the daemons have done for a statement that all of them have run, as the history tells it.

use super::*;

/// A statement that reads all rows of a table, and how many these are.
const ALL: &str = "SELECT l_suppkey, sum(l_quantity), max(l_comment) FROM many GROUP BY 1";
const ROWS: &str = "722100";

/// One that groups by what every row has for itself.
const GROUPED: &str = "SELECT count(*) FROM (SELECT l_orderkey, l_linenumber, l_comment, count(*) \
                       FROM many GROUP BY 1, 2, 3) g";
const GROUPS: &str = "60175";

/// A table of so many files that each of three daemons reads some of them.
fn many(cluster: &Cluster) -> String {
    let (files, directory) = (cluster.path(&format!("tpch/sf{SCALE}")), cluster.path("many"));
    std::fs::create_dir_all(&directory).expect("a directory");
    for number in 0..12 {
        let file = directory.join(format!("{number}.parquet"));
        std::fs::copy(files.join("lineitem.parquet"), file).expect("a copy");
    }
    format!("CREATE EXTERNAL TABLE many STORED AS PARQUET LOCATION '{}'", directory.display())
}

/// A statement that can be found by its text.
fn marked(sql: &str, mark: &str) -> String {
    format!("{sql} /* {mark} */")
}

/// Columns of the statement in the history that has this mark.
async fn history(client: &Client, columns: &str, mark: &str) -> Vec<String> {
    let rows = client
        .rows(&format!(
            "SELECT {columns} FROM system.query_history WHERE sql LIKE '%/* {mark} */' \
             AND sql NOT LIKE 'EXPLAIN%'"
        ))
        .await;
    let [row] = &rows[..] else { panic!("{mark}: {rows:?}") };
    row.clone()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

/// A daemon's line in a profile, by the names of its figures.
fn share(profile: &str, daemon: &str, figure: &str) -> u64 {
    let line = profile.lines().find_map(|line| line.strip_prefix(&format!("Daemon {daemon}: ")));
    let line = line.unwrap_or_else(|| panic!("nothing of {daemon}:\n{profile}"));
    let mut figures = line.split(", ").filter_map(|figure| figure.split_once('='));
    number(figures.find(|(name, _)| *name == figure).expect("the figure").1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_has_the_figures_of_all_daemons() {
    bounded(async {
        let three = Three::with(|cluster| {
            let cluster = cluster.with("HISTORY_SLOW", "1ms").with("HISTORY_PROFILE", "1ms");
            // Too little for what a worker groups: it spills, and the daemon that is asked does not.
            cluster.with("DISTRIBUTION_STATEMENT_MEMORY", "8MiB")
        })
        .await;
        let client = three.client(0).await;
        client.rows(&many(&three.cluster)).await;
        let columns = "rows_scanned, bytes_scanned, peak_memory, bytes_spilled, id, \
                       array_to_string(workers, ','), array_to_string(silent_workers, ',')";
        client.rows("SET oribi.distribution = 'off'").await;
        client.rows(&marked(ALL, "alone")).await;
        let alone = history(&client, columns, "alone").await;
        assert_eq!((&*alone[0], &alone[5..]), (ROWS, &["".to_owned(), "".to_owned()][..]));

        client.rows("SET oribi.distribution = 'always'").await;
        for at in 0..3 {
            let mark = format!("spread {at}");
            let client = three.client(at).await;
            client.rows(&marked(ALL, &mark)).await;
            let spread = history(&client, columns, &mark).await;
            assert_eq!((&*spread[0], &*spread[5], &*spread[6]), (ROWS, "a,b,c", ""));
            // Columns are read by parts of files in place of whole ones.
            let (bytes, whole) = (number(&spread[1]), number(&alone[1]));
            assert!(bytes >= whole / 2 && bytes <= whole * 2, "{bytes} and {whole} bytes");
            let profile = client.value(&format!("SELECT oribi.profile('{}')", spread[4])).await;
            let mut sums = [0, 0, 0, 0];
            let figures = ["rows_scanned", "bytes_scanned", "peak_memory", "bytes_spilled"];
            for daemon in ["a", "b", "c"] {
                for (sum, figure) in sums.iter_mut().zip(figures) {
                    let share = share(&profile, daemon, figure);
                    assert!(
                        share > 0 || figure == "bytes_spilled",
                        "{daemon}, {figure}: {profile}"
                    );
                    *sum += share;
                }
            }
            assert_eq!(spread[..4], sums.map(|sum| sum.to_string()), "{profile}");
            let log = three.daemons[at].log();
            let line =
                log.lines().find(|line| line.contains("oribi::slow") && line.contains(&mark));
            let line = line.unwrap_or_else(|| panic!("no line for {mark}:\n{log}"));
            for (figure, sum) in figures.iter().zip(sums) {
                assert!(line.contains(&format!("\"{figure}\":{sum},")), "{figure}: {line}");
            }
            assert!(line.contains("\"workers\":\"a,b,c\"") && !line.contains("silent"), "{line}");
        }
        assert_eq!(client.value(&marked(GROUPED, "grouped")).await, GROUPS);
        let grouped = history(&client, columns, "grouped").await;
        let profile = client.value(&format!("SELECT oribi.profile('{}')", grouped[4])).await;
        let spilled = ["b", "c"].map(|daemon| share(&profile, daemon, "bytes_spilled"));
        assert!(spilled.iter().all(|spilled| *spilled > 0), "{profile}");
        assert_eq!(share(&profile, "a", "bytes_spilled"), 0, "{profile}");
        assert_eq!(number(&grouped[3]), spilled[0] + spilled[1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_names_who_did_not_tell() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("HISTORY_PROFILE", "1ms");
        answers::generate(SCALE, &cluster.path(""));
        let (a, c) = (cluster.start("a"), cluster.start("c"));
        let cluster = cluster.with("FAULT", "a part gives rows");
        let b = cluster.start("b");
        let client = Client::connect(&a).await;
        all_ready(&client, &["a", "b", "c"]).await;
        client.rows(&many(&cluster)).await;
        client.rows("SET oribi.result_cache = off").await;
        client.rows("SET oribi.distribution = 'always'").await;
        assert!(runs_on(&client, ALL, "a, b, c").await);
        assert_eq!(client.rows(&marked(ALL, "lost")).await.len(), 100);
        until("it has died under the statement", async || b.ended().is_some()).await;
        let columns = "state, array_to_string(silent_workers, ','), id, rows_scanned";
        let lost = history(&client, columns, "lost").await;
        assert_eq!(lost[..2], ["finished", "b"]);
        assert!(number(&lost[3]) >= number(ROWS), "{lost:?}");
        let profile = client.value(&format!("SELECT oribi.profile('{}')", lost[2])).await;
        assert!(profile.contains("Daemon b: did not tell\n"), "{profile}");
        assert!(share(&profile, "a", "rows_scanned") > 0, "{profile}");
        drop(c);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_statement_is_counts_all_daemons() {
    bounded(async {
        let three = Three::start().await;
        // All rows of a table are in one piece, which the first daemon reads, and not the one that is
        // asked.
        let busy = three.client(2).await;
        let sql = "SELECT count(*) FROM lineitem a, lineitem b, orders c \
                   WHERE a.l_comment || b.l_comment || c.o_comment = 'none'";
        assert!(runs_on(&busy, sql, "a, b, c").await);
        let (cancel, running) =
            (busy.cancel_token(), tokio::spawn(async move { busy.outcome(sql).await }));
        let client = three.client(2).await;
        let progress =
            "SELECT progress FROM system.queries WHERE sql LIKE 'SELECT count(*) FROM l%'";
        let mut part = String::new();
        until("it is told how far it is", async || {
            part = client.value(progress).await;
            !part.is_empty()
        })
        .await;
        let part: f64 = part.parse().expect("a number");
        assert!(part > 0.0 && part < 1.0, "{part}");
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        assert_eq!(running.await.expect("it ends"), "57014");
    })
    .await;
}
