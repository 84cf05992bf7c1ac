"""manifest.json: what a bundle is, read with distrust. Standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...ir.errors import BundleError, short
from ...ir.host.files import FAULTS, MIB, check_regular, read_regular, why
from ...ir.spec import InputSpec
from ..typed import MOST, dtype, many, maybe, number, size, table, text, whole
from . import isa
from .isa import IsaVariant
from .record import WEIGHTS, Compiled

FORMAT = 3  # what is read: 1 had no compiled functions, 2 no variants; each is written where it is enough
COMPILED, SEVERAL = 2, 3
MANIFEST = "manifest.json"
REPORT, PAGE = "report.md", "report.html"  # what people read
DEFAULT = "model.onnx"
_AGAIN = ": copy or build the bundle again"
_HASH = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')  # what every manifest begins with
_ZEROS = b"0" * 64  # stand there when its bytes are hashed
MOST_BYTES = 16 * MIB  # of a manifest
MOST_THREADS = 4096  # that anything was measured with
_MODEL_SUFFIXES = (".onnx", ".data", ".ort", ".so", ".weights")


@dataclass(frozen=True)
class Manifest:
    """The part of manifest.json that running needs.

    files: name -> {"sha256", "bytes"}. graphs: variant -> file. dispatch: rows of workload, batch, length,
    padding and graph (a variant). compiled: TVM's functions, which there are instead of graphs. threads: what
    the measurements used. record: the whole file. isa: in a bundle of several builds, what each is for, best
    first; all else is then of the one that runs on this processor, and its number is `chosen`, or of the
    first where none does.
    """

    files: Mapping[str, Mapping[str, Any]]
    graphs: Mapping[str, str]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    symbols: Mapping[str, tuple[int, int]]
    task: str
    dispatch: tuple[Mapping[str, Any], ...] = ()
    compiled: Compiled | None = None
    threads: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    isa: tuple[IsaVariant, ...] = ()
    chosen: int | None = None

    @property
    def variant(self) -> str | None:
        """The target of the variant that runs here; None in a bundle of one build, or where none does."""
        return None if self.chosen is None else self.isa[self.chosen].target


def is_bundle(folder: str | Path) -> bool:
    """Whether something at a directory means to be a bundle; `read_manifest` says whether it is."""
    return os.path.lexists(Path(folder, MANIFEST))


def write_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Write manifest.json, beginning with the sha256 of its own bytes (with zeros in the digest's place).

    Args:
        record: JSON-able; NumPy values become numbers, sets lists, and what JSON can't say (NaN, infinities)
            null.
    """
    (folder / MANIFEST).write_bytes(sealed(record))


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON that begins with the sha256 of its own bytes; `unsealed` reads it."""
    content = {"sha256": _ZEROS.decode(), **{key: value for key, value in record.items() if key != "sha256"}}
    written = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    data = written.encode("utf-8", "surrogatepass")
    return data.replace(_ZEROS, hashlib.sha256(data).hexdigest().encode(), 1)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return _plain(sorted(value))
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def unsealed(path: Path, data: bytes) -> Any:
    """The JSON in a sealed record's bytes, once they are those that were written.

    Raises:
        BundleError: they are not.
        ValueError: they are no JSON.
    """
    found = _HASH.match(data)
    if found is not None:
        start, end = found.span(1)
        if hashlib.sha256(data[:start] + _ZEROS + data[end:]).hexdigest().encode() != found[1]:
            raise BundleError(f"{path} has changed since the bundle was built{_AGAIN}")
    record = json.loads(data)
    if found is None and isinstance(record, dict) and "format" in record:
        raise BundleError(
            f"{path} carries no hash of itself: it was changed, or written by an older graphwright: "
            "build the bundle again"
        )
    return record


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of a bundle.

    Raises:
        BundleError: there is none, it isn't one, it has changed, it leads out of the bundle, or it is of a
            newer format.
    """
    path = folder / MANIFEST
    try:
        record = unsealed(path, read_regular(path, MOST_BYTES))
    except FileNotFoundError as error:
        missing = f"there is no directory {folder}" if not folder.is_dir() else f"{folder} has no {MANIFEST}"
        raise BundleError(f"{missing}: a bundle is what `optimize MODEL -o DIRECTORY` writes") from error
    except OSError as error:
        raise BundleError(f"{path} can't be read: {why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: build the bundle again") from error
    version = record.get("format") if isinstance(record, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path} is not the manifest of a graphwright bundle")
    if version > FORMAT:
        raise BundleError(
            f"{folder} has bundle format {short(version)} and this graphwright reads up to {FORMAT}: "
            "pip install --upgrade graphwright"
        )
    try:
        return _parse(record)
    except FAULTS as error:
        raise BundleError(f"{path} is damaged ({why(error)}): build the bundle again") from error


