"""Backbones: item states [batch, time, dim], which are real, which prefixes are wanted -> their causal states.

States are [batch, time, hidden]; those of padding are zero, those of unwanted prefixes zero or right.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from iadsr.backbones.caser import Caser, CaserParams
from iadsr.backbones.gru4rec import GRU4Rec, GRU4RecParams
from iadsr.backbones.sasrec import SASRec, SASRecParams
from iadsr.params import Group

BACKBONES: dict[str, tuple[type[nn.Module], type[Group]]] = {
    "gru4rec": (GRU4Rec, GRU4RecParams),
    "caser": (Caser, CaserParams),
    "sasrec": (SASRec, SASRecParams),
}


def build_backbone(name: str, dim: int, max_length: int, params: Group) -> Any:
    """A freshly initialised backbone.

    Its `hidden` attribute is the width of the states it returns, `reach` how many of a prefix's newest items its state
    depends on (None: all).
    """
    return BACKBONES[name][0](dim, max_length, params)
