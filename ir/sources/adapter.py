"""A LoRA adapter beside a checkpoint, in PEFT's format: merged into the weights, or refused by what it is.

LoRA (Hu et al., 2021): a layer of weight W computes with W + s B A, s = alpha / r, or alpha / sqrt(r) where
it is rank-stabilised. https://huggingface.co/docs/peft/developer_guides/checkpoint describes the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import CaptureError
from .config import read_json
from .stored import open_tensors, unpickled

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_ROOT = "base_model.model."
_KNOWN_STARTS = (
    True,
    False,
    None,
    "gaussian",
    "orthogonal",
    "eva",
)  # what leaves the base's weights as they are
# Settings that make of LoRA something else; each is refused where it is set.
_BEYOND = (
    "use_dora", "lora_bias", "layer_replication", "alora_invocation_tokens", "target_parameters",
    "trainable_token_indices", "use_qalora", "arrow_config", "corda_config", "megatron_config",
)  # fmt: skip
_PART = re.compile(r"^(?P<path>.+)\.lora_(?P<side>A|B|embedding_A|embedding_B)(\.weight)?$")


def has_adapter(directory: Path) -> bool:
    return any((directory / name).exists() for name in (CONFIG, *_WEIGHTS))


def alone(directory: Path) -> str:
    """What to say of a directory that holds an adapter and no model."""
    base = read_json(directory / CONFIG).get("base_model_name_or_path")
    wanted = f"the model '{base}'" if isinstance(base, str) and base else "the model that it was trained on"
    return (
        f"'{directory}' is an adapter alone: merge it into {wanted}, or put that model's config.json and "
        "weights beside it."
    )


def merge(model: nn.Module, directory: Path) -> set[str]:
    """Merges the adapter of a directory into a model, in place.

    Args:
        model: as loaded from the same directory, in float.

    Returns: names of the parameters that the adapter replaced whole (`modules_to_save`, biases).

    Raises:
        CaptureError: not plain LoRA, or it doesn't fit the model; named by the setting or the tensor.
    """
    config, tensors = _read(directory)
    for setting in _BEYOND:
        if config.get(setting):
            raise CaptureError(
                f"'{directory}' holds an adapter with {setting}: plain LoRA alone is merged; "
                "merge it with PEFT."
            )
    start = config.get("init_lora_weights")
    if not (isinstance(start, bool | str | None) and start in _KNOWN_STARTS):
        raise CaptureError(
            f"'{directory}' holds an adapter with init_lora_weights {start!r}, whose base is not the model's "
            "own weights: merge it with PEFT."
        )
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CaptureError(f"the adapter's '{name}' holds {tensor.dtype}: floats are meant.")
        part = _PART.match(name)
        if part:
            pairs.setdefault(part["path"].removeprefix(_ROOT), {})[part["side"]] = tensor
        else:
            whole[name.removeprefix(_ROOT).replace(".modules_to_save.", ".")] = tensor
    if not pairs and not whole:
        raise CaptureError(f"'{directory}' holds an adapter without a tensor.")
    for path, sides in pairs.items():
        _add(model, path, sides, config)
    return {_replace(model, name, tensor) for name, tensor in whole.items()}


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = read_json(directory / CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        called = f"of kind {kind}" if kind else "that is not PEFT's"
        raise CaptureError(
            f"'{directory}' holds an adapter {called}: plain LoRA alone is merged; merge it with the library "
            "that made it."
        )
    files = [directory / name for name in _WEIGHTS if (directory / name).exists()]
    if not files:
        raise CaptureError(f"'{directory}' holds {CONFIG} and no {_WEIGHTS[0]}: download it again.")
    if files[0].suffix == ".bin":
        return config, unpickled(files[0])
    with open_tensors(files[0]) as held:
        return config, {name: held.get_tensor(name) for name in list(held.keys())}


def _scale(config: Mapping[str, Any], path: str, rank: int) -> float:
    """s of a layer: its rank is the matrices' own, its alpha may be stated for it by a pattern."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        name = pattern.replace("\\.", ".").removeprefix("^").removesuffix("$")
        if not re.fullmatch(r"[\w.-]+", name):
            raise CaptureError(f"{CONFIG} gives alpha_pattern {pattern!r}, a pattern: merge it with PEFT.")
        if path == name or (path.endswith(f".{name}") and not pattern.startswith("^")):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CaptureError(f"{CONFIG} gives lora_alpha as {alpha!r}: a number is meant.")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _add(model: nn.Module, path: str, sides: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """W + s B A on one layer; an embedding's B A is the transpose of its table's change."""
    from transformers.pytorch_utils import Conv1D

    module = _module(model, path)
    down = sides.get("A", sides.get("embedding_A"))
    up = sides.get("B", sides.get("embedding_B"))
    table = isinstance(module, nn.Embedding)
    if not isinstance(module, nn.Linear | Conv1D | nn.Embedding) or table != ("embedding_A" in sides):
        raise CaptureError(
            f"the adapter changes '{path}', a {type(module).__name__}: linear layers and tables alone "
            "are merged."
        )
    if (
        down is None
        or up is None
        or down.dim() != 2
        or up.dim() != 2
        or up.shape[1] != len(down)
        or not len(down)
    ):
        raise CaptureError(f"the adapter's matrices for '{path}' are not A (r, in) and B (out, r).")
    change = up.double() @ down.double()
    # GPT-2's linear layers, like tables, keep (in, out); fan_in_fan_out says the same.
    change = change if isinstance(module, nn.Linear) else change.T
    weight = module.weight
    if change.shape != weight.shape:
        raise CaptureError(
            f"the adapter changes '{path}' by {tuple(change.shape)}, and its weight is "
            f"{tuple(weight.shape)}: it was trained on another model."
        )
    merged = (weight.double() + _scale(config, path, len(down)) * change).to(weight.dtype)
    module.weight = nn.Parameter(merged, weight.requires_grad)  # apart from what was tied to it


def _replace(model: nn.Module, name: str, tensor: Tensor) -> str:
    path, _, leaf = name.rpartition(".")
    module = _module(model, path)
    old = module._parameters.get(leaf)
    if old is None:
        raise CaptureError(f"the adapter holds '{name}', which is no weight of {type(model).__name__}.")
    if old.shape != tensor.shape:
        raise CaptureError(
            f"the adapter holds '{name}' of shape {tuple(tensor.shape)}, and the model's is "
            f"{tuple(old.shape)}."
        )
    module._parameters[leaf] = nn.Parameter(tensor.to(old.dtype), requires_grad=old.requires_grad)
    return next(held for held, parameter in model.named_parameters() if parameter is module._parameters[leaf])


def _module(model: nn.Module, path: str) -> nn.Module:
    """A part by the adapter's path: its model may have had a head around ours, or ours one around its."""
    base = getattr(model, "base_model_prefix", "")
    for candidate in (path, path.removeprefix(f"{base}."), f"{base}.{path}"):
        try:
            return model.get_submodule(candidate)
        except AttributeError:
            continue
    raise CaptureError(
        f"the adapter changes '{path}', which {type(model).__name__} lacks: it was trained on another model, "
        "or for another task (--task)."
    )
