"""AWQ: scales that lose less, ranges that lose less, and a float model that stays the same function."""

import numpy as np
import pytest
from fusing import same
from graphwright.ir.onnx.graph import Editor
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.codes.rounding import Coded, Scheme, grid
from graphwright.passes.quantize.codes.stored import find
from graphwright.passes.quantize.fit.awq import by_awq, search
from graphwright.passes.quantize.fit.clip import clip
from graphwright.passes.quantize.fit.moments import Moments
from graphwright.passes.quantize.fit.rescale import divide, foldable
from handmade import parsed
from zoo import onnx_program


def activations(columns=64, tokens=500, seed=0):
    """Some inputs are much larger than others, as after a norm."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(1.5 * rng.standard_normal(columns))
    return (rng.standard_normal((tokens, columns)) * sizes).astype(np.float32)


def moments(x):
    return Moments(x.T.astype(np.float64) @ x, np.abs(x).sum(axis=0, dtype=np.float64), len(x))


def loss(x, weight, scale, bits, group, shrink=1.0):
    scaled = weight * scale
    found = grid(scaled, Scheme(bits, group), shrink).simulate(scaled)
    return np.square((x / scale).astype(np.float64) @ found.T - x.astype(np.float64) @ weight.T).sum()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_scale_loses_least_of_those_tried(bits):
    x = activations()
    weights = [np.random.default_rng(n).standard_normal((24, 64)).astype(np.float32) for n in range(2)]
    found = search(weights, moments(x), Scheme(bits, 32))
    ours = sum(loss(x, w, found, bits, 32) for w in weights)
    assert ours < 0.8 * sum(loss(x, w, 1, bits, 32) for w in weights)
    for power in np.arange(20) / 20:
        other = np.abs(x).mean(axis=0) ** power
        other /= np.sqrt(other.max() * other.min())
        assert ours <= 1.001 * sum(loss(x, w, other.astype(np.float32), bits, 32) for w in weights)


def test_the_number_of_rows_does_not_change_the_scale():
    x = activations()
    weights = [np.random.default_rng(0).standard_normal((24, 64)).astype(np.float32)]
    once, thrice = (search(weights, moments(np.tile(x, (n, 1))), Scheme(4, 32)) for n in (1, 3))
    np.testing.assert_allclose(once, thrice, rtol=1e-5)


def test_ranges_change_where_that_loses_less_and_nowhere_else():
    x = np.random.default_rng(1).standard_normal((500, 64)).astype(np.float32)
    weight = np.random.default_rng(2).standard_t(3, (24, 64)).astype(np.float32)
    shrink = clip(weight, moments(x).gram, Scheme(3, 32))
    assert shrink.shape == (24, 2)
    assert 0.6 <= shrink.min() < 1 < shrink.max() <= 1.1 + 1e-6
    assert (shrink == 1).any()
    for row in range(24):
        for number, start in enumerate((0, 32)):
            part = np.s_[start : start + 32]
            alone = weight[row : row + 1, part]
            assert loss(x[:, part], alone, 1, 3, 32, shrink[row, number]) <= loss(x[:, part], alone, 1, 3, 32)
    plain = clip(weight, None, Scheme(3, 32))  # all inputs alike
    np.testing.assert_array_equal(plain, clip(weight, np.eye(64), Scheme(3, 32)))
    flat = np.array([[-1.0, 0.75] * 32], np.float32)  # on the grid already
    assert (clip(flat, moments(x).gram, Scheme(3, 32)) == 1).all()


# Activations that products read, and in how many of them scales go into the weights that make them.
FOLDED = {
    "llama": (2 * 4 + 1, 2 * 3 + 1),  # norms before q, k, v and gate, up; up before down; the final norm
    "opt": (2 * 4 + 1, 2 * 4),  # norms, values before o, relu before down; the head is a table, left here
    "bert": (2 * 4, 2 * 1),  # values before o: norms feed the residual stream too, and gelu is no scaling
    "gpt2": (2 * 4 + 1, 2 * 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDED)
def test_dividing_every_activation_changes_nothing(name):
    program = onnx_program(name)
    twin = program.clone()
    editor, targets, folded, sites = Editor(twin.graph), foldable(twin), 0, {}
    for stored in find(twin)[0]:
        for x in dict.fromkeys(use.other for use in stored.products):
            sites.setdefault(x, []).append(stored)
    for number, (x, readers) in enumerate(sites.items()):
        width = readers[0].shape[1]
        scale = np.exp(np.random.default_rng(number).uniform(-1, 1, width)).astype(np.float32)
        if any(reader.table for reader in readers):
            continue
        folded += divide(editor, x, scale, readers, targets.get(x, ()))
    same(program, twin, 1e-4)
    assert (len(sites), folded) == FOLDED[name]


def test_ranges_are_shrunk_for_the_scaled_activations():
    x, weight = activations(), np.random.default_rng(0).standard_t(3, (64, 24)).astype(np.float32)
    program = parsed("y = MatMul (x, w)", "float[batch,64] x", "float[batch,24] y", {"w": weight})
    scheme, context = Scheme(3, 32), Context(calibration=[{"x": x[:300]}, {"x": x[300:]}])
    (found,), done = by_awq(program, find(program)[0], lambda weights: scheme, context)
    scale = search([weight.T], moments(x), scheme)
    scaled = np.ascontiguousarray(weight.T) * scale
    shrink = clip(scaled, moments(x / scale).gram, scheme)
    np.testing.assert_array_equal(found.codes, Coded.of(scaled, grid(scaled, scheme, shrink), scheme).codes)
    assert (done.folded, done.multiplied) == (0, 1)
    unscaled = clip(scaled, moments(x).gram, scheme)
    assert (shrink != unscaled).any()


def test_what_else_reads_an_activation_keeps_it():
    """A Mul takes the scale where the norm feeds something besides the product."""
    weights = {
        "scale": np.ones(32, np.float32), "shift": np.zeros(32, np.float32),
        "w": np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32),
    }  # fmt: skip
    norm = "n = LayerNormalization <axis = -1> (x, scale, shift) d = MatMul (n, w) "
    for tail, expected in (("y = Relu (d)", True), ("y = Add (d, n)", False)):
        program = parsed(norm + tail, "float[batch,32] x", "float[batch,32] y", weights)
        twin = program.clone()
        (stored,), _ = find(twin)
        x = stored.products[0].other
        by = np.linspace(0.5, 2, 32, dtype=np.float32)
        assert divide(Editor(twin.graph), x, by, [stored], foldable(twin).get(x, ())) == expected
        same(program, twin, 1e-5, [{"x": np.random.default_rng(1).standard_normal((9, 32)).astype("f")}])
