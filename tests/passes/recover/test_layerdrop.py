"""layerdrop: a program trained with layers left out loses less without one."""

import numpy as np
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.layerdrop import Layerdrop
from graphwright.passes.recover.teaching.depth import layered
from recovery import QUICK, context, distance, shallow
from zoo import fx_program


def test_a_program_trained_with_layers_left_out_loses_less_without_one(chosen):
    program = fx_program("bert")
    options = {**QUICK, "steps": 150, "drop": 0.5}
    run = Pipeline([Layerdrop(**options)]).run(program, context(program))
    assert run.ok, run.steps[0].error
    assert len(layered(run.program)[0][0].layers) == 2
    assert 0.35 < np.mean([none for _, none, _ in chosen]) < 0.65
    for number in (0, 1):
        assert (
            distance(program, shallow(run.program, number)) < distance(program, shallow(program, number)) / 2
        )
