"""Where raw data comes from: one module a kind of source, each with its parameters and a `load`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iadsr import catalogue
from iadsr.errors import UserError
from iadsr.params import Params, choice, group, lookup
from iadsr.rejects import Rejects
from iadsr.sources import amazon, demo, files, movielens
from iadsr.sources.amazon import Amazon2014
from iadsr.sources.demo import Demo
from iadsr.sources.files import Files
from iadsr.sources.movielens import MovieLens100K
from iadsr.sources.raw import Raw

Source = Demo | MovieLens100K | Amazon2014 | Files
KINDS: dict[str, type[Source]] = {
    "demo": Demo,
    "movielens-100k": MovieLens100K,
    "amazon-2014": Amazon2014,
    "files": Files,
}


def chosen_source(params: Params) -> Source:
    """The checked `datasets.<dataset>.source`, a union told apart by `kind`; UserError names the wrong key."""
    key = f"datasets.{choice(params, 'dataset', 'datasets')}.source"
    kind = lookup(params, f"{key}.kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"params.yaml: {key}.kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    return group(params, key, KINDS[kind])


def load(source: Source, fetch: Callable[[catalogue.OfficialFile], Path], rejects: Rejects) -> Raw:
    """Both raw tables of a source; `fetch` turns an official file into a path, `rejects` takes the bad rows."""
    match source:
        case Demo():
            return demo.load(source)
        case Files():
            return files.load(source, rejects)
        case MovieLens100K():
            return movielens.load(fetch, rejects)
        case Amazon2014():
            return amazon.load(source, fetch, rejects)
