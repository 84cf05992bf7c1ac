"""Every block of every architecture of the zoo, in both spellings of attention and both dialects."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from graphwright.ir.blocks import Blocks, recognise
from graphwright.ir.view import view
from zoo import ARCHITECTURES, fx_program, onnx_program

PROGRAMS = {"fx": fx_program, "onnx": onnx_program}
CASES = [
    pytest.param(name, attn, dialect, id=f"{name}-{attn}-{dialect}")
    for name, case in ARCHITECTURES.items()
    for attn in case.attns
    for dialect in PROGRAMS
]

# heads, kv_heads, head_dim, scale by architecture; 4 heads of 8 where nothing else is said.
HEADS: dict[str, tuple[int, int, int, float]] = {
    "mobilebert": (4, 4, 6, 6**-0.5),
    "llama": (6, 2, 8, 8**-0.5),
    "qwen2": (6, 2, 8, 8**-0.5),
    "qwen3": (6, 2, 16, 0.25),
    "t5": (3, 3, 8, 1.0),
    "torch_encoder": (5, 5, 8, 8**-0.5),
    "nanogpt": (3, 3, 12, 12**-0.5),
    "deberta_v2": (4, 4, 8, (3 * 8) ** -0.5),  # content and both position terms share the variance
    "einsum": (3, 3, 8, 8**-0.5),
}
ENCODER_DECODER = {"t5", "bart"}
CAUSAL = {"gpt2", "opt", "llama", "qwen2", "qwen3", "nanogpt", "clip_text"}
ROTARY = {"llama", "qwen2", "qwen3", "modernbert"}
FUSED = {"gpt2", "nanogpt", "modernbert", "torch_encoder"}
# width, activation, gated
FEED_FORWARD: dict[str, tuple[int, str, bool]] = {
    "mobilebert": (72, "relu", False),
    "modernbert": (72, "gelu", True),
    "gpt2": (72, "gelu_tanh", False),
    "albert": (72, "gelu_tanh", False),
    "opt": (72, "relu", False),
    "llama": (88, "silu", True),
    "qwen2": (88, "silu", True),
    "qwen3": (88, "silu", True),
    "t5": (72, "relu", False),
    "clip_text": (72, "quick_gelu", False),
    "clip_vision": (72, "quick_gelu", False),
    "torch_encoder": (96, "gelu", False),
    "nanogpt": (80, "gelu_tanh", False),
    "einsum": (60, "relu", False),
}
RMS = {"llama", "qwen2", "qwen3", "t5"}
PRE_NORM = {
    "gpt2", "opt", "llama", "qwen2", "qwen3", "t5", "whisper", "vit", "clip_text", "clip_vision",
    "modernbert", "torch_encoder", "nanogpt",
}  # fmt: skip


@functools.cache
def blocks(name: str, attn: str, dialect: str) -> Blocks:
    return recognise(view(PROGRAMS[dialect](name, attn)))


@pytest.mark.parametrize(("name", "attn", "dialect"), CASES)
def test_every_block_is_found_and_what_is_not_says_why(name: str, attn: str, dialect: str) -> None:
    found, case = blocks(name, attn, dialect), ARCHITECTURES[name]
    counts = found.summary()
    assert {kind: counts[kind] for kind in case.expected} == case.expected
    misses = [f"{miss.kind}: {miss.reason}" for miss in found.missed]
    assert misses == []


@pytest.mark.parametrize(("name", "attn", "dialect"), CASES)
def test_attentions_mean_what_the_model_says(name: str, attn: str, dialect: str) -> None:
    found = blocks(name, attn, dialect).attention
    heads, kv_heads, head_dim, scale = HEADS.get(name, (4, 4, 8, 8**-0.5))
    for attention in found:
        assert (attention.heads, attention.kv_heads, attention.head_dim) == (heads, kv_heads, head_dim)
        assert attention.scale == pytest.approx(scale, rel=1e-6)
        assert attention.rotary == (name in ROTARY)
        assert (attention.q_norm is not None) == (attention.k_norm is not None) == (name == "qwen3")
        assert (attention.q is attention.k is attention.v) == (name in FUSED and not attention.cross)
        assert None not in (attention.q, attention.k, attention.v, attention.o)
        learned = name in ("mpnet", "deberta_v2") or (name == "t5" and not attention.cross)
        assert (attention.relative_bias is not None) == learned
        assert len(attention.products) == (2 if name == "deberta_v2" else 0)
    # Encoder: self, self; decoder: self, cross, self, cross.
    crossed = [False, False, *[False, True] * 2] if name in ENCODER_DECODER else [False] * len(found)
    causal = [False, False, *[True, False] * 2] if name in ENCODER_DECODER else [name in CAUSAL] * len(found)
    assert [attention.cross for attention in found] == crossed
    assert [attention.causal for attention in found] == causal


@pytest.mark.parametrize(("name", "attn", "dialect"), CASES)
def test_feed_forwards_mean_what_the_model_says(name: str, attn: str, dialect: str) -> None:
    width, activation, gated = FEED_FORWARD.get(name, (72, "gelu", False))
    found = blocks(name, attn, dialect).feed_forward
    decoder = 56 if name == "bart" else width  # bart's decoder is narrower
    assert [block.width for block in found] == [width] * 2 + [decoder] * (len(found) - 2)
    assert {block.activation for block in found} == {activation}
    assert {block.gate is not None for block in found} == {gated}
    if name == "modernbert":  # one Linear does both jobs: the first half of it is activated
        assert {(b.gate is b.up, b.gate_features, b.up_features) for b in found} == {
            (True, (0, 72), (72, 144))
        }


@pytest.mark.parametrize(("name", "attn", "dialect"), CASES)
def test_norms_and_residuals_stand_where_the_model_puts_them(name: str, attn: str, dialect: str) -> None:
    found, case = blocks(name, attn, dialect), ARCHITECTURES[name]
    kind = "no_norm" if name == "mobilebert" else "rms_norm" if name in RMS else "layer_norm"
    assert {norm.kind for norm in found.norm} == {kind}
    positions = [norm.position for norm in found.norm]
    layers = case.expected["attention"] + case.expected["feed_forward"]
    if name in PRE_NORM:
        assert "post" not in positions
        assert positions.count("final") == (2 if name == "t5" else 0 if name == "clip_vision" else 1)
        assert positions.count("inner") == (4 if name == "qwen3" else 0)
    else:
        assert "pre" not in positions
        assert "final" not in positions
    assert len(found.residual) == layers + (2 if name == "mobilebert" else 0)  # its output bottlenecks
    branches = [r.of for r in found.residual]
    assert branches.count("attention") == case.expected["attention"]
    assert branches.count("feed_forward") == case.expected["feed_forward"]
    stacks = [(len(stack.layers), stack.shared) for stack in found.stack]
    assert stacks == [(2, name == "albert")] * (2 if name in ENCODER_DECODER else 1)


@pytest.mark.parametrize(("name", "attn", "dialect"), CASES)
def test_nothing_is_recognised_twice(name: str, attn: str, dialect: str) -> None:
    found = blocks(name, attn, dialect)
    roots = [block.root for kind in (found.attention, found.feed_forward, found.norm) for block in kind]
    assert len(set(roots)) == len(roots)
    inner: list[Any] = [v for norm in found.norm if norm.position != "inner" for v in norm.body]
    bodies = [v for block in (*found.attention, *found.feed_forward) for v in block.body]
    assert not set(inner) & set(bodies)


def test_recognition_is_deterministic() -> None:
    program = fx_program("bert", "eager")
    first, second = recognise(view(program)), recognise(view(program))
    assert [[str(block) for block in kind] for kind in (first.attention, first.norm, first.residual)] == [
        [str(block) for block in kind] for kind in (second.attention, second.norm, second.residual)
    ]
