"""quantize-weights on small graphs: outputs are those of the simulated weights, bytes those of the bits."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.ir.errors import DataError, PipelineError, WeightError
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.codes.nbits import looks_up, multiplies
from graphwright.passes.quantize.codes.rounding import Scheme, round_to_nearest
from graphwright.passes.quantize.codes.stored import find
from graphwright.passes.quantize.fit.coding import without_data
from graphwright.passes.quantize.fit.gptq import by_gptq
from graphwright.passes.quantize.quantize_weights import QuantizeWeights
from handmade import operators, parsed

RNG = np.random.default_rng(0)
COLUMNS = 80  # two groups and a half of 32; five of 16


def drawn(*shape, size=0.1, seed=0):
    return (np.random.default_rng([*shape, seed]).standard_normal(shape) * size).astype(np.float32)


def decoder(**options):
    """A table that is also the head, a product in each layout, a Gemm, and a norm in front."""
    weights = {
        "words": drawn(100, COLUMNS, size=1.0), "scale": drawn(COLUMNS) + 1, "shift": drawn(COLUMNS),
        "query": drawn(COLUMNS, COLUMNS, seed=1), "key": drawn(COLUMNS, COLUMNS, seed=2),
        "up": drawn(128, COLUMNS), "down": drawn(128, COLUMNS), "bias": drawn(128),
    }  # fmt: skip
    body = """
        e = Gather (words, ids) n = LayerNormalization <axis = -1> (e, scale, shift)
        q = MatMul (n, query) k = MatMul (n, key) s = Add (q, k)
        flat = Reshape (s, rows) u = Gemm <transB = 1> (flat, up, bias) r = Relu (u) d = MatMul (r, down)
        like = Shape (s) back = Reshape <allowzero = 1> (d, like) t = Add (back, e)
        turned = Transpose <perm = [1, 0]> (words) y = MatMul (t, turned)
    """
    weights["rows"] = np.array([-1, COLUMNS])
    return parsed(body, "int64[batch,length] ids", "float[batch,length,100] y", weights, high=100, **options)


FEEDS = [{"ids": np.random.default_rng(5).integers(0, 100, (4, 20))} for _ in range(3)]
SHAPES = [{"ids": np.random.default_rng(6).integers(0, 100, shape)} for shape in ((1, 1), (3, 7), (2, 0))]
DATA = Context(calibration=FEEDS)


def run(program, context=DATA, **options):
    return QuantizeWeights(**options).run(program.clone(), context)


def simulated(program, bits, embeddings, method, group, fractions=False):
    """The program with each weight replaced, in float, by what its codes stand for."""

    def scheme(width, columns):
        return Scheme(width, group, fractions and width < 8).of_rows(columns)  # with 8 bits zeros are whole

    twin = program.clone()
    weights, _ = find(twin)
    tables = [w for w in weights if w.table]
    free = tables if method == "gptq" else weights
    coded = [
        (w, without_data(w, method, scheme(embeddings if w.table else bits, w.shape[1])))
        for w in free
        if (embeddings if w.table else bits)
    ]
    if method == "gptq":
        fitted = [w for w in weights if not w.table]
        codes = by_gptq(twin, fitted, coded, lambda each: scheme(bits, each[0].shape[1]), DATA, 0.01, True)
        coded += zip(fitted, codes, strict=True)
    for stored, codes in coded:
        stored.value.const_value = ir.Tensor(stored.restored(codes.floats()), name=stored.name)
    return twin


def close(first, second, feeds, tolerance):
    for a, b in zip(execute(first, feeds), execute(second, feeds), strict=True):
        np.testing.assert_allclose(
            a["y"], b["y"], rtol=0, atol=tolerance * max(1, np.abs(b["y"]).max(initial=0))
        )


@pytest.mark.parametrize("compute", ["float", "decode"])
@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq"])
@pytest.mark.parametrize(
    ("bits", "embeddings", "group"), [(8, 4, 32), (4, 4, 16), (3, 2, 32), (2, 3, 16), (4, 8, 256)]
)
def test_the_packed_graph_gives_what_the_simulation_gives(bits, embeddings, group, method, compute):
    program = decoder()
    options = {"bits": bits, "embeddings": embeddings, "group": group, "method": method}
    result = run(program, **options, compute=compute)
    assert result.modified
    twin = simulated(program, **options)
    close(result.program, twin, SHAPES, 1e-5)
    fractional = run(program, **options, compute=compute, zeros="fractions")
    close(fractional.program, simulated(program, **options, fractions=True), SHAPES, 1e-5)
    with pytest.raises(AssertionError):  # and quantizing shows at all
        close(result.program, program, SHAPES, 1e-5)


@pytest.mark.parametrize("compute", ["float", "decode"])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_awq_keeps_the_function_and_loses_less(bits, compute):
    """Its scales do not change the float model, so what it gives is near it, nearer than by rounding."""
    program = decoder()
    expected = execute(program, FEEDS)

    def loss(method):
        found = execute(run(program, bits=bits, embeddings=0, method=method, compute=compute).program, FEEDS)
        return sum(np.square(a["y"] - b["y"]).sum() for a, b in zip(found, expected, strict=True))

    assert loss("awq") < (0.9 if bits < 8 else 1.0) * loss("rtn")


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (4, 16), (3, 32), (2, 64)])
def test_a_file_gets_smaller_by_what_the_bits_say(bits, group):
    weights = {"w": drawn(256, 512)}
    program = parsed("y = MatMul (x, w)", "float[batch,256] x", "float[batch,512] y", weights)
    result = run(program, bits=bits, group=group)
    held = {name: v.const_value.nbytes for name, v in result.program.graph.graph.initializers.items()}
    groups = 512 * 256 // group
    codes = sum(size for name, size in held.items() if name.startswith("w.codes"))
    zeros = sum(size for name, size in held.items() if name.startswith("w.zero"))
    assert codes == 512 * 256 * bits // 8
    assert zeros == 512 * sum(-(-256 // group * width // 8) for width in ((2, 1) if bits == 3 else (bits,)))
    assert held["w.scale"] == 2 * groups  # float16
    assert "w" not in held


def test_kernels_of_the_runtime_are_used_where_they_are():
    assert [multiplies(bits, 32) for bits in (2, 3, 4, 8)] == [True, False, True, True]
    assert [looks_up(bits, 32) for bits in (2, 3, 4, 8)] == [True, False, True, True]
    found = run(decoder(), bits=4, group=16)
    assert operators(found.program).count("MatMulNBits") == 5
    assert operators(found.program).count("GatherBlockQuantized") == 1
    assert found.statistics == {
        "weights packed": 5, "products of packed weights": 5, "lookups of packed rows": 1
    }  # fmt: skip
    standard = run(decoder(), bits=4, group=16, compute="decode")
    assert {node.domain for node in standard.program.graph.graph} == {""}
    assert standard.statistics["weights decoded in the graph"] == 5


def test_groups_that_do_not_divide_the_columns_are_looked_up_by_standard_operators():
    weights = {"words": drawn(100, 56, size=1.0)}
    program = parsed("y = Gather (words, ids)", "int64[length] ids", "float[length,56] y", weights, high=100)
    found = run(program, bits=4, group=32)
    assert "GatherBlockQuantized" not in operators(found.program)
    close(found.program, simulated(program, 4, 4, "rtn", 32), [{"ids": np.arange(100)}], 1e-5)


@pytest.mark.parametrize(
    ("columns", "bits", "asked", "group"),
    [
        (384, 4, 128, 128),
        (48, 4, 128, 16),
        (64, 4, 256, 64),
        (56, 4, 32, 32),
        (48, 2, 128, 64),
        (1, 8, 64, 16),
    ],
)
def test_a_group_shrinks_where_rows_would_not_fill_it(columns, bits, asked, group):
    assert Scheme(bits, asked).of_rows(columns).group == group


def test_rows_shorter_than_a_group_take_no_more_than_their_codes():
    weights = {"words": drawn(1000, 48, size=1.0)}
    program = parsed("y = Gather (words, ids)", "int64[length] ids", "float[length,48] y", weights, high=1000)
    found = run(program, bits=4, group=128)
    assert "GatherBlockQuantized" in operators(found.program)
    stored = sum(v.const_value.nbytes for v in found.program.graph.graph.initializers.values())
    assert stored <= 1000 * (24 + 3 * 2 + 2) + 64  # codes, scales, zeros in whole bytes


def test_a_table_that_is_also_the_head_is_packed_once():
    held = run(decoder(), bits=4, group=16).program.graph.graph.initializers
    assert [name for name in held if name.startswith("words")] == ["words.codes", "words.scale", "words.zero"]
    readers = {node.op_type for node, _ in held["words.codes"].uses()}
    assert readers == {"GatherBlockQuantized", "Reshape"}


def test_a_weight_of_several_layers_is_packed_once_for_all_that_enters_it():
    body = "h = MatMul (x, w) r = Relu (h) g = MatMul (r, w) s = Relu (g) y = MatMul (s, w)"
    program = parsed(body, "float[batch,64] x", "float[batch,64] y", {"w": drawn(64, 64, size=0.3)})
    feeds = [{"x": drawn(50, 64, size=1.0, seed=n)} for n in range(3)]
    for method in ("rtn", "gptq", "awq", "hqq"):
        found = run(program, Context(calibration=feeds), bits=4, method=method)
        assert operators(found.program).count("MatMulNBits") == 3
        assert sum(name.endswith(".codes") for name in found.program.graph.graph.initializers) == 1

    def loss(method):
        made = execute(run(program, Context(calibration=feeds), bits=3, method=method).program, feeds)
        exact = execute(program, feeds)
        return sum(np.square(a["y"] - b["y"]).sum() for a, b in zip(made, exact, strict=True))

    assert loss("gptq") < 0.8 * loss("rtn")


def test_a_weight_read_both_ways_is_packed_one_way_and_decoded_for_the_other():
    body = "h = MatMul (x, w) turned = Transpose <perm = [1, 0]> (w) y = MatMul (h, turned)"
    program = parsed(body, "float[batch,64] x", "float[batch,64] y", {"w": drawn(64, 48)})
    found = run(program, bits=4)
    assert [operators(found.program).count(kind) for kind in ("MatMulNBits", "MatMul")] == [1, 1]
    close(found.program, simulated(program, 4, 4, "rtn", 32), [{"x": drawn(5, 64, size=1.0)}], 1e-5)


def test_gptq_sees_what_the_quantized_layers_before_give():
    """The second weight's Hessian is that of its input behind a first weight of 2 bits."""
    program = parsed(
        "h = MatMul (x, up) r = Relu (h) y = MatMul (r, down)",
        "float[batch,32] x",
        "float[batch,32] y",
        {"up": drawn(32, 64, size=1.0), "down": drawn(64, 32)},
    )
    feeds = [{"x": drawn(300, 32, size=1.0, seed=n)} for n in range(2)]
    found = run(program, Context(calibration=feeds), bits=2, method="gptq", compute="decode")
    behind = program.clone()
    first, second = find(behind)[0]
    codes = list(
        by_gptq(behind, [first], [], lambda each: Scheme(2, 32), Context(calibration=feeds), 0.01, True)
    )
    first.value.const_value = ir.Tensor(first.restored(codes[0].floats()), name="up")
    late = list(
        by_gptq(behind, [second], [], lambda each: Scheme(2, 32), Context(calibration=feeds), 0.01, True)
    )
    second.value.const_value = ir.Tensor(second.restored(late[0].floats()), name="down")
    close(found.program, behind, feeds, 1e-5)
    early = list(
        by_gptq(
            program,
            find(program)[0][1:],
            [],
            lambda each: Scheme(2, 32),
            Context(calibration=feeds),
            0.01,
            True,
        )
    )
    assert (early[0].codes != late[0].codes).any()


