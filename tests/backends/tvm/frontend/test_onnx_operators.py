"""Each ONNX operator that graphwright converts to Relax itself, against ONNX Runtime or exact arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
import tvm_run
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.ir.errors import BackendError
from graphwright.ir.execute import execute
from handmade import parsed
from int8_emulation import dynamic_product, integer_product

RNG = np.random.default_rng(0)
SIZES = {"batch": 2, "length": 5}
MASK = np.where(np.arange(5) < np.array([[5], [3]]), 0, -np.inf).astype(np.float32).reshape(2, 1, 1, 5)


def floats(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def bytes_(*shape, dtype=np.int8):
    return RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)


def found(program, feed):
    sizes = {symbol: size for symbol, size in SIZES.items() if symbol in program.symbols}
    return list(tvm_run.run(relax_module(program, sizes), feed, level=1).values())


def same(body, feed, weights=None, inputs=None, outputs="float[batch,length,h] y", opset=20, tolerance=1e-5):
    """A node on ONNX Runtime and on TVM."""
    kinds = {"float32": "float", "int64": "int64", "int32": "int32", "uint8": "uint8", "bool": "bool"}
    dims = {2: "batch", 5: "length"}
    given = inputs or ", ".join(
        f"{kinds[str(array.dtype)]}[{','.join(str(dims.get(d, d)) for d in array.shape)}] {name}"
        for name, array in feed.items()
    )
    program = parsed(body, given, outputs, weights, opset)
    for value, reference in zip(found(program, feed), execute(program, [feed])[0].values(), strict=True):
        assert value.dtype == reference.dtype
        assert np.array_equal(np.isnan(value), np.isnan(reference))
        np.testing.assert_allclose(value, reference, rtol=tolerance, atol=tolerance)


NORM = {"w": floats(8), "b": floats(8), "c": floats(8)}
SIMPLE = {
    "gelu": ("y = com.microsoft.Gelu (x)", {}),
    "bias-gelu": ("y = com.microsoft.BiasGelu (x, b)", NORM),
    "fast-gelu": ("y = com.microsoft.FastGelu (x, b)", NORM),
    "quick-gelu": ("y = com.microsoft.QuickGelu <alpha = 1.5> (x)", {}),
    "rms": ("y = SimplifiedLayerNormalization <axis = -1, epsilon = 0.01> (x, w)", NORM),
    "skip": ("y, m, v, s = com.microsoft.SkipLayerNormalization <epsilon = 0.01> (x, x, w, b, c)", NORM),
    "skip-bare": ("y = com.microsoft.SkipLayerNormalization <epsilon = 0.01> (x, x, w)", NORM),
    "skip-rms": ("y = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, x, w, c)", NORM),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_norms_and_activations(name):
    body, weights = SIMPLE[name]
    used = {key: value for key, value in weights.items() if f" {key}" in body.partition("(")[2]}
    same(body, {"x": floats(2, 5, 8)}, used)


def test_the_sum_of_a_skip_norm_is_its_fourth_result():
    body = "y, m, v, s = com.microsoft.SkipLayerNormalization (x, x, w, b) z = Add (y, s)"
    weights = {"w": NORM["w"], "b": NORM["b"]}
    same(body, {"x": floats(2, 5, 8)}, weights, outputs="float[batch,length,8] z")


@pytest.mark.parametrize("kinds", ["", "k"])
@pytest.mark.parametrize("positions", ["", ", , p"])
def test_embedding_norm(kinds, positions):
    types, table = ("t", "k") if kinds else ("", "")
    body = (
        "y, m = com.microsoft.EmbedLayerNormalization <epsilon = 0.01> "
        f"(ids, {types}, w, o, {table}, g, b{positions})"
    )
    weights = {"w": floats(9, 8), "o": floats(7, 8), "g": floats(8), "b": floats(8)}
    weights |= {"k": floats(2, 8)} if kinds else {}
    feed = {"ids": RNG.integers(0, 9, (2, 5)).astype(np.int32)}
    feed |= {"t": RNG.integers(0, 2, (2, 5)).astype(np.int32)} if kinds else {}
    feed |= {"p": RNG.integers(0, 7, (2, 5)).astype(np.int32)} if positions else {}
    same(body, feed, weights)


def sides(width=12, keys=None, scale=1.0):
    return {
        "q": floats(2, 5, width, scale=scale),
        "k": floats(2, 5, keys or width),
        "v": floats(2, 5, keys or width),
    }


KEYS = np.broadcast_to(MASK, (2, 1, 5, 5)).copy()
PLAIN, CONTRIB = (
    "Attention <q_num_heads = 3, kv_num_heads = 3",
    "com.microsoft.MultiHeadAttention <num_heads = 3",
)
ATTENTIONS = [
    (f"{PLAIN}, scale = 0.3> (q, k, v, m)", {"m": KEYS}),
    (f"{PLAIN}, is_causal = 1> (q, k, v)", {}),
    (f"{PLAIN}> (q, k, v, m)", {"m": KEYS == 0}),
    (f"{CONTRIB}> (q, k, v)", {}),
    (f"{CONTRIB}, scale = 0.3> (q, k, v, , , m)", {"m": KEYS}),
    (f"{CONTRIB}, unidirectional = 1> (q, k, v, b)", {}),
]


@pytest.mark.parametrize(("node", "more"), ATTENTIONS)
def test_attention(node, more):
    weights = {"b": floats(36)} if "v, b" in node else {}
    same(f"y = {node}", {**sides(), **more}, weights, opset=23)


def test_grouped_attention():
    node = "y = Attention <q_num_heads = 6, kv_num_heads = 2> (q, k, v)"
    same(node, sides(24, 8), opset=23)


def test_capped_scores():
    """The mask is added to capped scores: under the cap it would hide nothing."""
    feed = {**sides(scale=3.0), "m": np.broadcast_to(MASK, (2, 1, 5, 5)).copy()}
    same(
        "y = Attention <q_num_heads = 3, kv_num_heads = 3, softcap = 0.5> (q, k, v, m)", feed,
        inputs="float[2,5,12] q, float[2,5,12] k, float[2,5,12] v, float[2,1,5,5] m",
        outputs="float[2,5,12] y", opset=23,
    )  # fmt: skip


def test_a_row_without_keys_gives_zero():
    mask = np.zeros((2, 1, 5, 5), np.float32)
    mask[1, :, 2] = -np.inf
    program = parsed(
        "y = Attention <q_num_heads = 3, kv_num_heads = 3> (q, k, v, m)",
        "float[2,5,12] q, float[2,5,12] k, float[2,5,12] v, float[2,1,5,5] m", "float[2,5,12] y", opset=23,
    )  # fmt: skip
    [value] = found(program, {**sides(), "m": mask})
    assert np.all(value[1, 2] == 0)
    assert np.isfinite(value).all()


def test_attention_with_heads_on_an_axis():
    feed = {name: floats(2, 3, 5, 4) for name in "qkv"}
    same("y = Attention (q, k, v)", feed, outputs="float[batch,3,length,4] y", opset=23)


@pytest.mark.parametrize("options", ["", ", unidirectional = 1", ", scale = 0.4, mask_filter_value = -50.0"])
def test_contrib_attention(options):
    body = f"y = com.microsoft.Attention <num_heads = 3{options}> (x, w, b, m)"
    mask = (np.arange(5) < np.array([[5], [3]])).astype(np.int32)
    same(body, {"x": floats(2, 5, 8), "m": mask}, {"w": floats(8, 36, scale=0.3), "b": floats(36)})


def test_quantized_attention():
    body = "y = com.microsoft.QAttention <num_heads = 3> (x, w, b, s, t, , z, o)"
    weights = {
        "w": bytes_(8, 36), "b": floats(36), "s": np.float32(0.02), "t": np.abs(floats(36, scale=0.01)),
        "z": np.uint8(120), "o": np.int8(0),
    }  # fmt: skip
    same(body, {"x": bytes_(2, 5, 8, dtype=np.uint8)}, weights)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("width", [8, 4])
def test_rotary(interleaved, width):
    options = f"num_heads = 2, interleaved = {interleaved}, rotary_embedding_dim = {width % 8}"
    feed = {"x": floats(2, 5, 16), "c": floats(2, 5, width // 2), "s": floats(2, 5, width // 2)}
    same(f"y = RotaryEmbedding <{options}> (x, c, s)", feed, opset=23)


def test_rotary_by_positions():
    weights = {"c": floats(7, 4), "s": floats(7, 4)}
    feed = {"x": floats(2, 5, 16), "p": RNG.integers(0, 7, (2, 5))}
    same("y = RotaryEmbedding <num_heads = 2> (x, c, s, p)", feed, weights, opset=23)
    same("y = com.microsoft.RotaryEmbedding <num_heads = 2> (x, p, c, s)", feed, weights)


@pytest.mark.parametrize(
    "equation", ["bih,bjh->bij", "bhi,bij->bhj", "bij,bjk->ki", "abc,cd->abd", "ij,jk->ik"]
)
def test_einsum_is_a_product(equation):
    terms = equation.partition("->")[0].split(",")
    size = {letter: 3 + place for place, letter in enumerate(sorted(set("".join(terms))))}
    arrays = [floats(*(size[letter] for letter in term)) for term in terms]
    kinds = [f"float[{','.join(str(d) for d in a.shape)}] x{n}" for n, a in enumerate(arrays)]
    result = equation.partition("->")[2]
    out = ",".join(str(size[letter]) for letter in result)
    program = parsed(f'y = Einsum <equation = "{equation}"> (x0, x1)', ", ".join(kinds), f"float[{out}] y")
    imported = relax_module(program, {})
    assert tvm_run.operators(imported.module).count("matmul") == 1
    [value] = tvm_run.run(imported, {"x0": arrays[0], "x1": arrays[1]}, level=1).values()
    exact = np.einsum(equation, *(array.astype(np.float64) for array in arrays))
    np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-5)


def integers(body, x, weights, output="float[batch,length,h] y"):
    program = parsed(
        body, f"{'float' if x.dtype == np.float32 else 'uint8'}[batch,length,8] x", output, weights
    )
    [value] = found(program, {"x": x})
    return value


def test_dynamic_quantization_is_the_specification():
    """One scale for the tensor, in an integer product with a scale a column; ONNX Runtime is not asked."""
    weight, scale = bytes_(8, 6), np.abs(floats(6)) * np.float32(0.01)
    x = floats(2, 5, 8, scale=3)
    body = "i, s, z = DynamicQuantizeLinear (x) y = com.microsoft.MatMulIntegerToFloat (i, w, s, t, z)"
    value = integers(body, x, {"w": weight, "t": scale})
    exact = dynamic_product(x.reshape(10, 8), weight, scale).reshape(2, 5, 6)
    np.testing.assert_allclose(value, exact, rtol=0, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("x", [np.zeros((2, 5, 8), np.float32), np.full((2, 5, 8), -2.0, np.float32)])
def test_dynamic_quantization_of_a_constant_tensor(x):
    """All zeros have a range of 0: TVM's own converter divides by it."""
    same("i, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (i, s, z)", {"x": x})


