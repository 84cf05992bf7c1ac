"""text-embeddings-inference's routes: what they take and what they give.

Reference: huggingface/text-embeddings-inference, router/src/http/types.rs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict

from .model import Model
from .refusal import Refusal


def _listed(value: Any) -> Any:
    """One text, or several in a list."""
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
        raise ValueError("a text, or a list of one or more texts, is wanted")
    for number, each in enumerate(value):
        if not isinstance(each, str):
            raise ValueError(f"number {number} of the list is not a text{_ids(each)}")
    return value


def _ids(value: Any) -> str:
    """What to say where token ids are sent, as some clients do."""
    numbers = value if isinstance(value, list) else [value]
    return "; token ids are not taken" if any(isinstance(n, int) for n in numbers) else ""


def _sequences(value: Any) -> Any:
    """A text, a pair of texts, or a list of lists of one text or two."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        rows = [value] if isinstance(value[0], str) else value
        if all(isinstance(row, list) and 1 <= len(row) <= 2 for row in rows) and all(
            isinstance(text, str) for row in rows for text in row
        ):
            return value
    raise ValueError("a text, a pair [text, text], or a list of such pairs and of [text] is wanted")


Texts = Annotated[list[str], BeforeValidator(_listed)]


class Request(BaseModel):
    """Nothing that isn't known is passed over: a misspelled field would change what is computed."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Embed(Request):
    """POST /embed. prompt_name: of those that the model was trained with."""

    inputs: Texts
    truncate: bool | None = None
    normalize: bool = True
    prompt_name: str | None = None
    truncation_direction: Literal["right", "Right"] = "right"
    dimensions: int | None = None


class Rerank(Request):
    """POST /rerank."""

    query: str
    texts: Texts
    truncate: bool | None = None
    raw_scores: bool = False
    return_text: bool = False
    truncation_direction: Literal["right", "Right"] = "right"


class Predict(Request):
    """POST /predict. A list of two texts is a pair; several of them are lists in a list."""

    inputs: Annotated[Any, BeforeValidator(_sequences)]
    truncate: bool | None = None
    raw_scores: bool = False
    truncation_direction: Literal["right", "Right"] = "right"

    @property
    def single(self) -> bool:
        return isinstance(self.inputs, str) or isinstance(self.inputs[0], str)

    @property
    def rows(self) -> list[list[str]]:
        """Each with one text or two."""
        if isinstance(self.inputs, str):
            return [[self.inputs]]
        return [self.inputs] if self.single else self.inputs


def vectors(rows: Sequence[np.ndarray], normalize: bool, dimensions: int | None) -> np.ndarray:
    """float32 (texts, width): cut and then of length 1, as asked."""
    found = np.stack(rows)[:, :dimensions]
    if normalize:
        norms = np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)
        found = (found / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
    return np.ascontiguousarray(found)


def check_dimensions(model: Model, dimensions: int | None) -> None:
    """Raises Refusal for a width that the model's vectors may not be cut to."""
    if dimensions is None or dimensions == model.width or dimensions in model.cuts:
        return
    if not model.cuts:
        raise Refusal(
            400,
            f"{model.name} was not trained for shorter vectors than its {model.width} numbers: "
            "leave dimensions out",
            param="dimensions",
        )
    known = ", ".join(str(cut) for cut in sorted({*model.cuts, model.width}))
    raise Refusal(400, f"{model.name} was trained for vectors of {known} numbers", param="dimensions")


def ranks(rows: Sequence[np.ndarray], asked: Rerank) -> list[dict[str, Any]]:
    """The texts' scores, best first."""
    scores = np.concatenate(rows)
    scores = scores if asked.raw_scores else _sigmoid(scores)
    found: list[dict[str, Any]] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        text = {"text": asked.texts[index]} if asked.return_text else {}
        found.append({"index": index, **text, "score": scores[index]})
    return found


def predictions(model: Model, row: np.ndarray, raw: bool) -> list[dict[str, Any]]:
    """A text's labels with their scores, the likeliest first."""
    info = model.bundle.manifest.info
    several = info.get("problem_type") == "multi_label_classification" or len(row) == 1
    scores = row if raw else _sigmoid(row) if several else _softmax(row)
    names = [str(name) for name in info.get("labels", ())]
    labels = names if len(names) == len(row) else [f"LABEL_{number}" for number in range(len(row))]
    return [{"score": scores[at], "label": labels[at]} for at in np.argsort(-scores, kind="stable").tolist()]


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32)


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores.astype(np.float64) - float(scores.max()))
    return (weights / weights.sum()).astype(np.float32)
