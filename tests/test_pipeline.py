"""dvc.yaml against the code, params.yaml and stages/paths.py: what it declares is what the stages do."""

from __future__ import annotations

import ast
import itertools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from import_closure import ROOT, import_closure, imported, running_nodes
from ruamel.yaml import YAML

from iadsr.encode.recipe import READ_PREFIXES
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.params import lookup, read_params
from stages import paths

PIPELINE: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = read_params(ROOT / "params.yaml")
STAGES = list(PIPELINE["stages"])
ALWAYS = "watch"  # this stage runs always, so it depends on nothing
INSIDE = {  # files in the folders that DVC keeps
    *(paths.RAW_INTERACTIONS, paths.RAW_ITEMS, paths.RAW_REJECTS, paths.SEQUENCES, paths.ROWS),
    *(paths.USERS, paths.ITEMS),
    paths.RANKS,
}
COMMANDS = (*STAGES, "check", "compare", "denoise", "page", "publish", "recommend", "report", "training_log")

INPUTS = {
    "watch": set(),
    "ingest": {paths.WATCHED},
    "filter": {paths.RAW},
    "encode": {paths.FILTERED},
    "train": {paths.FILTERED, paths.ENCODED},
    "evaluate": {paths.FILTERED, paths.ENCODED, paths.MODEL, paths.HISTORY},
}
OUTPUTS = {
    "watch": {paths.WATCHED},
    "ingest": {paths.RAW, paths.INGEST_METRICS},
    "filter": {paths.FILTERED, paths.DATASET_DETAILS},
    "encode": {paths.ENCODED},
    "train": {paths.MODEL, paths.HISTORY, paths.VERDICTS},
    "evaluate": {paths.EVALUATED, paths.PLOTS, paths.DETAILS},
}
METRICS = {
    "watch": set(),
    "ingest": set(),
    "filter": {paths.DATASET_METRICS},
    "encode": set(),
    "train": set(),
    "evaluate": {paths.METRICS},
}

# Which machine computes, and how fast, must not make a result stale.
MACHINE = {
    *("encode.actors", "encode.batch_tokens", "encode.device", "encode.engine", "encode.threads"),
    *("train.device", "train.threads"),
}
# Commands beside the pipeline.
BESIDE = {
    *("iadsr/ingest/histories.py", "iadsr/params_check.py"),
    "iadsr/evaluate/significance.py",
    *(f"iadsr/page/{name}.py" for name in ("__init__", "charts", "examples", "numbers", "page")),
    *(f"iadsr/serving/{name}.py" for name in ("card", "loaded", "log_files", "log_rows", "training_log")),
    *(
        "stages/check.py",
        "stages/compare.py",
        "stages/denoise.py",
        "stages/page.py",
        "stages/publish.py",
        "stages/recommend.py",
        "stages/report.py",
        "stages/training_log.py",
    ),
}
MOST_DEPS = 92  # lines; the file is a table of contents


