"""torch's table of what ONNX spells its operators, read once a process.

torch.onnx.export parses the source of every function in it anew each time: a fifth of a lowering.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch.onnx._internal.exporter._registration import ONNXRegistry


@functools.cache
def torchlib(opset: int) -> ONNXRegistry:
    """The table of an opset; not to be changed."""
    return ONNXRegistry.from_torchlib(opset)


@contextmanager
def read_once(opset: int) -> Iterator[None]:
    """In here torch's exporter gets the table of this opset, to add to, without reading it again."""
    known = torchlib(opset)

    def copied(opset_version: int) -> ONNXRegistry:
        assert opset_version == opset
        table = ONNXRegistry()
        table._opset_version = opset
        table.functions = {target: list(found) for target, found in known.functions.items()}
        return table

    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(copied)):
        yield
