"""All of params.yaml checked before anything runs; not a DVC stage."""

from __future__ import annotations

import sys

import typer

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

app = new_app()


@app.command(epilog="Example: python -m stages.check")
@reports_errors
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Print every mistake in the parameters with the path of its key, or that all is well.

    `make run` does this first. `dvc repro` alone reports a mistake when the stage that reads it runs, and what no stage
    reads never.
    """
    from iadsr.params import read_yaml
    from iadsr.params_check import problems

    content = read_yaml(params)
    found = problems(content)
    for problem in found:
        print(f"error: {params}: {problem}", file=sys.stderr)
    if found:
        raise typer.Exit(1)
    print(f"{params}: every parameter is known and in range")


if __name__ == "__main__":
    app()
