"""compute-bfloat16: outputs are those of rounded operands, in both dialects, and what stays says so."""

import ml_dtypes
import numpy as np
import pytest
import torch
from fusing import same
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.compute_bfloat16 import LACKING, ComputeBfloat16
from handmade import before_and_after, golden, operators, parsed
from torch import nn
from zoo import fx_program, onnx_program

RNG = np.random.default_rng(0)
CANONICAL = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"


def weights(**shapes):
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def feed_forward(body="h = MatMul (x, up) r = Relu (h) y = MatMul (r, down)", **more):
    given = {**weights(up=(32, 64), down=(64, 32)), **more}
    return parsed(body, "float[batch,length,32] x", "float[batch,length,32] y", given)


def brain(array):
    return array.astype(ml_dtypes.bfloat16).astype(np.float64)


def run(program, context=None, **options):
    return ComputeBfloat16(**options).run(program.clone(), context or Context())


def test_golden():
    x = "float[batch,length,16] x"
    body = "q = MatMul (x, wq) k = MatMul (x, wk) s = Add (q, k) y = Gemm <transB = 1> (s2, wg, b)"
    before = parsed(
        body.replace("s = Add (q, k)", "s = Add (q, k) s2 = Reshape (s, rows)"), x, "float[n,16] y",
        {**weights(wq=(16, 16), wk=(16, 16), wg=(16, 16), b=(16,)), "rows": np.array([-1, 16])},
    )  # fmt: skip
    after = run(before, min_cosine=0.0).program
    golden("quantize/compute-bfloat16", before_and_after(before, after))


def test_outputs_are_those_of_rounded_operands():
    program = feed_forward()
    found = run(program)
    assert found.modified
    assert found.statistics["products in bfloat16"] == "2 of 2"
    assert 0.999 < found.statistics["mean cosine"] < 1
    w = weights(up=(32, 64), down=(64, 32))
    for feed in probes(program, 0):
        hidden = np.maximum(brain(feed["x"]) @ brain(w["up"]), 0)
        (got,) = execute(found.program, [feed])
        # The hidden number may round another way where its float32 sum lies at a tie.
        np.testing.assert_allclose(got["y"], brain(hidden) @ brain(w["down"]), rtol=2e-3, atol=2e-2)
        exact = np.maximum(feed["x"].astype(np.float64) @ w["up"], 0) @ w["down"].astype(np.float64)
        bound = np.abs(feed["x"].astype(np.float64)) @ np.abs(w["up"]) @ np.abs(w["down"]).astype(np.float64)
        # Each operand is off by at most 2^-9 of itself: two in the first product, two in the second.
        assert (np.abs(got["y"] - exact) <= 4.1 * 2**-9 * bound).all()


class Tied(nn.Module):
    """A head that reads the table which ids are looked up in, and a convolution's weight turned (Conv1D)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(40, 32)
        self.middle = nn.Parameter(torch.randn(32, 32))
        self.norm = nn.LayerNorm(32)

    def forward(self, input_ids):
        x = self.norm(self.table(input_ids))
        return torch.matmul(x, self.middle) @ self.table.weight.T


def test_a_torch_program_is_written_alike_and_lowered():
    module = Tied().eval()
    program = capture(module, inputs=[torch.randint(0, 40, (2, 7))])
    found = run(program)
    assert found.statistics["products in bfloat16"] == "2 of 2"
    kept = {name: p.dtype for name, p in found.program.graph.named_parameters()}
    assert sum(dtype == torch.bfloat16 for dtype in kept.values()) == 2
    assert kept["table.weight"] == torch.float32  # rows are looked up in it
    feeds = probes(program, 0)
    (name,) = program.outputs
    lowered = Pipeline.parse(f"to-onnx,{CANONICAL}").run(found.program)
    assert lowered.ok, [str(step.error) for step in lowered.steps]
    assert operators(lowered.program).count("Cast") == 6
    w, table = (brain(p.detach().numpy()) for p in (module.middle, module.table.weight))
    for each in (found.program, lowered.program):
        for feed, outputs in zip(feeds, execute(each, feeds), strict=True):
            ids = torch.from_numpy(feed["input_ids"])
            with torch.no_grad():
                x = module.norm(module.table(ids)).numpy()
            np.testing.assert_allclose(outputs[name], brain(brain(x) @ w) @ table.T, rtol=2e-3, atol=3e-2)


@pytest.mark.parametrize("make", [feed_forward, lambda: fx_program("bert")], ids=["onnx", "fx"])
def test_what_is_computed_in_bfloat16_already_is_left(make):
    once = run(make(), min_cosine=0.0).program
    twice = run(once, min_cosine=0.0)
    assert not twice.modified
    same(once, twice.program, 0)


def test_what_is_multiplied_by_a_number_since_is_not_rounded():
    """As an attention's factors may be; a third of a number of bfloat16 is none."""
    body = "h = Cast <to = 16> (x) f = Cast <to = 1> (h) s = Mul (f, third) y = MatMul (s, up)"
    program = parsed(
        body, "float[batch,length,32] x", "float[batch,length,64] y",
        {**weights(up=(32, 64)), "third": np.array(1 / 3, np.float32)},
    )  # fmt: skip
    assert run(program, min_cosine=0.0).statistics["products in bfloat16"] == "1 of 1"


