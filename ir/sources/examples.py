"""Example inputs for a model from transformers, made from its signature and its configuration."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError

_BATCH, _LENGTH, _DECODER_LENGTH = 3, 11, 7


def example_inputs(model: nn.Module, directory: Any = None) -> dict[str, Tensor]:
    """Tensors that the model's forward takes, sized so that no two axes that may differ are equal.

    Raises:
        CaptureError: forward takes something that the configuration does not describe.
    """
    config: Any = model.config
    shape: tuple[int, ...]
    takes = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {}
    if "input_ids" in takes:
        rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        shape = (_BATCH, _LENGTH)
        inputs["input_ids"] = torch.randint(0, rows, shape, generator=generator)
        if "attention_mask" in takes:
            kept = _LENGTH - torch.arange(_BATCH)
            inputs["attention_mask"] = (torch.arange(_LENGTH)[None] < kept[:, None]).long()
        if "token_type_ids" in takes and (getattr(config, "type_vocab_size", 0) or 0) > 1:
            inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.long)
        if "decoder_input_ids" in takes and config.is_encoder_decoder:
            shape = (_BATCH, _DECODER_LENGTH)
            inputs["decoder_input_ids"] = torch.randint(0, rows, shape, generator=generator)
    vision = getattr(config, "vision_config", config)
    if "pixel_values" in takes and getattr(vision, "image_size", None):
        size = vision.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (_BATCH, getattr(vision, "num_channels", 3), height, width)
        inputs["pixel_values"] = torch.randn(shape, generator=generator)
    if "input_features" in takes and getattr(config, "max_source_positions", None):
        shape = (_BATCH, config.num_mel_bins, 2 * config.max_source_positions)
        inputs["input_features"] = torch.randn(shape, generator=generator)
        if config.is_encoder_decoder:
            rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
            inputs["decoder_input_ids"] = torch.randint(
                0, rows, (_BATCH, _DECODER_LENGTH), generator=generator
            )
    if not inputs:
        raise CaptureError(
            f"{type(model).__name__} takes {', '.join(takes)}, none of which its configuration describes: "
            "load it yourself and give example inputs."
        )
    return inputs
