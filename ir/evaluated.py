"""A program that computes as it will in deployment: nothing is dropped."""

from __future__ import annotations

from .fx.mode import set_mode, trains
from .program import Program


def evaluated(program: Program) -> Program:
    """An fx program in evaluation mode: itself, or a clone that shares its weights."""
    if not trains(program.graph):
        return program
    program = program.clone()
    set_mode(program.graph, training=False)
    return program
