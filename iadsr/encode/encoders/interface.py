"""Text encoders: what params.yaml says of them, and what each offers (Eq. 3-5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from iadsr.errors import UserError
from iadsr.params import Group, Params, group, lookup


class TransformerEncoderParams(Group):
    """`encoders.<name>` of kind `transformer`: any encoder of the transformers library."""

    kind: Literal["transformer"]
    model: str = Field(min_length=1)  # a folder, a hub name, or an installed package that carries the weights
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True  # to unit length, as the model cards of MiniLM, E5, BGE and GTE do
    max_tokens: int = Field(ge=8)


class Llm2VecParams(Group):
    """`encoders.<name>` of kind `llm2vec`: a decoder language model made bidirectional (LLM2Vec)."""

    kind: Literal["llm2vec"]
    model: str = Field(min_length=1)
    adapters: list[str] = Field(default_factory=list)  # merged in this order
    pooling: Literal["mean", "weighted_mean", "eos_token"] = "mean"
    instruction: str = ""
    max_tokens: int = Field(ge=8)


class RandomVectorsParams(Group):
    """`encoders.<name>` of kind `random`: vectors that know nothing of their texts."""

    kind: Literal["random"]
    dim: int = Field(ge=1)
    seed: int = Field(ge=0)

    model: ClassVar[str] = "random vectors"  # as messages name it
    pooling: ClassVar[str] = "none"
    max_tokens: ClassVar[int] = 8


EncoderParams = TransformerEncoderParams | Llm2VecParams | RandomVectorsParams
KINDS: dict[str, type[TransformerEncoderParams] | type[Llm2VecParams] | type[RandomVectorsParams]] = {
    "transformer": TransformerEncoderParams,
    "llm2vec": Llm2VecParams,
    "random": RandomVectorsParams,
}


class Tokens(NamedTuple):
    """One text as token ids, at most `max_tokens` of them; the last `pooled` ids are the text itself."""

    ids: Int[np.ndarray, " length"]
    pooled: int
    truncated: bool
    # the block of each id but those behind the text, if it may be computed with others (prefix_sharing.py)
    blocks: Int[np.ndarray, " body"] | None = None


class Identity(NamedTuple):
    """Which weights an encoder has, known without loading them."""

    fingerprint: str  # differs between two sets of weights
    revision: str | None  # the commit on the model hub; None for a folder


@runtime_checkable
class Encoder(Protocol):
    """Texts -> tokens -> vectors, in two steps, so that texts can be sorted by length between them."""

    dim: int
    model: Any
    device: torch.device
    dtype: str  # of the computation: float32 or bfloat16

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of each text; where there are too many, the oldest (leftmost) of the text are cut."""
        ...

    def vectors(self, batch: Sequence[Tokens]) -> Float[Tensor, "batch dim"]:
        """One float32 vector a text, whatever the precision of the computation, on the encoder's device."""
        ...

    def together(self, batch: Sequence[Sequence[Tokens]]) -> Float[Tensor, "texts dim"]:
        """The vectors of chains of texts that begin one another; the encoder must be opened with a separator."""
        ...


def encoder_params(params: Params, name: str) -> EncoderParams:
    """`encoders.<name>`, checked as its `kind` demands; UserError with the path of a wrong key."""
    kind = lookup(params, f"encoders.{name}.kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"params.yaml: encoders.{name}.kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    return group(params, f"encoders.{name}", KINDS[kind])
