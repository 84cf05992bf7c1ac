"""An nn.Module with example inputs, traced by torch.export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError
from ..fx.export import Axes
from ..fx.graph import FxView, prune, to_numpy
from ..fx.in_float32 import UNKNOWN, in_float32, own_precision
from ..fx.outputs import renamed
from ..fx.untouched import attributes_kept
from ..inputs.positions import longest
from ..inputs.roles import input_specs
from ..program import Program, Task
from ..spec import InputSpec
from .arguments import arguments
from .dropout import record_rates
from .eager import Eager, shifted
from .fixed import widened
from .state import judged
from .trace import traced

_EPSILON = torch.finfo(torch.float32).eps


def from_module(
    module: nn.Module,
    inputs: Any,
    task: Task | None = None,
    info: Mapping[str, Any] | None = None,
    axes: Axes | None = None,
) -> Program:
    """Traces a module in evaluation mode and checks the trace at other sizes and values than the example's.

    The module and the example's tensors are afterwards as they were, also when it cannot be traced.

    Args:
        module: any module whose forward takes tensors and gives tensors, in whatever containers.
        inputs: example tensors by parameter name, or in the order of forward's parameters. Axes of equal
            size in inputs of one shape become one symbol.
        task: what the outputs are, when the caller knows.
        info: facts to record.
        axes: which axes are fixed and which equal, as `export` takes it; by default all that may differ do.

    Raises:
        CaptureError: inputs missing or unusable, or the module cannot be traced faithfully.
    """
    module = unwrapped(module)
    given = arguments(module, inputs)
    _finite(module)
    eager, kind = Eager(module, given.call), type(module).__name__
    with attributes_kept(module):
        module.eval()
        written, changed = judged(eager, given.tensors)
        feed, refused = widened(eager, given.tensors) if axes is None else (dict(given.tensors), "")
        found = traced(eager, feed, axes, written, refused)
        record_rates(eager, found.graph, list(found.feed.values()))
        prune(found.graph)  # only now: torch takes a dropout for an effect, and rates go by their order
    shapes = found.shapes
    graph, example, computed = _in_float32(kind, found.graph, found.feed)
    bare = tuple(InputSpec(name, _dtype(tensor), shapes[name]) for name, tensor in example.items())
    specs = input_specs(
        FxView(graph, bare),
        shapes,
        {spec.name: spec.dtype for spec in bare},
        {name: to_numpy(tensor) for name, tensor in example.items()},
    )
    symbols, reasons = dict(found.symbols), dict(found.reasons)
    for symbol, bound in longest(graph, specs, example).items():
        low, high = symbols[symbol]
        if bound < high:
            symbols[symbol], reasons[symbol] = (low, bound), f"a table of positions ends at {bound}"
    facts: dict[str, Any] = {"source": kind, **(info or {})}
    notes = [*found.notes, *_written(kind, written, changed), *computed]
    notes += [f"'{name}' stays {value!r}, as in the example." for name, value in given.fixed.items()]
    names = renamed(found.outputs, example)
    notes += [f"the output '{a}' is called '{b}', as '{a}' is an input." for a, b in names.items() if a != b]
    facts["sizes"] = {
        "reasons": reasons,
        "outputs": {names[name]: shape for name, shape in found.output_shapes.items()},
    }
    if notes:
        facts["notes"] = notes
    if found.dropped:
        facts["dropped_outputs"] = list(found.dropped)
    return Program(graph, "fx", specs, tuple(names.values()), task or "features", symbols, {}, facts)


def _in_float32(
    kind: str, graph: torch.fx.GraphModule, feed: Mapping[str, Tensor]
) -> tuple[torch.fx.GraphModule, Mapping[str, Tensor], list[str]]:
    """The trace, computing in float32 where it doesn't, its example likewise, and what there is to say of it.

    Raises:
        CaptureError: in float32 it computes something else.
    """
    own = own_precision(graph)
    if own is None:
        return graph, feed, []
    wide = in_float32(graph, own)
    cast = {n: t.float() if t.dtype == own and own in UNKNOWN else t for n, t in feed.items()}
    with torch.no_grad():
        before, after = graph(*feed.values()), wide(*cast.values())
    for a, b in zip(before, after, strict=True):
        if a.is_floating_point() and (moved := shifted(a, b)) > 64 * max(torch.finfo(own).eps, _EPSILON):
            raise CaptureError(
                f"{kind} computes in {_name(own)}, and in float32 something else: {moved:.2g} off."
            )
    given = "float32, as NumPy has no such type" if own in UNKNOWN else f"of the type {_name(own)}"
    return (
        wide,
        cast,
        [
            f"{kind} computes in {_name(own)}, for which runtimes lack operators: the program computes in "
            f"float32; what {kind} takes and gives in {_name(own)} is {given}."
        ],
    )


def _written(kind: str, inputs: list[str], state: list[str]) -> list[str]:
    """What a module writes to without its outputs depending on it, in sentences."""
    notes = [f"{kind} writes into its input '{name}'; the program leaves it as it is." for name in inputs]
    return notes + [
        f"{kind} writes to '{name}' when it runs; its outputs didn't change with that, so the program leaves"
        " it out."
        for name in state
    ]


def _finite(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            low, high = parameter.detach().aminmax()
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise CaptureError(f"the weight '{name}' holds NaN or infinity: the checkpoint is broken.")


def _dtype(tensor: Tensor) -> str:
    return _name(tensor.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def unwrapped(module: Any) -> nn.Module:
    """The module itself: without torch.compile's and DataParallel's shells.

    Raises:
        CaptureError: it is no module, scripted, or its tensors are on another device, or without data.
    """
    while isinstance(module, nn.Module) and not isinstance(module, torch.jit.ScriptModule):
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := module._modules.get("_orig_mod"), nn.Module):
            module = inner
        else:
            break
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise CaptureError(
            f"a {kind} is not a model: give an nn.Module, a directory, an .onnx or a .pt2 file."
        )
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f"its part '{name}'" if name else "it"
            raise CaptureError(
                f"{kind} cannot be traced, because {what} is TorchScript, which is no Python any more: give "
                "the module that was scripted."
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type == "meta":
            raise CaptureError(f"the weight '{name}' of {kind} is on the meta device: load its values first.")
        if tensor.device.type != "cpu":
            raise CaptureError(
                f"the weight '{name}' of {kind} is on {tensor.device}: move the module to the CPU."
            )
    return module
