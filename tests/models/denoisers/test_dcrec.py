"""DCRec against dense matrices and loops over histories; what its weights and states may depend on."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import (
    DIM,
    ITEMS,
    LENGTH,
    batch_of,
    committed,
    random_histories,
    sequences_of,
    small_config,
    spread_out,
    train_params,
    with_future,
)
from torch import Tensor
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.denoisers import dcrec as module
from iadsr.models.denoisers.dcrec import DCRec, contrast, divergence, own_neighbours, scaled
from iadsr.models.files import load_model, save_model
from iadsr.models.recommender import LossSettings
from iadsr.sequences.graphs import co_interaction_graph, transition_graph
from iadsr.sequences.prefix_examples import prefixes_with_target
from iadsr.sequences.windows import Batch, Feed, training_windows
from iadsr.train.fit import fit, start

pytestmark = pytest.mark.usefixtures("one_thread")
HISTORIES = random_histories(7, 9, seed=4)
FEED = Feed(sequences_of(*HISTORIES))
TRANSITIONS = torch.from_numpy(transition_graph(FEED.sequences).toarray()).float()
SIMILAR = torch.from_numpy(co_interaction_graph(FEED.sequences, 4).toarray()).float()


def dcrec(seed: int = 0, spread: float | None = 0.5, dropout: float = 0.0, **changes: Any) -> DCRec:
    model = build(small_config("dcrec", "none", seed, dropout, **changes), FEED)
    assert isinstance(model, DCRec)
    torch.manual_seed(seed)
    return spread_out(model, spread)


def training_batch() -> Batch:
    return FEED.batch(training_windows(FEED.sequences, LENGTH, torch.Generator().manual_seed(0)))


def item_states(model: DCRec, graph: Tensor) -> Tensor:
    """LayerNorm(x + mean of x, Ax and AAx), densely."""
    given = model.items.weight
    layers = torch.stack([given, graph @ given, graph @ graph @ given])
    return model.norm(layers.mean(0) + given)


# --- graphs ---


def test_item_states_equal_dense_algebra() -> None:
    """In training without dropout, and as computed for use."""
    model = dcrec()
    model.end_epoch()
    assert model.graphs is not None and model.training
    for graph, dense, stored in (
        (model.graphs.transitions, TRANSITIONS, model.transition_states),
        (model.graphs.similar, SIMILAR, model.similar_states),
    ):
        expected = item_states(model, dense)
        torch.testing.assert_close(model.norm(model.spread(graph).mixed), expected)
        torch.testing.assert_close(stored, expected)


def test_dropout_of_edges() -> None:
    """Edges are lost or doubled at a rate of a half, in training alone; `unscaled_edges`: lost or as they were."""
    for quirks, factor in (([], 2.0), (["unscaled_edges"], 1.0)):
        model = dcrec(dropout=0.5, quirks=quirks)
        assert model.graphs is not None
        values = model.graphs.transitions.values
        weights = model.spread(model.graphs.transitions).weights
        assert ((weights == 0) | (weights == factor * values)).all()
        assert 0.3 < (weights == 0).float().mean() < 0.7
        assert torch.equal(model.eval().spread(model.graphs.transitions).weights, values)


def test_no_dropout_in_the_states_for_use() -> None:
    """Unless `edge_dropout_at_test`; embeddings never are under dropout there."""
    model = dcrec(dropout=0.5)
    model.end_epoch()
    torch.testing.assert_close(model.transition_states, item_states(model, TRANSITIONS))
    noisy, found = dcrec(dropout=0.5, quirks=["edge_dropout_at_test"]), []
    for _ in range(2):
        noisy.end_epoch()
        assert noisy.training and noisy.edge_dropout.training
        found.append(noisy.transition_states.clone())
    assert not torch.equal(*found)
    noisy = dcrec(dropout=0.5, graph_dropout=0.0, quirks=["edge_dropout_at_test"])
    noisy.end_epoch()
    torch.testing.assert_close(noisy.transition_states, item_states(noisy, TRANSITIONS))


def test_states_for_use_are_of_the_last_epoch_s_end() -> None:
    """Training steps move them no more until then, and what was saved of the best epoch brings them back."""
    model = dcrec()
    model.end_epoch()
    best = {name: value.clone() for name, value in model.state_dict().items()}
    before = model.transition_states.clone()
    with torch.no_grad():
        model.items.weight[1:] += 1 + torch.rand(ITEMS, DIM)
    assert torch.equal(model.transition_states, before)
    model.end_epoch()
    assert not torch.allclose(model.transition_states, before, atol=0.01)
    model.load_state_dict(best)
    assert torch.equal(model.transition_states, before)


def test_a_saved_model_needs_no_graph(tmp_path: Path) -> None:
    model, batch = dcrec(), batch_of([3, 1, 4], [9])
    model.end_epoch()
    save_model(tmp_path, model, small_config("dcrec", "none"))
    loaded, _ = load_model(tmp_path, torch.device("cpu"))
    assert isinstance(loaded, DCRec) and loaded.graphs is None
    assert torch.equal(loaded.states(batch), model.eval().states(batch))
    assert not any("graphs" in name for name in model.state_dict())


def test_validation_sees_the_states_of_its_epoch(tmp_path: Path) -> None:
    """After each epoch, and with the best epoch's weights at the end."""
    model = build(small_config("dcrec", "none"), FEED)
    assert isinstance(model, DCRec)
    for _ in fit(model, FEED, train_params(), LENGTH, 3, tmp_path / "checkpoint"):
        torch.testing.assert_close(model.transition_states, item_states(model, TRANSITIONS))
    torch.testing.assert_close(model.similar_states, item_states(model, SIMILAR))


