"""Quant-Noise: which blocks are rounded in training, that all are in evaluation, that none of it ships."""

import numpy as np
import pytest
import torch
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.fake_quant import FakeQuant
from graphwright.passes.recover.set_mode import SetMode
from handmade import operators
from training import calibrated, fake_quantized, linear_program

OUT, IN = 64, 80


@pytest.fixture(scope="module")
def noisy():
    return fake_quantized(linear_program(IN, OUT, bias=False), bits=3, noise=0.3, activations="float").program


def training(program):
    return SetMode(training=True).run(program.clone(), Context()).program


def used(program):
    """The weight that a call multiplies by."""
    return program.graph(torch.eye(IN)[None])[0][0].detach().numpy().T


def blocks(program, weight, plain, rounded, size=8):
    """(out, blocks): whether a block is rounded; every block is one or the other."""
    shape = (OUT, IN // size, size)
    same = np.isclose(weight, plain, atol=1e-6).reshape(shape)
    changed = np.isclose(weight, rounded, atol=1e-6).reshape(shape)
    assert (same.all(-1) | changed.all(-1)).all()
    return changed.all(-1) & ~same.all(-1)


def test_a_share_of_blocks_is_rounded_in_training_and_all_in_evaluation(noisy):
    source = linear_program(IN, OUT, bias=False)
    plain = source.graph.get_parameter("linear.weight").detach().numpy()
    rounded = used(fake_quantized(source, bits=3, activations="float").program)
    np.testing.assert_array_equal(used(noisy), rounded)
    trained = training(noisy)
    torch.manual_seed(0)
    first = blocks(trained, used(trained), plain, rounded)
    second = blocks(trained, used(trained), plain, rounded)
    count = first.size
    for drawn in (first, second):
        assert abs(drawn.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / count)
    assert abs((first & second).mean() - 0.09) < 4 * np.sqrt(0.09 / count)  # drawn anew
    torch.manual_seed(0)
    np.testing.assert_array_equal(blocks(trained, used(trained), plain, rounded), first)
    back = SetMode(training=False).run(trained.clone(), Context()).program
    np.testing.assert_array_equal(used(back), rounded)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_are_rounded_whole_whatever_their_size(block):
    source = linear_program(IN, OUT, bias=False)
    options = {"bits": 3, "noise": 0.5, "block": block, "activations": "float"}
    program = fake_quantized(source, **options).program
    plain, rounded = source.graph.get_parameter("linear.weight").detach().numpy(), used(program)
    torch.manual_seed(1)
    found = used(training(program))
    apart = np.abs(plain - rounded) > 1e-5  # elsewhere a weight is its own rounding
    moved = np.abs(found - plain) > 1e-6
    assert 0.3 < moved[apart].mean() < 0.7
    for start in range(0, IN, block):
        for row in range(OUT):
            place = np.s_[row, start : start + block]
            assert len(set(moved[place][apart[place]])) < 2


def test_blocks_that_are_not_rounded_have_their_true_gradient():
    source = linear_program(IN, OUT, bias=False)
    with torch.no_grad():
        source.graph.get_parameter("linear.weight").data[:, 0] *= 10
    program = fake_quantized(source, bits=2, noise=0.5, learned=True, activations="float").program
    with torch.no_grad():
        program.graph.get_parameter("linear.weight_step").mul_(0.05)  # nearly all is clipped
    trained = training(program)
    torch.manual_seed(0)
    x = torch.randn(2, 3, IN)
    trained.graph(x)[0].sum().backward()
    gradient = trained.graph.get_parameter("linear.weight").grad
    flow = x.sum((0, 1)).expand(OUT, IN)
    passed = torch.isclose(gradient, flow, rtol=1e-4, atol=1e-5)
    assert (passed | (gradient == 0)).all()
    assert 0.4 < passed.float().mean() < 0.75  # what is rounded and clipped has none


def test_none_of_it_is_exported(noisy):
    plain = fake_quantized(linear_program(IN, OUT, bias=False), bits=3, activations="float").program
    lowered = [ToOnnx().run(program.clone(), Context()).program for program in (training(noisy), plain)]
    assert operators(lowered[0]) == operators(lowered[1])
    assert not {"Where", "Dropout"} & set(operators(lowered[0]))


@pytest.mark.parametrize("options", [{"noise": 0.0}, {"noise": 1.5}, {"block": 0}])
def test_shares_and_blocks_are_checked(options):
    with pytest.raises(ValueError, match=r"share of blocks|block has"):
        FakeQuant(**options)


def test_a_share_of_one_draws_nothing():
    program = linear_program()
    nodes = fake_quantized(program, calibrated(program), noise=1.0).program.graph.graph.nodes
    assert not [node for node in nodes if node.target is torch.ops.aten.dropout.default]
