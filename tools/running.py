"""`optimize run BUNDLE`: texts or arrays in, outputs out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.runner import load
from ..ir.errors import InputError


def run(bundle: str, texts: Sequence[str] | None, inputs: str | None) -> Mapping[str, np.ndarray]:
    """A bundle's outputs by name.

    Args:
        bundle: a directory that `optimize` wrote.
        texts: one row of outputs each.
        inputs: a JSON file, an array (nested lists) for each input, instead of texts.

    Raises:
        InputError: neither or both were given, or the arrays don't fit the model.
        BundleError: no bundle, or one that was tampered with.
    """
    if bool(texts) == (inputs is not None):
        raise InputError("say what to run it on: either --text (may be repeated) or --inputs FILE.json")
    artifact = load(bundle)
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


def tables(outputs: Mapping[str, np.ndarray]) -> list[Any]:
    """Each output's shape and its first numbers, a line a row."""
    lines = []
    for name, array in outputs.items():
        lines.append(f"{name}: {array.dtype} {list(array.shape)}")
        for row in array.reshape(len(array), -1):
            shown = ", ".join(f"{number:.4g}" for number in row[:8])
            lines.append(f"  [{shown}{', …' if row.size > 8 else ''}]")
    return lines
