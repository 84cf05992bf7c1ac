"""A Hugging Face checkpoint in memory: the class that its configuration names, filled from its files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from ..errors import CaptureError, short
from ..host.quiet import quiet
from ..program import Task
from . import adapter
from .config import architecture, check_sizes, facts, read_json, task_of
from .examples import first_example
from .fit import check_fit, check_memory
from .inputs import Example
from .kinds import model_type
from .stored import Stored, stored
from .tokenizer import check_ids, pad_token_id, tokenizer_facts, tokenizer_files

_AUTO: dict[str, str] = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
}

_LONGEST = 300  # of what transformers says, which may repeat a whole field
_FIELD = re.compile(  # a value of another type than its field's, as huggingface_hub's validation says it
    r"Field '(\w+)' (?:expected (\w+), got \w+ \(value: (.*?)\)"
    r"|with value (.*?) doesn't match any type in \((.*?)\)\.)",
    re.DOTALL,
)


@dataclass
class Loaded:
    """A checkpoint. missing: parameters that it does not hold. inputs: an example for the model."""

    model: nn.Module
    task: Task
    inputs: Example
    info: dict[str, Any]
    tokenizer: dict[str, bytes]
    missing: frozenset[str] = field(default_factory=frozenset)


def load(
    directory: Path, task: Task | None, attn: str | None, kind: str | None = None, headless: bool = False
) -> Loaded:
    """Reads configuration, weights and tokenizer files; nothing is executed but transformers' own code.

    Args:
        kind: transformers' type of the model, where config.json doesn't say.
        headless: the encoder alone, whatever head the configuration records.
    """
    if not (directory / "config.json").exists() and (directory / adapter.CONFIG).exists():
        raise CaptureError(adapter.alone(directory))
    config = read_json(directory / "config.json")
    name, recorded = architecture(config), task_of(config)
    if "quantization_config" in config:
        raise CaptureError(f"'{directory}' is quantized already: give the checkpoint in float.")
    if "transformers_weights" in config:
        raise CaptureError(
            f"config.json of '{directory}' names other weights than its own: remove that line."
        )
    if kind is None and "model_type" in config:
        kind = model_type(directory, config, ())  # before files are asked for that it may not need
    held = stored(directory)
    kind = model_type(directory, config, held.tensors, kind)
    check_sizes(config, len(held.tensors) or held.elements)
    chosen = "features" if headless else task or recorded
    maker = _encoder(config) if headless else _class(name, chosen, recorded)
    with _of_model_alone(directory, held, config | {"model_type": kind}) as folder:
        model, report = _filled(directory, folder, held, maker, attn)
    replaced = adapter.merge(model, directory) if adapter.has_adapter(directory) else set()
    unread = check_fit(model, held, report, directory)
    for config in (part.config for part in model.modules() if hasattr(part, "config")):
        if getattr(config, "use_cache", False):
            config.use_cache = False
    model.config.return_dict = True
    files = tokenizer_files(directory)
    info: dict[str, Any] = {"source": str(directory), "model_type": model.config.model_type}
    info |= tokenizer_facts(files)
    check_ids(files, model)
    info |= facts(model.config.to_dict(), chosen)
    info |= {"unused_weights": unread} if unread else {}
    pad = pad_token_id(files)
    if pad is None:
        pad = getattr(model.config, "pad_token_id", None)
    if pad is not None:
        info["pad_token_id"] = pad
    missing = frozenset(report["missing_keys"]) - replaced
    return Loaded(model.eval(), chosen, first_example(model, directory), info, files, missing)


def _class(name: str, chosen: Task, recorded: Task) -> Any:
    """The class to fill: the recorded one, or transformers' own choice for another task."""
    import transformers

    if chosen in _AUTO and chosen != recorded:
        return getattr(transformers, _AUTO[chosen])
    maker = getattr(transformers, name, None) if name else transformers.AutoModel
    if not hasattr(maker, "from_pretrained"):
        raise CaptureError(f"config.json names the architecture {name!r}, which transformers does not have.")
    return maker


