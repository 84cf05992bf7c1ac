"""What was converted on the way in, against the file as given, both in ONNX Runtime without optimisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..agreement import mismatch
from ..errors import CaptureError
from ..host.residency import release
from ..host.temporary import TemporaryFolder
from ..inputs.probe import Feed, probes
from ..onnx.execute import execute_onnx, write
from ..onnx.runtime import reason
from ..program import Program

SINGLE, HALF = 1e-4, 2e-2  # of max(1, the largest number of an output): conversions keep float rounding alone
_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
Outputs = Sequence[Mapping[str, np.ndarray]]


def compare_as_given(program: Program, path: Path, given: ir.Model | None = None) -> None:
    """Runs the file and the program on probes of several sizes and masks.

    Args:
        given: stands for the file where ONNX Runtime doesn't run it.

    Raises:
        CaptureError: an output differs (names the operator whose conversion changed it, where it can be
            told), or ONNX Runtime runs the file on no probe, so that nothing could be compared.
    """
    if given is None:
        _compare(program, path, path)
        return
    with TemporaryFolder() as folder:
        _compare(program, path, write(given, Path(folder), lambda name, tensor, file: tensor.tofile(file)))


def _compare(program: Program, path: Path, file: Path) -> None:
    """path: what the user calls the file that is run."""
    feeds, given, why = _run_file(file, program.outputs, probes(program, 0))
    release()
    if not feeds:
        raise CaptureError(
            f"'{path}' needs newer operators, and whether they compute the same cannot be checked: ONNX "
            f"Runtime does not run the file as it is ({why})."
        )
    limit = HALF if _narrow(program.graph) else SINGLE
    try:
        converted = execute_onnx(program.graph, program.outputs, feeds)
    except Exception as error:
        raise CaptureError(f"'{path}' was converted to what does not run: {reason(error)}") from error
    for feed, before, after in zip(feeds, given, converted, strict=True):
        for name in program.outputs:
            if (distance := apart(before[name], after[name])) > limit:
                where = _operator(file, program, feed, limit)
                how = f"by {distance:.2g} of its largest number" if np.isfinite(distance) else "in kind"
                raise CaptureError(
                    f"'{path}' cannot be converted to newer operators: {where}its output '{name}' would "
                    f"change {how}."
                )


def apart(before: np.ndarray, after: np.ndarray) -> float:
    """The largest difference, of max(1, the largest number); infinite where nothing excuses one."""
    if mismatch(before, after):
        return np.inf
    if before.dtype.kind not in "fV":
        return 0.0
    a, b = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(a)
    largest = max(1.0, float(np.abs(a[finite]).max(initial=0)))
    return float(np.abs(a[finite] - b[finite]).max(initial=0)) / largest


def _run_file(
    path: Path, outputs: Sequence[str], feeds: Sequence[Feed]
) -> tuple[list[Feed], list[dict[str, np.ndarray]], str]:
    """The feeds that the file takes, what it gives, and why it did not take the last one that it did not."""
    taken, results, why = [], [], ""
    try:
        session = _session(path)
    except Exception as error:
        return [], [], reason(error)
    for feed in feeds:
        try:
            found = session.run(list(outputs), dict(feed))
        except Exception as error:
            why = reason(error)
            continue
        taken.append(feed)
        results.append(dict(zip(outputs, found, strict=True)))
    return taken, results, why


def why_not(path: Path) -> str:
    """Why ONNX Runtime does not load a file; nothing where it does."""
    try:
        _session(path)
    except Exception as error:
        return reason(error)
    return ""


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.disable_prepacking", "1")  # mapped weights stay mapped
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _operator(path: Path, program: Program, feed: Feed, limit: float) -> str:
    """The first node of the file whose result the converted graph has, and gives another value for."""
    original = ir.load(path)
    both = [_values(original), _values(program.graph)]
    shared = [name for name in both[0] if name in both[1]]
    try:
        before, after = (_all(model, shared, feed) for model in (original, program.graph))
    except Exception:
        return ""
    for name in shared:
        if isinstance(before[name], np.ndarray) and apart(before[name], after[name]) > limit:
            node = both[0][name]
            return f"{node.op_type} ({node.name or name}) means something else there, and "
    return ""


def _values(model: ir.Model) -> dict[str, ir.Node]:
    """The main graph's results by name, each with the node that gives it, in order."""
    return {value.name: node for node in model.graph for value in node.outputs if value.name}


def _all(model: ir.Model, names: Sequence[str], feed: Feed) -> Mapping[str, np.ndarray]:
    twin = model.clone()
    have = {value.name for value in twin.graph.outputs}
    wanted = set(names) - have
    twin.graph.outputs.extend(v for node in twin.graph for v in node.outputs if v.name in wanted)
    (result,) = execute_onnx(twin, list(names), [feed])
    return result


def _narrow(model: ir.Model) -> bool:
    weights = (value.const_value for value in model.graph.initializers.values())
    return any(tensor is not None and tensor.dtype in _NARROW for tensor in weights)
