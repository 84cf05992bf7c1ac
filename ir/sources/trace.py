"""A module traced with every axis free that can be: what won't be is tied to another, or fixed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import CaptureError
from ..fx.complex import in_reals
from ..fx.contraction import with_linears
from ..fx.export import Axes, Exported, default_axes, export
from ..fx.graph import TRACED
from .eager import Eager
from .fixed import unmoved
from .trial import Shapes, Trial

Changes = dict[int | str, tuple[str | None, str]]
_ROUNDS = 6  # of tracing anew with fewer free axes


@dataclass(frozen=True)
class Traced:
    """graph: the trace. feed: the example by input name. shapes: of the inputs, integers and symbols.
    output_shapes: likewise, an expression of symbols where a size is computed. symbols: their bounds.
    reasons: by symbol, or by "input.axis" for a fixed axis. notes: sentences for the user."""

    graph: torch.fx.GraphModule
    feed: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dropped: tuple[str, ...]
    shapes: Mapping[str, tuple[int | str, ...]]
    output_shapes: Mapping[str, list[int | str]]
    symbols: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def traced(
    eager: Eager,
    feed: Mapping[str, Tensor],
    axes: Axes | None = None,
    written: Collection[str] = (),
    refused: str = "",
) -> Traced:
    """Traces, and holds the trace against the module at other sizes, on values that differ from each other.

    Sizes that the module takes only together become one; an axis at whose other sizes the module fails, or
    the trace differs, is fixed.

    Args:
        axes: as `export` takes them. written: inputs that the module writes into. refused: why an axis of one
            row is fixed.

    Raises:
        CaptureError: no trace agrees with the module.
    """
    kind = type(eager.module).__name__
    reasons: dict[str, str] = {}
    exported, wished = _first(eager, feed, axes, written, reasons)
    for _ in range(_ROUNDS):
        graph = with_linears(in_reals(exported.graph_module()))
        trial = Trial(eager, feed, exported.shapes, graph, exported.symbols)
        changed, difference = _wanting(trial)
        if not changed:
            break
        changed |= _rest_of_images(feed, exported.shapes, changed)
        reasons |= {
            f"{name}.{axis}": changed[dim][1]
            for name, shape in exported.shapes.items()
            for axis, dim in enumerate(shape)
            if isinstance(dim, str) and dim in changed and not isinstance(changed[dim][0], str)
        }
        wished = {
            name: tuple(_revised(dim, changed, feed[name].shape[axis]) for axis, dim in enumerate(shape))
            for name, shape in exported.shapes.items()
        }
        exported = export(eager.module, feed, wished, eager.call, written)
    else:
        difference = difference or "its sizes depend on each other"
    if difference:
        raise CaptureError(f"the trace of {kind} disagrees with it: {difference}")
    symbols = _at_one(trial)
    for node in graph.graph.nodes:
        node.meta[TRACED] = True
    fixed, notes = unmoved(eager, feed, wished, exported.shapes, reasons, refused, kind)
    return Traced(
        graph,
        feed,
        exported.outputs,
        exported.dropped,
        exported.shapes,
        exported.output_shapes(),
        symbols,
        fixed,
        notes,
    )


def _first(
    eager: Eager,
    feed: Mapping[str, Tensor],
    axes: Axes | None,
    written: Collection[str],
    reasons: dict[str, str],
) -> tuple[Exported, Axes]:
    """The first trace that succeeds: of all axes free, of images of one size, of first axes free, of none."""
    tries = [axes] if axes is not None else list(_fewer(feed))
    failed: CaptureError | None = None
    for wished in tries:
        try:
            exported = export(eager.module, feed, wished, eager.call, written)
        except CaptureError as error:
            failed = failed or error
            continue
        if failed is not None:
            free = default_axes(feed)
            reasons |= {
                f"{name}.{axis}": "torch.export can't trace the module for other sizes"
                for name, shape in wished.items()
                for axis, dim in enumerate(shape)
                if isinstance(dim, int) and isinstance(free[name][axis], str)
            }
        return exported, wished
    assert failed is not None
    raise failed


def _fewer(feed: Mapping[str, Tensor]) -> Iterator[Axes]:
    free = default_axes(feed)
    seen = []
    images = {name for name, tensor in feed.items() if _image(tensor)}
    for fixed, kept in ((set(), 0), (images, 1), (set(feed), 1), (set(feed), 0)):
        axes = {
            name: (*labels[:kept], *feed[name].shape[kept:]) if name in fixed else labels
            for name, labels in free.items()
        }
        if axes not in seen:
            seen.append(axes)
            yield axes


def _image(tensor: Tensor) -> bool:
    """(batch, channels, height, width)."""
    return tensor.dim() == 4 and tensor.is_floating_point()


def _rest_of_images(feed: Mapping[str, Tensor], shapes: Shapes, changed: Changes) -> Changes:
    """An image with one axis fixed is of one size: code that resizes positions to it depends on all."""
    more: Changes = {}
    for name, shape in shapes.items():
        reason = next((changed[d][1] for d in shape[1:] if d in changed and changed[d][0] is None), "")
        if reason and _image(feed[name]):
            more |= {d: (None, reason) for d in shape[1:] if isinstance(d, str) and d not in changed}
    return more


def _wanting(trial: Trial) -> tuple[Changes, str]:
    """({symbol: (another symbol that it is to equal, or None for fixed; the reason)}, what is wrong)."""
    sizes = trial.sizes
    difference = trial.everywhere()
    if difference == "":
        return {}, ""
    changed: Changes = {}
    for symbol, size in sizes.items():
        if symbol in changed or (alone := trial.alone([symbol])) == "":
            continue
        like = [other for other, same in sizes.items() if same == size and other not in changed]
        if alone is None and len(like) > 1 and trial.alone(like) == "":
            changed |= dict.fromkeys(like[1:], (like[0], ""))
        elif alone is None:
            changed[symbol] = (None, "the module takes no other size")
        else:
            changed[symbol] = (None, f"at another size the trace differs from the module: {alone}")
    return changed, difference or ""


def _revised(dim: int | str, changed: Changes, size: int) -> int | str:
    if not isinstance(dim, str) or dim not in changed:
        return dim
    return changed[dim][0] or size


def _at_one(trial: Trial) -> dict[str, tuple[int, int]]:
    """The symbols' bounds, with 2 for the smallest size of an axis that cannot be one."""
    symbols, moved = dict(trial.symbols), trial.moved()
    single = [symbol for symbol in moved if symbols[symbol][0] == 1]
    if trial.at({**moved, **dict.fromkeys(single, 1)}) != "":
        for symbol in single:
            if trial.at({**moved, symbol: 1}) != "":
                symbols[symbol] = (2, symbols[symbol][1])
    return symbols
