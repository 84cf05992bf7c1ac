"""Weights are shared between a program and its clones, so a pass must not write into them. Here it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ..ir.program import Program


@contextmanager
def read_only(program: Program, guard: bool = True) -> Iterator[Program]:
    """A clone for a pass to edit, whose weights raise when written to in place.

    Args:
        guard: also watch PyTorch's in-place operators; off for a pass that traces, which brings modes of its
            own.

    Raises:
        ValueError: (NumPy's) or RuntimeError (PyTorch's) inside the body, at the write.
    """
    clone = program.clone()
    if program.dialect == "onnx":
        _freeze(clone.graph)
        yield clone
        return
    from .readonly_torch import SharedWeights, restored

    tensors = [*program.graph.parameters(), *program.graph.buffers()]
    with restored(tensors), SharedWeights(tensors) if guard else nullcontext():
        yield clone


def _freeze(model: Any) -> None:
    """Put a read-only array behind every initializer that has a writable one; the memory stays the same."""
    import onnx_ir

    frozen: dict[int, onnx_ir.Tensor] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, onnx_ir.Tensor):
            continue  # mapped files and protobufs are read-only already
        array = tensor.numpy()
        if not array.flags.writeable:
            continue
        if id(tensor) not in frozen:
            view: np.ndarray = array.view()
            view.flags.writeable = False
            frozen[id(tensor)] = onnx_ir.Tensor(
                view, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name, doc_string=tensor.doc_string
            )
        value.const_value = frozen[id(tensor)]
