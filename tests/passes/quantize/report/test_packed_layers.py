"""The layer report of weights alone: noise against float64, whatever way a graph reads what was packed."""

import math

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.onnx.kernels import kernels
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.codes.centroids import dictionary
from graphwright.passes.quantize.codes.rounding import Scheme, round_to_nearest
from graphwright.passes.quantize.quantize_gobo import QuantizeGobo
from graphwright.passes.quantize.quantize_product import QuantizeProduct
from graphwright.passes.quantize.quantize_ternary import QuantizeTernary
from graphwright.passes.quantize.quantize_weights import QuantizeWeights
from graphwright.passes.quantize.report import layers as report
from graphwright.passes.quantize.store_half import StoreHalf
from handmade import parsed
from torch import nn

COLUMNS = 80  # five groups of 16; two and a half of 32
IDS = np.random.default_rng(5).integers(0, 100, (4, 20))
FEEDS = [{"ids": IDS}]


def drawn(*shape, size=0.1, seed=0):
    return (np.random.default_rng([*shape, seed]).standard_normal(shape) * size).astype(np.float32)


WEIGHTS = {
    "words": drawn(100, COLUMNS, size=1.0), "up": drawn(COLUMNS, 64), "mid": drawn(48, 64), "bias": drawn(48),
    "down": drawn(48, COLUMNS),
}  # fmt: skip


def tied():
    """A table that is also the head, a product, a Gemm with a bias, and a product of three axes."""
    body = """
        e = Gather (words, ids) u = MatMul (e, up) flat = Reshape (u, rows)
        m = Gemm <transB = 1> (flat, mid, bias) r = Relu (m) d = MatMul (r, down) back = Reshape (d, whole)
        turned = Transpose <perm = [1, 0]> (words) y = MatMul (back, turned)
    """
    shapes = {"rows": np.array([-1, 64]), "whole": np.array([-1, 20, COLUMNS])}
    return parsed(body, "int64[batch,20] ids", "float[batch,20,100] y", WEIGHTS | shapes, high=100)


def decibels(signal, noise):
    return 10 * math.log10((signal**2).sum() / (noise**2).sum())


def expected(decoded):
    """The signal to noise of each use of `tied`, by the value it gives, in float64.

    Args:
        decoded: weights (as stored) by name.
    """
    exact = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    found = {}

    def use(layer, x, weight, turned):
        w, q = (each[weight].T if turned else each[weight] for each in (exact, decoded))
        found[layer] = decibels(x @ w, x @ w - x @ q)
        return x @ q

    ids = IDS.reshape(-1)
    found["e"] = decibels(exact["words"][ids], exact["words"][ids] - decoded["words"][ids])
    u = use("u", decoded["words"][ids], "up", False)
    m = use("m", u, "mid", True) + exact["bias"]
    d = use("d", np.maximum(m, 0), "down", False)
    use("y", d, "words", True)
    return found


def rounded(bits, group, fractions=False):
    def one(array, turned):
        matrix = np.ascontiguousarray(array.T if turned else array)
        floats = (
            round_to_nearest(matrix, Scheme(bits, group, fractions).of_rows(matrix.shape[1]))
            .floats()
            .astype(np.float64)
        )
        return floats.T if turned else floats

    names = ("words", "up", "mid", "down")
    return {name: one(WEIGHTS[name], name in ("up", "down")) for name in names}


def look(before, pass_, feeds=FEEDS):
    context = Context(calibration=feeds)
    after = pass_.run(before.clone(), context).program
    return {layer.layer: layer for layer in report.layers(before, after, feeds, feeds[0])}


def weight_noise(name, decoded):
    return decibels(WEIGHTS[name].astype(np.float64), WEIGHTS[name] - decoded[name])


