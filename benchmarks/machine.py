"""The machine under the measurement: its name, the rate of its matrix products, a process's peak of memory."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.prepared import ROOT
from iadsr.device import pick_device, pick_dtype, set_threads

SIZES = {"cpu": 2048, "mps": 4096, "cuda": 8192}  # of the square matrices: large enough that starting costs nothing
PRODUCTS = 10  # of which the fastest counts
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def described(device: torch.device) -> dict[str, Any]:
    """The facts without which a timing means nothing; call it in the process timed, after its threads are set."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def matrix_rates(train: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Yield multiply-adds a second of a square matrix product, on the device and threads of `train`.

    The rates are for float32 and for the format of training's products; hardware without bfloat16 takes minutes for a
    product in it. Each is the best of some products: what this machine can do today, so an upper bound for any model.
    """
    set_threads(train["threads"])
    device = pick_device(train["device"])
    used = {torch.float32, pick_dtype(train["dtype"], device)}
    while True:
        yield {name: matrix_rate(dtype, device) for name, dtype in DTYPES.items() if dtype in used}


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    size = SIZES[device.type]
    left, right = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    out = left @ right
    seconds = []
    for _ in range(PRODUCTS):
        finish(device)
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        finish(device)
        seconds.append(time.perf_counter() - began)
    return size**3 / min(seconds)


def finish(device: torch.device) -> None:
    """Wait for what was started on the device: only then has its time passed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process ever held: of the GPU's memory on cuda, else of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one, if that was larger
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def cpu_model() -> str:
    """The processor's name as Linux gives it, else as Python does."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8", errors="replace").splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """The revision that runs, marked `-dirty` where other files than results differ from it; None without git."""
    try:
        revision = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    except OSError:
        return None
    return f"{revision}-dirty" if revision and changed else revision or None


def git(*arguments: str) -> str:
    """What git says in this repository; nothing where it fails."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
