"""Makes tables with pyiceberg, has a daemon take them over, and compares what both read, before and
after the daemon has written to them."""

import datetime as dt
import decimal
import glob
import json
import os
import re
import sys
import uuid

import psycopg
import psycopg.sql
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import write_file
from pyiceberg.partitioning import PartitionField, PartitionFieldValue, PartitionKey, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, WriteTask
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    IdentityTransform,
    TruncateTransform,
)
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from pyiceberg.utils.datetime import datetime_to_micros

host, port, directory = sys.argv[1:]
oribi = psycopg.connect(f"host={host} port={port} user=oribi dbname=oribi", autocommit=True)
theirs = SqlCatalog("theirs", uri=f"sqlite:///{directory}/catalog.db", warehouse=f"file://{directory}/w")
theirs.create_namespace("n")
UTC = dt.timezone.utc


def column(id, name, kind, required=False):
    return NestedField(id, name, kind, required=required)


def plain(value):
    """Values in one form, whichever of the two reads them."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        # Maps come as pairs.
        if value and all(isinstance(inner, tuple) for inner in value):
            return {str(key): plain(inner) for key, inner in value}
        return [plain(inner) for inner in value]
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    if isinstance(value, uuid.UUID):
        return value.bytes
    return value


def rows(found):
    return sorted(repr([plain(value) for value in row]) for row in found)


def read(table, clause=""):
    return rows(oribi.execute(f"SELECT * FROM {table}{clause}").fetchall())


def other(table, **scan):
    return rows(list(row.values()) for row in table.scan(**scan).to_arrow().to_pylist())


def agree(name, table):
    """All snapshots of a table that both know."""
    assert read(name) == other(table), f"{name}:\n{read(name)}\n{other(table)}"
    for snapshot in table.metadata.snapshots:
        ours = read(name, f" FOR SYSTEM_VERSION AS OF {snapshot.snapshot_id}")
        then = other(table, snapshot_id=snapshot.snapshot_id)
        assert ours == then, f"{name} at {snapshot.snapshot_id}:\n{ours}\n{then}"


def current(name):
    """The table as the daemon has it now, for pyiceberg."""
    location = oribi.execute(
        "SELECT metadata_location FROM system.tables WHERE name = %s", [name]
    ).fetchone()[0]
    return StaticTable.from_metadata(location)


def adopt(name, location):
    oribi.execute(psycopg.sql.SQL("CALL oribi.adopt({}, {})").format(name, location))


def refused(state, words, call, *arguments):
    try:
        call(*arguments)
    except psycopg.Error as error:
        assert error.sqlstate == state, error
        assert re.search(words, str(error)), error
        return
    raise AssertionError(f"{arguments} was not refused")


def files(location):
    return set(glob.glob(f"{location.removeprefix('file://')}/**/*", recursive=True))


# All types, several snapshots.
kinds = Schema(
    column(1, "i", IntegerType(), required=True),
    column(2, "l", LongType()),
    column(3, "f", FloatType()),
    column(4, "d", DoubleType()),
    column(5, "n", DecimalType(20, 4)),
    column(6, "small", DecimalType(7, 2)),
    column(7, "x", BooleanType()),
    column(8, "s", StringType()),
    column(9, "b", BinaryType()),
    column(10, "fix", FixedType(3)),
    column(11, "u", UUIDType()),
    column(12, "day", DateType()),
    column(13, "t", TimeType()),
    column(14, "ts", TimestampType()),
    column(15, "tz", TimestamptzType()),
    column(16, "list", ListType(17, StringType(), element_required=False)),
    column(18, "map", MapType(19, StringType(), 20, IntegerType(), value_required=False)),
    column(21, "rec", StructType(column(22, "a", IntegerType()), column(23, "b", StringType()))),
)
table = theirs.create_table("n.kinds", kinds)


def kinds_row(i):
    if i % 5 == 4:
        return {field.name: i if field.name == "i" else None for field in kinds.fields}
    return {
        "i": i,
        "l": i * 10**12,
        "f": i / 2,
        "d": -i / 3,
        "n": decimal.Decimal(i) / 4,
        "small": decimal.Decimal(i) / 100,
        "x": i % 2 == 0,
        "s": f"ö {i}",
        "b": bytes([i]),
        "fix": bytes([i, 0, 255]),
        "u": uuid.UUID(int=i).bytes,
        "day": dt.date(1969, 12, 30) + dt.timedelta(i),
        "t": dt.time(i, 1, 2, 3),
        "ts": dt.datetime(1969, 12, 31, 23, 59, 59, 5) + dt.timedelta(hours=i),
        "tz": dt.datetime(2026, 1, 1, i, tzinfo=UTC),
        "list": ["a", None, str(i)],
        "map": {"k": i, "none": None},
        "rec": {"a": i, "b": None},
    }


arrow = table.schema().as_arrow()
table.append(pa.Table.from_pylist([kinds_row(i) for i in range(7)], schema=arrow))
table.append(pa.Table.from_pylist([kinds_row(i) for i in range(7, 12)], schema=arrow))
table.delete("i = 3")
adopt("kinds", table.metadata_location)
agree("kinds", table)
assert oribi.execute("SELECT i FROM kinds WHERE s = 'ö 8' AND u IS NOT NULL").fetchall() == [(8,)]

# Then this daemon writes, and pyiceberg reads what came of it, the old snapshots included.
known = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
oribi.execute("INSERT INTO kinds SELECT * FROM kinds WHERE i = 1")
oribi.execute("UPDATE kinds SET s = 'changed', n = n + 1 WHERE i = 8")
oribi.execute("DELETE FROM kinds WHERE i = 10")
now = current("kinds")
assert known < {snapshot.snapshot_id for snapshot in now.metadata.snapshots}
agree("kinds", now)
assert str(now.metadata.table_uuid) == str(table.metadata.table_uuid)

# Partitions of each kind.
parts = Schema(
    column(1, "id", LongType()),
    column(2, "at", TimestamptzType()),
    column(3, "s", StringType()),
    column(4, "d", DateType()),
    column(5, "region", StringType()),
)
spec = PartitionSpec(
    PartitionField(5, 1000, IdentityTransform(), "region"),
    PartitionField(2, 1001, DayTransform(), "at_day"),
    PartitionField(1, 1002, BucketTransform(4), "id_bucket"),
    PartitionField(3, 1003, TruncateTransform(2), "s_trunc"),
)
order = SortOrder(SortField(1, transform=IdentityTransform()))
table = theirs.create_table("n.parts", parts, partition_spec=spec, sort_order=order)


def parts_row(i):
    return {
        "id": i,
        "at": dt.datetime(2026, 1, 1 + i % 3, 23, tzinfo=UTC),
        "s": f"st/ %{i % 4}",
        "d": dt.date(2026, 1 + i % 2, 1),
        "region": None if i % 5 == 0 else "nord" if i % 2 else "süd",
    }


def append_partitioned(all_rows):
    """What append() does, which needs another package for these transforms: a file a partition."""
    groups = {}
    for row in all_rows:
        values = []
        for field in spec.fields:
            source = parts.find_field(field.source_id)
            value = row[source.name]
            if isinstance(value, dt.datetime):
                value = datetime_to_micros(value)
            transform = field.transform.transform(source.field_type)
            values.append(PartitionFieldValue(field, transform(value)))
        key = PartitionKey(values, spec, parts)
        groups.setdefault(repr(key.partition), (key, []))[1].append(row)
    tasks = [
        WriteTask(
            write_uuid=uuid.uuid4(),
            task_id=at,
            record_batches=pa.Table.from_pylist(group, schema=parts.as_arrow()).to_batches(),
            schema=parts,
            partition_key=key,
        )
        for at, (key, group) in enumerate(groups.values())
    ]
    with table.transaction() as transaction:
        with transaction.update_snapshot().fast_append() as append:
            for file in write_file(table.io, table.metadata, iter(tasks)):
                append.append_data_file(file)
    return len(groups)


partitions = append_partitioned([parts_row(i) for i in range(20)])
assert partitions > 10
append_partitioned([parts_row(i) for i in range(20, 30)])
adopt("parts", table.metadata_location)
agree("parts", table)
for where in ["region = 'nord'", "at < '2026-01-02'", "id = 7", "s = 'st/ %1'", "region IS NULL"]:
    ours = oribi.execute(f"SELECT count(*) FROM parts WHERE {where}").fetchone()[0]
    whole = oribi.execute(f"SELECT count(*) FILTER (WHERE {where}) FROM parts").fetchone()[0]
    assert ours == whole > 0, where
oribi.execute("INSERT INTO parts VALUES (100, '2026-03-01 12:00+00', 'new', '2026-03-01', 'ost')")
oribi.execute("DELETE FROM parts WHERE region = 'süd' AND id < 10")
agree("parts", current("parts"))
assert other(current("parts"), row_filter="region = 'ost'") != []
created = oribi.execute("SHOW CREATE TABLE parts").fetchone()[0]
clause = 'PARTITIONED BY ("region", day("at"), bucket(4, "id"), truncate(2, "s"))'
assert clause in created, created

# The statement makes the same table again.
oribi.execute("CREATE SCHEMA again")
oribi.execute(created.replace('"public"', '"again"'))
assert oribi.execute("SHOW CREATE TABLE again.parts").fetchone()[0] == created.replace('"public"', '"again"')
oribi.execute("INSERT INTO again.parts SELECT * FROM parts")
assert read("again.parts") == read("parts")
oribi.execute("DROP TABLE again.parts PURGE")
os.makedirs(f"{directory}/hive/region=nord/at day=1")
with open(f"{directory}/hive/region=nord/at day=1/x.csv", "w") as file:
    file.write("a,b\n1,it's\n")
oribi.execute(
    f"""CREATE EXTERNAL TABLE "a file" STORED AS CSV PARTITIONED BY (region, "at day")
    LOCATION '{directory}/hive/' OPTIONS ('has_header' 'true')"""
)
created = oribi.execute('SHOW CREATE TABLE "a file"').fetchone()[0]
oribi.execute(created.replace('"a file"', '"b file"'))
assert oribi.execute('SHOW CREATE TABLE "b file"').fetchone()[0] == created.replace("a file", "b file")
assert read('"b file"') == read('"a file"') != []
oribi.execute("CREATE VIEW \"a view\" WITH (security_barrier = true) AS SELECT id, s AS \"S\" FROM parts")
created = oribi.execute('SHOW CREATE VIEW "a view"').fetchone()[0]
oribi.execute(created.replace('"a view"', '"b view"'))
assert oribi.execute('SHOW CREATE VIEW "b view"').fetchone()[0] == created.replace("a view", "b view")

# Columns and partitions that have changed.
table = theirs.create_table(
    "n.evolved",
    Schema(
        column(1, "a", IntegerType()),
        column(2, "b", StringType()),
        column(3, "gone", StringType()),
        column(4, "f", FloatType()),
        column(5, "n", DecimalType(5, 1)),
        column(6, "day", DateType()),
    ),
    partition_spec=PartitionSpec(PartitionField(6, 1000, IdentityTransform(), "day")),
)


def evolved_rows(**columns):
    return pa.Table.from_pylist([columns], schema=table.schema().as_arrow())


day = dt.date(2026, 5, 6)
table.append(evolved_rows(a=1, b="b", gone="g", f=1.5, n=decimal.Decimal("1.5"), day=day))
with table.update_schema() as update:
    update.rename_column("b", "a2")
    update.delete_column("gone")
    update.update_column("a", LongType())
    update.update_column("f", DoubleType())
    update.update_column("n", DecimalType(20, 1))
    update.add_column("later", StringType())
    update.move_first("later")
with table.update_spec() as update:
    update.remove_field("day")
    update.add_field("a", IdentityTransform(), "a")
table.append(evolved_rows(later="l", a=2**40, a2="b2", f=1e300, n=decimal.Decimal(10**18), day=day))
with table.update_schema() as update:
    update.add_column("gone", IntegerType())
table.append(evolved_rows(later="m", a=3, a2=None, f=None, n=None, day=None, gone=7))
adopt("evolved", table.metadata_location)
agree("evolved", table)
oribi.execute("INSERT INTO evolved (a, a2) VALUES (4, 'new')")
oribi.execute("UPDATE evolved SET later = 'x' WHERE a = 1")
oribi.execute("ALTER TABLE evolved RENAME COLUMN a2 TO a3")
agree("evolved", current("evolved"))
assert oribi.execute('SELECT count(*) FROM "evolved$partitions"').fetchone()[0] >= 3

# Version 1 becomes version 2 when it is written.
table = theirs.create_table(
    "n.old", Schema(column(1, "a", IntegerType())), properties={"format-version": "1"}
)
table.append(pa.table({"a": pa.array([1, 2], pa.int32())}))
table.append(pa.table({"a": pa.array([3], pa.int32())}))
assert table.metadata.format_version == 1
before = files(table.location())
adopt("old", table.metadata_location)
agree("old", table)
oribi.execute("INSERT INTO old VALUES (4)")
oribi.execute("DELETE FROM old WHERE a = 2")
now = current("old")
assert now.metadata.format_version == 2
assert other(now) == rows([[1], [3], [4]])
assert read("old") == other(now)
first = table.metadata.snapshots[0].snapshot_id
assert read("old", f" FOR VERSION AS OF {first}") == rows([[1], [2]])

# A table is taken over once, whatever it is called.
refused("42710", "in the catalog already as table oribi.public.old", adopt, "again", table.metadata_location)
refused("42P07", "already exists", adopt, "old", table.metadata_location)
theirs_too = theirs.create_table("n.twin", Schema(column(1, "a", IntegerType())), location=table.location())
refused("42710", "location is already that of", adopt, "twin", theirs_too.metadata_location)

# Nothing that was there before ever goes.
oribi.execute("ALTER TABLE old SET TBLPROPERTIES ('write.metadata.previous-versions-max' = '1')")
oribi.execute("ALTER TABLE old SET TBLPROPERTIES ('write.metadata.delete-after-commit.enabled' = 'true')")
for i in range(5):
    oribi.execute(f"UPDATE old SET a = a + 1 WHERE a = {10 + i} OR a = 4")
    oribi.execute("DELETE FROM old WHERE a > 4")
    oribi.execute(f"INSERT INTO old VALUES ({10 + i})")
oribi.execute("OPTIMIZE old")
between = files(table.location())
oribi.execute("VACUUM old RETAIN '0 s'")
assert oribi.execute('SELECT count(*) FROM "old$snapshots"').fetchone()[0] == 1
after = files(table.location())
assert before <= after, before - after
assert between - after, "what this daemon itself has written goes"
agree("old", current("old"))
assert other(StaticTable.from_metadata(table.metadata_location)) == rows([[1], [2], [3]])
refused("0A000", "PURGE of the adopted table", oribi.execute, "DROP TABLE old PURGE")
oribi.execute("DROP TABLE old")
assert files(table.location()) == after
location = current("parts").metadata_location
oribi.execute("DROP TABLE parts")
adopt("parts_again", location)
agree("parts_again", current("parts_again"))

# What would not be read right is refused.
table = theirs.create_table(
    "n.mapped",
    Schema(column(1, "a", IntegerType())),
    properties={"schema.name-mapping.default": json.dumps([{"field-id": 1, "names": ["a"]}])},
)
refused("0A000", "schema.name-mapping.default", adopt, "no", table.metadata_location)
table = theirs.create_table(
    "n.elsewhere",
    Schema(column(1, "a", IntegerType())),
    properties={"write.data.path": f"file://{directory}/elsewhere"},
)
refused("0A000", "write.data.path", adopt, "no", table.metadata_location)
table = theirs.create_table(
    "n.inner", Schema(column(1, "r", StructType(column(2, "a", IntegerType()))))
)
table.append(pa.Table.from_pylist([{"r": {"a": 1}}], schema=table.schema().as_arrow()))
with table.update_schema() as update:
    update.rename_column("r.a", "b")
refused("0A000", "inner columns have changed", adopt, "no", table.metadata_location)


def changed(table, name, change):
    """A copy of a table's metadata with something else in it."""
    path = table.metadata_location.removeprefix("file://")
    with open(path) as file:
        metadata = json.load(file)
    change(metadata)
    path = os.path.join(os.path.dirname(path), f"{name}.metadata.json")
    with open(path, "w") as file:
        json.dump(metadata, file)
    return path


