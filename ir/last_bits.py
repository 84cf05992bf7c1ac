"""What floats may differ by: a program whose weights are a unit in the last place from its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from .program import Program


def jittered(program: Program, seed: int = 0) -> Program:
    """A program in which about half of the numbers of each float32 matrix are the next ones towards 0.

    What that moves outputs by is about what float32 in another order moves them by: each product errs by a
    unit in the last place either way.
    """
    twin = program.clone()
    draws = (np.random.default_rng((seed, number)) for number in range(1 << 30))
    (_onnx if program.dialect == "onnx" else _fx)(twin.graph, draws)
    return twin


def _moved(array: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return np.where(draw.random(array.shape, np.float32) < 0.5, np.nextafter(array, np.float32(0)), array)


def _fx(graph: Any, draws: Iterator[np.random.Generator]) -> None:
    import torch

    from .fx.graph import set_attribute

    for name, tensor in graph.state_dict().items():
        if tensor.dtype == torch.float32 and tensor.ndim > 1:
            set_attribute(graph, name, torch.from_numpy(_moved(tensor.detach().cpu().numpy(), next(draws))))


def _onnx(model: Any, draws: Iterator[np.random.Generator]) -> None:
    import onnx_ir

    from .onnx.lazy import changed

    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or len(tensor.shape) < 2:
                continue
            value.const_value = changed(tensor, partial(_moved, draw=next(draws)))
