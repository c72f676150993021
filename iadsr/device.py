"""Which device computes, in which number format, on how many threads: decided here and nowhere else."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from iadsr.errors import UserError

T = TypeVar("T")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _NEVER = -1, -3, 2**31 - 1  # parameters of glibc's mallopt
MOST_THREADS = 256  # or as many as the machine has processors


def pick_device(name: str = "auto", key: str = "device") -> torch.device:
    """The device called `name`; `auto` takes cuda, else mps, else cpu. UserError names `key` when it is not there."""
    present = [
        kind for kind, there in (("cuda", torch.cuda.is_available()), ("mps", _has_mps()), ("cpu", True)) if there
    ]
    if name == "auto":
        return torch.device(present[0])
    try:
        if name.split(":")[0] not in present:
            raise RuntimeError
        return torch.empty(0, device=name).device
    except RuntimeError:  # also torch's own, for a number that no device has
        available = f"available are auto, {', '.join(present)}"
        raise UserError(f"params.yaml: {key}: device {name!r} is not available here; {available}") from None


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; a GPU goes on with its work meanwhile."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called `name`; `auto` takes bfloat16 where the hardware multiplies it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def dtype_name(dtype: torch.dtype) -> str:
    """
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def checked_threads(count: int, key: str) -> int:
    """`count`; UserError names `key` for so many threads that starting them would crash the process."""
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if count > most:
        raise UserError(f"params.yaml: {key}: expected 0 to {most}, found {count}")
    return count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has a class for a GPU's, other devices and libraries have none of their own."""
    said = str(error).lower()
    phrases = ("out of memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in said for phrase in phrases)


def set_threads(count: int, key: str = "threads") -> None:
    """Compute on `count` CPU threads (0 leaves torch's own choice), and keep freed memory for the next allocation.

    By default glibc gives every block above 32 MB back to the system, and the page faults of getting it again cost up
    to half of a training step. UserError as in `checked_threads`.
    """
    if checked_threads(count, key):
        torch.set_num_threads(count)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _NEVER)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def fastest_threads() -> int:
    """How many threads do the small products of a training step fastest right now: all of them, a half, ... or one.

    On a machine that others use too, fewer are often faster: a step has hundreds of barriers, and each waits
    for the thread whose processor is taken.
    """
    seconds = {}
    threads = most = torch.get_num_threads()
    while threads:
        torch.set_num_threads(threads)
        seconds[threads] = min(_piece_of_work() for _ in range(5))
        threads //= 2
    torch.set_num_threads(most)
    return min(seconds, key=lambda count: seconds[count])


def one_thread_each(function: Callable[[T], object], parts: Iterable[T], device: torch.device) -> None:
    """Call `function` for each part; on a CPU as many at once as there are threads, each computing on one thread.

    That keeps the processors busier than many threads in one small operation after another, and what a part comes to
    does not depend on their number. No part may need another's result.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        for part in parts:
            function(part)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)  # MKL's number is one for all threads of the process


def _piece_of_work() -> float:
    """The seconds that products as in a training step take; some 10 ms."""
    rows, weight = torch.ones(1024, 64), torch.ones(64, 256)
    began = time.perf_counter()
    for _ in range(20):
        rows = torch.nn.functional.gelu(rows @ weight)[:, :64] * 0.01
    return time.perf_counter() - began


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not Path("/proc/cpuinfo").exists():
        return False
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})
