"""What all commands share: how they are declared, and how an error reaches the person at the terminal."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from iadsr.errors import UserError

P = ParamSpec("P")
SPINS = "10000"  # of a thread that waits for others, before it sleeps; more would hold up the others on a busy machine
FILE_LIBRARIES = ("pyarrow", "polars", "safetensors")  # known by name, because importing them would slow --help
ParamsFile = Annotated[Path, typer.Option(help="The file of parameters.", show_default=True)]


def new_app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def reports_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a UserError, or whatever a file can do to us, into one line on stderr and exit status 1."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported, which is later
        try:
            function(*args, **kwargs)
        except UserError as error:
            fail(str(error))
        except Exception as error:
            if not is_about_a_file(error):
                raise
            fail(file_trouble(error))

    return wrapper


def is_about_a_file(error: Exception) -> bool:
    if isinstance(error, BrokenPipeError):  # `... | head`, which typer ends quietly
        return False
    return isinstance(error, OSError | EOFError) or type(error).__module__.split(".")[0] in FILE_LIBRARIES


def file_trouble(error: Exception) -> str:
    """Which file, where the error knows it, what is wrong with it, and what to do."""
    path = getattr(error, "filename", None)
    if disk_is_full(error):
        return f"{path or Path.cwd()}: no space left on the disk; free some and run the same command again"
    if path:
        return f"{path}: {getattr(error, 'strerror', None) or error}; correct that and run the same command again"
    return (
        f"a file that this command reads is not as it was written ({type(error).__name__}); run `dvc repro`, which "
        "makes what is wrong in data/ and models/ again"
    )


def disk_is_full(error: Exception) -> bool:
    """Whether the disk is full; polars and safetensors wrap the system's error, and numpy leaves its number out."""
    full = r"No space left on device|\d+ requested and \d+ written"
    return getattr(error, "errno", None) == errno.ENOSPC or re.search(full, str(error)) is not None


def fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1)
