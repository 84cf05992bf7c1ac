"""An nn.Module with example inputs, traced by torch.export."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError, did_you_mean
from ..export import Axes, Exported, default_axes, export
from ..fx import FxView, to_numpy
from ..positions import longest
from ..probe import cut
from ..program import InputSpec, Program, Task
from ..roles import input_specs
from .dropout import record_rates

_AGREE = 1e-4  # of max(1, |reference|): a trace that differs by more has baked in something of the example


def from_module(
    module: nn.Module,
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | None,
    task: Task | None = None,
    info: Mapping[str, Any] | None = None,
    axes: Axes | None = None,
) -> Program:
    """Traces a module in evaluation mode and checks the trace at other sizes than the example's.

    Args:
        module: any module whose forward takes tensors and gives tensors (one, a tuple or a mapping).
        inputs: example tensors by parameter name, or in the order of forward's parameters. Axes of equal
            size in inputs of one shape become one symbol. Where that fails, images keep their size.
        task: what the outputs are, when the caller knows.
        info: facts to record.
        axes: which axes are fixed and which equal, as `export` takes it; by default all that may differ do.

    Raises:
        CaptureError: inputs missing or unusable, or the module cannot be traced faithfully.
    """
    feed = _named(module, inputs)
    _finite(module)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        try:
            exported, graph, feed, specs, symbols = _traced(module, feed, axes)
        except CaptureError:
            fixed = _of_one_size(feed)
            if axes is not None or fixed is None:
                raise
            exported, graph, feed, specs, symbols = _traced(module, feed, fixed)
        record_rates(module, graph, dict(zip(exported.shapes, feed.values(), strict=True)))
    finally:
        for part, training in modes:
            part.training = training
    for symbol, bound in longest(graph, specs, feed).items():
        symbols[symbol] = (symbols[symbol][0], min(symbols[symbol][1], bound))
    facts = {"source": type(module).__name__, **(info or {})}
    if exported.dropped:
        facts["dropped_outputs"] = list(exported.dropped)
    return Program(graph, "fx", specs, exported.outputs, task or "features", symbols, {}, facts)


def _traced(
    module: nn.Module, feed: Mapping[str, Tensor], axes: Axes | None
) -> tuple[
    Exported,
    torch.fx.GraphModule,
    dict[str, Tensor],
    tuple[InputSpec, ...],
    dict[str, tuple[int, int]],
]:
    """(the trace, its graph, the example by the graph's names, what the inputs are, the symbols' bounds)"""
    exported = export(module, feed, axes)
    graph = exported.graph_module()
    names = _name_placeholders(graph, list(feed))
    feed = dict(zip(names, feed.values(), strict=True))
    shapes = dict(zip(feed, exported.shapes.values(), strict=True))
    bare = tuple(InputSpec(name, _dtype(tensor), shapes[name]) for name, tensor in feed.items())
    examples = {name: to_numpy(tensor) for name, tensor in feed.items()}
    specs = input_specs(FxView(graph, bare), shapes, {spec.name: spec.dtype for spec in bare}, examples)
    return exported, graph, feed, specs, _verify(module, graph, exported, specs, feed)


def _of_one_size(feed: Mapping[str, Tensor]) -> Axes | None:
    """Axes with images, (batch, channels, height, width), fixed but for the batch; None without images. Code
    that resizes positions to an image often can't be traced for all sizes (DINOv2, SigLIP)."""
    images = {name for name, tensor in feed.items() if tensor.dim() == 4 and tensor.is_floating_point()}
    if not images:
        return None
    return {
        name: (labels[0], *feed[name].shape[1:]) if name in images else labels
        for name, labels in default_axes(feed).items()
    }


