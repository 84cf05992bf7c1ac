"""Which layer of the teacher teaches which of the student: layers by structure, and the map between them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....ir.blocks import recognise
from ....ir.blocks.base import Attention
from ....ir.blocks.stream import Stream, StreamLayer, streams
from ....ir.errors import PassError, PipelineError
from ....ir.program import Program
from ....ir.view import view

Pairs = list[tuple[int, int]]


def layered(program: Program) -> tuple[list[Stream], list[str]]:
    """The program's layers by stream, and a sentence for each that stands in none."""
    seen = view(program)
    return streams(seen, recognise(seen))


def one_stream(program: Program, name: str) -> Stream:
    """The layers of a program that has one stack of them.

    Raises:
        PassError: there are none, or several stacks.
    """
    found, notes = layered(program)
    if len(found) != 1:
        why = f"{len(found)} stacks" if found else "; ".join(["no layers", *notes])
        raise PassError(f"{name} works on one stack of layers that follow each other, and here are {why}")
    return found[0]


def exits(program: Program) -> list[str]:
    """Names of the nodes that end a layer."""
    return [layer.exit.native.name for stream in layered(program)[0] for layer in stream.layers]


def attention_of(layer: StreamLayer) -> Attention | None:
    """A layer's self-attention."""
    return next((block for block in layer.blocks if isinstance(block, Attention) and not block.cross), None)


def read(text: str) -> Pairs:
    """What "1:2,2:4" says: (student's, teacher's), from 0.

    Raises:
        ValueError: it says something else.
    """
    if not re.fullmatch(r"\s*\d+\s*:\s*\d+\s*(,\s*\d+\s*:\s*\d+\s*)*", text):
        raise ValueError(f"layers is {text!r}; write pairs of student:teacher, such as 1:2,2:4,3:6")
    pairs = [(int(a) - 1, int(b) - 1) for a, b in (pair.split(":") for pair in text.split(","))]
    if any(min(pair) < 0 for pair in pairs) or len({student for student, _ in pairs}) < len(pairs):
        raise ValueError(f"layers is {text!r}; layers count from 1, and each of the student's stands once")
    return sorted(pairs)


def shown(pairs: Pairs) -> str:
    return ",".join(f"{student + 1}:{teacher + 1}" for student, teacher in pairs)


def check(pairs: Pairs, students: int, teachers: int) -> None:
    """Refuses layers that are not there.

    Raises:
        PipelineError: names the layer and how many there are.
    """
    for whose, numbers, count in (
        ("student", [student for student, _ in pairs], students),
        ("teacher", [teacher for _, teacher in pairs], teachers),
    ):
        if numbers and max(numbers) >= count:
            raise PipelineError(
                f"layers names layer {max(numbers) + 1} of the {whose}, which has {count}: name others"
            )


def uniform(students: Sequence[Stream], teachers: Sequence[Stream]) -> Pairs:
    """Layer i of M is taught by layer round(i N / M) of N, from 1, stream by stream: the last by the last
    (TinyBERT: Jiao et al., 2020, arXiv:1909.10351, section 4.1). Nothing where streams don't correspond."""
    pairs: Pairs = []
    if len(students) != len(teachers):
        return pairs
    below_student = below_teacher = 0
    for student, teacher in zip(students, teachers, strict=True):
        m, n = len(student.layers), len(teacher.layers)
        pairs += [(below_student + i, below_teacher + max(0, round((i + 1) * n / m) - 1)) for i in range(m)]
        below_student, below_teacher = below_student + m, below_teacher + n
    return pairs
