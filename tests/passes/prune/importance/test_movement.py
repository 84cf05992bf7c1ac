"""Movement scores: they say which units training keeps, and leave weights that fit without the others."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.fx.graph import attribute, replace_tensor
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.importance.movement import Scores, movement
from graphwright.passes.prune.surgery.units import units


def context(name, count=12, **options):
    case = zoo.ARCHITECTURES[name]
    feeds = [{k: v.numpy() for k, v in case.inputs(4, 8, seed=i).items()} for i in range(count)]
    return Context(calibration=feeds, **options)


def loud(program, quiet):
    """A clone of bert in which heads `quiet`, by layer, add next to nothing."""
    program = program.clone()
    nodes = {node.name: node for node in program.graph.graph.nodes}
    for one in units(program)[::2]:
        weight = nodes[one.output.weight]
        tensor = attribute(program.graph, weight.target).detach().clone() * 4
        for unit in quiet[one.layer]:
            tensor[:, one.positions(unit)] *= 0.01
        replace_tensor(program.graph, weight, torch.nn.Parameter(tensor))
    return program


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("method", ["movement", "movement-soft"])
def test_heads_that_add_next_to_nothing_are_the_ones_that_go(method, seed):
    quiet = {0: [0, 1, 2], 1: [3]}
    program = loud(zoo.fx_program("bert"), quiet)
    found = units(program)[::2]
    work = program.clone()
    given = context("bert", original=program, seed=seed)
    scores = movement(work, found, 0.5, "model", method == "movement-soft", 150, 1e-5, given)
    ranked = sorted((each[u], i, u) for i, each in enumerate(scores) for u in range(4))[:4]
    assert {(i, u) for _, i, u in ranked} == {(0, 0), (0, 1), (0, 2), (1, 3)}


def test_hard_masks_are_of_the_highest_scores_and_learn_from_gradients():
    """Off units too: 1 and 3 have gradients, of root mean square sqrt((9 + 1) / 5)."""
    scores = Scores([3, 2], "model", soft=False, seed=0)
    scores.values = [np.array([3.0, 1, 2]), np.array([0.0, 9])]
    masks = scores.masks(0.4)
    assert [mask.tolist() for mask in masks] == [[1, 0, 1], [0, 1]]
    (3 * masks[0][1] - masks[1][0]).backward()
    scores.masks(0.4)
    np.testing.assert_allclose(scores.values[0], [3, 1 - 0.03 / 2**0.5, 2])
    np.testing.assert_allclose(scores.values[1], [0.01 / 2**0.5, 9])


def test_a_gradient_far_below_those_before_it_moves_scores_as_little():
    """Mean square 1 a step, then 0.0001: the running mean is (0.99 * 1 + 0.0001) / 1.99."""
    scores = Scores([2], "model", soft=False, seed=0)
    scores.values = [np.array([3.0, 2])]
    for size, fallen in ((1, 0.01), (0.01, 0.0001 / np.sqrt(0.9901 / 1.99))):
        before = scores.values[0].copy()
        (size * scores.masks(0.0)[0].sum()).backward()
        scores.masks(0.0)
        scores._seen = []
        np.testing.assert_allclose(scores.values[0], before - fallen, rtol=1e-9)


def test_soft_masks_are_of_scores_above_zero_which_fall_while_too_many_are_on():
    scores = Scores([2, 2], "model", soft=True, seed=0)
    scores.values = [np.array([0.3, -0.1]), np.array([0.2, 0.0])]
    for off, fallen in ((0.6, 0.01), (0.4, 0.0)):
        before = [values.copy() for values in scores.values]
        masks = scores.masks(off)
        assert [mask.tolist() for mask in masks] == [[1, 0], [1, 0]]
        sum(mask.sum() * 0 for mask in masks).backward()
        scores.masks(off)
        for a, b in zip(scores.values, before, strict=True):
            np.testing.assert_allclose(a, b - fallen)


def test_the_weights_that_are_left_were_trained_and_the_program_before_was_not():
    program = zoo.fx_program("bert")
    before = program.fingerprint()
    text = "prune-heads{importance=movement,steps=5,rate=0.001,ratio=0.5}"
    done = Pipeline.parse(text).run(program, context("bert"))
    assert done.ok
    assert sum(a.heads for a in recognise(view(done.program)).attention) == 4
    old, new = (p.graph.state_dict()["encoder.layer.0.output.dense.weight"] for p in (program, done.program))
    assert not np.array_equal(old, new)
    assert program.fingerprint() == before


def test_it_needs_the_captured_model():
    with pytest.raises(PipelineError, match="calibration data"):
        Pipeline.parse("prune-heads{importance=movement}").run(zoo.fx_program("bert"))


@pytest.mark.parametrize("bad", ["steps=0", "rate=0.0"])
def test_training_that_cannot_move_is_refused(bad):
    with pytest.raises(PipelineError):
        Pipeline.parse(f"prune-ffn{{importance=movement,{bad}}}")


def test_a_teacher_of_other_outputs_is_refused():
    done = Pipeline.parse("prune-heads{importance=movement}").run(
        zoo.fx_program("bert"), context("bert", original=zoo.fx_program("llama"))
    )
    assert isinstance(done.steps[0].error, PassError)
    assert "line up" in str(done.steps[0].error)
