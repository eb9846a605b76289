"""Lists, structs, maps and their mixtures, by each program; read whole and by element."""

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from expect import create

POINT = pa.struct([("x", pa.int32()), ("label", pa.string())])
LISTS = [[1, None, 3], None, [], [4]]
WORDS = [["a", "b,c", None, "NULL", ""], None, [], ['quote " and \\']]
STRUCTS = [{"x": 1, "label": "one"}, None, {"x": None, "label": None}]
POINTS = [[{"x": 1, "label": "one"}, {"x": 2, "label": None}], None, []]
MAPS = [{"a": 1, "b": None}, None, {}]
DEEP = [{"tags": ["p", None], "place": {"x": 5, "label": "five"}}, None, {"tags": None, "place": None}]
SHAPES = {
    "list": (pa.list_(pa.int32()), LISTS),
    "large_list": (pa.large_list(pa.int64()), LISTS),
    "fixed_list": (pa.list_(pa.int32(), 2), [[1, 2], None, [3, None]]),
    "list_of_text": (pa.list_(pa.string()), WORDS),
    "struct": (POINT, STRUCTS),
    "list_of_struct": (pa.list_(POINT), POINTS),
    "map": (pa.map_(pa.string(), pa.int64()), MAPS),
    "deep": (pa.struct([("tags", pa.list_(pa.string())), ("place", POINT)]), DEEP),
}
DUCK_TYPES = {
    "list": ("INTEGER[]", LISTS),
    "list_of_text": ("VARCHAR[]", WORDS),
    "struct": ("STRUCT(x INTEGER, label VARCHAR)", STRUCTS),
    "list_of_struct": ("STRUCT(x INTEGER, label VARCHAR)[]", POINTS),
    "map": ("MAP(VARCHAR, BIGINT)", MAPS),
    "deep": ("STRUCT(tags VARCHAR[], place STRUCT(x INTEGER, label VARCHAR))", DEEP),
}
POLARS_TYPES = {
    "list": (pl.List(pl.Int32), LISTS),
    "list_of_text": (pl.List(pl.String), WORDS),
    "struct": (pl.Struct({"x": pl.Int32, "label": pl.String}), STRUCTS),
    "list_of_struct": (pl.List(pl.Struct({"x": pl.Int32, "label": pl.String})), POINTS),
    "array": (pl.Array(pl.Int32, 2), [[1, 2], None, [3, 4]]),
}


def of(value, *keys):
    """value[k1][k2]..., where anything missing is NULL; lists count from 1 as in SQL."""
    for key in keys:
        if value is None:
            return None
        if isinstance(value, list):
            value = value[key - 1] if key <= len(value) else None
        else:
            value = value.get(key)
    return value


# What is asked of each shape besides the whole: an expression, and the same in Python.
ELEMENTS = {
    "list": ("v[1]", lambda v: of(v, 1)),
    "large_list": ("v[3]", lambda v: of(v, 3)),
    "fixed_list": ("v[2]", lambda v: of(v, 2)),
    "array": ("v[2]", lambda v: of(v, 2)),
    "list_of_text": ("v[2]", lambda v: of(v, 2)),
    "struct": ("v['label']", lambda v: of(v, "label")),
    "list_of_struct": ("v[1]['x']", lambda v: of(v, 1, "x")),
    "map": ("v['a']", lambda v: of(v, "a")),
    "deep": ("v['place']['x']", lambda v: of(v, "place", "x")),
}


def expect(book, program, kind, values):
    name = f"{program}_{kind}"
    book.column(name, f"{name}.parquet", values)
    expression, function = ELEMENTS[kind]
    book.rows(f"{name} element", create(name, f"{name}.parquet"),
              f"SELECT id, {expression} AS e FROM {name} ORDER BY id", ["id", "e"],
              [[i, function(v)] for i, v in enumerate(values, 1)])


def arrow(target, book):
    for kind, (arrow_type, values) in SHAPES.items():
        given = [list(v.items()) if v is not None else None for v in values] if kind == "map" \
            else values
        ids = pa.array(range(1, len(values) + 1), pa.int64())
        table = pa.table({"id": ids, "v": pa.array(given, arrow_type)})
        pq.write_table(table, target / f"pyarrow_{kind}.parquet")
        expect(book, "pyarrow", kind, values)


def duck(target, book):
    db = duckdb.connect()
    for kind, (sql_type, values) in DUCK_TYPES.items():
        db.execute(f"CREATE OR REPLACE TABLE t (id BIGINT, v {sql_type})")
        for i, value in enumerate(values, 1):
            # Python's dict is a STRUCT to DuckDB; MAP wants its keys and values apart.
            if kind == "map" and value is not None:
                db.execute("INSERT INTO t SELECT ?, MAP(?::VARCHAR[], ?::BIGINT[])",
                           [i, list(value), list(value.values())])
            else:
                db.execute("INSERT INTO t VALUES (?, ?)", [i, value])
        db.execute(f"COPY t TO '{target / f'duckdb_{kind}.parquet'}' (FORMAT parquet)")
        expect(book, "duckdb", kind, values)


def polars(target, book):
    for kind, (dtype, values) in POLARS_TYPES.items():
        frame = pl.DataFrame({"id": range(1, len(values) + 1), "v": pl.Series(values, dtype=dtype)})
        frame.write_parquet(target / f"polars_{kind}.parquet")
        expect(book, "polars", kind, values)


def unnested(book):
    rows = [[i, e] for i, v in enumerate(LISTS, 1) for e in v or []]
    book.rows("pyarrow_list unnested", create("unnested", "pyarrow_list.parquet"),
              "SELECT id, e FROM (SELECT id, unnest(v) AS e FROM unnested) ORDER BY id, e NULLS LAST",
              ["id", "e"], sorted(rows, key=lambda r: (r[0], r[1] is None, r[1])))


def write(target, book):
    arrow(target, book)
    duck(target, book)
    polars(target, book)
    unnested(book)
