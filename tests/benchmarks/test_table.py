"""The table of measurements by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.table import lines


def run(seed: int, **changes: Any) -> dict[str, Any]:
    metrics = {
        f"test_{name}_10_{protocol}": 0.1 + seed / 100
        for name in ("hr", "ndcg")
        for protocol in ("unfiltered", "filtered")
    }
    settings = {"dataset": "beauty", "noise_ratio": 0.0, "backbone": "sasrec", "denoiser": "none", "masks": None}
    settings |= {
        "batch_size": 128,
        "learning_rate": 0.001,
        "prefixes": "joint",
        "dtype": "bfloat16",
        "seed": seed,
        "best_epoch": 3,
        "epochs": 13,
    }
    return {**settings, "seconds_an_epoch": 6.04, "peak_megabytes": 900, "metrics": metrics, **changes}


def test_seeds_share_a_row() -> None:
    """Two seeds of one setting stand behind one another, lower seed first, whatever the order of the file."""
    head, rule, row = lines([run(1), run(0)])
    assert head == "| run | seed | HR@10 U | HR@10 F | dropped | AUC |" and set(rule) <= set("| -")
    assert row == "| beauty, sasrec, none, batch 128 | 0 / 1 | .1000 / .1100 | .1000 / .1100 |  |  |"


def test_settings_have_rows_of_their_own() -> None:
    """A denoised run on noisy data shows its masks, shares and AUC."""
    noisy = run(0, denoiser="iadsr", masks="user", noise_ratio=0.2)
    noisy["metrics"] |= {"drop_ratio": 0.0, "drop_ratio_expected": 0.0123, "noise_auc": 0.5444}
    rows = lines([run(0), noisy])[2:]
    assert len(rows) == 2
    assert "| beauty, 20% planted, sasrec, IADSR, masks user, batch 128 |" in rows[1] and "| 1.23% | .544 |" in rows[1]


def test_formats_and_windows_have_rows_of_their_own() -> None:
    """And are named where they are not the usual ones."""
    rows = lines([run(0), run(0, dtype="float32"), run(0, windows="newest"), run(1, windows="tiles")])[2:]
    assert [row.split(" | ")[0].removeprefix("| beauty, sasrec, none, ") for row in rows] == [
        "batch 128, newest windows",
        "batch 128",
        "batch 128, float32",
    ]
