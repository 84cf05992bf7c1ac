"""An .onnx file, from any exporter, read without trusting it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from ..errors import CaptureError, GraphwrightError
from ..host.files import FAULTS
from ..inputs.roles import input_specs
from ..onnx.flattened import flattened
from ..onnx.graph import OnnxView, clone
from ..onnx.in_float32 import computes_in_bfloat16, in_float32
from ..onnx.precision import in_half
from ..program import Program, Task
from .as_given import compare_as_given, why_not
from .axis_names import name_axes, name_dims
from .branches import from_the_start, steered
from .config import facts, read_json, task_of
from .contrib import write_out_contrib
from .einsums import write_out_einsums
from .external import check_external, check_finite
from .file_sizes import described
from .inline import check_functions, inline
from .named_sizes import fix_sizes
from .onnx_graph import check_graph, check_operators
from .onnx_positions import bounds
from .onnx_proto import read_proto
from .opset import infer_sizes, raise_opset
from .tokenizer import pad_token_id, tokenizer_facts, tokenizer_files

_IN_FLOAT32 = (
    "computes in bfloat16, for which runtimes lack operators: the program computes in float32 with the same "
    "weights; what the file takes and gives in bfloat16 is float32, as NumPy has no such type"
)


def from_onnx(path: Path, task: Task | None = None) -> Program:
    """Captures an ONNX model.

    Weights in external files stay there, mapped when read. Functions are inlined, opsets before 18 raised,
    fused operators of ONNX Runtime and projections by Einsum written out; that is compared with the file as
    given. A file that computes in bfloat16 becomes a program that computes in float32.
    Axes without a name get one, and the axes of ids and masks are called "batch" and "length". A
    configuration and a tokenizer are taken from the same directory (or the one above one called "onnx").

    Args:
        path: the .onnx file.
        task: instead of what config.json records; without either, "features", or "embedding" when the model
            has an output of the name sentence_embedding.

    Raises:
        CaptureError: not a model, cut off, weights missing, broken or outside of its directory, or an opset
            that cannot be raised without changing what is computed.
    """
    try:
        return _captured(path, task)
    except GraphwrightError:
        raise
    except FAULTS as error:  # of a rule that met what no operator may be given
        if why := why_not(path):
            raise CaptureError(f"'{path}' is no valid model, as ONNX Runtime has it: {why}.") from error
        raise


def _captured(path: Path, task: Task | None) -> Program:
    model = _read(path)
    inlined = bool(model.functions)
    model = inline(model, path)
    check_graph(model, path)
    check_finite(model, path)
    given = in_float32(model) if computes_in_bfloat16(model) else None
    model = model if given is None else clone(given)
    raised = raise_opset(model, path)
    written = write_out_contrib(raised) + write_out_einsums(raised)
    converted = inlined or raised is not model or written > 0
    model = raised
    check_operators(model, path)
    _interface(model)
    name_axes(model)
    infer_sizes(model)
    named = {value.name or "": _shape(value) for value in model.graph.inputs}
    asked = fix_sizes(model)
    dtypes = {value.name or "": _dtype(value) for value in model.graph.inputs}
    as_named = {value.name or "": _shape(value) for value in model.graph.inputs}
    shapes, symbols = name_dims(model, input_specs(OnnxView(flattened(model)), as_named, dtypes))
    whole = flattened(model)
    view = OnnxView(whole)
    specs = input_specs(view, shapes, dtypes)
    symbols = bounds(whole, view, specs, symbols)
    told = described(model, specs, named, asked, symbols)
    home = path.parent.parent if path.parent.name == "onnx" else path.parent
    config = read_json(home / "config.json") if (home / "config.json").is_file() else {}
    outputs = tuple(value.name or "" for value in model.graph.outputs)
    if task is None:
        task = "embedding" if "sentence_embedding" in outputs else task_of(config)
    files = tokenizer_files(home)
    info = {"source": str(path), **tokenizer_facts(files), **facts(config, task), **told}
    pad = pad_token_id(files)
    if pad is not None:
        info["pad_token_id"] = pad
    if note := in_half(model) if given is None else _IN_FLOAT32:
        info["notes"] = [*info.get("notes", ()), f"{path.name}: {note}"]
    positions = info.pop("max_positions", None)
    if positions and "length" in symbols:
        low, high = symbols["length"]
        symbols["length"] = (low, max(low, min(positions, high)))
        if positions < high:
            told["sizes"]["reasons"]["length"] = f"config.json states {positions} positions"
        info["max_length"] = min(symbols["length"][1], info.get("max_length", positions))
    program = from_the_start(steered(Program(model, "onnx", specs, outputs, task, symbols, files, info)))
    if converted:
        compare_as_given(program, path, given)
    return program


def _read(path: Path) -> ir.Model:
    proto = read_proto(path)
    check_functions(proto, path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # whatever onnx_ir stumbles over
        reason = " ".join(str(error.__cause__ or error).split())
        raise CaptureError(f"'{path}' is no valid model: {reason}.") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    check_external(model, path)
    return model


def _interface(model: ir.Model) -> None:
    """Weights that old files list among the inputs are weights alone; what is not used is not imported."""
    weights = set(model.graph.initializers.values())
    for value in [value for value in model.graph.inputs if value in weights]:
        model.graph.inputs.remove(value)
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.sort()
    used = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
    for domain in [d for d in model.graph.opset_imports if d and d not in used]:
        del model.graph.opset_imports[domain]


def _dtype(value: ir.Value) -> str:
    assert value.dtype is not None  # check_graph refuses an input without
    return value.dtype.numpy().name


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape or ())
