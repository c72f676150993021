"""Verdicts with few exact texts: the same as with all of them, as long as estimates are no worse than the margins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import ITEMS, LENGTH, WIDTH, batch_of, iadsr
from torch import Tensor

from iadsr.errors import UserError
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.sequences.windows import Batch
from iadsr.serving import screen_fit
from iadsr.serving.screen import Allowance, Screen, bins, estimates, features, projections
from iadsr.serving.screen_fit import fitted, largest, margins
from iadsr.serving.texts import TitleRuns

pytestmark = pytest.mark.usefixtures("one_thread")
NO_WEIGHTS = torch.zeros(0)
INFINITE = Screen(NO_WEIGHTS, torch.full((3, 8, 2), float("inf")), torch.tensor(float("inf")))


def histories(seed: int, count: int = 200) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LENGTH + 1, (count,), generator=generator).tolist()
    return batch_of(*(torch.randint(1, ITEMS + 1, (size,), generator=generator).tolist() for size in lengths))


def sizes(batch: Batch) -> Tensor:
    return batch.valid.cumsum(1) * batch.valid


def exact_projections(model: IADSR, batch: Batch) -> Tensor:
    assert batch.text_vectors is not None
    return projections(model, batch.text_vectors)


class Asked:
    """Exact vectors of prefixes; counts how many were asked for, and that none is asked for twice."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.places = batch, torch.zeros_like(batch.valid)

    def __call__(self, where: Tensor) -> Tensor:
        assert self.batch.text_vectors is not None and not (where & ~self.batch.valid).any()
        assert not (self.places & where).any()
        self.places |= where
        return self.batch.text_vectors[where]


def screened(screen: Screen, model: IADSR, batch: Batch, estimated: Tensor) -> tuple[Tensor, int]:
    asked = Asked(batch)
    kept, sure = screen.kept(model, batch, sizes(batch), estimated, asked)
    assert sure.all()
    return kept, int(asked.places.sum())


@pytest.mark.parametrize("changes", [{}, {"theta": 0.1}, {"theta": 1.0}, {"interests": "short"}, {"interests": "long"}])
@pytest.mark.parametrize("noise", [0.05, 0.3, 3.0])
@torch.no_grad()
def test_verdicts_are_the_exact_ones(changes: dict[str, Any], noise: float) -> None:
    """With margins as large as the errors on these histories, whatever the estimates; and not all is encoded."""
    for seed in range(3):
        model, batch = iadsr("gru4rec", seed, **changes), histories(seed)
        exact = exact_projections(model, batch)
        estimated = exact + noise * torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed))
        screen = Screen(NO_WEIGHTS, *margins(model, batch, sizes(batch), estimated, exact))
        kept, count = screened(screen, model, batch, estimated)
        assert torch.equal(kept[batch.valid], model.judge(batch).kept[batch.valid])
        assert noise > 0.1 or count < int(batch.valid.sum()) / 2


@pytest.mark.parametrize("theta", [-1.0, 0.1])
@torch.no_grad()
def test_infinite_margins_ask_for_what_decides(theta: float) -> None:
    """Everybody's texts where the gate is open; where it turns out to be shut, the whole history's alone."""
    model, batch = iadsr("gru4rec", theta=theta), histories(0)
    exact, judged = exact_projections(model, batch), model.judge(batch)
    kept, count = screened(INFINITE, model, batch, torch.zeros_like(exact))
    assert torch.equal(kept[batch.valid], judged.kept[batch.valid])
    shut = (judged.probability == 1).masked_fill(~batch.valid, True).all(1)
    lengths = batch.valid.sum(1)
    assert count == int(torch.where(shut, 1, lengths).sum())


@pytest.mark.parametrize("most", [0, 1, 50, 10**6])
@torch.no_grad()
def test_an_allowance_bounds_what_is_encoded(most: int) -> None:
    """No more texts than allowed; whoever is sure has the exact verdicts, others those of the estimates."""
    model, batch = iadsr("gru4rec", theta=-1.0), histories(0)
    asked, estimated = Asked(batch), torch.randn_like(exact_projections(model, batch))
    kept, sure = INFINITE.kept(model, batch, sizes(batch), estimated, asked, Allowance(most))
    assert int(asked.places.sum()) <= most and bool(sure.all()) == (most == 10**6)
    exact = model.judge(batch).kept
    assert all(torch.equal(kept[row, batch.valid[row]], exact[row, batch.valid[row]]) for row in sure.nonzero()[:, 0])
    assert most or not sure.any()


