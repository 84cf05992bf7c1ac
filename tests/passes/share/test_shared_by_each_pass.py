"""What a pass does to a weight that three layers share, it does once, and as to three that hold the same."""

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.execute import execute
from graphwright.ir.footprint import parameters, weight_bytes
from graphwright.ir.view import view
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.anatomy import parts
from recovery import feeds_of
from sharing import bert, once, run, weights
from zoo import fx_program

LAYER = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32  # attention, feed-forward and two norms
FEW = 100  # bytes: of sizes and numbers that three layers ask for beside one


@pytest.fixture(scope="module")
def alike():
    """Three layers with the same numbers, each in its own copy: tied, they compute the same."""
    return bert(3, alike=True)


@pytest.fixture(scope="module")
def one(alike):
    return run("prune-layers{keep=1}", alike)


@pytest.fixture(scope="module")
def lowered(alike, one):
    return run("to-onnx,fold-constants", one), run("tie-layers,to-onnx,fold-constants", alike)


def same(left, right, tolerance=1e-5):
    feeds = feeds_of(left, 2)
    for a, b in zip(execute(left, feeds), execute(right, feeds), strict=True):
        np.testing.assert_allclose(a["last_hidden_state"], b["last_hidden_state"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "text",
    [
        "fake-quant",
        "fake-quant{learned=true,bits=4,activations=float,embeddings=true}",
        "quantize-ternary{steps=0}",
        "quantize-binary{steps=0}",
        "quantize-binary{steps=2}",
        "prune-weights",
        "prune-weights{pattern=4x1,sparsity=0.25}",
    ],
)
def test_three_shared_layers_hold_what_one_does_and_compute_what_three_alike_do(alike, one, text):
    tied = run(f"tie-layers,{text}", alike)
    assert once(run(text, one), tied)
    assert not once(one, run(text, alike))
    if "steps=2" not in text:  # copies that learn apart are no longer alike
        same(tied, run(text, alike))


@pytest.mark.parametrize("limit", [0.5, 0.15])
def test_each_precision_of_quantize_mixed_is_stored_once(lowered, limit):
    text = f"quantize-mixed{{budget=size,limit={limit}}}"
    single, tied = (run(text, program) for program in lowered)
    held = [tensor.tobytes() for tensor in weights(tied)]
    assert len(set(held)) == len(held) == len(weights(single))  # which layers get which, losses decide
    table = 53 * 32 + 32 * 32  # of words and of positions: they stay in float
    products = sum(tensor.size for tensor in weights(lowered[1])) - table
    assert sum(tensor.nbytes for tensor in weights(tied)) <= 4 * (table + limit * products)


def quantizers(program, kind):
    return [n for n in program.graph.graph.nodes if n.op == "call_function" and kind in str(n.target)]


def steps(program):
    return {name: p for name, p in program.graph.named_parameters() if name.endswith("weight_step")}


def gradients(program, feed):
    """Of one random projection of the outputs, by parameter."""
    program.graph.requires_grad_(True)
    out = program.graph(*arguments(program, feed))
    out = out[0] if isinstance(out, tuple | list) else out
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    (out * direction).sum().backward()
    return {name: p.grad for name, p in program.graph.named_parameters()}


def test_one_quantizer_and_one_set_of_learnt_steps_a_weight(alike):
    text = "fake-quant{learned=true}"
    tied, apart = run(f"tie-layers,{text}", alike), run(text, alike)
    assert [len(quantizers(p, "learnable_per_channel")) for p in (tied, apart)] == [6, 18]
    assert [len(quantizers(p, "learnable_per_tensor")) for p in (tied, apart)] == [12, 12]  # a site each
    assert [len(steps(p)) for p in (tied, apart)] == [6, 18]
    feed = feeds_of(alike, 1)[0]
    shared, each = gradients(tied, feed), gradients(apart, feed)
    for name in steps(tied):
        copies = [each[name.replace(".layer.0.", f".layer.{number}.")] for number in range(3)]
        assert all(copy.abs().max() > 0 for copy in copies)
        torch.testing.assert_close(shared[name], sum(copies), rtol=1e-4, atol=1e-5)


def test_integers_that_were_trained_are_stored_once(alike, one):
    text = "fake-quant{learned=true},to-onnx,fold-constants"
    single, tied = run(text, one), run(f"tie-layers,{text}", alike)
    assert once(single, tied)
    # a scale and a zero for the input of each product's site in each layer
    assert weight_bytes(tied) < weight_bytes(single) + FEW


def test_layers_that_go_take_no_shared_weight_with_them(alike):
    tied = run("tie-layers", alike)
    for text, layers in (("prune-layers{keep=2}", 2), ("prune-layers{choose=bottom,keep=1}", 1)):
        fewer = run(text, tied)
        assert parameters(fewer) == parameters(tied)
        assert len(recognise(view(fewer)).attention) == layers
        assert parameters(run(text, alike)) == parameters(alike) - (3 - layers) * LAYER
        same(fewer, run(text, alike))


def test_every_norm_gets_a_map_of_its_own_though_norms_were_shared(alike):
    tied = run("tie-layers", alike)
    maps = run("tie-layers,nonorm", alike)
    assert parameters(tied) == parameters(alike) - 2 * LAYER
    # seven maps of two numbers a feature, where there were three norms: before the layers, and two of a layer
    assert parameters(maps) == parameters(tied) + (7 - 3) * 2 * 32
    assert len(recognise(view(maps)).norm) == 7


def test_bytes_are_counted_once_where_parts_and_steps_are_told(alike, one, lowered):
    """`optimize inspect` lists parts, and a report the bytes after each step."""
    feed = feeds_of(alike, 1)[0]
    tied = run("tie-layers", alike)
    listed = parts(tied, feed, None)
    assert sum(part.unique for part in listed) == parameters(one) == parameters(tied)
    assert sum(part.total for part in listed) == parameters(alike)
    assert sum(part.bytes for part in listed) == weight_bytes(one)
    first, *later = [part for part in listed if part.kind == "attention"]
    assert [(part.unique, part.bytes) for part in later] == [(0, 0)] * 2
    assert {part.total for part in later} == {first.total}
    assert sum(part.bytes for part in parts(lowered[1], feed, None)) <= weight_bytes(lowered[1])
    steps_of = [
        Pipeline.parse("store-half,quantize-weights{bits=8}").run(program).steps for program in lowered
    ]
    for wanted, mine in zip(*steps_of, strict=True):
        assert wanted.bytes_before <= mine.bytes_before < wanted.bytes_before + FEW
        assert wanted.bytes_after <= mine.bytes_after < wanted.bytes_after + FEW


def test_a_table_that_the_head_shares_is_one_beside_layers_that_are_shared():
    tied = run("tie-layers", fx_program("gpt2"))
    lowered = run("to-onnx,fold-constants", tied)
    assert weight_bytes(lowered) < weight_bytes(tied) + 3 * FEW
    held = [(t.shape, t.tobytes()) for t in weights(lowered)]
    assert len(set(held)) == len(held)
    assert weight_bytes(run("quantize-weights{bits=8}", lowered)) < weight_bytes(lowered) / 2