table = theirs.create_table("n.other", Schema(column(1, "a", IntegerType())))
table.append(pa.table({"a": pa.array([1], pa.int32())}))
third = changed(table, "third", lambda metadata: metadata.update({"format-version": 3}))
refused("0A000", "format version 3", adopt, "no", third)
apart = changed(table, "apart", lambda metadata: metadata.update({"location": "s3://other/place"}))
refused("0A000", "files elsewhere", adopt, "no", apart)
broken = changed(table, "broken", lambda metadata: metadata.pop("schemas"))
refused("XX001", "damaged", adopt, "no", broken)
refused("58P01", "does not exist", adopt, "no", f"{directory}/nothing.metadata.json")

# A table of the daemon's own, with a file of it in another table.
oribi.execute("CREATE TABLE own AS SELECT 1 AS a")
own = current("own")
within = changed(
    table,
    "within",
    lambda metadata: metadata.update({"location": own.metadata.location, "table-uuid": str(uuid.uuid4())}),
)
refused("42710", "location is already that of|in the directory of", adopt, "no", within)
below = changed(
    table,
    "below",
    lambda metadata: metadata.update(
        {"location": own.metadata.location + "/deep", "table-uuid": str(uuid.uuid4())}
    ),
)
refused("42710", "has files in the directory of", adopt, "no", below)
taken = oribi.execute(
    "SELECT count(*) FROM system.tables WHERE name = 'no'"
).fetchone()[0]
assert taken == 0
print("adopted tables agree")