def test_packed_qkv_weights_and_convolutions_are_decoded_in_the_graph():
    qkv, bias = drawn(32, 96), drawn(96)
    body = "a = com.microsoft.Attention <num_heads = 4> (x, qkv, bias) y = MatMul (a, out)"
    program = parsed(
        body, "float[batch,length,32] x", "float[batch,length,32] y",
        {"qkv": qkv, "bias": bias, "out": drawn(32, 32, seed=3)},
    )  # fmt: skip
    feeds = [{"x": drawn(2, 5, 32, size=1.0)}]
    found = run(program, Context(calibration=feeds), bits=4, method="gptq", act_order=True)
    assert found.statistics["weights decoded in the graph"] == 1
    assert find(program)[0][0].uses[0].kind == "attention"
    assert [name for name in found.program.graph.graph.initializers if name.startswith("qkv")] == [
        "qkv.codes", "qkv.scale", "qkv.zero"
    ]  # fmt: skip
    plain = run(program, bits=4)
    expected = round_to_nearest(np.ascontiguousarray(qkv.T), Scheme(4, 32)).floats().T
    twin = program.clone()
    twin.graph.graph.initializers["qkv"].const_value = ir.Tensor(expected, name="qkv")
    out = twin.graph.graph.initializers["out"]
    restored = round_to_nearest(np.ascontiguousarray(drawn(32, 32, seed=3).T), Scheme(4, 32)).floats().T
    out.const_value = ir.Tensor(np.ascontiguousarray(restored), name="out")
    close(plain.program, twin, feeds, 1e-5)
    conv = parsed(
        "y = Conv (x, w)", "float[batch,32,length] x", "float[batch,48,length] y", {"w": drawn(48, 32, 1)}
    )
    feeds = [{"x": drawn(2, 32, 5, size=1.0)}]
    for method in ("rtn", "gptq", "awq"):
        found = run(conv, Context(calibration=feeds), bits=8, method=method)
        assert found.statistics["weights decoded in the graph"] == 1
        close(found.program, conv, feeds, 0.02)


