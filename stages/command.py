"""What all commands share: how they are declared, and how an error reaches the person at the terminal."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ParamSpec, TextIO

import typer

from iadsr.errors import UserError, masked

P = ParamSpec("P")
SPINS = "10000"  # of a thread that waits for others, before it sleeps; more would hold up the others on a busy machine
ELSEWHERE = " (there is no params.yaml here: start this in the root of the project)"
FILE_LIBRARIES = ("pyarrow", "polars", "safetensors")  # known by name, because importing them would slow --help
LOCK = Path(".cache/lock")  # of the folder in which a stage runs
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
            elsewhere = "dvc repro" in str(error) and not Path("params.yaml").exists()
            fail(f"{error}{ELSEWHERE if elsewhere else ''}")
        except Exception as error:
            if not is_about_a_file(error):
                raise
            fail(file_trouble(error))

    return wrapper


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Run as the only stage in the current folder; UserError where another runs. Freed however this process ends."""
    path = LOCK.resolve()
    lock = locked(path, stage)
    try:
        yield
    finally:
        if lock:
            path.unlink(missing_ok=True)  # while it is still ours
            lock.close()


def locked(path: Path, stage: str) -> TextIO | None:
    """The open file that holds the lock and names the stage, or None where the system cannot lock."""
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lock = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open as long as the stage runs)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(lock, path):
                break
            lock.close()
        lock.truncate(0)
        print(f"stage {stage} (process {os.getpid()})", file=lock, flush=True)
        return lock
    except BlockingIOError:
        raise UserError(busy(lock, path)) from None
    except (ImportError, OSError):  # Windows; a network's file system; a folder in which nothing may be written
        return None


def is_at(lock: TextIO, path: Path) -> bool:
    """Whether the open file still has this name: the stage that had it may have ended, and removed it, meanwhile."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def busy(lock: TextIO, path: Path) -> str:
    """Who runs in the folder of this lock, and what to do."""
    with lock:
        lock.seek(0)
        holder = lock.read().strip() or "another stage"
    return (
        f"{path.parents[1]}: {holder} is running in this folder; wait for it, or line experiments up with "
        "`dvc exp run --queue` and then `dvc queue start`"
    )


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
    print(f"error: {masked(message)}", file=sys.stderr)
    raise typer.Exit(1)
