"""Writes a bundle: graphs over one copy of the weights, tokenizer, manifest and report, all or nothing."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from ..ir.errors import BundleError
from ..ir.program import Program
from ..ir.size import weight_bytes
from .feeds import Feed, coordinates
from .manifest import DEFAULT, FORMAT, MANIFEST, REPORT, sha256
from .onnx_file import LIMIT, WeightFile, write_external, write_inline

_SHARED = DEFAULT + ".data"


@dataclass(frozen=True)
class Variant:
    """One graph of a bundle. name: letters, digits, - and _; the first variant written is the default."""

    name: str
    program: Program


@dataclass(frozen=True)
class Route:
    """Calls like this workload go to this variant. padding: share of the batch that is padding."""

    workload: str
    batch: int
    length: int
    padding: float
    graph: str


def route(workload: str, program: Program, feed: Feed, variant: str) -> Route:
    """The route that a measured workload's feed stands for."""
    batch, length, padding = coordinates(program.inputs, feed)
    return Route(workload, batch, length, round(padding, 6), variant)


def write(
    directory: str | Path,
    variants: Sequence[Variant],
    dispatch: Sequence[Route] = (),
    *,
    manifest: Mapping[str, Any] | None = None,
    report: str = "",
    threads: int | None = None,
    tokenizer: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle under its final name only once it is complete.

    Args:
        directory: must not exist, unless `force`, which replaces a bundle (and nothing else).
        variants: onnx programs with the same inputs and outputs; the first is the default, model.onnx, which
            also runs in plain ONNX Runtime. One graph below 2 GB is a single file; otherwise all graphs
            share model.onnx.data, where tensors of equal content are stored once.
        dispatch: which variant runs which calls; without it every call runs the default.
        manifest: what else to record: seed, pipeline, target, evidence, measurements. JSON-able.
        report: the content of report.md.
        threads: what the measurements used, and `load` will.
        tokenizer: file name -> content; None takes the default program's.
        force: replace an existing bundle, after the new one is complete.

    Returns:
        The directory.

    Raises:
        BundleError: the directory exists, or can't be written; nothing is left behind then.
    """
    target = Path(directory)
    _check(variants, dispatch)
    files = dict(variants[0].program.tokenizer if tokenizer is None else tokenizer)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        _tidy(target)
        check_free(target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_room(target.parent, variants)
        partial.mkdir()
        graphs = _write_graphs(partial, variants)
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        (partial / REPORT).write_text(report, encoding="utf-8")
        record = _record(partial, variants[0].program, graphs, dispatch, manifest or {}, threads)
        text = json.dumps(record, indent=1, ensure_ascii=False, default=_plain) + "\n"
        (partial / MANIFEST).write_text(text, encoding="utf-8")
        _sync(partial)
        _move(partial, target, force)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f"no space left for the bundle in {target.parent}: make room and run again"
            ) from error
        raise BundleError(f"the bundle can't be written to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _check(variants: Sequence[Variant], dispatch: Sequence[Route]) -> None:
    if not variants:
        raise BundleError("a bundle needs at least one graph")
    first, names = variants[0].program, [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise BundleError(f"two graphs of the bundle have one name: {', '.join(names)}")
    for variant in variants:
        program = variant.program
        if not variant.name.replace("-", "").replace("_", "").isalnum():
            raise BundleError(f"{variant.name!r} can't name a graph: use letters, digits, - and _")
        if program.dialect != "onnx":
            raise BundleError(
                f"the graph {variant.name!r} is of the {program.dialect} dialect: run to-onnx first"
            )
        if (program.inputs, program.outputs) != (first.inputs, first.outputs):
            raise BundleError(f"the graph {variant.name!r} has other inputs or outputs than {names[0]!r}")
    for row in dispatch:
        if row.graph not in names:
            raise BundleError(
                f"the dispatch table sends {row.workload} to {row.graph!r}, which isn't written"
            )


def check_free(target: Path, force: bool) -> None:
    """Refuse an existing directory, except an empty one and a bundle that `force` may replace.

    Raises:
        BundleError: something is there; `write` would raise the same after all the work.
    """
    if not os.path.lexists(target):
        return
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        if force and (target / MANIFEST).is_file():
            return
        if force:
            raise BundleError(
                f"{target} is not a bundle, so --force does not replace it; choose another directory"
            )
        raise BundleError(f"{target} exists already; choose another directory, or --force to replace it")
    raise BundleError(f"{target} exists and is not a directory; choose another name")


def _tidy(target: Path) -> None:
    """What a killed run left, once its process is gone: a bundle that it had moved aside comes back under its
    name, everything else goes."""
    for path in sorted(target.parent.glob(f".{glob.escape(target.name)}.*")):
        pid, _, kind = path.name.removeprefix(f".{target.name}.").partition(".")
        if kind not in ("old", "partial") or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if kind == "old" and not os.path.lexists(target):
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _check_room(parent: Path, variants: Sequence[Variant]) -> None:
    """At least the largest graph must fit; how much the others add depends on what they share."""
    need = max(weight_bytes(variant.program) for variant in variants)
    free = shutil.disk_usage(parent).free
    if need > free:
        raise BundleError(f"the bundle needs {need / 1e6:,.0f} MB and {parent} has {free / 1e6:,.0f} MB free")


def _write_graphs(folder: Path, variants: Sequence[Variant]) -> dict[str, str]:
    """Variant name -> file."""
    default, *others = variants
    if not others and weight_bytes(default.program) < LIMIT:
        write_inline(default.program.graph, folder / DEFAULT)
        return {default.name: DEFAULT}
    names = {default.name: DEFAULT, **{variant.name: f"model.{variant.name}.onnx" for variant in others}}
    with WeightFile(folder / _SHARED) as weights:
        for variant in variants:
            write_external(variant.program.graph, folder / names[variant.name], weights)
    return names


def _record(
    folder: Path,
    program: Program,
    graphs: Mapping[str, str],
    dispatch: Sequence[Route],
    more: Mapping[str, Any],
    threads: int | None,
) -> dict[str, Any]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        **more,
        "format": FORMAT,
        "task": program.task,
        "threads": threads,
        "graphs": dict(graphs),
        "dispatch": [asdict(row) for row in dispatch],
        "inputs": [asdict(spec) for spec in program.inputs],
        "outputs": list(program.outputs),
        "symbols": {name: list(bounds) for name, bounds in program.symbols.items()},
        "info": dict(program.info),
        "versions": versions(),
        "files": {
            path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in paths
        },
    }


def _plain(value: Any) -> Any:
    """NumPy scalars, arrays, sets and paths among what the caller records."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a bundle contains, as far as installed."""
    found = {"python": platform.python_version()}
    for name in (
        "graphwright",
        "onnx",
        "onnx-ir",
        "onnxruntime",
        "numpy",
        "torch",
        "onnxscript",
        "transformers",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _sync(folder: Path) -> None:
    """To disk before the rename, so that a power cut leaves no named but empty bundle."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _move(partial: Path, target: Path, force: bool) -> None:
    """Give the finished bundle its name; an old one makes room last and comes back if that fails."""
    if not os.path.lexists(target):
        partial.rename(target)
        return
    check_free(target, force)
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