def test_int8_compute_rounds_activations_and_says_so_in_the_graph():
    program = decoder()
    exact, fast = (run(program, bits=4, group=16, compute=compute).program for compute in ("float", "int8"))
    products = [node for node in fast.graph.graph if node.op_type == "MatMulNBits"]
    assert {node.attributes["accuracy_level"].value for node in products} == {4}
    # The kernel's own packing of weights is what rounds: `execute` runs without it.
    runtime = OnnxRuntime()
    ours, theirs = (runtime.build(program, threads=1).run(FEEDS[0])["y"] for program in (exact, fast))
    moved = np.abs(ours - theirs).max() / np.abs(ours).max()
    assert 1e-4 < moved < 0.05


def test_half_precision_weights_keep_their_type():
    program = parsed(
        "n = Gather (words, ids) y = MatMul (n, w)",
        "int64[batch] ids",
        "float16[batch,48] y",
        {"words": drawn(50, 64).astype(np.float16), "w": drawn(64, 48).astype(np.float16)},
    )
    feeds = [{"ids": np.arange(50)}]
    for compute, bits in itertools.product(("float", "decode"), (4, 3)):
        found = execute(run(program, bits=bits, compute=compute).program, feeds)[0]["y"]
        assert found.dtype == np.float16
        expected = execute(simulated(program, bits, bits, "rtn", 32), feeds)[0]["y"]
        np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=2e-3)


