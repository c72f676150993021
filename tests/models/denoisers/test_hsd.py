"""HSD against a literal reading of its specification, history by history and item by item."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
from small_models import DIM, EVERY_BACKBONE, ITEMS, LENGTH, USERS, batch_of, committed, small_backbone, spread_out
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.jagged import Jagged
from iadsr.models.denoisers import masking
from iadsr.models.denoisers.hsd import HSD, HSDParams
from iadsr.models.denoisers.two_signals import BatchNorm, Signals
from iadsr.models.recommender import LossSettings
from iadsr.sequences.prefix_examples import prefixes_with_target
from iadsr.sequences.windows import Batch

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)
REAL = Jagged(BATCH.valid)
LENGTHS = [len(items) for items in WINDOWS]
PREFIXES = [(window, stop) for window, items in enumerate(WINDOWS) for stop in range(1, len(items))]


def hsd(backbone: str = "gru4rec", seed: int = 0, spread: float | None = 0.5, **changes: Any) -> HSD:
    torch.manual_seed(seed)
    params = committed("hsd", **changes)
    assert isinstance(params, HSDParams)
    model = HSD(ITEMS, USERS, DIM, LENGTH, small_backbone(backbone), params, torch.Generator().manual_seed(seed))
    spread_out(model, spread)
    with torch.no_grad():
        model.users.weight[0].zero_()
    return model


def literal_signals(model: HSD, items: list[int], query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both preferences for noise of each item, and the rebuilding error, of one history (specification, section 5)."""
    given = model.items.weight[torch.tensor(items)]
    left, right = model.rebuild.lstm(given[:, None])[0][:, 0].chunk(2, dim=1)
    left, right = model.rebuild.lstm((left + right)[:, None])[0][:, 0].chunk(2, dim=1)
    rebuilt = left + right
    error = sum(((rebuilt[t] - given[t]) ** 2).sum() for t in range(len(items))) / len(items)
    both = torch.zeros(1, LENGTH, DIM, 2)
    both[0, : len(items)] = torch.stack([rebuilt, given], dim=2)
    kernel = model.compare.weight.permute(1, 2, 0)[:, :, None]  # positions out, positions in, 1, 2
    compared = F.relu(F.conv2d(both, kernel, model.compare.bias)[0, :, :, 0])
    sequence, item = [], []
    for t in range(len(items)):
        keep, noise = torch.sigmoid(model.sequence_signal.weight @ compared[t])
        sequence.append(noise - keep)
        normed = F.layer_norm(given[t], (DIM,), model.norm.weight, model.norm.bias)
        inner = torch.tanh(model.of_item.weight @ normed + model.of_query.weight @ query)
        keep, noise = torch.sigmoid(model.item_signal.weight @ inner)
        item.append(noise - keep)
    return torch.stack(sequence), torch.stack(item), torch.as_tensor(error)


def literal_state(model: HSD, items: list[int], kept: list[bool]) -> Tensor:
    """The backbone's state after the kept items alone; after one zero vector if there are none."""
    left = [item for item, own in zip(items, kept, strict=True) if own]
    inputs = model.items.weight[torch.tensor(left)] if left else torch.zeros(1, DIM)
    real = torch.ones(1, len(inputs), dtype=torch.bool)
    state: Tensor = model.backbone(inputs[None], real)[0, -1]
    return state


def preferences(model: HSD) -> Signals:
    return model.signals(model.items(REAL.rows(BATCH.items)), REAL, model.users(BATCH.users))


# --- signals ---


def test_signals_equal_the_literal_reading() -> None:
    model = hsd().eval()
    found = preferences(model)
    for row, items in enumerate(WINDOWS):
        sequence, item, error = literal_signals(model, items, model.users.weight[row + 1])
        torch.testing.assert_close(found.sequence.split(LENGTHS)[row], sequence)
        torch.testing.assert_close(found.item.split(LENGTHS)[row], item)
        torch.testing.assert_close(found.rebuilding[row], error)


