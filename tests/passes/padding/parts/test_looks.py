"""remove-padding on models that look at their padding: left alone, or rows that begin with it kept whole."""

import numpy as np
import onnx_ir
import pytest
from fusing import weights
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.padding.remove_padding import RemovePadding
from handmade import operators, parsed

WIDTH = 8
WEIGHTS = {
    **weights(table=(8, WIDTH), q=(WIDTH, WIDTH), k=(WIDTH, WIDTH), v=(WIDTH, WIDTH)),
    **weights(seed=2, up=(WIDTH, 16), down=(16, WIDTH)),
    "scale": np.array(WIDTH**-0.5, np.float32), "one": np.array(1.0, np.float32),
    "lowest": np.array(-1e9, np.float32),
    **weights(seed=3, joining=(WIDTH, WIDTH, 3)),
    "rows": np.array([1]), "columns": np.array([2]), "first": np.array(0), "middle": np.array([1]),
}  # fmt: skip
# Where the mask alone hides keys, and where it hides queries too, as DeBERTa's does.
KEYS = "seen = Unsqueeze(float_mask, rows)"
BOTH = "across = Unsqueeze(float_mask, rows) down_ = Unsqueeze(float_mask, columns) seen = Mul(across, down_)"
ENCODER = """
    float_mask = Cast<to = 1>(mask)
    {seen}
    unseen = Sub(one, seen)
    bias = Mul(unseen, lowest)
    h = Gather(table, ids)
    query = MatMul(h, q) key = MatMul(h, k) value = MatMul(h, v)
    turned = Transpose<perm = [0, 2, 1]>(key)
    raw = MatMul(query, turned)
    scaled = Mul(raw, scale)
    scores = Add(scaled, bias)
    probabilities = Softmax<axis = -1>(scores)
    context = MatMul(probabilities, value)
    residual = Add(context, h)
    wide = MatMul(residual, up)
    act = Relu(wide)
    narrow = MatMul(act, down)
    states = Add(narrow, residual)
"""


def encoder(tail, outputs, seen=KEYS):
    inputs = "int64[batch,length] ids, int64[batch,length] mask"
    return parsed(ENCODER.format(seen=seen) + tail, inputs, outputs, WEIGHTS, opset=18)


STATES = "float[batch,length,8] states"


def test_a_plain_encoder_is_packed():
    run = Pipeline.parse("remove-padding").run(encoder("", STATES))
    assert run.ok
    assert run.steps[0].statistics == {"projections on real tokens": 5}


@pytest.mark.parametrize(
    ("tail", "outputs"),
    [
        ("y = Unsqueeze(probabilities, middle)", f"{STATES}, float[batch,1,length,length] y"),
        ("y = ReduceMean<keepdims = 0>(states, middle)", "float[batch,8] y"),
        ("y = ReduceMax<keepdims = 0>(states, middle)", "float[batch,8] y"),
        ("y = Transpose<perm = [1, 0, 2]>(states)", "float[length,batch,8] y"),
    ],
    ids=["attention maps", "mean of all", "largest of all", "length first"],
)
def test_what_shows_padding_is_left_alone_and_named(tail, outputs):
    program = encoder(tail, outputs)
    run = Pipeline.parse("remove-padding").run(program)
    assert run.ok, run.steps[0].error
    assert run.steps[0].status == "no change"
    assert run.steps[0].notes == ("mask: the output 'y' is computed from padded tokens too",)
    assert run.program is program


def test_a_masked_mean_is_packed():
    tail = """
        column = Unsqueeze(float_mask, columns)
        kept = Mul(states, column)
        total = ReduceSum<keepdims = 0>(kept, middle)
        count = ReduceSum<keepdims = 0>(column, middle)
        y = Div(total, count)
    """
    run = Pipeline.parse("remove-padding").run(encoder(tail, "float[batch,8] y"))
    assert run.ok
    assert run.steps[0].status == "applied"


@pytest.mark.parametrize(("seen", "whole"), [(KEYS, False), (BOTH, True)])
def test_rows_that_begin_with_padding_stay_whole_where_their_first_token_looks_at_it(seen, whole):
    program = encoder("y = Gather<axis = 1>(states, first)", "float[batch,8] y", seen)
    run = Pipeline.parse("remove-padding").run(program)
    assert run.ok, run.steps[0].error
    assert run.steps[0].status == "applied"
    kept = next(
        v for node in run.program.graph.graph for v in node.outputs if v.name.endswith("unpadded.kept")
    )
    assert (kept.producer().inputs[0].name == "mask.unpadded.or_first") == whole
    for feed, before in zip(probes(program, 5), execute(program, probes(program, 5)), strict=True):
        after = execute(run.program, [feed])[0]
        np.testing.assert_allclose(after["y"], before["y"], atol=2e-6)


@pytest.mark.parametrize("strength", [1.0, 1e-3])
def test_all_that_a_convolution_reads_is_computed_of_padding_too(strength):
    """A query of padding makes a state of padding, which its neighbours are given, as in ConvBERT: left
    whole by what the graph says, also where it moves outputs by less than the contract would see."""
    tail = """
        features = Transpose<perm = [0, 2, 1]>(states)
        joined = Conv<pads = [1, 1]>(features, joining)
        part = Mul(joined, strength)
        mixed = Add(features, part)
        y = Transpose<perm = [0, 2, 1]>(mixed)
    """
    held = {**WEIGHTS, "strength": np.array(strength, np.float32)}
    inputs = "int64[batch,length] ids, int64[batch,length] mask"
    text = ENCODER.format(seen=KEYS) + tail
    program = parsed(text, inputs, "float[batch,length,8] y", held, opset=18)
    result = RemovePadding().run(program, Context())
    assert result.program is program
    assert result.notes == ("mask: no projection acts on (batch, length, features) values",)


def test_tokens_whose_rows_come_second_are_not_packed_and_the_reason_says_so():
    """XLNet keeps its tokens as (length, batch, features)."""
    text = """
        turned = Transpose<perm = [1, 0]>(ids)
        h = Gather(table, turned)
        wide = MatMul(h, up)
        act = Relu(wide)
        narrow = MatMul(act, down)
        y = Transpose<perm = [1, 0, 2]>(narrow)
    """
    inputs = "int64[batch,length] ids, int64[batch,length] mask"
    program = parsed(text, inputs, "float[batch,length,8] y", WEIGHTS, opset=18)
    result = RemovePadding().run(program, Context())
    assert result.program is program
    reason = "the model keeps its tokens as (length, batch, features), as 2 projections show, and only "
    assert result.notes == (f"mask: {reason}(batch, length, features) can be packed",)


def test_sizes_that_a_file_names_anew_are_those_of_its_inputs():
    program = encoder("", STATES)
    for node in program.graph.graph:
        for number, value in enumerate(node.outputs):
            rank = {"float_mask": 2, "states": 3}.get(value.name, 3)
            value.shape = onnx_ir.Shape([f"unk__{value.name}_{number}_{axis}" for axis in range(rank)])
    for value in program.graph.graph.outputs:
        value.shape = onnx_ir.Shape(["batch", "length", WIDTH])
    result = RemovePadding().run(program.clone(), Context())
    assert result.statistics == {"projections on real tokens": 5}, result.notes
    assert "NonZero" in operators(result.program)


def test_left_alone_means_the_very_same_program():
    program = encoder("y = ReduceMean<keepdims = 0>(states, middle)", "float[batch,8] y")
    result = RemovePadding().run(program.clone(), Context())
    assert not result.modified
    assert result.program.fingerprint() == program.fingerprint()
