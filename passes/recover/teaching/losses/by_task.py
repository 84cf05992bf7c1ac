"""Which terms at the outputs suit a program's task."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from .....ir.errors import PassError
from .....ir.program import Program
from ....common.outputs import over_ids
from ....manager.contract import Feed
from ...training.own import floating
from .base import Term
from .outputs import LABELS, HardLabels, Outputs, Similarity, SoftLabels
from .projections import Projections
from .readings import SAME, Reading


def at_outputs(
    teacher: Program,
    student: Program,
    feed: Feed,
    temperature: float = 2.0,
    output: float | None = None,
    similarity: float | None = None,
    soft: float | None = None,
    hard: float = 0.0,
    shared: Projections | None = None,
    reading: Reading = SAME,
) -> tuple[list[Term], list[str]]:
    """Terms by their weights, None as the task has it: soft labels where the outputs are logits, distance
    and, for sentences, similarity where they are vectors. With them, a sentence for what could not be had.

    Args:
        shared: matrices between widths of the student's and the teacher's vectors.
        reading: how both read a text. By two tokenizers, outputs with a number for each token, of a text or
            of a vocabulary, are left out.

    Raises:
        PassError: soft labels are wanted of outputs that are no logits.
    """
    given, made = floating(teacher), floating(student)
    notes: list[str] = []
    if not reading.alike:
        given, made, notes = _of_no_token(student, given, made)
    vectors = student.task in ("embedding", "features")
    output = float(vectors) if output is None else output
    similarity = float(student.task == "embedding") if similarity is None else similarity
    soft = float(not vectors) if soft is None else soft
    if soft and vectors:
        raise PassError("the outputs hold no logits, so there are no soft labels: leave soft out")
    found: list[Term] = []
    if output and made:
        term = Outputs(output, None, given, made, program=student, shared=shared or {})
        for one, other in zip(given, made, strict=True):
            widths = one.meta["val"].shape[-1], other.meta["val"].shape[-1]
            wider = term.shared.get(widths)
            if wider is None and widths[0] != widths[1]:
                raise PassError(
                    f"the output is {widths[1]} wide and the teacher's {widths[0]}, as no layers are, so "
                    "nothing joins them: give output a weight of 0"
                )
            term.parameters |= {} if wider is None else {f"{wider.name}.up": wider.up}
        found.append(term)
    if similarity and made and made[0].meta["val"].dim() == 2:
        found.append(Similarity(similarity, None, given[:1], made[:1]))
    if soft and made:
        found.append(SoftLabels(soft, None, given, made, program=student, temperature=temperature))
    if hard and made and LABELS in feed:
        found.append(HardLabels(hard, None, given[:1], made[:1]))
    elif hard and made:
        notes.append("the data have no labels, so there are no hard labels to learn from")
    return found, notes


def _of_no_token(
    student: Program, given: Sequence[Node], made: Sequence[Node]
) -> tuple[list[Node], list[Node], list[str]]:
    """The outputs that two programs of other tokens have in common, and a sentence for each of the others."""
    kept: list[tuple[Node, Node]] = []
    notes = []
    for one, other in zip(given, made, strict=True):
        shape = other.meta["val"].shape
        words = over_ids(student, shape)
        if words or not all(type(node.meta["val"].shape[-1]) is int for node in (one, other)):
            of = "token of a vocabulary" if words else "place of a text"
            notes.append(
                f"{other.name} is not compared: it has a score for each {of}, and the teacher has others"
            )
        else:
            kept.append((one, other))
    return [one for one, _ in kept], [other for _, other in kept], notes
