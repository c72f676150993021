"""What training with the detector gains: numbers by hand, and all arms on a tiny demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_detectors import TINY, without_encoding

from benchmarks import gain, prepared
from benchmarks.gain import BASE, CLEAN, NAMES, Arm, asked, compared, recovery
from benchmarks.prepared import parameters
from iadsr.errors import UserError
from iadsr.params import ParamsError


def arm(*by_seed: list[float]) -> Arm:
    return Arm({name: np.array(by_seed) for name in NAMES}, [{"cpu": "one"}] * len(by_seed))


def test_what_is_recovered_by_hand() -> None:
    """Two seeds, two users: the base has .1 and .3, of which the deviation is .1 * sqrt(2); .4 is half of the way to
    .6, which there is without noise."""
    arms = {
        BASE: arm([0.0, 0.2], [0.2, 0.4]),
        CLEAN: arm([0.6, 0.6], [0.6, 0.6]),
        "raw/raw": arm([0.4, 0.4], [0.5, 0.3]),
    }
    found = compared([arms])[0]
    for name in NAMES:
        assert found[BASE][name] == {"mean": 0.2, "std": pytest.approx(0.1 * 2**0.5, abs=1e-5)}
        assert found["raw/raw"][name]["recovered"] == 0.5 and "recovered" not in found[CLEAN][name]


def test_where_noise_costs_nothing_nothing_is_recovered() -> None:
    arms = {BASE: arm([0.1, 0.2]), CLEAN: arm([0.1, 0.1]), "raw/raw": arm([0.2, 0.1])}
    assert set(compared([arms])[0]["raw/raw"][NAMES[0]]) == {"mean", "std", "p"}


def test_of_bursts_nothing_is_recovered() -> None:
    """Those from whom they come have left the data, so there is nobody to compare with."""
    assert CLEAN not in gain.arms_of(parameters({"noise.ratio": 0.2, "noise.kind": "burst"}, []), [])


def test_p_values_are_corrected_over_arms_and_cells() -> None:
    """Two arms that are alike have twice the p-value of one, be they in one cell or in two."""
    base, other = np.random.default_rng(0).random((2, 1, 9)).tolist()
    one, two = {BASE: arm(*base), "a": arm(*other)}, {BASE: arm(*base), "a": arm(*other), "b": arm(*other)}
    alone, beside, apart = (compared(cells)[-1]["a"][NAMES[0]]["p"] for cells in ([one], [two], [one, one]))
    assert beside == apart == pytest.approx(min(1, 2 * alone), rel=0.01)


def test_an_interval_of_what_is_recovered() -> None:
    """Half of every user's loss is won back, whoever is drawn; where it is all or nothing, they differ."""
    lost, by_chance = np.ones(400), np.arange(400) % 2
    assert recovery(0 * lost, lost, lost / 2) == {"recovered": 0.5, "recovered_95": [0.5, 0.5]}
    low, high = recovery(0 * lost, lost, by_chance)["recovered_95"]
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.01)


def test_uses_that_are_asked_for() -> None:
    content = {"denoisers": {"cloze": {"inputs": "raw", "targets": "dropped"}}}
    assert asked(content, "") == [("raw", "dropped")]
    assert asked(content, "weighted/raw, dropped/dropped") == [("weighted", "raw"), ("dropped", "dropped")]
    with pytest.raises(UserError, match="--uses weighted: expected INPUTS/TARGETS"):
        asked(content, "weighted")


def test_arms_differ_in_nothing_else() -> None:
    """The base, the base without noise, and one for each use."""
    content = parameters({"noise.ratio": 0.2, "noise.seed": 7}, [])
    arms = gain.arms_of(content, [("raw", "dropped")])
    assert list(arms) == [BASE, CLEAN, "raw/dropped"]
    base, clean, use = arms.values()
    cloze = content["denoisers"]["cloze"]
    assert base == {**content, "denoiser": "none"}
    assert clean == {**base, "noise": parameters({}, [])["noise"]} and not clean["noise"]["ratio"]
    used = {**content["denoisers"], "cloze": {**cloze, "inputs": "raw", "targets": "dropped"}}
    assert use == {**content, "denoiser": "cloze", "denoisers": used}


def test_a_use_that_there_is_not() -> None:
    with pytest.raises(ParamsError, match=r"denoisers\.cloze\.inputs: .* found 'foo'"):
        gain.arms_of(parameters({}, []), [("raw", "raw"), ("foo", "raw")])


def test_machines_of_an_arm_are_listed_once() -> None:
    one, other = {"cpu": "one"}, {"cpu": "other"}
    values = {name: np.zeros((2, 1)) for name in NAMES}
    found = compared([{BASE: Arm(values, [one, one]), "a": Arm(values, [other, one])}])[0]
    assert found[BASE]["machines"] == [one] and found["a"]["machines"] == [other, one]


def test_a_use_that_takes_no_notice_is_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))
    gain.main(uses="raw/raw", changes=[*TINY], as_json=True)
    found = json.loads(printed := capfd.readouterr().out.splitlines()[-1])
    arms, metric = found["arms"], NAMES[0]
    assert list(arms) == [BASE, "raw/raw"] and "uniform" in found["trained_on"]
    assert 0 < arms["raw/raw"][metric]["mean"] == arms[BASE][metric]["mean"] < 1 and arms["raw/raw"][metric]["p"] == 1
    monkeypatch.setattr(gain, "command", lambda *_: pytest.fail("trained again"))
    gain.main(uses="raw/raw", changes=[*TINY], as_json=True)
    assert capfd.readouterr().out.splitlines()[-1] == printed
