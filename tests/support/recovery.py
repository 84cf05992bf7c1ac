"""What tests of training that recovers quality share: data, and students with fewer layers."""

from __future__ import annotations

import numpy as np
from graphwright.ir.inputs.probe import feed
from graphwright.passes.manager.contract import Context
from graphwright.passes.prune.surgery.remove_layers import remove_layers
from graphwright.passes.recover.teaching.depth import layered


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