def test_the_rebuilding_error_trains_both_passes_and_the_embeddings() -> None:
    """Its gradients are those of the literal reading, in what is read, in what is to be rebuilt, and in the LSTM."""
    model = hsd().eval()
    weights = [model.items.weight, *model.rebuild.parameters()]
    expected = torch.stack([literal_signals(model, items, model.users.weight[1])[2] for items in WINDOWS]).sum()
    found = torch.autograd.grad(preferences(model).rebuilding.sum(), weights)
    for own, literal in zip(found, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(own, literal, atol=1e-5, rtol=1e-4)


def test_verdicts_by_hand() -> None:
    """Preferences for noise (0.4, 0.2): dropped, score -0.2, kept with 1 - s(0.4) s(0.2); one against it: kept.

    s(0.4) s(0.2) = 0.5987 x 0.5498 = 0.3292; s(0.4) s(-0.2) = 0.5987 x 0.4502 = 0.2695; s(0) s(0) = 1/4.
    """
    model = hsd()
    preferences = Signals(torch.tensor([0.4, 0.4, 0.0]), torch.tensor([0.2, -0.2, 0.0]), torch.zeros(1))
    model.signals = lambda *rest: preferences  # type: ignore[method-assign]
    found = model.judge(batch_of([1, 2, 3]))
    assert found.kept.tolist() == [[False, True, True]]
    torch.testing.assert_close(found.score, torch.tensor([[-0.2, 0.2, 0.0]]))
    torch.testing.assert_close(found.probability, torch.tensor([[0.6708, 0.7305, 0.75]]), atol=1e-4, rtol=0)


def test_a_quarter_is_dropped_at_indifference() -> None:
    """Of 8,000 sampled pairs of decisions, whatever the temperature; the export says so, too."""
    model, one = hsd(), batch_of(*[[1, 2, 3, 4]] * 2000)
    with torch.no_grad():
        model.sequence_signal.weight.zero_()
        model.item_signal.weight.zero_()
    for temperature in (0.5, 1e-3):
        model.temperature = temperature
        real = Jagged(one.valid)
        signals = model.signals(model.items(real.rows(one.items)), real, model.users(one.users))
        drop = model.sampled(signals.sequence, real) * model.sampled(signals.item, real)
        assert drop.mean().item() == pytest.approx(0.25, abs=0.015)
    assert set(model.judge(one).probability.flatten().tolist()) == {0.75}


@pytest.mark.parametrize("preference", [-0.9, 0.3, 0.9])
def test_sampled_as_often_as_the_sigmoid_says(preference: float) -> None:
    real = Jagged(torch.ones(2000, 4, dtype=torch.bool))
    found = hsd().sampled(torch.full((8000,), preference), real).mean().item()
    assert found == pytest.approx(1 / (1 + math.exp(-preference)), abs=0.02)


def test_drop_rates_stay_between_7_and_53_percent() -> None:
    """However large the weights, since each signal's two numbers differ by less than 1: s(-1)^2 and s(1)^2."""
    probability = hsd(spread=20.0).eval().judge(BATCH).probability[BATCH.valid]
    assert (1 - probability).min() > 0.0723 and (1 - probability).max() < 0.5345


# --- the cleaned history ---


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_the_backbone_reads_what_is_kept(backbone: str) -> None:
    """Moved together; where nothing is kept it reads one zero vector."""
    model = hsd(backbone, seed=2).eval()
    kept = [[True, False, True, True, False], [False, True], [False], [False] * 4]
    keep = torch.tensor([flag for flags in kept for flag in flags]).float()
    found = model.cleaned_states(model.items(REAL.rows(BATCH.items)), keep, REAL)
    for row, items in enumerate(WINDOWS):
        torch.testing.assert_close(found[row], literal_state(model, items, kept[row]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_states_follow_the_rule(backbone: str) -> None:
    model = hsd(backbone, seed=2).eval()
    with torch.no_grad():  # the sequence objects to everything, so the user's signal alone decides
        model.sequence_signal.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, DIM))
    kept, dropped = model.judge(BATCH).kept, 0
    for row, items in enumerate(WINDOWS):
        flags = kept[row, : len(items)].tolist()
        dropped += flags.count(False)
        expected = model.head(literal_state(model, items, flags))
        torch.testing.assert_close(model.states(BATCH)[row], expected, atol=1e-5, rtol=1e-4)
    assert 0 < dropped < 12  # otherwise the test says nothing


# --- losses ---


@pytest.mark.parametrize(("epoch", "count"), [(0, 6), (9, 8)])
def test_the_loss_equals_the_literal_reading(epoch: int, count: int) -> None:
    """Every prefix with a next item is judged, sampled, cleaned and scored; at first 6 of 8, which rebuild best, count.

    At last all count, but of a history of 4 items the user's largest loss counts 0.
    """
    model = hsd(left_out=0.25)
    model.epoch = epoch
    shape = torch.Size([len(PREFIXES), 4])
    generator = torch.Generator().manual_seed(0)
    first, second = (masking.logistic(shape, generator, torch.device("cpu")) for _ in range(2))
    negatives = torch.randint(1, ITEMS + 1, (len(PREFIXES),), generator=generator)
    found = model.loss(BATCH)
    table, entropies, errors, user_losses = model.items.weight, [], [], []
    for place, (window, stop) in enumerate(PREFIXES):
        items, target, user = WINDOWS[window][:stop], WINDOWS[window][stop], model.users.weight[window + 1]
        sequence, item, error = literal_signals(model, items, user)
        kept = [not (sequence[t] + first[place, t] > 0 and item[t] + second[place, t] > 0) for t in range(stop)]
        state = model.head(literal_state(model, items, kept))
        entropies.append(F.cross_entropy(table[1:] @ state, torch.tensor(target - 1)))
        errors.append(error)
        own = [-F.logsigmoid(user @ table[i] - user @ table[negatives[place]]) for i in items]
        if epoch == 9 and stop == 4:
            own[max(range(4), key=lambda t: own[t].item())] *= 0
        user_losses += own
    best = sorted(range(len(PREFIXES)), key=lambda place: errors[place].item())[:count]
    torch.testing.assert_close(found["ce"], torch.stack([entropies[place] for place in best]).mean())
    torch.testing.assert_close(found["rebuild"], torch.stack([errors[place] for place in best]).mean())
    torch.testing.assert_close(found["user"], torch.stack(user_losses).mean())


def test_the_curriculum() -> None:
    """A fifth is left out at first, nothing from the tenth epoch on: linspace(0.2, 0, 10)."""
    model, shares = hsd(), []
    for _ in range(12):
        shares.append(model.left_out())
        model.end_epoch()
    torch.testing.assert_close(torch.tensor(shares[:10]), torch.linspace(0.2, 0, 10))
    assert shares[10:] == [0, 0]


def test_the_best_rebuilt_by_hand() -> None:
    """Of five errors a fifth, the largest, is left out at first; none later."""
    model, errors = hsd(), torch.tensor([0.3, 0.9, 0.1, 0.9, 0.2])
    assert model.best_rebuilt(errors).tolist() == [0, 1, 2, 4]
    model.epoch = 9
    assert model.best_rebuilt(errors).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [([], [[3], [], []]), (["short_user_loss"], [[3], [0, 1, 2], [0]])],
)
def test_the_largest_losses_of_a_user(quirks: list[str], expected: list[list[int]]) -> None:
    """At last a fifth of each history, rounded down: 1 of 5 items, 0 of 3, 0 of 1; a quirk takes all instead of 0."""
    model, losses = hsd(quirks=quirks), torch.tensor([[1, 2, 3, 9, 5], [1, 2, 3, 0, 0], [7, 0, 0, 0, 0]]).float()
    valid = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    model.epoch = 9
    found = model.largest(losses, valid) & valid
    assert [row.nonzero().flatten().tolist() for row in found] == expected


