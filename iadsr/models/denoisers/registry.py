"""Which denoisers there are.

To add one: its file, a line here and its import, its entry in `denoisers` of params.yaml, a test, a row in
docs/rivals.md; if it reads the text of prefixes, its name in `READ_PREFIXES` of iadsr/encode/recipe.py.
"""

from __future__ import annotations

from iadsr.models.denoisers.adt import ADT
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.denoisers.dcrec import DCRec
from iadsr.models.denoisers.hsd import HSD
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.denoisers.plain import Plain
from iadsr.models.denoisers.ssdrec.model import SSDRec
from iadsr.models.denoisers.steam.model import STEAM
from iadsr.models.denoisers.text_rule import TextRule
from iadsr.models.recommender import Recommender

DENOISERS: dict[str, type[Recommender]] = {
    "none": Plain,
    "iadsr": IADSR,
    "hsd": HSD,
    "ssdrec": SSDRec,
    "dcrec": DCRec,
    "steam": STEAM,
    "adt": ADT,
    "text_rule": TextRule,
    "cloze": Cloze,
}
