"""Loads and runs a bundle. Needs only onnxruntime and NumPy, and tokenizers where texts come in."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import BundleError
from ..ir.program import InputSpec
from .feeds import check, coordinates
from .manifest import DEFAULT, MANIFEST, Manifest, read_manifest, verify_files
from .session import open_session, run_session
from .text import TextEncoder

BATCH = 32  # texts that __call__ runs together
PADDING_WEIGHT = 8.0  # an eighth of the batch being padding counts as much as a factor of two in a size


def load(directory: str | Path, threads: int | None = None, verify: bool = True) -> Bundle:
    """A bundle that `optimize` wrote, ready to run.

    Args:
        directory: what was given to `-o`.
        threads: intra-op threads; None takes what the bundle was measured with.
        verify: compare every file with the hash in the manifest (reads each file once).

    Raises:
        BundleError: no bundle, an incomplete one, one that was tampered with, or one of a newer format.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    verify_files(folder, manifest, hashes=verify)
    return Bundle(folder, manifest, threads or manifest.threads)


class Bundle:
    """One or more graphs of one program over one copy of the weights; each call takes the graph that was
    measured fastest for calls of its size. Safe to call from several threads.

    manifest: everything recorded about how the bundle was made.
    """

    def __init__(self, directory: Path, manifest: Manifest, threads: int | None) -> None:
        self.directory = directory
        self.manifest = manifest
        self.threads = threads
        self._sessions: dict[str, Any] = {}
        self._stamps = {name: _stamp(directory / name) for name in manifest.files}
        self._lock = threading.Lock()
        routes = manifest.dispatch
        self._points = np.array([_point(r["batch"], r["length"], r["padding"]) for r in routes])
        self._graphs = [manifest.graphs[route["graph"]] for route in routes]

    def __repr__(self) -> str:
        return f"Bundle({str(self.directory)!r}, {len(self.manifest.graphs)} graphs, {self.manifest.task})"

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What each input accepts."""
        return self.manifest.inputs

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.manifest.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.manifest.outputs

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, from arrays by name.

        Raises:
            InputError: naming the input that is missing, unknown or does not fit, and what would.
        """
        check(self.manifest.inputs, self.manifest.symbols, feed)
        session = self._session(self.graph_for(feed))
        return dict(zip(self.manifest.outputs, run_session(session, dict(feed)), strict=True))

    def graph_for(self, feed: Mapping[str, np.ndarray]) -> str:
        """The file of the graph that runs this call: that of the nearest measured workload, by the logarithms
        of batch and length and by the share of padding. The first of several that are equally near."""
        if len(set(self._graphs)) < 2:
            return self._graphs[0] if self._graphs else DEFAULT
        distance = ((self._points - _point(*coordinates(self.manifest.inputs, feed))) ** 2).sum(axis=1)
        return self._graphs[int(distance.argmin())]

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays by input name: truncated to what the model takes, padded to the longest.

        Args:
            texts: one or more; the rows of the result.
            pairs: second segments, one a text, for models that compare two.
        """
        return self.encoder(texts, pairs)

    def __call__(self, texts: str | Sequence[str]) -> Any:
        """The model's answer to texts, run in batches of like length.

        Returns:
            For an embedding model, float32 (texts, width), or (width,) for a single string. Otherwise the
            outputs by name of one batch, padded to its longest text.
        """
        single = isinstance(texts, str)
        batch: Sequence[str] = [texts] if isinstance(texts, str) else texts
        if self.manifest.task != "embedding":
            return self.run(self.encode(batch))
        encodings = self.encoder.tokenize(batch)
        order = np.argsort([len(encoding) for encoding in encodings], kind="stable")
        rows: list[Any] = [None] * len(encodings)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            outputs = self.run(self.encoder.pad_together([encodings[i] for i in chosen]))
            for i, row in zip(chosen, outputs[self.output_names[0]], strict=True):
                rows[i] = row
        return rows[0] if single else np.stack(rows)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The bundle's tokenizer. Raises BundleError where it has none."""
        name = "tokenizer.json"
        if name not in self.manifest.files:
            raise BundleError(f"{self.directory} has no {name}: pass arrays to run()")
        self._unchanged(name)
        content = (self.directory / name).read_bytes()
        return TextEncoder(content, self.manifest.inputs, self.manifest.info, self.manifest.symbols)

    def save(self, directory: Path) -> None:
        """Copy the bundle to a directory that doesn't exist yet."""
        for name in self.manifest.files:
            self._unchanged(name)
        target = Path(directory)
        if target.exists():
            raise BundleError(f"{target} exists already; choose another directory")
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            partial.mkdir(parents=True)
            for name in (*self.manifest.files, MANIFEST):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.directory / name, partial / name)
            partial.rename(target)
        except OSError as error:
            raise BundleError(f"the bundle can't be copied to {target}: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _session(self, graph: str) -> Any:
        session = self._sessions.get(graph)
        if session is None:
            with self._lock:
                session = self._sessions.get(graph)
                if session is None:
                    for name in self.manifest.files:
                        self._unchanged(name)
                    session = open_session(self.directory / graph, self.threads)
                    self._sessions[graph] = session
        return session

    def _unchanged(self, name: str) -> None:
        """What was verified is what is read: sessions are made at a graph's first call, maybe hours later."""
        if _stamp(self.directory / name) != self._stamps[name]:
            raise BundleError(
                f"{self.directory / name} has changed since the bundle was loaded: load it again"
            )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _point(batch: int, length: int, padding: float) -> tuple[float, float, float]:
    return math.log2(max(batch, 1)), math.log2(max(length, 1)), PADDING_WEIGHT * padding
