"""The kernel for weights of few bits against float64 NumPy, at sizes that no tile divides."""

import numpy as np
import pytest
from graphwright.backends.target import detect
from graphwright.backends.tvm.kernels.codes import by_panel, codes_of, packed
from graphwright.backends.tvm.kernels.dot import halved
from graphwright.backends.tvm.kernels.few_bits import FewBits, columns_of, few_bits
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.kernels.rows import Norm
from kernel_run import call, compiled, wide

MACHINE = Machine.of(detect(), 2)


def weight(rng, k, n, bits, group, zeros):
    """codes [groups * group, n], scales and zeros [groups, n], and the float64 weight [k, n]."""
    groups = -(-k // group)
    codes = rng.integers(0, 2**bits, (groups * group, n)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.02, (groups, n)).astype(np.float16)
    offset = {
        "uint8": rng.integers(0, 2**bits, (groups, n)).astype(np.uint8),
        "float32": rng.uniform(0, 2**bits, (groups, n)).astype(np.float32),
    }.get(zeros, np.full((groups, n), zeros))
    wide_scales, wide_zeros = (np.repeat(a.astype(np.float64), group, 0) for a in (scales, offset))
    return codes, scales, offset, ((codes - wide_zeros) * wide_scales)[:k]


def rounded(x, group):
    """x to 8 bits, symmetric, a scale for each group of a row."""
    m, k = x.shape
    groups = np.zeros((m, -(-k // group) * group), np.float32)
    groups[:, :k] = x
    groups = groups.reshape(m, -1, group)
    largest = np.abs(groups).max(-1, keepdims=True)
    whole = np.rint(groups * (np.float32(127) / largest)).astype(np.float64)
    return (whole * largest / 127).reshape(m, -1)[:, :k]


@pytest.mark.parametrize(
    ("bits", "group", "rows", "zeros", "m"),
    [
        (4, 16, "float32", 8, 1), (4, 32, "float32", "uint8", 6), (8, 32, "float32", "float32", 3),
        (4, 32, "int8", 8, 1), (4, 64, "int8", "uint8", 37), (8, 16, "int8", 128, 4),
        (8, 128, "int8", "float32", 5),
    ],
)  # fmt: skip
def test_codes_times_rows_with_a_norm_before_and_a_residual_after(bits, group, rows, zeros, m):
    rng, k, n = np.random.default_rng(bits + m), 150, 77
    codes, scales, offset, exact = weight(rng, k, n, bits, group, zeros)
    how, columns = codes_of(MACHINE, rows, bits), columns_of(MACHINE)
    spec = FewBits(
        k,
        n,
        bits,
        group,
        rows,
        zeros,
        "float16",
        norm=Norm("rms", 1e-5, shift=False),
        bias=True,
        residual=True,
    )
    x, residual = rng.standard_normal((m, k), np.float32), rng.standard_normal((m, n), np.float32)
    gamma, bias = rng.uniform(0.5, 1.5, k).astype(np.float32), rng.standard_normal(n, np.float32)
    parameters = [by_panel(scales, columns)] + ([by_panel(offset, columns)] if isinstance(zeros, str) else [])
    (y,) = call(
        compiled(few_bits(spec, MACHINE)),
        [
            x, gamma, packed(codes, how, group, columns), *parameters,
            wide(bias, -(-n // columns) * columns), residual,
        ],
        [((m, n), np.float32)],
    )  # fmt: skip
    normed = x * (1 / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5)).astype(np.float32)
    normed = normed * gamma
    # A number at the edge between two steps may go either way: a step of one input.
    step = 0 if rows == "float32" else np.abs(normed).max() / 127 * np.abs(exact).max()
    expected = (normed if rows == "float32" else rounded(normed, group)) @ exact + bias + residual
    assert np.abs(y - expected).max() < 2e-4 + step
    assert np.sqrt(((y - expected) ** 2).mean()) < 2e-4


def runs_here(product):
    """Whether this machine has the instructions."""
    wide = 16 if product.endswith("512") else 8
    known = "vnni" not in product or "vnni" in MACHINE.product
    return detect().arch == "x86_64" and wide <= MACHINE.lanes and known


@pytest.mark.parametrize("product", filter(runs_here, ["vnni512", "vnni256", "madd512", "madd256", "widen"]))
@pytest.mark.parametrize("bits", [4, 8])
def test_every_product_of_integers(product, bits):
    """Rows that rounding does not change, so that all give the same."""
    lanes = 16 if product.endswith("512") else 8
    machine = Machine(lanes, 2 * lanes, product, 2, 1 << 18)
    rng, m, k, n, group = np.random.default_rng(bits), 3, 64, 45, 32
    codes, scales, _, exact = weight(rng, k, n, bits, group, 2 ** (bits - 1))
    x = rng.integers(-127, 128, (m, k)).astype(np.float32)
    x[:, ::group] = 127
    how, columns = codes_of(machine, "int8", bits), columns_of(machine)
    kernel = compiled(few_bits(FewBits(k, n, bits, group, "int8", 2 ** (bits - 1), "float16"), machine))
    arrays = [x, packed(codes, how, group, columns), by_panel(scales, columns)]
    (y,) = call(kernel, arrays, [((m, n), np.float32)])
    np.testing.assert_allclose(y, x @ exact, rtol=1e-5, atol=2e-2)


def test_gated_products_share_a_panel():
    rng, m, k, n = np.random.default_rng(0), 5, 64, 45
    up, gate = (weight(rng, k, n, 4, 32, 8) for _ in range(2))
    how, columns = codes_of(MACHINE, "float32", 4), columns_of(MACHINE)
    codes, scales = (halved(a, b, columns) for a, b in zip(up[:2], gate[:2], strict=True))
    spec = FewBits(k, n, 4, 32, "float32", 8, "float16", activation="silu", gated=True)
    x = rng.standard_normal((m, k), np.float32)
    kernel = compiled(few_bits(spec, MACHINE))
    (y,) = call(
        kernel, [x, packed(codes, how, 32, columns), by_panel(scales, columns)], [((m, n), np.float32)]
    )
    z = x.astype(np.float64) @ gate[3]
    np.testing.assert_allclose(y, x.astype(np.float64) @ up[3] * z / (1 + np.exp(-z)), atol=1e-4, rtol=1e-5)
