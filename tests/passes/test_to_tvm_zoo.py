"""Every architecture of the zoo, from both dialects, through Relax and generic schedules, against PyTorch."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import tvm_run
from graphwright.passes.lower.to_tvm import relax_module
from zoo import ARCHITECTURES, fx_program, onnx_program

# Absolute, on outputs scaled by max(1, |reference|): the promise of to-onnx, and of every exact pass.
TOLERANCE = 1e-4


def sizes(program, feed):
    """The size that each symbol has in a feed."""
    return {
        dim: size
        for spec in program.inputs
        for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }


def eager(name, inputs):
    """The module's own outputs, flat and in order."""
    with torch.no_grad():
        output = ARCHITECTURES[name].build(ARCHITECTURES[name].attns[-1])(**inputs)
    values = output.values() if isinstance(output, Mapping) else [output]
    return [leaf.numpy() for value in values for leaf in torch.utils._pytree.tree_leaves(value)]


@pytest.mark.parametrize("dialect", ["onnx", "fx"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_agrees_with_pytorch(name, dialect):
    case = ARCHITECTURES[name]
    program = (onnx_program if dialect == "onnx" else fx_program)(name, case.attns[-1])
    inputs = case.inputs()
    feed = {key: tensor.numpy() for key, tensor in inputs.items()}
    imported = relax_module(program, sizes(program, feed))
    found = tvm_run.run(imported, feed, level=1)
    for value, reference in zip(found.values(), eager(name, inputs), strict=True):
        assert value.shape == reference.shape
        assert np.max(np.abs(value - reference) / np.maximum(1, np.abs(reference))) < TOLERANCE
