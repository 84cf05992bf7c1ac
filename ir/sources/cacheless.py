"""Whether a model hides padding where it has no cache, as in a program, and not where it has one."""

from __future__ import annotations

from typing import Any

import torch

from ..fx.outputs import flattened
from .eager import AGREE, REFUSALS, apart
from .inputs import Example


def of_padding(model: Any, example: Example) -> str:
    """A note where the model's default call, over a cache, gives other outputs than without for a decoder's
    ids that are padding; empty where it doesn't, or has no cache, or is told by a mask."""
    tensors = {name: tensor.clone() for name, tensor in example.tensors.items()}
    if "decoder_input_ids" not in tensors or "decoder_attention_mask" in tensors:
        return ""
    try:
        pad = model.config.get_text_config(decoder=True).pad_token_id
        tensors["decoder_input_ids"][:, 0] = pad
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
