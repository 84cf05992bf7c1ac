"""Bundles of one model for several instruction sets as one bundle, from which `load` takes the best."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...ir.errors import BundleError
from ..bundles.finished import listed
from ..bundles.isa import IsaVariant
from ..bundles.manifest import PAGE, REPORT, SEVERAL, Manifest, read_manifest, verify_files, write_manifest
from ..target import Target
from .functions import write_functions
from .graphs import write_graphs

_MODELS = (".onnx", ".data", ".so", ".weights")


def join(
    folder: Path, builds: Mapping[str, Path], pages: Callable[[list[dict[str, Any]]], Mapping[str, str]]
) -> None:
    """Fills a directory with a bundle. The same builds give the same bytes.

    Weights stand in one file, tensors of equal content once; what a variant packs or rounds for itself stands
    beside. Each variant has the graphs or compiled functions, dispatch table and evidence of its build.

    Args:
        folder: empty.
        builds: target -> bundle. All of one model, for one runtime.
        pages: what people read, file name -> text, made from the variants as the manifest lists them.

    Raises:
        BundleError: a build is damaged, they are of different models, or too many for one manifest.
    """
    found = [(target, path, read_manifest(path)) for target, path in builds.items()]
    for _, path, manifest in found:
        verify_files(path, manifest)
    _check(found)
    levels = {target: _level(target, manifest) for target, _, manifest in found}
    # What needs least is the first file, model.onnx: of all it runs right on most processors.
    found.sort(key=lambda build: (len(levels[build[0]].needs), build[0]))
    parts = (write_functions if found[0][2].compiled else write_graphs)(folder, found)
    for name in _texts(found[0][2]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[0][1] / name, folder / name)
    uses = Counter(offset for part in parts.values() for offset in part.weights)
    variants = []
    for target, _, manifest in reversed(found):
        part = parts[target]
        shared = sum(size for offset, size in part.weights.items() if uses[offset] > 1)
        weights = {"shared": shared, "own": sum(part.weights.values()) - shared}
        variants.append(
            {**levels[target].to_json(), "weights": weights, "manifest": _record(manifest, part.told)}
        )
    for name, text in pages(variants).items():
        (folder / name).write_text(text, encoding="utf-8")
    write_manifest(folder, {"format": SEVERAL, "variants": variants, "files": listed(folder)})
    read_manifest(folder)  # refuses one that is too large to be read


def _check(found: list[tuple[str, Path, Manifest]]) -> None:
    (first, _, one), *others = found
    for target, _, other in others:
        for what, mine, its in (
            ("inputs", one.inputs, other.inputs),
            ("outputs", one.outputs, other.outputs),
            ("a task", one.task, other.task),
            ("a tokenizer", _texts(one), _texts(other)),
            ("a runtime", bool(one.compiled), bool(other.compiled)),
        ):
            if mine != its:
                raise BundleError(
                    f"the build for {target} has {what} other than that for {first}: "
                    "one bundle can't hold both"
                )


def _level(target: str, manifest: Manifest) -> IsaVariant:
    if manifest.compiled:
        return IsaVariant(target, manifest.compiled.arch, manifest.compiled.needs)
    made_for = Target.from_json(manifest.record["target"])
    return IsaVariant(target, made_for.arch, made_for.needs)


def _texts(manifest: Manifest) -> dict[str, Any]:
    """The files that neither run nor are of a page: a tokenizer's."""
    return {
        name: entry
        for name, entry in manifest.files.items()
        if not name.endswith(_MODELS) and name not in (REPORT, PAGE)
    }


def _record(manifest: Manifest, told: Mapping[str, Any]) -> dict[str, Any]:
    """A build's manifest as a variant's: its files are the whole bundle's."""
    record = {key: value for key, value in manifest.record.items() if key not in ("sha256", "files")}
    config = {key: value for key, value in (record.get("config") or {}).items() if key != "out"}
    return {**record, "config": config, **told}
