"""Fitting what signals are worth, how likely a row is noise, and how much noise there is, from planted examples."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers.cloze.weighing import KNOTS, Weighing

STEPS, RIDGE = 100, 1e-3  # of LBFGS; weight of the squared slopes
CONFIDENCE = 0.1  # probability that a bound of the noise rate is wrong
LIKELIEST = 0.999  # probability of noise


def fit_weighing(weighing: Weighing, signals: Float[Tensor, "rows signals"], kinds: Int[Tensor, " rows"]) -> None:
    """Fit all parts in place, from rows that are real (-1) or planted, by the number of the kind."""
    planted = kinds >= 0
    knots = knots_of(signals)
    weighing.knots.copy_(knots)
    weighing.heights.copy_(fitted_heights(signals, planted, knots))
    fit = weighing.parts(signals.to(weighing.knots.device)).sum(-1).cpu().double()
    kind, rate = likeliest_kind(fit[~planted], fit[planted], kinds[planted])
    fit, planted = (each[~planted | (kinds == kind)] for each in (fit, planted))
    weighing.points.copy_(points_of(fit, len(weighing.points)))
    weighing.noise.copy_(noise_at(weighing.points.cpu().double().numpy(), fit.numpy(), planted.numpy(), rate))
    weighing.rate.fill_(rate)


def points_of(values: Tensor, count: int) -> Tensor:
    """Rising points: quantiles of the values, or where many are equal, whatever lies between."""
    found = np.unique(np.quantile(values.numpy(), np.linspace(0, 1, count)))
    if len(found) < count:
        beyond = found[-1] + np.arange(1, count - len(found) + 1) * max(1e-3, np.ptp(found))
        found = np.concatenate([found, beyond])
    return torch.from_numpy(found)


def knots_of(signals: Float[Tensor, "rows signals"]) -> Float[Tensor, "signals knots"]:
    return torch.stack([points_of(column, KNOTS) for column in signals.double().unbind(1)])


def fitted_heights(
    signals: Float[Tensor, "rows signals"], planted: Bool[Tensor, " rows"], knots: Float[Tensor, "signals knots"]
) -> Float[Tensor, "signals knots"]:
    """The rising functions by which a logistic regression best tells real from planted rows; each is 0 on average."""
    begins, widths = knots[:, :-1], knots.diff(dim=1)
    climbed = ((signals.double()[:, :, None] - begins) / widths).clamp(0, 1).flatten(1).float()
    mean = climbed.mean(0)
    slopes = torch.full((climbed.shape[1],), -3.0, requires_grad=True)
    intercept = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, intercept], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        rises = F.softplus(slopes)
        logits = intercept + (climbed - mean) @ rises
        loss = F.binary_cross_entropy_with_logits(logits, (~planted).float()) + RIDGE * rises.square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    rises = F.softplus(slopes.detach()).double()
    below = (mean.double() * rises).view(len(knots), -1).sum(1, keepdim=True)
    return F.pad(rises.view(len(knots), -1).cumsum(1), (1, 0)) - below


def likeliest_kind(
    real: Float[Tensor, " real"], planted: Float[Tensor, " planted"], kinds: Int[Tensor, " planted"]
) -> tuple[int, float]:
    """The planted kind of which real rows can hold the least, and the share of noise if it fits as that kind does.

    Best-bin estimation (Garg et al. 2021, https://arxiv.org/abs/2111.00980): below any fit, the share of real rows is
    at least the rate times that of planted ones; the rate is what this allows where the bound, with its error, is
    lowest.
    """
    found = {kind: rate_and_bound(real, planted[kinds == kind]) for kind in kinds.unique().tolist()}
    kind = min(found, key=lambda each: found[each][1])
    return kind, found[kind][0]


def rate_and_bound(real: Float[Tensor, " real"], planted: Float[Tensor, " planted"]) -> tuple[float, float]:
    """The rate where the bound of the rate is lowest, and that bound."""
    cuts = torch.quantile(planted, torch.linspace(0.01, 1, 100, dtype=planted.dtype))
    below = [torch.searchsorted(part.sort().values, cuts, right=True) / len(part) for part in (real, planted)]
    error = sum(math.sqrt(math.log(4 / CONFIDENCE) / 2 / len(part)) for part in (real, planted))
    bounds = (below[0] + error) / below[1]
    best = bounds.argmin()
    return float((below[0] / below[1])[best].clamp(max=1)), float(bounds[best])


def noise_at(points: np.ndarray, fit: np.ndarray, planted: np.ndarray, rate: float) -> Tensor:
    """The probability of noise at each point: the rate times how much denser planted rows are there than real ones."""
    values, where, rows = np.unique(fit, return_inverse=True, return_counts=True)  # equal fits are one
    falling = isotonic_regression(np.bincount(where, planted) / rows, weights=rows, increasing=False)
    begins = falling.blocks[:-1]
    centres = np.add.reduceat(values * rows, begins) / np.add.reduceat(rows, begins)
    share = np.interp(points, centres, falling.x[begins])  # it falls between blocks, as in Oron and Flournoy (2017)
    odds = share / np.maximum(1 - share, 1e-9) * (~planted).sum() / max(1, planted.sum())
    return torch.from_numpy(np.clip(rate * odds, 0, LIKELIEST))