def _encoder(config: Mapping[str, Any]) -> Any:
    """As sentence-transformers: the base model, and of an encoder-decoder the encoder."""
    import transformers

    both = config.get("is_encoder_decoder")
    return transformers.AutoModelForTextEncoding if both else transformers.AutoModel


@contextmanager
def _of_model_alone(directory: Path, held: Stored, config: Mapping[str, Any]) -> Iterator[Path]:
    """A folder of the model's configuration and weights alone: beside an adapter, transformers loads other
    things where PEFT is installed; and old configurations don't say what they are."""
    import json

    if not adapter.has_adapter(directory) and "model_type" in read_json(directory / "config.json"):
        yield directory
        return
    with TemporaryDirectory(prefix="graphwright-") as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        indexes = [
            p for p in directory.glob("*.index.json") if not (directory / "model.safetensors").exists()
        ]
        for file in (*held.files, *indexes):
            (folder / file.name).symlink_to(file.resolve())
        yield folder


def _filled(directory: Path, folder: Path, held: Stored, maker: Any, attn: str | None) -> tuple[Any, Any]:
    """(the model, transformers' report of missing and unexpected keys)"""
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    if attn is not None:
        options["attn_implementation"] = attn
    try:
        with quiet():
            maker, config = _concrete(maker, folder, options)
            check_memory(maker, config, held, directory)
            # Tensors of another shape are reported, and refused below.
            options |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
            if "add_pooling_layer" in inspect.signature(maker.__init__).parameters:
                options["add_pooling_layer"] = False
            model, report = maker.from_pretrained(folder, **options)
    except CaptureError:
        raise
    except UnpicklingError as error:
        raise CaptureError(
            f"'{directory}' holds a pickle that would run code: give model.safetensors."
        ) from error
    except Exception as error:  # whatever a model's own code says of a configuration that it didn't foresee
        raise CaptureError(f"'{directory}' cannot be loaded: {_reason(error, directory, folder)}") from error
    for name, stored_shape, asked in sorted(report["mismatched_keys"]):
        raise CaptureError(
            f"'{directory}' holds '{name}' of shape {tuple(stored_shape)}; its config.json asks for "
            f"{tuple(asked)}."
        )
    return model, report


def _concrete(maker: Any, folder: Path, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The class that one of transformers' automatic ones chooses, and its configuration."""
    from transformers import AutoConfig, PreTrainedModel

    if issubclass(maker, PreTrainedModel):
        return maker, maker.config_class.from_pretrained(folder, **options)
    config = AutoConfig.from_pretrained(folder, **options)
    if type(config) not in maker._model_mapping:
        raise ValueError(
            f"transformers has no {maker.__name__.removeprefix('Auto')} for {config.model_type}."
        )
    chosen = maker._model_mapping[type(config)]
    if isinstance(chosen, tuple | list):
        named = [c for c in chosen if c.__name__ in (config.architectures or ())]
        chosen = (*named, *chosen)[0]
    return chosen, config


def _reason(error: Exception, directory: Path, folder: Path) -> str:
    if found := _FIELD.search(str(error)):
        name, kind, value, other, kinds = found.groups()
        value, kind = value or other or "", kind or ", ".join(re.findall(r"(\w+)(?:'>|\[)", kinds))
        value = value if len(value) <= 80 else f"{value[:77]}..."
        return f"its config.json gives {name} as {value}, and {kind} is meant."
    if isinstance(error, KeyError) and error.args:
        config = read_json(folder / "config.json")
        names = [name for name, value in config.items() if value == error.args[0]]
        if names:
            given = short(error.args[0])
            return f"its config.json gives {names[0]} as {given}, which transformers does not know."
    lines = [line.strip() for line in str(error).strip().split("\n")]
    said = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).replace(str(folder), str(directory))
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
    if isinstance(error, RecursionError):
        return "its config.json is nested too deeply."
    plain = (
        isinstance(error, OSError | ValueError | RuntimeError | ImportError | StrictDataclassError) and said
    )
    return said if plain else f"its config.json does not describe a model ({type(error).__name__}: {said})."
