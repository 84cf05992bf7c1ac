"""Weights that layers share stay one through lowering, fusing, quantizing, pruning and training."""

import graphwright as gw
import numpy as np
import pytest
import torch
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.blocks import recognise
from graphwright.ir.execute import execute
from graphwright.ir.footprint import parameters, weight_bytes
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.share.tie_layers import TieLayers
from recovery import feeds_of
from sharing import bert, once, run
from zoo import fx_program

FUSED = "fold-constants,simplify-mask,fuse-layer-norm,fuse-attention,fuse-qkv,fuse-skip-layer-norm"


@pytest.fixture(scope="module")
def deep():
    return bert(3)


@pytest.fixture(scope="module")
def flat():
    """One layer: what all shared layers together may take."""
    return bert(1)


@pytest.fixture(scope="module")
def lowered(deep, flat):
    return run("to-onnx", flat), run("tie-layers,to-onnx", deep)


@pytest.mark.parametrize(
    "text",
    [
        FUSED,
        "fold-constants,remove-padding",
        "fold-constants,store-half",
        f"{FUSED},quantize-dynamic{{min_cosine=0}}",
        "fold-constants,quantize-static{min_cosine=0}",
        "fold-constants,quantize-weights{bits=8}",
        "fold-constants,quantize-gobo",
    ],
)
def test_three_shared_layers_are_stored_as_one_is(lowered, text):
    assert once(*lowered)
    assert once(*(run(text, program) for program in lowered))


def test_codes_and_units_are_those_of_one_layer(deep, flat):
    for text in (
        "quantize-product{steps=0,finish=0}",
        "prune-ffn{ratio=0.5,importance=magnitude}",
        "prune-heads{ratio=0.5,importance=magnitude}",
    ):
        assert once(run(text, flat), run(f"tie-layers,{text}", deep)), text


def test_untied_layers_hold_three_times_as_much(deep, flat):
    """The test above can fail: without tying it would."""
    assert weight_bytes(run("tie-layers", deep)) == weight_bytes(flat)
    assert not once(flat, deep)
    assert weight_bytes(deep) > 2 * weight_bytes(flat)


def test_heads_and_neurons_go_from_all_layers_alike(deep):
    pruned = run(
        "tie-layers,prune-heads{ratio=0.5,importance=magnitude},prune-ffn{importance=magnitude}", deep
    )
    blocks = recognise(view(pruned))
    assert [one.heads for one in blocks.attention] == [2, 2, 2]
    assert [one.width for one in blocks.feed_forward] == [48, 48, 48]


def test_training_moves_the_one_weight(deep):
    tied = run("tie-layers", deep)
    learned = Pipeline.parse("distill{steps=4,batch=2}").run(
        tied, Context(calibration=feeds_of(deep, 8), original=deep)
    )
    assert learned.ok
    assert parameters(learned.program) == parameters(tied)
    names = [name for name, _ in learned.program.graph.named_parameters()]
    assert not [name for name in names if ".layer.1." in name or ".layer.2." in name]


def test_a_fit_that_gets_no_nearer_is_the_mean_and_says_so():
    program = fx_program("bert")
    context = Context(calibration=feeds_of(program, 6))
    fitted = TieLayers(init="fit", rounds=1).run(program.clone(), context)
    assert fitted.notes == (
        "no step of 1 brought the outputs nearer, so what is shared is the mean: more rounds",
    )
    mean = TieLayers(init="mean").run(program.clone(), context).program.graph.state_dict()
    assert all(torch.equal(t, mean[n]) for n, t in fitted.program.graph.state_dict().items())


def test_fit_is_no_worse_than_the_mean():
    program = fx_program("llama")
    feeds = feeds_of(program, 6)
    context = Context(calibration=feeds)
    fitted = TieLayers(init="fit").run(program.clone(), context)
    mean = TieLayers(init="mean").run(program.clone(), context)

    def away(other):
        pairs = zip(execute(program, feeds), execute(other, feeds), feeds, strict=True)
        return sum(
            float(np.square((a["logits"] - b["logits"])[f["attention_mask"] != 0]).sum()) for a, b, f in pairs
        )

    assert away(fitted.program) < 0.8 * away(mean.program)
    errors = [float(one) for one in str(fitted.statistics["error of outputs by round"]).split()]
    assert min(errors) < errors[0]


def stored(folder, name):
    return (folder / name).stat().st_size


def test_one_copy_in_a_bundle_for_onnx_runtime(lowered, tmp_path):
    sizes = []
    for number, program in enumerate(lowered):
        graphs = [Variant("plain", program), Variant("fused", run(FUSED, program))]
        folder = write(tmp_path / str(number), graphs)
        sizes.append(stored(folder, "model.onnx.data"))
    assert sizes[0] == sizes[1]


@pytest.mark.slow  # 20 s: compiles three layers
def test_one_copy_in_a_build_for_tvm(lowered, tmp_path):
    """What one layer, its table and its positions take: each tensor starts at a multiple of 64 bytes."""
    tied = run(FUSED, lowered[1])
    built = Tvm().build(tied, threads=1, buckets=[{"batch": 3, "length": 9}])
    folder = write_compiled(tmp_path / "compiled", built)
    assert stored(folder, "model.weights") < 1.1 * weight_bytes(lowered[0])
    feed = feeds_of(lowered[1], 1)[0]
    real = feed["attention_mask"] != 0
    found, wanted = (
        answer["last_hidden_state"][real]
        for answer in (gw.load(folder).run(feed), execute(lowered[1], [feed])[0])
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
