"""The document and the page: from results alone, whole, and as a browser shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import needs_browser, opened
from typer.testing import CliRunner

from study.__main__ import DOCUMENT, app
from study.cells import Cell, cells_of, of_kind, read_declared
from study.page import document, page, parts_of
from study.results import LINES, read_results


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_committed_document_is_what_the_committed_results_give() -> None:
    assert "as the results" in run("check")


def test_every_number_of_a_table_is_in_the_results() -> None:
    """Of each row: the table has the mean HR@10 U of the cells that its group, row and seeds name, or of some with
    equal parameters."""
    text = DOCUMENT.read_text(encoding="utf-8")
    results, checked = read_results(LINES), 0
    cells = {cell.name: cell for cell in of_kind(Cell, cells_of(read_declared()))}
    for section in text.split("\n## ")[2:]:
        group = section.partition("\n")[0]
        found = re.findall(r"^\| (\S+), (\S+), (\S+) \| (\d(?:, \d)*)(?: ‡)? \| (\.\d{4})", section, re.MULTILINE)
        for dataset, backbone, method, seeds, shown in found:
            own = [cells[f"{group}/{dataset}/{backbone}/{method}/{seed}"] for seed in seeds.split(", ")]
            lines = [line for cell in own if (line := results.line_of(cell))]
            assert len(lines) == len(own)
            mean = sum(line["metrics"]["test_hr_10_unfiltered"] for line in lines) / len(lines)
            assert abs(mean - float(shown)) < 0.5001e-4
            checked += 1
    assert checked > 20


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    declared, nothing = read_declared(), read_results(tmp_path / "none.jsonl")
    text = document(declared, nothing)
    assert text.count("Not run yet.") == len(parts_of(declared, nothing)) == text.count("\n## ") - 1


def test_a_changed_document_and_a_line_of_no_table_are_found(tmp_path: Path) -> None:
    place = tmp_path / "study.md"
    place.write_text(DOCUMENT.read_text(encoding="utf-8").replace(".8", ".9", 1), encoding="utf-8")
    result = CliRunner().invoke(app, ["check", "--markdown", str(place)])
    assert result.exit_code == 1 and "not what" in result.stderr
    lines = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    lines[0]["params"]["train.dim" if "train.dim" in lines[0]["params"] else "theta"] = -0.123
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = CliRunner().invoke(app, ["check", "--results", str(tmp_path / "some.jsonl")])
    assert result.exit_code == 1 and lines[0]["cell"] in result.stderr


def test_the_page_has_the_document_and_the_cells_behind_it() -> None:
    declared, found = read_declared(), read_results(LINES)
    html = page(document(declared, found), declared, found)
    assert all(f"<h2>{part.name}</h2>" in html for part in parts_of(declared, found))
    assert all(f"<td>{name}</td>" in html for name in found.lines)
    assert not re.findall(r"""(?:src|href|srcset)=["'](?!data:)""", html) and "url(" not in html


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_and_sorts_its_tables(dark: bool, tmp_path: Path) -> None:
    """By seconds, up: the first table of cells ends with its slowest."""
    html = page(DOCUMENT.read_text(encoding="utf-8"), read_declared(), read_results(LINES))
    then = """
      const table = document.querySelector("details table"), head = table.querySelectorAll("th")[3];
      head.click();
      const rows = [...table.tBodies[0].rows].map(row => parseFloat(row.cells[3].textContent)).filter(x => !isNaN(x));
      document.body.dataset.sorted = rows.length > 2 && rows.every((x, i) => !i || rows[i - 1] <= x);
    """
    assert 'data-sorted="true"' in opened(html, tmp_path, dark, then)
