"""Does denoising help on the data of this project? Methods side by side over seeds, tested; not a DVC stage."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

app = new_app()
PLAIN, OURS = "none", "cloze"
METHODS = "none,text_rule,iadsr,cloze"
WORK = Path(".cache/compare")
CUTOFF, DECIDING = 10, "ndcg_10_unfiltered"
CERTAIN, CONFIDENCE = 0.05, 0.95
PLANTED = {"kind": "uniform", "ratio": 0.2, "seed": 0}
NOISE = ("noise_auc", "noise_precision", "noise_recall")
Found = dict[str, dict[str, Any]]  # by method


@app.command(epilog="Example: python -m stages.compare --seeds 0,1,2")
@reports_errors
@alone("compare")
def main(
    methods: Annotated[str, typer.Option(help="Entries of `denoisers`; the first is compared with.")] = METHODS,
    seeds: Annotated[str, typer.Option(help="Of training. One seed proves little.")] = "0,1,2",
    planted: Annotated[
        bool, typer.Option(help="Where no noise is known, also plant some, and see whether cloze finds it.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and no table.")] = False,
    params: ParamsFile = paths.PARAMS,
) -> None:
    """Train each method on data/filtered under each seed, and say whether any is better on the users' last items.

    It takes as many trainings as methods times seeds. Methods differ in `denoiser` alone. What is trained stays in
    .cache/compare: interrupted, the same command goes on. Prefixes are encoded as means of item vectors, whatever
    params.yaml says, so that iadsr takes minutes.
    """
    from iadsr.params import read_params
    from stages.seeds import parsed
    from stages.tracking import prepare_store

    content = read_params(params)
    chosen, to_plant = chosen_methods(content, methods), with_plants(content) if planted else None
    prepare_store()
    found = compared({name: trained(content, name, parsed(seeds)) for name in chosen})
    result: dict[str, Any] = {"dataset": content["dataset"], "seeds": parsed(seeds), "methods": found}
    if to_plant:
        result["planted"] = found_of_planted(to_plant)
    result["conclusion"] = conclusion(found)
    print(json.dumps(result) if as_json else "\n".join(lines(result)))


def chosen_methods(content: dict[str, Any], listed: str) -> list[str]:
    """UserError for one that there is not, for one that lacks a backbone, and for fewer than two."""
    from iadsr.errors import UserError
    from iadsr.models.assembly import NO_BACKBONE
    from iadsr.models.denoisers.registry import DENOISERS

    names = [name.strip() for name in listed.split(",")]
    for name in names:
        if name not in DENOISERS or name not in content["denoisers"]:
            raise UserError(
                f"--methods {name}: no entry of `denoisers` in params.yaml; there are {', '.join(DENOISERS)}"
            )
        if content["backbone"] == NO_BACKBONE and not DENOISERS[name].traits.own_encoder:
            raise UserError(
                f"backbone: {NO_BACKBONE}, but {name} needs one; set gru4rec, caser, sasrec or ligr in params.yaml"
            )
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"--methods {listed}: expected two different methods or more, such as none,cloze")
    return names


def trained(content: dict[str, Any], method: str, seeds: list[int]) -> list[Path]:
    """Train and evaluate the seeds; their folders. A method with an encoder of its own goes without backbone."""
    from iadsr.models.assembly import NO_BACKBONE
    from iadsr.models.denoisers.registry import DENOISERS
    from stages.seeds import run_stage
    from stages.tracking import tracking_uri

    backbone = NO_BACKBONE if DENOISERS[method].traits.own_encoder else content["backbone"]
    folder = workspace({**content, "denoiser": method, "backbone": backbone}, WORK / method, [paths.FILTERED])
    say, began = partial(print, file=sys.stderr, flush=True), time.perf_counter()
    say(f"{method}: training {len(seeds)} seeds, see {folder / 'log.txt'}")
    for command in (["stages.encode"], ["stages.train", "--seeds", ",".join(map(str, seeds))]):
        run_stage(folder, method, *command, MLFLOW_TRACKING_URI=tracking_uri())
    say(f"{method}: done in {time.perf_counter() - began:.0f} s")
    return [folder / paths.SEEDS / str(seed) for seed in seeds]


def workspace(content: dict[str, Any], folder: Path, inputs: list[Path]) -> Path:
    """A folder with these parameters, in which stages find the inputs, encoded texts and detectors of this project."""
    from ruamel.yaml import YAML

    from iadsr.artifacts import replacing
    from iadsr.errors import UserError
    from stages.seeds import link

    changed = {**content, "encode": {**content["encode"], "prefixes": "mean"}}
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: missing; run `dvc repro` first, which makes it from the data set of params.yaml")
        link(folder / path, path)
    for path, kept in {
        paths.ENCODE_WORK: paths.ENCODE_WORK,
        paths.DETECTORS: paths.project_root() / paths.DETECTORS,
    }.items():
        kept.mkdir(parents=True, exist_ok=True)
        link(folder / path, kept)
    (folder / paths.METRICS).parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder / paths.PARAMS) as temporary, open(temporary, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(changed, file)
    return folder


def compared(folders: dict[str, list[Path]]) -> Found:
    """Of each method means and deviations over seeds, what it drops, and its difference from the first method.

    Differences are of users' means over seeds: `gained` is the mean over users, `low` and `high` an interval that holds
    for all methods together with 95% confidence (Bonferroni), `p` two-sided, corrected over the methods (Holm).
    """
    import numpy as np

    from iadsr.artifacts import read_json
    from iadsr.evaluate.report import user_metrics
    from iadsr.evaluate.significance import holm, paired_interval, paired_p

    values = {name: [user_metrics(folder / paths.RANKS, CUTOFF) for folder in some] for name, some in folders.items()}
    found: Found = {}
    for name, by_seed in values.items():
        dropped = [read_json(folder / paths.DETAILS)["drop_ratio"] for folder in folders[name]]
        found[name] = {"dropped": float(np.mean(dropped))}
        for metric in by_seed[0]:
            means = np.array([each[metric].mean() for each in by_seed])
            found[name][metric] = {
                "mean": float(means.mean()),
                "std": float(means.std(ddof=1)) if len(means) > 1 else 0.0,
            }
    base, *others = values
    for metric in values[base][0]:
        users = {name: np.mean([each[metric] for each in by_seed], axis=0) for name, by_seed in values.items()}
        corrected = holm([paired_p(users[name], users[base]) for name in others])
        for name, p in zip(others, corrected, strict=True):
            low, high = paired_interval(users[name], users[base], 1 - (1 - CONFIDENCE) / len(others))
            gained = float((users[name] - users[base]).mean())
            found[name][metric] |= {"gained": gained, "low": low, "high": high, "p": p}
    return found


def with_plants(content: dict[str, Any]) -> dict[str, Any] | None:
    """The parameters under which cloze has to find noise of a kind that it is not trained on.

    None where some noise is known already, so that what is found could not be told apart; UserError for parameters
    with which cloze cannot be trained.
    """
    from iadsr.params import ParamsError
    from iadsr.params_check import problems
    from stages.report import figures

    known = figures(paths.DATASET_DETAILS, paths.FILTERED, "filter") if paths.DATASET_DETAILS.exists() else {}
    if known.get("noise_interactions"):
        return None
    ours = content["denoisers"].get(OURS, {})
    kinds = [kind for kind in ours.get("detector", {}).get("kinds", ()) if kind != PLANTED["kind"]]
    cloze = {**ours, "detector": {**ours.get("detector", {}), "kinds": kinds}}
    changed = {**content, "denoiser": OURS, "noise": PLANTED, "denoisers": {**content["denoisers"], OURS: cloze}}
    changed |= {"train": {**content["train"], "max_epochs": 1}}
    if wrong := problems(changed):
        raise ParamsError([*wrong, "so no noise can be planted and found; correct that, or give --no-planted"])
    return changed


def found_of_planted(content: dict[str, Any]) -> dict[str, float]:
    """How well cloze finds what is planted into these very histories; nothing where nothing could be planted."""
    from iadsr.artifacts import read_json
    from stages.seeds import run_stage
    from stages.tracking import tracking_uri

    folder = workspace(content, WORK / "planted", [paths.RAW])
    print(f"planted noise: see {folder / 'log.txt'}", file=sys.stderr, flush=True)
    for command in (["stages.filter"], ["stages.encode"], ["stages.train", "--skip-trained"], ["stages.evaluate"]):
        run_stage(folder, "planted noise", *command, MLFLOW_TRACKING_URI=tracking_uri())
    found = read_json(folder / paths.DETAILS)
    return {name: found[name] for name in NOISE if name in found}


def conclusion(found: Found) -> str:
    """A sentence that a person can decide by."""
    base, *others = found
    tests = {name: found[name][DECIDING] for name in others}
    plain = found[base][DECIDING]["mean"]
    better = [name for name, test in tests.items() if test["p"] < CERTAIN and test["gained"] > 0]
    worse = [name for name, test in tests.items() if test["p"] < CERTAIN and test["gained"] < 0]
    if better:
        best = max(better, key=lambda name: tests[name]["gained"])
        test = tests[best]
        said = f"{best} helps: NDCG@10 is {test['gained'] / plain:+.0%} over {base}" if plain else f"{best} helps"
        return f"{said}, and no less than {test['low']:+.4f} with 95% confidence."
    said = f"No method is better than {base} beyond chance (p < {CERTAIN})"
    return f"{said}; {', '.join(worse)} cost accuracy." if worse else f"{said}, and none is measurably worse."


def lines(result: dict[str, Any]) -> list[str]:
    """The table, and what follows from it."""
    found: Found = result["methods"]
    base = next(iter(found))
    titles = ("HR@10 U", "NDCG@10 U", "HR@10 F", "NDCG@10 F")
    shown = [f"{'':12}" + "".join(f"{title:>16}" for title in titles) + f"{'dropped':>9}"]
    for name, of_method in found.items():
        metrics = [each for each in of_method.values() if isinstance(each, dict)]
        cells = [f"{each['mean']:.4f} ±{each['std']:.4f}" + mark(each) for each in metrics]
        shown.append(f"{name:12}" + "".join(f"{cell:>16}" for cell in cells) + f"{of_method['dropped']:9.1%}")
    shown += [
        "",
        f"Test items of {result['dataset']}, full ranking, mean ± deviation of seeds {result['seeds']}. "
        "U: unfiltered, F: items seen before are not ranked.",
        f"+ better, - worse than {base}: t-test paired over users, Holm over methods, p < {CERTAIN}.",
        "",
        *(interval(name, base, of_method) for name, of_method in found.items() if name != base),
    ]
    if "planted" in result:
        shown += ["", said_of_planted(result["planted"])]
    return [*shown, "", result["conclusion"]]


def mark(test: dict[str, float]) -> str:
    return " " if test.get("p", 1) >= CERTAIN else "+" if test["gained"] > 0 else "-"


def interval(name: str, base: str, of_method: dict[str, Any]) -> str:
    test = of_method[DECIDING]
    return (
        f"{name} less {base}: NDCG@10 U {test['gained']:+.4f}, 95% between {test['low']:+.4f} and {test['high']:+.4f}, "
        f"p = {test['p']:.2g}"
    )


def said_of_planted(found: dict[str, float]) -> str:
    if "noise_auc" not in found:
        return "Planted noise: none could be planted into these histories."
    return (
        f"Of uniform noise planted into these histories, one row for five real ones, {OURS} finds "
        f"{found['noise_recall']:.0%}, and {found['noise_precision']:.0%} of what it drops is planted (AUC "
        f"{found['noise_auc']:.3f}; the detector had not seen this kind)."
    )


if __name__ == "__main__":
    app()
