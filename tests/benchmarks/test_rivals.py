"""The tables of rivals by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.testing

from benchmarks.rivals import app, read_paper, tables


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
    heading, _, titles, rule, base, own, _ = tables([*runs, run("none", 1, 0.20)], read_paper(paper))
    assert heading == "### beauty" and set(rule) <= set("| -") and len(cells(titles)) == len(cells(own))
    assert cells(base)[:9] == ["sasrec", "none", "0 / 1", *[".1000 / .2000"] * 4, "", ".0400"]
    assert cells(own)[7:13] == ["1.10", ".0500", ".0300", "1.25", "25.0% / 25.0%", "10.0% / 10.0%"]
    assert cells(own)[13:] == ["3 of 13 / 3 of 13"]


def test_only_the_base_s_same_seeds_count() -> None:
    """Seed 1 of the method over seed 1 of the base: .1 / .2."""
    lines = tables([run("none", 0, 0.1), run("none", 1, 0.2), run("hsd", 1, 0.1)], {})
    assert cells(lines[5])[7] == "0.50"


def test_what_stands_alone_is_beside_sasrec(paper: Path) -> None:
    """.15 / .10 here, .03 / .04 in the paper."""
    lines = tables([run("steam", 0, 0.15, "none"), run("none", 0, 0.10)], read_paper(paper))
    own = next(cells(line) for line in lines if "steam" in line)
    assert own[0] == "" and own[7:11] == ["1.50", ".0300", ".0100", "0.75"]


def test_what_the_print_lacks_is_empty(paper: Path) -> None:
    """And so is the paper's cell of a setting that the paper does not have."""
    found = tables([run("hsd", 0, 0.1), run("iadsr", 0, 0.1, changes="masks user")], read_paper(paper))
    assert [cells(line)[8:11] for line in found[4:6]] == [["", "", ""]] * 2
    assert "iadsr, masks user" in found[4]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = typer.testing.CliRunner().invoke(app, [str(tmp_path / "none.jsonl")])
    assert result.exit_code and "none.jsonl: no such file" in result.output
