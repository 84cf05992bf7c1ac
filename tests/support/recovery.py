"""What tests of training that recovers quality share: options, data, shallower students, and distances."""

from __future__ import annotations

import numpy as np
import torch
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import feed, probes
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.prune.surgery.remove_layers import remove_layers
from graphwright.passes.recover.teaching.depth import layered

SHORT = {"steps": 12, "rate": 1e-3, "batch": 4, "precision": "float32"}  # says that it trains
QUICK = {"steps": 60, "rate": 3e-3, "batch": 4}  # says that it learns


def feeds_of(program, count=24, length=9):
    sizes = {"batch": 3, "length": length}
    return [feed(program, sizes, "ragged", np.random.default_rng([4, number])) for number in range(count)]


def shallow(program, *numbers):
    """The program without some of its layers, counted from 0."""
    twin = program.clone()
    layers = layered(twin)[0][0].layers
    remove_layers(twin, [layers[number] for number in numbers])
    return twin


def context(program, **settings):
    return Context(calibration=feeds_of(program), original=program, **settings)


def output(program, one):
    """The first output at real tokens, (tokens, hidden)."""
    with torch.no_grad():
        return program.graph(*arguments(program, one))[0][torch.from_numpy(one["attention_mask"] != 0)]


def agrees(program, other, rest):
    """Both give the same at real tokens of probes; where the passes of `rest` quantize, about the same, and
    where they cut or replace, what has the same shape."""
    changed = "prune" in rest or "product" in rest
    allowed = 0.15 if "quant" in rest else 2e-5
    probed = probes(program, 1)
    for a, b, one in zip(execute(program, probed), execute(other, probed), probed, strict=True):
        real = one["attention_mask"] != 0
        for output in program.outputs:
            assert a[output].shape == b[output].shape
            if not changed:
                np.testing.assert_allclose(b[output][real], a[output][real], rtol=0, atol=allowed)


def distance(program, other):
    """Mean squared difference of the outputs at real tokens."""
    return np.mean(
        [float((output(program, x) - output(other, x)).square().mean()) for x in feeds_of(program, 6, 8)]
    )
