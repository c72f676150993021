"""A trained model with its card, ready for a hub, and on request there; not a DVC stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
FOLDER = Path("models/published")
CARD = "README.md"
TABLES = ("items.parquet",)  # beside the model: without it nobody can name an item


@app.command(epilog="Example: python -m stages.publish --repo somebody/some-model   (and, to send it: --push)")
@reports_errors
def main(
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the hub.")],
    push: Annotated[bool, typer.Option("--push", help="Send it; else only write and show what would be sent.")] = False,
    private: Annotated[bool, typer.Option(help="Make the repository, if it is new, one that only you see.")] = True,
) -> None:
    """Write models/published: the model, its catalogue and a model card; with --push send it to a hub.

    The hub is that of HF_ENDPOINT, by default huggingface.co, and its token that of `hf auth login` or HF_TOKEN.
    """
    from iadsr.errors import UserError

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"--repo {repo}: expected OWNER/NAME, such as somebody/some-model")
    write(repo)
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.stat().st_size:12,} bytes  {path}")
    if push:
        send(repo, private)
    else:
        print(f"dry run: nothing was sent; `--push` sends these files to {repo}, also the ids and titles of all items")


def write(repo: str) -> None:
    """The folder in its place, or none; UserError where model, metrics or tables are missing or of another run."""
    from iadsr.artifacts import replacing_folder
    from iadsr.models.files import CONFIG, WEIGHTS, load_config, require_own
    from iadsr.provenance import checked
    from iadsr.serving.card import model_card
    from stages.report import read_numbers, require_one_run

    config, numbers = load_config(paths.MODEL), read_numbers()
    require_one_run(config)
    require_own(config, paths.MODEL / WEIGHTS)
    checked([paths.ITEMS], "filter")
    card = model_card(config, numbers.dataset, numbers.removed, numbers.details, repo)
    with replacing_folder(FOLDER) as new:
        for name in (WEIGHTS, CONFIG):
            shutil.copy(paths.MODEL / name, new)
        shutil.copy(paths.ITEMS, new / TABLES[0])
        (new / CARD).write_text(card, encoding="utf-8")


def send(repo: str, private: bool) -> None:
    """Upload the folder; UserError in one line for what a hub or a network can refuse."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    from iadsr.errors import UserError

    try:
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=FOLDER)
    except (HTTPError, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"--push: {said}; {FOLDER} is written, so the same command sends it when that is mended"
        ) from None
    print(f"sent to {repo}")


if __name__ == "__main__":
    app()
