"""The records of a CSV, counted from its bytes."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadsr.ingest import csv_lines
from iadsr.ingest.csv_lines import Lines, count_lines


def lines(path: Path, text: str, block: int, monkeypatch: pytest.MonkeyPatch) -> Lines:
    monkeypatch.setattr(csv_lines, "BLOCK", block)
    path.write_bytes(text.encode())
    return count_lines(path, ",")


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Lines(0)),
        ("a,b\n1,2", Lines(2)),
        ("a,b\r\n1,2\r\n\r\n", Lines(3)),
        ('\ufeff"a",b\n"1\n\n""\n","\r"\n', Lines(2)),
        ('a,b\n1,"2\n3,4\n', Lines(1, unclosed=2)),
        ("a,b\n1,2\r3,4\n", Lines(2, lone=2)),
        ('a,b\n"\n",2\r', Lines(2, lone=3)),
    ],
)
def test_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: Lines, block: int) -> None:
    """Wherever a block ends; the line of what is wrong counts those inside of quotation marks, too."""
    assert lines(tmp_path / "a.csv", text, block, monkeypatch) == expected


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "stray"),
    [
        ('a,3" b\n1,2\n', 1),
        ('a,b\n1,"\n\nx"y\n', 2),
        ('a,b\n1,"2" \n', 2),
        ('a,b\n1, "2"\n', 2),
        ('a,b\n1,"2\n3,"4"\n', 2),
    ],
)
def test_stray_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, stray: int, block: int) -> None:
    """The line of a mark inside a field, or of the one before it that what follows should have closed."""
    assert lines(tmp_path / "a.csv", text, block, monkeypatch).stray == stray


@given(st.lists(st.lists(st.text('a,"\n\r', max_size=4), min_size=2, max_size=3), max_size=6), st.integers(1, 9))
def test_what_is_written_as_csv_has_no_wrongs(tmp_path_factory: pytest.TempPathFactory, rows: list, block: int) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    with pytest.MonkeyPatch.context() as patch:
        found = lines(tmp_path_factory.getbasetemp() / "a.csv", text.getvalue(), block, patch)
    assert found == Lines(len(rows))
