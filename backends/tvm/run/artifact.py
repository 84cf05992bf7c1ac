"""What the tvm backend builds: compiled functions, ready to run and to be written as a bundle."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ....ir.program import Program
from ...bundles.feeds import Feed
from ...bundles.finished import finished
from ...bundles.manifest import COMPILED
from ...bundles.record import MODULE, WEIGHTS, Compiled
from .runtime import Runtime
from .versions import PINS


class TvmArtifact:
    """Compiled functions and the program they were made from.

    compiled: what is in `folder`. symbols: bounds of what a call may be.
    """

    def __init__(self, program: Program, compiled: Compiled, folder: Any, threads: int) -> None:
        self.program, self.compiled, self.threads = program, compiled, threads
        self.symbols = limits(program.symbols, compiled)
        self._folder = folder  # goes with the artifact
        self._runtime: Runtime | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.program.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.program.outputs

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name.

        Raises:
            InputError: naming the input that is missing or does not fit.
            BundleError: it was compiled for another processor.
        """
        if self._runtime is None:
            with self._lock:
                self._runtime = self._runtime or Runtime(
                    self.folder,
                    self.compiled,
                    self.program.inputs,
                    self.program.outputs,
                    self.symbols,
                    self.threads,
                )
        return self._runtime.run(feed)

    def save(self, directory: Path) -> None:
        """Write a bundle that `graphwright.load` opens. Raises BundleError where it can't be written."""
        write_compiled(directory, self)


def write_compiled(
    directory: str | Path,
    artifact: TvmArtifact,
    *,
    manifest: Mapping[str, Any] | None = None,
    report: str = "",
    pages: Mapping[str, str] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle of compiled functions under its final name only once it is complete.

    Args:
        directory: must not exist, unless `force`, which replaces a bundle (and nothing else).
        manifest: what else to record. JSON-able.
        report: the content of report.md.
        pages: what else people look at beside it: file name -> content.

    Returns:
        The directory.

    Raises:
        BundleError: the directory exists, or can't be written; nothing is left behind then.
    """
    files = [artifact.folder / name for name in (MODULE, WEIGHTS)]

    def fill(folder: Path) -> dict[str, Any]:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        return {
            "format": COMPILED,
            "backend": "tvm",
            "graphs": {},
            "dispatch": [],
            "compiled": asdict(artifact.compiled),
        }

    return finished(
        directory,
        replace(artifact.program, symbols=artifact.symbols),
        fill,
        sum(file.stat().st_size for file in files),
        {**(manifest or {}), "threads": artifact.threads},
        report=report,
        pages=pages,
        force=force,
        makers=tuple(PINS),
    )


def limits(symbols: Mapping[str, tuple[int, int]], compiled: Compiled) -> dict[str, tuple[int, int]]:
    """Bounds of every symbol, as far as what was compiled holds. A longer text is truncated or refused by
    them; more rows are split."""
    found = dict(symbols)
    for symbol in compiled.functions[0].sizes:
        if symbol == compiled.padding.batch:
            continue
        sizes = [function.sizes[symbol] for function in compiled.functions]
        low, _ = symbols.get(symbol, (1, 0))
        found[symbol] = (low if symbol == compiled.padding.length else min(sizes), max(sizes))
    return found
