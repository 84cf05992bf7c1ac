"""ONNX graphs of one program over one copy of the weights; each call runs the one measured fastest for it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.inputs.memory import remembering
from ...ir.spec import InputSpec
from ..bundles.feeds import Feed, check, coordinates
from ..bundles.manifest import DEFAULT, Manifest
from ..runtimes.session import open_session, run_session

PADDING_WEIGHT = 8.0  # an eighth of the batch being padding counts as much as a factor of two in a size


class Nearest:
    """The graph that runs a call: that of the nearest measured workload, by the logarithms of batch and
    length and by the share of padding. The first of several that are equally near.

    Args:
        places: (batch, length, padding) of each workload. graphs: what runs each.
        inputs: of the program.
    """

    def __init__(
        self,
        places: Sequence[tuple[int, int, float]],
        graphs: Sequence[str],
        inputs: Sequence[InputSpec],
    ) -> None:
        self._points, self._graphs, self._inputs = np.array([_point(*p) for p in places]), graphs, inputs

    def __call__(self, feed: Feed) -> str:
        if len(set(self._graphs)) < 2:
            return self._graphs[0] if self._graphs else DEFAULT
        distance = ((self._points - _point(*coordinates(self._inputs, feed))) ** 2).sum(axis=1)
        return self._graphs[int(distance.argmin())]


class Routed:
    """A bundle's graphs. Safe to call from several threads.

    Args:
        directory: the bundle's.
        threads: intra-op threads.
        verify: called before a session is made, at a graph's first call; raises where files have changed.
        bounded: as `load`.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        threads: int | None,
        verify: Callable[[], None],
        bounded: bool = False,
    ) -> None:
        self._directory, self._manifest, self._threads, self._verify = directory, manifest, threads, verify
        self._bounded = bounded
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()
        routes = manifest.dispatch
        places = [(r["batch"], r["length"], r["padding"]) for r in routes]
        self.graph_for = Nearest(places, [manifest.graphs[r["graph"]] for r in routes], manifest.inputs)

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name. Raises InputError naming the input that is missing or does not fit."""
        feed = remembering(self._manifest.inputs, feed)
        check(self._manifest.inputs, self._manifest.symbols, feed)
        session = self._session(self.graph_for(feed))
        return dict(zip(self._manifest.outputs, run_session(session, dict(feed)), strict=True))

    def _session(self, graph: str) -> Any:
        session = self._sessions.get(graph)
        if session is None:
            with self._lock:
                session = self._sessions.get(graph)
                if session is None:
                    self._verify()
                    session = open_session(self._directory / graph, self._threads, patterns=not self._bounded)
                    self._sessions[graph] = session
        return session


def _point(batch: int, length: int, padding: float) -> tuple[float, float, float]:
    return math.log2(max(batch, 1)), math.log2(max(length, 1)), PADDING_WEIGHT * padding