def names(entries: list[Any] | None) -> list[str]:
    """Paths of a dvc.yaml list, whose entries may carry options."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries or []]


def is_code(path: str) -> bool:
    return path.startswith(("iadsr/", "stages/"))


def expanded(path: str) -> list[str]:
    """A file, or all code files of a folder."""
    place = ROOT / path
    return [str(file.relative_to(ROOT)) for file in place.rglob("*.py")] if place.is_dir() else [path]


def closure(stage: str) -> set[str]:
    return import_closure(f"stages.{stage}")


# --- files ---


@pytest.mark.parametrize("stage", STAGES)
def test_code_that_a_stage_imports_is_what_it_depends_on(stage: str) -> None:
    """Missing: a change would not run the stage again. Too many: a change would run it for nothing."""
    listed = names(PIPELINE["stages"][stage].get("deps"))
    if stage == ALWAYS:
        assert PIPELINE["stages"][stage]["always_changed"] and not listed
        return
    declared = [file for path in listed if is_code(path) for file in expanded(path)]
    assert set(declared) - BESIDE == closure(stage)
    assert len(declared) == len(set(declared))


def test_dvc_yaml_is_a_table_of_contents() -> None:
    assert sum(len(PIPELINE["stages"][stage].get("deps", [])) for stage in STAGES) <= MOST_DEPS


@pytest.mark.parametrize("stage", STAGES)
def test_data_that_a_stage_reads_and_writes(stage: str) -> None:
    declared = PIPELINE["stages"][stage]
    assert {Path(path) for path in names(declared.get("deps")) if not is_code(path)} == INPUTS[stage]
    assert {Path(path) for path in names(declared["outs"])} == OUTPUTS[stage]
    assert {Path(path) for path in names(declared.get("metrics"))} == METRICS[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_numbers_are_for_git_and_not_for_the_cache(stage: str) -> None:
    declared = PIPELINE["stages"][stage]
    written = [*declared["outs"], *declared.get("metrics", [])]
    uncached = [
        name for entry in written if isinstance(entry, dict) for name in entry if entry[name] == {"cache": False}
    ]
    assert uncached == [name for name in names(written) if name.endswith(".json")]


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_is_the_module(stage: str) -> None:
    assert PIPELINE["stages"][stage]["cmd"] == f"python -m stages.{stage}"
    assert PIPELINE["stages"][stage]["desc"]


def test_every_artifact_of_paths_has_one_writer() -> None:
    written = [path for stage in STAGES for path in (*OUTPUTS[stage], *METRICS[stage])]
    assert len(written) == len(set(written))
    caches = {paths.DOWNLOADS, paths.WATCH_WORK, paths.ENCODE_WORK, paths.TRAIN_WORK, paths.DETECTORS}
    work = {paths.PARAMS, paths.SEEDS, paths.PAGE, paths.DENOISED, *caches}
    assert {value for value in vars(paths).values() if isinstance(value, Path)} == {*written, *INSIDE, *work}
    assert all(path.parent in written for path in INSIDE)


def test_what_a_stage_reads_an_earlier_one_has_written() -> None:
    ready: set[Path] = set()
    for stage in STAGES:
        assert INPUTS[stage] <= ready
        ready |= OUTPUTS[stage]


def test_work_in_progress_is_outside_all_outputs() -> None:
    for work in (paths.DOWNLOADS, paths.WATCH_WORK, paths.ENCODE_WORK, paths.TRAIN_WORK, paths.DETECTORS):
        assert work.parts[0] == ".cache"
    assert {"/.cache/", "/data/", "/models/"} <= set((ROOT / ".gitignore").read_text().split())


def test_no_code_is_outside_all_stages() -> None:
    everything = {str(path.relative_to(ROOT)) for package in ("iadsr", "stages") for path in package_files(package)}
    assert everything - set().union(*map(closure, STAGES)) == BESIDE


def package_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_encoding_does_not_depend_on_models_or_metrics() -> None:
    """Hours of encoding must not be repeated for a change there."""
    far = ("ingest", "filter", "sequences", "layers", "models", "train", "evaluate")
    assert not [path for path in closure("encode") for room in far if path.startswith(f"iadsr/{room}/")]


def test_encoding_knows_which_denoisers_read_prefixes() -> None:
    assert {name for name, method in DENOISERS.items() if method.traits.reads_prefix_texts} == READ_PREFIXES
    assert all(method.traits.reads_texts for name, method in DENOISERS.items() if name in READ_PREFIXES)


def test_plots_are_drawn_from_outputs() -> None:
    outputs = [path for stage in STAGES for path in OUTPUTS[stage]]
    for plot in PIPELINE["plots"]:
        for options in plot.values():
            for file in options["y"]:
                assert any(Path(file) == output or output in Path(file).parents for output in outputs)


# --- parameters ---


def leaves(value: Any, key: str = "") -> list[str]:
    """Dotted keys of everything that is no mapping."""
    if not isinstance(value, dict):
        return [key]
    return [leaf for name, entry in value.items() for leaf in leaves(entry, f"{key}.{name}" if key else name)]


def keys_of_stages(choices: dict[str, str]) -> dict[str, list[str]]:
    """The parameter keys of each stage with `${...}` filled in."""
    found = {}
    for stage in STAGES:
        keys = PIPELINE["stages"][stage].get("params", [])
        for name, value in choices.items():
            keys = [key.replace(f"${{{name}}}", value) for key in keys]
        found[stage] = keys
    return found


CHOICES = [
    dict(zip(("dataset", "backbone", "denoiser", "encoder"), chosen, strict=True))
    for chosen in itertools.product(*(PARAMS[table] for table in ("datasets", "backbones", "denoisers", "encoders")))
]


def test_listed_parameters_exist_for_every_choice() -> None:
    for choices, stage in itertools.product(CHOICES, STAGES):
        keys = keys_of_stages(choices)[stage]
        assert len(keys) == len(set(keys)), (stage, choices)
        for key in keys:
            assert "$" not in key
            lookup(PARAMS, key)


def test_every_parameter_is_listed_by_a_stage() -> None:
    keys = {key for choices in CHOICES for listing in keys_of_stages(choices).values() for key in listing}
    covered = {leaf for leaf in leaves(PARAMS) if any(leaf == key or leaf.startswith(f"{key}.") for key in keys)}
    assert set(leaves(PARAMS)) - covered == MACHINE


def test_theta_is_of_train_alone() -> None:
    """So a change of theta runs `train`, and `evaluate` because the model changes, and nothing else."""
    assert [stage for stage in STAGES if "theta" in PIPELINE["stages"][stage].get("params", [])] == ["train"]


def test_seeds_and_settings_of_training_are_not_of_earlier_stages() -> None:
    for stage in ("ingest", "filter", "encode"):
        own = {"filter": {"noise"}, "encode": {"denoiser"}}.get(stage, set())
        assert {key.split(".")[0] for key in PIPELINE["stages"][stage].get("params", [])} <= {
            "dataset",
            "datasets",
            "encoder",
            "encoders",
            stage,
            *own,
        }


def stored(folder: Path, *overrides: str) -> list[str]:
    """The lines of params.yaml after DVC's own `-S`."""
    path = shutil.copy(ROOT / "params.yaml", folder)
    apply_overrides(path, list(overrides))
    return Path(path).read_text(encoding="utf-8").splitlines()


