"""Which share a process has, as each launcher says it."""

from __future__ import annotations

import pytest
import torch

from iadsr.encode.launcher import Share, share_of_this_process
from iadsr.errors import UserError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Share(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Share(3, 8, 1)),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}, Share(1, 4, 0)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "2"}, Share(5, 6, 2)),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"},
            Share(2, 3, 0),
        ),
        (
            {
                "SLURM_PROCID": "3",
                "SLURM_NTASKS": "4",
                "SLURM_LOCALID": "3",
                "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_ARRAY_TASK_COUNT": "2",
            },
            Share(7, 8, 3),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            Share(1, 2, 1),
        ),
        ({"RANK": "3"}, Share(0, 1, 0)),
    ],
)
def test_shares(environment: dict[str, str], expected: Share) -> None:
    """torchrun, an array from 1 on, srun, an array of one and of four tasks each, torchrun within, half of it all."""
    assert share_of_this_process(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK=8 is no process of WORLD_SIZE=8"),
        ({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "4"}, "number an array without gaps"),
        ({"RANK": "first", "WORLD_SIZE": "8"}, "RANK='first' is no whole number"),
    ],
)
def test_contradictions_are_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        share_of_this_process(environment)


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [Share(5, 8, local).device("auto") for local in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]
    assert Share(5, 8, 2).device("cpu") == "cpu" and Share().device("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Share(5, 8, 2).device("auto") == "auto"
