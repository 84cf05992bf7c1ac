"""Which files of a directory hold its weights, and what their headers say: read before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CaptureError
from .config import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED, _PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_FOREIGN = {"tf_model.h5": "TensorFlow", "flax_model.msgpack": "Flax", "model.gguf": "llama.cpp"}


@dataclass(frozen=True)
class Stored:
    """A checkpoint's files. tensors: name -> (safetensors' name of the type, shape), empty for pickles."""

    files: tuple[Path, ...]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]

    @property
    def elements(self) -> int:
        """How many numbers the checkpoint holds; for pickles as many as fit in their bytes."""
        if self.tensors:
            return sum(prod(shape) for _, shape in self.tensors.values())
        return sum(file.stat().st_size for file in self.files)


def stored(directory: Path) -> Stored:
    """Finds what transformers will load, and judges what else there is.

    A pytorch_model.bin beside model.safetensors is normal: the same weights in the older form. Two sets that
    differ are refused, since nothing says which is meant.

    Raises:
        CaptureError: no weights, a file that is missing or broken, or two sets that differ.
    """
    single, index = directory / SINGLE, directory / INDEX
    shards = _shards(index) if index.exists() else []
    if single.exists():
        files = [single]
        extra = shards or sorted(directory.glob("model-*-of-*.safetensors"))
        if extra and set(extra) != {single} and _differ(files, extra):
            raise CaptureError(
                f"'{directory}' holds {SINGLE} and {extra[0].name}, which differ: remove what isn't meant."
            )
    else:
        files = shards
    pickles = _pickles(directory)
    if not files and pickles:
        return Stored(tuple(pickles), {})
    if not files:
        raise CaptureError(_nothing(directory))
    tensors = _headers(files)
    if pickles and _differ(files, pickles):
        raise CaptureError(
            f"'{directory}' holds {files[0].name} and {pickles[0].name}, which differ: "
            "remove what isn't meant."
        )
    return Stored(tuple(files), tensors)


def _nothing(directory: Path) -> str:
    lacking = f"'{directory}' holds no weights: {SINGLE} is what is looked for"
    for name, library in _FOREIGN.items():
        if (directory / name).exists():
            return f"{lacking}, and {name} is {library}'s: convert it with transformers."
    parts = sorted(p.name for p in directory.glob("*.safetensors") if p.name not in _ADAPTERS)
    return f"{lacking}, and {parts[0]} is named by no {INDEX}." if parts else f"{lacking}."


def _shards(index: Path) -> list[Path]:
    """The files that an index names: in its own folder, and there."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()) or not names:
        raise CaptureError(f"'{index}' has no weight_map from tensors to files.")
    files = [index.parent / name for name in sorted(set(names.values()))]
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise CaptureError(f"'{index}' names {file.name}, which is not there: download it again.")
    return files


def _pickles(directory: Path) -> list[Path]:
    if (directory / _PICKLED).exists():
        return [directory / _PICKLED]
    index = directory / _PICKLED_INDEX
    return _shards(index) if index.exists() else []


def _headers(files: Iterable[Path]) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in files:
        with open_tensors(file) as tensors:
            for name in list(tensors.keys()):
                if name in found:
                    raise CaptureError(f"'{file}' holds '{name}', which another of its shards holds too.")
                part = tensors.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
    return found


def open_tensors(file: Path) -> Any:
    """safetensors' reader of a file, as a context manager.

    Raises:
        CaptureError: not a regular file, truncated, or no safetensors file.
    """
    if not file.is_file():
        raise CaptureError(f"'{file}' is not a regular file.")
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise CaptureError(f"'{file}' is truncated or no safetensors file: {error}") from error


def unpickled(file: Path) -> dict[str, Tensor]:
    """Tensors of a pickle that holds nothing else, mapped from the disk.

    Raises:
        CaptureError: not a regular file, broken, or a pickle that would run code.
    """
    if not file.is_file():
        raise CaptureError(f"'{file}' is not a regular file.")
    try:
        try:
            held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the form before PyTorch 1.6 cannot be mapped
            held = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CaptureError(f"'{file}' holds a pickle that would run code: give safetensors.") from error
    except (RuntimeError, ValueError, OSError, EOFError, KeyError) as error:
        raise CaptureError(f"'{file}' cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(held, Mapping) or not all(isinstance(t, Tensor) for t in held.values()):
        raise CaptureError(f"'{file}' holds something else than tensors by name.")
    return dict(held)


def _differ(files: Iterable[Path], others: Iterable[Path]) -> bool:
    """Whether tensors of one name differ in two sets, beyond the rounding to the narrower type of the two."""
    places = {name: file for file in files for name in _names(file)}
    for other in others:
        try:
            held = _read(other)
        except CaptureError:
            if other.suffix == ".safetensors":
                raise
            continue  # nothing reads a pickle that has safetensors beside it
        for name in held.keys() & places.keys():
            with open_tensors(places[name]) as tensors:
                if not _equal(tensors.get_tensor(name), held[name]):
                    return True
        if other.suffix == ".safetensors" and held.keys() - places.keys():
            return True
    return False


def _names(file: Path) -> list[str]:
    with open_tensors(file) as tensors:
        return list(tensors.keys())


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        return unpickled(file)
    with open_tensors(file) as tensors:
        return {name: tensors.get_tensor(name) for name in list(tensors.keys())}


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype:
        narrower = min((a.dtype, b.dtype), key=lambda kind: kind.itemsize)
        a, b = a.to(narrower), b.to(narrower)
    return torch.equal(a, b)
