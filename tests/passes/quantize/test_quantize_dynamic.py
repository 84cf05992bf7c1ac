"""The pass's contract: which rung each site gets, what it says, what it leaves alone."""

import numpy as np
import onnx_ir as ir
import pytest
from graphwright.backends.target import named
from graphwright.ir.errors import PipelineError, WeightError
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.int8.sensitivity import choose
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from handmade import operators, parsed

VNNI, AVX2 = named("x86-64-vnni"), named("x86-64-avx2")


def weights(**shapes):
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def feed_forward(extra=None, body="h = MatMul (x, up) r = Relu (h) y = MatMul (r, down)"):
    return parsed(
        body,
        "float[batch,length,32] x",
        "float[batch,length,32] y",
        {**weights(up=(32, 64), down=(64, 32)), **(extra or {})},
    )


def run(program, context=None, **options):
    return QuantizeDynamic(**options).run(program.clone(), context or Context(target=VNNI))


class Ledger:
    """Losses per site and rung that add up, times a factor for sites together."""

    def __init__(self, tensor, token, together=1.0):
        self.tensor, self.token, self.together, self.asked = tensor, token, together, 0

    def __call__(self, rungs):
        self.asked += 1
        table = {"tensor": self.tensor, "token": self.token, "float": [0.0] * len(rungs)}
        parts = [table[rung][number] for number, rung in enumerate(rungs)]
        return sum(parts) * (self.together if sum(map(bool, parts)) > 1 else 1.0)


def test_within_the_budget_at_once_nothing_more_is_measured():
    ledger = Ledger([1e-3, 2e-3], [0, 0])
    plan = choose([True, True], ledger, 4e-3)
    assert plan.rungs == ("tensor", "tensor")
    assert plan.loss == pytest.approx(3e-3)
    assert ledger.asked == 1


@pytest.mark.parametrize(
    ("budget", "rungs"),
    [
        (6e-3, ("tensor", "token", "tensor")),
        (4e-3, ("token", "token", "tensor")),
        (2.1e-3, ("token", "token", "token")),
        (1.5e-3, ("token", "float", "token")),
        (0, ("float", "float", "float")),
    ],
)
def test_the_costliest_site_climbs_first(budget, rungs):
    ledger = Ledger([3e-3, 9e-3, 1e-3], [0.5e-3, 1e-3, 0.4e-3])
    plan = choose([True] * 3, ledger, budget)
    assert plan.rungs == rungs
    assert plan.loss <= budget


def test_a_site_without_rows_of_its_own_climbs_to_float():
    plan = choose([False, True], Ledger([15e-3, 1e-3], [9.0, 0.1e-3]), 2e-3)
    assert plan.rungs == ("float", "tensor")


def test_losses_that_do_not_add_up_are_found_out():
    ledger = Ledger([3e-3, 2e-3, 1e-3], [1e-3, 1e-3, 0.5e-3], together=4)
    plan = choose([True] * 3, ledger, 7e-3)
    assert plan.loss <= 7e-3
    assert "float" in plan.rungs


@pytest.mark.parametrize("min_cosine", [0.99, 0.9999, 0.99999, 1.0])
def test_the_cosine_asked_for_is_kept_on_the_calibration_feeds(min_cosine):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, 9, 32)) * np.exp(rng.standard_normal((4, 9, 1)))
    feeds = [{"x": x.astype(np.float32)}]
    program = feed_forward()
    result = run(program, Context(target=VNNI, calibration=feeds), min_cosine=min_cosine)
    a, b = (execute(p, feeds)[0]["y"].astype(np.float64) for p in (program, result.program))
    cosine = ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean()
    assert cosine >= min_cosine - 1e-9
    if result.modified:
        assert result.statistics["mean cosine"] == pytest.approx(cosine, abs=1e-5)
    stays = [note for note in result.notes if "stays in float, int8 there alone costs" in note]
    assert len(stays) == 2 - result.statistics["products in int8"]
    assert result.modified == (min_cosine < 0.99999)


def test_statistics_and_the_reason_for_the_range():
    program = feed_forward()
    for target, bits in ((VNNI, 8), (AVX2, 7), (None, 7)):
        result = run(program, Context(target=target), min_cosine=0.0)
        assert dict(result.statistics) == {
            "products in int8": 2,
            "with a scale per token": 2,
            "left in float": 0,
            "weight bits": bits,
        }
        integers = result.program.graph.graph.initializers["up.int8"].const_value.numpy()
        assert np.abs(integers.astype(int)).max() == {8: 127, 7: 64}[bits]
        assert result.notes[0].startswith(f"{bits}-bit weights")


