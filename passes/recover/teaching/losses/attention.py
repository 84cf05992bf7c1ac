"""Terms at a layer's attention: where its queries look, and how its values relate to each other."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch.fx import Node

from .....ir.blocks.base import Attention
from .....ir.program import Program
from .....ir.spec import MASKS
from .....ir.values import Value
from ....manager.contract import Feed
from .base import Tensors, Term

LEAST = 1e-9  # probability, so that its logarithm is finite


def native(value: Value | None) -> Node | None:
    """The node that gives a value; None of a number."""
    node = getattr(value, "native", None)
    return node if isinstance(node, Node) else None


def kept(program: Program, feed: Feed, size: int) -> torch.Tensor | None:
    """(batch, size): real positions, by the mask of that length; None where there is none."""
    for spec in program.inputs:
        if spec.role in MASKS and feed[spec.name].shape[1:] == (size,):
            return torch.from_numpy(spec.kept(feed[spec.name]))
    return None


def heads_first(x: torch.Tensor, layout: str, heads: int) -> torch.Tensor:
    """(batch, heads, length, size), from axes laid out as `Attention.layouts` says."""
    if layout.startswith("(bh)"):
        x, layout = x.unflatten(0, (-1, heads)), "bh" + layout[4:]
    for axis in reversed([i for i, letter in enumerate(layout) if letter == "1"]):
        x, layout = x.squeeze(axis), layout[:axis] + layout[axis + 1 :]
    if "h" not in layout:
        x, layout = x.unsqueeze(1), layout[0] + "h" + layout[1:]
    return x.permute([layout.index(letter) for letter in "bhld"])


@dataclass
class _Attended(Term):
    """Divergence of the student's rows of probabilities from the teacher's: the mean over queries and heads.
    Where the numbers of heads differ, the means over the heads are compared."""

    program: Program | None = None
    teacher: Attention | None = None
    student: Attention | None = None

    @abstractmethod
    def rows(self, attention: Attention, feed: Feed, values: Tensors) -> torch.Tensor:
        """(batch, heads, length, keys), rows that sum to 1."""

    def target(self, feed: Feed, values: Tensors) -> list[torch.Tensor]:
        assert self.teacher is not None
        return [self.rows(self.teacher, feed, values)]

    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        assert self.program is not None
        assert self.student is not None
        a, b = target[0], self.rows(self.student, feed, values)
        if a.shape[1] != b.shape[1]:
            a, b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
        divergence = (a * (a.clamp(min=LEAST).log() - b.clamp(min=LEAST).log())).sum(-1)
        real = kept(self.program, feed, divergence.shape[-1])
        if real is None:
            return divergence.mean()
        return divergence.transpose(1, 2)[real].mean()


@dataclass
class Maps(_Attended):
    """Attention probabilities (TinyBERT: Jiao et al., 2020, arXiv:1909.10351, section 3.1; by divergence as
    in MobileBERT: Sun et al., 2020, arXiv:2004.02984, section 3.4.2, and MiniLM: Wang et al., 2020,
    arXiv:2002.10957, section 3.1). Computed from query and key where a single operator hides them."""

    def rows(self, attention: Attention, feed: Feed, values: Tensors) -> torch.Tensor:
        heads = attention.heads
        if attention.probabilities is not None:
            found = values[0].float()
            found = found.unflatten(0, (-1, heads)) if found.dim() == 3 and heads > 1 else found
            return found.unsqueeze(1) if found.dim() == 3 else found
        query, key, *rest = values
        q, k = (
            heads_first(x.float(), layout, heads)
            for x, layout in zip((query, key), attention.layouts, strict=False)
        )
        if k.shape[1] != heads:
            k = k.repeat_interleave(heads // k.shape[1], dim=1)
        scores = attention.operand_scale * (q @ k.transpose(-1, -2))
        for (factor, _), term in zip(attention.terms, rest, strict=False):
            scores = scores + factor * term.float()
        if attention.selected:
            scores = scores.masked_fill(rest[-1] != attention.mask_keeps, -torch.inf)
        if attention.is_causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
        return scores.softmax(-1).nan_to_num()  # a query that sees no key


@dataclass
class Relations(_Attended):
    """How the values of the tokens relate: softmax(V V^T / sqrt(d)) (MiniLM: Wang et al., 2020,
    arXiv:2002.10957, section 3.2). Widths may differ."""

    def rows(self, attention: Attention, feed: Feed, values: Tensors) -> torch.Tensor:
        assert self.program is not None
        v = heads_first(values[0].float(), attention.layouts[2], attention.heads)
        scores = v @ v.transpose(-1, -2) / v.shape[-1] ** 0.5
        real = kept(self.program, feed, v.shape[2])
        if real is not None:
            scores = scores.masked_fill(~real[:, None, None], -torch.inf)
        return scores.softmax(-1).nan_to_num()


def map_nodes(attention: Attention) -> list[Node] | None:
    """What `Maps` is given of an attention; None where a value of it is no node."""
    if attention.probabilities is not None:
        values: list[Value | None] = [attention.probabilities]
    else:
        selector = [attention.mask] if attention.selected else []
        values = [attention.query, attention.key, *(term for _, term in attention.terms), *selector]
    nodes = [native(value) for value in values]
    return [node for node in nodes if node is not None] if None not in nodes else None
