"""What tests of attention kinds share that sort, route or cluster: heads to mix, alone and padded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from graphwright.passes.attend.kinds import kind
from graphwright.passes.attend.parts.kind import Heads

HEADS, WIDTH = 2, 8


def heads(length, batch=2, causal=False, keep=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = lambda *shape: torch.randn(*shape, generator=generator)
    q, k = (drawn(batch, HEADS, length, WIDTH) for _ in range(2))
    v, x = drawn(batch, HEADS, length, 6), drawn(batch, length, 16)
    return Heads(q, k, v, x, keep, causal, WIDTH**-0.5)


def own(name, options):
    """Tensors as a kind has them at a site with these heads."""
    generator = torch.Generator().manual_seed(5)
    drawn = lambda *shape: torch.randn(*shape, generator=generator)
    if name == "lsh":
        return {"rotations": drawn(options.get("rounds", 2), WIDTH, 8)}
    if name == "routing":
        units = torch.nn.functional.normalize(drawn(HEADS, options["clusters"], WIDTH), dim=-1)
        return {"centroids": units, "query": drawn(HEADS, 1, WIDTH) / 4, "key": drawn(HEADS, 1, WIDTH) / 4}
    if name == "sinkhorn":
        return {"sort": torch.eye(WIDTH) + drawn(HEADS, WIDTH, WIDTH) / 9, "near": drawn(HEADS, 1, 1) + 1}
    return {}


def mixed(name, options, given):
    return kind(name, options).mix(given, own(name, options))


def full(given):
    """Attention over all keys, float64."""
    scores = given.q.double() @ given.k.double().transpose(2, 3) * given.scale
    if given.keep is not None:
        scores = scores.masked_fill(~given.keep[:, None, None, :], -1e30)
    if given.causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -1e30)
    return scores.softmax(-1) @ given.v.double()


def padded(given, count, left):
    """The same texts behind or before so many places of anything."""

    def longer(x, axis):
        shape = list(x.shape)
        shape[axis] = count
        filling = torch.full(shape, 7.0)
        return torch.cat([filling, x] if left else [x, filling], axis)

    kept = torch.ones(given.q.shape[0], given.q.shape[2], dtype=torch.bool)
    none = torch.zeros(given.q.shape[0], count, dtype=torch.bool)
    q, k, v = (longer(x, 2) for x in (given.q, given.k, given.v))
    keep = torch.cat([none, kept] if left else [kept, none], 1)
    return replace(given, q=q, k=k, v=v, x=longer(given.x, 1), keep=keep)


def by_text(reference, given, tensors):
    """What a reference of one text and head gives, (q, k, v, that head's tensors) float64, of all."""
    out = np.zeros(given.v.shape)
    arrays = [x.double().numpy() for x in (given.q, given.k, given.v)]
    for row in range(out.shape[0]):
        kept = slice(None) if given.keep is None else given.keep[row].numpy()
        for head in range(HEADS):
            named = {
                name: (x if name == "rotations" else x[head]).detach().double().numpy()
                for name, x in tensors.items()
            }
            out[row, head, kept] = reference(*(x[row, head][kept] for x in arrays), **named)
    return out


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def ragged(length, counts):
    return torch.arange(length)[None] < torch.tensor(counts)[:, None]


def holds(name, options, given, reference):
    """A kind gives what a reference of one text and head gives, wherever there is a token."""
    wanted = by_text(reference, given, own(name, options))
    found = mixed(name, options, given).numpy()
    if given.keep is not None:
        found, wanted = (np.moveaxis(x, 1, 2)[given.keep.numpy()] for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
