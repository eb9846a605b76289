"""One small file for each column type and each writing program."""

import datetime as dt
import uuid
from decimal import Decimal as D

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

UTC = dt.timezone.utc
MOMENTS = [dt.datetime(2021, 3, 4, 5, 6, 7, 123000), None, dt.datetime(1969, 12, 31, 23, 59, 59),
           dt.datetime(2262, 1, 1)]
ZONED = [m and m.replace(tzinfo=UTC) for m in MOMENTS]
IDS = [uuid.UUID(int=0), None, uuid.UUID("550e8400-e29b-41d4-a716-446655440000")]
LONG = "long " * 2000


def decimals(precision, scale):
    """Smallest, null, zero and greatest value of a decimal type."""
    greatest = D(10**precision - 1).scaleb(-scale) if precision <= 28 else D(
        (0, (9,) * precision, -scale))
    return [greatest.copy_negate(), None, D((0, (0,), -scale)), greatest, D((0, (1,), -scale))]


def whole_numbers():
    """Every integer width, signed and not, with its limits."""
    for bits in (8, 16, 32, 64):
        yield f"int{bits}", getattr(pa, f"int{bits}")(), [-(2 ** (bits - 1)), None, 0,
                                                          2 ** (bits - 1) - 1]
        yield f"uint{bits}", getattr(pa, f"uint{bits}")(), [0, None, 1, 2**bits - 1]


def whole_seconds(moments):
    return [m and m.replace(microsecond=0) for m in moments]


def arrow_scalars():
    yield from whole_numbers()
    yield "bool", pa.bool_(), [True, None, False, True]
    yield "float16", pa.float16(), [1.5, None, -0.25, 65504.0]
    yield "float32", pa.float32(), [1.5, None, -0.25, 2.0**100]
    yield "float64", pa.float64(), [1.5, None, 1e-300, -1.7976931348623157e308]
    for unit in ("s", "ms", "us", "ns"):
        coarse = unit == "s"
        yield f"timestamp_{unit}", pa.timestamp(unit), whole_seconds(MOMENTS) if coarse else MOMENTS
        yield (f"timestamp_{unit}_utc", pa.timestamp(unit, "UTC"),
               whole_seconds(ZONED) if coarse else ZONED)
    yield "timestamp_us_berlin", pa.timestamp("us", "Europe/Berlin"), ZONED
    yield "timestamp_us_far", pa.timestamp("us"), [dt.datetime(1, 1, 1), None,
                                                   dt.datetime(9999, 12, 31, 23, 59, 59, 999999)]
    yield "date32", pa.date32(), [dt.date(1970, 1, 1), None, dt.date(1582, 10, 15),
                                  dt.date(9999, 12, 31)]
    yield "date64", pa.date64(), [dt.date(1970, 1, 1), None, dt.date(2021, 3, 4)]
    for unit, bits in (("s", 32), ("ms", 32), ("us", 64), ("ns", 64)):
        times = [dt.time(0), None, dt.time(5, 6, 7), dt.time(23, 59, 59)]
        yield f"time_{unit}", getattr(pa, f"time{bits}")(unit), times
    for precision, scale in ((1, 0), (4, 2), (9, 9), (10, 3), (18, 2), (19, 0), (38, 10)):
        yield (f"decimal_{precision}_{scale}", pa.decimal128(precision, scale),
               decimals(precision, scale))
    yield "decimal256_50_10", pa.decimal256(50, 10), decimals(50, 10)
    yield "decimal256_76_0", pa.decimal256(76, 0), decimals(76, 0)
    yield "string", pa.string(), ["a", None, "", "ünï ✓ \U0001f98c", "a'b\"c\\d\te\nf"]
    yield "large_string", pa.large_string(), [LONG, None, "", "x"]
    yield "string_view", pa.string_view(), ["short", None, LONG]
    yield "binary", pa.binary(), [b"\x00\xff", None, b"", b"abc"]
    yield "large_binary", pa.large_binary(), [b"\x00\xff", None, b""]
    yield "fixed_binary", pa.binary(4), [b"\x00\x01\x02\x03", None, b"abcd"]


UNORDERED = ("bool", "binary", "large_binary", "fixed_binary")


def arrow_columns(target, book):
    for kind, arrow_type, values in arrow_scalars():
        name = f"pyarrow_{kind}"
        write_arrow(target / f"{name}.parquet", arrow_type, values)
        book.column(name, f"{name}.parquet", values)
        if kind not in UNORDERED:
            book.extremes(name, f"{name}.parquet", values)


def write_arrow(path, arrow_type, values, **options):
    ids = pa.array(range(1, len(values) + 1), pa.int64())
    if arrow_type == pa.float16():
        import numpy
        values = [None if v is None else numpy.float16(v) for v in values]
    pq.write_table(pa.table({"id": ids, "v": pa.array(values, arrow_type)}), path, **options)