def test_two_runs_give_one_text_and_the_input_is_untouched():
    program = feed_forward()
    before = program.fingerprint()
    first, second = (run(program, min_cosine=0.9999) for _ in range(2))
    assert text(first.program) == text(second.program)
    assert first.program.fingerprint() == second.program.fingerprint() != before
    assert program.fingerprint() == before


def test_every_prefix_of_the_rewrites_is_a_program():
    program = feed_forward()
    for allowed in range(3):
        answers = iter([True] * allowed + [False] * 2)
        result = run(program, Context(target=VNNI, allow=lambda name, a=answers: next(a)), min_cosine=0.0)
        assert operators(result.program).count("MatMulIntegerToFloat") == allowed
        assert operators(result.program).count("MatMul") == 2 - allowed
        assert result.modified == bool(allowed)
        execute(result.program, [{"x": np.ones((1, 2, 32), np.float32)}])


def test_the_manager_runs_it_by_name_and_a_second_time_it_says_why_not():
    once = Pipeline.parse("quantize-dynamic{min_cosine=0.9}").run(feed_forward(), Context(target=VNNI))
    assert [step.status for step in once.steps] == ["applied"]
    assert once.steps[0].bytes_after < 0.3 * once.steps[0].bytes_before
    twice = Pipeline.parse("quantize-dynamic").run(once.program, Context(target=VNNI))
    assert twice.steps[0].status == "no change"
    assert twice.steps[0].notes == ("the model is quantized already: it has QuantizeLinear",)


def test_options_are_checked():
    for option in ("min_cosine=1.5", "min_cosine=-0.1", "weights=int4", "scale=row"):
        with pytest.raises(PipelineError, match="quantize-dynamic"):
            Pipeline.parse(f"quantize-dynamic{{{option}}}")


@pytest.mark.parametrize("operator", ["DequantizeLinear", "MatMulNBits"])
def test_a_quantized_model_is_left_whole(operator):
    bodies = {
        "DequantizeLinear": "f = DequantizeLinear (w8, s) h = MatMul (x, f) y = MatMul (h, up)",
        "MatMulNBits": (
            "h = com.microsoft.MatMulNBits <K = 32, N = 64, bits = 8, block_size = 32> (x, n, s2) "
            "y = MatMul (h, down)"
        ),
    }
    program = feed_forward(
        {
            "w8": np.ones((32, 32), np.int8),
            "s": np.float32(0.1),
            "n": np.ones((64, 1, 32), np.uint8),
            "s2": np.ones((64, 1), np.float32),
        },
        bodies[operator],
    )
    result = run(program)
    assert not result.modified
    assert result.notes == (f"the model is quantized already: it has {operator}",)