def test_the_temperature_falls() -> None:
    """After 40 batches to 0.5 exp(-0.04), after 80 to that times exp(-0.08); never below 0.001."""
    model, seen = hsd(), []
    for _ in range(80):
        model.cool()
        seen.append(model.temperature)
    assert set(seen[:39]) == {0.5}
    assert seen[39] == pytest.approx(0.5 * math.exp(-0.04)) and seen[79] == pytest.approx(0.5 * math.exp(-0.12))
    for _ in range(2000):
        model.cool()
    assert model.temperature == 1e-3


def test_decisions_are_taken_at_the_temperature_by_now() -> None:
    """The gradient of a hard decision is that of the soft one."""
    model = hsd()
    model.temperature = 0.3
    preference, real = torch.tensor([0.4, -0.2, 0.1], requires_grad=True), Jagged(torch.ones(1, 3, dtype=torch.bool))
    state = model.generator.get_state()
    decided = model.sampled(preference, real).sum()
    model.generator.set_state(state)
    noise = masking.logistic(torch.Size([1, 3]), model.generator, torch.device("cpu"))[0]
    soft = torch.sigmoid((preference + noise) / 0.3).sum()
    torch.testing.assert_close(*(torch.autograd.grad(each, preference) for each in (decided, soft)))


def asked(model: HSD) -> Tensor:
    """The queries of the item's signal in training."""
    with mock.patch.object(model, "signals", wraps=model.signals) as signals:
        model.loss(BATCH)
    query: Tensor = signals.call_args.args[2]
    return query


