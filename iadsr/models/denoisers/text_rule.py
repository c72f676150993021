"""The trivial rule on texts: drop what reads least like the rest of its history.

An interaction is dropped where the cosine of its item's text vector with the mean of the text vectors of the other
items of the history is below a threshold, which is a quantile of that cosine over all training interactions. Nothing
is learnt, and neither the order of the items nor the model that is trained plays a part: this is what IADSR has to be
better than.

A history is what can be seen of it: a window, cut at its newest item. In training every prefix has a mask of its own,
made from that prefix alone, so its newest item is judged by the items before it. For the threshold each training
interaction is judged within its whole window, so of the (prefix, item) pairs of training another share may be dropped.

An item without a text, and one whose history holds no other item with a text, has no cosine and is kept. Embeddings of
dropped items are zero, as in IADSR (Eq. 19). The vectors are part of the model, which needs no encoder afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Float16
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.prefix_masks import seen, states_under_prefix_masks
from iadsr.models.recommender import Recommender, Traits, Verdicts, newest
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed, shortest_first, training_tail_windows


class TextRuleParams(Group):
    """`denoisers.text_rule` of params.yaml."""

    share: float = Field(ge=0, lt=1)
    mask_at_test: bool


BELOW_ALL = -2.0  # a threshold that every cosine passes
ROUNDING = 1e-6  # 0.29 * 100 is a bit below 29 in floating point
SLACK = 1e-5  # below the quantile, for what lies at it or equals it but for rounding
NOTHING = 1e-4  # squared length of a sum of unit vectors that cancel; what is left of it is rounding
JUDGED = 512  # windows at once


class TextRule(Recommender):
    """Any backbone over histories without what a rule on text vectors drops."""

    params_type = TextRuleParams
    traits = Traits(reads_texts=True)
    vectors: Float16[Tensor, "items+1 width"]
    threshold: Float[Tensor, ""]

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> TextRule:
        assert config.encodings is not None
        params = cls.params_type.model_validate(config.denoiser_params)
        model = cls(config.item_count, config.dim, backbone, params, config.encodings["dim"])
        if feed is not None:
            model.read(feed, config.max_length)
        return model

    def __init__(self, item_count: int, dim: int, backbone: Any, params: TextRuleParams, width: int) -> None:
        super().__init__(item_count, dim, backbone)
        self.params = params
        self.register_buffer("vectors", torch.zeros(item_count + 1, width, dtype=torch.float16))
        self.register_buffer("threshold", torch.tensor(BELOW_ALL))
        self.dropped: Tensor | int = 0
        self.judged: Tensor | int = 0

    @torch.no_grad()
    def read(self, feed: Feed, max_length: int) -> None:
        """Take the items' vectors from the data set, of unit length, and from its training part the threshold."""
        assert feed.vectors is not None, "the text rule needs text vectors"
        vectors = torch.tensor(feed.vectors.items[: len(self.vectors)])
        self.vectors.copy_(F.normalize(vectors.float(), dim=1))
        if self.params.share == 0:
            return
        windows, rows = training_tail_windows(feed.sequences, max_length), Feed(feed.sequences)
        batches = (rows.batch(windows[numbers]) for numbers in shortest_first(windows, JUDGED))
        cosines = torch.cat([self.of_windows(batch)[batch.valid] for batch in batches])
        self.threshold.fill_(lowest_kept(cosines, self.params.share) - SLACK)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of every prefix under its own mask."""
        held = seen(batch)
        keep = ~held | self.passes(self.of_prefixes(batch))
        self.judged += held.sum()
        self.dropped += (~keep).sum()
        return {
            "ce": self.cross_entropy(states_under_prefix_masks(self, batch, keep), batch.targets, items=batch.items)
        }

    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The state after each window without what the rule drops, where `mask_at_test` is set."""
        if not self.params.mask_at_test:
            return super().states(batch)
        states = self.prefix_states(batch.items, self.passes(self.of_windows(batch)), batch.newest)
        return self.head(newest(states, batch.last))

    def judge(self, batch: Batch) -> Verdicts:
        """The score is how far an item's cosine is above the threshold; NaN where it has none."""
        cosines = self.of_windows(batch)
        kept = self.passes(cosines)
        return Verdicts.without_cosines(cosines - self.threshold, kept.to(cosines.dtype), kept)

    def passes(self, cosines: Float[Tensor, "*where"]) -> Bool[Tensor, "*where"]:
        """Whether an interaction is kept, as it also is where it has no cosine."""
        return ~(cosines - self.threshold <= 0)

    @torch.no_grad()
    def of_prefixes(self, batch: Batch) -> Float[Tensor, "batch newest time"]:
        """The cosine of each item with the rest of every prefix that holds it; elsewhere some number."""
        vectors = self.vectors[batch.items].float()
        return cosines_with_the_rest(vectors, vectors.cumsum(1))

    @torch.no_grad()
    def of_windows(self, batch: Batch) -> Float[Tensor, "batch time"]:
        """The cosine of each item with the rest of the whole window."""
        vectors = self.vectors[batch.items].float()
        return cosines_with_the_rest(vectors, vectors.sum(1, keepdim=True))[:, 0]

    def end_epoch(self) -> dict[str, float]:
        """Report the share of (prefix, item) pairs that was dropped."""
        figures = {"drop_rate": int(self.dropped) / max(1, int(self.judged))}
        self.dropped = self.judged = 0
        return figures


def cosines_with_the_rest(
    vectors: Float[Tensor, "batch time width"], sums: Float[Tensor, "batch newest width"]
) -> Float[Tensor, "batch newest time"]:
    """The cosine of each vector with each sum less that vector; NaN where one of the two is zero.

    x.(s - x) / |x| |s - x|, where |s - x|^2 = |s|^2 - 2 x.s + |x|^2.
    """
    own, shared = vectors.square().sum(2)[:, None], sums @ vectors.mT
    rest = sums.square().sum(2, keepdim=True) - 2 * shared + own
    cosines = (shared - own) / (own * rest).sqrt()
    return cosines.where((own > NOTHING) & (rest > NOTHING), float("nan"))


def lowest_kept(cosines: Float[Tensor, " judged"], share: float) -> float:
    """The lowest cosine once the lowest `share` of them, rounded down, is left out; NaN does not count.

    >>> round(lowest_kept(torch.tensor([0.4, 0.1, float("nan"), 0.3, 0.2]), 0.25), 6)
    0.2
    """
    found = cosines[~cosines.isnan()]
    return found.sort().values[int(share * len(found) + ROUNDING)].item() if len(found) else BELOW_ALL
