"""Whether a program can learn from another."""

from __future__ import annotations

from ....ir.errors import PassError
from ....ir.program import Program, Task
from ...common.outputs import over_ids
from ...common.texts import read_alike

_VECTORS: frozenset[Task] = frozenset({"embedding", "features"})


def alike(teacher: Program, student: Program, widths: bool = True, ids: bool = True) -> None:
    """Refuses a teacher whose outputs the student's cannot be compared with.

    Args:
        widths: the last axes must be of one size, which they need not be where the outputs are vectors.
        ids: the same ids must mean the same to both. Where they need not, outputs may be over other tokens.

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
    other_ids = not read_alike(teacher, student)
    if other_ids and ids:
        raise PassError(
            "the teacher reads texts by another tokenizer than the student, so no feed is both's: put this "
            "before transfer-vocabulary, or use distill, which reads texts for each"
        )
    for name, one, other in zip(teacher.outputs, *map(_output_shapes, (teacher, student)), strict=True):
        vectors = not widths and student.task in _VECTORS
        over = [over_ids(program, shape) for program, shape in ((teacher, one), (student, other))]
        free = vectors or (other_ids and all(over))
        if (one[-1:] != other[-1:] and not free) or len(one) != len(other):
            raise PassError(
                f"teacher and student do not line up: the output '{name}' is {one} and {other}; {mend}"
            )


def _output_shapes(program: Program) -> list[tuple[int | str, ...]]:
    """Of every output; a free size is "any"."""
    import torch

    nodes = torch.utils._pytree.tree_leaves(program.graph.graph.output_node().args)
    return [tuple(d if isinstance(d, int) else "any" for d in node.meta["val"].shape) for node in nodes]
