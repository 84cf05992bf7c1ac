"""A .pt2 file of torch.export.save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import TensorArgument
from torch.fx.graph import CodeGen

from ..errors import CaptureError
from ..fx.functional import mutates
from ..fx.outputs import renamed
from ..host.quiet import quiet
from ..program import Program, Task
from .file_sizes import PT2, STATED, fixed_by_file
from .fixed import GIVEN
from .module import from_module
from .pt2_check import check


def from_pt2(path: Path, task: Task | None = None) -> Program:
    """Captures an exported program as it was saved; axes that were fixed then stay fixed.

    Raises:
        CaptureError: loading would unpickle or evaluate something, or it is no exported program of tensors.
    """
    if not path.is_file():
        raise CaptureError(f"there is no '{path}'.")
    check(path)
    if find_spec("transformers"):
        import transformers.modeling_outputs  # noqa: F401  registers its outputs, by which the file names them
    try:
        with quiet():
            program: Any = torch.export.load(path)
            if any(mutates(node) for node in program.graph.nodes):
                program = program.run_decompositions({})  # which says what is written to
    except (RuntimeError, ValueError, KeyError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(f"'{path}' cannot be loaded: {reason}") from error
    names = _inputs(path, program)
    axes = _axes(program, names)
    module = program.module(check_guards=False)
    module.graph.set_codegen(CodeGen())  # tensors in, a tuple of tensors out
    graph = torch.fx.GraphModule(module, module.graph)
    example = _example(program, axes)
    captured = from_module(graph, example, task, {"source": str(path)}, axes)
    return _called(_told(captured), _outputs(program))


def _told(program: Program) -> Program:
    """The program with what its file fixes, in words."""
    sizes, notes = program.info["sizes"], program.info.get("notes", ())
    given = {
        f"{spec.name}.{axis}": STATED
        for spec in program.inputs
        for axis in range(len(spec.shape))
        if sizes["reasons"].get(f"{spec.name}.{axis}") == GIVEN
    }
    reasons = {**sizes["reasons"], **given}
    notes = [*notes, *fixed_by_file(program.inputs, reasons, PT2)]
    info = {**program.info, "sizes": {**sizes, "reasons": reasons}}
    return replace(program, info=info | ({"notes": notes} if notes else {}))


def _called(program: Program, outputs: tuple[str, ...]) -> Program:
    """The program with its outputs under the names that the file has."""
    names = tuple(renamed(outputs, [spec.name for spec in program.inputs]).values())
    sizes = program.info["sizes"]
    shapes = dict(zip(names, sizes["outputs"].values(), strict=True))
    return replace(program, outputs=names, info={**program.info, "sizes": {**sizes, "outputs": shapes}})


def _axes(program: Any, names: list[str]) -> dict[str, tuple[int | str, ...]]:
    """What was fixed stays so; first axes that were not are one."""
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    return {
        name: tuple(
            int(size) if not isinstance(size, torch.SymInt) else "batch" if axis == 0 else str(size.node.expr)
            for axis, size in enumerate(values[name].shape)
        )
        for name in names
    }


def _example(program: Any, axes: Mapping[str, tuple[int | str, ...]]) -> dict[str, Tensor]:
    """Ones for integers and masks, noise for floats; a size of its own for every symbol."""
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    sizes: dict[str, int] = {}
    for shape in axes.values():
        for axis in shape:
            if isinstance(axis, str) and axis not in sizes:
                sizes[axis] = 3 if axis == "batch" else 7 + 2 * len(sizes)
    for constraint, bounds in program.range_constraints.items():
        if str(constraint) in sizes and bounds.upper.is_Integer:
            sizes[str(constraint)] = min(sizes[str(constraint)], int(bounds.upper))
    generator = torch.Generator().manual_seed(0)
    example = {}
    for name, shape in axes.items():
        numbers = [axis if isinstance(axis, int) else sizes[axis] for axis in shape]
        dtype = values[name].dtype
        if dtype.is_floating_point:
            example[name] = torch.randn(numbers, generator=generator).to(dtype)
        else:
            example[name] = torch.ones(numbers, dtype=dtype)
    return example


def _inputs(path: Path, program: Any) -> list[str]:
    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise CaptureError(
            f"'{path}' changes its own buffers or inputs when it runs: that cannot be captured."
        )
    users = [spec for spec in signature.input_specs if spec.kind.name == "USER_INPUT"]
    for spec in users:
        if not isinstance(spec.arg, TensorArgument):
            raise CaptureError(f"'{path}' takes '{spec.arg.name}', which is no tensor: export it without.")
    return [spec.arg.name for spec in users]


def _outputs(program: Any) -> tuple[str, ...]:
    """The keys of a mapping (or of one of transformers' outputs), else output, or output_0, output_1, ..."""
    count = len([spec for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"])
    context = program.call_spec.out_spec.context
    if (
        isinstance(context, list | tuple)
        and len(context) == count
        and all(isinstance(k, str) for k in context)
    ):
        return tuple(context)
    return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
