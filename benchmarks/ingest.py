"""What `ingest` and `filter` cost on a generated log of any size: `python -m benchmarks.ingest --json`.

The log is written first, by a process of its own and outside the measured part. Then the stages run as a person runs
them, each in a process of its own, whose times and largest resident memory are taken from the operating system. If, on
a machine of two cores, the wall time is far above half the time of the cores, others were using it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("ingest", "filter")
CATEGORY = "Generated"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Format(StrEnum):
    csv = "csv"
    amazon = "amazon"


INTERACTIONS = {Format.csv: 20_000_000, Format.amazon: 1_000_000}
SOURCES: dict[Format, dict[str, Any]] = {
    Format.csv: {
        "kind": "files",
        "interactions": "own/interactions.csv",
        "items": "own/items.csv",
        "columns": {name: name for name in ("user", "item", "timestamp", "title")},
    },
    Format.amazon: {"kind": "amazon-2014", "category": CATEGORY},
}


class Cost(NamedTuple):
    """What a process took: wall time, time of all cores together, and the most memory that was resident at once."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


@app.command(epilog="Example: python -m benchmarks.ingest --json --interactions 2000000")
def main(
    interactions: Annotated[int, typer.Option(help="Rows of the log; 0: 20 million of csv, 1 million of amazon.")] = 0,
    format: Annotated[Format, typer.Option(help="csv: own files; amazon: reviews and items as of 2014.")] = Format.csv,
    users: Annotated[int, typer.Option(help="Users; 0: one for 20 interactions.")] = 0,
    items: Annotated[int, typer.Option(help="Items; 0: one for 100 interactions.")] = 0,
    core: Annotated[int, typer.Option(help="The k of the k-core.")] = 5,
    duplicates: Annotated[str, typer.Option(help="As in params.yaml: keep, first or last.")] = "keep",
    seed: Annotated[int, typer.Option(help="Seed of the generated log.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Work here and leave all files; else a temporary folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON; else the same, indented.")] = False,
) -> None:
    """Measure time and memory of `python -m stages.ingest` and `python -m stages.filter` on a generated log."""
    rows = interactions or INTERACTIONS[format]
    size = (rows, users or max(rows // 20, 3), items or max(rows // 100, 10), seed)
    with ExitStack() as stack:
        work = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iadsr-benchmark-")))
        result = {"format": format, **measure(work, format, size, core, duplicates), "device": device()}
    print(json.dumps(result, indent=None if as_json else 2))


def measure(work: Path, format: Format, size: tuple[int, int, int, int], core: int, duplicates: str) -> dict[str, Any]:
    """Write the log and run both stages in `work`."""
    input_bytes = generate(work, format, size)
    write_params(work, format, core, duplicates)
    costs = {stage: cost_of_stage(stage, work) for stage in STAGES}
    seconds, cpu_seconds, peaks = zip(*costs.values(), strict=True)
    costs["both"] = Cost(sum(seconds), sum(cpu_seconds), max(peaks))
    read, kept = (json.loads((work / "metrics" / name).read_text()) for name in ("ingest.json", "dataset.json"))
    counted = ("users", "items", "interactions")
    return {
        **{name: read[name] for name in counted},
        "kept": {name: kept[name] for name in counted},
        "core": core,
        "duplicates": duplicates,
        "seed": size[-1],
        "input_bytes": input_bytes,
        **{field: {name: round(getattr(cost, field), 3) for name, cost in costs.items()} for field in Cost._fields},
        "interactions_per_second": round(read["interactions"] / sum(seconds)),
    }


def generate(work: Path, format: Format, size: tuple[int, int, int, int]) -> int:
    """Write the log and return the size of its files in bytes.

    A fresh process does it, because the system also counts what a process held when it started another for that one.
    """
    (work / "own").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        files = pool.submit(_write, work / "own", format, size).result()
    return sum(file.stat().st_size for file in files)


def _write(folder: Path, format: Format, size: tuple[int, int, int, int]) -> list[Path]:
    from benchmarks.generated_log import Size, write_amazon, write_csv

    return write_csv(folder, Size(*size)) if format is Format.csv else write_amazon(folder, Size(*size), CATEGORY)


def write_params(work: Path, format: Format, core: int, duplicates: str) -> None:
    """Write what the two stages read of params.yaml; JSON is YAML."""
    content = {
        "dataset": "generated",
        "datasets": {"generated": {"core": core, "max_length": 50, "source": SOURCES[format]}},
        "ingest": {"max_rejects": 0},
        "filter": {"duplicates": duplicates, "ties": "raw", "ties_seed": 0},
        "noise": {"kind": "uniform", "ratio": 0.0, "seed": 0},
    }
    (work / "params.yaml").write_text(json.dumps(content))


def cost_of_stage(stage: str, work: Path) -> Cost:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "IADSR_MIRROR": str(work / "own")}
    return cost([sys.executable, "-m", f"stages.{stage}"], work, environment)


def cost(command: list[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command whose output goes to our stderr; an error if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sys.stderr)  # stdout is for the result
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    kilobytes = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kilobytes)


def device() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu_name(), "cores": cores, "memory_bytes": memory, "python": platform.python_version()}


def cpu_name() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


if __name__ == "__main__":
    app()
