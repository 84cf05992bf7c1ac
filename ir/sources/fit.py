"""Whether a checkpoint and the model that its configuration describes are one and the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CaptureError
from .stored import Stored

# A model may have buffers, tables of sines and heads that its checkpoint lacks; not several times itself.
_FACTOR, _SPARE = 4, 2**26
_INTEGERS = {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"}


def check_memory(maker: Any, config: Any, held: Stored, directory: Path) -> None:
    """Counts the model's numbers before they are allocated.

    Args:
        maker: a class of transformers'. config: its configuration.

    Raises:
        CaptureError: the configuration asks for far more than the checkpoint holds.
    """
    from transformers.initialization import meta_device_safe_creation_ops

    with torch.device("meta"), meta_device_safe_creation_ops():
        model = maker._from_config(config)
    asked = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    if asked > _FACTOR * held.elements + _SPARE:
        raise CaptureError(
            f"config.json of '{directory}' asks for {asked:,} numbers, and its checkpoint holds "
            f"{held.elements:,}: it belongs to another model."
        )


def check_fit(model: nn.Module, held: Stored, report: Mapping[str, Any], directory: Path) -> list[str]:
    """Judges the checkpoint's tensors that the model didn't take.

    A head for another task stands beside the layers, and is left; a tensor inside of them is a part of the
    function that would be lost: a layer that config.json doesn't count, a bias, an adapter's matrix.

    Args:
        report: transformers' own, with `unexpected_keys`.

    Returns: names of the tensors that nothing uses.

    Raises:
        CaptureError: a tensor belongs into a layer and has no place there, or holds integers for floats.
    """
    base = getattr(model, "base_model_prefix", "")
    unread = sorted(report["unexpected_keys"])
    for name in unread:
        if _inside(model, name, base):
            raise CaptureError(
                f"'{directory}' holds '{name}', which the model of its config.json has no place for: the "
                "configuration belongs to another model."
            )
    floats = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for name, (dtype, _) in held.tensors.items():
        places = {name, name.removeprefix(f"{base}."), f"{base}.{name}"}
        if dtype in _INTEGERS and places & floats:
            raise CaptureError(f"'{directory}' holds '{name}' as {dtype}: a weight is made of floats.")
    return unread


def _inside(model: nn.Module, name: str, base: str) -> bool:
    """Whether a tensor's path leads into a part of the base model, beyond its top."""
    path = name.split(".")
    if base and path[0] == base and not hasattr(model, base):
        path = path[1:]
    part: Any = model
    depth = 0
    for step in path[:-1]:
        below = part._modules.get(step)
        if below is None:
            break
        part, depth = below, depth + 1
    # The base model stands at the top, or a step below where there is a head around it.
    inside = not base or not hasattr(model, base) or path[0] == base
    return inside and depth > (1 if hasattr(model, base) and base else 0)
