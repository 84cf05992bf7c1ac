"""config.json: what it says of the task, the labels and the lengths, and whether it can be believed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import CaptureError
from ..program import Task

# The end of the class name that the configuration records -> what the outputs are.
_TASKS: dict[str, Task] = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "masked-lm",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}
LARGEST = 100 * 2**20
"""Bytes of the largest JSON file that is read: ten times the largest vocabulary that is known."""

# Sizes by the words that transformers' configurations make their names of. What is named by none is no size.
_LAYERS = re.compile(
    r"^(num|n)_(\w+_)?(layers?|blocks?|stages|experts)$|^(en|de)coder_layers$|^(layers|depths?)$"
)
_HEADS = re.compile(r"^(num|n)_(\w+_)?heads?$|^(en|de)coder_attention_heads$")
_WIDTH = re.compile(r"(^|_)(vocab_size|hidden_sizes?|embedding_size|d_model|n_embd|embed_dim)$")
# Of something that a model may be without, there may be none: DeBERTa has a type_vocab_size of 0.
_NEEDED = re.compile(
    r"^((num|n)_(attention_|key_value_)?heads?|vocab_size|hidden_size|embedding_size|d_model|n_embd|embed_dim)$"
)
_POSITIONS = re.compile(r"positions?(_embeddings)?$")
_DTYPES = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 double float half".split()
_DEEPEST = 32
_MANY_LAYERS, _MANY_LABELS, _MANY_POSITIONS = 256, 10**6, 2**24


def architecture(config: Mapping[str, Any]) -> str:
    """The class that the configuration records first; empty when it records none.

    Raises:
        CaptureError: `architectures` is no list of names.
    """
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CaptureError(
            f"config.json gives architectures as {_shown(names)}: a list of class names is meant."
        )
    return names[0] if names else ""


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of the architecture that the configuration records; "features" when it has no head for one."""
    name = architecture(config)
    return next((task for suffix, task in _TASKS.items() if name.endswith(suffix)), "features")


def facts(config: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """labels, problem_type, causal, max_positions and matryoshka_dimensions (widths that vectors may be cut
    to), as far as the configuration states them."""
    found: dict[str, Any] = {}
    labels = config.get("id2label") or {}
    if task in ("sequence-classification", "token-classification"):
        found["labels"] = [labels[key] for key in sorted(labels, key=int)]
    if config.get("problem_type"):
        found["problem_type"] = config["problem_type"]
    if task == "causal-lm":
        found["causal"] = True
    if isinstance(config.get("max_position_embeddings"), int):
        found["max_positions"] = config["max_position_embeddings"]
    widths = config.get("matryoshka_dimensions")
    if isinstance(widths, list) and all(type(width) is int and width > 0 for width in widths) and widths:
        found["matryoshka_dimensions"] = sorted(widths)
    return found


def check_sizes(config: Mapping[str, Any], tensors: int) -> None:
    """Refuses sizes that no model has, before anything is made of them.

    Args:
        config: the object in config.json. tensors: how many the checkpoint holds: a layer has at least one,
            except where layers share them.

    Raises:
        CaptureError: a size that isn't positive, or one that asks for more than a checkpoint could fill.
    """
    for name, value in _integers(config):
        last = name.rpartition(".")[2]
        layers, sized = _LAYERS.search(last), _HEADS.search(last) or _WIDTH.search(last)
        least = 1 if _NEEDED.search(last) else 0
        if value < least and (layers or sized):
            raise CaptureError(f"config.json gives {name} as {value}: a size is at least {least}.")
        if layers and value > max(tensors, _MANY_LAYERS):
            raise CaptureError(
                f"config.json gives {name} as {value}, and the checkpoint holds {tensors} tensors in all."
            )
        limit = (
            _MANY_LABELS if last == "num_labels" else _MANY_POSITIONS if _POSITIONS.search(last) else value
        )
        if value > limit:
            raise CaptureError(f"config.json gives {name} as {value}: at most {limit} are read.")
    for name in ("dtype", "torch_dtype"):
        kind = config.get(name)
        if kind not in (None, "auto") and not (isinstance(kind, str) and kind.split(".")[-1] in _DTYPES):
            raise CaptureError(
                f"config.json gives {name} as {_shown(kind)}: the name of a type is meant, such as float32."
            )
    labels = config.get("id2label")
    if labels is not None and not (isinstance(labels, Mapping) and all(_is_integer(k) for k in labels)):
        raise CaptureError("config.json gives id2label as something else than labels by number.")


def _integers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(dotted name, integer) of every integer in a configuration, those in lists by the list's name."""
    stack: list[tuple[str, Any, int]] = [("", config, 0)]
    while stack:
        name, value, depth = stack.pop()
        if depth > _DEEPEST:
            raise CaptureError(f"config.json is nested {depth} deep: no model's configuration is.")
        if isinstance(value, Mapping):
            stack += [
                (f"{name}.{key}" if name else str(key), inner, depth + 1) for key, inner in value.items()
            ]
        elif isinstance(value, list):
            stack += [(name, inner, depth + 1) for inner in value]
        elif isinstance(value, int) and not isinstance(value, bool):
            yield name, value


def _is_integer(key: Any) -> bool:
    try:
        int(key)
    except (ValueError, TypeError):
        return False
    return True


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model.

    Raises:
        CaptureError: no such file, not a regular one, or not a JSON object.
    """
    if not path.exists():
        raise CaptureError(f"'{path.parent}' holds no {path.name}: not a model that can be read.")
    value = parsed(path)
    if not isinstance(value, dict):
        raise CaptureError(f"'{path}' is not a JSON object.")
    return value


def parsed(path: Path) -> Any:
    """Whatever JSON a file of the model holds.

    Raises:
        CaptureError: no such file, not a regular one, too large, or not JSON.
    """
    try:
        if not path.is_file():  # a pipe would wait for a writer
            raise CaptureError(f"'{path}' is not a regular file.")
        if path.stat().st_size > LARGEST:
            raise CaptureError(f"'{path}' is larger than {LARGEST >> 20} MB: not a model's configuration.")
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise CaptureError(f"'{path}' cannot be read: it is nested too deeply.") from None
    except (ValueError, OSError) as error:
        raise CaptureError(f"'{path}' cannot be read: {error}.") from error