# --- conformity ---


def test_own_neighbours_by_hand() -> None:
    """Of 5 in 5 1 5 5 2 5 the others beside it are 2 and 1; of 2 in 1 2 it is 1; a lone or repeated item has none."""
    batch = batch_of([5, 1, 5, 5, 2, 5], [1, 2], [7], [3, 3, 3], [4, 6, 8, 9])
    found = own_neighbours(batch.items, batch.items[torch.arange(5), batch.last])
    assert found.tolist() == [[2, 1], [1, 0], [0, 0], [0, 0], [8, 0]]
    assert own_neighbours(torch.tensor([[7]]), torch.tensor([7])).tolist() == [[0]]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_without_edges_equals_the_dense_graph_without_them(dropout: float) -> None:
    """Both directions are taken out of the matrix, which is applied twice; also under dropout of edges."""
    model = dcrec(dropout=dropout)
    assert model.graphs is not None
    spread, graph = model.spread(model.graphs.transitions), model.graphs.transitions
    every = torch.arange(ITEMS + 1)
    dense = graph.values_at(spread.weights, every[:, None], every)
    items, removed, expected = [], [], []
    for item in range(1, ITEMS + 1):
        near = [other for other in range(1, ITEMS + 1) if other != item and TRANSITIONS[item, other] > 0]
        for some in (near[:1], near[1:3], near[:2], []):
            cut = dense.clone()
            cut[item, some] = cut[some, item] = 0
            layers = torch.stack([spread.given, cut @ spread.given, cut @ cut @ spread.given])
            items.append(item)
            removed.append([*some, 0, 0][:2])
            expected.append(layers.mean(0)[item] + spread.given[item])
    found = model.without_edges(spread, torch.tensor(items), torch.tensor(removed))
    torch.testing.assert_close(found, torch.stack(expected))


def literal_weights(model: DCRec, histories: list[list[int]], mean: float) -> list[float]:
    """History by history: the graph without the own edges of its last item, means of neighbours, three cosines."""
    values, table = [], item_states(model, TRANSITIONS)
    for history in histories:
        last = history[-1]
        own = {other for pair in itertools.pairwise(history) if last in pair for other in pair} - {last}
        if not own:
            values.append(math.nan)
            continue
        cut = TRANSITIONS.clone()
        for other in own:
            cut[last, other] = cut[other, last] = 0
        near = [(-cut[last, other].item(), other) for other in range(1, ITEMS + 1) if other != last]
        left = [other for weight, other in sorted(near) if weight < 0][: module.REMAINING]
        nothing = torch.zeros(DIM)
        remaining = torch.stack([table[other] for other in left]).mean(0) if left else nothing
        gone = torch.stack([table[other] for other in own]).mean(0)
        pairs = ((table[last], item_states(model, cut)[last]), (table[last], remaining), (gone, remaining))
        cosines = [F.cosine_similarity(one, other, dim=0).item() for one, other in pairs]
        values.append(1 / (1 + math.exp(-sum(cosines) / 3)))
    judged = [value for value in values if not math.isnan(value)]
    stretched = [(value - min(judged)) / (max(judged) - min(judged)) for value in values]
    average = sum(value for value in stretched if not math.isnan(value)) / len(judged)
    return [0.5 if math.isnan(value) else value * mean / average for value in stretched]


