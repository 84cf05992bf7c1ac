"""What tests of kinds of attention ask of whole programs."""

from __future__ import annotations

import numpy as np
import zoo
from graphwright.ir.execute import execute
from graphwright.passes.common.outputs import arguments
from pruning import run
from tokens import alone, batch, pooled


def feeds(name):
    return [
        {k: v.numpy() for k, v in zoo.ARCHITECTURES[name].inputs(4, 11, seed=s).items()} for s in range(2)
    ]


def substituted(program, options, texts=()):
    done = run(f"substitute-attention{{{options}}}", program, calibration=texts)
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


def vectors(program, feed):
    return execute(program, [feed])[0][program.outputs[0]]


def lowered_alike(name, options):
    """Both runtimes agree, and a text's vector does not depend on its batch; gives the program."""
    after = substituted(pooled(name), options, feeds(name))
    lowered = run("to-onnx", after).program
    assert lowered.dialect == "onnx"
    for lengths in ((20, 7, 3, 1), (1,)):
        feed = batch(after, lengths)
        found = vectors(after, feed)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(vectors(lowered, feed), found, rtol=0, atol=1e-5)
        rows = [vectors(after, alone(after, feed, row))[0] for row in range(len(lengths))]
        np.testing.assert_allclose(found, np.array(rows), rtol=0, atol=1e-5)
    return after


def trained(program, part):
    """Derivatives reach those parameters that have a word in their names."""
    graph = program.clone().graph
    (found,) = graph(*arguments(program, batch(program, (9, 5))))
    found.square().sum().backward()
    named = dict(graph.named_parameters())
    reached = [p.grad for name, p in named.items() if part in name]
    assert reached
    assert all(grad is not None and grad.isfinite().all() and grad.abs().sum() > 0 for grad in reached)
    for parameter in named.values():
        parameter.grad = None


def causal(name, options):
    """What is before a token that changes stays as it was."""
    after = substituted(zoo.fx_program(name), options, feeds(name))
    feed = {k: v.numpy() for k, v in zoo.ARCHITECTURES[name].inputs(2, 12).items()}
    feed["attention_mask"] = np.ones_like(feed["attention_mask"])
    other = {**feed, "input_ids": feed["input_ids"].copy()}
    other["input_ids"][:, 7] = (other["input_ids"][:, 7] + 1) % 100
    one, two = vectors(after, feed), vectors(after, other)
    np.testing.assert_allclose(two[:, :7], one[:, :7], rtol=0, atol=1e-6)
    assert np.abs(two[:, 7:] - one[:, 7:]).max() > 1e-4
    return after
