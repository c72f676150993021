"""Cosines, scores, gate and Gumbel-sigmoid against loops over (p, t), and the law of one Gumbel term."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers import masking

pytestmark = pytest.mark.usefixtures("one_thread")


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_cosines_equal_the_loops() -> None:
    """Eq. 11 and 13-15 with e1 = l_p in its long-term role and e2 = h_p."""
    states, short, long = unit(2, 4, 3), unit(2, 4, 3, seed=1), unit(2, 4, 3, seed=2)
    found = masking.cosines(states, short, states, long)
    for u in range(2):
        for p in range(4):
            assert found.gate[u, p, 0].item() == pytest.approx(float(long[u, p] @ states[u, p]), abs=1e-6)
            for t in range(4):
                c1, c2, c3 = long[u, p] @ states[u, t], states[u, p] @ short[u, t], states[u, t] @ short[u, t]
                got = (found.c1[u, p, t], found.c2[u, p, t], found.c3[u, 0, t])
                torch.testing.assert_close(torch.stack(got), torch.stack([c1, c2, c3]))
                for interests, value in (("both", c1 + c2 + c3), ("long", c1 + c2), ("short", c3)):
                    assert masking.score(found, interests)[u, p, t].item() == pytest.approx(float(value), abs=1e-6)  # type: ignore[arg-type]


def test_one_newest_position_is_a_row_of_all() -> None:
    states, short, long = unit(2, 4, 3), unit(2, 4, 3, seed=1), unit(2, 4, 3, seed=2)
    everything = masking.cosines(states, short, states, long)
    one = masking.cosines(states, short, states[:, 2:3], long[:, 2:3])
    for interests in ("both", "long", "short"):
        expected = masking.score(everything, interests)[:, 2:3]
        torch.testing.assert_close(masking.score(one, interests), expected)


def test_opposite_interests_pass_the_widest_gate() -> None:
    """The cosine of opposite unit vectors is -1, not the -1.0000001 of rounding, so theta = -1 lets everybody in."""
    states = unit(200, 1, 7)
    assert (-(states * states).sum(-1) < -1).any()  # what rounding does
    gate = masking.cosines(states, states, states, -states).gate
    assert (gate >= -1).all() and (masking.cosines(states, states, states, states).gate <= 1).all()


def test_keep_probability_by_hand() -> None:
    """1 - exp(-exp(s)): at 0, 1 - 1/e = 0.632; at 1, 1 - exp(-e) = 0.934; at -1, 0.308; far off 0 and 1."""
    found = masking.keep_probability(torch.tensor([0.0, 1.0, -1.0, -50.0, 50.0]))
    expected = torch.tensor([1 - math.exp(-1), 1 - math.exp(-math.e), 1 - math.exp(-math.exp(-1)), 0, 1])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_masks_keep_as_often_as_the_probability_says(temperature: float) -> None:
    """100,000 draws at each score: three standard errors are below 0.005, whatever the temperature."""
    scores = torch.tensor([-1.0, 0.0, 0.5, 1.5]).expand(100_000, 4)
    noise = masking.gumbel(scores.shape, torch.Generator().manual_seed(1), scores.device)
    masks = masking.straight_through(masking.soft_mask(scores, noise, temperature))
    torch.testing.assert_close(masks.mean(0), masking.keep_probability(scores[0]), atol=0.005, rtol=0)


def test_gumbel_has_the_moments_of_a_standard_gumbel() -> None:
    """Mean: Euler's constant 0.5772; variance: pi^2 / 6 = 1.645."""
    noise = masking.gumbel(torch.Size([200_000]), torch.Generator().manual_seed(0), torch.device("cpu"))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_gumbel_is_finite_at_the_ends(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    """rand returns 0 and 1 - 2^-24 at its ends: epsilon keeps both logarithms finite (Eq. 17)."""
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.full(shape, uniform))
    assert masking.gumbel(torch.Size([1]), torch.Generator(), torch.device("cpu")).isfinite().all()


def test_gumbel_is_the_generator_s() -> None:
    first, second = (
        masking.gumbel(torch.Size([3]), torch.Generator().manual_seed(s), torch.device("cpu")) for s in (4, 4)
    )
    assert torch.equal(first, second)


def test_soft_mask_by_hand() -> None:
    """sigmoid((0.5 + 0.5) / 0.5) = 1 / (1 + e^-2)."""
    soft = masking.soft_mask(torch.tensor([0.5]), torch.tensor([0.5]), 0.5)
    assert soft.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_straight_through_is_binary_and_has_the_soft_gradient() -> None:
    """Values exactly 0 or 1 over a fine grid; the gradient with respect to the score is y (1 - y) / tau."""
    score = torch.linspace(-4, 4, 2001).requires_grad_()
    soft = masking.soft_mask(score, torch.zeros(2001), 0.5)
    mask = masking.straight_through(soft)
    assert set(mask.tolist()) == {0.0, 1.0}
    assert torch.equal(mask > 0, soft > 0.5)
    (gradient,) = torch.autograd.grad(mask.sum(), score)
    torch.testing.assert_close(gradient, soft * (1 - soft) / 0.5)


def test_the_deterministic_rule_drops_at_zero() -> None:
    """y > 0.5 without noise is score > 0: y = 0.5 at score 0 is not above."""
    assert masking.decided(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [False, False, True]
