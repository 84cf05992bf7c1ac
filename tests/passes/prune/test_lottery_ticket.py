"""lottery-ticket: every round goes back to the early weights, and no zero is taken back."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from graphwright.ir.fx.graph import attribute
from graphwright.passes.manager.contract import Context, Result
from graphwright.passes.prune.lottery_ticket import LotteryTicket
from graphwright.passes.prune.prune_weights import PruneWeights
from graphwright.passes.prune.sparse.matrices import WeightMasks, chosen
from graphwright.passes.prune.sparse.patterns import Sparsity
from recovery import SHORT, feeds_of
from zoo import fx_program


def test_a_ticket_goes_back_to_the_early_weights():
    """With a rate too small to move anything, what is left is what the program had, whatever the rounds."""
    program = fx_program("bert")
    context = Context(calibration=feeds_of(program, 12), original=program)
    options = {**SHORT, "steps": 2, "rate": 1e-12, "decay": 0.0}
    rounds = LotteryTicket(**options, rounds=3, rewind=1, sparsity=0.6).run(program.clone(), context)
    once = PruneWeights(sparsity=0.6).run(program.clone(), context)
    for name in (matrix.name for matrix in chosen(program, Sparsity(), Context())[0]):
        a, b = (attribute(each.program.graph, name) for each in (rounds, once))
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-9)


def test_every_round_starts_from_the_early_weights_and_takes_none_back(monkeypatch):
    """Training is stood in for by something that ranks the weights anew each time."""
    starts, tickets = [], []

    def learned(self, program, context, parameters, loss, batches, notes=()):
        starts.append({name: p.detach().clone() for name, p in parameters.items()})
        generator = torch.Generator().manual_seed(len(starts))
        for p in parameters.values():
            p.data.copy_(torch.randn(p.shape, generator=generator))
        return Result(program, True)

    whole = WeightMasks.set
    monkeypatch.setattr(WeightMasks, "set", lambda self, stay: (tickets.append(stay), whole(self, stay)))
    monkeypatch.setattr(LotteryTicket, "learned", learned)
    program = fx_program("bert")
    context = Context(calibration=feeds_of(program, 4), original=program)
    result = LotteryTicket(rounds=3, sparsity=0.875).run(program.clone(), context)
    assert len(starts) == 5  # the short training, three rounds, and the ticket's own
    for start in starts[2:]:
        assert all(torch.equal(p, starts[1][name]) for name, p in start.items())
    shares = [1 - torch.cat([m.flatten() for m in one.values()]).float().mean().item() for one in tickets]
    assert shares == pytest.approx([0.5, 0.75, 0.875], abs=1e-3)
    for one, after in pairwise(tickets):
        assert all((one[name] | ~after[name]).all() for name in one)
    assert result.statistics["zeros"] == pytest.approx(0.875, abs=1e-3)
