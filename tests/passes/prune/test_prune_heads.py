"""prune-heads: which heads go where layers share or differ, and what it refuses."""

import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.view import view
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.prune_heads import PruneHeads
from graphwright.passes.prune.surgery.units import units
from pruning import run
from zoo.handwritten import Clipped


def test_layers_with_the_same_weights_go_together():
    found = units(zoo.fx_program("albert"))
    assert [(one.kind, one.size, len(one.outputs)) for one in found] == [("heads", 4, 2), ("width", 72, 2)]
    program = run("prune-heads{importance=magnitude,ratio=0.5}", zoo.fx_program("albert")).program
    assert [a.heads for a in recognise(view(program)).attention] == [2, 2]
    (stack,) = recognise(view(program)).stack
    assert stack.shared


@pytest.mark.parametrize("name", ["t5", "mpnet"])
def test_layers_under_one_position_bias_lose_heads_of_their_own(name):
    done = run("prune-heads{importance=random,ratio=0.4}", zoo.fx_program(name), seed=4)
    assert done.ok
    counts = [a.heads for a in recognise(view(done.program)).attention]
    assert len(set(counts)) > 1
    again = run("prune-heads{importance=random,ratio=0.4}", done.program, seed=1)
    assert again.ok
    assert not again.steps[0].notes  # none of them has become unprunable
    assert sum(a.heads for a in recognise(view(again.program)).attention) < sum(counts)


def test_it_prunes_until_nothing_is_left():
    program = zoo.fx_program("bert")
    left = [8]
    for seed in range(20):
        if not recognise(view(program)).attention:
            break
        done = run("prune-heads{importance=random,ratio=0.6}", program, seed=seed)
        assert done.ok
        program = done.program
        left.append(sum(a.heads for a in recognise(view(program)).attention))
    assert left[-1] == 0 or left[-1] == left[-2] == 1  # 0.6 of one head is one head
    assert left == sorted(left, reverse=True)


def test_one_scope_takes_the_same_share_of_each_layer():
    done = run("prune-heads{importance=random,ratio=0.5,scope=layer}", zoo.fx_program("bert"))
    assert [a.heads for a in recognise(view(done.program)).attention] == [2, 2]
    assert done.steps[0].statistics["heads left by layer"] == "2 2"


def test_no_ratio_changes_nothing():
    done = run("prune-heads{importance=magnitude,ratio=0.0}", zoo.fx_program("bert"))
    assert done.ok
    assert done.steps[0].status == "no change"


@pytest.mark.parametrize("ratio", ["1.0", "1.5", "-0.1"])
def test_a_ratio_of_one_is_refused(ratio):
    with pytest.raises(PipelineError, match="at least 0 and below 1"):
        Pipeline.parse(f"prune-heads{{ratio={ratio}}}")


def test_data_are_asked_for_before_work_starts():
    with pytest.raises(PipelineError, match="calibration data"):
        run("prune-heads", zoo.fx_program("bert"))
    assert PruneHeads(importance="random").requires() == ()


def test_heads_that_are_not_recognised_are_named():
    done = run(
        "prune-heads{importance=random}", capture(Clipped().eval(), inputs={"x": torch.randn(2, 5, 12)})
    )
    assert isinstance(done.steps[0].error, PassError)
    assert "the scores come from clip" in str(done.steps[0].error)


def test_heads_that_an_output_depends_on_are_named():
    done = run("prune-heads{importance=random}", zoo.fx_program("squeezebert", "eager"))
    assert "an axis of the output" in str(done.steps[0].error)
