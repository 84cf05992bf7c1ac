"""Whether a program can learn from another."""

from __future__ import annotations

from ....ir.errors import PassError
from ....ir.program import Program


def alike(teacher: Program, student: Program, widths: bool = True) -> None:
    """Refuses a teacher whose outputs the student's cannot be compared with.

    Args:
        widths: the last axes must be of one size, which they need not be where the outputs are vectors.

    Raises:
        PassError: names what differs.
    """
    mend = "give the program that this one was made from as Context(original=...)"
    for what in ("inputs", "outputs"):
        one, other = (
            ", ".join(getattr(each, "name", each) for each in getattr(program, what))
            for program in (teacher, student)
        )
        if one != other:
            raise PassError(f"teacher and student do not line up: the {what} are {one} and {other}; {mend}")
    for name, one, other in zip(teacher.outputs, *map(_output_shapes, (teacher, student)), strict=True):
        vectors = student.task in ("embedding", "features")
        if (one[-1:] != other[-1:] and (widths or not vectors)) or len(one) != len(other):
            raise PassError(
                f"teacher and student do not line up: the output '{name}' is {one} and {other}; {mend}"
            )


def _output_shapes(program: Program) -> list[tuple[int | str, ...]]:
    """Of every output; a free size is "any"."""
    import torch

    nodes = torch.utils._pytree.tree_leaves(program.graph.graph.output_node().args)
    return [tuple(d if isinstance(d, int) else "any" for d in node.meta["val"].shape) for node in nodes]
