"""Sizes inside a graph, inferred from its inputs': what a file says of them may be missing or wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common

from ..onnx import subgraphs
from ..opset import ONNX


def infer_sizes(model: ir.Model) -> None:
    """Replaces the sizes that the file gives to results of ONNX's own operators, in place.

    Outputs keep theirs, and so do results of other operators and of control flow, which nothing infers.
    """
    for node in model.graph:
        if node.domain in ONNX and not any(True for _ in subgraphs(node)):
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None
    with _silent():
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


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
