"""An .onnx file, from any exporter, read without trusting it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes import common

from ..errors import CaptureError
from ..onnx import OnnxView
from ..program import Program, Task
from ..roles import input_specs
from .config import facts, read_json, task_of
from .dims import name_dims
from .external import check_external
from .finite import check_finite
from .onnx_positions import bounds
from .opset import raise_opset
from .tokenizer import pad_token_id, tokenizer_facts, tokenizer_files


def from_onnx(path: Path, task: Task | None = None) -> Program:
    """Captures an ONNX model.

    Weights in external files stay there, mapped when read. Functions are inlined, opsets before 18 raised.
    Axes without a name get one, and the axes of ids and masks are called "batch" and "length". A
    configuration and a tokenizer are taken from the same directory (or the one above one called "onnx").

    Args:
        path: the .onnx file.
        task: instead of what config.json records; without either, "features", or "embedding" when the model
            has an output of the name sentence_embedding.

    Raises:
        CaptureError: not a model, cut off, weights missing, broken or outside of its directory, or an opset
            that cannot be raised.
    """
    model = _read(path)
    check_external(model, path)
    if model.functions:
        common.InlinePass()(model)
    model = raise_opset(model, path)
    _interface(model)
    _connected(model, path)
    shapes, symbols = name_dims(model, _ids(model))
    dtypes = {value.name or "": _dtype(value, path) for value in model.graph.inputs}
    check_finite(model, path)
    view = OnnxView(model)
    specs = input_specs(view, shapes, dtypes)
    symbols = bounds(model, view, specs, symbols)
    home = path.parent.parent if path.parent.name == "onnx" else path.parent
    config = read_json(home / "config.json") if (home / "config.json").is_file() else {}
    outputs = tuple(value.name or "" for value in model.graph.outputs)
    if task is None:
        task = "embedding" if "sentence_embedding" in outputs else task_of(config)
    files = tokenizer_files(home)
    info = {"source": str(path), **tokenizer_facts(files), **facts(config, task)}
    pad = pad_token_id(files)
    if pad is not None:
        info["pad_token_id"] = pad
    positions = info.pop("max_positions", None)
    if positions and "length" in symbols:
        low, high = symbols["length"]
        symbols["length"] = (low, max(low, min(positions, high)))
        info["max_length"] = min(symbols["length"][1], info.get("max_length", positions))
    return Program(model, "onnx", specs, outputs, task, symbols, files, info)


def _read(path: Path) -> ir.Model:
    if not path.is_file():
        raise CaptureError(f"there is no '{path}'.")
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError) as error:
        raise CaptureError(f"'{path}' is truncated or no ONNX model.") from error
    if not len(model.graph) or not model.graph.outputs:
        raise CaptureError(f"'{path}' holds no graph: truncated or no ONNX model.")
    newest = onnx.defs.onnx_opset_version()
    opset = model.graph.opset_imports.get("", 1)
    if opset > newest:
        raise CaptureError(f"'{path}' is of opset {opset}; the onnx installed knows them up to {newest}.")
    return model


def _interface(model: ir.Model) -> None:
    """Weights that old files list among the inputs are weights alone."""
    weights = set(model.graph.initializers.values())
    for value in [value for value in model.graph.inputs if value in weights]:
        model.graph.inputs.remove(value)
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.sort()


def _connected(model: ir.Model, path: Path) -> None:
    """Every value that a node reads is an input, a weight or another node's result; every operator exists."""
    known = {*model.graph.inputs, *model.graph.initializers.values()}
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value not in known:
                raise CaptureError(f"'{path}' is no valid model: nothing produces '{value.name}'.")
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            raise CaptureError(f"'{path}' is no valid model: ONNX has no operator {node.op_type}.")
        known.update(node.outputs)
    for value in model.graph.outputs:
        if value not in known:
            raise CaptureError(f"'{path}' is no valid model: nothing produces its output '{value.name}'.")


def _ids(model: ir.Model) -> list[ir.Value]:
    """Inputs that are ids or masks by type and rank: their axes are the batch and the length."""
    integers = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
    return [
        v for v in model.graph.inputs if v.dtype in integers and v.shape is not None and len(v.shape) == 2
    ]


def _dtype(value: ir.Value, path: Path) -> str:
    if value.dtype is None or value.shape is None:
        raise CaptureError(f"'{path}' does not say the type and shape of its input '{value.name}'.")
    return value.dtype.numpy().name
