"""Compiled functions of several builds over one file of weights: equal tensors are stored once."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..bundles.manifest import Manifest
from ..bundles.record import WEIGHTS
from ..tvm.run.weights_file import WeightsFile, read
from .part import Part


def write_functions(folder: Path, builds: list[tuple[str, Path, Manifest]]) -> dict[str, Part]:
    """What each build runs and the weights that it reads, by its target.

    Args:
        builds: target, directory and manifest of each.
    """
    parts = {}
    with WeightsFile(folder / WEIGHTS) as weights:
        for target, source, manifest in builds:
            compiled = manifest.compiled
            assert compiled is not None
            module = f"model.{target}.so"
            shutil.copyfile(source / compiled.module, folder / module)
            arrays = read(source / WEIGHTS, compiled.places)
            places = [weights.add(name, array) for name, array in arrays.items()]
            told = {**compiled.to_json(), "module": module, "places": [vars(each) for each in places]}
            sizes = {place.offset: arrays[place.name].nbytes for place in places}
            parts[target] = Part({"compiled": told}, sizes)
    return parts
