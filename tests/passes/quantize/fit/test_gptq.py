"""GPTQ beside the paper's own formula in float64, written out without its Cholesky reformulation."""

import numpy as np
import pytest
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.codes.rounding import Coded, Scheme, grid, round_to_nearest
from graphwright.passes.quantize.fit.clip import clip
from graphwright.passes.quantize.fit.gptq import gptq
from handmade import parsed


def layer(rows, columns, seed, tokens=400):
    """A weight and the gram of activations that go together."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((columns, columns)) / np.sqrt(columns) + np.eye(columns)
    x = rng.standard_normal((tokens, columns)) @ mix * np.exp(rng.standard_normal(columns))
    return rng.standard_normal((rows, columns)).astype(np.float32), x.T @ x / tokens


def direct(weight, gram, bits, group, damping, order):
    """Section 3: one input after the other; the rest moves by -e / H^-1[i, i] H^-1[i, :] (equation 2), and
    the inverse loses the input by one step of elimination (equation 3). Float64 throughout.

    Groups take their grid when their first input's turn comes, or, in another order, from the weight."""
    w = weight.astype(np.float64)
    damped = gram + damping * np.diag(gram).mean() * np.eye(len(gram))
    inverse = np.linalg.inv(damped)
    scheme = Scheme(bits, group)
    ordered = (order == np.arange(len(gram))).all()
    static = None if ordered else grid(weight, scheme, clip(weight, gram, scheme))
    codes, margins = np.zeros(w.shape, int), np.zeros(w.shape)
    grids = {}
    for i in order:
        number = i // group
        if static is None and i % group == 0:
            found = grid(w[:, i : i + group].astype(np.float32), Scheme(bits, group))
            grids[number] = found.scale[:, 0].astype(np.float64), found.zero[:, 0]
        elif static is not None:
            grids[number] = static.scale[:, number].astype(np.float64), static.zero[:, number]
        scale, zero = grids[number]
        steps = w[:, i] / scale
        margins[:, i] = np.abs(steps - np.floor(steps) - 0.5)  # how far from a tie
        codes[:, i] = np.clip(np.rint(steps) + zero, 0, 2**bits - 1)
        error = w[:, i] - scale * (codes[:, i] - zero)
        w -= np.outer(error / inverse[i, i], inverse[i])
        inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return codes, margins


def loss(weight, found, gram):
    error = found.floats().astype(np.float64) - weight
    return np.einsum("ij,jk,ik->", error, gram, error)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    ("columns", "group", "bits"), [(96, 32, 4), (160, 32, 3), (72, 16, 2), (288, 256, 4)]
)
def test_codes_are_those_of_the_formula(columns, group, bits, act_order):
    weight, gram = layer(12, columns, seed=columns)
    order = np.argsort(-np.diag(gram), kind="stable") if act_order else np.arange(columns)
    expected, margins = direct(weight, gram, bits, group, 0.01, order)
    found = gptq(weight, gram, Scheme(bits, group), act_order=act_order)
    # A row follows the formula until float32 decides a near tie otherwise; from there on it may differ.
    for row in range(len(weight)):
        wrong = np.flatnonzero(found.codes[row][order] != expected[row][order])
        assert wrong.size == 0 or margins[row][order][wrong[0]] < 1e-3
    assert (found.codes == expected).all(axis=1).mean() > 0.7


@pytest.mark.parametrize(
    ("bits", "group", "act_order"),
    [(4, 32, False), (4, 16, False), (3, 32, False), (4, 32, True), (3, 16, True), (2, 32, True)],
)
def test_products_are_kept_better_than_by_rounding(bits, group, act_order):
    """Over many rows: for one it is greedy, and may lose."""
    weight, gram = layer(64, 128, 0)
    found = gptq(weight, gram, Scheme(bits, group), act_order=act_order)
    ratio = loss(weight, found, gram) / loss(weight, round_to_nearest(weight, Scheme(bits, group)), gram)
    assert ratio < (0.6 if act_order else 0.8)
    assert found.codes.max() < 2**bits
    assert found.scale.shape == found.zero.shape == (64, 128 // group)


@pytest.mark.parametrize("act_order", [False, True])
def test_inputs_that_have_nothing_in_common_are_rounded(act_order):
    weight, _ = layer(8, 64, 0)
    gram = np.diag(np.random.default_rng(0).uniform(0.5, 2, 64))
    scheme = Scheme(4, 32)
    affine = grid(weight, scheme, clip(weight, gram, scheme) if act_order else 1.0)
    plain = Coded.of(weight, affine, scheme)
    found = gptq(weight, gram, Scheme(4, 32), act_order=act_order)
    np.testing.assert_array_equal(found.codes, plain.codes)
    np.testing.assert_array_equal(found.scale, plain.scale)


def test_inputs_that_never_come_and_weights_of_zero():
    weight, gram = layer(8, 64, 1)
    gram[5], gram[:, 5] = 0, 0
    found = gptq(weight, gram, Scheme(4, 32))
    assert not found.floats()[:, 5].any()
    nothing = gptq(np.zeros((8, 64), np.float32), gram, Scheme(4, 32))
    assert not nothing.floats().any()
    assert np.isfinite(gptq(weight, np.zeros((64, 64)), Scheme(4, 32)).scale).all()


def test_more_inputs_than_tokens_are_damped():
    weight, gram = layer(8, 96, 2, tokens=7)
    found = gptq(weight, gram, Scheme(4, 32))
    assert np.isfinite(found.floats()).all()
    assert loss(weight, found, gram) < 0.5 * loss(weight, round_to_nearest(weight, Scheme(4, 32)), gram)


def test_the_weight_and_the_gram_stay_as_they_are():
    weight, gram = layer(8, 64, 3)
    before = weight.copy(), gram.copy()
    first, second = (gptq(weight, gram, Scheme(4, 32)) for _ in range(2))
    np.testing.assert_array_equal(weight, before[0])
    np.testing.assert_array_equal(gram, before[1])
    np.testing.assert_array_equal(first.codes, second.codes)


def test_a_weight_that_no_row_enters_is_rounded_by_itself():
    """As that of an expert that no token was given to."""
    random = np.random.default_rng(0)
    constants = {
        "none": np.array([0]), "all": np.array([2**31]),
        "left": random.standard_normal((32, 16)).astype(np.float32),
        "right": random.standard_normal((32, 16)).astype(np.float32),
    }  # fmt: skip
    program = parsed(
        "a = Slice (x, none, none, none) b = Slice (x, none, all, none) p = MatMul (a, left) "
        "q = MatMul (b, right) y = Concat <axis = 0> (p, q)",
        "float[batch,32] x",
        "float[batch,16] y",
        constants,
    )
    feeds = [{"x": random.standard_normal((8, 32)).astype(np.float32)} for _ in range(4)]
    run = Pipeline.parse("quantize-weights{bits=8,method=gptq}").run(program, Context(calibration=feeds))
    assert run.ok, run.steps[0].error
    assert run.steps[0].statistics["weights packed"] == 2
    before, after = (execute(each, feeds[:1])[0]["y"] for each in (program, run.program))
    assert np.abs(before - after).max() < 0.1
