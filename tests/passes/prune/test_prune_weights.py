"""prune-weights: every matrix gets its share of zeros, what they buy is said, and what does not fit too."""

import re

import numpy as np
import pytest
from graphwright.ir.blocks import recognise
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context, Ratio
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.prune_weights import PruneWeights
from graphwright.passes.prune.sparse.matrices import chosen, weight
from graphwright.passes.prune.sparse.patterns import Sparsity
from training import linear_program
from zoo import ARCHITECTURES, fx_program


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1"])
@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "squeezebert", "t5", "vit"])
def test_weights_of_every_product_get_their_share_of_zeros(name, pattern):
    program = fx_program(name)
    before = program.fingerprint()
    result = PruneWeights(pattern=pattern).run(program.clone(), Context())
    assert program.fingerprint() == before
    assert result.statistics["zeros"] == pytest.approx(0.5, abs=0.01)
    matrices, _ = chosen(program, Sparsity.read(pattern), Context())
    for matrix in matrices:
        old, new = weight(program, matrix), weight(result.program, matrix)
        assert (new[new != 0] == old[new != 0]).all()
        if pattern == "unstructured":
            assert old[new == 0].abs().max() <= old[new != 0].abs().min()
    assert recognise(view(result.program)).summary() == recognise(view(program)).summary()
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("prune-weights{sparsity=1}", "above 0 and below 1"),
        ("prune-weights{sparsity=0}", "above 0 and below 1"),
        ('prune-weights{pattern="4:4"}', "fewer must stay"),
        ("prune-weights{pattern=checkers}", "write unstructured"),
        ("prune-movement{patience=3}", "patience would take the weights from before"),
        ("lottery-ticket{rounds=0}", "at least one"),
        ("lottery-ticket{pattern=2:4}", "rounds=1"),
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
