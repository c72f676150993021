"""Generators in processes of their own: what they yield, and how they fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from benchmarks.processes import Child
from iadsr.errors import UserError
from iadsr.params import ParamsError


def numbers(fatal: bool) -> Iterator[int]:
    yield os.getpid()
    if fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ParamsError(["theta: too high"])


def test_a_child_answers_from_elsewhere_and_passes_on_a_users_mistake() -> None:
    with Child(numbers, False) as child:
        assert next(child) not in (0, os.getpid())
        with pytest.raises(UserError, match=r"^params.yaml: theta: too high$"):
            next(child)
        assert list(child) == []


def test_a_killed_child_is_named() -> None:
    with Child(numbers, True) as child:
        next(child)
        with pytest.raises(UserError, match=r"killed by signal 9; .* too little memory"):
            next(child)
