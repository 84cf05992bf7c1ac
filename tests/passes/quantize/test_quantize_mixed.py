"""quantize-mixed: the best plan within a budget, from costs that were measured; units, budgets, refusals."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.passes.common.allocate import allocate
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize import quantize_mixed
from graphwright.passes.quantize.int8.weights import FULL
from graphwright.passes.quantize.mixed.costs import bytes_of, seconds, variants
from graphwright.passes.quantize.mixed.units import assign, units
from graphwright.passes.quantize.quantize_mixed import QuantizeMixed
from handmade import operators, parsed
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import fx_program, onnx_program

CONTEXT = Context(target=named("x86-64-vnni"))
RNG = np.random.default_rng(0)
UP, DOWN, Q, K = (
    RNG.standard_normal(s).astype(np.float32) for s in ((64, 128), (128, 64), (64, 64), (64, 64))
)


def two_layers():
    """q and k share an activation; `up` is used twice; then `down`."""
    return parsed(
        """q = MatMul (x, q_weight) k = MatMul (x, k_weight) a = Mul (q, k)
        h = MatMul (a, up) r = Relu (h) m = MatMul (r, down) h2 = MatMul (m, up) y = Relu (h2)""",
        "float[batch,length,64] x",
        "float[batch,length,128] y",
        {"q_weight": Q, "k_weight": K, "up": UP, "down": DOWN},
    )


costs = st.lists(st.lists(st.floats(0.1, 10), min_size=3, max_size=3), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(cost=costs, seed=st.integers(0, 999), share=st.floats(0.2, 1.2))
def test_no_plan_within_the_budget_loses_less(cost, seed, share):
    loss = np.random.default_rng(seed).random((len(cost), 3))
    names = ("float", "int8", "int4")
    tables = [[dict(zip(names, row, strict=True)) for row in table] for table in (loss, cost)]
    budget = share * sum(max(row) for row in cost) / 2
    plans = list(product(range(3), repeat=len(cost)))
    within = [p for p in plans if sum(cost[n][c] for n, c in enumerate(p)) <= budget * (1 - 1e-6)]
    found = allocate(*tables, budget)
    if found is None:
        assert not within
        return
    assert sum(tables[1][n][c] for n, c in enumerate(found)) <= budget * (1 + 1e-6)
    best = min((sum(loss[n][c] for n, c in enumerate(p)) for p in within), default=np.inf)
    assert sum(tables[0][n][c] for n, c in enumerate(found)) <= best + 1e-6


def test_what_shares_an_activation_or_a_weight_goes_together():
    found, misses = units(two_layers(), FULL)
    assert [unit.weights for unit in found] == [("k_weight", "q_weight"), ("up",), ("down",)]
    assert [len(unit.sites) for unit in found] == [1, 2, 1]
    assert misses == []


def test_each_unit_gets_its_own_precision():
    program = two_layers()
    chosen, _ = units(program, FULL)
    assign(program, chosen, ["int4", "int8", "float"], FULL, frozenset())
    assert operators(program).count("MatMulNBits") == 2
    assert operators(program).count("MatMulIntegerToFloat") == 2
    assert operators(program).count("MatMul") == 1
    assert {"down", "up.int8"} <= set(program.graph.graph.initializers)


def test_bytes_are_those_stored_and_times_were_measured():
    program = two_layers()
    chosen, _ = units(program, FULL)
    made = variants(program, chosen, FULL, frozenset())
    up = bytes_of(made, chosen)[1]
    assert up["float"] == UP.nbytes
    assert up["int8"] == UP.size + 4 * 128
    groups = UP.size // 32
    assert up["int4"] == UP.size / 2 + 2 * groups + groups / 2  # codes, float16 scales, 4-bit zeros
    feed = probes(program, 0)[0]
    for cost in seconds(made, chosen, feed, 1):
        assert all(taken > 0 for taken in cost.values())


@pytest.mark.parametrize("by", ["cosine", "score"])
@pytest.mark.parametrize("limit", [0.9, 0.3, 0.2])
def test_the_budget_of_bytes_is_kept_with_as_little_loss_as_it_allows(by, limit):
    program = two_layers()
    feeds = probes(program, 0)
    reference = execute(program, feeds)

    def score(variant):
        pairs = zip(reference, execute(variant, feeds), strict=True)
        return -sum(float(np.abs(a["y"] - b["y"]).mean()) for a, b in pairs)

    context = Context(target=named("x86-64-vnni"), score=score)
    run = Pipeline([QuantizeMixed(budget="size", limit=limit, by=by)]).run(program, context)
    (step,) = run.steps
    assert step.error is None
    assert step.statistics["share of size"] <= limit
    found = [note for note in step.notes if ": int" in note or ": float" in note]
    assert len(found) == 3
    if limit == 0.9:
        assert step.statistics["float"] >= 1
    again = Pipeline([QuantizeMixed(budget="size", limit=limit, by=by)]).run(program, context)
    assert again.program.fingerprint() == run.program.fingerprint()


def test_what_was_chosen_is_chosen_again_without_a_clock(monkeypatch):
    pass_, chosen = QuantizeMixed(limit=0.6), {}
    first = pass_.run(two_layers(), replace(CONTEXT, chosen=chosen))
    assert chosen.keys() == {(repr(pass_), unit.weights) for unit in units(two_layers(), FULL)[0]}
    monkeypatch.setattr(quantize_mixed, "seconds", lambda *_: pytest.fail("it measures again"))
    again = pass_.run(two_layers(), replace(CONTEXT, chosen=dict(chosen)))
    assert again.program.fingerprint() == first.program.fingerprint()
    other = pass_.run(two_layers(), replace(CONTEXT, chosen=dict.fromkeys(chosen, "int8")))
    assert (other.statistics["int8"], other.statistics["float"]) == (len(chosen), 0)


def test_a_budget_that_cannot_be_met_gets_the_cheapest_and_says_so():
    found = QuantizeMixed(budget="size", limit=0.01).run(two_layers(), CONTEXT)
    assert found.statistics["int4"] == 3
    assert any(
        "the budget cannot be met: the cheapest precisions take 14% of float's size" in n for n in found.notes
    )


def test_by_hessian_uses_the_captured_model_and_needs_it():
    program = fx_program("bert")
    run = Pipeline.parse("to-onnx,fold-constants,quantize-mixed{budget=size,limit=0.2,by=hessian}").run(
        program, CONTEXT, verify=False
    )
    step = run.steps[-1]
    assert step.error is None
    assert step.statistics["share of size"] <= 0.2
    losses = [
        float(note.split("int8")[-1].split("loses ")[1].split(",")[0])
        for note in step.notes
        if "(float" in note
    ]
    assert len(losses) == 8
    assert all(loss > 0 for loss in losses)
    context = Context(target=named("x86-64-vnni"))
    with pytest.raises(Exception, match="needs the model as PyTorch has it"):
        Pipeline([QuantizeMixed(by="hessian")]).run(two_layers(), context)


@pytest.mark.parametrize("name", ["albert", "gpt2", "t5"])
def test_shared_and_tied_weights_of_the_zoo(name):
    program = onnx_program(name)
    found = QuantizeMixed(budget="size", limit=0.35).run(program.clone(), CONTEXT)
    assert found.modified
    for expected, got in zip(
        execute(program, probes(program, 0)), execute(found.program, probes(program, 0)), strict=True
    ):
        a, b = (each[program.outputs[0]].astype(np.float64).ravel() for each in (expected, got))
        kept = np.isfinite(a)
        assert (a[kept] @ b[kept]) / np.linalg.norm(a[kept]) / np.linalg.norm(b[kept]) > 0.985


def test_a_quantized_model_is_kept_whole_and_limits_are_shares():
    once = QuantizeMixed(budget="size", limit=0.3).run(two_layers(), CONTEXT).program
    again = QuantizeMixed().run(once.clone(), CONTEXT)
    assert not again.modified
    assert "quantized already" in again.notes[0]
    with pytest.raises(ValueError, match=r"limit is 1\.5"):
        QuantizeMixed(limit=1.5)
    assert QuantizeMixed().gated()
    assert not QuantizeMixed(budget="size").gated()
