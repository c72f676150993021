"""The page of a run: what it says, that nothing of it leaves the file, and that a browser shows all of it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import polars as pl
import pytest
from browser import needs_browser, opened
from small_project import change, invoke, noted_again, succeed

from iadsr.page.page import interval
from stages import paths

SCRIPT = "<script>alert('x')</script> & <b>bold</b>"


@pytest.fixture
def page(copy: Path) -> str:
    """Of a tiny demo on which cloze is trained."""
    change(denoiser="cloze", train__max_epochs=1)
    succeed("train", "evaluate")
    assert "wrote metrics/report.html" in invoke("page").stdout
    return paths.PAGE.read_text(encoding="utf-8")


def test_the_page_says_what_the_files_say(page: str) -> None:
    details = json.loads(paths.DETAILS.read_text())
    assert f"HR@10 {details['test_hr_10_unfiltered']:.4f}</h1>" in page
    assert f"<td>{details['noise_auc']:.3f}</td>" in page
    assert page.count("<details") == 20 and page.count("<picture>") == 1 + 1 + len(list(paths.PLOTS.glob("*.csv")))


def test_histories_have_titles_verdicts_and_reasons(page: str) -> None:
    """Of each user that is shown: so many are dropped as in verdicts.parquet, and each says why."""
    verdicts = pl.read_parquet(paths.VERDICTS).filter(split="train")
    shown = re.findall(r'data-user="([^"]+)".*?: (\d+) of (\d+) dropped(.*?)</details>', page, re.DOTALL)
    assert len(shown) == 20
    for user, dropped, count, text in shown:
        own = verdicts.filter(pl.col("user").cast(pl.String) == user)
        assert (int(dropped), int(count)) == ((~own["kept"]).sum(), len(own))
        assert len(re.findall(r'class="dropped".*?<br><small>\S', text, re.DOTALL)) == int(dropped)


def test_nothing_leaves_the_page(page: str) -> None:
    """No address but data in the file itself, also within pictures, whose namespaces are names and no addresses."""
    assert not re.findall(r"""(?:src|href|srcset)=["'](?!data:)""", page)
    assert "url(" not in page and "@import" not in page and "fetch(" not in page


def test_titles_are_escaped(copy: Path) -> None:
    items = pl.read_parquet(paths.ITEMS).with_columns(title=pl.lit(SCRIPT))
    change(train__max_epochs=1, denoiser="none")
    items.write_parquet(paths.ITEMS)
    noted_again(paths.FILTERED)
    succeed("encode", "train", "evaluate", "page")
    page = paths.PAGE.read_text(encoding="utf-8")
    assert html.escape("<script>alert(") in page and "<script>alert(" not in page


def test_an_interval_by_hand() -> None:
    """Of 0, 0, 1, 1 the mean is 1/2 and the standard error sqrt(1/3) / 2 = .289; it stays within 0 and 1."""
    import numpy as np

    found = interval(np.array([0.0, 0.0, 1.0, 1.0]))
    assert found == pytest.approx((0.5, 0.0, 1.0)) and interval(np.array([1.0]))[1:] == (0.0, 1.0)
    many = interval(np.array([0.0, 0.0, 1.0, 1.0] * 100))
    assert many == pytest.approx((0.5, 0.5 - 1.96 * (100 / 399) ** 0.5 / 20, 0.5 + 1.96 * (100 / 399) ** 0.5 / 20))


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(page: str, dark: bool, tmp_path: Path) -> None:
    opened(page, tmp_path, dark)
