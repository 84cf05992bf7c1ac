"""What makes candidates on a machine of a cluster, one at a time."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....ir.errors import GraphwrightError
from ....ir.host.temporary import TemporaryFolder
from ..front import front
from ..goal import Goal
from ..making import Candidate, Evaluate, Found, found
from ..tried import Tried


@dataclass(frozen=True)
class Ready:
    """A candidate's result on its way. bundle: a tar, where it may be wanted. unfit: why nothing can be made
    on this machine, in a sentence; then found is None."""

    found: Found | None
    bundle: bytes | None = None
    unfit: str = ""


class Worker:
    """Runs as a Ray actor that holds its machine's lease: nothing else of Ray is there while it measures.

    begin: makes what makes candidates, in this process.
    """

    def __init__(self, begin: Callable[[], Evaluate], goal: Goal) -> None:
        self._begin, self._goal = begin, goal
        self._evaluate: Any = None

    def ask(self, name: str) -> Any:
        """What a method of what makes candidates gives, or the sentence of its error."""
        try:
            return getattr(self._ready(), name)(), ""
        except GraphwrightError as error:
            return None, str(error)

    def make(self, candidate: Candidate, known: Sequence[Tried], shared: Any) -> Ready:
        """A candidate made, measured, judged and packed.

        Args:
            shared: what every worker's candidates are told by, as `prepare` of what makes them takes it.
        """
        try:
            evaluate = self._ready()
        except GraphwrightError as error:
            return Ready(None, unfit=str(error))
        if shared is not None:
            evaluate.prepare(shared)
        one = found(evaluate, candidate, known)
        tried = Tried(candidate.number, one.state, {}, values=one.values)
        wanted = one.save is not None and candidate.number in front([*known, tried], self._goal).kept
        return Ready(replace(one, save=None), packed(one.save) if wanted and one.save else None)

    def _ready(self) -> Any:
        if self._evaluate is None:
            self._evaluate = self._begin()
        return self._evaluate


def packed(save: Callable[[Path], None]) -> bytes:
    """A bundle as a tar."""
    with TemporaryFolder() as folder:
        save(Path(folder, "bundle"))
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(Path(folder, "bundle"), "bundle")
        return content.getvalue()


def unpacked(bundle: bytes, path: Path) -> None:
    """Put a bundle at a path, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        archive.extractall(partial, filter="data")
    os.replace(partial / "bundle", path)
    partial.rmdir()