@pytest.mark.parametrize(
    ("options", "table", "product"),
    [
        ({"bits": 4, "group": 16}, "GatherBlockQuantized", "MatMulNBits"),
        ({"bits": 4, "group": 32}, "GatherBlockQuantized", "MatMulNBits"),
        ({"bits": 4, "group": 16, "zeros": "fractions"}, "Gather", "MatMulNBits"),
        ({"bits": 2, "group": 32, "zeros": "fractions"}, "Gather", "MatMulNBits"),
        ({"bits": 3, "group": 32}, "Gather", "MatMul"),
        ({"bits": 8, "group": 16, "compute": "decode"}, "Gather", "MatMul"),
    ],
)
def test_noise_is_that_of_the_codes(options, table, product):
    decoded = rounded(options["bits"], options["group"], "zeros" in options)
    found = look(tied(), QuantizeWeights(**options))
    exact = expected(decoded)
    assert found.keys() == exact.keys()
    for name, layer in found.items():
        assert layer.snr == pytest.approx(exact[name], abs=0.01)
        assert layer.activation_snr == math.inf
    of = {"e": "words", "u": "up", "m": "mid", "d": "down", "y": "words"}
    assert {name: layer.weight for name, layer in found.items()} == of
    assert [found[name].kernel for name in ("e", "u", "d", "y")] == [table, *[product] * 3]
    for name in ("e", "u", "m", "d"):
        layer = found[name]
        assert layer.weight_snr == pytest.approx(weight_noise(of[name], decoded), abs=0.01)
        assert layer.low == pytest.approx(decoded[of[name]].min(), rel=1e-4)
        assert layer.high == pytest.approx(decoded[of[name]].max(), rel=1e-4)


def test_clipped_is_the_share_outside_the_range_of_the_feature():
    decoded, weight = rounded(2, 32)["up"], WEIGHTS["up"]  # a feature a column
    outside = (weight < decoded.min(axis=0) - 1e-6) | (weight > decoded.max(axis=0) + 1e-6)
    found = look(tied(), QuantizeWeights(bits=2, group=32))
    assert found["u"].clipped == pytest.approx(outside.mean(), abs=1e-3)
    assert outside.mean() > 0.01


def test_worst_comes_first_and_a_float_program_has_no_row():
    before = tied()
    after = QuantizeWeights(bits=4).run(before.clone(), Context()).program
    ratios = [layer.snr for layer in report.layers(before, after, FEEDS, FEEDS[0])]
    assert ratios == sorted(ratios)
    assert report.layers(before, before, FEEDS, FEEDS[0]) == []


def test_times_are_of_all_kernels_of_a_use(monkeypatch):
    """Each kernel takes a microsecond here, so that times count them."""
    monkeypatch.setattr(report, "profile", lambda graph, feed, threads: [(k, 1e-6) for k in kernels(graph)])

    def times(**options):
        found = look(tied(), QuantizeWeights(bits=4, group=16, **options))
        assert {round(layer.before_us, 3) for layer in found.values()} == {1}
        return [round(found[name].after_us) for name in ("e", "u", "d", "y")]

    assert times() == [1, 1, 1, 1]
    with_corrections = times(zeros="fractions")
    # The kernel, the sums of groups, their product, and the sum of both.
    assert with_corrections[1:] == [4, 4, 4]
    assert with_corrections[0] > 5
    assert times(compute="decode")[1:] == [1, 1, 1]


@pytest.mark.parametrize("compute", ["float", "decode"])
@pytest.mark.parametrize("sum_", ["t = Add (h, bias)", "t = Identity (h)"])
def test_kernels_of_a_weight_of_two_layers_are_told_apart(sum_, compute, monkeypatch):
    """Also where ONNX Runtime has made one kernel of a product and a sum, which gives another value."""
    monkeypatch.setattr(report, "profile", lambda graph, feed, threads: [(k, 1e-6) for k in kernels(graph)])
    weights = {"w": drawn(64, 64), "bias": drawn(64)}
    body = f"h = MatMul (x, w) {sum_} y = MatMul (t, w)"
    before = parsed(body, "float[batch,64] x", "float[batch,64] y", weights)
    found = look(before, QuantizeWeights(bits=4, compute=compute), [{"x": drawn(40, 64, size=1.0)}])
    times = [(layer.before_us, layer.after_us) for layer in found.values()]
    assert times == [(pytest.approx(1), pytest.approx(1))] * 2


def test_kernels_are_timed():
    for layer in look(tied(), QuantizeWeights(bits=4, group=16)).values():
        assert layer.before_us > 0
        assert layer.after_us > 0


@pytest.mark.parametrize("threshold", [-4.0, -1000.0])  # with outliers, and without
def test_gobos_dictionary(threshold):
    bits = 3
    names = ("words", "up", "mid", "down")
    decoded = {name: dictionary(WEIGHTS[name], bits, threshold).floats().astype(float) for name in names}
    found = look(tied(), QuantizeGobo(bits=bits, embeddings=bits, threshold=threshold))
    exact = expected(decoded)
    assert {name: layer.snr for name, layer in found.items()} == pytest.approx(exact, abs=0.01)
    assert found["e"].weight_snr == pytest.approx(weight_noise("words", decoded), abs=0.01)


def test_halves():
    decoded = {name: array.astype(np.float16).astype(np.float64) for name, array in WEIGHTS.items()}
    found = {name: layer.snr for name, layer in look(tied(), StoreHalf()).items()}
    assert found == pytest.approx(expected(decoded), abs=0.1)


