"""Scores against their definitions, worked out another way; and units that do nothing go first."""

from itertools import combinations

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.errors import DataError
from graphwright.ir.fx.graph import attribute, replace_tensor
from graphwright.passes.common.outputs import arguments, rows
from graphwright.passes.manager.contract import Context
from graphwright.passes.prune.importance import gradients
from graphwright.passes.prune.importance.choose import lowest, rounded
from graphwright.passes.prune.importance.gradients import elimination
from graphwright.passes.prune.importance.masks import masked
from graphwright.passes.prune.importance.scores import scores
from graphwright.passes.prune.surgery.units import units
from hypothesis import given
from hypothesis import strategies as st

METHODS = ["magnitude", "taylor", "fisher", "fisher-block", "activation"]


def context(name, count=2, **options):
    case = zoo.ARCHITECTURES[name]
    feeds = [{k: v.numpy() for k, v in case.inputs(3, 6, seed=i).items()} for i in range(count)]
    return Context(calibration=feeds, **options)


def silenced(name, block, unit):
    """A clone of an architecture in which one unit's columns of the output projection are zero."""
    program = zoo.fx_program(name).clone()
    one = units(program)[block]
    node = next(n for n in program.graph.graph.nodes if n.name == one.output.weight)
    weight = attribute(program.graph, node.target).detach().clone()
    weight[:, one.positions(unit)] = 0
    replace_tensor(program.graph, node, torch.nn.Parameter(weight))
    return program


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(("name", "block", "unit"), [("bert", 2, 3), ("llama", 1, 40)])
def test_a_unit_that_adds_nothing_is_worth_nothing(name, block, unit, method):
    program = silenced(name, block, unit)
    weighed = scores(program, units(program), method, context(name))
    assert weighed[block][unit] == pytest.approx(0, abs=1e-12)
    assert sum(int((each <= 1e-12).sum()) for each in weighed) == 1


def test_magnitude_is_the_norm_of_all_weights_of_a_head():
    program = zoo.fx_program("bert")
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in program.graph.state_dict().items()}
    got = scores(program, units(program), "magnitude", Context())[2]
    path = "encoder.layer.1.attention."
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        squares = sum(
            np.square(state[f"{path}self.{name}.weight"][part]).sum()
            + np.square(state[f"{path}self.{name}.bias"][part]).sum()
            for name in ("query", "key", "value")
        )
        squares += np.square(state[f"{path}output.dense.weight"][:, part]).sum()
        assert got[head] == pytest.approx(squares**0.5, rel=1e-6)


def jacobian(program, found, feed):
    """(rows x width, units) for each block: how real rows of the output follow the masks."""
    whole = masked(program, found)
    output = rows(program, feed, whole.module(*arguments(program, feed))[0])
    grads = [torch.autograd.grad(x, whole.masks, retain_graph=True) for x in output.flatten()]
    return [np.stack([g[i].numpy() for g in grads]) for i in range(len(found))], len(output)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_fisher_of_vectors_is_the_gauss_newton_diagonal(name, monkeypatch):
    monkeypatch.setattr(gradients, "DRAWS", 300)
    program, given_ = zoo.fx_program(name), context(name, count=1)
    found = units(program)[:2]
    exact, count = jacobian(program, found, given_.calibration[0])
    got = scores(program, found, "fisher", given_)
    for each, moved in zip(got, exact, strict=True):
        np.testing.assert_allclose(each, np.square(moved).sum(0) / count, rtol=0.4)  # 300 draws: 8% each


