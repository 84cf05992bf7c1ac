"""Blocks: what a Transformer is made of, recognised by structure in both dialects."""

from __future__ import annotations

from typing import Any

from ..program import Program
from ..view import View, view
from .attention import attentions
from .base import Blocks
from .feed_forward import feed_forwards
from .linear import linears
from .norm import norms
from .walk import Statics

__all__ = ["Blocks", "recognise"]


def recognise(program: Program | View | Any) -> Blocks:
    """The blocks of a program, or of a view over one, and everything that looked like one, with reasons.

    Linear in the size of the graph. No block is found twice, and no name is looked at.
    """
    graph: View = view(program) if isinstance(program, Program) else program
    static = Statics()
    linear = linears(graph, static)
    norm, missed = norms(graph, static)
    attention, more = attentions(graph, static, linear, norm)
    missed += more
    feed_forward, more = feed_forwards(graph, linear)
    missed += more
    return Blocks(
        attention=tuple(attention.values()),
        feed_forward=tuple(feed_forward.values()),
        norm=tuple(norm.values()),
        linear=tuple(linear.values()),
        missed=tuple(missed),
    )
