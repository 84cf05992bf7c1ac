"""PyTorch's contestant of the comparison at the end, loaded while a run begins."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ...backends.measuring.contestants import recognise, size_of, too_large
from ...backends.measuring.process import Worker
from ...ir.program import Program
from .steps import PYTORCH
from .widening import Widened


def source_of(program: Program, wide: Widened | None) -> Path | None:
    """The Hugging Face directory that a program came from; None without one, and where the program was made
    to take calls that PyTorch's would not."""
    source = Path(str(program.info.get("source", "")))
    return source if not (wide and wide.passes) and (source / "config.json").is_file() else None


class Eager:
    """A process that imports PyTorch and loads the model on a core that nothing else uses yet, and then
    waits. In a `with`, which ends it where nobody took it.

    source: the Hugging Face directory; None where PyTorch takes no part. Too large a model is loaded in turn.
    """

    def __init__(self, source: Path | None, threads: int) -> None:
        self._worker: Worker | None = None
        if source is not None and not too_large([size_of(source)]):
            self._worker = Worker(PYTORCH, *recognise(PYTORCH, source), threads, wait=False)

    def wait(self) -> None:
        """Until it is loaded, so that it works beside nothing that is timed.

        Raises:
            MeasureError: it could not load.
        """
        if self._worker is not None:
            self._worker.ready()

    def start(self, name: str, kind: str, path: Path, threads: int) -> Worker:
        """A contestant: this one where it is PyTorch, the first time."""
        if name != PYTORCH or self._worker is None:
            return Worker(name, kind, path, threads)
        worker, self._worker = self._worker, None
        return worker

    def __enter__(self) -> Eager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.close()
