"""Whether a model hides padding where it has no cache, as in a program, and not where it has one."""

from __future__ import annotations

from typing import Any

import torch

from ..outputs import flattened
from .eager import AGREE, REFUSALS, apart
from .inputs import Example


def of_padding(model: Any, example: Example) -> str:
    """A note where the model's default call, over a cache, gives other outputs than without for ids that are
    padding; empty where it doesn't, or has no cache."""
    pad = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None)
    ids = [name for name in example.tensors if name.endswith("input_ids")]
    cached = any(hasattr(part.config, "use_cache") for part in model.modules() if hasattr(part, "config"))
    if pad is None or not ids or not cached:
        return ""
    tensors = {name: tensor.clone() for name, tensor in example.tensors.items()}
    for name in ids:
        tensors[name][:, 0] = pad
    try:
        with torch.no_grad():
            with_cache, without = (
                flattened(model(**tensors, use_cache=each).to_tuple()[0])[0][0][1] for each in (True, False)
            )
    except REFUSALS:
        return ""
    if with_cache.shape != without.shape or apart(with_cache[:, 1:], without[:, 1:]) <= AGREE:
        return ""
    return (
        f"{type(model).__name__} hides padding tokens where it has no cache, as here, and not in its default "
        "call: give a decoder_attention_mask there, and the two agree."
    )
