"""What a file is by its first bytes, whatever its name says: one clear sentence for all that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

from iadsr.errors import UserError

HEAD = 1 << 20  # bytes that are looked at
PARQUET = b"PAR1"
UNPACK = "unpack it first"
SAVE_AS_CSV = "save the table in it as CSV (UTF-8)"
# The first bytes, what such a file is, and what to do; an earlier entry goes before a later one.
KNOWN = (
    (b"\x1f\x8b", "compressed by gzip", UNPACK),
    (b"BZh", "compressed by bzip2", UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", UNPACK),
    (b"\x1f\x9d", "compressed by compress", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a rar archive", UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", SAVE_AS_CSV),
    (PARQUET, "a Parquet file", "let its name end in .parquet"),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet or CSV"),
    (b"ORC", "an ORC file", "write it as Parquet or CSV"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or CSV"),
    (b"SQLite format 3\0", "an SQLite database", "export its table as CSV"),
    (b"\x89HDF\r\n", "an HDF5 file", "write it as Parquet or CSV"),
    (b"\x93NUMPY", "a numpy file", "write it as Parquet or CSV"),
    (b"%PDF", "a PDF document", "take the table itself, as CSV or Parquet"),
    (b"\xff\xfe\0\0", "text in UTF-32", "save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32", "save it as UTF-8"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)
WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")
LOCAL_FILE = (b"PK\3\4", b"PK\5\6")  # of a zip archive, the second of an empty one
MANY = 0.02  # the share of bytes that text hardly has, above which a file is none


def head_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def refuse_no_csv(name: str, head: bytes) -> None:
    """UserError unless these first bytes may be those of a CSV in UTF-8 with lines as we can read them."""
    found = _other_than_text(head) or _odd_lines(head)
    if found:
        what, remedy = found
        raise UserError(f"{name}: the file is {what}, expected CSV; {remedy}")


def refuse_no_parquet(name: str, head: bytes) -> None:
    """UserError unless these first bytes are those of Parquet."""
    if head.startswith(PARQUET):
        return
    text = ("text", "if it is CSV, let its name end in .csv")
    what, remedy = _other_than_text(head) or text
    raise UserError(f"{name}: the file is {what}, expected Parquet; {remedy}")


def _other_than_text(head: bytes) -> tuple[str, str] | None:
    """What it is and what to do; None for text in UTF-8, or nearly."""
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        return "empty", "write or copy it again"
    for start, what, remedy in KNOWN:
        if head.startswith(start):
            return what, remedy
    if head.startswith(LOCAL_FILE):
        return _archive(head)
    if head[257:262] == b"ustar":
        return "a tar archive", UNPACK
    if WEB_PAGE.match(head):
        return "a web page or XML", "download the table itself"
    return _binary(head)


def _archive(head: bytes) -> tuple[str, str]:
    if any(sign in head for sign in (b"[Content_Types].xml", b"xl/", b"opendocument.spreadsheet")):
        return "a spreadsheet (xlsx or ods)", SAVE_AS_CSV
    return "a zip archive", UNPACK


def _binary(head: bytes) -> tuple[str, str] | None:
    few, many = sorted(half.count(0) for half in (head[::2], head[1::2]))
    if many > 0.3 * len(head) / 2 and few < MANY * len(head) and head.rstrip(b"\0").count(0):
        return "text in UTF-16", "save it as UTF-8"
    broken = head.decode("utf-8", "replace").count("\ufffd")
    if 0 in head:
        row = head[: head.index(0)].count(b"\n") + 1
        return f"binary or damaged (NUL bytes in row {row})", "write or copy it again, as text in UTF-8"
    if len(CONTROL.findall(head)) > MANY * len(head) or broken > 10 * MANY * len(head):
        return "binary, not text", "take the table itself, as CSV or Parquet"
    return None


def _odd_lines(head: bytes) -> tuple[str, str] | None:
    if b"\n" in head:
        return None
    if b"\r" in head:
        return "text whose lines end in CR alone", "save it with line ends LF or CRLF"
    if len(head) == HEAD:
        return f"text without a line end in its first {HEAD:,} bytes", "write one row a line"
    return None
