"""What all commands share: how they are declared, and how an error reaches the person at the terminal."""

from __future__ import annotations

import errno
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from iadsr.errors import UserError

P = ParamSpec("P")
Params = Annotated[Path, typer.Option(help="The file of parameters.", show_default=True)]


def new_app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def reports_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a UserError (or a full disk) into one line on stderr and exit status 1, without a traceback."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            fail(str(error))
        except Exception as error:
            if not disk_is_full(error):
                raise
            where = getattr(error, "filename", None) or Path.cwd()
            fail(f"{where}: no space left on the disk; free some and run the same command again")

    return wrapper


def disk_is_full(error: Exception) -> bool:
    """Polars and safetensors wrap the system's error in one of their own, and numpy leaves its number out."""
    full = r"No space left on device|\d+ requested and \d+ written"
    return getattr(error, "errno", None) == errno.ENOSPC or re.search(full, str(error)) is not None


def fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1)
