"""How files are laid out: compression, row groups, indexes, many files, partitions, schemas."""

import datetime as dt

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from expect import create

# 3000 rows: a number, one with nulls in it, a repeating word, a date.
NUMBERS = list(range(3000))
TABLE = pa.table({
    "id": pa.array(NUMBERS, pa.int64()),
    "n": pa.array([None if i % 7 == 0 else i * 3 for i in NUMBERS], pa.int32()),
    "word": pa.array([f"word {i % 11}" for i in NUMBERS], pa.string()),
    "day": pa.array([dt.date(2020, 1, 1) + dt.timedelta(i % 400) for i in NUMBERS], pa.date32()),
})
SUMMARY = "SELECT count(*), count(n), sum(n), min(word), max(day) FROM {}"
SUMMARY_ROW = [[3000, 2571, sum(i * 3 for i in NUMBERS if i % 7), "word 0", dt.date(2021, 2, 3)]]


def summary(book, name, path):
    """The whole file in one row, and one row out of the middle."""
    made = create(name, path)
    book.rows(name, made, SUMMARY.format(name), ["count", "count", "sum", "min", "max"],
              SUMMARY_ROW)
    book.rows(f"{name} one row", made, f"SELECT * FROM {name} WHERE id = 1701",
              ["id", "n", "word", "day"],
              [[1701, None, "word 7", dt.date(2020, 1, 1) + dt.timedelta(1701 % 400)]])


def compression(target, book):
    """Every codec that each program offers."""
    db = duckdb.connect()
    db.register("t", TABLE)
    frame = pl.from_arrow(TABLE)
    for codec in ("none", "snappy", "gzip", "brotli", "lz4", "zstd"):
        pq.write_table(TABLE, target / f"pyarrow_{codec}.parquet", compression=codec)
        duck = {"none": "uncompressed", "lz4": "lz4_raw"}.get(codec, codec)
        db.execute(f"COPY t TO '{target / f'duckdb_{codec}.parquet'}' "
                   f"(FORMAT parquet, COMPRESSION {duck})")
        polars = "uncompressed" if codec == "none" else codec
        frame.write_parquet(target / f"polars_{codec}.parquet", compression=polars)
        for program in ("pyarrow", "duckdb", "polars"):
            summary(book, f"{program}_{codec}", f"{program}_{codec}.parquet")


def row_groups(target, book):
    """Many groups, and the indexes that let a reader skip within and between them."""
    pq.write_table(TABLE, target / "pyarrow_groups.parquet", row_group_size=10)
    pq.write_table(TABLE, target / "pyarrow_page_index.parquet", write_page_index=True,
                   data_page_size=512, max_rows_per_page=100)
    pq.write_table(TABLE, target / "pyarrow_no_statistics.parquet", write_statistics=False,
                   row_group_size=500)
    pl.from_arrow(TABLE).write_parquet(target / "polars_groups.parquet", row_group_size=100)
    db = duckdb.connect()
    db.register("t", TABLE)
    # DuckDB writes a bloom filter for each dictionary-encoded column.
    db.execute(f"COPY t TO '{target / 'duckdb_bloom.parquet'}' (FORMAT parquet, ROW_GROUP_SIZE 2048, "
               "WRITE_BLOOM_FILTER true, DICTIONARY_SIZE_LIMIT 10000)")
    for name in ("pyarrow_groups", "pyarrow_page_index", "pyarrow_no_statistics", "polars_groups",
                 "duckdb_bloom"):
        summary(book, name, f"{name}.parquet")
    for word, count in (("word 3", sum(i % 11 == 3 for i in NUMBERS)), ("no such word", 0)):
        book.rows(f"duckdb_bloom '{word}'", create("duckdb_bloom", "duckdb_bloom.parquet"),
                  f"SELECT count(*) FROM duckdb_bloom WHERE word = '{word}'", ["count"], [[count]])


def empty(target, book):
    """No rows: as a file, as a file without a row group, as one file among others."""
    none = TABLE.slice(0, 0)
    pq.write_table(none, target / "pyarrow_empty.parquet")
    pl.from_arrow(none).write_parquet(target / "polars_empty.parquet")
    db = duckdb.connect()
    db.register("t", none)
    db.execute(f"COPY t TO '{target / 'duckdb_empty.parquet'}' (FORMAT parquet)")
    for program in ("pyarrow", "polars", "duckdb"):
        name = f"{program}_empty"
        book.rows(name, create(name, f"{name}.parquet"), f"SELECT * FROM {name}",
                  TABLE.column_names, [])
        book.rows(f"{name} count", create(name, f"{name}.parquet"),
                  f"SELECT count(*), max(n) FROM {name}", ["count", "max"], [[0, None]])


def directories(target, book):
    """What a job leaves behind: several files, one empty, markers, hidden files, a folder."""
    folder = target / "many_files"
    (folder / "_temporary").mkdir(parents=True)
    for i in range(5):
        pq.write_table(TABLE.slice(i * 600, 600), folder / f"part-{i:05}.snappy.parquet")
    pq.write_table(TABLE.slice(0, 0), folder / "part-00005.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.snappy.parquet.crc").write_bytes(b"crc\0")
    (folder / "_temporary" / "part-00009.snappy.parquet").write_bytes(b"half written")
    summary(book, "many_files", "many_files/")
    pq.write_table(TABLE, target / "no_extension")
    summary(book, "no_extension", "no_extension")
    names = pa.table({"Mixed Case": [1], "lower": [2], "with space": [3], "dot.ted": [4],
                      "ünï": [5], 'quo"te': [6], "select": [7]})
    pq.write_table(names, target / "column_names.parquet")
    book.rows("column_names", create("column_names", "column_names.parquet"),
              'SELECT "Mixed Case", lower, "with space", "dot.ted", "ünï", "quo""te", "select" '
              "FROM column_names", names.column_names, [[1, 2, 3, 4, 5, 6, 7]])