def test_a_weight_of_two_layers_has_a_row_for_each():
    body = "h = MatMul (x, w) y = MatMul (h, w)"
    before = parsed(body, "float[batch,64] x", "float[batch,64] y", {"w": drawn(64, 64)})
    x = drawn(40, 64, size=1.0)
    found = look(before, QuantizeWeights(bits=4, zeros="fractions"), [{"x": x}])
    coded = round_to_nearest(np.ascontiguousarray(drawn(64, 64).T), Scheme(4, 32, True))
    w, q = drawn(64, 64).astype(np.float64), coded.floats().T.astype(np.float64)
    h = x @ q
    exact = {"h": decibels(x @ w, x @ w - h), "y": decibels(h @ w, h @ w - h @ q)}
    assert {name: layer.snr for name, layer in found.items()} == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize(("tail", "folded"), [("Relu (d)", 1), ("Add (d, n)", 0)])
def test_scales_of_awq_are_no_noise(tail, folded):
    """Divided into the norm's weights, or by a Mul: what the layer loses is what its output loses."""
    weights = {"scale": np.linspace(0.1, 3, 64).astype(np.float32), "w": drawn(64, 64)}
    body = f"n = LayerNormalization <axis = -1> (x, scale) d = MatMul (n, w) y = {tail}"
    before = parsed(body, "float[batch,64] x", "float[batch,64] y, float[batch,64] d", weights)
    feeds = [{"x": drawn(200, 64, size=1.0)}]
    pass_ = QuantizeWeights(bits=3, method="awq", compute="decode")
    after = pass_.run(before.clone(), Context(calibration=feeds))
    assert after.statistics["scales folded into weights"] == folded
    (exact,), (coded,) = execute(before, feeds), execute(after.program, feeds)
    noise = decibels(exact["d"], exact["d"].astype(np.float64) - coded["d"])
    assert look(before, pass_, feeds)["d"].snr == pytest.approx(noise, abs=0.02)


def test_values_named_after_a_use_before_are_not_taken_for_it():
    """As remove-padding names them."""
    weights = {"w": drawn(64, 64), "shape": np.array([4, -1])}
    body = "d = MatMul (x, w) r = Relu (d) p = Reshape (r, shape) y = Mul (p, p)"
    before = parsed(body, "float[batch,64] x", "float[four,columns] y", weights)
    for value in (node.outputs[0] for node in before.graph.graph):
        if value.name in ("r", "p"):
            value.name = f"d.{value.name}"
    feeds = [{"x": drawn(8, 64, size=1.0)}]
    q = round_to_nearest(np.ascontiguousarray(drawn(64, 64).T), Scheme(4, 32)).floats().T
    for compute in ("float", "decode"):
        (found,) = look(before, QuantizeWeights(bits=4, compute=compute), feeds).values()
        x, w = feeds[0]["x"].astype(np.float64), drawn(64, 64)
        assert found.snr == pytest.approx(decibels(x @ w, x @ w - x @ q), abs=0.01)


def test_weights_that_kernels_take_whole():
    """Attention's packed weight and a convolution's: decoded from weights alone."""
    qkv = drawn(32, 96)
    body = "a = com.microsoft.Attention <num_heads = 4> (x, qkv, bias, mask) y = Identity (a)"
    before = parsed(
        body, "float[batch,length,32] x, int32[batch,length] mask", "float[batch,length,32] y",
        {"qkv": qkv, "bias": drawn(96)},
    )  # fmt: skip
    x = drawn(2, 5, 32, size=1.0)
    found = look(before, QuantizeWeights(bits=4), [{"x": x, "mask": np.ones((2, 5), np.int32)}])["a"]
    q = round_to_nearest(np.ascontiguousarray(qkv.T), Scheme(4, 32)).floats().T
    rows = x.reshape(-1, 32).astype(np.float64)
    assert found.snr == pytest.approx(decibels(rows @ qkv, rows @ (qkv - q)), abs=0.01)
    assert found.weight_snr == pytest.approx(decibels(qkv, qkv - q), abs=0.01)
    assert found.kernel == "Attention"
    w = drawn(48, 32, 1)
    before = parsed("y = Conv (x, w)", "float[batch,32,length] x", "float[batch,48,length] y", {"w": w})
    x = drawn(2, 32, 5, size=1.0)
    found = look(before, QuantizeWeights(bits=4), [{"x": x}])["y"]
    q = round_to_nearest(w[:, :, 0], Scheme(4, 32)).floats()
    rows = np.moveaxis(x, 1, -1).reshape(-1, 32).astype(np.float64)
    assert found.snr == pytest.approx(decibels(rows @ w[:, :, 0].T, rows @ (w[:, :, 0] - q).T), abs=0.01)


