"""The states of gaps against prefixes and suffixes that are encoded one by one, and losses against loops."""

from __future__ import annotations

import pytest
import torch
from small_detectors import gap_model, random_texts
from small_models import ITEMS, LENGTH, WIDTH
from torch import Tensor
from torch.nn import functional as F

from iadsr.layers.attention import Transformer
from iadsr.layers.principal import principal_map
from iadsr.models.denoisers.cloze.gap_model import BOTH, GAPS, GapModel, Negatives, beyond, reversed_places

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8, 9, 7])
TEXTS = random_texts()
BEFORE, AFTER = 0, 1


def padded(*windows: list[int], width: int = LENGTH) -> Tensor:
    return torch.tensor([window + [0] * (width - len(window)) for window in windows])


def states_of(model: GapModel, items: list[int], gap: int) -> Tensor:
    """The states of one window: side, place, dim."""
    with torch.no_grad():
        return model.states(model.rows(torch.tensor(items), TEXTS), torch.ones(1, len(items), dtype=torch.bool), gap)


def last_state(side: Transformer, rows: Tensor, edge: Tensor) -> Tensor:
    """Of a history that is encoded by itself."""
    return side(rows[None], torch.ones(1, len(rows), dtype=torch.bool))[0, -1] if len(rows) else edge


@torch.no_grad()
def literal_states(model: GapModel, items: list[int], gap: int) -> Tensor:
    rows, found = model.rows(torch.tensor(items), TEXTS), []
    for place in range(len(items)):
        before = last_state(model.before, rows[: max(place - gap, 0)], model.edges[0])
        after = last_state(model.after, rows[place + gap + 1 :].flip(0), model.edges[1])
        found.append(torch.stack([before, after, model.head(torch.cat([before, after]))]))
    return torch.stack(found, 1)


def changed(items: list[int], place: int) -> list[int]:
    """With another item in one place."""
    return [item % ITEMS + 1 if number == place else item for number, item in enumerate(items)]


# --- states ---


@pytest.mark.parametrize("gap", [0, 1, 2, LENGTH])
def test_states_are_those_of_prefixes_and_suffixes(gap: int) -> None:
    """Each without the items of the gap."""
    model, items = gap_model(), padded(*WINDOWS)
    with torch.no_grad():
        found = model.states(model.rows(items[items > 0], TEXTS), items > 0, gap)
    torch.testing.assert_close(found, torch.cat([literal_states(model, window, gap) for window in WINDOWS], 1))


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("gap", GAPS)
def test_what_a_gap_sees(gap: int, place: int) -> None:
    """Another item in one place leaves gaps there as they are, earlier ones from before, later ones from after."""
    model, items = gap_model(), WINDOWS[3]
    same = torch.isclose(states_of(model, items, gap), states_of(model, changed(items, place), gap), atol=1e-6).all(2)
    others = torch.arange(6)
    assert same[BEFORE].equal(others <= place + gap) and same[AFTER].equal(others >= place - gap)
    assert same[BOTH].equal((others - place).abs() <= gap)


def test_beyond_by_hand() -> None:
    """Of states 1, 2, 3 and 4, 5, 6, with 9 at the edge."""
    states, edge = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[..., None], torch.tensor([9.0])
    assert beyond(states, edge, 0).flatten().tolist() == [9, 1, 2, 9, 4, 5]
    assert beyond(states, edge, 1).flatten().tolist() == [9, 9, 1, 9, 9, 4]
    assert beyond(states, edge, 5).flatten().tolist() == [9] * 6


def test_reversed_places_by_hand() -> None:
    """Windows of 3, 1 and 2 items in 3 places: each run is turned round, padding stays."""
    valid = padded([1, 1, 1], [1], [1, 1], width=3) > 0
    assert reversed_places(valid).tolist() == [2, 1, 0, 3, 4, 5, 7, 6, 8]


# --- losses ---


@pytest.mark.parametrize("gap", GAPS)
def test_loss_is_that_of_a_loop(gap: int) -> None:
    """A negative stands for as many items as it is rarer than once; one that is the item itself is none."""
    model, popular = gap_model(), torch.log_softmax(torch.linspace(0, 2, ITEMS + 1), 0)
    negatives = Negatives(torch.tensor([1, 5, 5, 7]), torch.tensor([0.5, 0.1, 0.1, 2.0]).log(), 2)
    found = model.loss(padded(*WINDOWS), TEXTS, negatives, popular, gap)
    table, bias, chance, total = model.table(TEXTS), model.bias.weight[:, 0], model.chance.sigmoid(), torch.zeros(3)
    for window in WINDOWS:
        states = literal_states(model, window, gap)
        for place, item in enumerate(window):
            scores = (states[:, place] @ table.T + bias).exp()
            others = [(other, rate.exp()) for other, rate in zip(*negatives[:2], strict=True) if other != item]
            whole = scores[:, item] + torch.stack([scores[:, other] / rate for other, rate in others]).sum(0)
            total -= ((1 - chance) * scores[:, item] / whole + chance * popular[item].exp()).log()
    torch.testing.assert_close(found, total.sum() / sum(map(len, WINDOWS)))


@pytest.mark.parametrize("gap", GAPS)
def test_fits_are_log_probabilities_over_the_catalogue(gap: int) -> None:
    """Padding, row 0, is no item."""
    model, items = gap_model(), padded(*WINDOWS)
    table, own = model.table(TEXTS), items[items > 0]
    states = torch.cat([literal_states(model, window, gap)[BOTH] for window in WINDOWS])
    expected = -F.cross_entropy(states @ table[1:].T + model.bias.weight[1:, 0], own - 1, reduction="none")
    torch.testing.assert_close(model.fits(items, items > 0, table, gap, torch.float32), expected)
    some = (items > 0) & (torch.arange(items.numel()).view_as(items) % 2 == 0)
    torch.testing.assert_close(model.fits(items, some, table, gap, torch.float32), expected[some[items > 0]])


def test_table_is_made_of_the_rows() -> None:
    model = gap_model()
    torch.testing.assert_close(model.table(TEXTS), model.rows(torch.arange(ITEMS + 1), TEXTS))


# --- the first weights ---


def test_starts_from_principal_components() -> None:
    model, texts = GapModel(ITEMS, WIDTH, 4, LENGTH, 0.0), random_texts()
    model.start_from(texts)
    torch.testing.assert_close(model.table(texts)[1:].detach(), texts[1:] @ principal_map(texts[1:], 4).T)
