"""theseus: layers give way until the program stands alone, and what it refuses."""

import numpy as np
import pytest
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.fx.mode import trains
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.layerdrop import Layerdrop
from graphwright.passes.recover.theseus import Theseus
from recovery import QUICK, context, distance, shallow
from zoo import fx_program


def test_the_probability_grows_by_a_line_to_one():
    theseus = Theseus(first=0.2, until=0.5)
    assert [theseus.probability(share) for share in (0, 0.25, 0.5, 0.9)] == pytest.approx([0.2, 0.6, 1, 1])
    assert Theseus(first=0.3, until=0.0).probability(0.0) == 1


@pytest.mark.parametrize("options", [{}, {"recompute": True}])
def test_layers_give_way_until_the_program_stands_alone(chosen, options):
    program = fx_program("bert")
    before = program.fingerprint()
    student = shallow(program, 0)
    gradients = [p.grad for p in program.graph.parameters()]
    run = Pipeline([Theseus(**QUICK, **options)]).run(student, context(program))
    assert run.ok, run.steps[0].error
    assert "layers that replace those up to layers: 1:2" in run.steps[0].notes
    assert distance(program, run.program) < distance(program, student) / 2
    assert program.fingerprint() == before
    assert [p.grad for p in program.graph.parameters()] == gradients
    assert not trains(run.program.graph)
    if not options:
        mine = [own for share, _, own in chosen if share < 0.6]
        assert 0.4 < np.mean(mine) < 0.9
        assert all(own for share, _, own in chosen if share >= 0.6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Theseus(first=1.5), "first is 1.5, and it must be from 0 to 1"),
        (lambda: Theseus(layers="one"), "write pairs of student:teacher"),
        (lambda: Layerdrop(drop=1.0), "drop is 1, and a probability of leaving out is between 0 and 1"),
        (lambda: Layerdrop(drop=0.0), "drop is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_does_not_fit_is_refused_in_words():
    program = fx_program("bert")
    student = shallow(program, 0)
    with pytest.raises(PipelineError, match="layers is 1:1, and theseus replaces everything in order"):
        Theseus(layers="1:1").run(student, context(program))
    with pytest.raises(PipelineError, match="layers names layer 2 of the student, which has 1"):
        Theseus(layers="1:1,2:2").run(shallow(program, 0), context(program))
    both = fx_program("bart")
    for one in (Theseus(), Layerdrop()):
        with pytest.raises(PassError, match=f"{one.name} works on one stack .* and here are 2 stacks"):
            one.run(both.clone(), Context(calibration=probes(both, 0), original=both))