def test_folding_constants_does_not_undo_it():
    found = run(decoder(), bits=3)
    folded = Pipeline.parse("fold-constants,eliminate-common-subexpressions").run(found.program)
    assert folded.ok
    sizes = [
        sum(v.const_value.nbytes for v in p.graph.graph.initializers.values())
        for p in (found.program, folded.program)
    ]
    assert sizes[1] <= sizes[0]


def test_weights_left_alone_are_named():
    body = "h = MatMul (x, small) a = Exp (other) g = MatMul (x, a) y = Concat <axis = 1> (h, g)"
    program = parsed(
        body, "float[batch,32] x", "float[batch,51] y", {"small": drawn(32, 3), "other": drawn(32, 48)}
    )
    result = run(program)
    assert not result.modified
    assert result.notes == (
        "no weight to quantize",
        "h: stays as it is, its weight is only 32 x 3",
        "g: stays as it is, its weight is computed by Exp in the graph: run fold-constants first",
    )


def test_a_weight_that_a_caller_may_override_is_left_alone():
    program = parsed("y = MatMul (x, w)", "float[batch,64] x", "float[batch,48] y", {"w": drawn(64, 48)})
    program.graph.graph.inputs.append(program.graph.graph.initializers["w"])
    assert find(program) == ([], ["y: stays as it is, a caller may override its weight"])


