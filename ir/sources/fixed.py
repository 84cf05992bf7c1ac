"""Why an axis of the example has one size in the trace: the module takes no other, or the trace doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..fx.export import Axes
from .eager import Eager, resized
from .trial import Shapes, run

_LARGEST = 6  # inputs with a first axis of one, of which every choice is tried


def widened(eager: Eager, feed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The example with several rows where it has one, in as many inputs as the module takes that in.

    Returns: the example, and a reason where the module takes no more than one row.
    """
    single = [name for name, tensor in feed.items() if tensor.dim() and tensor.shape[0] == 1]
    if not single:
        return dict(feed), ""
    taken = {size for tensor in feed.values() for size in tensor.shape}
    rows = next(size for size in range(2, 100) if size not in taken)
    fewest = 1 if len(single) <= _LARGEST else len(single)
    for count in range(len(single), fewest - 1, -1):
        for chosen in combinations(single, count):
            wide = {n: torch.cat([t] * rows) if n in chosen else t for n, t in feed.items()}
            found = run(eager, list(wide.values()))
            if found and any(t.dim() and t.shape[0] == rows for t in found):
                return wide, ""
    return dict(feed), "the module takes no second row"


GIVEN = "as it was given"  # of an axis that was not to be free


def unmoved(
    eager: Eager,
    feed: Mapping[str, Tensor],
    wished: Axes,
    shapes: Shapes,
    reasons: Mapping[str, str],
    refused: str,
    kind: str,
) -> tuple[dict[str, str], list[str]]:
    """A reason for every fixed axis, by "input.axis", and a warning for each that looked free: the module
    takes other sizes there.

    Args:
        wished: the axes that were to be free, by label. shapes: what they became. reasons: known ones.
        refused: why an axis of one row is fixed, where that was tried.
    """
    found = dict(reasons)
    warned: dict[str, list[str]] = {}
    groups: dict[str, list[tuple[str, int]]] = {}
    for name, shape in shapes.items():
        for axis, dim in enumerate(shape):
            if not isinstance(dim, int):
                continue
            key, label = f"{name}.{axis}", wished[name][axis]
            if isinstance(label, str):
                groups.setdefault(label, []).append((name, axis))
            elif key in reasons:
                groups.setdefault(key, []).append((name, axis))
            else:
                found[key] = GIVEN
    for places in groups.values():
        name, axis = places[0]
        size = feed[name].shape[axis]
        alike = [(n, a) for n, shape in shapes.items() for a, dim in enumerate(shape) if dim == size]
        free = any(_takes(eager, feed, choice) for choice in (places, alike))
        for n, a in places:
            if free:
                found.setdefault(f"{n}.{a}", "the trace computes with the example's size")
            elif size == 1 and a == 0 and refused:
                found[f"{n}.{a}"] = refused
            else:
                found[f"{n}.{a}"] = "the module takes no other size"
        if free:
            what = ", ".join(f"'{n}'" for n, _ in places)
            warned.setdefault(found[f"{name}.{axis}"], []).append(f"axis {axis} of {what} is fixed at {size}")
    return found, [
        f"{' and '.join(which)}, though {kind} takes others: {reason}; give an example of the size that"
        " calls have."
        for reason, which in warned.items()
    ]


def _takes(eager: Eager, feed: Mapping[str, Tensor], places: list[tuple[str, int]]) -> bool:
    """Whether the module runs with these axes longer, or shorter, by one."""
    for step in (1, -1):
        shapes = {name: list(tensor.shape) for name, tensor in feed.items()}
        for name, axis in places:
            shapes[name][axis] += step
        if all(all(shape) for shape in shapes.values()) and run(eager, resized(feed, shapes)) is not None:
            return True
    return False
