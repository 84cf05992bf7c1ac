"""config.json: what it says of the task, the labels and the lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of the architecture that the configuration records; "features" when it has no head for one."""
    name = next(iter(config.get("architectures") or ()), "")
    return next((task for suffix, task in _TASKS.items() if name.endswith(suffix)), "features")


def facts(config: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """labels, problem_type, causal and max_positions, as far as the configuration states them."""
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
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model.

    Raises:
        CaptureError: no such file, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CaptureError(f"'{path.parent}' holds no {path.name}: not a model that can be read.") from error
    except (ValueError, OSError) as error:
        raise CaptureError(f"'{path}' cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise CaptureError(f"'{path}' is not a JSON object.")
    return value
