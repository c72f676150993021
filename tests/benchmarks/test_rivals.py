"""The tables of rivals by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.testing

from benchmarks import rivals, table
from benchmarks.rivals import tables
from study.paper import read_paper


def run(denoiser: str, seed: int, hits: float, backbone: str = "sasrec", **changes: Any) -> dict[str, Any]:
    metrics = {f"test_{name}_10_{protocol}": hits for name in ("hr", "ndcg") for protocol in ("unfiltered", "filtered")}
    fields = {"dataset": "beauty", "backbone": backbone, "denoiser": denoiser, "changes": "", "seed": seed}
    fields |= {"best_epoch": 3, "epochs": 13}
    return {**fields, "metrics": {**metrics, "drop_ratio": 0.1, "drop_ratio_expected": 0.25}, **changes}


PAPER = """table,dataset,backbone,method,HR@10,NDCG@10
2,beauty,sasrec,none,0.0400,0.0200
2,beauty,sasrec,hsd,,
2,beauty,sasrec,iadsr,0.0500,0.0300
2,beauty,,steam,0.0300,0.0100
4,beauty,gru4rec,iadsr (full),0.9,0.9
"""


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    (tmp_path / "paper.csv").write_text(PAPER)
    return tmp_path / "paper.csv"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_method_beside_its_base_and_the_paper(paper: Path) -> None:
    """Bases .10 and .20; IADSR .15 and .18 is 0.33 / 0.30 = 1.10 of it; the paper's .05 / .04 = 1.25."""
    runs = [run("iadsr", 1, 0.18), run("none", 0, 0.10), run("iadsr", 0, 0.15)]
    lines = tables([*runs, run("none", 1, 0.20)], read_paper(paper))
    heading, _, titles, rule, base, own, _ = lines[:7]
    assert heading == "### beauty" and set(rule) <= set("| -") and len(cells(titles)) == len(cells(own)) == 6
    assert cells(base) == ["sasrec", "0 / 1", *[".1000 / .2000"] * 2, "", ""]
    assert cells(own) == ["sasrec, iadsr", "0 / 1", *[".1500 / .1800"] * 2, "1.10", "25.0%"]
    heading, _, _, _, base, own, _ = lines[7:]
    assert heading == "### beauty, beside the paper"
    assert cells(base) == ["sasrec", ".1500", "", ".0400", ""]
    assert cells(own) == ["sasrec, iadsr", ".1650", "1.10", ".0500", "1.25"]


def test_only_the_base_s_same_seeds_count() -> None:
    """Seed 1 of the method over seed 1 of the base: .1 / .2."""
    lines = tables([run("none", 0, 0.1), run("none", 1, 0.2), run("hsd", 1, 0.1)], {})
    assert cells(lines[5])[4] == "0.50"


def test_what_stands_alone_is_beside_sasrec(paper: Path) -> None:
    """.15 / .10 here, .03 / .04 in the paper."""
    lines = tables([run("steam", 0, 0.15, "none"), run("none", 0, 0.10)], read_paper(paper))
    own, beside = (cells(line) for line in lines if "steam" in line)
    assert (own[0], own[4]) == ("steam", "1.50") and beside == ["steam", ".1500", "1.50", ".0300", "0.75"]


def test_what_the_print_lacks_has_no_row_beside_it(paper: Path) -> None:
    """Nor has a setting that the paper does not have."""
    lines = tables([run("hsd", 0, 0.1), run("iadsr", 0, 0.1, changes="masks user")], read_paper(paper))
    assert [cells(line)[0] for line in lines[4:6]] == ["sasrec, iadsr, masks user", "sasrec, hsd"] and len(lines) == 7


def test_the_committed_tables_of_the_paper() -> None:
    """SASRec of Beauty in Table 2: .0385; IADSR .0538."""
    found = read_paper()
    assert [found["beauty", "sasrec", method]["HR@10"] for method in ("none", "iadsr")] == ["0.0385", "0.0538"]


@pytest.mark.parametrize("command", [rivals, table])
def test_a_file_without_runs_is_named(tmp_path: Path, command: Any) -> None:
    """A missing one, and one whose second line is cut off, or no object."""
    path = tmp_path / "runs.jsonl"
    result = typer.testing.CliRunner().invoke(command.app, [str(path)])
    assert result.exit_code and "runs.jsonl: no such file" in result.output
    for second in ('{"name"', "3"):
        path.write_text(f"{{}}\n{second}\n")
        result = typer.testing.CliRunner().invoke(command.app, [str(path)])
        assert result.exit_code and "runs.jsonl, line 2: expected a JSON object" in result.output
