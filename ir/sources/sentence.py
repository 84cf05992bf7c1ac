"""A sentence-transformers directory: its pooling, dense and normalising layers become part of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import CaptureError, short
from ..program import Program
from .checkpoint import load
from .config import parsed, read_json
from .hf import finish
from .module import from_module
from .pooling import Pooling, modes

_ACTIVATIONS = ("torch.nn.modules.activation.", "torch.nn.modules.linear.Identity")
# Settings of the Transformer under which it gives the token vectors of a text.
_USUAL = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
          "query_expansion": False, "query_length": None, "document_length": None}  # fmt: skip
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SentenceEncoder(nn.Module):
    """Token vectors of `encoder`, pooled into one vector a row, then through `after`."""

    def __init__(self, encoder: nn.Module, pooling: nn.Module, after: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoder, self.pooling, self.after = encoder, pooling, nn.Sequential(*after)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return {"sentence_embedding": self.after(self.pooling(tokens, attention_mask))}


class Normalize(nn.Module):
    """Rows scaled to unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, p=2.0, dim=1)


class Dense(nn.Module):
    """activation(linear(x)), plus x (projected where the sizes differ) when it has a residual."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        inside, outside = config["in_features"], config["out_features"]
        self.linear = nn.Linear(inside, outside, bias=config.get("bias", True))
        self.activation_function = _activation(config.get("activation_function"))
        self.adds = bool(config.get("use_residual", False))
        if self.adds and inside != outside:
            self.residual = nn.Linear(inside, outside, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation_function(self.linear(x))
        if not self.adds:
            return y
        return y + (self.residual(x) if hasattr(self, "residual") else x)


class LayerNorm(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config["dimension"])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Truncate(nn.Module):
    """The first `width` numbers of a row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.width]


def is_sentence_transformer(directory: Path) -> bool:
    return (directory / "modules.json").exists()


def from_sentence_directory(directory: Path, attn: str | None, model_kind: str | None = None) -> Program:
    """Captures ids and mask to `sentence_embedding` (batch, dimension).

    Supported modules: Transformer, Pooling (every mode), Dense, LayerNorm, Normalize and Dropout, in the
    order of modules.json. Prompts are recorded in `info`, not applied; `truncate_dim` is.

    Raises:
        CaptureError: another module, a setting that changes what they compute, or a file that is missing or
            broken.
    """
    entries = _entries(directory)
    if len(entries) < 2 or entries[0][0] != "Transformer" or entries[1][0] != "Pooling":
        raise CaptureError(
            f"'{directory}' is made of {', '.join(kind for kind, _ in entries) or 'nothing'}: "
            "a Transformer and its Pooling are what is supported first."
        )
    home = entries[0][1]
    settings = _settings(directory)
    prompts, pooled = _prompts(settings), read_json(entries[1][1] / "config.json")
    if pooled.get("include_prompt") is False and prompts.get("prompt"):
        raise CaptureError(
            f"'{directory}' leaves its default prompt out of the pooling, which is not supported."
        )
    limits = _limits(home)
    loaded = load(home, None, attn, model_kind, headless=True)
    after = [_after(kind, path) for kind, path in entries[2:]]
    if settings.get("truncate_dim") is not None:
        after.append(Truncate(settings["truncate_dim"]))
    module = SentenceEncoder(loaded.model, Pooling(modes(pooled)), after)
    inputs = {n: loaded.inputs.tensors[n] for n in _INPUTS if n in loaded.inputs.tensors}
    axes = {name: loaded.inputs.axes[name] for name in inputs}
    info = loaded.info | {"source": str(directory), **limits, **prompts}
    return finish(from_module(module.eval(), inputs, "embedding", info, axes), loaded, prefix="encoder.")


