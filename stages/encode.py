"""Stage `encode`: item titles and histories -> text vectors of items and prefixes (Eq. 3-5)."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import paths
from stages.command import Params, new_app, reports_errors

app = new_app()


@app.command(
    epilog="Example: python -m stages.encode   (what it would cost: python -m stages.encode --estimate; on eight GPUs: "
    "torchrun --nproc-per-node 8 -m stages.encode)"
)
@reports_errors
def main(
    params: Params = paths.PARAMS,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Encode a sample only; print texts, tokens, bytes and expected hours.")
    ] = False,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="With --estimate: dense TFLOP/s of a device to rent; its hours, too.", show_default=False
        ),
    ] = None,
) -> None:
    """Turn data/filtered into data/encoded: a vector for each item's title and for each prefix of a history.

    Reads `encoder`, `encoders.<encoder>`, `encode` and `datasets.<dataset>.max_length`. What was encoded stays in
    .cache/encode: a run that was killed goes on when the same command is given again, and of other data only the new
    texts are encoded. Under torchrun, srun or in a SLURM array each process encodes its share into the same folder, and
    the first one writes data/encoded.
    """
    import time

    from iadsr import cluster, encoders, encoding
    from iadsr.device import pick_device, pick_dtype, set_threads
    from iadsr.encode_estimate import estimated
    from iadsr.params import choice, group, lookup, read_params
    from iadsr.texts import checked_max_length, read_corpus

    started = time.perf_counter()
    content = read_params(params)
    dataset = choice(content, "dataset", "datasets")
    max_length = checked_max_length(lookup(content, f"datasets.{dataset}.max_length"), dataset)
    name = choice(content, "encoder", "encoders")
    settings = group(content, "encode", encoding.EncodeParams)
    recipe = encoding.Recipe(name, encoders.encoder_params(content, name), settings, max_length)
    corpus = read_corpus(paths.SEQUENCES, paths.ITEMS)

    set_threads(settings.threads, "encode.threads")
    share = cluster.share()
    device = pick_device(share.device(settings.device), "encode.device")
    source = encoding.Weights(recipe, device, pick_dtype(settings.dtype, device))
    if estimate and not share.rank:
        print(estimated(corpus, recipe, source, paths.ENCODE_WORK, tflops))
    if estimate:
        return
    if share.rank:
        store = encoding.write_share(corpus, source, recipe, paths.ENCODE_WORK, share.rank, share.ranks)
        print(f"{name} on {device.type}: process {share.rank + 1} of {share.ranks} has done its share in {store}")
        return
    engine: encoding.Engine = encoding.in_this_process(share.ranks)
    if settings.engine == "ray":
        from iadsr.ray_engine import RayEngine

        engine = RayEngine(recipe)
    counts, new, dim = encoding.write_encoded(paths.ENCODED, corpus, source, recipe, paths.ENCODE_WORK, engine)
    print(
        f"{name} on {device.type} ({source.identity['dtype']}): {counts.texts:,} texts, {counts.distinct_texts:,} "
        f"distinct, {new:,} of them new, {counts.tokens:,} tokens, {counts.truncated_texts:,} cut to their newest "
        f"{recipe.spec.max_tokens} tokens, {dim} dimensions, {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    app()
