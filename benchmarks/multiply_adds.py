"""How many multiply-adds the mathematics of a pass asks for: the numerator of `peak_fraction`.

Only the matrix products that the shapes alone decide are counted, over real positions. Padding, recomputation and
whatever else an implementation adds is not counted: it makes the fraction smaller, as it should. The backward pass of
a product costs two more of the same size, one for each factor; a factor without gradient saves one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

COUNTED = ("none", "iadsr")  # denoisers


@dataclass(frozen=True)
class Load:
    """What the batches of one pass over a data set hold, summed over the batches."""

    windows: int = 0
    places: int = 0  # of the batches as they are handed over, padding included
    grouped: int = 0  # of windows padded with others of like length, as attention and maxima over time need them
    rows: int = 0  # of the products of token-wise layers, filled up as bfloat16 needs it
    tokens: int = 0  # real items
    pairs: int = 0  # (item, prefix of the same window that holds it): l (l + 1) / 2 for a window of l items
    examples: int = 0  # (prefix, next item) pairs: positions with a target
    contrasts: int = 0  # pairs that InfoNCE compares: (tokens - windows)^2 + windows^2 in each batch

    def __add__(self, other: Load) -> Load:
        return Load(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def padding_share(self, positions: int) -> float:
        """Share of `positions`, such as `rows`, that hold no real item; 0 if there are none.

        >>> Load(tokens=8).padding_share(10)
        0.2
        """
        return 1 - self.tokens / positions if positions else 0.0


@dataclass(frozen=True)
class Shape:
    """The sizes that decide a model's work; `text_width` is that of the text encodings, 0 for a plain backbone."""

    backbone: str
    params: Mapping[str, Any]  # `backbones.<backbone>` of params.yaml
    items: int
    dim: int
    text_width: int = 0
    negatives: int | None = None  # that a sampled loss scores in place of all items
    denoiser: str = "none"

    @property
    def hidden(self) -> int:
        return self.params.get("hidden", self.dim)


def training(load: Load, shape: Shape) -> dict[str, int]:
    """Multiply-adds of an epoch by part, forward and backward pass; empty for a denoiser whose work is not counted."""
    if shape.denoiser not in COUNTED:
        return {}
    parts = {
        "loss": 3 * load.examples * (shape.negatives or shape.items) * shape.dim,
        "encoder": 3 * encoder(load, shape) + 3 * head(load.examples, shape),
    }
    if shape.text_width:
        parts["alignment"] = 2 * projections(load, shape) + 3 * load.contrasts * shape.hidden
    return parts


def ranking(load: Load, shape: Shape) -> dict[str, int]:
    """Multiply-adds by part of a full ranking of every window's next item, only forward; or empty as in `training`."""
    if shape.denoiser not in COUNTED:
        return {}
    parts = {
        "scores": load.windows * shape.items * shape.dim,
        "encoder": encoder(load, shape) + head(load.windows, shape),
    }
    if shape.text_width:
        parts["alignment"] = projections(load, shape)
    return parts


def encoder(load: Load, shape: Shape) -> int:
    """One forward pass of the backbone, one state a prefix."""
    return ENCODERS[shape.backbone](load, shape)


def head(states: int, shape: Shape) -> int:
    """The product from the backbone's width to the item embeddings', where the two differ."""
    return 0 if shape.hidden == shape.dim else states * shape.hidden * shape.dim


def projections(load: Load, shape: Shape) -> int:
    """The text encoding of each prefix in its two roles."""
    return 2 * load.tokens * shape.text_width * shape.hidden


def gru4rec(load: Load, shape: Shape) -> int:
    """Three gates a layer, each from the input and from the state before."""
    hidden, layers = shape.params["hidden"], shape.params["layers"]
    return load.tokens * 3 * hidden * ((shape.dim + hidden) + (layers - 1) * 2 * hidden)


def caser(load: Load, shape: Shape) -> int:
    """Filters of each height 1..window (a filter's end slides over positions), vertical filters, the fusing layer."""
    window, horizontal, vertical = (shape.params[name] for name in ("window", "horizontal", "vertical"))
    across = horizontal * shape.dim * window * (window + 1) // 2
    along = vertical * window * shape.dim
    fuse = (window * horizontal + vertical * shape.dim) * shape.hidden
    return load.tokens * (across + along + fuse)


def sasrec(load: Load, shape: Shape) -> int:
    """Queries, keys, values and merge; the feed-forward layer; two products over (item, prefix) pairs."""
    dense = 4 * shape.dim**2 + 2 * shape.dim * shape.params["feed_forward"]
    return shape.params["layers"] * (load.tokens * dense + load.pairs * 2 * shape.dim)


def ligr(load: Load, shape: Shape) -> int:
    """As SASRec, with a gate for each of both layers, and the switch of the feed-forward layer."""
    gates = 2 * shape.dim**2 + shape.dim * shape.params["feed_forward"]
    return sasrec(load, shape) + shape.params["layers"] * load.tokens * gates


ENCODERS: dict[str, Callable[[Load, Shape], int]] = {"gru4rec": gru4rec, "caser": caser, "sasrec": sasrec, "ligr": ligr}
