"""Sizes inside a graph, inferred from its inputs': what a file says of them may be missing or wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common

from ..onnx.graph import subgraphs
from ..onnx.opset import ONNX


def infer_sizes(model: ir.Model) -> None:
    """Replaces the sizes that the file gives to results of ONNX's own operators, in place; where nothing is
    inferred the file is believed.

    Outputs keep theirs, and so do results of other operators and of control flow.
    """
    said: dict[ir.Value, ir.Shape] = {}
    for node in model.graph:
        if node.domain in ONNX and not any(True for _ in subgraphs(node)):
            for value in node.outputs:
                if value.shape is not None and not value.is_graph_output():
                    said[value], value.shape = value.shape, None
    with _silent():
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, shape in said.items():
        found = value.shape
        if found is None:
            value.shape = shape
        elif len(found) == len(shape):
            value.shape = ir.Shape([b if _unknown(a) else a for a, b in zip(found, shape, strict=True)])


def _unknown(dim: int | ir.SymbolicDim) -> bool:
    """Without a name, or with one that onnx made up."""
    return isinstance(dim, ir.SymbolicDim) and (dim.value is None or dim.value.startswith("unk__"))


@contextmanager
def _silent() -> Iterator[None]:
    """What onnx_ir logs where onnx cannot infer: sizes then stay unknown, and the view infers what it can."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