def _named(module: nn.Module, inputs: Mapping[str, Tensor] | Sequence[Tensor] | None) -> dict[str, Tensor]:
    if inputs is None:
        raise CaptureError(
            f"{type(module).__name__} is a module: give example inputs, capture(module, inputs={{...}})."
        )
    takes = inspect.signature(module.forward).parameters
    kind = type(module).__name__
    if not isinstance(inputs, Mapping):
        if len(inputs) > len(takes):
            raise CaptureError(f"{kind}.forward takes {', '.join(takes)}: {len(inputs)} inputs given.")
        inputs = dict(zip(takes, inputs, strict=False))
    if not inputs:
        raise CaptureError(f"{kind}.forward takes {', '.join(takes)}: no example input given.")
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    for name, value in inputs.items():
        if name not in takes and not anything:
            raise CaptureError(f"{kind}.forward has no input '{name}'{did_you_mean(name, takes)}")
        if not isinstance(value, Tensor):
            raise CaptureError(f"example input '{name}' is {type(value).__name__}: give a torch.Tensor.")
        if not value.numel():
            raise CaptureError(f"example input '{name}' is empty, of shape {tuple(value.shape)}.")
    return dict(inputs)


def _finite(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            low, high = parameter.detach().aminmax()
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise CaptureError(f"the weight '{name}' holds NaN or infinity: the checkpoint is broken.")


def _name_placeholders(graph: torch.fx.GraphModule, wished: list[str]) -> list[str]:
    """Gives the graph's parameters the inputs' own names where torch.export had to change them."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders, wished, strict=True):
        if name.isidentifier() and node.name != name:
            node._rename(name)
            node.target = node.name
    graph.recompile()
    return [node.name for node in placeholders]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _verify(
    module: nn.Module,
    graph: torch.fx.GraphModule,
    exported: Exported,
    specs: Sequence[InputSpec],
    feed: Mapping[str, Tensor],
) -> dict[str, tuple[int, int]]:
    """Runs the trace beside the module: at a smaller size it must agree, at size one it may turn out not to.

    Returns: the symbols' bounds, with 2 for the smallest size of an axis that cannot be one.
    """
    symbols = dict(exported.symbols)
    sizes = {d: feed[s.name].shape[a] for s in specs for a, d in enumerate(s.shape) if isinstance(d, str)}
    smaller = {symbol: max(2, symbols[symbol][0], size - 1) for symbol, size in sizes.items()}
    names = list(exported.shapes)
    if difference := _difference(module, graph, list(cut(specs, feed, smaller).values()), names):
        raise CaptureError(
            f"the trace of {type(module).__name__} disagrees with it at {smaller}: {difference}"
        )
    single = [symbol for symbol in sizes if symbols[symbol][0] == 1]
    ones = {**smaller, **dict.fromkeys(single, 1)}
    if _difference(module, graph, list(cut(specs, feed, ones).values()), names):
        for symbol in single:
            alone = {**smaller, symbol: 1}
            if _difference(module, graph, list(cut(specs, feed, alone).values()), names):
                symbols[symbol] = (2, symbols[symbol][1])
    return symbols


def _difference(
    module: nn.Module, graph: torch.fx.GraphModule, tensors: list[Tensor], names: list[str]
) -> str:
    """In words, how the trace's outputs differ from the module's; empty when they agree."""
    with torch.no_grad():
        try:
            expected = _leaves(module(**dict(zip(names, tensors, strict=True))))
            got = graph(*tensors)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            return str(error).split("\n")[0]
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            return f"shape {tuple(b.shape)} instead of {tuple(a.shape)}"
        scaled = (a - b).abs() / a.abs().clamp(min=1) if a.is_floating_point() else (a != b).float()
        if float(scaled.nan_to_num(0).amax() if scaled.numel() else 0) > _AGREE or not torch.equal(
            a.isnan(), b.isnan()
        ):
            return f"values differ by {float(scaled.nan_to_num(torch.inf).amax()):.2g}"
    return ""


def _leaves(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output
    return [
        leaf
        for value in values
        for leaf in torch.utils._pytree.tree_leaves(value)
        if isinstance(leaf, Tensor)
    ]