def other_value(value: Any) -> Any:
    return not value if isinstance(value, bool) else "another" if isinstance(value, str | None) else value + 1


def test_an_experiment_changes_one_line_of_the_parameters(tmp_path: Path) -> None:
    """All single values at once: as many lines differ as there are values, each the line of one.

    If others do, params.yaml is not as DVC writes it. This mends that:
    `python -c 'from dvc.utils.hydra import apply_overrides; apply_overrides("params.yaml", [])'`
    """
    single = [leaf for leaf in leaves(PARAMS) if not isinstance(lookup(PARAMS, leaf), list)]
    before = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    after = stored(tmp_path, *(f"{leaf}={other_value(lookup(PARAMS, leaf))}".lower() for leaf in single))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line.split(":")[0].strip() for line in changed] == [leaf.split(".")[-1] for leaf in single]


def test_an_experiment_changes_only_the_lines_of_its_lists(tmp_path: Path) -> None:
    """All lists at once get one entry; an empty one stood in one line, `[]`, whose comment stays where it is."""
    lists = [leaf for leaf in leaves(PARAMS) if isinstance(lookup(PARAMS, leaf), list)]
    before = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    after = stored(tmp_path, *(f"{leaf}=[another]" for leaf in lists))
    assert sum(line.endswith("- another") for line in after) == len(lists)
    rest = [[line for line in lines if not line.lstrip().startswith("- ")] for lines in (before, after)]
    assert [line.replace("[]", "  ") for line in rest[0]] == rest[1]


# --- who imports what ---


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module).split(".")[0])
    return found


def imports(package: str) -> dict[str, set[str]]:
    """For each module the modules of the project that it imports; running a module also runs its packages."""
    files = {module_of(path): path for path in package_files(package)}
    return {module: {name for name in imported(path) if name in files} - {module} for module, path in files.items()}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def on_circles(graph: dict[str, set[str]]) -> set[str]:
    """What is left when those that import nothing, or only what is gone, go again and again."""
    left = dict(graph)
    while free := [name for name, needed in left.items() if not needed & set(left)]:
        for name in free:
            del left[name]
    return set(left)


def test_no_module_imports_itself_in_a_circle() -> None:
    assert on_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}
    assert on_circles(imports("iadsr")) == on_circles(imports("stages")) == set()


def test_no_room_of_the_library_imports_itself_in_a_circle() -> None:
    """A room is a folder of iadsr/, with all below it, or a file beside these."""
    rooms: dict[str, set[str]] = {}
    for module, needed in imports("iadsr").items():
        room = rooms.setdefault(".".join(module.split(".")[:2]), set())
        room |= {".".join(name.split(".")[:2]) for name in needed}
    assert on_circles({room: needed - {room, "iadsr"} for room, needed in rooms.items()}) == set()


def test_types_are_imported_as_they_are() -> None:
    """No module needs another import for its types than when it runs: each stands above what it names."""
    assert not [path for path in package_files("iadsr") if "if TYPE_CHECKING" in path.read_text()]


def test_no_two_classes_have_one_name() -> None:
    files = [path for package in ("iadsr", "stages", "benchmarks") for path in package_files(package)]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    classes = [node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [name for name, count in Counter(classes).items() if count > 1] == []


@pytest.mark.parametrize("path", package_files("iadsr"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_no_orchestration(path: Path) -> None:
    assert not imported_packages(path) & {"typer", "click", "dvc", "mlflow", "stages"}


def test_nothing_is_pickled() -> None:
    for path in (*package_files("iadsr"), *package_files("stages")):
        assert not imported_packages(path) & {"pickle", "joblib", "dill", "cloudpickle"}, path
        assert "torch.save" not in path.read_text() and "torch.load" not in path.read_text(), path


# --- commands ---

HEAVY = ("torch", "numpy", "polars", "pyarrow", "mlflow", "dvc", "transformers", "pydantic", "ruamel", "altair")
CHECK = """
import sys
from stages.{command} import app
try:
    app(["--help"])
finally:
    print("loaded:", *sorted(set({heavy}) & set(sys.modules)))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_has_an_example(command: str) -> None:
    """Under half a second of this process's own computing; twice that is allowed for, on a busy machine."""
    before = os.times()
    code = CHECK.format(command=command, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = os.times()
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert f"python -m stages.{command}" in done.stdout or "dvc exp run" in done.stdout
    assert "Example: " in done.stdout
    assert after.children_user - before.children_user < 2 * 0.5


def test_every_command_file_is_tested_here() -> None:
    """The other files of stages/ declare no command."""
    declaring = {path.stem for path in package_files("stages") if "= new_app()\n" in path.read_text()}
    assert declaring == set(COMMANDS)
