"""Both adapters, held to PyTorch: the canonical operators, run in NumPy, must compute what the model does."""

import interpreter
import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.view import view

TOLERANCE = 5e-5  # of max(1, |reference|): the reference is single precision


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_canonical_operators_compute_what_the_model_does(name, dialect):
    case = zoo.ARCHITECTURES[name]
    program = (zoo.fx_program if dialect == "fx" else zoo.onnx_program)(name)
    batch, length = (2, 11) if case.fixed else (2, 7)
    tensors = case.inputs(batch, length, seed=5)
    feed = {name: tensor.numpy() for name, tensor in tensors.items()}
    symbols = {
        symbol: size
        for spec in program.inputs
        for symbol, size in zip(spec.shape, feed[spec.name].shape, strict=True)
        if isinstance(symbol, str)
    }
    with torch.no_grad():
        expected = zoo.fx_program(name).graph(*(tensors[spec.name] for spec in program.inputs))
    graph = view(program)

    found = interpreter.run(graph, feed, symbols)

    for value, reference in zip(graph.outputs, expected, strict=True):
        reference = reference.double().numpy()
        error = np.abs(found[value] - reference) / np.maximum(1, np.abs(reference))
        assert error.max() < TOLERANCE
    for value in graph:
        told = [eval(d, {}, symbols) if isinstance(d, str) else d for d in value.shape]
        assert all(t is None or t == d for t, d in zip(told, found[value].shape, strict=True)), value
        assert value.dtype is not None
