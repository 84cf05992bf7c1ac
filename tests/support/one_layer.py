"""The smallest model with an attention: what must be lowered or compiled in a test is little."""

from __future__ import annotations

import functools

import torch
from graphwright.ir.capture import capture
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

WIDTH, HEADS = 16, 2


class OneLayer(nn.Module):
    """An attention over embedded ids, and the mean of what it gives over the mask.

    window: how many tokens a token sees on either side; None is all.
    """

    def __init__(self, window=None):
        super().__init__()
        torch.manual_seed(0)
        self.window = window
        self.table, self.out = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, input_ids, attention_mask):
        x = self.table(input_ids)
        heads = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (each(x).view(heads).transpose(1, 2) for each in (self.q, self.k, self.v))
        seen = attention_mask[:, None, None, :] > 0
        if self.window is not None:
            places = torch.arange(x.shape[1])
            seen = seen & ((places[:, None] - places).abs() <= self.window)
        found = scaled_dot_product_attention(2 * q, k, v, attn_mask=seen)
        found = self.out(found.transpose(1, 2).flatten(2)) * attention_mask[..., None]
        return found.sum(1) / attention_mask.sum(1, keepdim=True)


def inputs(length=9):
    """Of two texts, the second of them shorter."""
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    return {"input_ids": torch.arange(2 * length).reshape(2, length) % 50, "attention_mask": mask}


@functools.cache
def one_layer(window=None):
    """Captured with a text of nine tokens. Shared: clone before editing."""
    return capture(OneLayer(window).eval(), inputs=inputs())
