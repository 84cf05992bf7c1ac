"""What a block says is what the graph computes: recomputed in float64 NumPy from its fields alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.blocks.base import Attention, FeedForward, Linear, Norm
from graphwright.ir.view import view
from zoo import ARCHITECTURES, SCORES, fx_program

TOLERANCE = 1e-5
ATTENDING = [
    ("bert", "eager"), ("bert", "sdpa"), ("distilbert", "eager"), ("mpnet", "eager"), ("mobilebert", "sdpa"),
    ("squeezebert", "eager"), ("modernbert", "eager"), ("gpt2", "eager"), ("opt", "sdpa"), ("llama", "eager"),
    ("llama", "sdpa"), ("qwen3", "sdpa"), ("t5", "eager"), ("t5", "sdpa"), ("bart", "sdpa"),
    ("torch_encoder", "sdpa"), ("nanogpt", "eager"), ("nanogpt", "sdpa"), ("einsum", "eager"),
    ("gemma2", "eager"), ("openai_gpt", "eager"), ("deberta", "eager"), ("xlnet", "eager"),
    ("gpt_oss", "eager"),
]  # fmt: skip
REARRANGED = {"bhld": (0, 1, 2, 3), "bhdl": (0, 1, 3, 2), "blhd": (0, 2, 1, 3), "lbhd": (1, 2, 0, 3)}


class Run:
    """Every value of one eager run, as float64 arrays (bool and integers as they are)."""

    def __init__(self, name: str, attn: str) -> None:
        self.program = fx_program(name, attn)
        feed = (ARCHITECTURES | SCORES)[name].inputs()
        seen: dict[torch.fx.Node, Any] = {}

        class Recorder(torch.fx.Interpreter):
            def run_node(self, node: torch.fx.Node) -> Any:
                result = super().run_node(node)
                # The graph may write over a tensor later: keep what it was.
                seen[node] = result.clone() if isinstance(result, torch.Tensor) else result
                return result

        with torch.no_grad():
            Recorder(self.program.graph).run(*(feed[spec.name] for spec in self.program.inputs))
        self.seen = seen
        self.view = view(self.program)

    def __getitem__(self, value: Any) -> np.ndarray:
        data = value.const if value.op == "const" else self.seen[value.native].numpy()
        return data.astype(np.float64) if data.dtype.kind == "f" else data


def project(run: Run, linear: Linear) -> np.ndarray:
    """A Linear's result with its features last."""
    x, weight = run[linear.input], run[linear.weight]
    if linear.axis == 1:
        x = np.swapaxes(x, 1, -1)
    weight = weight.reshape(weight.shape[:2])
    weight = weight if not linear.transposed else weight.T
    pieces = zip(np.split(x, linear.groups, -1), np.split(weight, linear.groups, -1), strict=True)
    y = np.concatenate([piece @ part for piece, part in pieces], -1)
    return y if linear.bias is None else y + run[linear.bias]


def heads(run: Run, linear: Linear, features: np.ndarray) -> np.ndarray:
    """(batch, heads, length, head_dim) from a projection."""
    return project(run, linear)[..., features].swapaxes(1, 2)


