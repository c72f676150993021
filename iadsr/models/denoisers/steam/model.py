"""STEAM (WWW 2023): a corrector that deletes items from a history and inserts others, learnt from disturbed histories.

A bidirectional encoder serves three parts. The corrector gives every item one of three operations: keep, delete, or
keep and insert before it. The inserter, a causal decoder, says which: the nearest predecessor first, until it says
"end" or `most_inserted` are there. The recommender fills masked items in: of the history as it is, and of the history
as the current model corrects it. At test the history is corrected, a mask appended, and its state scores the catalogue.

A state of a window sees all of it, in training the training history on both sides of a mask, as published. Nothing
after a window's newest item takes part in its verdicts or its score.

Where this file departs from the released code:

- The newest items of long histories are used, not the first 50; no user is lost; ranking is over the whole catalogue,
  not over 99 random items and the target.
- Masked items are those of whole windows; the released code masks parts of them as random as those it disturbs.
- At least one item of each window is masked: its newest where chance takes none.
- One item at most is inserted at a place of a disturbed history (the released code goes on with the same probability).
- At test at most `max_length` - 1 items are read, so that the mask stands where in training a last item could be.
- A step of the inserter adds position embeddings to what it reads, not to sums that already hold those of steps before;
  no part attends to padding; its logits are computed where items are inserted only.
- The verdicts may be to delete all of a history; what is scored is then its newest item.
- Weights begin as in the other models here (normal, 0.02), and the products' biases at zero.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.attention import Block, Transformer, TransformerParams, check_heads
from iadsr.layers.cross_entropy import catalogue_cross_entropy
from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import gather_rows, length_groups, scatter_rows
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.steam.corruption import DELETE, INSERT, KEEP, Draws, Rates, Slots, corrupted
from iadsr.models.recommender import Recommender, Traits, Verdicts, evaluating
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed


class STEAMParams(Group):
    """`denoisers.steam` of params.yaml."""

    heads: int = Field(ge=1)
    feed_forward: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    keep: float = Field(gt=0, le=1)
    delete: float = Field(ge=0, le=1)
    insert: float = Field(ge=0, le=1)
    most_inserted: int = Field(ge=1)
    most_added: int = Field(ge=0)
    mask_share: float = Field(gt=0, le=1)
    correct_at_test: bool

    @model_validator(mode="after")
    def check_rates(self) -> STEAMParams:
        if abs(self.keep + self.delete + self.insert - 1) > 1e-6:
            raise ValueError("keep, delete and insert must sum to 1")
        return self


LOGITS = 2**20  # that the inserter computes at once


class STEAM(Recommender):
    """Encoder, corrector, inserter and recommender over one table of items and one of positions."""

    params_type = STEAMParams
    traits = Traits(own_encoder=True, sampled_loss=False, largest_gradient=5.0)

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> STEAM:
        """UserError for windows of one item, after which there is no place for a mask."""
        if config.max_length < 2:
            raise UserError(f"params.yaml: datasets.{config.dataset}.max_length: steam needs at least 2")
        params = STEAMParams.model_validate(config.denoiser_params)
        return cls(config.item_count, config.dim, config.max_length, params)

    def __init__(self, item_count: int, dim: int, max_length: int, params: STEAMParams) -> None:
        """UserError unless the heads divide the width evenly."""
        shape = TransformerParams(
            layers=1, heads=params.heads, feed_forward=params.feed_forward, dropout=params.dropout
        )
        check_heads(dim, shape, "denoisers.steam")
        longest = max(max_length, 2) + params.most_added
        super().__init__(item_count, dim, Transformer(dim, max(longest, params.most_inserted), shape, causal=False))
        self.params, self.max_length, self.longest = params, max_length, longest
        self.rates = Rates(params.keep, params.delete, params.insert)
        self.end, self.mask = item_count + 1, item_count + 2  # tokens beside the items
        self.special = nn.Parameter(torch.empty(2, dim))  # the embeddings of these two
        self.corrector = nn.Linear(dim, 3)
        self.inserter, self.recommender = Block(dim, shape, causal=True), Block(dim, shape, causal=False)
        self.inserter_norm, self.inserter_dropout = nn.LayerNorm(dim), Dropout(params.dropout)
        for weight in (self.special, self.corrector.weight):
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.corrector.bias)
        self.judged: Tensor | int = 0
        self.dropped: Tensor | int = 0
        self.inserted: Tensor | int = 0

    # --- training ---

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Masked items as they are and as corrected, operations, inserted items: each a mean over its positions."""
        return self.losses(batch.items, Draws.of(len(batch.items), self.longest, batch.items.device))

    def losses(self, items: Int[Tensor, "batch time"], draws: Draws) -> dict[str, Tensor]:
        """The terms, given all that is random but dropout."""
        mended = self.corrected(items, self.longest)
        return {
            "ce": self.masked_item_loss(items, draws.mask),
            "corrected": self.masked_item_loss(mended, draws.mask_corrected),
            **self.corrector_losses(items, draws),
        }

    def masked_item_loss(
        self, items: Int[Tensor, "batch time"], draws: Float[Tensor, "batch width"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the masked items over the catalogue."""
        masked = self.masked(items, draws)
        states, where = self.filled_in(torch.where(masked, self.mask, items), masked)
        own = items.flatten()[where]
        return catalogue_cross_entropy(states, self.items.weight, own, self.settings.matmul_dtype) / len(where)

    def masked(
        self, items: Int[Tensor, "batch time"], draws: Float[Tensor, "batch width"]
    ) -> Bool[Tensor, "batch time"]:
        """Which items are masked: each with the same probability, and the newest where that takes none."""
        chosen = (items > 0) & (draws[:, : items.shape[1]] < self.params.mask_share)
        newest = F.one_hot((items > 0).sum(1) - 1, items.shape[1]).bool()
        return torch.where(chosen.any(1, keepdim=True), chosen, newest)

    def corrector_losses(self, items: Int[Tensor, "batch time"], draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy of the operations that mend disturbed histories, and of the items to insert."""
        given = corrupted(
            items,
            draws,
            self.rates,
            self.items.num_embeddings - 1,
            self.max_length,
            self.params.most_added,
            self.params.most_inserted,
        )
        states = self.encoded(given.items).flatten(0, 1)
        real, inserts = (found.flatten().nonzero().flatten() for found in (given.items > 0, given.operations == INSERT))
        logits = self.corrector(gather_rows(states, real))
        return {
            "operations": F.cross_entropy(logits, given.operations.flatten()[real]),
            "insertions": self.insertion_loss(gather_rows(states, inserts), given.missing.flatten(0, 1)[inserts]),
        }

    def insertion_loss(
        self, states: Float[Tensor, "inserts dim"], missing: Int[Tensor, "inserts most"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy, over items and the end, of the missing items and of the end where there is room; 0 for none.

        Only positions with something to insert are here, so no logits of others are ever computed.
        """
        if not len(states):
            return states.sum()
        counts = (missing > 0).sum(1, keepdim=True)
        targets = torch.where(torch.arange(missing.shape[1], device=counts.device) == counts, self.end, missing)
        found, where = self.decoded(states, missing[:, :-1])
        own = targets.flatten()[where]
        return catalogue_cross_entropy(found, self.output_table(), own, self.settings.matmul_dtype) / len(where)

    def end_epoch(self) -> dict[str, float]:
        """Report the share of the training items that the corrector deleted, and how many it inserted for each."""
        judged = max(1, int(self.judged))
        figures = {"drop_rate": int(self.dropped) / judged, "insert_rate": int(self.inserted) / judged}
        self.judged = self.dropped = self.inserted = 0
        return figures

    # --- correction ---

    @torch.no_grad()
    def corrected(self, items: Int[Tensor, "batch time"], most: int) -> Int[Tensor, "batch corrected"]:
        """Histories without what is to be deleted and with what is to be inserted; their newest `most` items.

        The model works as in evaluation, that is without dropout. A history left without items keeps its newest.
        """
        operations, inserted = self.corrections(items)
        kept = (items > 0) & (operations != DELETE)
        if self.training:
            self.count(items > 0, kept, inserted)
        newest = F.one_hot((items > 0).sum(1) - 1, items.shape[1]).bool()
        kept = torch.where(kept.any(1, keepdim=True), kept, newest)
        tokens = torch.cat([inserted, (items * kept)[..., None]], 2).flatten(1)
        return Slots.of(tokens > 0, most).moved(tokens)

    def corrections(
        self, items: Int[Tensor, "batch time"]
    ) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time most"]]:
        """The operation on each item, and what is inserted before it, oldest first, zeros after that."""
        with torch.no_grad(), evaluating(self):
            states = self.encoded(items)
            operations = decided(self.corrector(states))
            inserts = ((items > 0) & (operations == INSERT)).flatten().nonzero().flatten()
            found = self.generated(gather_rows(states.flatten(0, 1), inserts)).flip(1)  # then zeros come first
            found = Slots.of(found > 0, found.shape[1]).moved(found) if len(found) else found
        inserted = items.new_zeros(items.numel(), self.params.most_inserted)
        inserted[inserts, : found.shape[1]] = found
        return operations, inserted.unflatten(0, items.shape)

    def generated(self, states: Float[Tensor, "inserts dim"]) -> Int[Tensor, "inserts most"]:
        """Step by step the likeliest item to stand before those that are there; the nearest first, 0 after the end."""
        found = torch.zeros(len(states), self.params.most_inserted, dtype=torch.long, device=states.device)
        going = torch.arange(len(states), device=states.device)
        for step in range(found.shape[1]):
            if not len(going):
                break
            decoded, where = self.decoded(states[going], found[going, :step])
            best = self.likeliest(gather_rows(decoded, (where % (step + 1) == step).nonzero().flatten()))
            going, best = going[best != self.end], best[best != self.end]
            found[going, step] = best
        return found

    def likeliest(self, states: Float[Tensor, "some dim"]) -> Int[Tensor, " some"]:
        """The likeliest of the items and the end, computed in chunks that a cache can hold."""
        table = self.output_table()[1:]
        return torch.cat([(part @ table.T).argmax(1) + 1 for part in states.split(max(1, LOGITS // len(table)))])

    def count(self, valid: Tensor, kept: Tensor, inserted: Tensor) -> None:
        self.judged += valid.sum()
        self.dropped += (valid & ~kept).sum()
        self.inserted += (inserted > 0).sum()

    # --- inference ---

    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The state of a mask after each history, corrected where `correct_at_test` is set."""
        items = Slots.of(batch.valid, max(1, self.max_length - 1)).moved(batch.items)
        if self.params.correct_at_test:
            items = self.corrected(items, self.longest - 1)
        masked = F.one_hot((items > 0).sum(1), items.shape[1] + 1).bool()
        states, where = self.filled_in(torch.where(masked, self.mask, F.pad(items, (0, 1))), masked)
        return scatter_rows(states, where // masked.shape[1], len(items))

    def judge(self, batch: Batch) -> Verdicts:
        """Each item's verdict from its whole window; the score is how far keeping it is from deleting it, in logits.

        `states` corrects one item less of a full window, so there its verdicts may differ.
        """
        logits = self.corrector(self.encoded(batch.items))
        score = margin(logits)
        probability = 1 - logits.softmax(-1)[..., DELETE]
        return Verdicts.without_cosines(score, probability, score > 0)

    def insertions(self, batch: Batch) -> Int[Tensor, "batch time most"]:
        return self.corrections(batch.items)[1]

    # --- parts ---

    def encoded(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """The encoder's states; zeros at padding."""
        masks = tokens == self.mask
        inputs = torch.where(masks[..., None], self.special[1], self.items(tokens.masked_fill(masks, 0)))
        return self.backbone(inputs, tokens > 0)

    def filled_in(
        self, tokens: Int[Tensor, "batch time"], masked: Bool[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "masked dim"], Int[Tensor, " masked"]]:
        """The recommender's states of the masked tokens, and the flat numbers of these."""
        real, groups = length_groups(tokens > 0)
        states = gather_rows(self.encoded(tokens).flatten(0, 1), real)
        needed = masked.flatten()[real].nonzero().flatten()
        return self.recommender(states, groups, needed), real[needed]

    def decoded(
        self, states: Float[Tensor, "inserts dim"], before: Int[Tensor, "inserts steps"]
    ) -> tuple[Float[Tensor, "real dim"], Int[Tensor, " real"]]:
        """The inserter's state after an item's own state and after each token that is to stand before the item.

        Also which these are, in [inserts, 1 + steps], where padding of `before` has none.
        """
        inputs = torch.cat([states[:, None], self.items(before)], 1)
        real, groups = length_groups(F.pad(before > 0, (1, 0), value=True))
        positions = self.backbone.positions(real % inputs.shape[1])
        inputs = self.inserter_norm(gather_rows(inputs.flatten(0, 1), real) + positions)
        return self.inserter(self.inserter_dropout(inputs), groups), real

    def output_table(self) -> Float[Tensor, "table dim"]:
        """What the inserter's states are scored against: items, and the end as the last row."""
        return torch.cat([self.items.weight, self.special[:1]])


def margin(logits: Float[Tensor, "batch time 3"]) -> Float[Tensor, "batch time"]:
    """How far the likelier way to keep an item is above deleting it."""
    return logits[..., (KEEP, INSERT)].amax(-1) - logits[..., DELETE]


def decided(logits: Float[Tensor, "batch time 3"]) -> Int[Tensor, "batch time"]:
    """The likeliest operation; of equals, deleting before keeping before inserting."""
    kept = torch.where(logits[..., INSERT] > logits[..., KEEP], INSERT, KEEP)
    return torch.where(margin(logits) > 0, kept, DELETE)
