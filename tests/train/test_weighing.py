"""How much noise there is, what signals are worth, and whether probabilities mean what they say, on made examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iadsr.evaluate.calibration import calibration_error, reliability
from iadsr.models.denoisers.cloze.weighing import KNOTS, Weighing, interpolated
from iadsr.train.weighing import (
    LIKELIEST,
    fit_weighing,
    fitted_heights,
    knots_of,
    likeliest_kind,
    noise_at,
    points_of,
    rate_and_bound,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, APART = 20_000, 4.0  # of each kind; deviations between real rows and noise


def normal(count: int, mean: float = 0.0, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, count]).normal(mean, 1, count))


def mixture(rate: float, seed: int = 0, apart: float = APART) -> tuple[Tensor, Tensor, Tensor]:
    """Fits of real rows, of which this share is noise; of planted ones; which of the real ones are noise."""
    noise = torch.arange(ROWS) < rate * ROWS
    return normal(ROWS, seed=seed) - apart * noise, normal(ROWS + 1, seed=seed) - apart, noise


# --- the rate ---


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_rate_of_a_known_mixture(rate: float, seed: int) -> None:
    assert rate_and_bound(*mixture(rate, seed)[:2])[0] == pytest.approx(rate, abs=0.02)


def test_noise_rate_where_the_fit_tells_nothing() -> None:
    """Real rows that look like planted ones may all be noise."""
    assert rate_and_bound(normal(ROWS), normal(ROWS))[0] == pytest.approx(1, abs=0.02)


def test_noise_rate_of_a_single_plant() -> None:
    """Half of the real rows fit no better than it."""
    assert rate_and_bound(torch.arange(4.0), torch.tensor([1.0]))[0] == 0.5


def test_noise_rate_is_that_of_the_kind_that_allows_least() -> None:
    """Kind 0 is what the noise is; kind 1 fits as well as real rows, so of it all might be. Kind 2 is a single plant,
    of which nothing can be said, although no real row fits as badly."""
    real, planted, _ = mixture(0.3)
    together = torch.cat([planted, normal(ROWS, seed=3), torch.tensor([-9.0 * APART], dtype=planted.dtype)])
    kinds = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([len(planted), ROWS, 1]))
    kind, rate = likeliest_kind(real, together, kinds)
    assert kind == 0 and rate == pytest.approx(0.3, abs=0.02)


# --- the probability at each fit ---


def test_probability_of_noise_by_hand() -> None:
    """At fits 0 and 1 there are 2 and 2 planted of 4 and real 1 and 3 of 4: 2 and 2/3 times denser; a rate of 0.3."""
    fit = np.array([0.0, 0, 0, 1, 1, 1, 1, 1])
    planted = np.array([True, True, False, True, False, False, True, False])
    found = noise_at(np.array([-1.0, 0.0, 1.0, 2.0]), fit, planted, 0.3)
    assert found.tolist() == pytest.approx([0.6, 0.6, 0.2, 0.2])


@pytest.mark.parametrize("planted", [[True, False], [False, True]])
def test_equal_fits_are_equally_likely_noise(planted: list[bool]) -> None:
    """In whatever order they stand: with as many planted as real ones, the rate."""
    found = noise_at(np.array([0.0, 1.0]), np.zeros(8), np.repeat(planted, 4), 0.25)
    assert found.tolist() == pytest.approx([0.25, 0.25])


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30), st.floats(0, 1))
def test_probability_of_noise_falls(rows: list[tuple[int, bool]], rate: float) -> None:
    fit, planted = (np.array(column) for column in zip(*rows, strict=True))
    found = noise_at(np.linspace(-4, 4, 33), fit.astype(np.float64), planted, rate)
    assert (found.diff() <= 0).all() and found.min() >= 0 and found.max() <= LIKELIEST


# --- points, knots and heights ---


@given(st.lists(st.sampled_from([0.0, 1e-6, 0.5, 3.0, -2.0]), min_size=1, max_size=20), st.integers(2, 9))
def test_points_rise_strictly(values: list[float], count: int) -> None:
    """However many values are equal; they begin at the least and reach the greatest."""
    found = points_of(torch.tensor(values, dtype=torch.float64), count)
    assert len(found) == count and (found.diff() > 0).all()
    assert found[0] == min(values) and found[-1] >= max(values)


def test_points_are_quantiles() -> None:
    assert points_of(torch.arange(101.0).double(), 5).tolist() == [0, 25, 50, 75, 100]


def examples(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of 4,000 rows half are planted: by the first signal they fit worse, the second knows nothing of it."""
    planted = torch.arange(4000) % 2 == 0
    return torch.stack([normal(4000, seed=seed) - 2.0 * planted, normal(4001, seed=seed)[1:]], 1).float(), planted


