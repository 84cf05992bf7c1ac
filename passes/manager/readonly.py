"""Weights are shared between a program and its clones, so a pass must not write into them. Here it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ...ir.program import Program


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
    """Put a read-only array behind every constant that has a writable one; the memory stays the same."""
    import onnx_ir

    frozen: dict[int, onnx_ir.Tensor] = {}
    for value in model.graph.initializers.values():
        if _writable(value.const_value):
            tensor = value.const_value
            value.const_value = frozen.setdefault(id(tensor), _read_only_twin(tensor))
    for node in model.graph:
        if node.op_type == "Constant" and "value" in node.attributes:
            tensor = node.attributes["value"].value
            if _writable(tensor):
                node.attributes["value"] = onnx_ir.AttrTensor("value", _read_only_twin(tensor))


def _writable(tensor: Any) -> bool:
    """Only plain tensors can be: mapped files and protobufs are read-only already, lazy ones are computed."""
    import onnx_ir

    return isinstance(tensor, onnx_ir.Tensor) and tensor.numpy().flags.writeable


def _read_only_twin(tensor: Any) -> Any:
    import onnx_ir

    view: np.ndarray = tensor.numpy().view()
    view.flags.writeable = False
    return onnx_ir.Tensor(
        view, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name, doc_string=tensor.doc_string
    )
