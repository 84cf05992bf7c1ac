"""What tests of attention without a softmax over all keys share: heads, and full attention by loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from graphwright.passes.attend.parts.kind import Heads


def drawn(lengths, longest=None, heads=3, size=4, causal=False, left=False, seed=0, spread=1.0):
    """Heads of texts of so many tokens, padded to the longest with numbers that would be seen."""
    generator = torch.Generator().manual_seed(seed)
    batch, n = len(lengths), longest or max(lengths)
    q, k = (torch.randn(batch, heads, n, size, generator=generator) * spread for _ in range(2))
    v = torch.randn(batch, heads, n, size + 1, generator=generator)
    keep = torch.arange(n)[None] < torch.tensor(lengths)[:, None]
    if left:
        keep = keep.flip(1)
    for x in (k, v):
        x.transpose(1, 2)[~keep] = 9.0
    return Heads(q, k, v, torch.zeros(batch, n, heads * size), keep, causal, size**-0.5)


def alone(heads, row):
    """A text without its padding and without a mask."""
    kept = heads.keep[row]
    q, k, v = (x[row : row + 1][:, :, kept] for x in (heads.q, heads.k, heads.v))
    return replace(heads, q=q, k=k, v=v, x=heads.x[row : row + 1, kept], keep=None)


def by_loops(heads, weight):
    """sum of weight(q, k) v over what a query sees, divided by the weights' sum; float64, one by one.

    Queries at padding, and those that see nothing, get zeros.
    """
    q, k, v = (x.double().numpy() for x in (heads.q, heads.k, heads.v))
    out = np.zeros(v.shape)
    keep = np.ones((len(q), q.shape[2]), bool) if heads.keep is None else heads.keep.numpy()
    for b, h, i in np.ndindex(*q.shape[:3]):
        seen = [j for j in range(q.shape[2]) if keep[b, j] and (j <= i or not heads.causal)]
        if keep[b, i] and seen:
            weights = np.array([weight(q[b, h, i], k[b, h, j]) for j in seen])
            out[b, h, i] = weights @ v[b, h, seen] / weights.sum()
    return out


def full(heads):
    return by_loops(heads, lambda q, k: np.exp(q @ k * heads.scale))


def kept(heads, mixed):
    """(tokens, heads, value_dim) of what is no padding."""
    mixed = torch.as_tensor(mixed).transpose(1, 2)
    return (mixed.flatten(0, 1) if heads.keep is None else mixed[heads.keep]).detach().double().numpy()


def away(heads, mixed, wanted):
    """The squared distance relative to the squared size."""
    mixed, wanted = kept(heads, mixed), kept(heads, wanted)
    return float(np.square(mixed - wanted).sum() / np.square(wanted).sum())