@pytest.mark.parametrize("zero", [None, np.uint8(0), np.uint8(131)])
@pytest.mark.parametrize("w_zero", [None, np.int8(-7), bytes_(6)])
def test_integer_products_are_exact(zero, w_zero):
    x, weight = bytes_(2, 5, 8, dtype=np.uint8), bytes_(8, 6)
    weights = (
        {"w": weight} | ({} if zero is None else {"z": zero}) | ({} if w_zero is None else {"o": w_zero})
    )
    given = ", ".join(["x", "w", "z" if zero is not None else "", "o" if w_zero is not None else ""])
    value = integers(f"y = MatMulInteger ({given.rstrip(', ')})", x, weights, "int32[batch,length,h] y")
    rows = x.astype(np.int64) - (0 if zero is None else int(zero))
    columns = weight.astype(np.int64) - (0 if w_zero is None else w_zero.astype(np.int64))
    assert np.array_equal(value, rows @ columns)
    if zero is None and w_zero is None:
        assert np.array_equal(
            value.reshape(10, 6), integer_product(x.reshape(10, 8).astype(np.int64), weight, False)
        )


def test_products_quantized_again():
    weights = {
        "a": np.float32(0.02), "p": np.uint8(9), "w": bytes_(8, 6), "b": np.abs(floats(6)) * np.float32(0.01),
        "o": np.zeros(6, np.int8), "s": np.float32(0.3), "z": np.uint8(100),
    }  # fmt: skip
    body = "i = QLinearMatMul (x, a, p, w, b, o, s, z) y = DequantizeLinear (i, s, z)"
    same(body, {"x": bytes_(2, 5, 8, dtype=np.uint8)}, weights)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_products_of_packed_weights(bits, zeros):
    """K is no multiple of the group, N is odd."""
    rows, columns, group = 7, 40, 32
    groups = 2
    weights = {
        "w": bytes_(rows, groups, group * bits // 8, dtype=np.uint8),
        "s": np.abs(floats(rows, groups)),
    }
    if zeros:
        weights["z"] = bytes_(rows, -(-groups * bits // 8), dtype=np.uint8)
    options = f"K = {columns}, N = {rows}, bits = {bits}, block_size = {group}"
    body = f"y = com.microsoft.MatMulNBits <{options}> (x, w, s{', z' if zeros else ''})"
    same(body, {"x": floats(2, 5, columns)}, weights, tolerance=1e-4)


def test_rows_of_packed_tables():
    weights = {
        "w": bytes_(9, 32, dtype=np.uint8),
        "s": np.abs(floats(9, 2)),
        "z": bytes_(9, 1, dtype=np.uint8),
    }
    body = (
        "y = com.microsoft.GatherBlockQuantized "
        "<gather_axis = 0, quantize_axis = 1, block_size = 32, bits = 4> (w, i, s, z)"
    )
    same(body, {"i": RNG.integers(0, 9, (2, 5))}, weights)


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (
            "Attention <q_num_heads = 3, kv_num_heads = 3, qk_matmul_output_mode = 1> (q, k, v)",
            "Attention with qk_matmul_output_mode=1",
        ),
        ("com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, v, , p)", "MultiHeadAttention with packed"),
    ],
)
def test_forms_that_are_not_converted_are_named(node, what):
    kinds = ", ".join(f"float[2,5,12] {name}" for name in "qkv") + ", int32[2,5] p"
    with pytest.raises(BackendError, match=f"TVM has no .*{what}"):
        relax_module(parsed(f"y = {node}", kinds, "float[2,5,12] y", opset=23), {})


@pytest.mark.parametrize("past", [0, 3])
def test_a_cache_before_its_first_token_is_joined_to_it(past):
    """TVM's importer takes a size of 0 for an unknown one."""
    program = parsed(
        "y = Concat <axis=1> (p, x)", "float[batch,past,4] p, float[batch,1,4] x", "float[batch,total,4] y"
    )
    program = replace(program, symbols={**program.symbols, "past": (0, 9)})
    feed = {"p": floats(2, past, 4), "x": floats(2, 1, 4)}
    (value,) = tvm_run.run(relax_module(program, {"batch": 2, "past": past}), feed, level=1).values()
    np.testing.assert_array_equal(value, np.concatenate([feed["p"], feed["x"]], axis=1))


# name: (attributes, input, axis, length, what NumPy makes of it in float64)
TRANSFORMS = {
    "complex rows": ("", (2, 7, 2), 1, None, lambda z: np.fft.fft(z, axis=1)),
    "real features of four axes": ("", (2, 3, 6, 1), -2, None, lambda z: np.fft.fft(z, axis=2)),
    "an axis further out": ("", (2, 3, 6, 2), 1, None, lambda z: np.fft.fft(z, axis=1)),
    "inverse": ("inverse = 1", (2, 5, 2), 1, None, lambda z: np.fft.ifft(z, axis=1)),
    "one side": ("onesided = 1", (2, 5, 1), 1, None, lambda z: np.fft.rfft(z.real, axis=1)),
    "one side of an even number": ("onesided = 1", (2, 6, 1), 1, None, lambda z: np.fft.rfft(z.real, axis=1)),
    "cut": ("", (2, 7, 2), 1, 4, lambda z: np.fft.fft(z, 4, axis=1)),
    "followed by zeros": ("inverse = 1", (2, 5, 2), 1, 8, lambda z: np.fft.ifft(z, 8, axis=1)),
    "one point": ("", (2, 1, 2), 1, None, lambda z: np.fft.fft(z, axis=1)),
    "many points": ("", (1, 257, 1), 1, None, lambda z: np.fft.fft(z, axis=1)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_fourier_transforms(name):
    attributes, size, axis, length, reference = TRANSFORMS[name]
    x, written = floats(*size), f" <{attributes}>" if attributes else ""
    held = {"axis": np.array(axis)} | ({} if length is None else {"length": np.array(length)})
    body = f"y = DFT{written} (x, {'length' if length else ''}, axis)"
    dims = ",".join(map(str, size))
    program = parsed(body, f"float[{dims}] x", "float[a,b,c] y", held, opset=20)
    (value,) = tvm_run.run(relax_module(program, {}), {"x": x}, level=1).values()
    wide = x.astype(np.float64)
    wanted = reference(wide[..., 0] + (1j * wide[..., 1] if size[-1] == 2 else 0))
    wanted = np.stack([wanted.real, wanted.imag], -1)
    assert value.shape == wanted.shape
    np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("opset", "at"), [(17, 1), (20, 2)], ids=["the first after the batch", "the last but one"]
)
def test_the_axis_of_a_fourier_transform_where_none_is_given(opset, at):
    x = floats(2, 3, 4, 2)
    program = parsed("y = DFT (x)", "float[2,3,4,2] x", "float[2,3,4,2] y", opset=opset)
    (value,) = tvm_run.run(relax_module(program, {}), {"x": x}, level=1).values()
    wanted = np.fft.fft(x[..., 0].astype(np.float64) + 1j * x[..., 1], axis=at)
    np.testing.assert_allclose(value, np.stack([wanted.real, wanted.imag], -1), atol=1e-5)


@pytest.mark.parametrize(
    ("node", "inputs", "what"),
    [
        ("DFT <onesided = 1, inverse = 1> (x)", "float[2,5,2] x", "one side of an inverse"),
        ("DFT (x)", "float[1,9000,1] x", "9000 points: its table would take more than 256 MB"),
        ("DFT (x, n)", "float[2,5,2] x, int64 n", "a length that is computed"),
    ],
)
def test_fourier_transforms_that_are_not_converted_are_named(node, inputs, what):
    with pytest.raises(BackendError, match=f"TVM has no DFT with {what}"):
        relax_module(parsed(f"y = {node}", inputs, "float[a,b,c] y", opset=20), {})


def test_booleans_are_compared():
    bits = np.array([True, False])
    feed = {
        "p": np.broadcast_to(bits[:, None, None], (2, 5, 2)).copy(),
        "q": np.broadcast_to(bits, (2, 5, 2)).copy(),
    }
    body = "e = Equal (p, q) n = Not (e) y = Cast <to = 1> (n)"
    same(body, feed, outputs="float[batch,length,2] y")
