"""Kinds whose pattern depends on the data: what holds for each of them, alone and in a program."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.ir.execute import execute
from graphwright.passes.attend.kinds import kind
from pruning import run
from routed import heads, mixed, own, padded
from tokens import alone, batch, pooled
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

KINDS = {
    "lsh": {"block": 4, "rounds": 2},
    "clustered": {"clusters": 5, "top": 3},
    "sinkhorn": {"block": 4},
    "routing": {"clusters": 4, "coverage": 2, "block": 4},
}
BACK = ("lsh", "sinkhorn", "routing")
LENGTHS = (11, 7, 3, 1)
EVERY = [(name, False) for name in KINDS] + [(name, True) for name in BACK]


@pytest.mark.parametrize(("name", "causal"), EVERY)
@pytest.mark.parametrize("shared", [False, True])
def test_a_text_is_the_same_behind_padding_and_before_it(name, causal, shared):
    options = {**KINDS[name], **({"shared_qk": True} if shared and name == "lsh" else {})}
    for length in (1, 2, 3, 4, 5, 13, 30):
        given = heads(length, causal=causal, seed=length)
        single = mixed(name, options, given)
        for count, left in ((1, False), (41, False), (5, True)):
            found = mixed(name, options, padded(given, count, left))
            assert found.isfinite().all()
            found = found[:, :, count:] if left else found[:, :, :length]
            torch.testing.assert_close(found, single, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", BACK)
@pytest.mark.parametrize("shared", [False, True])
def test_what_looks_back_does_not_move_with_later_tokens(name, shared):
    options = {**KINDS[name], **({"shared_qk": True} if shared and name == "lsh" else {})}
    given = heads(30, causal=True)
    before = mixed(name, options, given)
    for at in (1, 5, 20, 29):
        q, k, v = (x.clone() for x in (given.q, given.k, given.v))
        q[:, :, at:] += 1
        k[:, :, at:] *= -2
        v[:, :, at:] = 3
        after = mixed(name, options, replace(given, q=q, k=k, v=v))
        torch.testing.assert_close(after[:, :, :at], before[:, :, :at], rtol=0, atol=1e-5)
        assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize(("name", "causal"), EVERY)
def test_a_text_without_any_token_gives_numbers(name, causal):
    keep = torch.zeros(2, 9, dtype=torch.bool)
    assert mixed(name, KINDS[name], heads(9, causal=causal, keep=keep)).isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_gradients_reach_everything_that_learns(name):
    given = heads(13)
    leaves = {part: getattr(given, part).requires_grad_() for part in "qkv"}
    tensors = own(name, KINDS[name])
    if name == "sinkhorn":
        leaves |= {part: tensor.requires_grad_() for part, tensor in tensors.items()}
    kind(name, KINDS[name]).mix(replace(given), tensors).square().sum().backward()
    for part, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), part
        assert leaf.grad.abs().max() > 0, part


def text(options):
    return ",".join(f"{option}={value}" for option, value in options.items())


def tried(name, program, feeds=None):
    feeds = feeds or [batch(program, (9, 11, 12), seed=seed) for seed in range(3)]
    options = f"kind={name},{text(KINDS[name])},layers=(0,)"
    return run(f"substitute-attention{{{options}}}", program, calibration=feeds)


def substituted(name, program, feeds=None):
    done = tried(name, program, feeds)
    assert done.steps[0].status == "applied", done.steps[0].error
    assert done.steps[0].statistics["attentions substituted"].startswith("1 of")
    return done.program


def vectors(program, feed):
    return execute(program, [feed])[0][program.outputs[0]]


@pytest.fixture(scope="module", params=KINDS)
def programs(request):
    before = pooled("bert")
    return before, substituted(request.param, before)


def test_in_a_program_no_text_depends_on_its_batch(programs):
    before, after = programs
    feed = batch(after, LENGTHS)
    together = vectors(after, feed)
    single = [vectors(after, alone(after, feed, row))[0] for row in range(len(LENGTHS))]
    np.testing.assert_allclose(together, np.array(single), rtol=0, atol=1e-5)
    assert np.abs(together - vectors(before, feed)).max() > 1e-4


def test_onnx_runtime_gives_the_same_at_every_length(programs):
    _, program = programs
    done = run("to-onnx", program)
    assert done.program.dialect == "onnx", done.steps[-1].error
    for lengths in (LENGTHS, (1,), (16,), (40, 2, 33)):
        feed = batch(program, lengths)
        wanted = vectors(program, feed)
        np.testing.assert_allclose(vectors(done.program, feed), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_no_value_has_a_place_for_every_query_and_key(name):
    given, tensors = heads(61), own(name, KINDS[name])

    def mix(q, k, v):
        return kind(name, KINDS[name]).mix(replace(given, q=q, k=k, v=v), tensors)

    graph = make_fx(mix)(given.q, given.k, given.v).graph
    shapes = [
        tuple(node.meta["val"].shape) for node in graph.nodes if isinstance(node.meta.get("val"), Tensor)
    ]
    assert not [shape for shape in shapes if sum(size >= 61 for size in shape) > 1]


@pytest.mark.parametrize(
    ("name", "architecture", "reason"),
    [
        ("clustered", "gpt2", "it looks back only, and clustered attention has no form that does"),
        ("lsh", "t5", "a position bias is added to its scores"),
    ],
)
def test_what_cannot_be_is_left_with_the_reason(name, architecture, reason):
    step = tried(name, pooled(architecture)).steps[0]
    assert step.status == "refused"
    assert reason in str(step.error)


@pytest.mark.parametrize("kind", ["lsh", "sinkhorn", "clustered"])
def test_what_was_captured_in_one_block_takes_texts_of_many(kind):
    long = run("extend-positions{length=512}", pooled("bert")).program
    done = run(f"substitute-attention{{kind={kind}}},to-onnx", long)
    assert done.program.dialect == "onnx", done.steps[-1].error
    inside = run(f"substitute-attention{{kind={kind}}}", long).program
    feed = batch(long, (300, 170))
    wanted = vectors(inside, feed)
    np.testing.assert_allclose(vectors(done.program, feed), wanted, rtol=0, atol=1e-5)
    single = vectors(inside, alone(inside, feed, 1))
    np.testing.assert_allclose(single[0], wanted[1], rtol=0, atol=1e-5)
