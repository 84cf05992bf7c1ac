"""A program's residual stream put into fewer directions: every weight along it multiplied by one matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch.fx import Node

from ....ir.blocks.walk import bare
from ....ir.errors import PassError
from ....ir.fx.graph import attribute, prune, replace_tensor
from ....ir.program import Program
from ...common.memory import memory
from ...prune.surgery.cut import cut_groups
from ...simplify.folds.linear import like
from .streams import Rotatable


def narrow(program: Program, stream: Rotatable, matrix: np.ndarray) -> None:
    """Changes the basis of a stream, in place. Scales of its norms become ones and their shifts zeros, until
    somebody fits them.

    Args:
        stream: of this program, as it is.
        matrix: (features, fewer features), float64, orthonormal columns.

    Raises:
        PassError: a node whose sizes don't follow, named.
    """
    gm, (size, width) = program.graph, matrix.shape
    padded = torch.zeros(size, size, dtype=torch.float64)
    padded[:, :width] = torch.from_numpy(matrix)
    plain = {path_of(norm.weight): torch.ones_like for norm in stream.norms}
    plain |= {path_of(norm.bias): torch.zeros_like for norm in stream.norms}
    along: dict[str, list[int]] = {}
    for member in stream.group.members:
        if member.value.tensor is not None:
            along.setdefault(str(member.value.native.target), []).append(member.axis)
    made: dict[object, tuple[list[int], torch.Tensor]] = {}
    for path, axes in along.items():
        old, axes = attribute(gm, path), sorted(set(axes))
        done = made.setdefault(memory(old), (axes, _turned(old, axes, padded, plain.get(path))))
        if done[0] != axes:
            raise PassError(f"{path} is read along different axes by different layers")
        node = next(node for node in gm.graph.find_nodes(op="get_attr") if str(node.target) == path)
        replace_tensor(gm, node, done[1])
    if width < size:
        cut_groups(gm, [(stream.group, range(width, size))])
    prune(gm)
    gm.recompile()


def _turned(old: torch.Tensor, axes: list[int], padded: torch.Tensor, plain: object) -> torch.Tensor:
    if callable(plain):
        return like(old, plain(old.detach()))
    new = old.detach().double()
    for axis in axes:
        new = torch.tensordot(new, padded, dims=([axis], [0])).movedim(-1, axis)
    return like(old, new)


def path_of(value: object) -> str:
    """The parameter that a norm's scale or shift is; empty without one."""
    node = None if value is None else bare(value).native  # type: ignore[arg-type]
    return str(node.target) if isinstance(node, Node) else ""
