"""`python -m stages.check`."""

from __future__ import annotations

from pathlib import Path

from small_project import change, digests, invoke


def test_check_names_every_mistake_and_changes_nothing(copy: Path) -> None:
    assert invoke("check").stdout == "params.yaml: every parameter is known and in range\n"
    change(train__max_epoch=99, bogus=1, datasets__beauty__core=-1)
    before = digests(copy)
    result = invoke("check")
    assert (result.exit_code, result.stdout) == (1, "")
    first, second, third = result.stderr.splitlines()
    assert first.startswith("error: params.yaml: unknown parameter 'bogus'; known are dataset, ")
    assert second == "error: params.yaml: train.max_epoch: unknown parameter"
    assert third.startswith("error: params.yaml: datasets.beauty.core: input should be greater than or equal to 0")
    assert digests(copy) == before
