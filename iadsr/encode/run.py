"""What one process of the stage does, with a line for a person about it."""

from __future__ import annotations

import time
from pathlib import Path

from iadsr.encode.fill import Engine, RecipeEncoder, fill_share, in_this_process
from iadsr.encode.launcher import Share
from iadsr.encode.ray_workers import RayEngine
from iadsr.encode.recipe import Recipe
from iadsr.encode.texts import Corpus
from iadsr.encode.write import write_encoded


def encode_all(folder: Path, corpus: Corpus, lazy: RecipeEncoder, recipe: Recipe, work: Path, share: Share) -> str:
    """The first process: encode what no other does, and write the arrays."""
    began = time.perf_counter()
    engine: Engine = RayEngine(recipe) if recipe.settings.engine == "ray" else in_this_process(share.ranks)
    counts, new, dim = write_encoded(folder, corpus, lazy, recipe, work, engine)
    return (
        f"{recipe.name} on {lazy.device.type} ({lazy.identity['dtype']}): {counts.texts:,} texts, "
        f"{counts.distinct_texts:,} distinct, {new:,} of them new, {counts.tokens:,} tokens, "
        f"{counts.truncated_texts:,} cut to their newest {recipe.spec.max_tokens} tokens, {dim} dimensions, "
        f"{time.perf_counter() - began:.0f} s{recipe.why_no_prefixes}"
    )


def encode_share(corpus: Corpus, lazy: RecipeEncoder, recipe: Recipe, work: Path, share: Share) -> str:
    """Any other process: encode only."""
    store = fill_share(corpus, lazy, recipe, work, share)
    return (
        f"{recipe.name} on {lazy.device.type}: process {share.rank + 1} of {share.ranks} has done its share in {store}"
    )
