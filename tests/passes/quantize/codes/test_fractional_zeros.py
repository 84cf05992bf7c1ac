"""Zeros between integers: where quantize-weights takes them, and that kernels compute with them."""

import numpy as np
import pytest
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.codes.rounding import Scheme, round_to_nearest
from graphwright.passes.quantize.quantize_weights import QuantizeWeights
from handmade import operators, parsed


def drawn(*shape, size=0.1, seed=0):
    return (np.random.default_rng([*shape, seed]).standard_normal(shape) * size).astype(np.float32)


def quantized(program, context=Context(), **options):  # noqa: B008 (frozen in all but name)
    return QuantizeWeights(**options).run(program.clone(), context)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float", 1e-5), ("float16", 4e-3)])
@pytest.mark.parametrize("columns", [64, 80])  # whole groups, and a short last one
@pytest.mark.parametrize("axes", ["batch", "batch,length"])
def test_kernels_compute_with_them(dtype, tolerance, columns, axes):
    kind = np.float16 if dtype == "float16" else np.float32
    weight = (drawn(columns, 48) + 0.13).astype(kind)  # not centred: zeros matter
    program = parsed(
        "y = MatMul (x, w)", f"{dtype}[{axes},{columns}] x", f"{dtype}[{axes},48] y", {"w": weight}
    )
    found = quantized(program, bits=4, zeros="fractions")
    assert "MatMulNBits" in operators(found.program)
    x = drawn(*range(3, 3 + axes.count(",") + 1), columns, size=1.0).astype(kind)
    decoded = round_to_nearest(weight.T.astype(np.float32), Scheme(4, 32, True)).floats().T
    (y,) = (found["y"] for found in execute(found.program, [{"x": x}]))
    expected = x.astype(np.float64) @ decoded
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def on_a_grid(*shape, bits=4, group=32):
    """A weight that lies on steps of its groups, from a least number that is no multiple of them."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, (shape[1], shape[0] // group, 1)).astype(np.float16).astype(np.float32)
    codes = rng.integers(0, 2**bits, (shape[1], shape[0] // group, group)).astype(np.float32)
    codes[..., :2] = 0, 2**bits - 1
    return np.ascontiguousarray(((codes - 5.5) * scale).reshape(shape[1], shape[0]).T)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_zeros_become_fractions_where_they_gain_more_than_bits(method):
    weights = {"once": on_a_grid(64, 64), "never": drawn(64, 64)}
    body = "h = MatMul (x, once) y = MatMul (h, never)"
    program = parsed(body, "float[batch,64] x", "float[batch,64] y", weights)
    feeds = [{"x": drawn(50, 64, size=1.0, seed=n)} for n in range(3)]
    found = quantized(program, Context(calibration=feeds), method=method)
    assert found.statistics["with fractional zeros"] == 1
    held = found.program.graph.graph.initializers
    kinds = {name: held[f"{name}.zero"].const_value.dtype.name for name in weights}
    assert kinds == {"once": "FLOAT16", "never": "UINT8"}
    plain = quantized(program, Context(calibration=feeds), method=method, zeros="whole")
    assert "with fractional zeros" not in plain.statistics
    rounded = quantized(program, method="rtn")
    assert "with fractional zeros" not in rounded.statistics
