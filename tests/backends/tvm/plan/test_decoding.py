"""Decoders that take a cache of keys and values, in float32 and with weights of few bits, a token a step."""

import cached
import numpy as np
import pytest
import torch
import tvm
import zoo
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.build.compile import compile_buckets
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.plan.planner import plan
from graphwright.ir.capture import capture
from graphwright.passes.manager.pipeline import Pipeline
from tvm import relax
from tvm_run import sizes_of

PAST = 6


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def decoder(request, tmp_path_factory):
    """(the model, its program of one step)"""
    model = zoo.ARCHITECTURES[request.param].build()
    path = tmp_path_factory.mktemp(request.param) / "step.onnx"
    cached.export(model, path)
    return model, capture(path)


def compiled(program, feeds):
    """Calls of a program compiled at the sizes of some feeds, by number."""
    built = compile_buckets(program, detect(), 2, [sizes_of(program, feed) for feed in feeds])
    machine = relax.VirtualMachine(built.executable, tvm.cpu())

    def call(number, feed):
        bucket = built.buckets[number]
        arrays = [feed[spec.name] for spec in program.inputs] + [built.weights[n] for n in bucket.weights]
        found = machine[bucket.function](*map(tvm.runtime.tensor, arrays))
        return dict(zip(program.outputs, (tensor.numpy() for tensor in found), strict=True))

    return call


def step_of(model, past, seed=0):
    """Inputs of a step, its last row's first positions hidden, and what PyTorch makes of them."""
    feed = cached.feed(model.config, 2, past, seed, hidden=2)
    with torch.no_grad():
        wanted = cached.Cached(model)(*feed.values())
    return {name: value.numpy() for name, value in feed.items()}, [value.numpy() for value in wanted]


def test_two_steps_agree_with_eager(decoder):
    model, program = decoder
    (feed, wanted), (later, _) = step_of(model, PAST), step_of(model, PAST + 1, seed=1)
    call = compiled(program, [feed, later])
    found = call(0, feed)
    for value, expected in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-4, rtol=1e-5)
    later |= {name.replace("present", "past"): found[name] for name in found if name != "logits"}
    with torch.no_grad():
        wanted = cached.Cached(model)(*map(torch.from_numpy, later.values()))
    for value, expected in zip(call(1, later).values(), wanted, strict=True):
        np.testing.assert_allclose(value, expected.numpy(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("decoder", ["gpt2"], indirect=True)
def test_a_bundle_pads_the_batch_of_a_step(decoder):
    """The sizes of the cache and of its mask hang together: they are taken from what is compiled."""
    model, program = decoder
    feed, wanted = step_of(model, PAST)
    built = Tvm().build(program, buckets=[{**sizes_of(program, feed), "batch": 3}])
    for value, expected in zip(built.run(feed).values(), wanted, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-4, rtol=1e-5)


def kernels(program, feed):
    imported = relax_module(program, sizes_of(program, feed))
    return plan(imported.module, program.inputs, Machine.of(detect(), 2)).kernels


def test_a_step_is_one_attention_and_four_products_a_layer(decoder):
    model, program = decoder
    feed, _ = step_of(model, PAST)
    found = kernels(program, feed)
    assert found["cached_attention"] == 2
    assert not found["attention"]
    assert sum(count for name, count in found.items() if name.startswith("dense")) == 2 * 4 + 1


@pytest.mark.parametrize(
    ("decoder", "bits", "compute"),
    [("llama", 4, "int8"), ("llama", 8, "int8"), ("gpt2", 4, "float"), ("gpt2", 4, "int8")],
    indirect=["decoder"],
)
def test_weights_of_few_bits_stay_codes(decoder, bits, compute):
    """Both runtimes round rows in the same groups, so that they agree far below quantization noise."""
    model, program = decoder
    feed, exact = step_of(model, PAST)
    text = f"fold-constants,quantize-weights{{bits={bits},group=16,compute={compute}}}"
    stored = Pipeline.parse(text).run(program.clone(), verify=False).program
    found = kernels(stored, feed)
    rows = {"float": "float32", "int8": "int8"}[compute]
    assert sum(count for name, count in found.items() if name.startswith(f"few_bits_{rows}")) == 2 * 4 + 1
    assert not [name for name in found if name.startswith(("dense", "norm"))]
    theirs = OnnxRuntime().build(stored, threads=1).run(feed)
    ours = compiled(stored, [feed])(0, feed)
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, atol=1e-4)
    assert np.abs(ours["logits"] - exact[0]).max() > 1e-3  # or nothing was quantized
