"""What tests of structured pruning share."""

from __future__ import annotations

from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline


def run(text, program, **context):
    return Pipeline.parse(text).run(program, Context(**context))


def shapes(program):
    return {name: tuple(tensor.shape) for name, tensor in program.graph.state_dict().items()}
