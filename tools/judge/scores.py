"""A score, who gives it, and which of a model's outputs it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...ir.errors import DataError
from ...passes.manager.contract import Feed

Outputs = Mapping[str, np.ndarray]
Runner = Callable[[Feed], Outputs]


@dataclass(frozen=True)
class Score:
    """value: in points, that is times 100 for everything but perplexity. details: what stands beside it.
    nothing: why a score of this kind can't tell a broken model from this one, in words that follow "the
    model"; empty where it can. What is compared with such a score is not judged. said: a doubt about it."""

    metric: str
    value: float
    higher_is_better: bool = True
    details: Mapping[str, float] = field(default_factory=dict)
    nothing: str = ""
    said: str = ""

    def drop_from(self, reference: Score) -> float:
        """Points lost against the reference; below zero where this one is better."""
        lost = reference.value - self.value
        return lost if self.higher_is_better else -lost

    def to_json(self) -> dict[str, Any]:
        """Without what is only for the run itself."""
        return {
            "metric": self.metric,
            "value": self.value,
            "higher_is_better": self.higher_is_better,
            "details": dict(self.details),
        }


class Judge(Protocol):
    """Scores a runner."""

    def __call__(self, run: Runner) -> Score: ...


def logits(outputs: Outputs, rank: int) -> np.ndarray:
    """The output that holds one score a class: named so, or the only one of that rank."""
    found = [array for name, array in outputs.items() if "logits" in name and array.ndim == rank]
    found = found or [array for array in outputs.values() if array.ndim == rank]
    if not found:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
        raise DataError(f"the task needs an output of rank {rank} with one score a class; there is {shapes}")
    return found[0]


def class_scores(outputs: Outputs) -> np.ndarray:
    """(rows, classes): one score a class, or a single one, which may lack its axis."""
    ranks = {array.ndim for array in outputs.values()}
    return logits(outputs, 1)[:, None] if 1 in ranks and 2 not in ranks else logits(outputs, 2)


def embedding(outputs: Outputs, mask: np.ndarray | None) -> np.ndarray:
    """(batch, size): the model's own sentence embedding, or the mean of its hidden states at real tokens."""
    for name in ("sentence_embedding", *outputs):
        if name in outputs and outputs[name].ndim == 2:
            return outputs[name]
    hidden = next((array for array in outputs.values() if array.ndim == 3), None)
    if hidden is None:
        raise DataError("sentence similarity needs an embedding, and the model gives none")
    weight = np.ones(hidden.shape[:2]) if mask is None else mask.astype(np.float64)
    real = np.where(weight[..., None] != 0, hidden, 0)  # NaN at padding is nobody's
    return (real * weight[..., None]).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)[:, None]
