"""Ternary and binary weights: the papers' formulas in float64, packed bits, and what is trained."""

import numpy as np
import onnx_ir
import pytest
import torch
from fusing import same
from graphwright.ir.errors import PipelineError, WeightError
from graphwright.ir.fx.graph import attribute, replace_tensor
from graphwright.ir.inputs.probe import probes
from graphwright.passes.common.fx_weights import find
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.quantize_binary import QuantizeBinary
from graphwright.passes.quantize.quantize_ternary import QuantizeTernary
from graphwright.passes.quantize.trained import levels_fx
from graphwright.passes.quantize.trained.levels import binary, straight_through, ternary
from odd import odd_program


@pytest.fixture(scope="module")
def odd():
    return odd_program()


def twn(weight, axis):
    """Li, Zhang and Liu, 2016, equations 5 and 6, in float64."""
    magnitude = np.abs(weight.astype(np.float64))
    delta = 0.7 * magnitude.mean(axis=axis, keepdims=True)
    kept = magnitude > delta
    scale = (magnitude * kept).sum(axis=axis, keepdims=True) / np.maximum(
        1, kept.sum(axis=axis, keepdims=True)
    )
    return np.sign(weight) * kept * scale


def bwn(weight, axis):
    """Rastegari et al., 2016, equation 6, in float64."""
    return np.where(weight < 0, -1, 1) * np.abs(weight.astype(np.float64)).mean(axis=axis, keepdims=True)


FORMULAS = {QuantizeTernary: twn, QuantizeBinary: bwn}
WEIGHTS = ("table.weight", "layer.weight", "turned", "back.weight")


def simulated(program, formula, scales):
    """The program with every weight put through a formula."""
    twin = program.clone()
    for node in twin.graph.graph.find_nodes(op="get_attr"):
        name, tensor = str(node.target), attribute(twin.graph, str(node.target))
        if name in WEIGHTS:
            axis = 0 if name == "turned" else 1
            if scales == "matrix" and name != "table.weight":
                axis = None
            levels = formula(tensor.detach().numpy(), axis).astype(np.float32)
            replace_tensor(twin.graph, node, torch.from_numpy(levels))
    twin.graph.recompile()
    return twin


@pytest.mark.parametrize("scales", ["row", "matrix"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_the_graph_computes_with_the_papers_levels(odd, kind, scales):
    result = kind(scales=scales, steps=0).run(odd.clone(), Context())
    # Scales are stored in float16: half an ulp of 11 bits in each.
    same(simulated(odd, FORMULAS[kind], scales), result.program, 2e-3)
    assert result.statistics["weights coded"] == 4
    assert result.notes == ()


@pytest.mark.parametrize(("kind", "bits"), [(QuantizeTernary, 2), (QuantizeBinary, 1)])
def test_the_exported_file_holds_packed_bits_and_gives_what_the_graph_gave(tmp_path, odd, kind, bits):
    result = kind(steps=0).run(odd.clone(), Context())
    run = Pipeline.parse("to-onnx,fold-constants,eliminate-common-subexpressions").run(result.program)
    assert run.ok
    same(result.program, run.program, 1e-5, probes(odd, 3))
    stored = {name: v.const_value for name, v in run.program.graph.graph.initializers.items()}
    codes = {name: tensor for name, tensor in stored.items() if name.endswith("_codes")}
    assert {tensor.dtype for tensor in codes.values()} == {onnx_ir.DataType.UINT8}
    per_byte = 8 // bits
    assert {name.removesuffix("_codes"): tuple(tensor.shape) for name, tensor in codes.items()} == {
        "table.weight": (31, -(-10 // per_byte)),
        "layer.weight": (10, -(-10 // per_byte)),
        "turned": (7, -(-10 // per_byte)),
        "back.weight": (10, -(-7 // per_byte)),
    }
    tables = [tensor for tensor in stored.values() if tuple(tensor.shape) == (256, per_byte)]
    assert [tensor.dtype for tensor in tables] == [onnx_ir.DataType.FLOAT16]  # one for all weights
    path = tmp_path / "model.onnx"
    onnx_ir.save(run.program.graph, path)
    assert path.stat().st_size < sum(tensor.nbytes for tensor in stored.values()) + 12000


def test_gradients_go_straight_through():
    weight = torch.randn(5, 8, requires_grad=True)
    for levels, formula in ((ternary, twn), (binary, bwn)):
        weight.grad = None
        found = straight_through(levels)(weight, (1,))
        np.testing.assert_allclose(found.detach(), formula(weight.detach().numpy(), 1), rtol=1e-5)
        slope = torch.randn(5, 8)
        (found * slope).sum().backward()
        np.testing.assert_array_equal(weight.grad, slope)


@pytest.mark.parametrize("scales", ["row", "matrix"])
@pytest.mark.parametrize(("kind", "levels"), [(QuantizeTernary, ternary), (QuantizeBinary, binary)])
def test_what_is_trained_is_what_is_stored(odd, kind, levels, scales):
    """The graph that learns, whose weights are in float, computes what the packed one will."""
    learns = odd.clone()
    learns = learns.with_graph(levels_fx.simulated(learns.graph, find(learns)[0], levels, scales))
    same(learns, kind(scales=scales, steps=0).run(odd.clone(), Context()).program, 2e-3)


def with_weight(program, name, change):
    twin = program.clone()
    (node,) = [n for n in twin.graph.graph.find_nodes(op="get_attr") if str(n.target) == name]
    replace_tensor(twin.graph, node, change(attribute(twin.graph, name).detach().clone()))
    twin.graph.recompile()
    return twin


@pytest.mark.parametrize("kind", FORMULAS)
def test_weights_of_zeros_and_nan(odd, kind):
    zeros = with_weight(odd, "layer.weight", torch.zeros_like)
    result = kind(steps=0).run(zeros.clone(), Context())
    same(simulated(zeros, FORMULAS[kind], "row"), result.program, 2e-3)
    assert not attribute(result.program.graph, "layer.weight_scale").any()
    nan = with_weight(odd, "layer.weight", lambda weight: weight.fill_(float("nan")))
    with pytest.raises(WeightError, match=r"'layer\.weight' has NaN"):
        kind(steps=0).run(nan, Context())


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_quantized_model_is_kept_whole_and_refusals_are_kept_to(odd, kind):
    once = kind(steps=0).run(odd.clone(), Context()).program
    again = kind(steps=0).run(once.clone(), Context())
    assert not again.modified
    assert again.program.fingerprint() == once.fingerprint()
    assert "quantized already" in again.notes[0]
    refused = kind(steps=0).run(odd.clone(), Context(allow=lambda rewrite: False))
    assert not refused.modified
    assert refused.program.fingerprint() == odd.fingerprint()


@pytest.mark.parametrize(
    ("options", "what"),
    [({"scales": "group"}, "scales"), ({"steps": -1}, "steps is -1"), ({"rate": 0}, "rate is 0")],
)
@pytest.mark.parametrize("kind", FORMULAS)
def test_options_are_checked_and_steps_need_data(odd, kind, options, what):
    with pytest.raises(ValueError, match=what):
        kind(**options)
    with pytest.raises(PipelineError, match="needs calibration data"):
        Pipeline.parse(kind.name).run(odd)