def attend(run: Run, a: Attention, q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """The context, (batch, length, heads * head_dim)."""
    k, v = (np.repeat(x, a.heads // x.shape[1], axis=1) for x in (k, v))
    scores = scale * q @ k.swapaxes(-1, -2)
    scores = a.softcap * np.tanh(scores / a.softcap) if a.softcap else scores
    scores = scores if a.gate is None else scores * run[a.gate]
    for factor, term in a.terms:
        scores = scores + factor * run[term]
    if a.selected:
        assert a.mask is not None
        keep = run[a.mask].astype(bool) == a.mask_keeps
        scores = np.where(keep, scores, -1e30)  # a padded query of DeBERTa sees no key: the mean
    if a.is_causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    if a.sinks is not None:
        scores = np.concatenate([scores, run[a.sinks]], -1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    context = (weights / weights.sum(-1, keepdims=True))[..., : v.shape[-2]] @ v
    return context.swapaxes(1, 2).reshape(*context.shape[::2], -1)


@pytest.mark.parametrize(("name", "attn"), ATTENDING)
def test_an_attention_computes_what_its_fields_say(name: str, attn: str) -> None:
    run = Run(name, attn)
    found = recognise(run.view).attention
    assert found
    for a in found:
        assert a.q is not None
        assert a.k is not None
        assert a.v is not None
        assert a.o is not None
        wanted = run[a.context]
        wanted = wanted.swapaxes(1, -1) if a.o.axis == 1 else wanted
        batch, _, length, _ = run[a.query].shape
        if a.layouts[0] == "lbhd":
            wanted = wanted.swapaxes(0, 1)
        if name == "torch_encoder":  # nn.MultiheadAttention merges rows as (length, batch)
            wanted = wanted.reshape(length, batch, -1).swapaxes(0, 1)

        operands = [
            run[x].transpose(REARRANGED[layout])
            for x, layout in zip((a.query, a.key, a.value), a.layouts, strict=True)
        ]
        context = attend(run, a, *operands, a.operand_scale)  # type: ignore[arg-type]
        np.testing.assert_allclose(context.reshape(wanted.shape), wanted, atol=TOLERANCE)

        if not a.rotary and a.q_norm is None and not a.shifted:
            features = ((a.q, a.q_features), (a.k, a.k_features), (a.v, a.v_features))
            projected = [heads(run, linear, chosen) for linear, chosen in features]
            if name == "torch_encoder":
                projected = [x.transpose(2, 1, 0, 3) for x in projected]
            context = attend(run, a, *projected, a.scale)  # type: ignore[arg-type]
            np.testing.assert_allclose(context.reshape(wanted.shape), wanted, atol=TOLERANCE)

        result = run[a.root].swapaxes(1, -1) if a.o.axis == 1 else run[a.root]
        np.testing.assert_allclose(project(run, a.o).reshape(result.shape), result, atol=TOLERANCE)


def normalise(run: Run, norm: Norm) -> np.ndarray:
    x = run[norm.input]
    if norm.kind == "layer_norm":
        x = x - x.mean(-1, keepdims=True)
    if norm.kind != "no_norm":
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + norm.epsilon)
    x = x if norm.weight is None else x * run[norm.weight]
    return x if norm.bias is None else x + run[norm.bias]


def activate(name: str, x: np.ndarray) -> np.ndarray:
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    return {
        "relu": lambda: np.maximum(x, 0),
        "gelu": lambda: x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5)),
        "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "quick_gelu": lambda: x * sigmoid(1.702 * x),
        "silu": lambda: x * sigmoid(x),
    }[name]()


def feed(run: Run, block: FeedForward) -> np.ndarray:
    up = project(run, block.up)[..., slice(*block.up_features)]
    if block.gate is None or block.gate_features is None:
        hidden = activate(block.activation, up)
    else:
        gate = project(run, block.gate)[..., slice(*block.gate_features)]
        hidden = activate(block.activation, gate) * up
    weight = run[block.down.weight]
    weight = weight.reshape(weight.shape[:2])
    weight = weight.T if block.down.transposed else weight
    groups = block.down.groups
    pieces = zip(np.split(hidden, groups, -1), np.split(weight, groups, -1), strict=True)
    y = np.concatenate([piece @ part for piece, part in pieces], -1)
    return y if block.down.bias is None else y + run[block.down.bias]


@pytest.mark.parametrize(
    ("name", "attn"),
    [
        ("bert", "eager"), ("mobilebert", "sdpa"), ("squeezebert", "eager"), ("modernbert", "sdpa"),
        ("gpt2", "eager"), ("opt", "sdpa"), ("qwen3", "sdpa"), ("t5", "eager"), ("clip_text", "sdpa"),
    ],
)  # fmt: skip
def test_norms_and_feed_forwards_compute_what_their_fields_say(name: str, attn: str) -> None:
    run = Run(name, attn)
    found = recognise(run.view)
    for norm in found.norm:
        np.testing.assert_allclose(normalise(run, norm), run[norm.root], atol=TOLERANCE)
    for block in found.feed_forward:
        wanted = run[block.root].swapaxes(1, -1) if block.down.axis == 1 else run[block.root]
        np.testing.assert_allclose(feed(run, block).reshape(wanted.shape), wanted, atol=TOLERANCE)
    for residual in found.residual:
        total = run[residual.stream] + run[residual.branch]
        np.testing.assert_allclose(total, run[residual.root], atol=TOLERANCE)
