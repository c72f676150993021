"""Denoisers: each is a Recommender with its own losses and its own `keep`."""

from __future__ import annotations

from iadsr.backbones import BACKBONES
from iadsr.denoisers.adt import ADT
from iadsr.denoisers.dcrec import DCRec
from iadsr.denoisers.hsd import HSD
from iadsr.denoisers.iadsr import IADSR
from iadsr.denoisers.semantic import Semantic
from iadsr.denoisers.ssdrec import SSDRec
from iadsr.denoisers.steam import STEAM
from iadsr.errors import UserError
from iadsr.params import Group, Params, choice, group, lookup, one_of
from iadsr.recommender import NoParams, Recommender

DENOISERS: dict[str, type[Recommender]] = {
    "none": Recommender,
    "iadsr": IADSR,
    "hsd": HSD,
    "ssdrec": SSDRec,
    "steam": STEAM,
    "dcrec": DCRec,
    "adt": ADT,
    "semantic": Semantic,
}
NO_BACKBONE = "none"  # of a denoiser with an encoder of its own


def chosen_denoiser(params: Params) -> tuple[str, str]:
    """The names `denoiser` and `backbone`; UserError for unknown ones and for two that do not go together."""
    denoiser = one_of(params, "denoiser", DENOISERS)
    backbone = choice(params, "backbone", "backbones")
    if backbone not in backbones_of(denoiser):
        known = "; ".join(f"{name} with {', '.join(backbones_of(name))}" for name in DENOISERS)
        raise UserError(f"params.yaml: backbone: {denoiser} does not go with {backbone!r}; there are: {known}")
    return denoiser, backbone


def backbones_of(denoiser: str) -> tuple[str, ...]:
    """What `backbone` may be with this denoiser."""
    return (NO_BACKBONE,) if DENOISERS[denoiser].own_encoder else tuple(BACKBONES)


def denoiser_params(params: Params, name: str) -> Group:
    """The checked group that is named like the denoiser; the plain backbone has none."""
    if name == "none":
        return NoParams()
    more = {"theta": lookup(params, "theta")} if name == "iadsr" else {}
    return group(params, name, DENOISERS[name].params_type, **more)
