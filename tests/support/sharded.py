"""A short distillation whose first gradients are looked at, whole or in parts."""

from __future__ import annotations

import graphwright.passes.recover.training.state as state
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.training.workers import in_part
from recovery import context, shallow
from zoo import fx_program

RUNS = [{}, {"embeddings": True, "recompute": True, "clip": 1e-3}]


def whole(tensor):
    return tensor.full_tensor() if in_part(tensor) else tensor


def learned(clip=None, **options):
    """gradients: of the first step; clipped: to `clip`. shares: numbers that this process has of what learns.
    weights: after three steps."""
    program = fx_program("bert")
    found = {}
    real = state.clip

    def noted(parameters, most):
        if not found:
            found["gradients"] = [None if p.grad is None else whole(p.grad).clone() for p in parameters]
            found["shares"] = sum((p.to_local() if in_part(p) else p).numel() for p in parameters)
        real(parameters, clip or most)
        if "clipped" not in found:
            found["clipped"] = [None if p.grad is None else whole(p.grad).clone() for p in parameters]

    state.clip = noted
    try:
        one = Distill(steps=3, rate=3e-3, batch=4, precision="float32", **options)
        run = Pipeline([one]).run(shallow(program, 0), context(program))
    finally:
        state.clip = real
    assert run.ok, run.steps[0].error
    found["weights"] = {name: p.detach().clone() for name, p in run.program.graph.named_parameters()}
    return found