def test_fisher_of_logits_is_that_of_labels_the_model_draws(monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(gradients, "DRAWS", 800)
    program = replace(zoo.fx_program("gpt2"), task="causal-lm")
    given_ = context("gpt2", count=1)
    feed = {name: array[:1, :2] for name, array in given_.calibration[0].items()}
    feed["attention_mask"] = np.ones_like(feed["attention_mask"])
    found = units(program)[:1]
    whole = masked(program, found)
    likely = whole.module(*arguments(program, feed))[0][0].log_softmax(-1)
    exact = np.zeros(found[0].size)
    for row in likely:
        for log in row:
            (grad,) = torch.autograd.grad(log, whole.masks, retain_graph=True)
            exact += log.exp().item() * np.square(grad.numpy()) / len(likely)
    got = scores(program, found, "fisher", Context(calibration=[feed]))[0]
    np.testing.assert_allclose(got, exact, rtol=0.3)


@pytest.mark.parametrize("name", ["bert", "llama", "squeezebert"])
def test_activation_is_what_a_unit_adds_to_the_output(name):
    """Taken off by turning the mask of one unit down, at the projection itself."""
    program, given_ = zoo.fx_program(name), context(name, count=1)
    feed = given_.calibration[0]
    found = units(program)[:1]
    got = scores(program, found, "activation", given_)[0]
    whole = masked(program, found)
    seen = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            if node.name == found[0].output.product:
                seen["value"] = result
            return result

    def projected(mask):
        with torch.no_grad():
            whole.masks[0].copy_(mask)
            Watch(whole.module).run(*arguments(program, feed), enable_io_processing=False)
        value = seen["value"].movedim(1, -1) if name == "squeezebert" else seen["value"]
        return rows(program, feed, value).double()

    ones = torch.ones(found[0].size)
    added = []
    for unit in range(found[0].size):
        mask = ones.clone()
        mask[unit] = 0
        added.append(float((projected(ones) - projected(mask)).square().sum()))
    np.testing.assert_allclose(got, np.array(added) / sum(added), rtol=1e-3, atol=1e-8)


@given(st.integers(1, 6), st.integers(0, 1000))
def test_elimination_adds_up_to_the_loss_of_all_that_go(size, seed):
    factor = np.random.default_rng(seed).standard_normal((9, size))
    fisher = factor.T @ factor
    found = elimination(fisher)
    order = np.argsort(found, kind="stable")
    assert len(set(found)) == size
    # The first to go is the cheapest alone, and what all cost together is the sum over all pairs at most.
    assert fisher[order[0], order[0]] == pytest.approx(np.diag(fisher).min())
    assert found.sum() >= fisher.sum() * (1 - 1e-9)


def test_two_units_that_do_the_same_are_not_both_cheap():
    """0 and 1 give the same number: either costs 1, and both 4, so the dearer 2 goes before the second."""
    fisher = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 2]])
    assert list(np.argsort(elimination(fisher))) == [0, 2, 1]
    costs = {pair: sum(fisher[i, j] for i in pair for j in pair) for pair in combinations(range(3), 2)}
    assert min(costs, key=costs.get) == (0, 2)


def test_random_follows_the_seed():
    found = units(zoo.fx_program("bert"))
    one, same, other = (
        np.concatenate(scores(zoo.fx_program("bert"), found, "random", Context(seed=seed)))
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("method", METHODS[1:])
def test_empty_data_are_refused(method):
    found = units(zoo.fx_program("bert"))
    with pytest.raises(DataError, match="empty"):
        scores(zoo.fx_program("bert"), found, method, Context())


def test_what_goes_from_the_model_and_from_each_layer():
    weighed = [np.array([5.0, 1, 3]), np.array([2.0, 9, 0, 8])]
    assert lowest(weighed, 0.5, "model") == [[1, 2], [0, 2]]
    assert lowest(weighed, 0.5, "layer") == [[1, 2], [0, 2]]
    assert lowest(weighed, 0.25, "layer") == [[1], [2]]
    assert lowest([np.array([0.0, 0]), np.array([1.0, 1])], 0.5, "model") == [[0, 1], []]


@given(st.integers(1, 40), st.integers(0, 40), st.sampled_from([1, 4, 8]), st.integers(0, 99))
def test_what_is_left_is_a_multiple_and_the_dearest(size, count, multiple, seed):
    weighed = np.random.default_rng(seed).permutation(size).astype(float)
    gone = list(np.argsort(weighed)[: min(count, size)])
    fewer = rounded(gone, weighed, multiple)
    left = size - len(fewer)
    assert set(fewer) <= set(gone)
    assert left in (0, size) or left % multiple == 0
    assert left - (size - len(gone)) < multiple
    assert not fewer or max(weighed[fewer]) < min(np.delete(weighed, fewer), default=np.inf)
