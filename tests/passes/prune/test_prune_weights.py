"""Zeros in weights: which, in what shape, what they take, and how training chooses them."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.fx.graph import attribute, set_attribute
from graphwright.ir.inputs.probe import feed, probes
from graphwright.ir.text import text
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context, Ratio, Result
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.lottery_ticket import LotteryTicket
from graphwright.passes.prune.prune_movement import PruneMovement, scheduled
from graphwright.passes.prune.prune_weights import PruneWeights
from graphwright.passes.prune.sparse.choice import kept as kept_of
from graphwright.passes.prune.sparse.matrices import Masks, chosen, weight
from graphwright.passes.prune.sparse.patterns import Pattern
from graphwright.passes.prune.sparse.stored import sizes
from graphwright.passes.recover.training.own import own_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from training import linear_program
from zoo import ARCHITECTURES, fx_program

SMALL = {"steps": 12, "rate": 1e-3, "batch": 4, "precision": "float32"}
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5))


def scores_of(shape, seed, distinct=True):
    rng = np.random.default_rng(seed)
    flat = rng.permutation(shape[0] * shape[1]) if distinct else rng.integers(0, 3, shape[0] * shape[1])
    return torch.from_numpy(flat.reshape(shape).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 9), st.booleans(), st.floats(0.01, 0.99))
def test_exactly_the_highest_stay(shape, seed, distinct, sparsity):
    scores = {"a": scores_of((shape[0] * 4, shape[1] * 4), seed, distinct), "b": scores_of((8, 3), seed + 1)}
    for scope in ("matrix", "model"):
        kept = kept_of(Pattern.read("unstructured"), scores, sparsity, scope)
        parts = [list(scores)] if scope == "model" else [[name] for name in scores]
        for names in parts:
            stay = torch.cat([scores[n][kept[n]] for n in names])
            gone = torch.cat([scores[n][~kept[n]] for n in names])
            assert len(gone) == round(sparsity * (len(stay) + len(gone)))
            assert not len(stay) or not len(gone) or stay.min() >= gone.max()


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([(2, 4), (1, 2), (3, 8)]), st.integers(0, 9), st.booleans())
def test_n_of_m_stay_of_every_group(shape, few, seed, distinct):
    n, m = few
    scores = scores_of((shape[0], shape[1] * m), seed, distinct)
    kept = kept_of(Pattern.read(f"{n}:{m}"), {"w": scores}, 0.5, "model")["w"]
    for row, mask in zip(scores.numpy(), kept.numpy(), strict=True):
        for start in range(0, len(row), m):
            group, stays = row[start : start + m], mask[start : start + m]
            assert stays.sum() == n
            assert group[stays].min() >= group[~stays].max()


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 9), st.floats(0.1, 0.9))
def test_blocks_stay_or_go_whole(shape, seed, sparsity):
    scores = scores_of((shape[0] * 4, shape[1]), seed)
    kept = kept_of(Pattern.read("4x1"), {"w": scores}, sparsity, "matrix")["w"].numpy()
    blocks = kept.reshape(shape[0], 4, shape[1])
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    sums = scores.numpy().reshape(shape[0], 4, shape[1]).sum(axis=1)
    stays = blocks.all(axis=1)
    assert (~stays).sum() == round(sparsity * stays.size)
    assert not stays.any() or stays.all() or sums[stays].min() >= sums[~stays].max()


def test_sizes_are_those_of_the_real_forms():
    """Against SciPy's CSR and BSR, and by hand."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 320)).astype(np.float32)
    kept = kept_of(Pattern(), {"w": torch.from_numpy(np.abs(weight))}, 0.9, "matrix")["w"].numpy()
    found = sizes([weight * kept], Pattern())
    csr = scipy.sparse.csr_array(weight * kept)
    assert found["rows"] * 1e6 == csr.data.nbytes + 2 * csr.nnz + csr.indptr.nbytes  # columns in two bytes
    assert found["bitmap"] * 1e6 == csr.data.nbytes + weight.size / 8
    assert found["dense"] * 1e6 == weight.nbytes
    assert 0.1 * found["dense"] < found["deflated"] < 0.2 * found["dense"]
    four = Pattern.read("4x1")
    kept = kept_of(four, {"w": torch.from_numpy(np.abs(weight))}, 0.75, "matrix")["w"].numpy()
    bsr = scipy.sparse.bsr_array(weight * kept, blocksize=(4, 1))
    assert (
        sizes([weight * kept], four)["rows"] * 1e6
        == bsr.data.nbytes + 2 * len(bsr.indices) + bsr.indptr.nbytes
    )
    two = Pattern.read("2:4")
    kept = kept_of(two, {"w": torch.from_numpy(np.abs(weight))}, 0.5, "matrix")["w"].numpy()
    assert sizes([weight * kept], two)["bitmap"] * 1e6 == weight.nbytes / 2 + weight.size / 2 * 2 / 8


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1"])
@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "squeezebert", "t5", "vit"])
def test_weights_of_every_product_get_their_share_of_zeros(name, pattern):
    program = fx_program(name)
    before = program.fingerprint()
    result = PruneWeights(pattern=pattern).run(program.clone(), Context())
    assert program.fingerprint() == before
    assert result.statistics["zeros"] == pytest.approx(0.5, abs=0.01)
    matrices, _ = chosen(program, Pattern.read(pattern), Context())
    for matrix in matrices:
        old, new = weight(program, matrix), weight(result.program, matrix)
        assert (new[new != 0] == old[new != 0]).all()
        if pattern == "unstructured":
            assert old[new == 0].abs().max() <= old[new != 0].abs().min()
    assert recognise(result.program).summary() == recognise(program).summary()
    tables = [
        p
        for n, p in result.program.graph.named_parameters()
        if "embeddings." in n or n.endswith("wte.weight")
    ]
    assert all((p != 0).float().mean() > 0.9 for p in tables)
    for one in execute(result.program, probes(program, 0)[:1]):
        assert all(np.isfinite(array).all() for array in one.values())
    again = PruneWeights(pattern=pattern).run(result.program.clone(), Context())
    assert not again.modified
    assert again.program.fingerprint() == result.program.fingerprint()