def _entries(directory: Path) -> list[tuple[str, Path]]:
    """(kind, directory) of every module, in order."""
    try:
        listed = [("" + m["type"], directory / m["path"]) for m in parsed(directory / "modules.json")]
    except (TypeError, KeyError) as error:
        raise CaptureError(f"'{directory / 'modules.json'}' is not a list of modules.") from error
    for kind, _ in listed:
        if not kind.startswith("sentence_transformers."):
            raise CaptureError(f"modules.json lists {kind}, which is the model's own code: never run here.")
    entries = [(kind.rpartition(".")[2], path) for kind, path in listed]
    for _, path in entries:
        if not path.resolve().is_relative_to(directory.resolve()):
            raise CaptureError(f"modules.json points outside of the model, to '{path}'.")
    return entries


def _after(kind: str, path: Path) -> nn.Module:
    if kind in ("Normalize", "Dense") and (path / "config.json").exists():
        config = read_json(path / "config.json")
        for end in ("module_input_name", "module_output_name"):
            if config.get(end) not in (None, "sentence_embedding"):
                raise CaptureError(f"the {kind} in '{path}' sets {end} to {config[end]!r}: not supported.")
    if kind == "Normalize":
        return Normalize()
    if kind == "Dropout":
        return nn.Identity()
    if kind not in ("Dense", "LayerNorm"):
        raise CaptureError(f"modules.json lists a {kind} after the pooling, which is not supported.")
    try:
        config, weights = read_json(path / "config.json"), _weights(path)
        dense = kind == "Dense"
        name = "linear.weight" if dense else "norm.weight"
        asked = [config[size] for size in (("out_features", "in_features") if dense else ("dimension",))]
        if list(weights[name].shape) != asked:  # before memory is asked for
            raise CaptureError(
                f"'{path}' holds '{name}' of shape {tuple(weights[name].shape)}; its config.json asks for "
                f"{short(asked)}."
            )
        module = Dense(config) if dense else LayerNorm(config)
        module.load_state_dict(weights)
    except UnpicklingError as error:
        raise CaptureError(f"'{path}' holds a pickle that would run code: give model.safetensors.") from error
    except (KeyError, TypeError, RuntimeError, SafetensorError, OSError) as error:
        raise CaptureError(f"'{path}' does not hold a {kind}: {str(error).splitlines()[0]}") from error
    return module


def _weights(path: Path) -> dict[str, Tensor]:
    if (path / "model.safetensors").is_file():
        return load_file(path / "model.safetensors")
    return torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True)


def _activation(name: str | None) -> nn.Module:
    """An activation by the path of its class: only classes of torch.nn, made without arguments."""
    if name is None:
        return nn.Identity()
    name = str(name)[:200]
    kind = getattr(nn, name.rpartition(".")[2], None)
    if not name.startswith(_ACTIVATIONS) or kind is None:
        raise CaptureError(f"a Dense module asks for the activation {name}, which is none of torch.nn's.")
    try:
        return kind()
    except TypeError as error:
        raise CaptureError(
            f"a Dense module asks for the activation {name}, which takes arguments."
        ) from error


def _limits(home: Path) -> dict[str, Any]:
    """max_length and do_lower_case of sentence_bert_config.json, whatever the model is called.

    Raises:
        CaptureError: it asks for something else than token vectors of texts.
    """
    for path in sorted(home.glob("sentence_*_config.json")):
        config = read_json(path)
        for setting, usual in _USUAL.items():
            if config.get(setting) not in (None, usual):
                raise CaptureError(f"'{path}' sets {setting} to {config[setting]!r}, which is not supported.")
        length = config.get("max_seq_length")
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise CaptureError(f"'{path}' gives max_seq_length as {length!r}: a number of tokens is meant.")
        limits = {"max_length": length} if length else {}
        return limits | ({"do_lower_case": True} if config.get("do_lower_case") else {})
    return {}


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / "config_sentence_transformers.json"
    config = read_json(path) if path.exists() else {}
    width = config.get("truncate_dim")
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise CaptureError(f"'{path}' gives truncate_dim as {width!r}: a number of dimensions is meant.")
    return config


def _prompts(config: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"prompts": config.get("prompts"), "similarity": config.get("similarity_fn_name")}
    name = config.get("default_prompt_name")
    if name is not None and isinstance(facts["prompts"], dict):
        facts["prompt"] = facts["prompts"].get(name)
    return {key: value for key, value in facts.items() if value}
