"""ONNX graphs of several builds over one file of weights: equal tensors, and equal graphs, are kept once."""

from __future__ import annotations

from pathlib import Path

import onnx_ir

from ...ir.errors import BundleError
from ..bundles.manifest import DEFAULT, Manifest, sha256
from ..bundles.onnx_file import WeightFile, write_external
from .part import Part


def write_graphs(folder: Path, builds: list[tuple[str, Path, Manifest]]) -> dict[str, Part]:
    """What each build runs and the weights that it reads, by its target.

    Args:
        builds: target, directory and manifest of each; the default graph of the first is model.onnx.
    """
    parts: dict[str, Part] = {}
    known: dict[str, tuple[str, dict[int, int]]] = {}  # by digest of a graph: its file, and what it reads
    with WeightFile(folder / f"{DEFAULT}.data") as weights:
        for target, source, manifest in builds:
            if not manifest.dispatch:
                raise BundleError(f"{source} does not say which calls its graphs are for: build it again")
            graphs: dict[str, str] = {}
            sizes: dict[int, int] = {}
            for graph, file in manifest.graphs.items():
                own = f".{graph}" if file != DEFAULT else ""
                path = folder / (f"model.{target}{own}.onnx" if parts or own else DEFAULT)
                places = write_external(onnx_ir.load(source / file), path, weights)
                name, read = known.setdefault(sha256(path), (path.name, dict(places)))
                if name != path.name:
                    path.unlink()
                graphs[graph] = name
                sizes |= read
            parts[target] = Part({"graphs": graphs}, sizes)
    return parts
