"""Denoising sequential recommendation: frames and tensors in, frames and tensors out.

`from iadsr import load` gives a trained model that recommends and judges logs (iadsr/serving/loaded.py).
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, imported when it is asked for: the stages do without, and start faster."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("iadsr.serving.loaded").load