def arrow_specials(target, book):
    """What pyarrow only writes when asked to."""
    def case(name, arrow_type, values, **options):
        write_arrow(target / f"{name}.parquet", arrow_type, values, **options)
        book.column(name, f"{name}.parquet", values)

    case("pyarrow_int96", pa.timestamp("us"), MOMENTS[:3], use_deprecated_int96_timestamps=True)
    # Spark wrote such dates as int96 for years; nanoseconds in 64 bits begin in 1677.
    case("pyarrow_int96_old", pa.timestamp("us"), [dt.datetime(1500, 1, 1), None,
                                                   dt.datetime(3000, 1, 1)],
         use_deprecated_int96_timestamps=True)
    for precision, scale in ((5, 2), (9, 0), (18, 6)):
        case(f"pyarrow_decimal_as_integer_{precision}_{scale}", pa.decimal128(precision, scale),
             decimals(precision, scale), store_decimal_as_integer=True)
    words = ["red", None, "green", "red"] * 50
    case("pyarrow_dictionary", pa.dictionary(pa.int32(), pa.string()), words)
    case("pyarrow_dictionary_off", pa.string(), words, use_dictionary=False)
    case("pyarrow_null_column", pa.null(), [None] * 3)
    case("pyarrow_all_null_ints", pa.int32(), [None] * 3)
    case("pyarrow_page_v2", pa.string(), words, data_page_version="2.0")
    for encoding, arrow_type, values in (
        ("DELTA_BINARY_PACKED", pa.int64(), list(range(0, 5000, 7))),
        ("DELTA_LENGTH_BYTE_ARRAY", pa.string(), words),
        ("DELTA_BYTE_ARRAY", pa.string(), words),
        ("BYTE_STREAM_SPLIT", pa.float64(), [0.5, None, -3.25]),
    ):
        case(f"pyarrow_{encoding.lower()}", arrow_type, values, use_dictionary=False,
             column_encoding={"v": encoding})


DUCK = {
    "enum": ("ENUM ('red', 'green')", ["red", None, "green"]),
    "uuid": ("UUID", IDS),
    "hugeint_as_decimal": ("DECIMAL(38, 0)", decimals(38, 0)),
    "decimal_4_1": ("DECIMAL(4, 1)", decimals(4, 1)),
    "decimal_9_3": ("DECIMAL(9, 3)", decimals(9, 3)),
    "decimal_18_3": ("DECIMAL(18, 3)", decimals(18, 3)),
    "utinyint": ("UTINYINT", [0, None, 255]),
    "ubigint": ("UBIGINT", [0, None, 2**64 - 1]),
    "timestamp": ("TIMESTAMP", MOMENTS),
    "timestamp_s": ("TIMESTAMP_S", [dt.datetime(2021, 3, 4, 5, 6, 7), None]),
    "timestamp_ns": ("TIMESTAMP_NS", MOMENTS[:3]),
    "timestamptz": ("TIMESTAMPTZ", ZONED),
    "date": ("DATE", [dt.date(2021, 3, 4), None, dt.date(1, 1, 1)]),
    "time": ("TIME", [dt.time(5, 6, 7, 123456), None, dt.time(0)]),
    "blob": ("BLOB", [b"\x00\xff", None, b""]),
    "boolean": ("BOOLEAN", [True, None, False]),
    "json": ("JSON", ['{"a": [1, null]}', None]),
    "varchar": ("VARCHAR", ["a", None, "", "ünï ✓", LONG]),
    "double": ("DOUBLE", [0.1, None, float("inf"), float("-inf")]),
}


def duck_columns(target, book):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for kind, (sql_type, values) in DUCK.items():
        name = f"duckdb_{kind}"
        db.execute(f"CREATE OR REPLACE TABLE t (id BIGINT, v {sql_type})")
        db.executemany("INSERT INTO t VALUES (?, ?)", [[i, v] for i, v in enumerate(values, 1)])
        for version in ("V1", "V2"):
            file = f"{name}_{version.lower()}.parquet"
            db.execute(f"COPY t TO '{target / file}' (FORMAT parquet, PARQUET_VERSION {version})")
            book.column(f"{name}_{version.lower()}", file, values)


POLARS = {
    "int8": (pl.Int8, [-128, None, 127]),
    "uint32": (pl.UInt32, [0, None, 2**32 - 1]),
    "float32": (pl.Float32, [1.5, None, -0.25]),
    "boolean": (pl.Boolean, [True, None, False]),
    "string": (pl.String, ["a", None, "", "ünï ✓", LONG]),
    "categorical": (pl.Categorical, ["red", None, "green", "red"]),
    "enum": (pl.Enum(["red", "green"]), ["red", None, "green"]),
    "binary": (pl.Binary, [b"\x00\xff", None, b""]),
    "date": (pl.Date, [dt.date(2021, 3, 4), None]),
    "time": (pl.Time, [dt.time(5, 6, 7, 123456), None]),
    "datetime_ms": (pl.Datetime("ms"), MOMENTS),
    "datetime_us": (pl.Datetime("us"), MOMENTS),
    "datetime_ns": (pl.Datetime("ns"), MOMENTS[:3]),
    "datetime_us_utc": (pl.Datetime("us", "UTC"), ZONED),
    "decimal_20_4": (pl.Decimal(20, 4), decimals(20, 4)),
    "null": (pl.Null, [None, None]),
}


def polars_columns(target, book):
    for kind, (dtype, values) in POLARS.items():
        name = f"polars_{kind}"
        frame = pl.DataFrame({"id": range(1, len(values) + 1),
                              "v": pl.Series(values, dtype=dtype, strict=False)})
        frame.write_parquet(target / f"{name}.parquet")
        book.column(name, f"{name}.parquet", values)


def write(target, book):
    arrow_columns(target, book)
    arrow_specials(target, book)
    duck_columns(target, book)
    polars_columns(target, book)
