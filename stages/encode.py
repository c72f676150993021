"""Stage `encode`: item titles and histories -> text vectors of items, and of prefixes if they are read (Eq. 3-5)."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

app = new_app()

EXAMPLE = (
    "Example: python -m stages.encode   (what it would cost: python -m stages.encode --estimate; on eight GPUs: "
    "torchrun --nproc-per-node 8 -m stages.encode)"
)
Estimate = Annotated[
    bool, typer.Option("--estimate", help="Encode a sample only; print texts, tokens, bytes and expected hours.")
]
Tflops = Annotated[
    float | None,
    typer.Option(
        min=0.001, help="With --estimate: dense TFLOP/s of a device to rent; its hours, too.", show_default=False
    ),
]


@app.command(epilog=EXAMPLE)
@reports_errors
def main(params: ParamsFile = paths.PARAMS, estimate: Estimate = False, tflops: Tflops = None) -> None:
    """Turn data/filtered into data/encoded: a vector for each item's title and, if `denoiser` reads them, each prefix.

    Reads `denoiser`, `encoder`, `encoders.<encoder>`, `encode` and `datasets.<dataset>.max_length`. What was encoded
    stays in .cache/encode: a run that was killed goes on when the same command is given again, and of other data only
    the new texts are encoded. Under torchrun, srun or in a SLURM array each process encodes its share into the same
    folder, and the first one writes data/encoded.
    """
    from iadsr.encode.estimate import estimated
    from iadsr.encode.fill import RecipeEncoder
    from iadsr.encode.launcher import share_of_this_process
    from iadsr.encode.recipe import Recipe
    from iadsr.encode.run import encode_all, encode_share
    from iadsr.encode.texts import read_corpus
    from iadsr.params import read_params
    from iadsr.provenance import read_note, require_params

    content = read_params(params)
    recipe = Recipe.of(content)
    corpus, share = read_corpus(paths.SEQUENCES, paths.ITEMS), share_of_this_process()
    require_params(paths.FILTERED, read_note(paths.FILTERED, "filter")["params"], content, "filter")
    lazy = RecipeEncoder.here(recipe, share)
    if share.rank:
        said = "" if estimate else encode_share(corpus, lazy, recipe, paths.ENCODE_WORK, share)
    elif estimate:
        said = estimated(corpus, recipe, lazy, paths.ENCODE_WORK, tflops)
    else:
        said = encode_all(paths.ENCODED, corpus, lazy, recipe, paths.ENCODE_WORK, share)
    if said:
        print(said)


if __name__ == "__main__":
    app()
