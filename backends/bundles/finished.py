"""The end of every bundle: tokenizer, report and manifest beside what runs, all or nothing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from ...ir.errors import BundleError
from ...ir.program import Program
from .folder import appearing
from .manifest import REPORT, sha256, write_manifest

_MAKERS = ("graphwright", "onnx", "onnx-ir", "onnxruntime", "numpy", "torch", "onnxscript", "transformers")


def finished(
    directory: str | Path,
    program: Program,
    fill: Callable[[Path], dict[str, Any]],
    need: int,
    manifest: Mapping[str, Any],
    *,
    report: str = "",
    pages: Mapping[str, str] | None = None,
    tokenizer: Mapping[str, bytes] | None = None,
    force: bool = False,
    makers: tuple[str, ...] = (),
) -> Path:
    """Writes a bundle under its final name only once it is complete.

    Args:
        directory: must not exist, unless `force`, which replaces a bundle (and nothing else).
        program: what it takes and gives, its task and, where `tokenizer` is None, its tokenizer.
        fill: writes the files that run into a directory, and returns what the manifest says of them: format,
            graphs and dispatch, at least.
        need: bytes that they will take, at least.
        manifest: what else to record. JSON-able.
        report: the content of report.md.
        pages: what else people look at beside it: file name -> content.
        tokenizer: file name -> content.
        makers: packages whose versions to record beside the usual ones.

    Returns:
        The directory.

    Raises:
        BundleError: the directory exists, or can't be written; nothing is left behind then.
    """
    target = Path(directory)
    files = program.tokenizer if tokenizer is None else tokenizer
    with appearing(target, force) as folder:
        _check_room(target.parent, need)
        more = {**manifest, **fill(folder), "versions": versions(makers)}
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for name, page in {REPORT: report, **(pages or {})}.items():
            (folder / name).write_text(page, encoding="utf-8")
        write_manifest(folder, _record(folder, program, more))
    return target


def _check_room(parent: Path, need: int) -> None:
    free = shutil.disk_usage(parent).free
    if need > free:
        raise BundleError(f"the bundle needs {need / 1e6:,.0f} MB and {parent} has {free / 1e6:,.0f} MB free")


def _record(folder: Path, program: Program, more: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "task": program.task,
        "inputs": [asdict(spec) for spec in program.inputs],
        "outputs": list(program.outputs),
        "symbols": {name: list(bounds) for name, bounds in program.symbols.items()},
        "info": dict(program.info),
        "files": listed(folder),
    }
    return {**more, **found}


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file of a directory, as manifests list them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in paths
    }


def versions(more: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of Python and of the packages that decide what a bundle contains, as far as installed."""
    found = {"python": platform.python_version()}
    for name in (*_MAKERS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