REASONS = {
    "too narrow": ("y = MatMul (x, w)", weights(w=(32, 4)), "32 to 4 features are too few to gain from int8"),
    "computed": (
        "d = Exp (w) y = MatMul (x, d)",
        weights(w=(32, 32)),
        "its weight is computed by exp in the graph: run fold-constants first",
    ),
    "scaled": ("y = Gemm <alpha = 0.5> (f, w)", weights(w=(32, 32)), "Gemm is not read as a linear layer"),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_stays_in_float_says_why(case):
    body, constants, reason = REASONS[case]
    if case == "scaled":
        body = "k = Constant <value_ints = [-1, 32]> () f = Reshape (x, k) " + body
    program = parsed(body, "float[batch,length,32] x", "float y", constants)
    result = run(program)
    assert not result.modified
    assert result.notes == ("no linear layer to quantize", f"y: stays in float, {reason}")


def test_half_precision_stays_and_says_why():
    program = parsed(
        "y = MatMul (x, w)",
        "float16[batch,32] x",
        "float16[batch,32] y",
        {"w": weights(w=(32, 32))["w"].astype(np.float16)},
    )
    assert run(program).notes[1] == (
        "y: stays in float, it computes in float16, and the int8 kernels take float32"
    )


def test_products_of_a_branch_are_in_int8_where_it_is_taken():
    program = feed_forward(
        body=(
            "h = MatMul (x, up) r = Relu (h) c = Constant <value_int = 1> () b = Cast <to = 9> (c) "
            "y = If (b) <then_branch = then () => (float[a,b,c] t) { t = MatMul (r, down) }, "
            "else_branch = other () => (float[a,b,c] e) { e = MatMul (r, down) }>"
        )
    )
    step = Pipeline([QuantizeDynamic(min_cosine=0.0)]).run(program).steps[0]
    assert step.statistics["products in int8"] == 2
    assert step.notes[-1] == "in the else_branch of If 'y': left as it is: no probe enters it"


def test_nothing_to_quantize():
    result = run(parsed("y = Relu (x)"))
    assert not result.modified
    assert result.notes == ("no linear layer to quantize",)


def test_an_opset_without_the_operator():
    program = parsed(
        "y = MatMul (x, w)", "float[batch,32] x", "float[batch,32] y", weights(w=(32, 32)), opset=10
    )
    result = run(program)
    assert not result.modified
    assert result.notes == ("opset 10 has no DynamicQuantizeLinear: convert the model to 11 or later",)


def test_nan_in_a_weight_is_an_error_that_names_it():
    bad = weights(down=(64, 32))["down"]
    bad[5, 5] = np.nan
    with pytest.raises(WeightError, match="'down' has NaN"):
        run(feed_forward({"down": bad}), min_cosine=0.0)


def test_a_column_of_zeros_comes_out_as_its_bias():
    up = weights(up=(32, 64))["up"]
    up[:, 3] = 0
    program = parsed(
        "h = MatMul (x, up) y = Add (h, b)",
        "float[batch,32] x",
        "float[batch,64] y",
        {"up": up, "b": np.full(64, 0.25, np.float32)},
    )
    result = run(program, min_cosine=0.0)
    found = execute(result.program, [{"x": np.ones((3, 32), np.float32)}])[0]["y"]
    assert (found[:, 3] == 0.25).all()
    assert np.isfinite(found).all()


def test_weights_are_read_one_at_a_time():
    """A lazy weight is asked for only when its turn comes, and the float array is not kept."""
    import gc
    import weakref

    program = feed_forward()
    alive: list[weakref.ref] = []

    def lazy(name, array):
        def load():
            gc.collect()
            assert not any(ref() is not None for ref in alive), "two float weights in memory at once"
            copy = array.copy()
            alive.append(weakref.ref(copy))
            return ir.Tensor(copy, name=name)

        return ir.LazyTensor(load, dtype=ir.DataType.FLOAT, shape=ir.Shape(array.shape), name=name)

    for name in ("up", "down"):
        value = program.graph.graph.initializers[name]
        value.const_value = lazy(name, value.const_value.numpy())
    assert run(program, min_cosine=0.0).statistics["products in int8"] == 2
    assert len(alive) >= 2


NAN = """low = ReduceMin<keepdims=1> (x, last) root = Sqrt (low)
         h = MatMul (x, up) r = Relu (h) d = MatMul (r, down) y = Add (d, root)"""


@pytest.mark.parametrize("text", ["quantize-dynamic", "quantize-dynamic{scale=tensor}", "quantize-static"])
def test_outputs_that_are_nan_on_all_that_was_tried_say_nothing_of_int8(text):
    """The square root of each row's least number: NaN on probes, which are negative in places."""
    program = feed_forward({"last": np.array([-1])}, NAN)
    rng = np.random.default_rng(0)
    negative, positive = (
        [{"x": (sign + rng.random((2, 5, 32))).astype(np.float32)} for _ in range(4)] for sign in (-2, 0)
    )
    assert all(np.isnan(each["y"]).all() for each in execute(program, negative))
    tried = [negative] if text == "quantize-static" else [negative, ()]
    for feeds in tried:
        done = Pipeline.parse(text).run(program, Context(target=VNNI, calibration=feeds))
        assert done.steps[0].status == "no change"
        assert done.steps[0].notes[0].startswith("nothing is quantized: no output has a finite row")
        assert done.program.fingerprint() == program.fingerprint()
    both = Pipeline.parse(text).run(program, Context(target=VNNI, calibration=[*negative, *positive]))
    assert both.steps[0].status == "applied"
    before, after = (execute(each, positive) for each in (program, both.program))
    for old, new in zip(before, after, strict=True):
        rows = [each["y"].reshape(-1, 32).astype(np.float64) for each in (old, new)]
        assert np.isfinite(rows[0]).all()
        cosines = np.sum(rows[0] * rows[1], 1) / np.prod([np.linalg.norm(each, axis=1) for each in rows], 0)
        assert cosines.mean() > 0.99
