"""A user's CSV, its fields separated by whatever its header shows, read by polars and, where that fails, looked into.

All columns are text. Python's csv module, slower by far, says what polars could not read, and what stands in bad rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import polars as pl

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.columns import IDS, Table, Wanted, found_columns, ratings, shown, truths
from iadsr.ingest.csv_lines import Lines, count_lines
from iadsr.ingest.rejects import Faults, Place
from iadsr.ingest.sniffing import head_of, refuse_no_csv

AUTO = "auto"
COMMA = ","
SEPARATORS = (COMMA, ";", "\t", "|")
LOOKED_AT = 10  # rows
# A column beside the user's, none of which has such a name: does anything at all stand in a row?
FILLED = "\0filled"
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


class Csv(NamedTuple):
    """A file, as messages name it, what separates its fields, and what its bytes tell of its lines."""

    name: str
    separator: str
    lines: Lines

    @property
    def path(self) -> Path:
        return Path(self.name).absolute()  # which polars takes neither for an address nor for a home folder


class Record(NamedTuple):
    """A row of a CSV: the number of the line on which it begins, its fields, and its text as it stands."""

    line: int
    fields: list[str]
    text: str


def read_csv(name: str, wanted: Wanted, separator: str) -> Table:
    """The mapped columns; empty lines at the end are no rows. UserError if it cannot be read."""
    head = head_of(Path(name))
    refuse_no_csv(name, head)
    _refuse_no_header(name, head)
    file = _opened(name, separator_of(name, wanted, separator))
    columns = found_columns(name, _header(head, file.separator), wanted, _told(file.separator, separator))
    _refuse_two_separators(file, head)
    table, faults = _read(file, columns)
    last = max([*table[FILLED].arg_true().tail(1), *faults.found()["row"].tail(1)], default=-1)
    table = table.drop(FILLED).head(last + 1)
    told = separator == AUTO and file.separator != COMMA
    notes = [f"{name}: fields are separated by {file.separator!r}"] if told else []
    mapped = {ours: wanted.columns[ours] for ours in columns}
    comma = file.separator != COMMA
    typed, show = _typed(table, comma), partial(places, file)
    return Table(name, typed, mapped, show, faults, notes, comma, separator=file.separator)


def _opened(name: str, separator: str) -> Csv:
    """UserError for a line end in CR alone, which programs take for the end of a row or not."""
    lines = count_lines(Path(name), separator)
    if lines.lone and not lines.stray:
        raise UserError(
            f"{name}, row {lines.lone}: a CR without its LF, where other lines end in LF; save the file with line ends "
            "LF or CRLF throughout"
        )
    return Csv(name, separator, lines)


def _typed(table: pl.DataFrame, decimal_comma: bool) -> pl.DataFrame:
    if schemas.RATING in table.columns:
        table = table.with_columns(ratings(table[schemas.RATING], decimal_comma))
    if schemas.IS_NOISE in table.columns:
        table = table.with_columns(truths(table[schemas.IS_NOISE]))
    return table


def _refuse_no_header(name: str, head: bytes) -> None:
    first = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].strip().decode("utf-8", "replace")
    if not first:
        raise UserError(f"{name}, row 1: empty, expected the names of the columns; remove empty lines at the top")
    if first.lower().strip('"').startswith("sep="):
        raise UserError(f"{name}, row 1: {first[:20]!r}, expected the names of the columns; remove this line")


def _header(head: bytes, separator: str) -> list[str]:
    try:
        return next(_fields_of(head, separator), [])
    except csv.Error:
        return []


def _fields(head: bytes, separator: str) -> list[list[str]]:
    """The records in these bytes that are not empty, the header first."""
    try:
        return [record for record in _fields_of(head, separator) if record] or [[]]
    except csv.Error:
        return [[]]


def _fields_of(head: bytes, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(head.decode("utf-8-sig", "replace"), newline=""), delimiter=separator)


def _separator(head: bytes, wanted: Wanted) -> str:
    """What makes the header hold all columns that must be there, or, if nothing does, most of them."""

    def fit(separator: str) -> tuple[int, int]:
        names = [name.strip() for name in _header(head, separator)]
        return len(set(wanted.required) & set(names)), len(names)

    whole = len(set(wanted.required))
    return next((each for each in SEPARATORS if fit(each)[0] == whole), max(SEPARATORS, key=fit))


def separator_of(name: str, wanted: Wanted, separator: str) -> str:
    """What separates the fields of a file: as stated, or what its header shows."""
    return _separator(head_of(Path(name)), wanted) if separator == AUTO else separator


def _told(found: str, stated: str) -> str:
    return "" if stated == AUTO else f" (fields are separated by {found!r}, as `separator` beside `columns` states)"


def _refuse_two_separators(file: Csv, head: bytes) -> None:
    """UserError where each of the first rows is one field, and by another separator has those of the header."""
    first = b"".join(head.splitlines(keepends=True)[: LOOKED_AT + 1])
    names, *rows = _fields(first, file.separator)
    if len(names) < 2 or not rows or any(len(row) != 1 for row in rows):
        return
    for other in SEPARATORS:
        if all(len(row) == len(names) for row in _fields(first, other)[1:]):
            raise UserError(
                f"{file.name}, row 2: fields are separated by {other!r}, but by {file.separator!r} in the header; "
                "write the header as the rows"
            )


def _read(file: Csv, columns: dict[str, int]) -> tuple[pl.DataFrame, Faults]:
    """The columns, FILLED, and, where rows have too many fields, these as faults.

    UserError where polars cannot read the file, or finds other rows in it than its bytes or Python's csv module do.
    """
    faults = Faults()
    try:
        table = _scan(file, columns)
        if _confirmed(file, table, columns):
            return table, faults
    except POLARS_ERRORS:
        try:
            table = _scan(file, columns, ragged=True)
            surplus = _surplus(file)
            if len(surplus) == table.height and surplus.count() and _confirmed(file, table, columns):
                faults.add(surplus.is_not_null().arg_true().to_numpy(), surplus.drop_nulls())
                return table, faults
        except (*POLARS_ERRORS, csv.Error):
            pass
    raise UserError(f"{file.name}{_broken_row(file)}")


def _confirmed(file: Csv, table: pl.DataFrame, columns: dict[str, int]) -> bool:
    """Are these the rows of the file? Its bytes tell their number, and only where they cannot, each is compared."""
    if not file.lines.stray:
        return not file.lines.unclosed and table.height == file.lines.records - 1
    found = zip_longest(islice(_records(file), 1, None), table.select(*columns).iter_rows())
    return all(record and row and _same(record.fields, row, columns.values()) for record, row in found)


def _same(fields: list[str], row: Sequence[str | None], places: Iterable[int]) -> bool:
    given = (fields[place] if place < len(fields) else "" for place in places)
    return all(one == (other or "") for one, other in zip(given, row, strict=True))


def _scan(file: Csv, columns: dict[str, int], ragged: bool = False) -> pl.DataFrame:
    """The columns, and in FILLED whether anything stands in a row at all; `ragged`: surplus fields are cut."""
    scan = pl.scan_csv(
        file.path, separator=file.separator, infer_schema=False, glob=False, truncate_ragged_lines=ragged
    )
    names = scan.collect_schema().names()
    if max(columns.values()) >= len(names):
        raise pl.exceptions.ShapeError("its header is another to polars")
    selection = [pl.col(names[place]).alias(ours) for ours, place in columns.items()]
    filled = pl.any_horizontal(pl.all().is_not_null()).alias(FILLED)
    coded = [pl.col(ours).cast(pl.Categorical) for ours in columns if ours in IDS]
    return scan.select(*selection, filled).with_columns(coded).collect(engine="streaming")


def _surplus(file: Csv) -> pl.Series:
    """For each row of a CSV how many fields it has, in words, where the header has fewer; else null."""
    counts = [len(record.fields) for record in _records(file)]
    faults = [f"{count} fields, where the header has {counts[0]}" if count > counts[0] else None for count in counts]
    return pl.Series(faults[1:], dtype=pl.String)


def _broken_row(file: Csv) -> str:
    """Where and why a CSV cannot be read, as far as we know why."""
    with open(file.path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not _is_utf8(line):
                return f", row {number}: not valid UTF-8; save the file as UTF-8"
    if file.lines.stray:
        return (
            f", row {file.lines.stray}: a quotation mark inside a field (inches?); put the whole field into quotation "
            'marks and write the one inside twice: "3"" pipe"'
        )
    if file.lines.unclosed:
        return f", row {file.lines.unclosed}: a quotation mark that is never closed; close it, or write it twice"
    names = shown(_header(head_of(file.path), file.separator))
    return f": cannot be read as CSV with the header {names}; write it again, as CSV in UTF-8 or as Parquet"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _records(file: Csv) -> Iterator[Record]:
    """All records of a CSV, header included."""
    csv.field_size_limit(1 << 30)  # the default refuses long texts, which polars has read
    taken: list[str] = []

    def lines(text: io.TextIOBase) -> Iterator[str]:
        for line in text:
            taken.append(line)
            yield line

    with open(file.path, encoding="utf-8", errors="replace", newline="") as text:
        reader = csv.reader(lines(text), delimiter=file.separator)
        start = 1
        for fields in reader:
            yield Record(start, fields, "".join(taken).rstrip("\r\n"))
            taken.clear()
            start = reader.line_num + 1


def places(file: Csv, rows: Sequence[int]) -> list[Place]:
    """Where rows (0 follows the header), which ascend, stand in the file, and their text."""
    wanted = set(rows)
    last = max(wanted, default=-1)
    try:
        records = enumerate(islice(_records(file), 1, last + 2))
        found = {row: Place(file.name, record.line, record.text) for row, record in records if row in wanted}
    except csv.Error:
        found = {}
    # should both readers ever disagree on what a record is, one line each is the best guess
    return [found.get(row, Place(file.name, row + 2, "")) for row in rows]
