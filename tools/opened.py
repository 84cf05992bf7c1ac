"""Whatever a person can name on the command line, ready to run: bundle, ONNX file, directory, hub id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..backends.bundles.manifest import Manifest, is_bundle
from ..backends.running.runner import load
from ..backends.runtimes.reference import Reference
from ..ir.capture import capture
from ..ir.program import Program


@dataclass(frozen=True)
class Opened:
    """program: what it takes and gives; a bundle's has no graph. run: arrays by name to arrays by name."""

    name: str
    program: Program
    run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def open_model(name: str, threads: int = 2) -> Opened:
    """Open a bundle with its own runner, ONNX with ONNX Runtime, everything else with PyTorch.

    Raises:
        CaptureError: nothing at that name is a model.
        BundleError: a bundle that is incomplete or was tampered with.
    """
    if is_bundle(name):
        bundle = load(name, threads)
        return Opened(name, program_of(bundle.manifest), bundle.run)
    program = capture(name)
    if program.dialect == "onnx":
        from ..backends.runtimes.onnxruntime import OnnxRuntime

        return Opened(name, program, OnnxRuntime().build(program, threads=threads).run)
    return Opened(name, program, Reference().build(program, threads=threads).run)


def program_of(manifest: Manifest) -> Program:
    """What a bundle takes and gives, without a graph."""
    return Program(
        None, "onnx", manifest.inputs, manifest.outputs, symbols=manifest.symbols, info=manifest.info
    )
