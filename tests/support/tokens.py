"""What tests of eliminated tokens share: models that give one vector a text, texts alone and in batches."""

from __future__ import annotations

import functools

import numpy as np
import torch
import zoo
from graphwright.ir.capture import capture
from torch import nn


class Pooled(nn.Module):
    """A vector a text: that of its first token, or the mean over its mask."""

    def __init__(self, model, how):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, **inputs):
        found = self.model(**inputs)
        hidden = (
            found[0]
            if isinstance(found, tuple)
            else next(iter(found.values()))
            if hasattr(found, "values") and not torch.is_tensor(found)
            else found
        )
        if self.how == "first":
            return hidden[:, 0]
        if self.how == "all":
            return hidden.mean(1)
        mask = inputs["attention_mask"][..., None].expand(hidden.size()).float()
        return (hidden * mask).sum(1) / torch.clamp(mask.sum(1), min=1e-9)


@functools.cache
def pooled(name, how="mean", attn="sdpa"):
    """An architecture of the zoo behind a pooling. Shared: clone before editing."""
    case = zoo.ARCHITECTURES[name]
    torch.manual_seed(0)
    module = case.build(attn)
    for parameter in module.parameters():  # so that tokens differ in what they receive
        if parameter.dim() > 1:
            parameter.data *= 4
    if name == "t5":
        module = module.get_encoder()
        inputs = {k: v for k, v in case.inputs().items() if not k.startswith("decoder")}
    else:
        inputs = case.inputs()
    return capture(Pooled(module, how).eval(), inputs=inputs)


def batch(program, lengths, left=False, seed=0):
    """Rows of so many tokens, padded to the longest, on the right or on the left."""
    rng, longest = np.random.default_rng(seed), max(lengths)
    arrays = {}
    for spec in program.inputs:
        shape = (len(lengths), longest)
        if spec.role == "attention_mask":
            kept = np.arange(longest)[None] < np.array(lengths)[:, None]
            arrays[spec.name] = (kept[:, ::-1] if left else kept).astype(np.int64)
        else:
            arrays[spec.name] = rng.integers(spec.low or 0, spec.high, shape)
    return arrays


def alone(program, arrays, row):
    """One text of a batch, without its padding."""
    mask = next(spec.name for spec in program.inputs if spec.role == "attention_mask")
    kept = arrays[mask][row] != 0
    return {name: array[row : row + 1, kept] for name, array in arrays.items()}