def _parse(record: dict[str, Any]) -> Manifest:
    if record["format"] < SEVERAL:
        return _parse_one(record)
    variants = many(IsaVariant.from_json, record["variants"])
    # Whatever this processor is, all of them are looked at.
    found = [_parse_one({**table(each["manifest"]), "files": record["files"]}) for each in record["variants"]]
    if not found:
        raise ValueError("it has no variant")
    for each, variant in zip(found, variants, strict=True):
        if each.compiled and (each.compiled.arch, each.compiled.needs) != (variant.arch, variant.needs):
            raise ValueError(f"{variant.target} is for another processor than its functions")
    chosen = isa.chosen(variants)
    shown = found[chosen or 0]
    told = {**shown.record, **{name: record[name] for name in ("sha256", "format", "variants")}}
    return replace(shown, record=told, isa=variants, chosen=chosen)


def _parse_one(record: dict[str, Any]) -> Manifest:
    files = {
        _inside(name): {"bytes": whole(entry["bytes"]), "sha256": text(entry["sha256"])}
        for name, entry in table(record["files"]).items()
    }
    graphs = {text(variant): text(name) for variant, name in table(record["graphs"]).items()}
    compiled = Compiled.from_json(record["compiled"]) if record.get("backend") == "tvm" else None
    inputs = many(_input, record["inputs"])
    outputs = many(text, record["outputs"])
    if compiled:
        compiled.check(inputs, outputs)
    for name in (compiled.module, WEIGHTS) if compiled else (DEFAULT, *graphs.values()):
        if name not in files:
            raise ValueError(f"the graph {name!r} is not among its files")
    dispatch = many(_route, record["dispatch"])
    for row in dispatch:
        if row["graph"] not in graphs:
            raise ValueError(f"the dispatch table names no graph of the bundle: {row['graph']!r}")
    return Manifest(
        files=files,
        graphs=graphs,
        inputs=inputs,
        outputs=outputs,
        symbols={name: _bounds(each) for name, each in table(record["symbols"]).items()},
        task=text(record["task"]),
        dispatch=dispatch,
        compiled=compiled,
        threads=maybe(whole, record.get("threads"), 1, MOST_THREADS),
        info=_info(table(record["info"])),
        record=record,
    )


def _input(spec: Mapping[str, Any]) -> InputSpec:
    follows = spec.get("follows")
    return InputSpec(
        **{
            **table(spec),
            "name": text(spec["name"]),
            "dtype": dtype(spec["dtype"]),
            "shape": many(size, spec["shape"]),
            "high": maybe(whole, spec["high"], -MOST, MOST),
            "low": whole(spec.get("low", 0), -MOST),
            "follows": None if follows is None else size(follows),
            "reach": whole(spec.get("reach", 0), -MOST),
            "indexes": spec.get("indexes") is True,
            "seen": maybe(_pair, spec.get("seen")),
            "hidden": number(spec.get("hidden", 0), -math.inf, math.inf),
            "given_by": text(spec.get("given_by", "")),
        }
    )


def _pair(value: Any) -> tuple[int, int]:
    low, high = many(lambda each: whole(each, -(2**63), 2**64), value)
    return low, high


def _bounds(value: Any) -> tuple[int, int]:
    low, high = many(whole, value)
    if low > high:
        raise ValueError(f"bounds from {low} to {high}")
    return low, high


def _route(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "workload": text(row["workload"]),
        "batch": whole(row["batch"]),
        "length": whole(row["length"]),
        "padding": number(row["padding"], 0, 1),
        "graph": text(row["graph"]),
    }


def _info(info: Mapping[str, Any]) -> dict[str, Any]:
    """As it is; what texts are encoded by is checked."""
    maybe(whole, info.get("pad_token_id"), -1)
    maybe(whole, info.get("max_length"), 1)
    many(text, info.get("labels") or ())
    return dict(info)


def _inside(name: str) -> str:
    """A file name that stays in the bundle: relative, without `..`, spelled the one way."""
    path = PurePosixPath(text(name))
    if path.is_absolute() or ".." in path.parts or str(path) != name or "\\" in name or ":" in name:
        raise ValueError(f"the file name {name!r} leads out of the bundle")
    return name


def verify_files(folder: Path, manifest: Manifest, hashes: bool = True) -> None:
    """Every file listed is there, whole and unchanged, and no model file is there that isn't listed.

    Raises:
        BundleError: naming the file.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        try:
            found = path.stat()
            check_regular(path, found.st_mode)
            if found.st_size != entry["bytes"]:
                raise BundleError(
                    f"{path} has {found.st_size} bytes and the manifest says {entry['bytes']}{_AGAIN}"
                )
            if hashes and sha256(path) != entry["sha256"]:
                raise BundleError(f"{path} is not the file that the manifest was made for{_AGAIN}")
        except FileNotFoundError as error:
            raise BundleError(f"{path} is missing{_AGAIN}") from error
        except OSError as error:
            raise BundleError(f"{path} can't be read: {why(error)}") from error
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in manifest.files and path.suffix in _MODEL_SUFFIXES:
            raise BundleError(f"{path} is not in the manifest: remove it, or build the bundle again")


def sha256(path: Path) -> str:
    """The hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
