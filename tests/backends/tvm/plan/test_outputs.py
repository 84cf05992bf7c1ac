"""Values that a planned function gives out as well as reads: integer products take them rounded."""

import numpy as np
import pytest
import tvm
from fusing import weights
from graphwright.backends.target import detect
from graphwright.backends.tvm.build.compile import Machine, compile_buckets
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.backends.tvm.plan.planner import plan
from graphwright.backends.tvm.run.kept import Kept
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import feed
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import parsed
from tvm import relax
from tvm_run import sizes_of

WIDTH = 16
WEIGHTS = {
    **weights(table=(8, WIDTH), q=(WIDTH, WIDTH), k=(WIDTH, WIDTH), v=(WIDTH, WIDTH), o=(WIDTH, WIDTH)),
    **weights(seed=2, up=(WIDTH, 48), down=(48, WIDTH), head=(WIDTH, 24)),
    **weights(seed=3, s1=(WIDTH,), b1=(WIDTH,), s2=(WIDTH,), b2=(WIDTH,)),
    "scale": np.array(0.35, np.float32), "one": np.array(1, np.float32), "low": np.array(-1e9, np.float32),
    "rows": np.array([1, 2]), "split": np.array([0, 0, 2, 8]), "join": np.array([0, 0, WIDTH]),
}  # fmt: skip
LAYER = """
    kept = Cast<to = 1>(mask) seen = Unsqueeze(kept, rows) unseen = Sub(one, seen) bias = Mul(unseen, low)
    words = Gather(table, ids)
    query = MatMul(words, q) key = MatMul(words, k) value = MatMul(words, v)
    q1 = Reshape(query, split) k1 = Reshape(key, split) v1 = Reshape(value, split)
    q2 = Transpose<perm = [0, 2, 1, 3]>(q1) k2 = Transpose<perm = [0, 2, 3, 1]>(k1)
    v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
    raw = MatMul(q2, k2) scaled = Mul(raw, scale) scores = Add(scaled, bias)
    probabilities = Softmax<axis = -1>(scores)
    c0 = MatMul(probabilities, v2) c1 = Transpose<perm = [0, 2, 1, 3]>(c0) context = Reshape(c1, join)
    attended = MatMul(context, o) sum1 = Add(attended, words)
    middle = LayerNormalization<axis = -1>(sum1, s1, b1)
    wide = MatMul(middle, up) active = Relu(wide) narrow = MatMul(active, down)
    sum2 = Add(narrow, middle)
    states = LayerNormalization<axis = -1>(sum2, s2, b2)
    y = MatMul(states, head)
"""


def quantized(given):
    """One layer in int8 that gives out a value of width `given[1]` beside its last product."""
    name, width = given
    inputs = "int64[batch,length] ids, int64[batch,length] mask"
    outputs = f"float[batch,length,{width}] {name}, float[batch,length,24] y"
    program = parsed(LAYER, inputs, outputs, WEIGHTS, opset=20)
    context = Context(target=detect())
    result = Pipeline.parse("quantize-dynamic{min_cosine=0.0}").run(program, context)
    assert result.steps[0].statistics["products in int8"] == 7
    return result.program


@pytest.mark.parametrize(
    "given",
    [("words", 16), ("query", 16), ("context", 16), ("middle", 16), ("active", 48)],
    ids=lambda given: given[0],
)  # fmt: skip
def test_every_value_of_a_layer_can_be_an_output_too(given):
    program = quantized(given)
    module = relax_module(program, {"batch": 3, "length": 9}).module
    found = plan(module, program.inputs, Machine.of(detect(), 2))
    assert sum(n for name, n in found.kernels.items() if name.startswith("dense_")) >= 5


def test_outputs_that_are_rounded_elsewhere_are_what_they_were():
    program = quantized(("states", 16))
    arrays = feed(program, {"batch": 3, "length": 9}, "ragged")
    built = compile_buckets(program, detect(), 2, [sizes_of(program, arrays)])
    (bucket,) = built.buckets
    assert bucket.mask == "mask"
    given = [arrays[spec.name] for spec in program.inputs]
    given += [
        *Kept(arrays["mask"].shape).of(arrays["mask"] != 0),
        *(built.weights[w] for w in bucket.weights),
    ]
    machine = relax.VirtualMachine(built.executable, tvm.cpu())
    found = machine[bucket.function](*map(tvm.runtime.tensor, given))
    expected = execute(program, [arrays])[0]
    kept = arrays["mask"] != 0
    for tensor, (name, reference) in zip(found, expected.items(), strict=True):
        cosine = _cosine(tensor.numpy()[kept], reference[kept])
        assert cosine > 0.999, name  # rows here, one range for the whole tensor in ONNX Runtime


def _cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
