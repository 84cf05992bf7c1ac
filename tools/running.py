"""`optimize run BUNDLE`: texts or arrays in, answers or outputs out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.answers import Answer
from ..backends.runner import CLASSIFIERS, load
from ..ir.errors import InputError


def run(bundle: str, texts: Sequence[str] | None, inputs: str | None) -> Any:
    """What a bundle says: a classifier's answers to texts, else outputs by name.

    Args:
        bundle: a directory that `optimize` wrote.
        texts: one answer, or row of outputs, each.
        inputs: a JSON file, an array (nested lists) for each input, instead of texts.

    Raises:
        InputError: neither or both were given, or the arrays don't fit the model.
        BundleError: no bundle, or one that was tampered with.
    """
    if bool(texts) == (inputs is not None):
        raise InputError("say what to run it on: either --text (may be repeated) or --inputs FILE.json")
    artifact = load(bundle)
    if texts and artifact.manifest.task in CLASSIFIERS:
        return artifact.predict(list(texts))
    if texts:
        return artifact.run(artifact.encode(list(texts)))
    dtypes = {spec.name: spec.dtype for spec in artifact.inputs}
    return artifact.run(_arrays(Path(inputs or ""), dtypes))


def _arrays(path: Path, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it should be an object with an array for each input")
        return {name: np.asarray(value, dtypes.get(name)) for name, value in content.items()}
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} does not hold arrays: {error}") from error


def lines(found: Any) -> list[str]:
    """Answers, a line a text; of outputs the shape and the first numbers, a line a row."""
    if not isinstance(found, Mapping):
        return [_said(answer) for answer in found]
    shown = []
    for name, array in found.items():
        shown.append(f"{name}: {array.dtype} {list(array.shape)}")
        for row in array.reshape(len(array), -1):
            numbers = ", ".join(f"{number:.4g}" for number in row[:8])
            shown.append(f"  [{numbers}{', …' if row.size > 8 else ''}]")
    return shown


def _said(answer: Any) -> str:
    """One text's answer."""
    if isinstance(answer, float):
        return f"{answer:.4f}"
    if isinstance(answer, Answer):
        return f"{answer.label} {answer.probability:.4f}"
    if isinstance(answer, tuple):
        return ", ".join(map(_said, answer)) or "no label reaches one half"
    found = (
        f"{span.label} {span.text!r} [{span.start}:{span.end}] {span.probability:.4f}" for span in answer
    )
    return "; ".join(found) or "nothing is labelled"


def to_json(found: Any) -> Any:
    """Answers or outputs as JSON holds them."""
    if isinstance(found, Mapping):
        return {name: array.tolist() for name, array in found.items()}
    if isinstance(found, list | tuple):
        return [to_json(each) for each in found]
    return found if isinstance(found, float) else asdict(found)