def test_what_zeros_buy_is_said():
    result = PruneWeights(sparsity=0.8).run(fx_program("bert").clone(), Context())
    assert result.statistics["MB by rows"] < result.statistics["MB"]
    assert any("buy no time" in note for note in result.notes)
    for ratio, words in (
        (1.0, "1.00 times as fast with the zeros: they buy no time"),
        (1.5, "they buy time"),
    ):
        measured = Context(measure=lambda before, after, ratio=ratio: {"1x8": Ratio(ratio, ratio, ratio)})
        said = PruneWeights().run(linear_program().clone(), measured).notes
        assert any(re.search(words, note) for note in said), said


def test_random_zeros_follow_the_seed():
    one, same, other = (
        PruneWeights(method="random")
        .run(fx_program("bert").clone(), Context(seed=seed))
        .program.fingerprint()
        for seed in (1, 1, 2)
    )
    assert one == same != other


def feeds_of(program, count=12):
    sizes = {"batch": 3, "length": 9}
    return [feed(program, sizes, "ragged", np.random.default_rng([4, number])) for number in range(count)]


def test_scores_learn_by_what_shrinks_weights():
    """Straight-through gradients against the paper's: dL/dS = dL/dW' * W and dL/dW = dL/dW' * M."""
    program = fx_program("bert").clone()
    own = own_parameters(program.graph)
    matrices, _ = chosen(program, Pattern(), Context())
    plain = program.clone()
    masks = Masks(program, matrices, scored=True)
    kept = kept_of(Pattern(), {m.name: weight(program, m).abs() for m in matrices}, 0.5, "matrix")
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