@pytest.mark.parametrize("remaining", [1, 2, 10])
def test_weights_equal_the_loops(remaining: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every training prefix, items that repeat included; with fewer neighbours than there are, and more."""
    monkeypatch.setattr(module, "REMAINING", remaining)
    model, histories = dcrec(weight_mean=0.4), prefixes_with_target(training_batch()).batch
    assert model.graphs is not None
    along, item = model.spread(model.graphs.transitions), module.newest_items(histories)
    found = model.conformity(along, model.norm(along.mixed), histories.items, item)
    lists = [[item for item in row if item] for row in histories.items.tolist()]
    torch.testing.assert_close(found, torch.tensor(literal_weights(model, lists, 0.4)), atol=1e-4, rtol=1e-4)
    known = own_neighbours(histories.items, item).any(1)
    assert found[known].mean().item() == pytest.approx(0.4, abs=1e-5) and (found[~known] == 0.5).all()
    assert known.any() and not known.all()


def test_scaled_by_hand() -> None:
    """0.2, 0.6 and 0.4 become 0, 1, 0.5, whose mean is 0.5, twice what is asked for; equal ones get the mean."""
    values, some = torch.tensor([0.2, 0.9, 0.6, 0.4]), torch.tensor([True, False, True, True])
    torch.testing.assert_close(scaled(values, some, 0.25), torch.tensor([0.0, 0.5, 0.5, 0.25]))
    assert scaled(values, torch.zeros(4).bool(), 0.3).tolist() == [0.5] * 4
    torch.testing.assert_close(scaled(torch.ones(2), torch.ones(2).bool(), 0.3), torch.tensor([0.3, 0.3]))


# --- losses ---


def test_contrast_by_hand() -> None:
    """Cosines 1 and 0 with the own positive, 0 and 1 with the other, at temperature 0.5: ln(1 + e^-2), ln(1 + e^2)."""
    anchors, positives = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(2))])
    torch.testing.assert_close(contrast(anchors, positives, 0.5), expected)


def test_divergence_by_hand() -> None:
    """Draws 0 and ln 3 are shares 1/4 and 3/4, equal weights 1/2 each; order and a constant do not matter."""
    drawn = torch.tensor([math.log(3), 0.0])
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergence(drawn, torch.tensor([0.7, 0.7])).item() == pytest.approx(expected, rel=1e-6)
    assert divergence(drawn, torch.tensor([1.0, 1.0 + math.log(3)])).item() == pytest.approx(0, abs=1e-6)


def test_fusion_by_hand() -> None:
    """a = (1, 0) and W = [[0, ln 2], [0, 0]] give view x the logit x_2 ln 2.

    So the shares of (4, 1), (4, 0) and (0, 0) are 2/4, 1/4 and 1/4.
    """
    model = dcrec()
    model.attention = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
    model.mixing = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.mixing.weight.copy_(torch.tensor([[0.0, math.log(2)], [0.0, 0.0]]))
    views = torch.tensor([[[4.0, 1.0]], [[4.0, 0.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(model.fused(views), torch.tensor([[3.0, 0.5]]))


def test_the_loss_equals_its_formula() -> None:
    """Example by example: cross-entropy of the mixed state; w InfoNCE + (max w - w) InfoNCE; and the KL term."""
    model, batch = dcrec(lambda_contrast=0.3, lambda_kl=0.2, temperature=0.7), training_batch()
    torch.manual_seed(5)
    found = model.loss(batch)
    examples = prefixes_with_target(batch)
    lists = [[item for item in row if item] for row in examples.batch.items.tolist()]
    along, similar = item_states(model, TRANSITIONS), item_states(model, SIMILAR)
    views = [[one_state(model, items), along[items[-1]], similar[items[-1]]] for items in lists]
    weights = literal_weights(model, lists, 0.5)
    ce, weighted = [], []
    for place, own in enumerate(views):
        logits = torch.stack([model.attention @ (model.mixing.weight @ view) for view in own])
        state = sum(share * view for share, view in zip(logits.softmax(0), own, strict=True))
        ce.append(-F.log_softmax(model.items.weight[1:] @ state, 0)[examples.targets[place] - 1])
        losses = []
        for anchor, positive in ((0, 1), (1, 2)):
            cosines = [F.cosine_similarity(own[anchor], other[positive], dim=0) for other in views]
            losses.append(-F.log_softmax(torch.stack(cosines) / 0.7, 0)[place])
        weighted.append(weights[place] * losses[0] + (max(weights) - weights[place]) * losses[1])
    torch.manual_seed(5)
    target = (0.5 + 0.1 * torch.randn(len(lists))).sort().values.softmax(0)
    kl = (target * (target.log() - torch.tensor(weights).sort().values.softmax(0).log())).sum()
    torch.testing.assert_close(found["ce"], torch.stack(ce).mean())
    torch.testing.assert_close(found["contrast"], 0.3 * torch.stack(weighted).mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["kl"], 0.2 * kl, atol=1e-5, rtol=1e-3)


def one_state(model: DCRec, items: list[int]) -> Tensor:
    """The transformer's state at the end of one history, alone."""
    return model.prefix_states(torch.tensor([items]))[0, -1]


def test_the_transformer_looks_at_both_sides() -> None:
    """The state of the first item of a longer history is another one, and what is asked for is the last item's."""
    model, batch = dcrec(), batch_of([3, 1, 4], [3, 1])
    states = model.prefix_states(batch.items)
    assert not torch.allclose(states[0, 0], states[1, 0])
    torch.testing.assert_close(model.sequence_states(batch), torch.stack([states[0, 2], states[1, 1]]))


def test_terms_of_weight_zero_are_left_out() -> None:
    batch = training_batch()
    for first, second, terms in (
        (0.1, 0.1, {"ce", "contrast", "kl"}),
        (0.1, 0.0, {"ce", "contrast"}),
        (0.0, 0.1, {"ce", "kl"}),
        (0.0, 0.0, {"ce"}),
    ):
        assert set(dcrec(lambda_contrast=first, lambda_kl=second).loss(batch)) == terms


def test_where_gradients_flow() -> None:
    """The KL term moves item embeddings and the graphs' norm, and neither the transformer nor the attention."""
    model = dcrec()
    model.loss(training_batch())["kl"].backward()
    moved = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert moved == {"items.weight", "norm.weight", "norm.bias"}
    assert not model.items.weight.grad[0].any()  # type: ignore[index]
    model.zero_grad(set_to_none=True)
    model.loss(training_batch())["ce"].backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_future_changes_no_example_before_it(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items after position p leave the mixed states and the conformity of prefixes up to p as they were.

    In training, under the same draws of dropout; the scaling and the contrasts are over the batch, and are not asked.
    """
    model = dcrec(dropout=dropout)
    seen: list[Tensor] = []

    def note(values: Tensor, known: Tensor, mean: float) -> Tensor:
        seen.append(values.detach())
        return scaled(values, known, mean)

    def note_states(states: Tensor, targets: Tensor) -> Tensor:
        seen.append(states.detach())
        return states.sum()

    monkeypatch.setattr(module, "scaled", note)
    monkeypatch.setattr(model, "cross_entropy", note_states)

    def computed(batch: Batch) -> tuple[Tensor, Tensor]:
        seen.clear()
        torch.manual_seed(1)
        model.loss(batch)
        return seen[0][:, 0], seen[1]

    batch = batch_of([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
    states, values = computed(batch)
    ends = prefixes_with_target(batch).batch.last
    for place in range(3):
        changed = with_future(batch, place)
        for one, other in zip(computed(changed), (states, values), strict=True):
            torch.testing.assert_close(one[ends <= place], other[ends <= place])
            assert not torch.allclose(one[ends > place], other[ends > place])


def test_one_example_and_none() -> None:
    """A single pair cannot be told from others: no contrast, no divergence. Without a target all is 0."""
    model = dcrec()
    one = model.loss(batch_of([3, 1]))
    assert one["ce"] > 0 and one["contrast"].item() == pytest.approx(0, abs=1e-6) and one["kl"] == 0
    assert {name: value.item() for name, value in model.loss(batch_of([3])).items()} == {"ce": 0}


def test_some_prefixes_of_each_window() -> None:
    """`train.prefixes` is handed over by `start`: of two prefixes one is drawn, and the loss is its own."""
    model, batch, found = dcrec(lambda_contrast=0.0, lambda_kl=0.0), batch_of([1, 2, 3]), set()
    start(model, train_params(prefixes=1), 0)
    for _ in range(20):
        found.add(round(model.loss(batch)["ce"].item(), 4))
    model.settings = LossSettings()
    assert len(found) == 2 and sum(found) / 2 == pytest.approx(model.loss(batch)["ce"].item(), abs=1e-3)


def test_held_out_items_change_no_loss() -> None:
    """Whatever the validation and test items of the data set are, training is the same."""
    others = [[*history[:-2], *([item % ITEMS + 1 for item in history[-2:]])] for history in HISTORIES]
    found = []
    for histories in (HISTORIES, others):
        feed = Feed(sequences_of(*histories))
        torch.manual_seed(0)
        model = spread_out(build(small_config("dcrec", "none"), feed), 0.5)
        found.append(model.loss(feed.batch(training_windows(feed.sequences, LENGTH, torch.Generator().manual_seed(0)))))
    assert others != HISTORIES and found[0] == found[1]


# --- what is refused ---


def test_no_transitions_to_learn_from() -> None:
    feed = Feed(sequences_of([1, 2, 3], [4, 4, 5, ITEMS]))
    with pytest.raises(UserError, match=r"params\.yaml: denoiser: dcrec needs .* raise datasets\.small\.core"):
        build(small_config("dcrec", "none"), feed)


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"dcrec\.heads: 3 does not divide train\.dim 8"):
        build(small_config("dcrec", "none", heads=3), FEED)


@pytest.mark.parametrize(
    ("name", "value"), [("neighbours", 0), ("temperature", 0.0), ("graph_dropout", 1.0), ("quirks", ["unknown"])]
)
def test_wrong_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"params\.yaml: denoisers\.dcrec\.{name}"):
        committed("dcrec", **{name: value})


def test_a_sampled_loss_is_refused() -> None:
    with pytest.raises(UserError, match=rf"train\.full_catalogue: {ITEMS - 1} items, but .* all {ITEMS} "):
        start(dcrec(), train_params(full_catalogue=ITEMS - 1), 0)


def test_dropout_of_embeddings() -> None:
    """What is sent along a graph is lost or doubled at a rate of a half, in training alone."""
    model = dcrec(dropout=0.5, graph_dropout=0.0)
    assert model.graphs is not None
    items, given = model.items.weight[1:], model.spread(model.graphs.similar).given[1:]
    lost = given == 0
    assert 0.3 < lost.float().mean() < 0.7
    torch.testing.assert_close(given[~lost], 2 * items[~lost])
    assert torch.equal(model.eval().spread(model.graphs.similar).given[1:], items)


def test_the_contrast_trains_the_weights() -> None:
    """d/dw of the mean of w a + (max w - w) b over 4 is (a - b) / 4, and the largest w also gets all of b / 4."""
    model, weights = dcrec(lambda_contrast=0.3, lambda_kl=0.0), torch.tensor([0.2, 0.9, 0.5, 0.4], requires_grad=True)
    views = torch.randn(3, 4, DIM)
    (found,) = torch.autograd.grad(model.contrast_terms(views, weights)["contrast"], weights)
    unit = F.normalize(views, dim=-1)
    first, second = (contrast(unit[one], unit[one + 1], model.params.temperature) for one in (0, 1))
    expected = (first - second) / 4
    expected[1] += second.sum() / 4
    torch.testing.assert_close(found, 0.3 * expected)
