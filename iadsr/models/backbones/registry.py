"""Which backbones there are, and what each offers.

A backbone takes item states [batch, time, dim], which of them are real, and the positions whose prefixes are asked for.
It returns the causal states of these prefixes [batch, time, hidden]; those of padding are zero, those of other prefixes
zero or right.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from iadsr.models.backbones.caser import Caser, CaserParams
from iadsr.models.backbones.gru4rec import GRU4Rec, GRU4RecParams
from iadsr.models.backbones.ligr import LiGR, LiGRParams
from iadsr.models.backbones.sasrec import SASRec, SASRecParams
from iadsr.params import Group

BACKBONES: dict[str, tuple[type[nn.Module], type[Group]]] = {
    "gru4rec": (GRU4Rec, GRU4RecParams),
    "caser": (Caser, CaserParams),
    "sasrec": (SASRec, SASRecParams),
    "ligr": (LiGR, LiGRParams),
}


def build_backbone(name: str, dim: int, max_length: int, params: Group) -> Any:
    """A freshly initialised backbone.

    Its `hidden` attribute is the width of the states that it returns, its `receptive_field` the number of a prefix's
    newest items that its state depends on (None: all).
    """
    return BACKBONES[name][0](dim, max_length, params)
