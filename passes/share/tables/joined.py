"""Two tables of an fx program made one."""

from __future__ import annotations

from typing import Literal

import torch

from ....ir.fx.graph import attribute, call, prune, set_attribute
from ....ir.program import Program
from ...common.fx_weights import Matrix
from .tied import tie

aten = torch.ops.aten


def join(
    program: Program, one: Matrix, other: Matrix, init: Literal["equal", "input", "output", "mean"]
) -> str:
    """Lets what reads the second table read the first, in place; returns their names.

    Args:
        one, other: of one size as (rows, columns), of this program. init: whose numbers it has.
    """
    gm = program.graph
    name = one.name
    if init in ("output", "mean"):
        old, new = one.numbers().double(), other.numbers().double()
        value = new if init == "output" else (old + new) / 2
        was = attribute(gm, name)
        stored = (value.T if one.turned else value).reshape(was.shape).to(was.dtype).contiguous()
        one.tensor = torch.nn.Parameter(stored, was.requires_grad)
        for path in {str(node.target) for node in one.readers}:
            set_attribute(gm, path, one.tensor)
    if one.turned == other.turned:
        tie(program, [[name, other.name]], "first")
        one.readers[:] = [node for node in gm.graph.find_nodes(op="get_attr") if node.target == name]
    else:
        first = one.readers[0]
        for reader in other.readers:
            for user in list(reader.users):
                if user < first:
                    user.prepend(first)
                turned = call(gm.graph, aten.permute.default, first, [1, 0], before=user)
                user.replace_input_with(reader, turned)
        prune(gm)
    return f"{one.name} = {other.name}"
