"""prune-movement: scores learn by what shrinks weights, and zeros grow by the schedule."""

import numpy as np
import pytest
import torch
from graphwright.ir.fx.graph import attribute, set_attribute
from graphwright.ir.text import text
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.prune.prune_movement import PruneMovement, scheduled
from graphwright.passes.prune.prune_weights import PruneWeights
from graphwright.passes.prune.sparse.choice import kept as kept_of
from graphwright.passes.prune.sparse.matrices import WeightMasks, chosen, weight
from graphwright.passes.prune.sparse.patterns import Sparsity
from graphwright.passes.recover.training.own import own_parameters
from recovery import SHORT, feeds_of
from zoo import fx_program


def test_scores_learn_by_what_shrinks_weights():
    """Straight-through gradients against the paper's: dL/dS = dL/dW' * W and dL/dW = dL/dW' * M."""
    program = fx_program("bert").clone()
    own = own_parameters(program.graph)
    matrices, _ = chosen(program, Sparsity(), Context())
    plain = program.clone()
    masks = WeightMasks(program, matrices, scored=True)
    kept = kept_of(Sparsity(), {m.name: weight(program, m).abs() for m in matrices}, 0.5, "matrix")
    masks.set(kept)
    inputs = arguments(program, feeds_of(program, 1)[0])
    program.graph(*inputs)[0].square().sum().backward()
    name = matrices[3].name
    original = own[name].detach().clone()
    wide = torch.nn.Parameter(original * kept[name])
    for matrix in matrices:
        zeroed = torch.nn.Parameter(own[matrix.name].detach() * kept[matrix.name])
        wide = zeroed if matrix.name == name else wide
        set_attribute(plain.graph, matrix.name, zeroed)
    plain.graph(*inputs)[0].square().sum().backward()
    np.testing.assert_allclose(masks.scores[name].grad, wide.grad * original, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own[name].grad, wide.grad * kept[name], rtol=1e-4, atol=1e-6)
    masks.fold()
    assert text(program) == text(plain)


def test_sparsity_grows_from_nothing_to_all_of_it():
    shares = [scheduled(0.8, share) for share in np.linspace(0, 1, 101)]
    assert shares[0] == shares[10] == 0
    assert shares[71:] == pytest.approx([0.8] * 30)
    assert np.all(np.diff(shares) >= 0)
    assert scheduled(0.8, 0.4) == pytest.approx(0.8 * (1 - 0.5**3))


def test_movement_prunes_other_weights_than_magnitude():
    program = fx_program("bert")
    context = Context(calibration=feeds_of(program, 12), original=program)
    moved = PruneMovement(**SHORT).run(program.clone(), context).program
    small = PruneWeights().run(program.clone(), context).program
    name = "encoder.layer.0.intermediate.dense.weight"
    differ = ((attribute(moved.graph, name) == 0) != (attribute(small.graph, name) == 0)).float().mean()
    assert differ > 0.2
