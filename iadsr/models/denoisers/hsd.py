"""HSD (Zhang et al., CIKM 2022): drop an item where the sequence around it and the user's interest both object.

The two signals, the decision and the losses are those of two_signals.py. Every prefix is an example of its own, as in
the released code, which stores each prefix as a row. Where a model is used, the released code still samples decisions;
here they are then deterministic.

Where the released code deviates, the correct form is the default and `quirks` brings the deviation back:

- `target_query`: in training the item's signal asks the target item instead of the user, though at test there is none.
- `batch_norm`: the item's signal normalises over the batch, padding included. Examples of one batch are prefixes of one
  another, so such a statistic shows a prefix what comes after it; the default normalises each embedding by itself.
- `short_user_loss`: histories too short for a share of their losses to make one item lose all of them.

Not brought back: `neg_sampling: uniform 5` of its SASRec repeats every example five times for a loss that has no use
for negatives. What the specification leaves open: what the LSTM reads is under dropout, what it must rebuild is not;
the user's loss is a mean over items, of which those left out count 0; a negative is any item of the catalogue; a user
outside the data set, and everybody who is served, has the zero vector. In training a user's vector has learnt from all
of the user's training items, later ones too, as in any recommender with such vectors.
"""

from __future__ import annotations

from typing import Any, Literal

from iadsr.layers.jagged import Jagged
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.masking import mask_generator
from iadsr.models.denoisers.two_signals import TwoSignalParams, TwoSignals, View
from iadsr.sequences.prefix_examples import Prefixes
from iadsr.sequences.windows import Batch, Feed


class HSDParams(TwoSignalParams):
    """`denoisers.hsd` of params.yaml."""

    quirks: list[Literal["target_query", "batch_norm", "short_user_loss"]]


class HSD(TwoSignals):
    """The prefixes themselves; the item's signal asks the user."""

    params_type = HSDParams

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> HSD:
        params = HSDParams.model_validate(config.denoiser_params)
        sizes = config.item_count, config.user_count, config.dim, config.max_length
        return cls(*sizes, backbone, params, mask_generator(config.seed))

    def view_in_training(self, batch: Batch, examples: Prefixes) -> View:
        return View(examples.batch, self.users(examples.batch.users))

    def view_in_use(self, batch: Batch, real: Jagged) -> View:
        return View(batch, self.users(batch.users))
