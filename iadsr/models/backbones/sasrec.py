"""SASRec: causal self-attention over the prefix (Kang and McAuley 2018), post-norm blocks as in RecBole."""

from __future__ import annotations

from iadsr.layers.attention import Transformer, TransformerParams, check_heads


class SASRecParams(TransformerParams):
    """`backbones.sasrec` of params.yaml."""


class SASRec(Transformer):
    """Transformer blocks with a causal mask."""

    def __init__(self, dim: int, max_length: int, params: SASRecParams) -> None:
        check_heads(dim, params, "backbones.sasrec")
        super().__init__(dim, max_length, params, causal=True)
