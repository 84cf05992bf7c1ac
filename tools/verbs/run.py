"""`optimize run BUNDLE`: texts or arrays in, answers or outputs out."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.running.answers import Answer
from ...backends.running.runner import CLASSIFIERS, load
from ...ir.errors import InputError
from ...ir.host.files import FAULTS, MIB, read_regular, why
from ...ir.spec import numpy_dtype

MOST = 64 * MIB  # of a file of inputs


def run(bundle: str, texts: Sequence[str] | None, inputs: str | None) -> Any:
    """What a bundle says: a classifier's answers to texts, else outputs by name.

    Args:
        bundle: a directory that `optimize` wrote.
        texts: one answer, or row of outputs, each.
        inputs: a JSON file, an array (nested lists) for each input, or a .npz file, instead of texts.

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
        content = read_regular(path, MOST)
        return _packed(content) if path.suffix == ".npz" else _listed(content, dtypes)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, zipfile.BadZipFile, zlib.error, MemoryError, RuntimeError, *FAULTS) as error:
        raise InputError(f"{path} does not hold arrays: {why(error)}") from error


def _packed(content: bytes) -> dict[str, np.ndarray]:
    """Of a .npz file, nothing of which is unpickled."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST:
            raise ValueError(f"they are larger than {MOST / MIB:g} MB")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _listed(content: bytes, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Of a JSON object of nested lists."""
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("it should be an object with an array for each input")
    return {name: _array(name, value, dtypes.get(name)) for name, value in found.items()}


def _array(name: str, value: Any, dtype: str | None) -> np.ndarray:
    """Numbers of the input's dtype, where that changes none of them."""
    array = np.asarray(value)
    if dtype is None or array.size == 0:
        return array.astype(dtype) if dtype else array
    wanted = numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted) if array.dtype.kind in "biuf" else array
    kinds = {"b": "b", "i": "biu", "u": "biu", "S": "S", "U": "U"}.get(wanted.kind, "biuf")
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} takes {dtype} and is given {_sample(array)}")
    if wanted.kind in "iu" and (cast != array).any():
        raise ValueError(f"{name} takes {dtype} and is given a number beyond it")
    if (np.isfinite(array) & ~np.isfinite(cast.astype(np.float64))).any():
        raise ValueError(f"{name} takes {dtype} and is given a number beyond it")
    return cast


def _sample(array: np.ndarray) -> str:
    """A number that does not fit, or what the array is made of."""
    if array.dtype.kind == "f":
        for number in array[array != np.floor(array)][:1]:
            return f"{number:g}"
    return f"values of {array.dtype.name}"


def lines(found: Any) -> list[str]:
    """Answers, a line a text; of outputs the shape and the first numbers, a line a row."""
    if not isinstance(found, Mapping):
        return [_said(answer) for answer in found]
    shown = []
    for name, array in found.items():
        shown.append(f"{name}: {array.dtype} {list(array.shape)}")
        rows = np.atleast_1d(array)
        for row in rows.reshape(len(rows), math.prod(rows.shape[1:])):
            numbers = ", ".join(f"{n:.4g}" if rows.dtype.kind in "iuf" else str(n) for n in row[:8])
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
