"""What ONNX Runtime makes of a graph: the kernels that will run, after all of its own rewriting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..host.temporary import TemporaryFolder
from .execute import write
from .runtime import as_written

INTEGER = frozenset(
    "ConvInteger DynamicQuantizeMatMul MatMulInteger MatMulIntegerToFloat QAttention QGemm "
    "QLinearAdd QLinearConv QLinearMatMul QLinearMul QLinearSigmoid QLinearSoftmax".split()
)
"""Operators that compute on small integers (ONNX and com.microsoft)."""


@dataclass(frozen=True)
class Kernel:
    """One node of the optimised graph; values by name, "" for an absent one."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def kernels(model: Any) -> list[Kernel]:
    """The nodes of the main graph after ONNX Runtime's full optimisation for the CPU of this machine.

    Only the structure is looked at: large weights are not read.

    Args:
        model: onnx_ir.Model.
    """
    import onnxruntime

    options = as_written(onnxruntime.SessionOptions())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", "1")
    with TemporaryFolder() as folder:
        leave_optimised(options, Path(folder))
        path = write(model, Path(folder), lambda name, tensor, file: None)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return optimised(Path(folder))


def leave_optimised(options: Any, folder: Path) -> None:
    """Lets a session that is made with these options (onnxruntime.SessionOptions) leave its optimised graph
    in a folder."""
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "rest")
    options.optimized_model_filepath = str(folder / "optimised.onnx")


def optimised(folder: Path) -> list[Kernel]:
    """The nodes of the main graph that a session left in a folder."""
    import onnx_ir

    return [
        Kernel(
            node.op_type,
            node.domain,
            node.name or "",
            tuple(value.name or "" if value is not None else "" for value in node.inputs),
            tuple(value.name or "" for value in node.outputs),
        )
        for node in onnx_ir.load(folder / "optimised.onnx").graph
    ]
