"""theseus and layerdrop: chains give what the graph gives, who stands in for whom, and that both learn."""

import numpy as np
import pytest
import torch
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.fx.mode import trains
from graphwright.ir.inputs.probe import probes
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.layerdrop import Layerdrop
from graphwright.passes.recover.teaching import chain as chains
from graphwright.passes.recover.teaching.chain import chain, frozen
from graphwright.passes.recover.teaching.depth import layered
from graphwright.passes.recover.theseus import Theseus
from recovery import context, feeds_of, shallow
from zoo import ARCHITECTURES, fx_program

QUICK = {"steps": 60, "rate": 3e-3, "batch": 4}
ONE_STACK = sorted(name for name, case in ARCHITECTURES.items() if name not in ("t5", "bart"))


def output(program, one):
    with torch.no_grad():
        return program.graph(*arguments(program, one))[0][torch.from_numpy(one["attention_mask"] != 0)]


def distance(program, other):
    """Mean squared difference of the outputs at real tokens."""
    return np.mean(
        [float((output(program, x) - output(other, x)).square().mean()) for x in feeds_of(program, 6, 8)]
    )


def cuts_of(program):
    layers = layered(program)[0][0].layers
    return [layers[0].entry.native.name, *(layer.exit.native.name for layer in layers)]


@pytest.mark.parametrize("name", ONE_STACK)
def test_the_links_of_a_chain_give_what_the_graph_gives(name):
    program = fx_program(name)
    names = cuts_of(program)
    graph = frozen(program.graph)
    assert not [p for p in graph.parameters() if p.requires_grad]
    for cut in (chain(program.graph, names), chain(graph, names)):
        assert len(cut.links) == len(names) - 1
        for one in probes(program, 0):
            inputs = arguments(program, one)
            with torch.no_grad():
                expected = torch.utils._pytree.tree_leaves(program.graph(*inputs))
                stream = cut.head(*inputs)
                for link in cut.links:
                    stream = link(stream, *inputs)
                found = torch.utils._pytree.tree_leaves(cut.tail(stream, *inputs))
            for a, b in zip(expected, found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_a_stream_that_is_read_past_a_cut_cannot_be_cut():
    program = fx_program("bert")
    names = cuts_of(program)
    with pytest.raises(PassError, match="past the layers between them"):
        chain(program.graph, [names[0], names[2], names[1]])


def test_the_probability_grows_by_a_line_to_one():
    theseus = Theseus(first=0.2, until=0.5)
    assert [theseus.probability(share) for share in (0, 0.25, 0.5, 0.9)] == pytest.approx([0.2, 0.6, 1, 1])
    assert Theseus(first=0.3, until=0.0).probability(0.0) == 1


@pytest.fixture
def chosen(monkeypatch):
    """What stood in for each link at each step: (share, number, module or None), in training."""
    seen = []
    through = chains.through

    def recording(program, terms, cut, choose):
        def noted(number, share):
            link = choose(number, share)
            if torch.is_grad_enabled():
                seen.append((share, link is None, link in list(cut.links)))
            return link

        return through(program, terms, cut, noted)

    monkeypatch.setattr(chains, "through", recording)
    return seen


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
