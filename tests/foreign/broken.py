"""Files that must give an error naming them, and leave the daemon alive."""

import pyarrow as pa
import pyarrow.parquet as pq

from expect import create

ROWS = 20_000
QUERY = "SELECT count(*), sum(n), max(word) FROM {}"


def sound(path):
    """With compression and page checksums, so that flipped bits have nowhere to hide."""
    table = pa.table({"n": pa.array(range(ROWS), pa.int64()),
                      "word": pa.array([f"word {i}" for i in range(ROWS)], pa.string())})
    pq.write_table(table, path, compression="snappy", use_dictionary=False,
                   write_page_checksum=True)
    return path.read_bytes()


def damaged(content, path):
    """The same file with the middle of the first data page overwritten."""
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    middle = column.data_page_offset + column.total_compressed_size // 2
    flipped = bytes(b ^ 0xFF for b in content[middle:middle + 64])
    return content[:middle] + flipped + content[middle + 64:]


def footer_garbage(content):
    """The right magic around metadata that is none."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[:-8 - length] + b"\xa5" * length + content[-8:]


def write(target, book):
    whole = target / "sound.parquet"
    content = sound(whole)
    book.rows("sound", create("sound", "sound.parquet"), QUERY.format("sound"),
              ["count", "sum", "max"], [[ROWS, sum(range(ROWS)), "word 9999"]])
    bodies = {
        "truncated": content[:len(content) // 2],
        "truncated_footer": content[:-3],
        "flipped_bits": damaged(content, whole),
        "wrong_magic": b"PAR0" + content[4:-4] + b"PAR0",
        "footer_garbage": footer_garbage(content),
        "footer_length": content[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1",
        "no_parquet": b"id,n\n1,2\n3,4\n" * 100,
        "zero_bytes": b"",
    }
    for name, body in bodies.items():
        (target / f"{name}.parquet").write_bytes(body)
        book.error(name, create(name, f"{name}.parquet"), QUERY.format(name), [f"{name}.parquet"])
    book.error("missing_file", create("missing_file", "missing_file.parquet"),
               QUERY.format("missing_file"), ["missing_file.parquet"])
    book.error("missing_directory", create("missing_directory", "missing_directory/"),
               QUERY.format("missing_directory"), ["missing_directory"])
    among_sound_ones(target, book, content, bodies["truncated"])
    still_alive(target, book, content)


def among_sound_ones(target, book, content, truncated):
    """One bad file in a directory: it is the one to be named."""
    folder = target / "one_bad"
    folder.mkdir()
    for name in ("a", "c"):
        (folder / f"{name}.parquet").write_bytes(content)
    (folder / "bad.parquet").write_bytes(truncated)
    book.error("one_bad", create("one_bad", "one_bad/"), QUERY.format("one_bad"), ["bad.parquet"])


def still_alive(target, book, content):
    """After all that a sound file still answers."""
    (target / "sound_again.parquet").write_bytes(content)
    book.rows("sound_again", create("sound_again", "sound_again.parquet"),
              QUERY.format("sound_again"), ["count", "sum", "max"],
              [[ROWS, sum(range(ROWS)), "word 9999"]])
