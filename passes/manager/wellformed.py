"""Is the graph one at all? Every use has a producer before it, and the interface is the program's."""

from __future__ import annotations

from typing import Any

from ...ir.errors import ContractError
from ...ir.program import Program


def well_formed(program: Program) -> None:
    """Raise unless the graph is valid in its dialect and agrees with `program.inputs` and `outputs`.

    Raises:
        ContractError: names the first fault.
    """
    if program.dialect == "onnx":
        _onnx(program)
    else:
        _fx(program)


def _onnx(program: Program) -> None:
    import onnx_ir
    from onnx_ir.passes.common import CheckerPass

    graph = program.graph.graph
    _same("inputs", [value.name for value in graph.inputs], [spec.name for spec in program.inputs])
    _same("outputs", [value.name for value in graph.outputs], list(program.outputs))
    for value, spec in zip(graph.inputs, program.inputs, strict=True):
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape) if value.shape else None
        if shape is not None and any(
            isinstance(a, int) and a != b for a, b in zip(shape, spec.shape, strict=True)
        ):
            raise ContractError(
                f"the graph's input '{spec.name}' has shape {shape}, its spec says {spec.shape}"
            )
    known = {*graph.inputs, *graph.initializers.values()}
    names: set[str | None] = {value.name for value in known}
    for value in graph.initializers.values():
        _weight(value)
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in known:
                fault = (
                    "is used before it is computed"
                    if value.graph is graph
                    else "has no producer in the graph"
                )
                raise ContractError(f"the value '{value.name}', an input of {_named(node)}, {fault}")
        for value in node.outputs:
            if not value.name:
                if value.uses() or value.is_graph_output():
                    raise ContractError(f"{_named(node)} has an output without a name")
            elif value.name in names:
                raise ContractError(f"two values are called '{value.name}'")
            names.add(value.name)
        known.update(node.outputs)
    for value in graph.outputs:
        if value not in known:
            raise ContractError(f"the output '{value.name}' has no producer in the graph")
    try:
        CheckerPass()(onnx_ir.Model.clone(program.graph))  # a clone: the checker reorders initializers
    except Exception as error:
        cause = error.__cause__ or error
        raise ContractError(f"onnx.checker refuses the graph: {' '.join(str(cause).split())}") from error


def _weight(value: Any) -> None:
    import onnx_ir

    tensor = value.const_value
    if not isinstance(tensor, onnx_ir.TensorProtocol):
        raise ContractError(f"the weight '{value.name}' holds {type(tensor).__name__} instead of a tensor")
    if value.shape is not None and value.shape != tensor.shape:
        raise ContractError(f"the weight '{value.name}' has shape {tensor.shape}, annotated {value.shape}")
    if value.dtype is not None and value.dtype != tensor.dtype:
        raise ContractError(f"the weight '{value.name}' has type {tensor.dtype}, annotated {value.dtype}")


def _fx(program: Program) -> None:
    import torch

    graph = program.graph.graph
    try:
        graph.lint()
    except (RuntimeError, ValueError, AttributeError) as error:
        raise ContractError(f"torch.fx refuses the graph: {str(error).partition(chr(10))[0]}") from error
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != len(program.inputs):
        raise ContractError(f"the graph has {len(placeholders)} inputs, the program {len(program.inputs)}")
    returned = torch.utils._pytree.tree_leaves(next(n for n in graph.nodes if n.op == "output").args[0])
    if len(returned) != len(program.outputs):
        raise ContractError(f"the graph has {len(returned)} outputs, the program {len(program.outputs)}")


def _same(what: str, found: list[str | None], expected: list[str]) -> None:
    if found != expected:
        raise ContractError(f"the graph's {what} are {found}, the program's {expected}")


def _named(node: Any) -> str:
    return f"the {node.op_type} node '{node.name or node.outputs[0].name}'"