@torch.no_grad()
def test_exact_estimates_with_no_margin_ask_for_nothing() -> None:
    model, batch = iadsr("gru4rec", theta=0.1), histories(0)
    exact = exact_projections(model, batch)
    screen = Screen(NO_WEIGHTS, torch.zeros(3, 8, 2), torch.tensor(0.0))
    kept, count = screened(screen, model, batch, exact)
    assert count == 0 and torch.equal(kept[batch.valid], model.judge(batch).kept[batch.valid])


def test_features_of_a_prefix() -> None:
    """Titles 2, 4, 9 (of width 1), max_length 2: the second known item's prefix is 4 and 9, mean 6.5."""
    prefixes = TitleRuns.of([[1, 2, 0]], 2)
    assert prefixes.starts.tolist() == [[0, 1]] and prefixes.ends.tolist() == [[1, 3]]
    found = features([torch.tensor([[2.0], [4.0], [9.0]])], prefixes, 2)
    first = [1, 0, 2, 2, 2, 1, 2, 2, 1 / 2, 1 / 2]
    second = [0, 1, 6.5, 6.5 / 2, 6.5 / 2**0.5, 1, 9 / 2, 4 / 2, 1 / 6.5, 1 / 13]
    torch.testing.assert_close(found, torch.tensor([first, second]))
    weights = torch.arange(10.0)[:, None]
    torch.testing.assert_close(estimates(weights, found)[0], torch.tensor([2.0]))  # the title itself
    torch.testing.assert_close(estimates(weights, found)[1], found[1] @ weights)


@torch.no_grad()
def test_a_map_that_is_linear_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where vectors of prefixes are means of their titles', estimates are nearly exact, and so margins are small."""
    monkeypatch.setattr(screen_fit, "RIDGES", (1.0, 1e-7))
    model, batch = iadsr("gru4rec"), histories(0, 200)
    table = torch.randn(ITEMS + 1, WIDTH, generator=torch.Generator().manual_seed(0))
    lists = [row[row > 0].tolist() for row in batch.items]
    means = [torch.stack([table[own[: end + 1]].mean(0) for end in range(len(own))]) for own in lists]
    vectors = torch.nn.utils.rnn.pad_sequence(means, batch_first=True)
    batch = Batch(batch.rows, batch.items, batch.targets, batch.users, vectors)
    titles = [projections(model, table[own]) for own in lists]
    screen = fitted(model, batch, sizes(batch), features(titles, TitleRuns.of(lists, LENGTH), LENGTH))
    assert 0 < float(screen.margins.max()) < 0.05 and 0 < float(screen.gate) < 0.05


@torch.no_grad()
def test_few_verdicts_are_trusted_for_no_margin() -> None:
    model, batch = iadsr("gru4rec"), histories(0, 10)
    exact = exact_projections(model, batch)
    found, gate = margins(model, batch, sizes(batch), exact, exact)
    assert found.isinf().all() and gate.isinf()


def test_margins_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins 0, 0, 1, 2 with errors 1, -2, 0.5, 3; from two on they count, so the last takes those of the one below."""
    monkeypatch.setattr(screen_fit, "FEWEST", 2)
    monkeypatch.setattr(screen_fit, "BINS", 3)
    found = largest(torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([0, 0, 1, 2]))
    assert found.tolist() == [[3, 2], [3, 0], [3, 0]]
    assert largest(torch.tensor([1.0]), torch.tensor([0])).isinf().all()
    assert bins(torch.tensor([0, 1, 2, 3, 4, 7, 8, 128])).tolist() == [0, 0, 1, 1, 2, 2, 3, 7]


def test_a_screen_as_a_file(tmp_path: Path) -> None:
    Screen(torch.ones(3, 2).T, torch.zeros(3, 8, 2), torch.tensor(0.5)).save(tmp_path / "screen")
    assert Screen.load(tmp_path / "screen").gate == 0.5
    for damaged in (b"", b"nonsense", (tmp_path / "screen").read_bytes()[:-4]):
        (tmp_path / "screen").write_bytes(damaged)
        with pytest.raises(UserError, match="not a whole screen of a served model; run `dvc repro evaluate` again"):
            Screen.load(tmp_path / "screen")
