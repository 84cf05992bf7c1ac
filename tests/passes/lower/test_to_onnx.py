"""to-onnx: the lowered graph equals eager PyTorch, keeps the program's names, and is the same every time."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import zoo
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.lower import to_onnx
from graphwright.passes.manager.pipeline import Pipeline

SUPPORT = Path(__file__).parents[2] / "support"

TOLERANCE = 5e-5  # of max(1, |reference|): single precision by another library
MEMBERS = ["bert", "modernbert", "llama", "t5", "clip_vision", "whisper", "torch_encoder", "einsum", "mpnet"]


@pytest.mark.parametrize("name", MEMBERS)
def test_outputs_are_those_of_eager_pytorch_on_every_probe(name):
    source, program, module = zoo.fx_program(name), zoo.onnx_program(name), zoo.ARCHITECTURES[name].build()
    assert program.dialect == "onnx"
    assert program.inputs == source.inputs
    assert (program.outputs, program.symbols, program.task) == (source.outputs, source.symbols, source.task)
    feeds = probes(source, seed=1)
    for feed, result in zip(feeds, execute(program, feeds), strict=True):
        with torch.no_grad():
            wanted = module(**{key: torch.from_numpy(array) for key, array in feed.items()})
        wanted = {"output": wanted} if isinstance(wanted, torch.Tensor) else wanted
        for output in program.outputs:
            reference = wanted[output].numpy()
            assert result[output].shape == reference.shape
            error = np.abs(result[output] - reference) / np.maximum(1, np.abs(reference))
            assert np.nanmax(error) < TOLERANCE
            assert not np.isnan(reference).any()


def test_inputs_outputs_axes_and_weights_bear_the_programs_names():
    program = zoo.onnx_program("bert")
    graph = program.graph.graph
    assert [value.name for value in graph.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [value.name for value in graph.outputs] == ["last_hidden_state"]
    assert [str(d) for d in graph.inputs[0].shape] == ["batch", "length"]
    assert view(program).outputs[0].shape == ("batch", "length", 32)
    weights = {name for name, _ in zoo.fx_program("bert").graph.named_parameters()}
    assert weights <= set(graph.initializers)
    axes = {str(d) for v in view(program) for d in v.shape or () if isinstance(d, str)}
    assert {"batch", "length"} <= axes
    assert not [axis for axis in axes if "s" in set(axis) - set("batchlength*+-/() 0123456789")]


def test_linear_weights_are_stored_as_they_are_multiplied_and_shared_ones_once():
    source, program = zoo.fx_program("nanogpt"), zoo.onnx_program("nanogpt")
    graph, held = program.graph.graph, dict(source.graph.named_parameters())
    name = next(n for n in held if n.endswith("up.weight"))
    np.testing.assert_array_equal(graph.initializers[name].const_value.numpy(), held[name].detach().numpy().T)
    tied = [n for n, v in graph.initializers.items() if list(v.shape) in ([83, 36], [36, 83])]
    assert len(tied) == 1  # the table of words is the output matrix
    matrices = [n for n in graph if n.op_type == "Transpose" and n.inputs[0].const_value is not None]
    assert [n.inputs[0].name for n in matrices] == tied


@pytest.mark.parametrize(("small", "kept"), [(1 << 28, True), (0, False)])
def test_weights_that_are_stored_turned_are_turned_once_where_they_are_small(small, kept, monkeypatch):
    monkeypatch.setattr(to_onnx, "SMALL", small)
    program = Pipeline.parse("to-onnx").run(zoo.fx_program("nanogpt"), verify=False).program
    weights = [value.const_value for value in program.graph.graph.initializers.values()]
    turned = [tensor for tensor in weights if isinstance(tensor, ir.LazyTensor)]
    assert turned
    for tensor in turned:
        array = tensor.numpy()
        assert (array is tensor.numpy()) == kept
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_the_source_is_left_as_it_was():
    source = zoo.fx_program("bert", "eager")
    before = source.fingerprint()
    zoo.onnx_program("bert", "eager")
    assert source.fingerprint() == before


SCRIPT = """
import hashlib, sys, zoo
import onnx_ir as ir
program = zoo.onnx_program(sys.argv[1])
print(hashlib.sha256(ir.serde.serialize_model(program.graph).SerializeToString(deterministic=True)).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes():
    found = set()
    paths = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        line = [sys.executable, "-c", SCRIPT, "nanogpt"]
        found.add(subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout)
    proto = ir.serde.serialize_model(zoo.onnx_program("nanogpt").graph)
    found.add(hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest() + "\n")
    assert len(found) == 1
