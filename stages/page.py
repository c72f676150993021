"""The last run as one HTML file for people; not a DVC stage."""

from __future__ import annotations

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

app = new_app()


@app.command(epilog="Example: python -m stages.page")
@reports_errors
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Write metrics/report.html, which opens from disk: numbers with intervals, pictures, and histories with verdicts.

    It is logged to the MLflow run of the model, too.
    """
    from iadsr.models.files import load_config
    from iadsr.page.page import PageFiles, write_page
    from iadsr.params import read_params
    from iadsr.provenance import checked
    from stages.report import read_numbers, require_one_run
    from stages.tracking import open_run

    content, config = read_params(params), load_config(paths.MODEL)
    require_one_run(config)
    checked([paths.RANKS], "evaluate")
    files = PageFiles(paths.MODEL, paths.HISTORY, paths.VERDICTS, paths.ITEMS, paths.RANKS, paths.PLOTS)
    write_page(paths.PAGE, files, config, read_numbers())
    with open_run(config, content) as run:
        run.log_files([paths.PAGE])
        run.finish()
    print(f"wrote {paths.PAGE}")


if __name__ == "__main__":
    app()
