"""Old opsets raised to one that the passes write, and sizes inside of a graph inferred from its inputs'."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
from onnx.shape_inference import InferenceError
from onnx.version_converter import ConvertError, convert_version
from onnx_ir.passes import common

from ..errors import CaptureError
from ..onnx.graph import subgraphs
from ..onnx.opset import OLDEST, ONNX, opset
from .apart import put_back, set_apart
from .standin import through_proto


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


TARGET = 20


def raise_opset(model: ir.Model, path: Path) -> ir.Model:
    """The model at opset 20 if it is of one before 18, or before 20 with operators of ONNX Runtime, which are
    written out in opset 20; itself otherwise. Weights are not copied.

    Raises:
        CaptureError: onnx's version converter does not know how.
    """
    version = opset(model)
    runtimes = any(n.domain == "com.microsoft" for n in ir.traversal.RecursiveGraphIterator(model.graph))
    if version >= (TARGET if runtimes else OLDEST):
        return model
    set_apart(model, version)
    try:
        raised = through_proto(model, lambda proto: convert_version(proto, TARGET))
        put_back(raised)
    except (ConvertError, InferenceError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(
            f"'{path}' is of opset {version}, and cannot be raised to {TARGET}: {reason}"
        ) from error
    return raised