def test_a_table_that_two_kernels_take_whole():
    weights = {"words": drawn(50, 32), "scale": drawn(32) + 1, "shift": drawn(32)}
    embed = "com.microsoft.EmbedLayerNormalization (ids, nothing, words, words, nothing, scale, shift)"
    embed = embed.replace("nothing", "")
    body = f"a, i = {embed} b, j = {embed} y = Add (a, b)"
    before = parsed(body, "int32[batch,length] ids", "float[batch,length,32] y", weights, high=50)
    found = look(before, QuantizeWeights(bits=4), [{"ids": np.arange(20, dtype=np.int32).reshape(2, 10)}])
    q = round_to_nearest(drawn(50, 32), Scheme(4, 32)).floats()
    assert set(found) == {"a", "b"}
    for layer in found.values():
        assert layer.snr == pytest.approx(decibels(drawn(50, 32), drawn(50, 32) - q), abs=0.01)
        assert layer.kernel == "EmbedLayerNormalization"
        assert layer.after_us > 0


class Small(nn.Module):
    """A table, and a product of what it gives."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(31, 20), nn.Linear(20, 24, bias=False)

    def forward(self, input_ids):
        x = self.table(input_ids)
        return x, self.layer(x)


@pytest.mark.parametrize(
    "pass_",
    [
        QuantizeTernary(steps=0),
        QuantizeTernary(steps=0, scales="matrix"),
        QuantizeProduct(2, steps=0, finish=0),
    ],
)
def test_codes_of_fx_programs(pass_):
    torch.manual_seed(0)
    before = capture(Small().eval(), inputs={"input_ids": torch.randint(0, 31, (2, 6))})
    ids = np.random.default_rng(0).integers(0, 31, (3, 7))
    ids[0] = 5  # one row counts more than others
    after = pass_.run(before.clone(), Context(calibration=[{"input_ids": ids}])).program
    found = {each.weight: each for each in report.layers(before, after, [{"input_ids": ids}], {})}
    assert set(found) == {"table.weight", "layer.weight"}
    every = {"input_ids": np.arange(31)[None]}
    (exact,), (coded,) = ([list(o.values()) for o in execute(each, [every])] for each in (before, after))
    w, q = exact[0][0].astype(np.float64), coded[0][0].astype(np.float64)
    table, layer = found["table.weight"], found["layer.weight"]
    at = ids.reshape(-1)
    assert table.snr == pytest.approx(decibels(w[at], w[at] - q[at]), abs=0.01)
    assert table.weight_snr == pytest.approx(decibels(w, w - q), abs=0.01)
    # What the coded product gives of the coded rows, solved for the coded weight.
    weight = before.graph.get_parameter("layer.weight").detach().numpy().T.astype(np.float64)
    solved = np.linalg.lstsq(q, coded[1][0].astype(np.float64), rcond=None)[0]
    x = w[at]
    assert layer.snr == pytest.approx(decibels(x @ weight, x @ (weight - solved)), abs=0.05)
    assert layer.low == pytest.approx(solved.min(), abs=1e-4)
    assert (layer.kernel, layer.before_us, layer.after_us) == ("decoded in the graph", None, None)
    outside = (w < q.min(axis=1, keepdims=True)) | (w > q.max(axis=1, keepdims=True))
    assert table.clipped == pytest.approx(outside.mean(), abs=1e-3)


def test_a_text_of_one_token_leaves_nothing_behind_its_first():
    body = """
        e = Gather (words, ids) rest = Slice (e, second, end, axis) u = MatMul (rest, up)
        first = ReduceMean <keepdims = 0> (e, axis)
    """
    bounds = {"second": np.array([1]), "end": np.array([2**31]), "axis": np.array([1])}
    given = {"words": WEIGHTS["words"], "up": WEIGHTS["up"], **bounds}
    outputs = f"float[batch,rest,64] u, float[batch,{COLUMNS}] first"
    before = parsed(body, "int64[batch,length] ids", outputs, given, opset=20)
    after = QuantizeWeights(bits=8).run(before.clone(), Context()).program
    feeds = [{"ids": np.array([[3]])}, {"ids": IDS}]
    found = report.layers(before, after, feeds, feeds[0], 1)
    assert len(found) == 2
    assert all(math.isfinite(layer.snr) for layer in found)