def test_who_is_asked() -> None:
    """The user, in training as in use; the target item in training by a quirk; a stranger is a zero vector."""
    examples = prefixes_with_target(BATCH)
    assert torch.equal(asked(hsd()), hsd().users(examples.batch.users))
    assert torch.equal(asked(hsd(quirks=["target_query"])), hsd().items(examples.targets))
    model, stranger = hsd().eval(), batch_of(*WINDOWS)
    nobody = Batch(stranger.rows, stranger.items, stranger.targets, torch.zeros_like(stranger.users))
    found = model.judge(nobody).probability
    assert not torch.equal(found, model.judge(stranger).probability) and found.isfinite().all()


def test_batch_norm_is_torch_s() -> None:
    """With positions as channels, shorter batches in between; running statistics, too."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    for _ in range(3):
        inputs = torch.randn(5, 4, 3)
        torch.testing.assert_close(ours(inputs), theirs(inputs))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var, atol=0.05, rtol=0)  # torch's is n / (n - 1) of it
    torch.testing.assert_close(ours(inputs[:, :2]), theirs(inputs)[:, :2])
    torch.testing.assert_close(ours.eval()(inputs), theirs.eval()(inputs), atol=0.05, rtol=0.05)


# --- what a gradient reaches, what may be seen ---


def test_the_cross_entropy_trains_both_signals() -> None:
    """Through the sampled decisions; the user's loss trains users, the rebuilding error the LSTM."""
    model = hsd(seed=2, spread=0.3)
    losses = model.loss(BATCH)
    reached: dict[str, list[str]] = {}
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        grads = {path: weight.grad for path, weight in model.named_parameters()}
        reached[name] = [path for path, grad in grads.items() if grad is not None and grad.abs().sum() > 0]
    for part in ("sequence_signal", "item_signal", "of_item", "of_query", "compare", "rebuild", "backbone", "items"):
        assert any(path.startswith(part) for path in reached["ce"]), part
    assert {path.split(".")[0] for path in reached["rebuild"]} == {"items", "rebuild"}
    assert {path.split(".")[0] for path in reached["user"]} == {"items", "users"}