def test_heights_rise_and_average_to_nothing() -> None:
    signals, planted = examples()
    knots = knots_of(signals)
    heights = fitted_heights(signals, planted, knots)
    assert heights.shape == (2, KNOTS) and (heights.diff(dim=1) >= 0).all()
    for column, own, height in zip(signals.double().T, knots, heights, strict=True):
        assert interpolated(column, own, height).mean().item() == pytest.approx(0, abs=1e-3)


def test_a_signal_of_chance_counts_for_little() -> None:
    """Between its quartiles the first signal rises by about 2 times 2.3, the log odds of rows 2 deviations apart."""
    signals, planted = examples()
    heights, knots = fitted_heights(signals, planted, knots_of(signals)), knots_of(signals)
    quartiles = signals.double().quantile(torch.tensor([0.25, 0.75], dtype=torch.float64), dim=0).T.contiguous()
    rises = [
        interpolated(ends, own, height).diff().item()
        for ends, own, height in zip(quartiles, knots, heights, strict=True)
    ]
    assert rises[0] == pytest.approx(2 * 2.1, abs=1) and rises[1] < rises[0] / 20


def test_a_signal_that_is_wrong_way_round_counts_for_little() -> None:
    """Larger where noise is planted: no rising function is of use."""
    signals, planted = examples()
    heights = fitted_heights(signals * torch.tensor([-1, 1]), planted, knots_of(signals * torch.tensor([-1, 1])))
    assert (heights[:, -1] - heights[:, 0] < 0.5).all()


# --- all of it ---


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_probabilities_mean_what_they_say(rate: float) -> None:
    """Of rows that are noise with probability p a share of p is, and the rate is found."""
    real, planted, noise = mixture(rate, apart=3.0)
    fits = torch.cat([real, planted])
    signals = torch.stack([fits, normal(len(fits), seed=7)], 1).float()
    weighing = Weighing(2)
    fit_weighing(weighing, signals, (torch.arange(len(fits)) >= ROWS).long() - 1)
    probability = weighing.noise_probability(signals[:ROWS])
    assert weighing.rate.item() == pytest.approx(rate, abs=0.03)
    assert calibration_error(reliability(noise.numpy(), probability.double().numpy())) < 0.03
    assert (weighing.noise.diff() <= 0).all() and (weighing.heights.diff(dim=1) >= 0).all()


def test_the_rate_is_the_least_of_those_that_kinds_tell() -> None:
    """By one kind, which is what the noise is, a fifth is noise; by another, which looks like real rows, all may be."""
    real, planted, _ = mixture(0.2)
    signals = torch.cat([real, planted, normal(ROWS)])[:, None].float()
    kinds = torch.cat([torch.full((ROWS,), -1), torch.zeros(len(planted)), torch.full((ROWS,), 4)]).long()
    weighing = Weighing(1)
    fit_weighing(weighing, signals, kinds)
    assert weighing.rate.item() == pytest.approx(0.2, abs=0.03)


def test_probabilities_are_those_of_that_kind_alone() -> None:
    """Beside a kind that fits as well as real rows they stay what they are without it."""
    real, planted, noise = mixture(0.2, apart=3.0)
    signals = torch.cat([real, planted, normal(ROWS, seed=3)])[:, None].float()
    kinds = torch.tensor([-1, 0, 1]).repeat_interleave(torch.tensor([ROWS, len(planted), ROWS]))
    weighing = Weighing(1)
    fit_weighing(weighing, signals, kinds)
    probability = weighing.noise_probability(signals[:ROWS]).double().numpy()
    assert calibration_error(reliability(noise.numpy(), probability)) < 0.03


def test_signals_that_are_all_alike_say_nothing() -> None:
    """Every row is as likely noise as the next."""
    weighing = Weighing(2)
    fit_weighing(weighing, torch.ones(60, 2), torch.arange(60) % 3 - 1)
    found = weighing.noise_probability(torch.ones(4, 2))
    assert found.isfinite().all() and len(set(found.tolist())) == 1
