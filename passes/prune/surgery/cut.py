"""Takes units out of an fx graph: weights are cut, sizes that operators state are restated.

Which positions go along which axes is what ir/ops/coupling.py says. Every shape is then computed anew and
must be the old one less those positions, so that an operator that states a size in a way not known here is
found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.errors import GraphwrightError, PassError
from ....ir.fx.graph import add_tensor, attribute, propagate, prune, replace_tensor
from ....ir.fx.operators import packet
from ....ir.ops.coupling import Group
from ....ir.program import Program
from ...common.memory import memory
from .sizes import Cuts, restate
from .units import Units
from .vanish import vanish


def remove(program: Program, chosen: Mapping[Units, Iterable[int]]) -> None:
    """Removes units, in place, from the program that they were found in or from a clone of it.

    Parameters keep their names. A block that loses all its units gives its output bias from then on, or
    nothing, and its weights go.

    Args:
        chosen: the numbers of the units that go.

    Raises:
        PassError: a node whose sizes don't follow, named, or a unit that is not there; the graph is half
            edited then.
    """
    going = {units: sorted(set(indices)) for units, indices in chosen.items()}
    for units, indices in going.items():
        if indices and not 0 <= indices[0] <= indices[-1] < units.size:
            raise PassError(f"{units.output.root} has units 0 to {units.size - 1}, not {indices[-1]}")
    partly = [(u, i) for u, i in going.items() if 0 < len(i) < u.size]
    cut_groups(program.graph, [(group, indices) for units, indices in partly for group in units.groups])
    for units, indices in going.items():
        if len(indices) == units.size:
            for output in units.outputs:
                vanish(program.graph, output)
    prune(program.graph)


def cut_groups(gm: GraphModule, going: Iterable[tuple[Group, Iterable[int]]]) -> None:
    """Removes units of coupled axes, by group, in place.

    Raises:
        PassError: as `remove`.
    """
    nodes = {node.name: node for node in gm.graph.nodes}
    cuts: Cuts = {}
    for group, indices in going:
        for member in group.members:
            native = member.value.native
            if isinstance(native, Node):
                positions = member.map.indices(list(indices)) if member.map.static else None
                _note(cuts.setdefault(nodes[native.name], {}), member.axis, positions)
    if not cuts:
        return
    _store_numbers(gm, cuts)
    before = {node: _shape(node) for node in gm.graph.nodes}
    _cut_tensors(gm, cuts)
    for node in cuts:
        restate(node, cuts)
    fault = None
    try:
        propagate(gm, cuts)
    except GraphwrightError as error:  # whose cause may stand before it
        fault = error
    for node, old in before.items():
        _check(node, old, cuts.get(node, {}))
    if fault is not None:
        raise fault
    gm.recompile()


def _note(axes: dict[int, np.ndarray | None], axis: int, positions: np.ndarray | None) -> None:
    """Adds positions to those that go along an axis; None: not known before the call."""
    known = axes.get(axis, np.empty(0, np.int64))
    axes[axis] = None if known is None or positions is None else np.union1d(known, positions)


def _store_numbers(gm: GraphModule, cuts: Cuts) -> None:
    """Ranges that count units (of heads, for ALiBi's slopes) become tensors, which can lose some of them."""
    for node in [node for node in cuts if packet(node) == "aten.arange"]:
        target: Any = node.target
        stored = add_tensor(gm, "numbers", target(*node.args, **node.kwargs), node)
        node.replace_all_uses_with(stored)
        gm.graph.erase_node(node)
        cuts[stored] = cuts.pop(node)


def _cut_tensors(gm: GraphModule, cuts: Cuts) -> None:
    """Smaller tensors under the same names; names of one tensor go on naming one."""
    smaller: dict[object, torch.Tensor] = {}
    done: set[str] = set()
    for node, axes in cuts.items():
        path = str(node.target)
        if node.op != "get_attr" or path in done:
            continue
        done.add(path)
        old = attribute(gm, path)
        key = memory(old)
        if key not in smaller:
            new = old.detach()
            for axis, gone in axes.items():
                assert gone is not None
                kept = np.setdiff1d(np.arange(new.shape[axis]), gone)
                new = new.index_select(axis, torch.from_numpy(kept))
            if isinstance(old, torch.nn.Parameter):
                new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            smaller[key] = new
        replace_tensor(gm, node, smaller[key])


def _shape(node: Node) -> tuple[object, ...] | None:
    shape = getattr(node.meta.get("val"), "shape", None)
    return None if shape is None else tuple(shape)


def _check(node: Node, old: tuple[object, ...] | None, axes: Mapping[int, np.ndarray | None]) -> None:
    new = _shape(node)
    if old is None or new is None:
        return
    for axis, (a, b) in enumerate(zip(old, new, strict=False)):
        gone = axes.get(axis, ())
        if isinstance(a, int) and gone is not None and (not isinstance(b, int) or b != a - len(gone)):
            raise PassError(
                f"axis {axis} of {node.name} ({node.target}) became {b} where {a - len(gone)} were due: "
                "what this operator does with sizes is not known"
            )
    if len(old) != len(new):
        raise PassError(f"{node.name} ({node.target}) has {len(new)} axes where it had {len(old)}")
