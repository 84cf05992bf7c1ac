"""Kinds whose pattern depends on the data: what holds for each of them, alone and in a program.

Programs are of one layer, captured with a text of one block: tracing what sorts and gathers over symbolic
sizes is what takes time.
"""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.passes.attend.kinds import kind
from handmade import golden
from one_layer import one_layer
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
SHARED = {"block": 4, "rounds": 2, "shared_qk": True}  # of lsh, which alone has it
LENGTHS = (11, 7, 3, 1)
EVERY = [(name, False) for name in KINDS] + [(name, True) for name in BACK]


@pytest.mark.parametrize(
    ("name", "causal", "options"),
    [(name, causal, KINDS[name]) for name, causal in EVERY] + [("lsh", False, SHARED), ("lsh", True, SHARED)],
)
def test_a_text_is_the_same_behind_padding_and_before_it(name, causal, options):
    for length in (1, 2, 3, 4, 5, 13, 30):
        given = heads(length, causal=causal, seed=length)
        single = mixed(name, options, given)
        for count, left in ((1, False), (41, False), (5, True)):
            found = mixed(name, options, padded(given, count, left))
            assert found.isfinite().all()
            found = found[:, :, count:] if left else found[:, :, :length]
            torch.testing.assert_close(found, single, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), [*((name, KINDS[name]) for name in BACK), ("lsh", SHARED)])
def test_what_looks_back_does_not_move_with_later_tokens(name, options):
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


def tried(name, program, options):
    feeds = [batch(program, (9, 11, 12), seed=seed) for seed in range(3)]
    chosen = ",".join(f"{option}={value}" for option, value in {"kind": name, **options}.items())
    return run(f"substitute-attention{{{chosen},layers=(0,)}}", program, calibration=feeds)


def substituted(name, program, options):
    done = tried(name, program, options)
    assert done.steps[0].status == "applied", done.steps[0].error
    assert done.steps[0].statistics["attentions substituted"].startswith("1 of")
    return done.program


def vectors(program, feed):
    return execute(program, [feed])[0][program.outputs[0]]


# As programs hold them: the text of nine tokens that one is captured with is in one block.
IN_PROGRAMS = {
    "lsh": {"block": 16, "rounds": 2},
    "clustered": {"clusters": 5, "top": 3},
    "sinkhorn": {"block": 16},
    "routing": {"clusters": 4, "coverage": 2, "block": 16},
}
ON_TVM = {**IN_PROGRAMS, "linformer": {"rank": 8, "length": 64}, "block": {"block": 16}}


@cache
def program(name):
    return substituted(name, one_layer(), ON_TVM[name])


@cache
def lowered(name):
    done = run("to-onnx", program(name))
    assert done.ok, done.steps[-1].error
    return done.program


@pytest.mark.parametrize("name", IN_PROGRAMS)
def test_in_a_program_no_text_depends_on_its_batch(name):
    before, after = one_layer(), program(name)
    for lengths in (LENGTHS, (61, 40, 17, 2)):
        feed = batch(after, lengths)
        together = vectors(after, feed)
        single = [vectors(after, alone(after, feed, row))[0] for row in range(len(lengths))]
        np.testing.assert_allclose(together, np.array(single), rtol=0, atol=1e-6)
    assert np.abs(together - vectors(before, feed)).max() > 1e-3


@pytest.mark.parametrize("name", IN_PROGRAMS)
def test_onnx_runtime_gives_the_same_at_every_length(name):
    for lengths in (LENGTHS, (1,), (16,), (61, 2, 33)):
        feed = batch(program(name), lengths)
        wanted = vectors(program(name), feed)
        np.testing.assert_allclose(vectors(lowered(name), feed), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ON_TVM)
def test_tvm_gives_the_same(name):
    artifact = Tvm().build(lowered(name), threads=1, buckets=[{"batch": 2, "length": 40}])
    for lengths in ((40, 7), (33, 1)):
        feed = batch(program(name), lengths)
        (found,) = artifact.run(feed).values()
        np.testing.assert_allclose(found, vectors(program(name), feed), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", IN_PROGRAMS)
def test_golden(name):
    golden(f"attend/{name}", re.sub(r" #[0-9a-f]+", "", text(program(name))))


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
    ("name", "architecture"),
    [
        ("clustered", "modernbert"),
        ("sinkhorn", "gpt2"),
        ("routing", "gpt2"),
        ("lsh", "llama"),
    ],
)
def test_other_architectures_take_it(name, architecture):
    after = substituted(name, pooled(architecture), KINDS[name])
    feed = batch(after, LENGTHS)
    together = vectors(after, feed)
    single = [vectors(after, alone(after, feed, row))[0] for row in range(len(LENGTHS))]
    np.testing.assert_allclose(together, np.array(single), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "architecture", "reason"),
    [
        ("clustered", "gpt2", "it looks back only, and clustered attention has no form that does"),
        ("lsh", "t5", "a position bias is added to its scores"),
    ],
)
def test_what_cannot_be_is_left_with_the_reason(name, architecture, reason):
    step = tried(name, pooled(architecture), KINDS[name]).steps[0]
    assert step.status == "refused"
    assert reason in str(step.error)
