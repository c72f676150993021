"""Which encoders there are, and how one is opened; a kind is imported where it is used, since that takes seconds."""

from __future__ import annotations

import torch

from iadsr.device import dtype_name, is_out_of_memory
from iadsr.encode.encoders import prefix_sharing, random_vectors
from iadsr.encode.encoders.interface import (
    Encoder,
    EncoderParams,
    Identity,
    RandomVectorsParams,
    TransformerEncoderParams,
)
from iadsr.encode.encoders.random_vectors import RandomVectors
from iadsr.errors import UserError


def open_encoder(spec: EncoderParams, device: torch.device, dtype: torch.dtype, separator: str = "") -> Encoder:
    """Load the encoder that `spec` describes; with a separator, it computes texts that go on behind one together.

    UserError when its weights are not available, do not fit its kind, or cannot compute texts together.
    """

    try:
        encoder: Encoder
        if isinstance(spec, TransformerEncoderParams):
            from iadsr.encode.encoders.transformer import TransformerEncoder

            encoder = TransformerEncoder(spec, device, dtype, separator)
        elif isinstance(spec, RandomVectorsParams):
            encoder = RandomVectors(spec, device, separator)
        else:
            from iadsr.encode.encoders import llm2vec

            encoder = llm2vec.opened(spec, device, dtype, separator)
        if separator:
            prefix_sharing.assert_shares(encoder, spec.model)
        return encoder
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{spec.model}: too large for the memory of {device} in {dtype_name(dtype)}; use a larger "
            "device, or encode.dtype: bfloat16"
        ) from None


def identity(spec: EncoderParams) -> Identity:
    """The identity of the weights that `spec` names; UserError as in `open_encoder`."""

    if isinstance(spec, TransformerEncoderParams):
        from iadsr.encode.encoders import transformer

        return transformer.identity(spec)
    if isinstance(spec, RandomVectorsParams):
        return random_vectors.identity(spec)
    from iadsr.encode.encoders import llm2vec

    return llm2vec.identity(spec)
