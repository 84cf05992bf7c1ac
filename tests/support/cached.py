"""Decoders with a cache: keys and values of earlier tokens come in, and go out with one more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Cached(nn.Module):
    """One step of a Hugging Face decoder: forward(input_ids, attention_mask, position_ids, *past) ->
    (logits, *present), past and present as key, value, key, value, ..., (batch, heads, length, size)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor) -> Any:
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache(ddp_cache_data=list(zip(past[::2], past[1::2], strict=True)))
        result = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return (result.logits, *present)


def feed(config: Any, batch: int, past: int, seed: int = 0, hidden: int = 0) -> dict[str, Tensor]:
    """Inputs of one step by name; row r has its first r * hidden positions masked, as left padding is."""
    generator = torch.Generator().manual_seed(seed)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    mask = (torch.arange(past + 1)[None] >= hidden * torch.arange(batch)[:, None]).long()
    feeds = {
        "input_ids": torch.randint(5, config.vocab_size, (batch, 1), generator=generator),
        "attention_mask": mask,
        "position_ids": mask.sum(1, keepdim=True) - 1,
    }
    for layer in range(config.num_hidden_layers):
        for side in ("key", "value"):
            shape = (batch, heads, past, size)
            feeds[f"past.{layer}.{side}"] = torch.randn(shape, generator=generator)
    return feeds


def export(model: Any, path: Path, past: int = 5) -> None:
    """Writes one step as ONNX, batch and past symbolic."""
    feeds = feed(model.config, 2, past)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("past")
    dynamic: list[Any] = [{0: batch}, {0: batch, 1: torch.export.Dim.AUTO}, {0: batch}]
    dynamic.append(tuple({0: batch, 2: length} for name in feeds if name.startswith("past")))
    names = ["logits", *(name.replace("past", "present") for name in feeds if name.startswith("past"))]
    torch.onnx.export(
        Cached(model), tuple(feeds.values()), path, input_names=list(feeds), output_names=names,
        dynamic_shapes=tuple(dynamic), dynamo=True, optimize=True, verbose=False, external_data=True,
    )  # fmt: skip
