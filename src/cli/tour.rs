//! What the demo shows: a handful of queries, through the port, as any client would run them.

use std::future::Future;
use std::io::{Write, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::error::{Error, Result};
use super::text_table;
use super::tpch::TABLES;

/// A moment, given in seconds since 1970, as all commands write it in JSON: RFC 3339, in UTC.
pub fn moment(seconds: f64) -> String {
    let moment = DateTime::from_timestamp(seconds.floor() as i64, 0).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub const USER: &str = "oribi";
const DATABASE: &str = "oribi";

/// Rows of a result that are shown, and characters of a query.
const SHOWN_ROWS: usize = 10;
const SHOWN_SQL: usize = 300;
const LINE: usize = 98;

/// Title and text of each query.
const QUERIES: [(&str, &str); 7] = [
    (
        "How many rows are there?",
        "select 'customer' as name, count(*) as rows from customer
         union all select 'orders', count(*) from orders
         union all select 'lineitem', count(*) from lineitem order by rows",
    ),
    (
        "Pricing summary report (TPC-H Q1)",
        "select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty,
                sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
                round(avg(l_extendedprice), 2) as avg_price, count(*) as count_order
         from lineitem where l_shipdate <= date '1998-12-01' - interval '90' day
         group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus",
    ),
    (
        "Shipping priority (TPC-H Q3)",
        "select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue,
                o_orderdate, o_shippriority
         from customer join orders on c_custkey = o_custkey
              join lineitem on l_orderkey = o_orderkey
         where c_mktsegment = 'BUILDING' and o_orderdate < date '1995-03-15'
               and l_shipdate > date '1995-03-15'
         group by l_orderkey, o_orderdate, o_shippriority
         order by revenue desc, o_orderdate limit 10",
    ),
    (
        "Local supplier volume: six tables joined (TPC-H Q5)",
        "select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
         from customer join orders on c_custkey = o_custkey
              join lineitem on l_orderkey = o_orderkey
              join supplier on l_suppkey = s_suppkey and c_nationkey = s_nationkey
              join nation on s_nationkey = n_nationkey
              join region on n_regionkey = r_regionkey
         where r_name = 'ASIA' and o_orderdate >= date '1994-01-01'
               and o_orderdate < date '1995-01-01'
         group by n_name order by revenue desc",
    ),
    (
        "Large volume customers: a grouped subquery (TPC-H Q18)",
        "select c_name, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) as quantity
         from customer join orders on c_custkey = o_custkey
              join lineitem on o_orderkey = l_orderkey
         where o_orderkey in (select l_orderkey from lineitem
                              group by l_orderkey having sum(l_quantity) > 300)
         group by c_name, o_orderkey, o_orderdate, o_totalprice
         order by o_totalprice desc, o_orderdate limit 5",
    ),
    (
        "Each nation's best supplier: a window function",
        "select nation, supplier, balance from (
            select n_name as nation, s_name as supplier, s_acctbal as balance,
                   row_number() over (partition by n_name order by s_acctbal desc) as place
            from supplier join nation on s_nationkey = n_nationkey)
         where place = 1 order by balance desc limit 5",
    ),
    ("The cluster itself is a table", "select id, state, postgres, version from system.daemons"),
];

/// Where a client on this machine connects to a daemon that listens on `address`.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Defines the tables in `dir` and runs the queries, printing all of it.
pub async fn run(address: SocketAddr, dir: &Path) -> Result<()> {
    let failed = |source| Error::Sql { title: format!("connecting to {address}"), source };
    let (client, connection) = tokio_postgres::Config::new()
        .host(address.ip().to_string())
        .port(address.port())
        .user(USER)
        .dbname(DATABASE)
        .application_name("oribi demo")
        .connect_timeout(Duration::from_secs(10))
        .connect(NoTls)
        .await
        .map_err(failed)?;
    // The connection is driven by the same task: nothing is left running when the tour ends.
    let mut show = pin!(show(&client, dir));
    tokio::select! {
        shown = &mut show => shown,
        // It ends for a reason, and what is being shown knows the better message.
        _ = connection => show.await.and(Err(Error::Closed)),
    }
}

async fn show(client: &Client, dir: &Path) -> Result<()> {
    for table in &TABLES {
        let location = table.file(dir).display().to_string().replace('\'', "''");
        let name = table.name;
        // Replaced, because the last run may have been at another scale.
        let sql = format!(
            "CREATE OR REPLACE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{location}'"
        );
        let created = client.batch_execute(&sql).await;
        created.map_err(|source| Error::Sql { title: format!("creating {name}"), source })?;
    }
    for (number, (title, sql)) in (1..).zip(QUERIES) {
        let (answer, taken) = timed(client.simple_query(sql)).await;
        let answer = answer.map_err(|source| Error::Sql { title: title.to_owned(), source })?;
        let (columns, rows) = table_of(answer);
        let table = text_table::render(&columns, &rows, SHOWN_ROWS);
        let millis = taken.as_secs_f64() * 1000.0;
        print(&format!(
            "\n{number}. {title}\n{}\n\n{table}\nTime: {millis:.1} ms",
            shortened(sql)
        ))?;
    }
    Ok(())
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let done = work.await;
    (done, start.elapsed())
}

type Rows = Vec<Vec<Option<String>>>;

fn table_of(messages: Vec<SimpleQueryMessage>) -> (Vec<String>, Rows) {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(names) => {
                columns = names.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            _ => {}
        }
    }
    (columns, rows)
}

/// The query in lines that fit a terminal, indented; cut where it gets long.
fn shortened(sql: &str) -> String {
    let mut text = String::new();
    let mut line = String::from("  ");
    for word in sql.split_whitespace() {
        if text.len() + line.len() > SHOWN_SQL {
            line.push_str(" ...");
            break;
        }
        if line.len() + word.len() >= LINE {
            text.push_str(&line);
            text.push('\n');
            line = String::from("  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    text + &line
}

/// Prints and flushes: standard output may be a pipe that somebody closed.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::Print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_queries_are_cut() {
        assert_eq!(shortened("select\n   1"), "   select 1");
        let long = shortened(&"word ".repeat(200));
        assert!(long.ends_with(" ..."), "{long}");
        assert!(long.lines().all(|line| line.len() <= LINE + 4), "{long}");
    }

    #[test]
    fn clients_connect_to_an_address_that_exists() {
        let to = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(to("0.0.0.0:5439"), "127.0.0.1:5439");
        assert_eq!(to("[::]:1"), "[::1]:1");
        assert_eq!(to("10.0.0.1:1"), "10.0.0.1:1");
    }
}
