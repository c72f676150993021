"""Which share of the encoding this process has: under torchrun, under srun, in a SLURM array, or all of it.

Processes share nothing but the folder that they write into (cache.py), which must lie where all can see it
and lock files: on one machine anywhere, in a cluster on a shared file system.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from iadsr.errors import UserError

# the variables that tell a process's rank, the number of ranks, the first rank (else 0), and the rank on its machine
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "", "LOCAL_RANK"),  # torchrun
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", ""),
    ("SLURM_PROCID", "SLURM_NTASKS", "", "SLURM_LOCALID"),  # srun
)


@dataclass(frozen=True)
class Share:
    """`rank` of `ranks`, counted from 0, and which of its machine's processes this is."""

    rank: int = 0
    ranks: int = 1
    local: int = 0

    def device(self, name: str) -> str:
        """`name`, or the GPU of this process where that leaves it open and the machine has several."""
        gpus = torch.cuda.device_count()
        return f"cuda:{self.local % gpus}" if name in ("auto", "cuda") and gpus > 1 and self.ranks > 1 else name


def share_of_this_process(environment: Mapping[str, str] = os.environ) -> Share:
    """The share that the launcher's variables state; UserError where they contradict each other."""
    found = Share()
    for rank, ranks, first, local in LAUNCHERS:
        if rank not in environment or ranks not in environment:
            continue
        number, count, base, own = (_number(environment, name) for name in (rank, ranks, first, local))
        if not 0 <= number - base < count:
            raise UserError(
                f"environment: {rank}={environment[rank]} is no process of {ranks}={environment[ranks]}; number an "
                "array without gaps, such as --array=0-7"
            )
        found = Share(found.rank * count + number - base, found.ranks * count, own)
        if rank == "RANK":  # torchrun counts all processes, whatever started it
            break
    return found


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "0")
    if not value.isdecimal():
        raise UserError(f"environment: {name}={value!r} is no whole number; it comes from torchrun or SLURM")
    return int(value)
