"""Refitting a pruned program: what least squares can make up for it must, in the order of the graph."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.execute import execute
from graphwright.ir.fx.graph import attribute, set_attribute
from graphwright.passes.common.lockstep import Lockstep
from graphwright.passes.common.projections import projections
from graphwright.passes.prune.refit.refit import refit
from graphwright.passes.prune.surgery.cut import remove
from graphwright.passes.prune.surgery.units import units


def feeds(name, count=6):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(8, 12, seed=i).items()} for i in range(count)]


def distance(a, b, data):
    pairs = zip(execute(a, data), execute(b, data), strict=True)
    return max(float(np.abs(x[name] - y[name]).max()) for x, y in pairs for name in x)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_neurons_that_others_can_stand_for_are_made_up_for_entirely(name):
    """Half of each feed-forward's neurons doubled: without the doubles, and refitted, nothing is lost."""
    program = zoo.fx_program(name).clone()
    gm, found = program.graph, [one for one in units(program) if one.kind == "width"]
    going = {}
    for one in found:
        half = one.size // 2
        for group in one.groups:
            for member in group.members:
                if member.value.tensor is None or member.value.native.name == one.output.weight:
                    continue
                path = member.value.native.target
                new = attribute(gm, path).detach().clone()
                to, of = member.map.indices(range(half)), member.map.indices(range(half, 2 * half))
                new.index_copy_(
                    member.axis, torch.from_numpy(to), new.index_select(member.axis, torch.from_numpy(of))
                )
                set_attribute(gm, path, torch.nn.Parameter(new))
        going[one] = range(half)
    cut = program.clone()
    remove(cut, going)
    data = feeds(name)
    before = distance(cut, program, data)
    errors, _ = refit(cut, program, data, damping=1e-7)
    assert len(errors) == len(projections(program)[0])
    assert distance(cut, program, data) < min(2e-3, before / 20)


def test_later_layers_make_up_for_earlier_ones():
    """Refitted in order, on what pruned layers give, the end is nearer than each refitted as if alone."""
    program = zoo.fx_program("bert")
    data = feeds("bert", 12)
    found = units(program)
    cut = program.clone()
    remove(cut, {one: range(one.size // 2) for one in found})
    before = distance(cut, program, data)
    errors, notes = refit(cut, program, data)
    assert not notes
    assert all(after < first for first, after in errors.values())
    assert distance(cut, program, data) < before / 2


def test_masks_change_no_direction_and_weights_fit_better():
    program, data = zoo.fx_program("bert"), feeds("bert", 12)
    cut = program.clone()
    remove(cut, {one: range(one.size // 2) for one in units(program)})
    masked, free = cut.clone(), cut.clone()
    by_masks, _ = refit(masked, program, data, tune="masks")
    by_weights, _ = refit(free, program, data)
    first = projections(cut)[0][0]
    ratio = first.matrix(masked.graph) / first.matrix(cut.graph)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert by_weights[first.weight][1] < by_masks[first.weight][1] < by_masks[first.weight][0]


def test_the_program_that_it_was_cloned_from_keeps_its_weights():
    program, data = zoo.fx_program("bert"), feeds("bert", 2)
    fingerprint = program.fingerprint()
    cut = program.clone()
    remove(cut, {one: [0] for one in units(program)})
    refit(cut, program, data)
    assert program.fingerprint() == fingerprint


def test_shared_weights_stay_and_are_named():
    program, data = zoo.fx_program("albert"), feeds("albert", 2)
    errors, notes = refit(program.clone(), program, data)
    assert errors == {}
    assert all("keeps its weights" in note and "serves other layers too" in note for note in notes)


@pytest.mark.parametrize("name", ["bert", "t5", "llama"])
def test_a_program_in_step_gives_what_it_gives_at_once(name):
    program, data = zoo.fx_program(name), feeds(name, 3)
    stops = [one.operand for one in projections(program)[0]]
    run = Lockstep(program, data, stops)
    for node in stops:
        run.reached(node)
        run.let_go(node)
    fork = run.fork(2)
    for outputs in (run.outputs(), fork.outputs()):
        for got, expected in zip(outputs, execute(program, data), strict=False):
            np.testing.assert_array_equal(got[0].numpy(), next(iter(expected.values())))
    assert len(fork.outputs()) == 2
