"""Where raw data comes from: one module a kind of source, each with its parameters and a `load`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iadsr.errors import UserError
from iadsr.ingest import amazon, demo, movielens, official_files, own_files
from iadsr.ingest.amazon import Amazon2014
from iadsr.ingest.demo import Demo
from iadsr.ingest.movielens import MovieLens100K
from iadsr.ingest.own_files import Files
from iadsr.ingest.raw import Raw
from iadsr.ingest.rejects import Rejects
from iadsr.params import Params, choice, group, lookup

SourceParams = Demo | MovieLens100K | Amazon2014 | Files
KINDS: dict[str, type[SourceParams]] = {
    "demo": Demo,
    "movielens-100k": MovieLens100K,
    "amazon-2014": Amazon2014,
    "files": Files,
}


def chosen_source(params: Params) -> SourceParams:
    """The checked `datasets.<dataset>.source`, a union told apart by `kind`; UserError names the wrong key."""
    key = f"datasets.{choice(params, 'dataset', 'datasets')}.source"
    kind = lookup(params, f"{key}.kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"params.yaml: {key}.kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    return group(params, key, KINDS[kind])


def load(source: SourceParams, fetch: Callable[[official_files.OfficialFile], Path], rejects: Rejects) -> Raw:
    """Both raw tables of a source; `fetch` turns an official file into a path, `rejects` takes the bad rows."""
    match source:
        case Demo():
            return demo.load(source)
        case Files():
            return own_files.load(source, rejects)
        case MovieLens100K():
            return movielens.load(fetch, rejects)
        case Amazon2014():
            return amazon.load(source, fetch, rejects)
