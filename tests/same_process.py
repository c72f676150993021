"""A benchmark's child process without a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class Here:
    """A child process that is this one: the commands are tested, `test_processes` tests the rest."""

    def __init__(self, function: Callable[..., Iterator[Any]], *args: Any) -> None:
        self.items = function(*args)

    def __next__(self) -> Any:
        return next(self.items)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass
