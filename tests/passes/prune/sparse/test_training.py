"""What trains zeros, by movement or by tickets, ends in a plain graph that has them."""

from dataclasses import replace

import pytest
from graphwright.ir.blocks import recognise
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.lottery_ticket import LotteryTicket
from graphwright.passes.prune.prune_movement import PruneMovement
from graphwright.passes.prune.prune_weights import PruneWeights
from recovery import SHORT, feeds_of
from zoo import fx_program


@pytest.mark.parametrize("pass_", [PruneMovement(**SHORT), LotteryTicket(**SHORT, rounds=2, rewind=3)])
def test_training_ends_in_a_plain_graph_with_zeros(pass_):
    program = fx_program("bert")
    before = program.fingerprint()
    context = Context(calibration=feeds_of(program, 12), original=program)
    run = Pipeline([pass_, replace(PruneWeights(), sparsity=0.5)]).run(program, context)
    assert run.ok, [step.error for step in run.steps]
    assert program.fingerprint() == before
    assert run.steps[0].statistics["zeros"] == 0.5
    assert run.steps[1].status == "no change"  # the zeros are half of each matrix already
    assert {n for n, _ in run.program.graph.named_parameters()} == {
        n for n, _ in program.graph.named_parameters()
    }
    assert recognise(view(run.program)).summary() == recognise(view(program)).summary()
