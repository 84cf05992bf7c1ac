"""What a person sees while a command works: notes and progress on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 2.0  # seconds before a progress bar shows


class Console:
    """Where a command writes. quiet: errors only. json: stdout is left to one JSON value."""

    def __init__(self, quiet: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.json = json
        self._bar: Any = None
        self._task: Any = None
        self._began: dict[str, float] = {}

    def say(self, sentence: str) -> None:
        """A note on stderr."""
        if not self.quiet:
            print(sentence, file=sys.stderr, flush=True)

    def show(self, *renderables: Any) -> None:
        """Results on stdout: rich tables or text."""
        if not self.quiet and not self.json:
            console = _rich(sys.stdout)
            for renderable in renderables:
                console.print(renderable, highlight=False)

    def progress(self, description: str, done: int, total: int) -> None:
        """Work is at `done` of `total`. Shown on a terminal once it has taken two seconds."""
        if self.quiet or not sys.stderr.isatty():
            return
        began = self._began.setdefault(description, time.monotonic())
        if self._bar is None and time.monotonic() - began > PATIENCE:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=_rich(sys.stderr), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(description, total=total)
        if self._bar is not None:
            self._bar.update(self._task, description=description, completed=done, total=total)
        if done >= total:
            self._began.pop(description, None)

    @contextmanager
    def working(self) -> Iterator[Console]:
        """Takes the progress bar down at the end, however it ends."""
        try:
            yield self
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None


def _rich(file: Any) -> Any:
    from rich.console import Console as RichConsole

    # A pipe has no width of its own: give tables room instead of folding them at 80 columns.
    return RichConsole(file=file, width=None if file.isatty() else 200, soft_wrap=False)
