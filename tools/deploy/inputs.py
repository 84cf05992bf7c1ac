"""Every file that a build depends on, found without reading a model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...ir.errors import CaptureError, ConfigError
from ...ir.host.files import why
from ...ir.sources.tokenizer_names import FILES, SLOW
from ..config import RunConfig
from .hashes import Hashes

READ = (".json", ".txt", ".safetensors", ".jinja", ".model", ".bin", ".pt")  # of a model's directory
_PATH = re.compile(r"=\s*\"?([^,{}\"]+)")  # what a pass's option may name


def source_of(config: RunConfig) -> str:
    """Where a case's model is: a path as it is, and of a hub id what the hub's own cache holds.

    Raises:
        CaptureError: there is no such model here, nor on the hub.
    """
    name = config.model
    if Path(name).exists() or Path(name).suffix in (".onnx", ".pt2"):
        return name
    if Path(name).is_absolute() or name.startswith((".", "~")):
        raise CaptureError(f"there is no '{name}'.")
    return str(_hub(name))


def _hub(name: str) -> Path:
    """The newest of the hub's cache: nothing is asked of the hub while it has the model."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):  # fetch says so
        found = try_to_load_from_cache(name, "config.json")
        if isinstance(found, str):
            return Path(found).parent
    from ...ir.capture import fetch

    return fetch(name)


def digests(config: RunConfig, hashes: Hashes) -> dict[str, str]:
    """The sha256 of each input, by the name that the settings give it.

    Raises:
        CaptureError: there is no model.
        ConfigError: another file is missing, or can't be read.
    """
    files = dict(_files(config, hashes))
    found = {}
    for name, path in sorted(files.items()):
        try:
            found[name] = hashes.of(path)
        except OSError as error:
            raise ConfigError(f"{name} can't be read: {why(error)}") from error
    return found


def _files(config: RunConfig, hashes: Hashes) -> Iterator[tuple[str, Path]]:
    """(name, path) of each."""
    source = Path(source_of(config))
    yield from _model(config.model, source, hashes)
    for name in (config.data, config.calibrate):
        if name is not None:
            yield name, Path(name)
    for value in _PATH.findall(config.pipeline or ""):
        path = Path(value.strip())
        with suppress(OSError):  # what no system takes for a path
            if path.is_dir():
                yield from _model(str(path), path, hashes)
            elif path.is_file():
                yield str(path), path


def _model(name: str, source: Path, hashes: Hashes) -> Iterator[tuple[str, Path]]:
    if source.is_dir():
        found = list(_directory(source))
        if not found:
            raise CaptureError(f"'{name}' holds no model: there is no file of one in it.")
        yield from ((f"{name}/{path.relative_to(source).as_posix()}", path) for path in found)
        return
    yield name, source
    if source.suffix == ".onnx" and source.is_file():
        home = source.parent.parent if source.parent.name == "onnx" else source.parent  # as from_onnx has it
        beside = {path for each in ("config.json", *FILES, *SLOW) if (path := home / each).is_file()}
        external = hashes.remembered(f"external {hashes.of(source)}", lambda: _external(source))
        beside |= {source.parent / location for location in external}
        start = Path(name).parent
        yield from (
            ((start / os.path.relpath(path, source.parent)).as_posix(), path) for path in sorted(beside)
        )


def _directory(source: Path) -> Iterator[Path]:
    """Files of a model's directory that something may be read from; hidden ones are nobody's."""
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.suffix in READ and path.is_file() and not hidden:
            yield path


def _external(path: Path) -> list[str]:
    """Files beside an ONNX file that hold its weights."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # of protobuf, for what is no model: capture says so
        return []
    entries = (entry for tensor in _tensors(model.graph) for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _tensors(graph: Any) -> Iterator[Any]:
    """Of a graph and its bodies."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for body in (attribute.g, *attribute.graphs):
            yield from _tensors(body)
