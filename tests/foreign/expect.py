"""The list of expectations that generate.py writes as expect.json and check.py reads.

An entry: name, create (statements), query, columns ([name, kind]), rows (PostgreSQL text output or
null) and/or error ({"names": [...]}: the message must hold one of these). With both, either passes.
Everything may hold {dir}, which stands for the directory of the files.

Kinds: text (equal texts), float (equal numbers), json (equal values), timestamptz (equal instants).
"""

import json
from datetime import date, datetime, time, timezone
from decimal import Decimal


def clock(value):
    """Date and time as PostgreSQL prints them: fractions without trailing zeros."""
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
    return text.rstrip("0").rstrip(".") if "." in text else text


def element(value):
    """One element inside an array literal."""
    text = as_text(value)
    if text is None:
        return "NULL"
    if text == "" or text.upper() == "NULL" or set(text) & set('{}",\\ \t\n'):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def as_json(value):
    """Values that JSON has no word for become their PostgreSQL text."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_json(v) for v in value]
    plain = value is None or isinstance(value, (bool, int, float, str))
    return value if plain else as_text(value)


def as_text(value):
    """A Python value as PostgreSQL's text output has it; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime) and value.tzinfo:
        return clock(value.astimezone(timezone.utc).replace(tzinfo=None)) + "+00"
    if isinstance(value, (datetime, time)):
        return clock(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if has_dict(value):
        return json.dumps(as_json(value))
    if isinstance(value, list):
        return "{" + ",".join(map(element, value)) + "}"
    return str(value)


def has_dict(value):
    return isinstance(value, dict) or isinstance(value, list) and any(map(has_dict, value))


def kind_of(values):
    """The comparison that a column of such values wants."""
    for value in values:
        if isinstance(value, float):
            return "float"
        if has_dict(value):
            return "json"
        if isinstance(value, datetime) and value.tzinfo:
            return "timestamptz"
    return "text"


def shown(value, kind):
    """A value as its column shows it: an empty list of structs is empty JSON, not an array."""
    return json.dumps(as_json(value)) if kind == "json" and value == [] else as_text(value)


def create(table, path, schema="", partitioned=""):
    parts = ["CREATE EXTERNAL TABLE", table, schema, "STORED AS PARQUET"]
    if partitioned:
        parts.append(f"PARTITIONED BY ({partitioned})")
    return " ".join(part for part in [*parts, f"LOCATION '{{dir}}/{path}'"] if part)


class Book:
    """Collects the entries; every method adds one."""

    def __init__(self):
        self.entries = []

    def rows(self, name, creates, query, columns, rows, names=None):
        """The query gives these rows (lists of Python values), in this order."""
        by_column = list(zip(*rows)) or [[] for _ in columns]
        kinds = [kind_of(values) for values in by_column]
        entry = {
            "name": name,
            "create": creates if isinstance(creates, list) else [creates],
            "query": query,
            "columns": [[c, kind] for c, kind in zip(columns, kinds)],
            "rows": [[shown(value, kind) for value, kind in zip(row, kinds)] for row in rows],
        }
        if names:
            entry["error"] = {"names": names}
        self.entries.append(entry)

    def column(self, name, path, values):
        """A file of (id, v) with these values, ids from 1: read whole, then counted."""
        made = create(name, path)
        rows = [[i, v] for i, v in enumerate(values, 1)]
        self.rows(name, made, f"SELECT id, v FROM {name} ORDER BY id", ["id", "v"], rows)
        known = [v for v in values if v is not None]
        self.rows(f"{name} counts", made, f"SELECT count(*), count(v) FROM {name} WHERE id > 0",
                  ["count", "count"], [[len(values), len(known)]])

    def extremes(self, name, path, values):
        """min and max, which an engine may answer from the statistics in the footer."""
        known = [v for v in values if v is not None]
        self.rows(f"{name} extremes", create(name, path), f"SELECT min(v), max(v) FROM {name}",
                  ["min", "max"], [[min(known), max(known)]])

    def error(self, name, creates, query, names):
        """CREATE or the query fails with a message holding one of the names."""
        creates = creates if isinstance(creates, list) else [creates]
        self.entries.append({"name": name, "create": creates, "query": query,
                             "error": {"names": names}})

    def write(self, path):
        path.write_text(json.dumps(self.entries, indent=1, ensure_ascii=False) + "\n")