def test_canonical_passes_keep_the_rounding():
    found = run(feed_forward()).program
    ran = Pipeline.parse(CANONICAL).run(found)
    assert ran.ok
    assert operators(ran.program).count("Cast") == 6
    same(found, ran.program, 0)


def test_weights_stored_in_bfloat16_are_read_as_they_are():
    stored = Pipeline.parse("store-half{type=bfloat16}").run(feed_forward()).program
    found = run(stored)
    assert found.statistics["products in bfloat16"] == "2 of 2"
    names = sorted(found.program.graph.graph.initializers)
    assert names == ["down.bfloat16", "up.bfloat16"]
    same(run(feed_forward()).program, found.program, 0)


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        ("y = MatMul (x, w)", {"w": (32, 8)}, "32 to 8 features are too few to gain from bfloat16"),
        ("s = Mul (w, w) y = MatMul (x, s)", {"w": (32, 32)}, "its weight is computed by mul in the graph"),
        ("t = Transpose <perm = [0, 2, 1]> (x) y = Conv (t, w)", {"w": (32, 32, 1)}, "a convolution: "),
        ("h = Cast <to = 11> (x) y = MatMul (h, w)", {"w": (32, 32)}, "it computes in float64"),
    ],
)
def test_what_stays_says_so(body, more, said):
    given = weights(**more)
    if "to = 11" in body:
        given = {name: array.astype(np.float64) for name, array in given.items()}
    program = parsed(
        body, "float[batch,length,32] x", f"{'double' if '11' in body else 'float'}[a,b,c] y", given
    )
    found = run(program)
    assert not found.modified
    assert any(f"y: stays in float32, {said}" in note for note in found.notes), found.notes


def test_a_layer_that_loses_too_much_stays():
    """The second layer takes the difference of two numbers that are nearly the same."""
    up = RNG.standard_normal((32, 64)).astype(np.float32)
    up[:, 32:] = up[:, :32] * (1 + 1e-4 * RNG.standard_normal((32, 32)).astype(np.float32))
    down = np.concatenate([np.eye(32), -np.eye(32)]).astype(np.float32)
    program = feed_forward("h = MatMul (x, up) d = MatMul (h, down) y = MatMul (d, last)", up=up, down=down,
                           last=RNG.standard_normal((32, 32)).astype(np.float32))  # fmt: skip
    found = run(program)
    assert found.statistics["products in bfloat16"] == "1 of 3"
    assert sum("stays in float, bfloat16 there alone costs a cosine of" in note for note in found.notes) == 2
    assert found.statistics["mean cosine"] >= 0.999
    assert run(program, min_cosine=0.0).statistics["products in bfloat16"] == "3 of 3"


def test_graphs_of_one_bundle_choose_alike():
    chosen = {}
    first = run(feed_forward(), Context(chosen=chosen))
    assert run(feed_forward(), Context(chosen=dict.fromkeys(chosen, "float"))).modified is False
    again = run(feed_forward(), Context(chosen=chosen))
    assert "mean cosine" not in again.statistics
    same(first.program, again.program, 0)


def test_onnx_runtime_has_no_such_products():
    found = run(feed_forward(), Context(runtime="onnxruntime"))
    assert not found.modified
    assert found.notes == (LACKING,)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
@pytest.mark.slow
def test_every_product_of_the_zoo_in_both_dialects(name):
    counts = []
    for program in (fx_program(name, "eager"), onnx_program(name)):
        ran = Pipeline([ComputeBfloat16(min_cosine=0.99)]).run(program)
        assert ran.ok, [str(step.error) for step in ran.steps]
        counts.append(ran.steps[0].statistics["products in bfloat16"])
    assert counts[0] == counts[1]
    assert counts[0] == {"bert": "16 of 16", "gpt2": "13 of 13", "t5": "45 of 45"}[name]