def test_prefixes_of_a_window_are_judged_apart() -> None:
    """What comes after a prefix changes neither its signals nor its state in training, with the same noise."""
    found: dict[int, list[Tensor]] = {5: [], 7: []}
    for last, seen in found.items():
        model = hsd()
        model.epoch, sampled = 9, model.sampled
        model.cross_entropy = lambda states, targets, seen=seen: seen.append(states) or states.sum()  # type: ignore
        model.sampled = lambda value, real, seen=seen, go=sampled: seen.append(value) or go(value, real)  # type: ignore
        model.loss(batch_of([3, 1, 4, 1, last], [2, 9, 2]))
    assert len(found[5]) == 3  # two signals, and the states
    for one, other in zip(*found.values(), strict=True):
        assert torch.equal(one, other)


def test_drawn_prefixes_are_fewer() -> None:
    model, seen = hsd(), []
    model.epoch = 9
    model.cross_entropy = lambda states, targets: seen.append(len(targets)) or states.sum()  # type: ignore
    for drawn in (0, 2):
        model.settings = LossSettings(prefixes_drawn=drawn)
        model.loss(BATCH)
    assert seen == [len(PREFIXES), 2 + 1 + 2]


def test_figures_of_an_epoch() -> None:
    """The share of items in prefixes that were dropped: between 7% and 53%."""
    model = hsd()
    for _ in range(20):
        model.loss(BATCH)
    assert 0.07 < model.end_epoch()["drop_rate"] < 0.53
    assert model.end_epoch() == {"drop_rate": 0.0}


def test_dropout_in_training_only() -> None:
    """Of what the LSTM reads, and of both signals' inputs: signals differ from call to call."""
    for name in ("embedding_dropout", "signal_dropout"):
        changes: dict[str, Any] = {name: 0.5}
        model = hsd(**changes)
        once, again = preferences(model), preferences(model)
        assert not torch.equal(once.sequence, again.sequence), name
        assert torch.equal(once.item, again.item) == (name == "embedding_dropout")
        assert torch.equal(preferences(model.eval()).sequence, preferences(model).sequence)


def test_training_cools_and_goes_on_where_it_stopped() -> None:
    """After 40 losses the temperature has fallen; another model takes it, the curriculum and the noise over."""
    model = hsd()
    for _ in range(40):
        model.loss(BATCH)
    model.end_epoch()
    assert model.temperature == pytest.approx(0.5 * math.exp(-0.04))
    other = hsd(seed=3)
    other.load_state_dict(model.state_dict())
    other.load_training_state(model.training_state())
    assert (other.temperature, other.epoch, other.batches) == (model.temperature, 1, 40)
    one, two = model.loss(BATCH), other.loss(BATCH)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_quirk_normalises_over_the_batch() -> None:
    """What the item's signal reads is nn.BatchNorm1d of the embeddings, positions as channels."""
    model = hsd(quirks=["batch_norm"])
    embedded, theirs = model.items(BATCH.items), nn.BatchNorm1d(LENGTH)
    with torch.no_grad():
        theirs.weight.copy_(model.norm.weight)
        theirs.bias.copy_(model.norm.bias)
    expected = theirs(F.pad(embedded, (0, 0, 0, LENGTH - embedded.shape[1])))[:, : embedded.shape[1]][BATCH.valid]
    torch.testing.assert_close(model.normed(embedded[BATCH.valid], REAL), expected)


def test_no_example_under_a_sampled_loss() -> None:
    """The gradient of nothing is sparse as well, which the sparse optimiser demands."""
    model = hsd()
    model.prepare(LossSettings(negatives=3))
    torch.stack(list(model.loss(batch_of([3], [4])).values())).sum().backward()
    assert model.items.weight.grad is not None and model.items.weight.grad.is_sparse
