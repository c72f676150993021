"""A generator that runs in a process of its own, so with its own memory, and works only while it is asked."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from iadsr.errors import UserError

T = TypeVar("T")


class Child(Generic[T]):
    """`function(*args)`, a generator, item by item; between two items the process sleeps.

    Several children can thus be asked in turn: each is timed alone, and other work on the machine slows all alike.
    """

    def __init__(self, function: Callable[..., Iterator[T]], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would begin with this process's memory
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, args), daemon=True)
        self.process.start()
        theirs.close()

    def __iter__(self) -> Child[T]:
        return self

    def __next__(self) -> T:
        """The next item; UserError where the child raises one, and for a child that was killed."""
        try:
            self.connection.send(True)
            kind, value = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise _died(self.process.exitcode) from None
        if kind == "error":
            raise UserError(value)
        if kind == "end":
            raise StopIteration
        item: T = value
        return item

    def __enter__(self) -> Child[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.process.join()


def _serve(connection: Connection, function: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> None:
    items = function(*args)
    try:
        while connection.recv():
            connection.send(_answer(items))
    except EOFError:  # nobody asks any more
        pass


def _answer(items: Iterator[Any]) -> tuple[str, Any]:
    try:
        return "item", next(items)
    except StopIteration:
        return "end", None
    except UserError as error:  # as text, because not every subclass survives pickling
        return "error", str(error)


def _died(code: int | None) -> Exception:
    if code is not None and code < 0:
        return UserError(f"the measuring process was killed by signal {-code}; signal 9 mostly means too little memory")
    return RuntimeError("the measuring process failed; its traceback stands above")