def test_a_model_that_is_quantized_already_is_kept_whole():
    for first in (
        "quantize-weights",
        "quantize-weights{bits=3}",
        "quantize-weights{compute=decode,method=hqq}",
    ):
        once = Pipeline.parse(first).run(decoder())
        assert [step.status for step in once.steps] == ["applied"], once.steps[0].error
        twice = Pipeline.parse("quantize-weights{bits=8}").run(once.program)
        assert twice.steps[0].status == "no change"
        assert any("quantized already" in note for note in twice.steps[0].notes)


def test_tables_alone_beside_int8_products():
    both = Pipeline.parse("quantize-dynamic{min_cosine=0.0},quantize-weights{bits=0,embeddings=4,group=16}")
    program = parsed(
        "e = Gather (words, ids) y = MatMul (e, w)", "int64[batch] ids", "float[batch,48] y",
        {"words": drawn(100, 64), "w": drawn(64, 48)}, high=100,
    )  # fmt: skip
    done = both.run(program)
    assert [step.status for step in done.steps] == ["applied", "applied"], done.steps[-1].error
    assert {"MatMulIntegerToFloat", "GatherBlockQuantized"} <= set(operators(done.program))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5}, "bits is 5, and weights are stored in 8, 4, 3 or 2 bits"),
        ({"embeddings": 16}, "embeddings is 16"),
        ({"group": 24}, "group is 24, and a group is a power of two from 16 on"),
        ({"group": 8}, "group is 8"),
        ({"damping": 0.0}, "damping is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QuantizeWeights(**options)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_methods_that_fit_need_data_that_says_something(method):
    pipeline = Pipeline.parse(f"quantize-weights{{method={method}}}")
    with pytest.raises(PipelineError, match="'quantize-weights' needs calibration data"):
        pipeline.run(decoder(), Context())
    with pytest.raises(DataError, match="constant"):
        run(decoder(), Context(calibration=[{"ids": np.ones((2, 3), np.int64)}]), method=method)
    Pipeline.parse(f"quantize-weights{{method={method},bits=0,embeddings=4}}").check(decoder(), Context())


def test_weights_that_are_no_numbers_are_named_and_zeros_are_kept():
    program = decoder()
    for name, value in (("up", 0.0), ("down", np.nan)):
        array = np.full(program.graph.graph.initializers[name].const_value.shape.numpy(), value, np.float32)
        program.graph.graph.initializers[name].const_value = ir.Tensor(array, name=name)
        if value == 0:
            for method in ("rtn", "hqq", "gptq", "awq"):
                found = run(program, bits=2, method=method)
                assert all(np.isfinite(out["y"]).all() for out in execute(found.program, SHAPES))
    for method in ("rtn", "hqq", "gptq", "awq"):
        with pytest.raises(WeightError, match="'down' has NaN"):
            run(program, method=method)


def test_every_prefix_is_a_program_and_two_runs_give_one_text():
    program = decoder()
    before = program.fingerprint()
    for method in ("rtn", "gptq", "awq"):
        for allowed in range(6):
            answers = iter([True] * allowed + [False] * 9)
            context = Context(calibration=FEEDS, allow=lambda name, a=answers: next(a))
            result = run(program, context, method=method)
            execute(result.program, SHAPES)
            assert result.modified == bool(allowed)
    first, second = (run(program, method="awq") for _ in range(2))
    assert text(first.program) == text(second.program)
    assert first.program.fingerprint() == second.program.fingerprint()
    assert program.fingerprint() == before


def test_old_opsets_are_left_alone():
    program = parsed(
        "y = MatMul (x, w)", "float[batch,64] x", "float[batch,64] y", {"w": drawn(64, 64)}, opset=9
    )
    result = run(program)
    assert result.notes == ("opset 9 cannot unpack codes: convert the model to 11 or later",)
