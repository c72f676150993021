"""Which cells a spreadsheet would run."""

import pytest

from iadsr.ingest.spreadsheet import harmless


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=", "+", "-", "-1e", "--1", "+1-"]
)
def test_formulas_get_an_apostrophe(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=1", "-1", "+5.5", "-1,5", "-.5", "1e5", "-1.6E+12", " =1", "'=1", "u@x.org"])
def test_others_stay(cell: str) -> None:
    assert harmless(cell) == cell
