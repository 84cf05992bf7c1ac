"""A Hugging Face checkpoint in memory: the class that its configuration names, filled from its files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CaptureError
from ..program import Task
from ..quiet import quiet
from .config import facts, read_json, task_of
from .examples import example_inputs
from .tokenizer import pad_token_id, tokenizer_facts, tokenizer_files

_AUTO: dict[str, str] = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
}
# What transformers raises for a checkpoint that it cannot use, depending on what is wrong with it.
_FAULTS = (
    OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, TypeError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip


@dataclass
class Loaded:
    """A checkpoint. missing: parameters that it does not hold. inputs: example tensors for the model."""

    model: nn.Module
    task: Task
    inputs: dict[str, Tensor]
    info: dict[str, Any]
    tokenizer: dict[str, bytes]
    missing: frozenset[str] = field(default_factory=frozenset)


def load(directory: Path, task: Task | None, attn: str | None) -> Loaded:
    """Reads configuration, weights and tokenizer files; nothing is executed but transformers' own code."""
    import transformers

    config = read_json(directory / "config.json")
    _check(directory, config)
    name = next(iter(config.get("architectures") or ()), "")
    recorded = task_of(config)
    chosen = task or recorded
    if chosen in _AUTO and chosen != recorded:
        maker = getattr(transformers, _AUTO[chosen])
    else:
        maker = getattr(transformers, name, None) if name else transformers.AutoModel
    if not hasattr(maker, "from_pretrained"):
        raise CaptureError(f"config.json names the architecture {name!r}, which transformers does not have.")
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # reported, and refused below
    if attn is not None:
        options["attn_implementation"] = attn
    if "add_pooling_layer" in inspect.signature(maker.__init__).parameters:
        options["add_pooling_layer"] = False
    try:
        with quiet():
            model, report = maker.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True, **options
            )
    except UnpicklingError as error:
        raise CaptureError(
            f"'{directory}' holds a pickle that would run code: give model.safetensors."
        ) from error
    except _FAULTS as error:
        lines = [line.strip() for line in str(error).strip().split("\n")]
        reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        raise CaptureError(f"'{directory}' cannot be loaded: {reason}") from error
    for name, held, asked in sorted(report["mismatched_keys"]):
        raise CaptureError(
            f"'{directory}' holds '{name}' of shape {tuple(held)}; its config.json asks for {tuple(asked)}."
        )
    model.config.use_cache = False
    model.config.return_dict = True
    files = tokenizer_files(directory)
    info: dict[str, Any] = {"source": str(directory), "model_type": model.config.model_type}
    info |= tokenizer_facts(files) | facts(model.config.to_dict(), chosen)
    pad = pad_token_id(files)
    if pad is None:
        pad = getattr(model.config, "pad_token_id", None)
    if pad is not None:
        info["pad_token_id"] = pad
    return Loaded(model.eval(), chosen, example_inputs(model), info, files, frozenset(report["missing_keys"]))


def _check(directory: Path, config: Mapping[str, Any]) -> None:
    """Refuses what transformers would refuse late, obscurely, or not at all."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise CaptureError(
                f"'{directory}' brings its own code (auto_map in config.json): never run here."
            )
        raise CaptureError(f"config.json names model_type {kind!r}, which transformers does not know.")
    if "quantization_config" in config:
        raise CaptureError(f"'{directory}' is quantized already: give the checkpoint in float.")
    shards = sorted(directory.glob("*.safetensors"))
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = [directory / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    if not shards and not list(directory.glob("pytorch_model*.bin")):
        raise CaptureError(f"'{directory}' holds no weights: model.safetensors is what is looked for.")
    for shard in shards:
        if shard.parent != directory or not shard.is_file():
            raise CaptureError(f"'{index}' names {shard.name}, which is not there: download it again.")
        try:
            with safe_open(shard, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CaptureError(f"'{shard}' is truncated or no safetensors file: {error}") from error
