"""Learned step sizes: start, gradients by the paper's formula (float64 NumPy), training, and export."""

import numpy as np
import pytest
import torch
from graphwright.passes.quantize.codes.affine import fit
from training import calibrated, fake_quantized, linear_program

RTOL = 1e-4


def step_gradient(v, s, low, high, upstream, count):
    """Esser et al., 2019, equation 3 times the gradient scale of section 2.2; float64."""
    ratio = v / s
    inside = np.where(ratio <= low, low, np.where(ratio >= high, high, np.rint(ratio) - ratio))
    return (upstream * inside).sum(axis=-1) / np.sqrt(count * high)


def named(program):
    return dict(program.graph.named_parameters())


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_the_gradient_of_a_weights_step_is_the_papers(bits):
    options = {"bits": bits, "learned": True, "weights": "full", "activations": "float"}
    program = fake_quantized(linear_program(), **options).program
    weight, step = named(program)["linear.weight"], named(program)["linear.weight_step"]
    low, high = (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    with torch.no_grad():
        step.mul_(0.6)  # so that some are clipped
        ratio = weight / step[:, None]
        # PyTorch's operator looks whether the rounded ratio is clipped, the paper whether the ratio is: none
        # may lie in the half step between the two.
        edge = ((ratio > high) & (ratio < high + 0.6)) | ((ratio < low) & (ratio > low - 0.6))
        weight.copy_(torch.where(edge, weight / 2, weight))
    x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(2))
    program.graph(x)[0].backward(upstream)
    v, s = weight.detach().double().numpy(), step.detach().double().numpy()[:, None]
    flow = np.einsum("bto,bti->oi", upstream.double().numpy(), x.double().numpy())
    assert ((v / s > high) | (v / s < low)).any()
    expected = step_gradient(v, s, low, high, flow, 24)
    np.testing.assert_allclose(step.grad.numpy(), expected, rtol=RTOL, atol=1e-5)
    passed = np.where((v / s >= low) & (v / s <= high), flow, 0)  # equation 5
    np.testing.assert_allclose(weight.grad.numpy(), passed, rtol=RTOL, atol=1e-5)


def test_the_gradient_of_an_activations_step_is_the_papers_with_an_offset():
    program = fake_quantized(linear_program(), learned=True).program
    parameters = named(program)
    step, zero = parameters["linear.input_step"], dict(program.graph.named_buffers())["linear.input_zero"]
    x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1)) * 2
    ratio = x / step.detach() + zero
    edge = ((ratio < 0) & (ratio > -0.6)) | ((ratio > 255) & (ratio < 255.6))  # as above
    x = torch.where(edge, x / 2, x).requires_grad_()
    program.graph(x)[0].square().sum().backward()
    s, z = float(step.detach()), float(zero)
    v = x.detach().double().numpy()
    ratio = v / s + z
    weight, bias = parameters["linear.weight"].detach().double().numpy(), parameters["linear.bias"].detach()
    scale = np.abs(weight).max(axis=1, keepdims=True) / 64
    weight = np.clip(np.rint(weight / scale), -64, 64) * scale
    y = (np.clip(np.rint(v / s) + z, 0, 255) - z) * s @ weight.T + bias.double().numpy()
    flow = 2 * y @ weight
    inside = np.where(ratio < 0, 0 - z, np.where(ratio > 255, 255 - z, np.rint(v / s) - v / s))
    expected = (flow * inside).sum() / np.sqrt(24 * 255)
    assert ((ratio < 0) | (ratio > 255)).any()
    np.testing.assert_allclose(float(step.grad), expected, rtol=1e-3)


def test_steps_start_where_fixed_ones_are():
    program = linear_program()
    learned = fake_quantized(program, bits=8, learned=True, weights="full").program
    weight = program.graph.get_parameter("linear.weight").detach().numpy()
    np.testing.assert_allclose(
        named(learned)["linear.weight_step"].detach().numpy(), np.abs(weight).max(axis=1) / 127, rtol=1e-6
    )
    everything = np.concatenate([feed["x"].ravel() for feed in calibrated(program).calibration])
    expected = fit(everything.min(), everything.max(), 0, 255)
    np.testing.assert_array_equal(named(learned)["linear.input_step"].detach().numpy(), expected.scale)


def test_a_step_that_crosses_zero_stays_a_step():
    program = fake_quantized(linear_program(), bits=4, learned=True).program
    x = torch.randn(2, 3, 24)
    before = program.graph(x)[0].detach()
    with torch.no_grad():
        named(program)["linear.weight_step"].neg_()
    torch.testing.assert_close(program.graph(x)[0].detach(), before)


def test_all_zero_weights_get_a_step_of_one():
    program = linear_program()
    with torch.no_grad():
        program.graph.get_parameter("linear.weight")[2] = 0
    result = fake_quantized(program, learned=True, bits=4)
    assert named(result.program)["linear.weight_step"][2] == 1
    assert torch.isfinite(result.program.graph(torch.randn(2, 3, 24))[0]).all()


def test_training_takes_steps_that_are_too_long_back():
    program = linear_program()
    learned = fake_quantized(program, bits=4, learned=True).program
    steps = [parameter for name, parameter in learned.graph.named_parameters() if name.endswith("_step")]
    assert len(steps) == 2
    with torch.no_grad():
        for step in steps:
            step.mul_(4)
    adam = torch.optim.Adam(steps, lr=0.002)
    x = torch.randn(64, 7, 24, generator=torch.Generator().manual_seed(3))
    losses = []
    for _ in range(100):
        loss = (learned.graph(x)[0] - program.graph(x)[0].detach()).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
