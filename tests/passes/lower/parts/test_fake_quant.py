"""to-onnx of fake-quantized graphs: the very integers, steps and offsets trained, in integer kernels."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import ContractError
from graphwright.ir.execute import execute, observe
from graphwright.ir.fx.graph import add_tensor, call
from graphwright.ir.inputs.probe import probes
from graphwright.ir.onnx.kernels import INTEGER, kernels
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.verify import moved_share
from torch import nn
from training import arguments, calibrated, fake_quantized, fakes, linear_program, tensor

aten = torch.ops.aten
AGREE = 1e-4  # of the output's largest magnitude


def lowered(program):
    return ToOnnx().run(program.clone(), Context()).program


def agree(before, after, feeds, rows=1.0):
    """Assert that outputs are the same.

    Args:
        rows: share of rows that must be. Rounding is not continuous: where two libraries differ in the last
            bit of an activation, it may come to lie on the other side of half a step, and then does not
            merely differ in the last bit.
    """
    for expected, found in zip(execute(before, feeds), execute(after, feeds), strict=True):
        for name in before.outputs:
            known = np.isfinite(expected[name]).all(axis=-1)
            scale = np.abs(expected[name][known]).max()
            distance = np.abs(found[name] - expected[name])[known].max(axis=-1) / scale
            assert (distance < AGREE).mean() >= rows, distance
            assert distance.max() < 0.02


def constants(program, values):
    """What values hold that depend on no input; packed codes are unpacked by the graph itself."""
    computed = [value.name for value in values if value.const_value is None]
    found = next(observe(program, computed, probes(program, 0))) if computed else {}
    return [found[v.name] if v.const_value is None else v.const_value.numpy() for v in values]


# The kernels that ONNX Runtime makes of their linear layers.
KERNELS = {"bert": 12, "gpt2": 9, "llama": 15, "t5": 33, "nanogpt": 9}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "t5", "nanogpt")]


@pytest.mark.parametrize("name", ["bert", "gpt2", *SLOW])
def test_the_zoo_agrees_and_runs_in_integers(name):
    program = zoo.fx_program(name)
    found = fake_quantized(program, bits=8, weights="full").program
    onnx = lowered(found)
    agree(found, onnx, probes(program, 11), rows=0.8)
    ran = Counter(kernel.op_type for kernel in kernels(onnx.graph))
    assert sum(ran[kind] for kind in INTEGER) == KERNELS[name], ran
    stored = {v.name: v.const_value.dtype for v in onnx.graph.graph.initializers.values()}
    held = [
        name for name, dtype in stored.items() if dtype == ir.DataType.INT8 and name.endswith("_quantized")
    ]
    assert len(held) == len(fakes(found)[0])


@pytest.mark.parametrize(("factor", "kept"), [(1.0, True), (1.3, False)])
def test_the_manager_tells_half_a_step_from_a_wrong_step(factor, kept):
    class Lowered(ToOnnx):
        def run(self, program, context):
            result = super().run(program, context)
            nodes = [n for n in result.program.graph.graph if n.op_type == "DequantizeLinear"]
            for node in nodes:
                if node.inputs[0].is_initializer():  # a weight
                    scale = node.inputs[1]
                    wrong = scale.const_value.numpy() * np.float32(factor)
                    scale.const_value = ir.Tensor(wrong, name=scale.name)
            return result

    program = fake_quantized(zoo.fx_program("gpt2"), bits=8, weights="full").program
    run = Pipeline([Lowered()]).run(program)
    assert run.ok == kept
    if not kept:
        assert "of its norm (limit 10.00%)" in str(run.steps[0].error)


def test_what_moved_is_a_share_of_all_probes():
    a = [np.array([[3.0, 0.0]]), np.array([[0.0, 4.0], [np.inf, 0.0]])]
    b = [np.array([[3.0, 0.3]]), np.array([[0.4, 4.0], [np.inf, 0.0]])]
    assert moved_share(a, b) == pytest.approx(0.1)
    assert moved_share([np.zeros(2)], [np.ones(2)]) == pytest.approx(2**0.5)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("learned", [False, True])
def test_trained_steps_offsets_and_integers_are_the_exported_ones_bit_by_bit(bits, learned):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(36, 50), nn.ReLU(), nn.Linear(50, 34))
    source = capture(module, inputs=(torch.randn(5, 36),))
    found = fake_quantized(source, bits=bits, learned=learned, weights="full").program
    adam = torch.optim.Adam(found.graph.parameters(), lr=0.01)
    for seed in range(5):
        x = torch.randn(8, 36, generator=torch.Generator().manual_seed(seed))
        loss = found.graph(x)[0].square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    onnx = lowered(found)
    agree(found, onnx, probes(found, 1))
    assert sum(kernel.op_type in INTEGER for kernel in kernels(onnx.graph)) == 2
    weights, activations = fakes(found)
    graph = onnx.graph.graph
    dequantized = [n for n in graph if n.op_type == "DequantizeLinear"]
    quantized = [n for n in graph if n.op_type == "QuantizeLinear"]
    inner = {node.outputs[0] for node in quantized}
    static = [n for n in dequantized if n.inputs[0] not in inner]
    assert (len(static), len(quantized)) == (2, 2)
    values = {}
    interpreter = torch.fx.Interpreter(found.graph)
    plain = interpreter.run_node
    interpreter.run_node = lambda node: values.setdefault(node.name, plain(node))
    interpreter.run(*arguments(found, probes(found, 1)[0]), enable_io_processing=False)
    for node, fake in zip(static, weights, strict=True):
        codes, scale, zero = constants(onnx, node.inputs)
        np.testing.assert_array_equal(scale, values[fake.args[1].name].detach().numpy())
        assert not zero.any()
        assert codes.dtype == np.int8
        assert codes.shape == tuple(fake.meta["val"].shape)[::-1]  # stored as it is multiplied
        np.testing.assert_array_equal(codes.astype(np.float32) * scale, values[fake.name].detach().numpy().T)
        assert len(np.unique(codes)) <= 2**bits
    for node, fake in zip(quantized, activations, strict=True):
        scale, zero = constants(onnx, node.inputs[1:])
        np.testing.assert_array_equal(scale, values[fake.args[1].name].detach().numpy().reshape(()))
        assert zero == tensor(found, fake.args[2])
        assert zero.dtype == np.uint8
    if bits < 8:  # bits on disk, not bytes that hold them
        held = sum(v.const_value.nbytes for v in graph.initializers.values() if v.name.endswith(".packed"))
        assert held <= bits * (36 * -(-50 // 8) + 50 * -(-34 // 8))
        assert not [v for v in graph.initializers.values() if v.name.endswith("_quantized")]


def by_hand(target, *arguments):
    """A linear layer whose input goes through an operator that this package does not insert."""
    program = linear_program(8, 6)
    graph = program.graph.graph
    linear = next(node for node in graph.nodes if node.target is torch.ops.aten.linear.default)
    x = linear.args[0]
    tensors = [isinstance(a, torch.Tensor) for a in arguments]
    given = [
        add_tensor(program.graph, "own", a, linear) if t else a
        for a, t in zip(arguments, tensors, strict=True)
    ]
    with graph.inserting_before(linear):
        fake = graph.call_function(target, (x, *given))
    fake.meta["val"] = x.meta["val"]
    linear.replace_input_with(x, fake)
    program.graph.recompile()
    return program


ZERO = torch.zeros(8, dtype=torch.int32)
STEPS = torch.linspace(0.01, 0.05, 8)


@pytest.mark.parametrize(
    ("target", "arguments", "clipped"),
    [
        (aten.fake_quantize_per_tensor_affine.default, (0.02, 131, 0, 255), False),
        (aten.fake_quantize_per_tensor_affine.default, (0.02, 60, 0, 127), True),
        (aten.fake_quantize_per_tensor_affine.default, (0.2, 7, 0, 15), True),
        (aten.fake_quantize_per_tensor_affine.default, (0.02, 3, -128, 127), False),
        (aten.fake_quantize_per_tensor_affine.default, (0.04, 0, -64, 63), True),
        (aten.fake_quantize_per_tensor_affine.tensor_qparams, (STEPS[:1], ZERO[:1] + 1, -8, 7), True),
        (aten.fake_quantize_per_channel_affine.default, (STEPS, ZERO + 90, 2, 0, 200), True),
        (aten._fake_quantize_learnable_per_channel_affine.default, (STEPS, ZERO + 2.7, 2, -5, 5, 1.0), True),
        (
            aten._fake_quantize_learnable_per_tensor_affine.default,
            (STEPS[:1], ZERO[:1] + 2.7, 0, 255, 1.0),
            False,
        ),
    ],
)
def test_every_operator_of_the_family_and_every_range_of_eight_bits_is_lowered(target, arguments, clipped):
    program = by_hand(target, *arguments)
    onnx = lowered(program)
    agree(program, onnx, probes(program, 4))
    assert any(node.op_type == "Clip" for node in onnx.graph.graph) == clipped


def test_what_cannot_be_said_is_refused():
    with pytest.raises(ContractError, match=r"-300\.\.300"):
        lowered(by_hand(aten.fake_quantize_per_tensor_affine.default, 0.01, 0, -300, 300))
    program = by_hand(aten.fake_quantize_per_tensor_affine.tensor_qparams, STEPS[:1], ZERO[:1], 0, 255)
    fake = next(node for node in program.graph.graph.nodes if "fake_quantize" in str(node.target))
    largest = call(program.graph.graph, aten.amax.default, fake.args[0], before=fake)
    fake.update_arg(1, largest)
    program.graph.recompile()
    with pytest.raises(ContractError, match="depends on the inputs"):
        lowered(program)


def test_the_pipeline_verifies_it_and_says_it_is_quantized():
    program = zoo.fx_program("bert")
    run = Pipeline.parse("fake-quant{bits=4},to-onnx,quantize-dynamic").run(program, calibrated(program))
    assert run.ok, run.steps[-1].error
    assert "quantized already" in run.steps[-1].notes[0]


def test_weights_alone_agree_too_and_embeddings():
    program = zoo.fx_program("nanogpt", "eager")
    found = fake_quantized(program, bits=4, activations="float", embeddings=True).program
    onnx = lowered(found)
    agree(found, onnx, probes(program, 1))
    tensors = [value.const_value for value in onnx.graph.graph.initializers.values()]
    matrices = [one for one in tensors if len(one.shape) == 2 and min(one.shape.numpy()) > 1]
    floats = [one.name for one in matrices if one.dtype == ir.DataType.FLOAT]
    assert not floats
