"""Stage `encode`: item titles and histories -> text vectors of items and prefixes (Eq. 3-5)."""

from __future__ import annotations

from stages import paths
from stages.command import Params, new_app, reports_errors

app = new_app()


@app.command(epilog="Example: python -m stages.encode")
@reports_errors
def main(params: Params = paths.PARAMS) -> None:
    """Turn data/filtered into data/encoded: a vector for each item's title and for each prefix of a history.

    Reads `encoder`, `encoders.<encoder>`, `encode` and `datasets.<dataset>.max_length`. A run that was killed goes on
    from .cache/encode when the same command is given again.
    """
    import time

    from iadsr import encoders, encoding
    from iadsr.device import pick_device, pick_dtype, set_threads
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
    device = pick_device(settings.device, "encode.device")
    encoder = encoders.open_encoder(recipe.spec, device, pick_dtype(settings.dtype, device))
    counts = encoding.write_encoded(paths.ENCODED, corpus, encoder, recipe, paths.ENCODE_WORK)
    print(
        f"{name} on {device.type} ({encoder.dtype}): {counts.texts:,} texts, {counts.distinct_texts:,} distinct, "
        f"{counts.tokens:,} tokens, {counts.truncated_texts:,} cut to their newest {recipe.spec.max_tokens} tokens, "
        f"{encoder.dim} dimensions, {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    app()
