"""What a person sees while a command works: notes and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..ir.errors import GraphwrightError
from ..ir.host.files import why

PATIENCE = 2.0  # seconds of work before a progress bar shows


class Console:
    """Where a command writes. quiet: errors only. json: stdout is left to one JSON value."""

    def __init__(self, quiet: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.json = json
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._state: dict[str, Any] = {}
        self._bar: Any = None

    def say(self, sentence: str) -> None:
        """A note on stderr."""
        if self.quiet:
            return
        with self._lock:
            if self._bar is not None:
                self._bar.console.print(sentence, markup=False, highlight=False)
            else:
                complain(sentence)

    def show(self, *renderables: Any) -> None:
        """Results on stdout: rich tables or text. Raises GraphwrightError where they can't be written."""
        if not self.quiet and not self.json:
            with _output():
                console = _rich(sys.stdout)
                for renderable in renderables:
                    console.print(renderable, markup=False, highlight=False)

    def text(self, text: str) -> None:
        """Text on stdout as it is, whatever else is left away. Raises as `show`."""
        with _output():
            print(text, end="")

    def value(self, value: Any) -> None:
        """One JSON value on stdout, readable in whatever encoding it has. Raises as `show`."""
        unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
        text = json.dumps(_finite(value), indent=2, ensure_ascii=not unicode, allow_nan=False)
        with _output():
            try:
                print(text)
            except UnicodeEncodeError:  # half a character, of a path that is no UTF-8
                print(json.dumps(_finite(value), indent=2, allow_nan=False))

    def progress(self, description: str, done: int = 0, total: int = 0) -> None:
        """Work is at `done` of `total`, 0 where nobody knows. Shown on a terminal after two seconds."""
        if self.quiet or not sys.stderr.isatty():
            return
        with self._lock:
            self._state = {"description": description, "completed": done, "total": total or None}
            if self._bar is not None:
                self._bar.update(0, **self._state)
            elif self._timer is None:
                self._timer = threading.Timer(PATIENCE, self._open)
                self._timer.daemon = True
                self._timer.start()

    @contextmanager
    def working(self) -> Iterator[Console]:
        """Takes the progress bar down at the end, however it ends."""
        try:
            yield self
        finally:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                if self._bar is not None:
                    self._bar.stop()
                    self._bar = None

    def _open(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with self._lock:
            if self._timer is None:
                return
            self._bar = Progress(*columns, console=_rich(sys.stderr), transient=True)
            self._bar.add_task(**self._state)
            self._bar.start()


def complain(sentence: str) -> None:
    """A sentence on stderr, as far as somebody reads it."""
    try:
        print(sentence, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def sentence(error: Exception) -> str:
    """What to tell of an error, whoever raised it."""
    if isinstance(error, GraphwrightError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" for {error.filename}" if error.filename else ""
        return f"no space is left on the disk{where}; no bundle was written"
    if isinstance(error, BlockingIOError) or "can't start new thread" in str(error):
        return "the system allows no further process or thread: raise its limit (ulimit -u, --pids-limit)"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, MemoryError):
        return "not enough memory for this model"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]} (--debug shows where)"


@contextmanager
def _output() -> Iterator[None]:
    """Who stops reading (`| head`) has seen enough; any other fault is one."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # or Python would try again, and fail, at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise GraphwrightError(f"the result can't be printed: {why(error)}") from error


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rich(file: Any) -> Any:
    from rich.console import Console as RichConsole

    # A pipe has no width of its own: give tables room instead of folding them at 80 columns.
    return RichConsole(file=file, width=None if file.isatty() else 200)
