"""The whole detector: gap models, none of which has seen the users whom it judges, and what weighs their signals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float16, Int, Int8
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.device import pick_dtype
from iadsr.layers.principal import from_centre, mean_direction
from iadsr.models.denoisers.cloze.gap_model import GapModel
from iadsr.models.denoisers.cloze.signals import BEHAVIOUR, NAMES, TEXT, signals_of
from iadsr.models.denoisers.cloze.weighing import Weighing
from iadsr.params import Group
from iadsr.sequences.windows import Batch

Kind = Literal["uniform", "popularity", "near_miss", "boundary", "burst"]


class DetectorParams(Group):
    """`denoisers.cloze.detector` of params.yaml."""

    folds: int = Field(ge=2, le=100)  # of users; each is judged by a model trained on the others
    dim: int = Field(ge=2, multiple_of=2)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    own_decay: float = Field(ge=0)  # how strongly an item is held to what its text says
    negatives: int = Field(ge=2)  # half of them drawn evenly, half by popularity
    batch_size: int = Field(ge=1)  # windows
    seed: int = Field(ge=0)  # of its folds, its weights and what it plants
    kinds: list[Kind] = Field(min_length=1)  # of noise, which it plants itself to learn from
    until: str = ""  # it knows rows up to this time, a day's first moment (UTC); "": all, as before there was this

    @field_validator("until")
    @classmethod
    def _is_time(cls, value: str) -> str:
        try:
            datetime.fromisoformat(value or "2000-01-01")
        except ValueError:
            raise ValueError("expected a date or a time such as 2026-11-30 or 2026-11-30T03:00, or ''") from None
        return value

    @property
    def until_time(self) -> datetime | None:
        """None: it is trained on the data set as it is."""
        if not self.until:
            return None
        time = datetime.fromisoformat(self.until)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


class Examined(NamedTuple):
    """Of the items of windows; 0 of padding."""

    noise: Float[Tensor, "batch time"]  # the probability
    agreement: Float[Tensor, " batch"]  # of each window's two views, -1 to 1
    parts: Float[Tensor, "batch time signals"]  # what each signal adds to the fit


class Detector(nn.Module):
    """Probabilities of noise for any history: a known user's from the model of his fold, a stranger's from all."""

    texts: Float16[Tensor, "catalogue width"]
    centre: Float[Tensor, " width"]  # the mean direction of the catalogue's texts
    fold_of_user: Int8[Tensor, " strangers_and_users"]

    def __init__(self, users: int, items: int, width: int, max_length: int, params: DetectorParams) -> None:
        super().__init__()
        self.params, self.max_length, self._catalogue = params, max_length, (items, width)
        self.models = nn.ModuleList(self.fresh_model() for _ in range(params.folds))
        self.weighing = Weighing(len(NAMES))
        self.register_buffer("texts", torch.zeros(items + 1, width, dtype=torch.float16))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("fold_of_user", torch.full((users + 1,), -1, dtype=torch.int8))

    def fresh_model(self) -> GapModel:
        return GapModel(*self._catalogue, self.params.dim, self.max_length, self.params.dropout)

    def model(self, fold: int) -> GapModel:
        """Which judges this fold's users."""
        found = self.models[fold]
        assert isinstance(found, GapModel)
        return found

    @torch.no_grad()
    def read(self, vectors: Float[Tensor, "catalogue width"]) -> None:
        """Take the items' text vectors, centred and of unit length; zero where there is no text."""
        self.centre.copy_(mean_direction(vectors))
        self.texts.copy_(self.like_those_read(vectors))

    def like_those_read(self, vectors: Float[Tensor, "some width"]) -> Float[Tensor, "some width"]:
        """Other text vectors as the catalogue's are."""
        return from_centre(vectors, self.centre)

    @torch.no_grad()
    def adopt(self, other: Detector, users: Int[Tensor, " users"], items: Int[Tensor, " catalogue"]) -> None:
        """Judge as another detector does, which was trained on the same items, and some of the users, in other order.

        `users`: the number here, from 0, of each of its users; `items`: of each of its items, padding included.
        """
        state = other.state_dict()
        tables = [f"models.{fold}.{table}.weight" for fold in range(len(self.models)) for table in ("own", "bias")]
        for name in ("texts", *tables):
            state[name] = torch.empty_like(state[name]).index_copy(0, items.to(state[name].device), state[name])
        folds = torch.full_like(self.fold_of_user, -1)
        folds[users + 1] = other.fold_of_user[1:]
        self.load_state_dict({**state, "fold_of_user": folds})
        self.eval()  # it judges training rows next

    @torch.no_grad()
    def judge(
        self,
        batch: Batch,
        others: Float[Tensor, "others width"] | None = None,
        asked: Bool[Tensor, "batch time"] | None = None,
    ) -> Examined:
        """What the models say of each window that do not know its user, or of a stranger's all in the mean.

        `others` are text vectors, as `like_those_read` gives them, of items beyond the catalogue, which follow its own.
        With real items that are `asked` for, verdicts on others are some number, and so is the agreement.
        """
        probability = torch.zeros(batch.items.shape, device=batch.items.device)
        parts = probability[..., None].repeat(1, 1, len(NAMES))
        agreement = torch.zeros(len(batch.items), device=batch.items.device)
        folds, texts = self.fold_of_user[batch.users], self.texts.float()
        texts = texts if others is None else torch.cat([texts, others])
        dtype = pick_dtype("auto", texts.device)
        for number in range(len(self.models)):
            for own, share in ((folds == number, 1.0), (folds < 0, 1 / len(self.models))):
                if own.any():
                    some = None if asked is None else asked[own]
                    signals = signals_of(self.model(number), batch.items[own], texts, dtype, some)
                    probability[own] += share * self.weighing.noise_probability(signals)
                    agreement[own] += share * self.agreement(signals, batch.valid[own])
                    parts[own] += share * self.weighing.parts(signals)
        return Examined(probability * batch.valid, agreement.clamp(-1, 1), parts * batch.valid[..., None])

    def agreement(
        self, signals: Float[Tensor, "windows time signals"], valid: Bool[Tensor, "windows time"]
    ) -> Float[Tensor, " windows"]:
        """The cosine, over a window's items, of what behaviour says of them with what their texts say, in log-odds.

        To both an item is added of which they agree, so that views that say next to nothing do not contradict.
        """
        parts = self.weighing.parts(signals) * valid[..., None]
        behaviour, text = (
            F.pad(parts[..., [NAMES.index(name) for name in view]].sum(-1), (0, 1), value=1.0)
            for view in (BEHAVIOUR, TEXT)
        )
        return F.cosine_similarity(behaviour, text, dim=1)