@pytest.mark.parametrize("pass_", [PruneMovement(**SMALL), LotteryTicket(**SMALL, rounds=2, rewind=3)])
def test_training_ends_in_a_plain_graph_with_zeros(pass_):
    program = fx_program("bert")
    before = program.fingerprint()
    context = Context(calibration=feeds_of(program), original=program)
    run = Pipeline([pass_, replace(PruneWeights(), sparsity=0.5)]).run(program, context)
    assert run.ok, [step.error for step in run.steps]
    assert program.fingerprint() == before
    assert run.steps[0].statistics["zeros"] == 0.5
    assert run.steps[1].status == "no change"  # the zeros are half of each matrix already
    assert {n for n, _ in run.program.graph.named_parameters()} == {
        n for n, _ in program.graph.named_parameters()
    }
    assert recognise(run.program).summary() == recognise(program).summary()


def test_movement_prunes_other_weights_than_magnitude():
    program = fx_program("bert")
    context = Context(calibration=feeds_of(program), original=program)
    moved = PruneMovement(**SMALL).run(program.clone(), context).program
    small = PruneWeights().run(program.clone(), context).program
    name = "encoder.layer.0.intermediate.dense.weight"
    differ = ((attribute(moved.graph, name) == 0) != (attribute(small.graph, name) == 0)).float().mean()
    assert differ > 0.2


def test_a_ticket_goes_back_to_the_early_weights():
    """With a rate too small to move anything, what is left is what the program had, whatever the rounds."""
    program = fx_program("bert")
    context = Context(calibration=feeds_of(program), original=program)
    options = {**SMALL, "steps": 2, "rate": 1e-12, "decay": 0.0}
    rounds = LotteryTicket(**options, rounds=3, rewind=1, sparsity=0.6).run(program.clone(), context)
    once = PruneWeights(sparsity=0.6).run(program.clone(), context)
    for name in (matrix.name for matrix in chosen(program, Pattern(), Context())[0]):
        a, b = (attribute(each.program.graph, name) for each in (rounds, once))
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-9)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("prune-weights{sparsity=1}", "above 0 and below 1"),
        ("prune-weights{sparsity=0}", "above 0 and below 1"),
        ('prune-weights{pattern="4:4"}', "fewer must stay"),
        ("prune-weights{pattern=checkers}", "write unstructured"),
        ("prune-movement{patience=3}", "patience would take the weights from before"),
        ("lottery-ticket{rounds=0}", "at least one"),
        ('lottery-ticket{pattern="2:4"}', "rounds=1"),
    ],
)
def test_bad_options(options, reason):
    with pytest.raises(PipelineError, match=reason):
        Pipeline.parse(options)


def test_what_does_not_fit_is_refused_or_said():
    with pytest.raises(PassError, match=r"no weight can be pruned so; .* no multiple of 7"):
        PruneWeights(pattern="3:7").run(fx_program("bert").clone(), Context())
    result = PruneWeights(pattern="1:5").run(fx_program("nanogpt").clone(), Context())
    assert any("stays whole, its 36 inputs are no multiple of 5" in note for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_pruned(name):
    program = fx_program(name)
    result = PruneWeights().run(program.clone(), Context())
    assert result.statistics["zeros"] == pytest.approx(0.5, abs=0.01)


def test_every_round_starts_from_the_early_weights_and_takes_none_back(monkeypatch):
    """Training is stood in for by something that ranks the weights anew each time."""
    starts, tickets = [], []

    def learned(self, program, context, parameters, loss, batches, notes=()):
        starts.append({name: p.detach().clone() for name, p in parameters.items()})
        generator = torch.Generator().manual_seed(len(starts))
        for p in parameters.values():
            p.data.copy_(torch.randn(p.shape, generator=generator))
        return Result(program, True)

    whole = Masks.set
    monkeypatch.setattr(Masks, "set", lambda self, stay: (tickets.append(stay), whole(self, stay)))
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