# Partition keys: integer, text with everything that paths dislike, date; each may be missing.
KEYS = [(2020, "plain", dt.date(2020, 1, 1)), (2021, "a b/c=d%e", dt.date(2021, 12, 31)),
        (2021, "ünï?#&+", dt.date(2020, 1, 1)), (None, None, None)]


def partitioned(target, book):
    """Hive partitions as each program writes them."""
    rows = [(i, *KEYS[i % 4]) for i in range(40)]
    ids, years, words, days = zip(*rows)
    table = pa.table({"id": pa.array(ids, pa.int64()), "year": pa.array(years, pa.int32()),
                      "word": pa.array(words, pa.string()), "day": pa.array(days, pa.date32())})
    db = duckdb.connect()
    db.register("t", table)
    for key, kind in (("year", "INT"), ("word", "VARCHAR"), ("day", "DATE")):
        kept = table.select(["id", key])
        ds.write_dataset(kept, target / f"pyarrow_by_{key}", format="parquet",
                         partitioning=ds.partitioning(pa.schema([kept.schema.field(key)]),
                                                      flavor="hive"))
        db.execute(f"COPY (SELECT id, {key} FROM t) TO '{target / f'duckdb_by_{key}'}' "
                   f"(FORMAT parquet, PARTITION_BY ({key}))")
        pl.from_arrow(kept).write_parquet(target / f"polars_by_{key}", partition_by=key)
        for program in ("pyarrow", "duckdb", "polars"):
            by_key(book, f"{program}_by_{key}", key, kind, kept.to_pylist())
    ds.write_dataset(table, target / "pyarrow_by_year_word", format="parquet",
                     partitioning=ds.partitioning(table.select(["year", "word"]).schema,
                                                  flavor="hive"))
    book.rows("pyarrow_by_year_word",
              create("by_both", "pyarrow_by_year_word/", partitioned="year INT, word VARCHAR"),
              "SELECT year, word, count(*) FROM by_both GROUP BY year, word "
              "ORDER BY year, word NULLS LAST", ["year", "word", "count"],
              [[2020, "plain", 10], [2021, "a b/c=d%e", 10], [2021, "ünï?#&+", 10],
               [None, None, 10]])


def by_key(book, name, key, kind, rows):
    """Every row, the rows of one key (which prunes), and the rows of the default partition."""
    made = create(name, f"{name}/", partitioned=f"{key} {kind}")
    book.rows(name, made, f"SELECT id, {key} FROM {name} ORDER BY id", ["id", key],
              [[row["id"], row[key]] for row in rows])
    wanted = rows[1][key]
    literal = wanted if kind == "INT" else f"date '{wanted}'" if kind == "DATE" else f"'{wanted}'"
    count = sum(row[key] == wanted for row in rows)
    book.rows(f"{name} one", made, f"SELECT count(*) FROM {name} WHERE {key} = {literal}",
              ["count"], [[count]])
    book.rows(f"{name} null", made, f"SELECT count(*) FROM {name} WHERE {key} IS NULL", ["count"],
              [[10]])


def schemas(target, book):
    """Files of one directory that agree more or less."""
    def folder(name, *tables):
        (target / name).mkdir()
        for letter, table in zip("abc", tables):
            pq.write_table(table, target / name / f"{letter}.parquet")

    ids = pa.array([1, 2], pa.int64())
    full = pa.table({"id": ids, "n": pa.array([10, 20], pa.int32()), "word": ["a", "b"]})
    folder("missing_column", full, pa.table({"id": pa.array([3], pa.int64()), "word": ["c"]}))
    folder("reordered", full, full.select(["word", "n", "id"]))
    folder("widened", full, full.set_column(1, "n", pa.array([2**40, None], pa.int64())))
    folder("incompatible", full, full.set_column(1, "n", pa.array([[1], [2]])))
    folder("text_for_number", full, full.set_column(1, "n", pa.array(["ten", "twenty"])))

    columns, query = ["id", "n", "word"], "SELECT id, n, word FROM {0} ORDER BY id, n"
    given = "(id BIGINT, n BIGINT, word VARCHAR)"
    expected = {
        "missing_column": [[1, 10, "a"], [2, 20, "b"], [3, None, "c"]],
        "reordered": [[1, 10, "a"], [1, 10, "a"], [2, 20, "b"], [2, 20, "b"]],
        "widened": [[1, 10, "a"], [1, 2**40, "a"], [2, 20, "b"], [2, None, "b"]],
    }
    for name, rows in expected.items():
        # Without a schema, refusing to guess is an answer too, if it says which file.
        names = ["a.parquet", "b.parquet"] if name == "widened" else None
        book.rows(name, create(name, f"{name}/"), query.format(name), columns, rows, names)
        book.rows(f"{name} declared", create(name, f"{name}/", given), query.format(name), columns,
                  rows)
    for name in ("incompatible", "text_for_number"):
        for schema in ("", given):
            book.error(f"{name} {'declared' if schema else 'inferred'}",
                       create(name, f"{name}/", schema), f"SELECT sum(n) FROM {name}",
                       ["a.parquet", "b.parquet"])


def write(target, book):
    for part in (compression, row_groups, empty, directories, partitioned, schemas):
        part(target, book)
